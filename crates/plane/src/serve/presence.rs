//! Planes that share a state say in it where they are found: whose plane is gone goes on with another.
//!
//! ```text
//! planes/ID = where, by a lease ──▶ in the answer to each beat ──▶ hosts keep it, and try the next
//!                               ──▶ in a header of answers     ──▶ so does the CLI
//! ```
//!
//! **Invariant:** a plane that has ended or does not reach its state is not named when [`TERM`] is over.
//! *On a crash* it is named until then; a host that asks it goes on to the next.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use kv::{KvError, LeaseId, Txn};

use super::state::json;
use super::{Plane, Refused};

/// For how long a plane is named that says nothing.
const TERM: Duration = Duration::from_secs(15);
/// How often it says it.
const PACE: Duration = Duration::from_secs(5);
/// How soon it is done when it ends.
const STEP: Duration = Duration::from_millis(50);
/// So old may be what the CLI is told.
const LATELY: Duration = Duration::from_secs(5);
/// Most planes that are told of.
const NAMED_MAX: usize = 16;
/// What the state keeps of it.
const PLANES: &str = "planes/";

/// A plane that says where it is, until this is dropped.
#[derive(Debug)]
pub struct Presence {
    over: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Presence {
    pub fn begin(plane: Arc<Plane>, url: String) -> std::io::Result<Self> {
        let over = Arc::new(AtomicBool::new(false));
        let ends = over.clone();
        let thread = ambient::spawn("presence".to_owned(), move || {
            let id: [u8; 8] = ambient::random();
            let key = format!("{PLANES}{:016x}", u64::from_le_bytes(id));
            let (mut lease, mut said) = (None, None);
            while !ends.load(Ordering::Relaxed) {
                if said.is_none_or(|said: ambient::Instant| said.elapsed() >= PACE) {
                    // What does not work now is said with the next.
                    let _ = plane.say_where(&key, &url, &mut lease);
                    said = Some(ambient::now());
                }
                ambient::sleep(STEP);
            }
            if let Some(lease) = lease {
                let _ = plane.kv.revoke(lease);
            }
        })?;
        Ok(Self { over, thread: Some(thread) })
    }
}

impl Drop for Presence {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Plane {
    fn say_where(&self, key: &str, url: &str, lease: &mut Option<LeaseId>) -> Result<(), KvError> {
        match lease.map(|lease| self.kv.keep_alive(lease)) {
            Some(Ok(())) => return Ok(()),
            Some(Err(KvError::LeaseGone)) | None => {}
            Some(Err(error)) => return Err(error),
        }
        *lease = None;
        let granted = self.kv.grant(TERM)?;
        self.kv.commit(&Txn::new().put_leased(key, json(&url), granted))?;
        *lease = Some(granted);
        Ok(())
    }

    /// Where all planes of this state are, as far as they say so.
    pub(super) fn planes(&self) -> Result<Vec<String>, Refused> {
        let entries = self.kv.list(PLANES)?.entries;
        let mut urls = entries.iter().map(super::state::read).collect::<Result<Vec<_>, _>>()?;
        urls.sort();
        urls.dedup();
        urls.truncate(NAMED_MAX);
        Ok(urls)
    }

    /// The same as of a moment ago: it goes with each answer. While the state does not say it, as it was.
    pub(super) fn planes_lately(&self) -> Arc<Vec<String>> {
        let seen = || self.planes_seen.lock().unwrap_or_else(PoisonError::into_inner);
        let (read, planes) = seen().clone();
        if read.is_some_and(|read: ambient::Instant| read.elapsed() < LATELY) {
            return planes;
        }
        // Read by one of those who come now.
        seen().0 = Some(ambient::now());
        match self.planes() {
            Ok(planes) => {
                let planes = Arc::new(planes);
                seen().1 = planes.clone();
                planes
            }
            Err(_) => planes,
        }
    }
}
