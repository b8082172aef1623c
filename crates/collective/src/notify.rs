//! What a service tells its starter (sd_notify(3)): a datagram to the socket that `NOTIFY_SOCKET` names.
//!
//! Without one nothing is said. What cannot be sent is not waited for: the service goes on, and whoever
//! started it decides.

use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::Duration;

/// It serves.
pub const READY: &str = "READY=1";
/// It is alive.
pub const WATCHDOG: &str = "WATCHDOG=1";

/// Says something.
pub fn notify(what: &str) {
    let Some(place) = std::env::var("NOTIFY_SOCKET").ok().filter(|place| !place.is_empty()) else {
        return;
    };
    let address = match place.strip_prefix('@') {
        Some(name) => SocketAddr::from_abstract_name(name),
        None => SocketAddr::from_pathname(&place),
    };
    if let (Ok(address), Ok(socket)) = (address, UnixDatagram::unbound())
        && socket.set_nonblocking(true).is_ok()
    {
        let _ = socket.send_to_addr(what.as_bytes(), &address);
    }
}

/// How often it has to say that it is alive; none: nobody counts on it.
pub fn watchdog() -> Option<Duration> {
    let number = |name: &str| std::env::var(name).ok()?.parse::<u64>().ok();
    let own = number("WATCHDOG_PID").is_none_or(|pid| pid == u64::from(std::process::id()));
    number("WATCHDOG_USEC").filter(|usec| own && *usec > 0).map(Duration::from_micros)
}
