//! Letting a guest go before the repository has what it wrote last: the source's half of a live move.
//!
//! ```text
//! freeze ─▶ seal into a parcel on this host's disk ─▶ the head offers it ─▶ the guest ends here
//!                                                          │ not known whether: taken back, by advancing
//!                                                          │ the head without it; who is fenced has let go
//! ```
//! The head stays at its last durable checkpoint and stays this host's: for whoever knows no parcels it runs
//! here. Who gets what is in the parcel may take it all the same ([`super::claim`]), and stores it then
//! ([`super::landing`]).
//!
//! *On a crash* before the head offers it, the frozen overlays are here and are what the next start goes on
//! from; after that the parcel has all of it.

use api::CheckpointPrint;
use model::CheckpointId;

use super::running::{Frozen, Running};
use super::seal::{self, Outcome};
use crate::dir::HostDir;
use crate::failure::{Failure, Result};
use crate::parcel::{self, GivenAt};
use crate::record::{Head, Why};
use crate::store::{Advance, Session};

/// Between two tries to find out whether the head offers it.
const PAUSE: ambient::Duration = ambient::Duration::from_secs(1);

/// What became of an offer.
enum Offer {
    /// The head has it, or whoever holds the head has taken it.
    Made,
    /// Another host has moved the head, and knows nothing of it.
    Fenced,
    /// The head does not have it, and never will.
    Back(Failure),
}

impl Running {
    /// Lets it go. When that cannot be, it goes on running here.
    pub fn part(&mut self, at: &GivenAt) -> Result<Outcome> {
        self.may_part()?;
        let host = &self.host.clone();
        let began = ambient::now();
        let _still = self.scrubbing.still();
        let frozen = self.freeze(true, false)?;
        let closed = self.pack(host, &frozen, at);
        let (written, offer) = match closed {
            Ok(closed) => closed,
            Err(failure) => {
                self.guest.unpause()?;
                return Err(failure.during("not let go, it goes on running"));
            }
        };
        ambient::step("part: packed");
        let done = |id: CheckpointId| CheckpointPrint {
            checkpoint: id.to_string(),
            total_ms: began.elapsed().as_millis() as u64,
            ..written.print.clone()
        };
        let made = self.offer(&offer)?;
        match made {
            Offer::Made => ambient::step("part: offered"),
            Offer::Fenced => ambient::step("part: fenced"),
            Offer::Back(failure) => {
                parcel::discard(host, written.id)?;
                self.guest.unpause()?;
                return Err(failure.during("not let go, it goes on running"));
            }
        }
        self.guest.kill();
        // As after a suspend: going on here would need nothing from elsewhere.
        let _ = self.adopt(&written.sealed);
        if matches!(made, Offer::Made) {
            return Ok(Outcome::Advanced(done(written.id)));
        }
        // It becomes a branch. What fails is done later by who sees to what lies here.
        if let Err(failure) = crate::verbs::see_to_parcel(host, written.id) {
            eprintln!("{failure}");
        }
        Ok(Outcome::Branched(done(written.id)))
    }

    /// Whether what it wrote since its last durable checkpoint is all that another host lacks.
    fn may_part(&self) -> Result<()> {
        let rests_on: Vec<_> = self.head.checkpoint.into_iter().collect();
        let why = if self.shared.state() != "running" {
            "it does not run"
        } else if self.maker || self.head.trial.is_some() {
            "it is on trial, or runs for a build"
        } else if self.head.parcel.is_some() {
            "what it came with is not stored yet"
        } else if self.bases != rests_on {
            "its memory and disks rest on more than its last checkpoint"
        } else {
            return Ok(());
        };
        Err(Failure::new("state", why, "`collective suspend NAME` stores it first"))
    }

    fn pack(&self, host: &HostDir, frozen: &Frozen, at: &GivenAt) -> Result<(seal::Written, Head)> {
        let mut session = Session::parcel(&self.store, host)?;
        let written = seal::put(&mut session, &self.plan(None, Why::Suspend, frozen))?;
        let parcel = session.into_parcel()?;
        let repository = self.store.location();
        let offer = parcel.close(repository, &self.head, written.taken, host, at)?;
        Ok((written, offer))
    }

    /// Makes the head say it. While nobody can say whether it does, the guest stands still: it may run
    /// elsewhere.
    fn offer(&mut self, offer: &Head) -> Result<Offer> {
        let first = match self.store.advance(self.generation, offer) {
            Ok(Advance::Done(_)) => return Ok(Offer::Made),
            Ok(Advance::Fenced) => return Ok(Offer::Fenced),
            Err(failure) => failure,
        };
        // It may have been written, and taken since: who advances the head knows.
        loop {
            let back = self.head.clone();
            match self.store.advance(self.generation, &back) {
                Ok(Advance::Done(generation)) => {
                    self.advanced(generation, back)?;
                    return Ok(Offer::Back(first));
                }
                // Whoever did it: what is here is in the parcel, and is on the line or becomes a branch.
                Ok(Advance::Fenced) => return Ok(Offer::Fenced),
                Err(_) if self.guest.has_ended() => return Err(first),
                Err(_) => ambient::sleep(PAUSE),
            }
        }
    }
}
