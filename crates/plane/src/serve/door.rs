//! Who may be connected at one time.
//!
//! ```text
//! accepted ──▶ stranger ──a certificate, or a token that counts──▶ known
//!                 │
//!                 └─ too many of one peer's, or too slow: closed
//! ```
//!
//! Callers that are known have places of their own, so that strangers, however many, cannot take them:
//! hosts go on to say that they are there. A stranger has [`Bounds::time`] from being accepted to
//! being known, whatever it does meanwhile.
//!
//! **Invariant:** of one peer (an IPv4 address, or 64 bits of an IPv6 one) there are at most
//! [`Bounds::of_one_peer`] strangers, and of all together [`Bounds::strangers`].

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// See the module's documentation.
#[derive(Debug, Clone, Copy)]
pub struct Bounds {
    pub known: usize,
    pub strangers: usize,
    pub of_one_peer: usize,
    pub time: Duration,
}

impl Default for Bounds {
    fn default() -> Self {
        // Each that is known may be a host that waits for an order, on a thread that sleeps.
        Self { known: 2048, strangers: 1024, of_one_peer: 64, time: Duration::from_secs(20) }
    }
}

/// See the module's documentation.
#[derive(Debug)]
pub struct Door {
    pub bounds: Bounds,
    strangers: Mutex<HashMap<IpAddr, usize>>,
    known: Arc<Semaphore>,
}

impl Door {
    pub fn new(bounds: Bounds) -> Arc<Self> {
        let known = Arc::new(Semaphore::new(bounds.known));
        Arc::new(Self { bounds, strangers: Mutex::default(), known })
    }

    /// Lets a stranger in, or not.
    pub fn enter(self: &Arc<Self>, peer: IpAddr) -> Option<Guest> {
        let peer = network(peer);
        let mut strangers = self.strangers.lock().unwrap_or_else(PoisonError::into_inner);
        let all: usize = strangers.values().sum();
        let of_it = strangers.entry(peer).or_default();
        if *of_it >= self.bounds.of_one_peer || all >= self.bounds.strangers {
            if *of_it == 0 {
                strangers.remove(&peer);
            }
            return None;
        }
        *of_it += 1;
        let stranger = Stranger { door: self.clone(), peer };
        let place = Mutex::new(Place::Stranger { _place: stranger });
        Some(Guest { door: self.clone(), place, is_known: AtomicBool::new(false) })
    }
}

/// What counts as one peer: who has one IPv6 address has 2^64.
pub fn network(peer: IpAddr) -> IpAddr {
    match peer.to_canonical() {
        IpAddr::V6(address) => {
            IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() & !u128::from(u64::MAX)))
        }
        address => address,
    }
}

#[derive(Debug)]
enum Place {
    Stranger { _place: Stranger },
    Known { _place: OwnedSemaphorePermit },
}

#[derive(Debug)]
struct Stranger {
    door: Arc<Door>,
    peer: IpAddr,
}

impl Drop for Stranger {
    fn drop(&mut self) {
        let mut strangers = self.door.strangers.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(of_it) = strangers.get_mut(&self.peer) {
            *of_it -= 1;
            if *of_it == 0 {
                strangers.remove(&self.peer);
            }
        }
    }
}

/// A connection that was let in.
#[derive(Debug)]
pub struct Guest {
    door: Arc<Door>,
    place: Mutex<Place>,
    is_known: AtomicBool,
}

impl Guest {
    pub fn is_known(&self) -> bool {
        self.is_known.load(Ordering::Relaxed)
    }

    /// It has shown who it is; false when there is no place for one more.
    pub fn shown(&self) -> bool {
        if self.is_known() {
            return true;
        }
        let Ok(place) = self.door.known.clone().try_acquire_owned() else { return false };
        *self.place.lock().unwrap_or_else(PoisonError::into_inner) = Place::Known { _place: place };
        self.is_known.store(true, Ordering::Relaxed);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strangers_take_no_place_of_who_is_known() {
        let time = Duration::from_secs(1);
        let door = Door::new(Bounds { known: 2, strangers: 5, of_one_peer: 3, time });
        let enter = |peer: &str| door.enter(peer.parse().unwrap());
        let mut flood: Vec<_> = (0..9).filter_map(|_| enter("192.0.2.1")).collect();
        assert_eq!(flood.len(), 3);
        // One network is one peer.
        let others: Vec<_> = (1..9).filter_map(|n| enter(&format!("2001:db8::{n}"))).collect();
        assert_eq!(others.len(), 2, "all together");
        assert!(enter("192.0.2.2").is_none());
        // Who is known makes room, and comes in again.
        assert!(flood[0].shown() && flood[0].shown());
        let second = enter("192.0.2.1").unwrap();
        assert!(second.shown());
        let third = enter("192.0.2.1").unwrap();
        assert!(!third.shown(), "two places");
        flood.remove(0);
        assert!(third.shown());
        drop((flood, others, second, third));
        assert!(door.strangers.lock().unwrap().is_empty());
    }
}
