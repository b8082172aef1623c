//! What the plane has granted this host, and for how long.

use std::collections::BTreeSet;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use api::BeatReply;
use host::{Failure, Host, HostLease};
use model::Name;

/// Nothing is begun when the lease lasts less than this.
const MARGIN: Duration = Duration::from_millis(500);

/// See the module's documentation.
#[derive(Default)]
pub struct Tenure(Mutex<Inner>);

#[derive(Default)]
struct Inner {
    /// When the last beat that was answered was sent, and how long that lasts.
    granted: Option<(Duration, Duration)>,
    /// What the plane has said of instances here.
    managed: BTreeSet<String>,
    /// What is being started; the next answer names it.
    beginning: BTreeSet<String>,
    /// How often the plane has begun the lease anew; none: not known yet.
    term: Option<u64>,
}

impl Tenure {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        // Every critical section leaves it whole.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The plane has answered a beat that was sent then.
    pub fn granted(&self, host: &Host, sent: Duration, reply: &BeatReply) -> Result<(), Failure> {
        let mut inner = self.lock();
        // Answers can overtake each other.
        if inner.granted.is_none_or(|(last, _)| last < sent) {
            inner.granted = Some((sent, Duration::from_millis(reply.lease_ms)));
            inner.managed = reply.managed.iter().cloned().collect();
        }
        // What an agent before this one has written goes on.
        let before = match inner.term {
            Some(term) => term,
            None => host.kept_lease()?.map_or(0, |lease| lease.term()),
        };
        inner.term = Some(before + u64::from(reply.begun_again));
        inner.keep(host)
    }

    /// An instance is about to be started by the plane's leave; no when that is over.
    pub fn begins(&self, host: &Host, name: &Name) -> Result<bool, Failure> {
        let mut inner = self.lock();
        let ends = inner.granted.map(|(sent, lasts)| sent + lasts);
        if ends.is_none_or(|ends| ambient::since_boot() + MARGIN >= ends) {
            return Ok(false);
        }
        inner.beginning.insert(name.to_string());
        inner.keep(host)?;
        Ok(true)
    }

    /// Its start has come to an end, and a beat has said so.
    pub fn begun(&self, name: &Name) {
        self.lock().beginning.remove(name.as_str());
    }
}

impl Inner {
    fn keep(&self, host: &Host) -> Result<(), Failure> {
        let Some((sent, lasts)) = self.granted else { return Ok(()) };
        let instances = self.managed.union(&self.beginning).cloned().collect();
        let term = self.term.unwrap_or(0);
        host.keep_lease(&HostLease::new(sent, lasts, term, instances))
    }
}
