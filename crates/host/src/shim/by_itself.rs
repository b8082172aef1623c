//! Automatic checkpoints of a running instance, as its owner takes them.
//!
//! *Invariants.* None is taken before the guest's start has come to its end, nor while it is paused,
//! held or waits for a page, nor before the repository has what it came with. Whether the repository answers and the lease is still ours is asked
//! before the guest is stopped. A failure is told once, tried again, and harms nobody: what was
//! frozen for it stays in the volumes, for the next.

use std::time::Duration;

use super::owner::End;
use super::running::Running;
use super::seal::Outcome;
use super::shared::Shared;
use super::timer::Timer;
use crate::failure::{Failure, Result};
use crate::record::Why;
use crate::verbs::auto_print;

/// The owner looks at least this often.
const LOOK: Duration = Duration::from_millis(500);

/// What the owner knows of them.
pub struct ByItself {
    timer: Timer,
    last_unix_ms: Option<u64>,
    failing: Option<Failure>,
}

impl ByItself {
    pub fn new(running: &Running, shared: &Shared) -> Self {
        let timer = Timer::new(running.policy(), ambient::now());
        let this = Self { timer, last_unix_ms: None, failing: None };
        this.tell(running, shared);
        this
    }

    /// How long the owner may wait for a request.
    pub fn wait(&self) -> Duration {
        let left = self.timer.due().map(|due| due.saturating_duration_since(ambient::now()));
        // Not at once, when it is due and may not be taken yet.
        left.map_or(LOOK, |left| left.clamp(Duration::from_millis(10), LOOK))
    }

    /// Takes one when it is due; says how the instance ended if it did.
    pub fn step(&mut self, running: &mut Running, shared: &Shared) -> Option<End> {
        let now = ambient::now();
        let is_due = self.timer.is_due(now, || running.volumes.dirtied_bytes());
        let may = shared.state() == "running"
            && !shared.is_stalled()
            && shared.has_settled()
            && running.landing.is_none();
        if !is_due || !may || running.guest().has_ended() {
            return None;
        }
        let result = still_ours(running).and_then(|()| running.checkpoint(None, Why::Auto));
        match result {
            Ok(Outcome::Advanced(_)) => self.taken(running, shared, now),
            Ok(Outcome::Branched(print)) => {
                let (result, end) = super::owner::fenced(running, &print, shared);
                if let Err(failure) = result {
                    eprintln!("{failure}");
                }
                return end;
            }
            Err(failure) => {
                if self.timer.failed(now, now.elapsed()) {
                    eprintln!("no checkpoint was taken by itself, it is tried again: {failure}");
                }
                self.failing = Some(failure);
                self.tell(running, shared);
            }
        }
        None
    }

    /// A checkpoint was taken, by itself or because somebody asked.
    pub fn taken(&mut self, running: &Running, shared: &Shared, began: ambient::Instant) {
        self.timer.taken(began, began.elapsed());
        if self.failing.take().is_some() {
            eprintln!("checkpoints are taken by themselves again");
        }
        self.last_unix_ms = Some(ambient::unix_ms());
        self.tell(running, shared);
    }

    /// Another policy holds.
    pub fn changed(&mut self, running: &Running, shared: &Shared) {
        self.timer.set(running.policy(), ambient::now());
        self.failing = None;
        self.tell(running, shared);
    }

    fn tell(&self, running: &Running, shared: &Shared) {
        let print = api::AutoPrint {
            last: self.last_unix_ms.map(crate::time::rfc3339),
            failing: self.failing.as_ref().map(|failure| failure.message.clone()),
            ..auto_print(running.said())
        };
        shared.set_auto(print, self.timer.due());
    }
}

/// Whether the repository answers; when another host has the lease, the checkpoint becomes a branch,
/// which is for its own step to find.
fn still_ours(running: &Running) -> Result<()> {
    running.store.head(&running.head.name).map(drop)
}
