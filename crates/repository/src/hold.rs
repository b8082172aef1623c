//! Holding on to what a ref is about to name.
//!
//! Before a ref is written the whole log is applied, and every pack that the ref relies on is
//! in use, or is revived in the log. Which packs those are:
//!
//! * those that finished sessions of this process stored into or found chunks in;
//! * while no pack at all is condemned, what else the roots need is safe for a grace age: it
//!   takes a collector that long to remove what it condemns from now on;
//! * while some pack is condemned, or a session may have been forgotten, or a ref begins with
//!   what this process may have read long ago, everything that the roots need is walked and
//!   looked up.

use std::collections::HashSet;

use chunk::crypt::PackId;
use model::ChunkId;

use crate::index::{Index, Marks};
use crate::log::IndexObject;
use crate::record::Target;
use crate::sessions::Reliance;
use crate::walk::{Place, Visitor, What, walk};
use crate::{Repository, RepositoryError};

impl Repository {
    /// Holds on to what `roots` need. `first` says that the ref has no earlier generation.
    pub(crate) fn hold(&self, roots: &[Target], first: bool) -> Result<Reliance, RepositoryError> {
        let mut reliance = self.inner.sessions.reliance();
        let long_ago = |since: ambient::Instant| {
            ambient::now().duration_since(since).as_millis() as u64 > self.grace_ms() / 2
        };
        self.refresh()?;
        let unsure = self.index().packs.values().any(|info| info.condemned_at != 0)
            || reliance.ambiguous.is_some_and(long_ago)
            || first && reliance.packs.is_empty() && long_ago(self.inner.opened);
        if !unsure {
            match self.revive(&reliance.packs) {
                // A session whose chunks nobody named in time may be gone; whether these roots
                // need them is another question.
                Err(RepositoryError::Stale { .. }) => {}
                other => return other.map(|()| reliance),
            }
        }
        reliance.packs = self.packs_below(roots)?;
        self.revive(&reliance.packs)?;
        self.inner.sessions.settled();
        Ok(reliance)
    }

    /// After the ref is written: if that took long, look again.
    pub(crate) fn still_held(
        &self,
        reliance: &Reliance,
        since: ambient::Instant,
    ) -> Result<(), RepositoryError> {
        let elapsed = ambient::now().duration_since(since).as_millis() as u64;
        if elapsed > self.grace_ms() / 2 { self.revive(&reliance.packs) } else { Ok(()) }
    }

    fn revive(&self, packs: &HashSet<PackId>) -> Result<(), RepositoryError> {
        let extended = self.extend(|index| {
            Ok(IndexObject { revived: to_revive(index, packs)?, ..IndexObject::default() })
        });
        extended.map(drop)
    }

    /// The packs that hold everything that the roots need.
    fn packs_below(&self, roots: &[Target]) -> Result<HashSet<PackId>, RepositoryError> {
        let index = self.sound_index()?;
        let mut holder =
            Holder { repository: self, marks: index.marks(), index: &index, packs: HashSet::new() };
        let walked = walk(self, crate::walk::roots("the new ref", roots), &mut holder);
        match walked {
            Ok(()) => Ok(holder.packs),
            // Perhaps its pack was removed while we read: then the log says so by now.
            Err(RepositoryError::Damaged { detail, .. }) if self.refresh_moves(&index)? => {
                Err(RepositoryError::Stale { detail })
            }
            Err(error) => Err(error),
        }
    }

    /// Whether the log has grown since it was seen so.
    fn refresh_moves(&self, seen: &Index) -> Result<bool, RepositoryError> {
        self.refresh()?;
        Ok(self.index().applied != seen.applied)
    }
}

/// Which of the packs that are relied on are condemned; an error if one is gone.
pub(crate) fn to_revive(
    index: &Index,
    relied: &HashSet<PackId>,
) -> Result<Vec<PackId>, RepositoryError> {
    let mut revived = Vec::new();
    for pack in relied {
        match index.packs.get(pack) {
            Some(info) if info.condemned_at == 0 => {}
            Some(_) => revived.push(*pack),
            None => {
                let detail = crate::layout::pack_key(pack);
                return Err(RepositoryError::Stale { detail });
            }
        }
    }
    revived.sort_unstable();
    Ok(revived)
}

struct Holder<'a> {
    repository: &'a Repository,
    index: &'a Index,
    marks: Marks,
    packs: HashSet<PackId>,
}

impl Visitor for Holder<'_> {
    fn needs(&mut self, place: &Place, _: What, id: &ChunkId) -> Result<bool, RepositoryError> {
        let name = self.repository.inner.cipher.stored_name(id);
        match self.index.mark(&mut self.marks, &name)? {
            Some(true) => Ok(false),
            Some(false) => {
                if let Some(location) = self.index.locations(&name)?.first() {
                    self.packs.insert(location.pack);
                }
                Ok(true)
            }
            // In a maker's repository, which keeps its own.
            None if !self.repository.inner.sources.is_empty() => Ok(false),
            None => {
                let detail = format!("{place} needs chunk {}", id.short());
                Err(RepositoryError::Stale { detail })
            }
        }
    }

    fn unreadable(&mut self, place: &Place, error: RepositoryError) -> Result<(), RepositoryError> {
        Err(RepositoryError::damaged(&place.to_string(), error))
    }
}
