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
//! machine sleeps, and is shorter by a second (a quarter, of a short one): who looks five times a second
//! has stopped a guest before the plane counts the lease as over.
//! *After a restart of the machine* the file is void: nothing runs then.

use std::collections::BTreeSet;
use std::fs::File;
use std::time::Duration;

use model::Name;
use rustix::fs::FlockOperation;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::Host;
use crate::dir::{self, HostDir};
use crate::failure::{Failure, Result};

const FOLDER: &str = "plane";
const FILE: &str = "lease.json";
/// Who this host is to its plane; its agent writes it.
const IDENTITY: &str = "identity.json";
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
    /// Counts how often the plane has begun it anew: what runs has to be claimed again each time.
    term: u64,
    /// The instances that run by its leave.
    instances: BTreeSet<String>,
}

/// The host stops by so much before the plane may go on without it.
const MARGIN: Duration = Duration::from_secs(1);

impl HostLease {
    /// One whose beat was sent at `sent` (by [`ambient::since_boot`]).
    pub fn new(sent: Duration, lasts: Duration, term: u64, instances: BTreeSet<String>) -> Self {
        Self {
            format: FORMAT,
            boot: boot(),
            ends_ms: (sent + lasts - MARGIN.min(lasts / 4)).as_millis() as u64,
            term,
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

    /// How often the plane has begun it anew.
    pub fn term(&self) -> u64 {
        self.term
    }

    /// How long it lasts from one beat.
    pub fn lasts(&self) -> Duration {
        Duration::from_millis(self.lasts_ms)
    }
}

impl HostDir {
    /// Whether this host has joined a plane.
    pub(crate) fn has_a_plane(&self) -> bool {
        self.root().join(FOLDER).join(IDENTITY).exists()
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

    /// Held by the one agent of this host.
    pub fn only_agent(&self) -> Result<File> {
        let lock = File::create(self.dir.folder(FOLDER)?.join("lock"))?;
        if rustix::fs::flock(&lock, FlockOperation::NonBlockingLockExclusive).is_err() {
            let hint = "`collective host join` or `collective up` runs on this host already";
            return Err(Failure::new("state", "this host takes part already", hint));
        }
        Ok(lock)
    }

    /// Lets no plane have a say here any more, and forgets who this host was to it.
    pub fn leave_plane(&self) -> Result<()> {
        let _only = self.only_agent()?;
        HostLease::remove(&self.dir)?;
        // What has ended is nobody's to count any more; what runs writes no more of it.
        let runs = self.metered()?.into_iter().map(|metered| metered.run.run);
        self.forget_metered(&runs.collect())?;
        for file in [IDENTITY, "peers.json", "planes.json"] {
            match std::fs::remove_file(self.dir.root().join(FOLDER).join(file)) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                    return Err(error.into());
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// Keeps something about its plane.
    pub fn write_for_plane<T: Serialize>(&self, file: &str, value: &T) -> Result<()> {
        dir::replace_json(&self.dir.folder(FOLDER)?.join(file), value)
    }
}

/// Which start of the machine this is.
pub(crate) fn boot() -> String {
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
        let lease = HostLease::new(ambient::since_boot(), lasts, 3, ["web".to_owned()].into());
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
