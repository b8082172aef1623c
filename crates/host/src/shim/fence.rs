//! A guest that runs by a plane's leave, when the host's lease of that plane ends.
//!
//! ```text
//! running ──lease over──▶ held ──lease again──▶ head advanced once ──▶ running
//!                          │                       └─ refused: a branch, and it ends here
//!                          └──over as long again──▶ suspended (a branch, when it was taken over)
//! ```
//!
//! A thread of its own holds it ([`watch`]): the owner may be storing for minutes. What becomes of it
//! then is the owner's ([`Fence`]).
//!
//! **Invariant:** it is held before the plane counts the lease as over ([`HostLease`]), and does not
//! go on before its head was advanced once more: an order to take it over that is still on its way
//! does not fit any more. The protocol is in `docs/protocol/fencing.md`.
//! One whose CPU waits for a page is marked before it can be stopped: it does not run when the page comes.
//! **Invariant:** what it did is never dropped: it stays held, in this host's memory, until it is
//! stored or goes on.

use std::sync::Arc;
use std::time::Duration;

use model::{InstanceState, Name};

use super::guest::Guest;
use super::owner::{End, fenced};
use super::running::Running;
use super::seal::Outcome;
use super::shared::Shared;
use crate::dir::HostDir;
use crate::failure::{Failure, Result};
use crate::host_lease::HostLease;

/// Between two looks at the lease.
const LOOK: Duration = Duration::from_millis(200);
/// Between two tries to store what is held.
const RETRY: Duration = Duration::from_secs(5);

/// Refuses to let a guest run that would have to be held.
pub fn may_run(host: &HostDir, name: &Name) -> Result<()> {
    let lease = HostLease::read(host)?.filter(|lease| lease.is_about(name));
    match lease.and_then(|lease| lease.over_for()) {
        None => Ok(()),
        Some(_) => Err(refusal()),
    }
}

fn refusal() -> Failure {
    Failure::new(
        "lease",
        "it is held: this host has lost its plane, and another host may get it",
        "it goes on when the plane answers again; `collective host list` shows whether it does. A host \
         that has no plane any more: `collective host leave`",
    )
}

/// Holds the guest when its host's lease ends, or was begun anew, until QEMU ends.
pub fn watch(host: HostDir, name: Name, guest: Arc<Guest>) -> Result<()> {
    ambient::spawn("fence".to_owned(), move || {
        let mut lease = None;
        let mut term = None;
        let mut stands = false;
        while !guest.has_ended() {
            // A file that cannot be read says nothing new.
            if let Ok(read) = HostLease::read(&host) {
                lease = read.filter(|lease: &HostLease| lease.is_about(&name));
            }
            let ends = lease.as_ref().is_some_and(|lease| {
                let anew = *term.get_or_insert(lease.term()) != lease.term();
                anew || lease.over_for().is_some()
            });
            // One whose CPU waits for a page does not answer. It is held all the same, so that nobody lets
            // it run when the page has come, and stopped when it answers.
            let held = guest.is_held();
            if (held && !stands) || (!held && ends) {
                stands = guest.hold().is_ok();
                term = lease.as_ref().map(HostLease::term).or(term);
            }
            ambient::sleep(LOOK);
        }
    })?;
    Ok(())
}

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
        self.held.as_ref().map(|_| refusal())
    }

    /// Looks; says how the instance ended if it did.
    pub fn step(&mut self, running: &mut Running, shared: &Shared) -> Option<End> {
        if !running.guest().is_held() {
            return None;
        }
        let held = self.held.get_or_insert_with(|| {
            eprintln!("this host has lost its plane: the guest is held");
            let ran = shared.state() == "running";
            shared.set_state("paused");
            Held { ran, tried: None }
        });
        // A file that cannot be read says nothing new: it stays held.
        let lease = HostLease::read(&self.host).ok()?;
        let lease = lease.filter(|lease| lease.is_about(&running.head.name));
        let rests = held.tried.is_none_or(|tried| tried.elapsed() >= RETRY);
        if !rests || shared.is_stalled() {
            return None;
        }
        match lease.as_ref().and_then(HostLease::over_for) {
            None => self.go_on(running, shared),
            Some(over) if over < lease.map_or(RETRY, |lease| lease.lasts()) => None,
            Some(_) => {
                held.tried = Some(ambient::now());
                store(running, shared)
            }
        }
    }

    /// The lease is there again: the head says so before the guest goes on.
    fn go_on(&mut self, running: &mut Running, shared: &Shared) -> Option<End> {
        match running.claim_again() {
            Ok(true) => {
                let ran = self.held.take().is_some_and(|held| held.ran);
                running.guest().release();
                if ran && running.guest().unpause().is_ok() {
                    shared.set_state("running");
                }
                eprintln!("the plane answers again: the guest goes on");
                None
            }
            // Somebody else has it.
            Ok(false) => store(running, shared),
            // The repository does not answer: it stays held.
            Err(_) => {
                if let Some(held) = &mut self.held {
                    held.tried = Some(ambient::now());
                }
                None
            }
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
