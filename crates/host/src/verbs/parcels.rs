//! What becomes of the parcels that lie on this host.
//!
//! ```text
//! offered, and taken by nobody for a while ──▶ this host stores it: suspended, as if it had been at once
//! taken by another host                    ──▶ kept: that one stores it, from here
//! on the line, or on a branch              ──▶ removed: the repository has it
//! the line went on without it              ──▶ stored as a branch, and removed
//! its instance was removed                 ──▶ removed
//! ```

use std::time::Duration;

use api::{CheckpointPrint, PeerPrint, Reply, Request};
use model::{CheckpointId, InstanceState, Name};

use super::ask::{STORE_TIMEOUT, unexpected};
use crate::auto::{Keep, line};
use crate::failure::Result;
use crate::parcel::{self, Lying};
use crate::record::Head;
use crate::store::{Advance, Store};
use crate::{Host, HostDir};

impl Host {
    /// Looks after each; one that was offered for so long and taken by nobody is stored from here. Gives
    /// what was done, in words.
    pub fn see_to_parcels(&self, patience: Duration) -> Result<Vec<String>> {
        parcel::sweep(&self.dir)?;
        let mut done = Vec::new();
        for lying in parcel::lie(&self.dir)? {
            let name = lying.head.name.clone();
            match see_to(&self.dir, &lying, patience) {
                Ok(None) => {}
                Ok(Some(what)) => done.push(format!("{name}: {what}")),
                Err(failure) => done.push(format!("{name}: {failure}")),
            }
        }
        Ok(done)
    }

    /// Lets a guest that runs here go to another host, which gets what it lacks from this one, before the
    /// repository has it.
    pub fn part(&self, name: &Name, at: &PeerPrint) -> Result<CheckpointPrint> {
        let (peer, address) = (at.name.clone(), at.address.clone());
        match self.ask(name, &Request::Part { peer, address }, STORE_TIMEOUT)? {
            Reply::Checkpoint(done) => {
                self.await_end(name)?;
                Ok(done)
            }
            other => Err(unexpected(&other)),
        }
    }
}

/// The same for one of which its shim knows that nobody waits.
pub(crate) fn see_to_parcel(host: &HostDir, checkpoint: CheckpointId) -> Result<()> {
    for lying in parcel::lie(host)?.iter().filter(|lying| lying.parcel.checkpoint == checkpoint) {
        see_to(host, lying, Duration::MAX)?;
    }
    Ok(())
}

fn see_to(host: &HostDir, lying: &Lying, patience: Duration) -> Result<Option<&'static str>> {
    let store = Store::open(host, &lying.repository)?;
    let id = lying.parcel.checkpoint;
    let now = store.head(&lying.head.name)?.head;
    let ours = now.filter(|(_, head)| head.instance == lying.head.instance);
    if let Some((generation, head)) = &ours
        && head.parcel.as_ref().is_some_and(|parcel| parcel.checkpoint == id)
    {
        let age_ms = ambient::unix_ms().saturating_sub(lying.made_unix_ms);
        if !head.is_offered() || u128::from(age_ms) < patience.as_millis() {
            return Ok(None);
        }
        let mut session = store.session()?;
        lying.put_into(session.sink())?;
        session.finish()?;
        ambient::step("parcel: durable");
        let line = arrived(head, lying);
        let next = Head { state: InstanceState::Suspended, lease: None, ..line };
        return match store.advance(*generation, &next)? {
            Advance::Done(_) => {
                lying.remove();
                Ok(Some("nobody has taken it: it is suspended"))
            }
            // Somebody has, at this moment.
            Advance::Fenced => Ok(None),
        };
    }
    let Some((_, head)) = ours else {
        lying.remove();
        return Ok(Some("it was removed, and what it left here with it"));
    };
    if is_kept(&store, &head, id)? {
        lying.remove();
        return Ok(Some("the repository has what it left here"));
    }
    let mut session = store.session()?;
    lying.put_into(session.sink())?;
    session.finish()?;
    store.add_branch(&lying.head, id, lying.head.checkpoint, Vec::new())?;
    lying.remove();
    Ok(Some("it went on without what it left here, which is kept as a branch"))
}

/// The head after what a parcel has is in the repository.
pub(crate) fn arrived(head: &Head, lying: &Lying) -> Head {
    Head { warm: false, ..line::advance(head, lying.taken, &Keep::default(), &[]) }
}

/// Whether a checkpoint is on an instance's line or on a branch of it.
pub(crate) fn is_kept(store: &Store, head: &Head, id: CheckpointId) -> Result<bool> {
    let branches = store.branches(head.instance)?;
    let lines = std::iter::once(head).chain(branches.iter().map(|branch| &branch.head));
    for line in lines {
        if line.checkpoint == Some(id) || store.taken_on(line)?.contains(&id) {
            return Ok(true);
        }
    }
    Ok(false)
}
