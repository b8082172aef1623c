//! What of which version lies here, for the plane: looked at now and then, on a thread of its own.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use api::HostReport;
use host::{Host, Touched};
use model::VersionId;

use crate::{Agent, PAUSE_MIN};

/// How often: what a host holds changes slowly, and each change is one of the plane's state.
const PACE: Duration = Duration::from_secs(30);
/// What is said is a multiple of this.
const STEP_BYTES: u64 = 1 << 20;

/// What was found last.
#[derive(Debug, Default)]
pub struct Holds(Mutex<BTreeMap<VersionId, Touched>>);

impl Holds {
    /// Looks again. What cannot be read now is as it was.
    fn look(&self, host: &Host) {
        if let Ok(found) = host.touched() {
            *self.0.lock().unwrap_or_else(PoisonError::into_inner) = found;
        }
    }

    /// Says it.
    pub fn say(&self, report: &mut HostReport) {
        let steps = |bytes: u64| bytes.next_multiple_of(STEP_BYTES);
        let found = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for (version, touched) in &*found {
            report.cached.insert(version.to_string(), steps(touched.here_bytes));
            report.needed.insert(version.to_string(), steps(touched.needed_bytes));
        }
    }
}

impl Agent<'_> {
    /// On a thread of its own: the cache's index may be on a slow disk.
    pub fn look_what_it_holds(&self) {
        let mut looked: Option<ambient::Instant> = None;
        while !self.over.load(Ordering::Relaxed) {
            if looked.is_none_or(|looked| looked.elapsed() >= PACE) {
                self.holds.look(self.host);
                looked = Some(ambient::now());
            }
            ambient::sleep(PAUSE_MIN);
        }
    }
}
