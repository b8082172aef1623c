//! A new version on trial: once its guest is ready, its maker's programs in it are asked.
//!
//! ```text
//! ready ──▶ migrate ──▶ health ──▶ well: the trial is over, written down until that is done
//!   └──────────┴──────────┴─────▶ not: whoever started it goes back; else a process of its own does
//! ```
//!
//! *Invariants.* Whoever started it may die: what was begun comes to its end. Until the guest is
//! well it is not ready, so that whatever is sealed before is still on trial.

use std::sync::Arc;
use std::sync::mpsc::channel;
use std::time::Duration;

use api::{Reply, Request};

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
/// Whoever was told that it does not work has begun to go back after this long, or is dead.
const GOES_BACK: Duration = Duration::from_secs(60);

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
    loop {
        let (reply, replied) = channel();
        if door.owner.send(Message::Request(Request::Settle, reply)).is_err() {
            return;
        }
        match replied.recv() {
            Ok(Reply::Failed { error }) => {
                crate::noted::note(local, |noted| noted.well = Some(change.to.to_string()));
                eprintln!("that its new version works is not written down yet: {}", error.message);
                ambient::sleep(AGAIN);
            }
            _ => return,
        }
    }
}

/// It does not work, and nobody may be left who would go back.
fn abandon(host: &HostDir, local: &LocalDir, repository: &str, name: &str, door: &Door) {
    let mut told = door.shared.await_told(AGAIN);
    loop {
        if told {
            ambient::sleep(GOES_BACK);
        }
        told = true;
        match verbs::go_back_by_itself(host, local, repository, name) {
            Ok(mut child) => drop(child.wait()),
            Err(failure) => eprintln!("{failure}"),
        }
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
            abandon(&self.host, &self.local, &self.repository, &self.name, &self.door);
        }
    }
}
