//! Who may try to log in, and how often: each try makes the plane ask the provider, and each that is
//! refused is written down.
//!
//! **Invariant:** of one peer at most [`REFUSED_MAX`] tries are refused within [`WINDOW`]; then none is
//! made for it until that is over. Logins that work are not counted.
//! **Invariant:** at most [`AT_ONCE`] are under way.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use super::Refused;
use super::door::network;

const AT_ONCE: usize = 32;
const REFUSED_MAX: u32 = 10;
const WINDOW: Duration = Duration::from_secs(60);
/// Peers that are remembered.
const PEERS_MAX: usize = 4096;

/// See the module's documentation.
#[derive(Debug, Default)]
pub struct Gate {
    under_way: AtomicUsize,
    /// When the window of a peer began, and how many were refused in it.
    refused: Mutex<HashMap<IpAddr, (ambient::Instant, u32)>>,
}

/// A try that is under way.
#[derive(Debug)]
pub struct Try<'a> {
    gate: &'a Gate,
    peer: IpAddr,
}

impl Gate {
    /// Lets somebody try, or not now.
    pub fn enter(&self, from: Option<IpAddr>) -> Result<Try<'_>, Refused> {
        let peer = network(from.unwrap_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED)));
        let not_now = |detail: &str| Err(Refused::new(429, "state", detail, "try it in a minute"));
        let refused = self.refused.lock().unwrap_or_else(PoisonError::into_inner);
        let is_over = |at: &ambient::Instant| at.elapsed() >= WINDOW;
        if refused.get(&peer).is_some_and(|(at, count)| !is_over(at) && *count >= REFUSED_MAX) {
            return not_now("too many logins from there were refused");
        }
        drop(refused);
        let entered = Try { gate: self, peer };
        if self.under_way.fetch_add(1, Ordering::Relaxed) >= AT_ONCE {
            return not_now("too many log in at this moment");
        }
        Ok(entered)
    }
}

impl Try<'_> {
    /// It was refused.
    pub fn refused(&self) {
        let mut refused = self.gate.refused.lock().unwrap_or_else(PoisonError::into_inner);
        if refused.len() >= PEERS_MAX {
            refused.retain(|_, (at, _)| at.elapsed() < WINDOW);
        }
        if refused.len() >= PEERS_MAX {
            // So many peers within a minute: who began first is forgotten first.
            let first = refused.iter().max_by_key(|(_, (at, _))| at.elapsed());
            first.map(|(peer, _)| *peer).and_then(|peer| refused.remove(&peer));
        }
        let window = refused.entry(self.peer).or_insert_with(|| (ambient::now(), 0));
        if window.0.elapsed() >= WINDOW {
            *window = (ambient::now(), 0);
        }
        window.1 += 1;
    }
}

impl Drop for Try<'_> {
    fn drop(&mut self) {
        self.gate.under_way.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_is_refused_often_waits_and_nobody_else() {
        let gate = Gate::default();
        let from = |peer: &str| gate.enter(Some(peer.parse().unwrap()));
        for _ in 0..REFUSED_MAX {
            from("2001:db8::1").unwrap().refused();
        }
        assert_eq!(from("2001:db8::2").unwrap_err().status, 429, "one network is one peer");
        from("2001:db8:0:1::1").unwrap();
        for _ in 0..100 {
            from("192.0.2.1").unwrap();
        }
        let all: Vec<_> = (0..AT_ONCE).map(|_| from("192.0.2.1").unwrap()).collect();
        assert_eq!(from("192.0.2.1").unwrap_err().status, 429);
        drop(all);
        from("192.0.2.1").unwrap();
        // However many come, few are remembered.
        for n in 0..=PEERS_MAX as u32 {
            gate.enter(Some(IpAddr::V4(Ipv4Addr::from_bits(n)))).unwrap().refused();
        }
        assert!(gate.refused.lock().unwrap().len() <= PEERS_MAX);
    }
}
