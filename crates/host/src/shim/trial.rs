//! A new version on trial: once its guest is ready, its maker's programs in it are asked.
//!
//! ```text
//! ready ──▶ migrate ──▶ health ──▶ well: the trial is over, written down until that is done
//!   └──────────┴──────────┴─────▶ not: whoever started it goes back; else a process of its own does
//! ```
//!
//! *Invariants.* Whoever started it may die: what was begun comes to its end. One at a time goes back,
//! whoever started it before all others ([`alone`]). Until the guest is
//! well it is not ready, so that whatever is sealed before is still on trial.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::fs::File;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::channel;
use std::time::Duration;

use api::{Reply, Request};
use spans::Span;

use super::guest::Guest;
use super::server::{Door, Message};
use crate::dir::HostDir;
use crate::failure::{Failure, Result};
use crate::local::LocalDir;
use crate::record::Change;
use crate::verbs;

/// Its agent is asked this often whether it is there.
const PERIOD: Duration = Duration::from_millis(200);
/// Between two tries to write down that it is well.
const AGAIN: Duration = Duration::from_secs(10);
/// Held by who starts a new version until it has worked or was undone; the kernel lets go of it when
/// that one dies.
const LOCK: &str = "trial.lock";

thread_local! {
    /// What this thread holds: who goes back with one version may come to start another.
    static HELD: RefCell<BTreeSet<PathBuf>> = const { RefCell::new(BTreeSet::new()) };
}

/// Nobody else starts a new version of an instance on this host, or goes back with it, as long as this
/// lasts.
pub struct Alone(Option<(PathBuf, File)>);

/// Waits until it is so.
pub fn alone(local: &LocalDir) -> Result<Alone> {
    let path = local.path().join(LOCK);
    if HELD.with_borrow(|held| held.contains(&path)) {
        return Ok(Alone(None));
    }
    let lock = File::create(&path)?;
    lock.lock()?;
    HELD.with_borrow_mut(|held| held.insert(path.clone()));
    Ok(Alone(Some((path, lock))))
}

impl Drop for Alone {
    fn drop(&mut self) {
        if let Some((path, _)) = &self.0 {
            HELD.with_borrow_mut(|held| held.remove(path));
        }
    }
}

/// Asks the maker's programs.
fn examine(guest: &Guest, change: &Change) -> Result<()> {
    let within = Duration::from_secs(change.within_s.max(1));
    for (what, program) in
        [("bringing its data to the new form", &change.migrate), ("its own check", &change.health)]
    {
        if program.is_empty() {
            continue;
        }
        let not_ready = |why: String| Failure::new("not_ready", format!("{what} {why}"), "");
        let deadline = ambient::now() + within;
        while !guest.ping() {
            if guest.has_ended() || ambient::now() >= deadline {
                return Err(not_ready("could not be asked: no agent answers in it".to_owned()));
            }
            ambient::sleep(PERIOD);
        }
        let done = guest.exec(program, None, within);
        ambient::step("update: looked at");
        match done {
            Ok(done) if done.exit_code == 0 => {}
            Ok(done) => return Err(not_ready(format!("failed with code {}", done.exit_code))),
            Err(failure) => return Err(not_ready(format!("came to no end: {}", failure.message))),
        }
    }
    Ok(())
}

/// It works: lets the owner write that down, until it has.
fn settle(door: &Door, local: &LocalDir, change: &Change) {
    settle_every(door, local, change, AGAIN);
}

fn settle_every(door: &Door, local: &LocalDir, change: &Change, again: Duration) {
    loop {
        let (reply, replied) = channel();
        if door
            .owner
            .send(Message::Request(Request::Settle, reply, Box::new(Span::part("settle"))))
            .is_err()
        {
            return;
        }
        match replied.recv() {
            Ok(Reply::Failed { error }) => {
                crate::noted::note(local, |noted| noted.well = Some(change.to.to_string()));
                eprintln!("that its new version works is not written down yet: {}", error.message);
                ambient::sleep(again);
            }
            _ => return,
        }
    }
}

/// It does not work, and nobody may be left who would go back.
fn abandon(host: &HostDir, local: &LocalDir, repository: &str, name: &str) {
    loop {
        // Whoever started it goes back, and ends this process; when it is dead, nobody holds this.
        let waited = alone(local).map(drop);
        let gone = waited.and_then(|()| verbs::go_back_by_itself(host, local, repository, name));
        match gone {
            Ok(mut child) => drop(child.wait()),
            Err(failure) => eprintln!("{failure}"),
        }
        ambient::sleep(AGAIN);
    }
}

/// What the examination of one start needs.
pub struct Examination {
    pub change: Change,
    pub host: HostDir,
    pub local: LocalDir,
    pub repository: String,
    pub name: String,
    pub door: Door,
}

impl Examination {
    /// Asks, once the guest is ready.
    pub fn hold(&self, guest: &Arc<Guest>) -> Result<()> {
        examine(guest, &self.change)
    }

    /// What is done about the outcome, after it was said.
    pub fn conclude(&self, is_well: bool) {
        if is_well {
            settle(&self.door, &self.local, &self.change);
        } else {
            abandon(&self.host, &self.local, &self.repository, &self.name);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::Receiver;

    use super::*;
    use crate::failure::Failure;
    use crate::shim::shared::Shared;
    use model::{Name, VersionId};

    /// An owner that cannot write it down at first.
    fn owner(queue: &Receiver<Message>, failures: usize) -> usize {
        let mut asked = 0;
        while let Ok(Message::Request(Request::Settle, reply, _)) = queue.recv() {
            asked += 1;
            let failure = Failure::new("unavailable", "away", "");
            let _ = reply.send(match asked > failures {
                true => Reply::Done { checkpoint: None },
                false => Reply::Failed { error: failure.body() },
            });
        }
        asked
    }

    #[test]
    fn what_is_well_is_remembered_until_it_can_be_written_down() {
        let folder = tempfile::tempdir().unwrap();
        let host = HostDir::open(folder.path()).unwrap();
        let local = LocalDir::new(&host, &Name::new("n1").unwrap());
        std::fs::create_dir_all(local.path()).unwrap();
        let (to, other) = (VersionId::from_bytes([2; 32]), VersionId::from_bytes([1; 32]));
        let change = Change {
            from: other,
            to,
            back: None,
            tried: true,
            within_s: 1,
            migrate: vec!["/migrate".to_owned()],
            health: Vec::new(),
        };
        let (sender, queue) = channel();
        let (name, shared) = (Arc::from("t1"), Arc::new(Shared::default()));
        let door = Door { name, shared, owner: sender, guest: Arc::default() };
        let asked = std::thread::spawn(move || owner(&queue, 2));
        settle_every(&door, &local, &change, Duration::from_millis(1));
        // Whoever is killed now does not bring the data to its new form a second time, or go back.
        assert!(crate::noted::is_well(&local, to) && !crate::noted::is_well(&local, other));
        drop(door);
        assert_eq!(asked.join().unwrap(), 3, "until it was done, and no longer");
    }

    #[test]
    fn who_goes_back_waits_for_who_started_it_and_for_nobody_who_is_dead() {
        let folder = tempfile::tempdir().unwrap();
        let host = HostDir::open(folder.path()).unwrap();
        let local = LocalDir::new(&host, &Name::new("n1").unwrap());
        assert!(alone(&local).is_err(), "an instance that is not here is not made anew");
        std::fs::create_dir_all(local.path()).unwrap();
        let first = alone(&local).unwrap();
        // Its own steps are its own.
        drop(alone(&local).unwrap());
        let (told, tells) = channel();
        let waits = LocalDir::new(&host, &Name::new("n1").unwrap());
        let second = std::thread::spawn(move || {
            let _alone = alone(&waits).unwrap();
            told.send(()).unwrap();
        });
        assert!(tells.recv_timeout(Duration::from_millis(200)).is_err(), "it waits");
        drop(first);
        assert_eq!(tells.recv_timeout(Duration::from_secs(20)), Ok(()));
        second.join().unwrap();
    }
}
