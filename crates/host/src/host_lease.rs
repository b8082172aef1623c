//! `plane/lease.json`: how long this host may run what a plane has given it.
//!
//! The agent writes it after each beat that the plane answered, and shims read it: a host whose agent
//! is dead stops by itself too.
//!
//! ```text
//! no file, or not named in it ──▶ nobody's leave is needed
//! its time lasts              ──▶ may run
//! its time is over            ──▶ pauses, then suspends (see `shim/fence.rs`)
//! ```
//!
//! **Invariant:** its time is counted from when the beat was *sent*, by a clock that goes on while the
//! machine sleeps: it is never over later than the plane believes.
//! *After a restart of the machine* the file is void: nothing runs then.

use std::collections::BTreeSet;
use std::time::Duration;

use model::Name;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::Host;
use crate::dir::{self, HostDir};
use crate::failure::Result;

const FOLDER: &str = "plane";
const FILE: &str = "lease.json";
const FORMAT: u32 = 1;

/// A host's lease of a plane.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostLease {
    format: u32,
    /// Which start of the machine the times are counted from.
    boot: String,
    /// When it ends, milliseconds since then.
    ends_ms: u64,
    /// How long it lasts from one beat, milliseconds.
    lasts_ms: u64,
    /// The instances that run by its leave.
    instances: BTreeSet<String>,
}

impl HostLease {
    /// One whose beat was sent at `sent` (by [`ambient::since_boot`]).
    pub fn new(sent: Duration, lasts: Duration, instances: BTreeSet<String>) -> Self {
        Self {
            format: FORMAT,
            boot: boot(),
            ends_ms: (sent + lasts).as_millis() as u64,
            lasts_ms: lasts.as_millis() as u64,
            instances,
        }
    }

    /// Writes it for the shims of this host.
    pub fn write(&self, host: &HostDir) -> Result<()> {
        dir::replace_passing(&host.folder(FOLDER)?.join(FILE), self)
    }

    /// What was written last; none when no plane was joined.
    pub fn read(host: &HostDir) -> Result<Option<Self>> {
        let file = host.root().join(FOLDER).join(FILE);
        if !file.exists() {
            return Ok(None);
        }
        dir::decode(&file).map(Some)
    }

    /// No plane has a say here any more.
    pub fn remove(host: &HostDir) -> Result<()> {
        match std::fs::remove_file(host.root().join(FOLDER).join(FILE)) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error.into()),
            _ => Ok(()),
        }
    }

    /// Whether this instance runs by its leave.
    pub fn is_about(&self, name: &Name) -> bool {
        self.instances.contains(name.as_str())
    }

    /// How long ago its time ended; none while it lasts.
    pub fn over_for(&self) -> Option<Duration> {
        let now = ambient::since_boot().as_millis() as u64;
        if self.boot != boot() {
            return Some(Duration::from_millis(now));
        }
        now.checked_sub(self.ends_ms).map(Duration::from_millis)
    }

    /// How long it lasts from one beat.
    pub fn lasts(&self) -> Duration {
        Duration::from_millis(self.lasts_ms)
    }
}

impl Host {
    /// What this host keeps about its plane, durably and for its owner only; none: nothing.
    pub fn read_for_plane<T: DeserializeOwned>(&self, file: &str) -> Result<Option<T>> {
        let file = self.dir.root().join(FOLDER).join(file);
        if !file.exists() {
            return Ok(None);
        }
        dir::decode(&file).map(Some)
    }

    /// Keeps something about its plane.
    pub fn write_for_plane<T: Serialize>(&self, file: &str, value: &T) -> Result<()> {
        dir::replace_json(&self.dir.folder(FOLDER)?.join(file), value)
    }
}

/// Which start of the machine this is.
fn boot() -> String {
    let read = std::fs::read_to_string("/proc/sys/kernel/random/boot_id");
    read.map(|id| id.trim().to_owned()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_ends_by_itself_and_is_about_those_that_it_names() {
        let folder = tempfile::tempdir().unwrap();
        let host = HostDir::open(folder.path()).unwrap();
        assert_eq!(HostLease::read(&host).unwrap(), None);
        let (web, other) = (Name::new("web").unwrap(), Name::new("other").unwrap());
        let lasts = Duration::from_millis(200);
        let lease = HostLease::new(ambient::since_boot(), lasts, ["web".to_owned()].into());
        lease.write(&host).unwrap();
        let read = HostLease::read(&host).unwrap().unwrap();
        assert_eq!(read, lease);
        assert!(read.is_about(&web) && !read.is_about(&other));
        assert_eq!(read.over_for(), None);
        std::thread::sleep(lasts);
        assert!(read.over_for().is_some_and(|over| over < Duration::from_secs(60)));
        // Of another start of the machine.
        let old = HostLease { boot: "x".to_owned(), ends_ms: u64::MAX, ..lease };
        assert!(old.over_for().is_some());
        HostLease::remove(&host).unwrap();
        HostLease::remove(&host).unwrap();
        assert_eq!(HostLease::read(&host).unwrap(), None);
    }
}
