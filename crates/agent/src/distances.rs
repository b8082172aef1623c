//! How far this host is from other sites: the round trip to a host there that gives chunks, as a connection by TCP
//! needs it to begin.
//!
//! A site's users are taken to be where its hosts are: nobody measures a person. What was measured stays known when
//! that host is gone: then it is wanted most, and the way is as long as before.
//!
//! *Bounds:* [`SITES_MAX`] sites, one after the other; each by [`TRIES`] connections of [`PATIENCE`] at most.

use std::collections::BTreeMap;
use std::net::{SocketAddr, TcpStream};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// How often it is measured.
pub const PACE: Duration = Duration::from_secs(30);
/// Of these the shortest counts: what is longer has waited on the way.
const TRIES: usize = 3;
const PATIENCE: Duration = Duration::from_secs(1);
const SITES_MAX: usize = 64;
/// What was measured longer ago is not known any more.
const KEPT: Duration = Duration::from_secs(24 * 3600);

/// See the module's documentation.
#[derive(Debug, Default)]
pub struct Distances(Mutex<BTreeMap<String, (ambient::Instant, u64)>>);

impl Distances {
    /// Of each site, as it was measured last, microseconds.
    pub fn seen(&self) -> BTreeMap<String, u64> {
        let known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        known.iter().map(|(site, (_, us))| (site.clone(), *us)).collect()
    }

    /// Measures the way to these: a site, and the address of a host there.
    pub fn measure(&self, sites: &BTreeMap<String, String>) {
        let measured = sites.iter().take(SITES_MAX).filter_map(|(site, address)| {
            let us = round_trip(address.parse().ok()?)?.as_micros() as u64;
            Some((site.clone(), (ambient::now(), us)))
        });
        let measured: Vec<_> = measured.collect();
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        known.extend(measured);
        known.retain(|_, (at, _)| at.elapsed() < KEPT);
        // Sites come and go: those that were not measured for longest are left out.
        while known.len() > SITES_MAX {
            let oldest = known.iter().min_by_key(|(_, (at, _))| *at).map(|(site, _)| site.clone());
            oldest.and_then(|site| known.remove(&site));
        }
    }
}

fn round_trip(to: SocketAddr) -> Option<Duration> {
    let once = || {
        let began = ambient::now();
        // Closed at once: who listens there hears nothing of it.
        TcpStream::connect_timeout(&to, PATIENCE).ok().map(|_| began.elapsed())
    };
    // One that is not there is not waited for again.
    let first = once()?;
    (1..TRIES).filter_map(|_| once()).chain([first]).min()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_answers_is_measured_and_stays_known_when_gone() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let here = listener.local_addr().unwrap().to_string();
        let gone = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let sites = |sites: &[(&str, &str)]| {
            let owned = sites.iter().map(|(site, at)| (site.to_string(), at.to_string()));
            owned.collect::<BTreeMap<_, _>>()
        };
        let distances = Distances::default();
        let gone = gone.to_string();
        distances.measure(&sites(&[("home", &here), ("work", &gone), ("moon", "no address")]));
        let seen = distances.seen();
        assert_eq!(seen.keys().collect::<Vec<_>>(), ["home"]);
        assert!(seen["home"] < 1_000_000, "{seen:?}");
        // Who is gone now was as far as it was.
        drop(listener);
        distances.measure(&sites(&[("home", &here), ("work", &gone)]));
        assert_eq!(distances.seen(), seen);
    }
}
