//! What a repository would no longer need if some refs named less: for who wants to know before.

use std::collections::{HashMap, HashSet};

use chunk::crypt::PackId;
use model::ChunkId;
use objects::ObjectError;

use crate::index::{Index, Marks};
use crate::walk::{Place, Visitor, What, roots, walk};
use crate::{Repository, RepositoryError, Target};

impl Repository {
    /// Bytes in packs of chunks that refs need now, and would not if these (kind, name) named only
    /// these roots. They are freed as packs are, by collections a grace age apart; a little of
    /// it may stay in packs that are mostly needed.
    pub fn would_free(
        &self,
        changed: &[(&str, String, Vec<Target>)],
    ) -> Result<u64, RepositoryError> {
        if changed.is_empty() {
            return Ok(0);
        }
        self.refresh()?;
        let index = self.sound_index()?;
        let (mut roots_now, mut roots_then) = (Vec::new(), Vec::new());
        for (stored, generations) in self.refs().all()? {
            let Some((last, _)) = generations.last() else { continue };
            let opened = match self.refs().open(&stored, *last) {
                Err(RepositoryError::Object(ObjectError::NotFound { .. })) => continue,
                other => other?,
            };
            roots_now.extend(roots(&opened.name, &opened.value.roots));
            let other =
                changed.iter().find(|(kind, name, _)| *kind == opened.kind && *name == opened.name);
            let then = other.map_or(&opened.value.roots, |(_, _, roots)| roots);
            roots_then.extend(roots(&opened.name, then));
        }
        let mark = |roots: Vec<(Place, Target)>| -> Result<Marks, RepositoryError> {
            let mut marks = index.marks();
            let marking = &mut Marking { repository: self, index: &index, marks: &mut marks };
            walk(self, roots, marking)?;
            Ok(marks)
        };
        let (now, then) = (mark(roots_now)?, mark(roots_then)?);
        let mut frames: HashMap<(PackId, u32), u64> = HashMap::new();
        index.for_each(&now, |_, at, _| *frames.entry((at.pack, at.frame)).or_default() += 1)?;
        let mut needed = HashSet::new();
        index.for_each(&then, |name, _, marked| {
            if marked {
                needed.insert(*name);
            }
        })?;
        let mut bytes = 0;
        index.for_each(&now, |name, at, marked| {
            if marked && !needed.contains(name) {
                let chunks = frames.get(&(at.pack, at.frame)).copied().unwrap_or(1);
                bytes += u64::from(at.bytes) / chunks;
            }
        })?;
        Ok(bytes)
    }
}

struct Marking<'a> {
    repository: &'a Repository,
    index: &'a Index,
    marks: &'a mut Marks,
}

impl Visitor for Marking<'_> {
    fn needs(&mut self, _: &Place, _: What, id: &ChunkId) -> Result<bool, RepositoryError> {
        let name = self.repository.inner.cipher.stored_name(id);
        Ok(self.index.mark(self.marks, &name)? == Some(false))
    }

    fn unreadable(&mut self, place: &Place, error: RepositoryError) -> Result<(), RepositoryError> {
        Err(RepositoryError::damaged(&place.to_string(), error))
    }
}
