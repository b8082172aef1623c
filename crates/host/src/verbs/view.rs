//! `view`: an instance's screen for a viewer that speaks VNC over TCP.
//!
//! QEMU's VNC server listens on a socket in the instance's folder, which only its owner can enter.
//! Many viewers know TCP alone, and on this host's loopback everyone may knock: so the kernel is asked
//! whose socket the other end is, and only the user who asked for the view is let in.
//!
//! Nothing stays: the port is there as long as the command runs.

use std::io;
use std::net::{Ipv4Addr, Shutdown, SocketAddr, SocketAddrV4, TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use model::Name;

use crate::failure::{Failure, Result};
use crate::{Host, socket};

/// Viewers at once; further ones are turned away.
const VIEWERS_MAX: usize = 8;
/// Where the kernel lists TCP connections, and whose they are.
const CONNECTIONS: &str = "/proc/self/net/tcp";

/// A port at which an instance's screen can be seen.
pub struct View {
    host: Host,
    name: Name,
    listener: TcpListener,
    /// The port's address, on the loopback.
    pub address: SocketAddrV4,
    /// QEMU's own socket.
    pub socket: String,
}

impl Host {
    /// Opens a port for an instance's screen; 0 takes a free one.
    pub fn view(self, name: &Name, port: u16) -> Result<View> {
        let shown = self.inspect(name)?;
        if shown.instance.pid.is_none() {
            let (state, hint) = (&shown.instance.state, "`collective resume NAME` starts it");
            return Err(Failure::new("state", format!("{name} is {state}, not running"), hint));
        }
        let Some(socket) = shown.vnc else {
            return Err(Failure::new(
                "state",
                format!("{name} has no screen"),
                "`collective console NAME` attaches to its serial console; a recipe gives a screen by \
                 `display: {}`",
            ));
        };
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port))
            .map_err(|e| Failure::from(e).during(format!("cannot listen at port {port}")))?;
        let SocketAddr::V4(address) = listener.local_addr()? else {
            return Err(Failure::new("internal", "the loopback has no IPv4 address", ""));
        };
        Ok(View { host: self, name: name.clone(), listener, address, socket })
    }
}

impl View {
    /// Lets viewers in, until the instance no longer runs.
    pub fn serve(&self) -> Result<()> {
        let viewers = AtomicUsize::new(0);
        std::thread::scope(|scope| {
            loop {
                let (viewer, peer) = self.listener.accept()?;
                if !self.is_ours(peer) || viewers.load(Ordering::Relaxed) >= VIEWERS_MAX {
                    continue;
                }
                let run = self.host.local(&self.name).run();
                let screen = socket::connect(&run, vmm::VNC_SOCKET).map_err(|e| {
                    Failure::from(e).during(format!("{} shows no screen any more", self.name))
                })?;
                viewers.fetch_add(1, Ordering::Relaxed);
                scope.spawn(|| {
                    let _ = pass(viewer, screen);
                    viewers.fetch_sub(1, Ordering::Relaxed);
                });
            }
        })
    }

    /// Whether the other end is a process of this user.
    fn is_ours(&self, peer: SocketAddr) -> bool {
        let SocketAddr::V4(peer) = peer else { return false };
        let connections = std::fs::read_to_string(CONNECTIONS).unwrap_or_default();
        owner(&connections, peer, self.address) == Some(rustix::process::geteuid().as_raw())
    }
}

/// Whose the connection from `near` to `far` is, in the kernel's list.
fn owner(connections: &str, near: SocketAddrV4, far: SocketAddrV4) -> Option<u32> {
    let written = |address: SocketAddrV4| {
        let ip = u32::from_le_bytes(address.ip().octets());
        format!("{ip:08X}:{:04X}", address.port())
    };
    let (near, far) = (written(near), written(far));
    connections.lines().find_map(|line| {
        let words: Vec<&str> = line.split_whitespace().collect();
        (words.get(1) == Some(&near.as_str()) && words.get(2) == Some(&far.as_str()))
            .then(|| words.get(7)?.parse().ok())?
    })
}

/// Passes bytes both ways until either end is done.
fn pass(viewer: TcpStream, screen: UnixStream) -> io::Result<()> {
    viewer.set_nodelay(true)?;
    // A viewer that takes nothing for this long is gone.
    viewer.set_write_timeout(Some(Duration::from_secs(30)))?;
    let (mut from_viewer, mut to_screen) = (viewer.try_clone()?, screen.try_clone()?);
    let (mut from_screen, mut to_viewer) = (screen, viewer);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let _ = io::copy(&mut from_viewer, &mut to_screen);
            let _ = to_screen.shutdown(Shutdown::Both);
        });
        let _ = io::copy(&mut from_screen, &mut to_viewer);
        let _ = to_viewer.shutdown(Shutdown::Both);
    });
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernel_says_whose_a_connection_is() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let near = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (SocketAddr::V4(near), SocketAddr::V4(far)) =
            (near.local_addr().unwrap(), near.peer_addr().unwrap())
        else {
            unreachable!("both are IPv4");
        };
        let connections = std::fs::read_to_string(CONNECTIONS).unwrap();
        let me = rustix::process::geteuid().as_raw();
        assert_eq!(owner(&connections, near, far), Some(me));
        // Somebody else's, as the kernel would show it.
        let line =
            "1: 0100007F:1234 0100007F:170C 01 00000000:00000000 00:00000000 00000000 1001 0 9";
        let at = |port| SocketAddrV4::new(Ipv4Addr::LOCALHOST, port);
        assert_eq!(owner(line, at(0x1234), at(5900)), Some(1001));
        assert_eq!(owner(line, at(0x1235), at(5900)), None);
        assert_eq!(owner("", at(0x1234), at(5900)), None);
    }
}
