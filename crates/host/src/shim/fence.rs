//! A guest that runs by a plane's leave, when the host's lease of that plane ends.
//!
//! ```text
//! running ──lease over──▶ held ──lease again──▶ head advanced once ──▶ running
//!                          │                       └─ refused: a branch, and it ends here
//!                          └──over as long again──▶ suspended (a branch, when it was taken over)
//! ```
//!
//! **Invariant:** it is held before the plane counts the lease as over ([`HostLease`]), and does not
//! go on before its head was advanced once more: an order to take it over that is still on its way
//! does not fit any more. The protocol is in `docs/protocol/fencing.md`.
//! **Invariant:** what it did is never dropped: it stays held, in this host's memory, until it is
//! stored or goes on.

use std::time::Duration;

use model::InstanceState;

use super::owner::{End, fenced};
use super::running::Running;
use super::seal::Outcome;
use super::shared::Shared;
use crate::dir::HostDir;
use crate::failure::Failure;
use crate::host_lease::HostLease;

/// Between two tries to store what is held.
const RETRY: Duration = Duration::from_secs(5);

/// What the owner knows of it.
pub struct Fence {
    host: HostDir,
    held: Option<Held>,
}

struct Held {
    /// It was running; otherwise somebody had paused it.
    ran: bool,
    tried: Option<ambient::Instant>,
}

impl Fence {
    pub fn new(host: HostDir) -> Self {
        Self { host, held: None }
    }

    /// Why it may not go on now, if so.
    pub fn refuses(&self) -> Option<Failure> {
        self.held.as_ref().map(|_| {
            Failure::new(
                "lease",
                "it is held: this host has lost its plane, and another host may get it",
                "it goes on when the plane answers again; `collective host list` shows whether it does",
            )
        })
    }

    /// Looks; says how the instance ended if it did.
    pub fn step(&mut self, running: &mut Running, shared: &Shared) -> Option<End> {
        // A file that cannot be read says nothing new: what held holds.
        let lease = HostLease::read(&self.host).ok()?;
        let lease = lease.filter(|lease| lease.is_about(&running.head.name));
        let over = lease.as_ref().and_then(HostLease::over_for);
        match (over, &mut self.held) {
            (None, None) => None,
            (Some(_), None) => {
                self.hold(running, shared);
                None
            }
            (Some(over), Some(held)) => {
                let lasts = lease.map_or(RETRY, |lease| lease.lasts());
                let rests = held.tried.is_none_or(|tried| tried.elapsed() >= RETRY);
                if over < lasts || !rests || shared.is_stalled() {
                    return None;
                }
                held.tried = Some(ambient::now());
                store(running, shared)
            }
            (None, Some(_)) => self.go_on(running, shared),
        }
    }

    fn hold(&mut self, running: &Running, shared: &Shared) {
        let ran = shared.state() == "running";
        // When it cannot be paused, the next look tries again.
        if ran && running.guest().pause().is_err() {
            return;
        }
        eprintln!("this host has lost its plane: the guest is held");
        shared.set_state("paused");
        self.held = Some(Held { ran, tried: None });
    }

    /// The lease is there again: the head says so before the guest goes on.
    fn go_on(&mut self, running: &mut Running, shared: &Shared) -> Option<End> {
        match running.claim_again() {
            Ok(true) => {
                let ran = self.held.take().is_some_and(|held| held.ran);
                if ran && running.guest().unpause().is_ok() {
                    shared.set_state("running");
                }
                eprintln!("the plane answers again: the guest goes on");
                None
            }
            // Somebody else has it.
            Ok(false) => store(running, shared),
            // The repository does not answer: it stays held.
            Err(_) => None,
        }
    }
}

/// Stores what is held: into the instance, or as a branch of it when it was taken over.
fn store(running: &mut Running, shared: &Shared) -> Option<End> {
    match running.suspend(None, false) {
        Ok(Outcome::Advanced(_)) => {
            eprintln!("this host has lost its plane: the instance is suspended");
            shared.set_state(InstanceState::Suspended.as_str());
            Some(End::Kept)
        }
        Ok(Outcome::Branched(print)) => {
            let (result, end) = fenced(running, &print, shared);
            if let Err(failure) = result {
                eprintln!("{failure}");
            }
            end
        }
        Err(failure) => {
            eprintln!("{failure}");
            None
        }
    }
}
