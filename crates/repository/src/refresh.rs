//! Following the log of index objects, and extending it.
//!
//! Consistency: the log is linear (see [`crate::index`]). Extending it means: apply everything
//! that is there, decide, create the next number; if someone was faster, again.
//!
//! Crash: an index object is there whole or not at all. One whose writer died before it wrote a
//! ref only makes packs known that nothing references yet: the collector's business.

use std::collections::{BTreeSet, HashSet};
use std::sync::PoisonError;
use std::sync::atomic::Ordering::SeqCst;
use std::time::Duration;

use bytes::Bytes;
use chunk::crypt::PackId;
use objects::{OBJECT_BYTES_MAX, ObjectError};

use crate::hold::to_revive;
use crate::index::{Index, Segment};
use crate::layout::{INDEX, INDEX_HINT, index_key, number_of, table_key};
use crate::log::{IndexObject, decode_table};
use crate::pack::PackEntry;
use crate::probe::last_in_row;
use crate::{Repository, RepositoryError};

/// Objects of the log that are read at the same time.
const LOADED_AT_ONCE: u64 = 8;
/// Attempts to extend the log before giving up; each failure means that another succeeded.
const ATTEMPTS: u32 = 200;

impl Repository {
    /// Applies what others have added to the log since we looked.
    pub fn refresh(&self) -> Result<(), RepositoryError> {
        let _one_at_a_time = self.inner.refreshing.lock().unwrap_or_else(PoisonError::into_inner);
        self.refresh_locked()
    }

    /// As [`Self::refresh`], but a refresh that *began* after this call was made counts, too.
    pub(crate) fn refresh_shared(&self) -> Result<(), RepositoryError> {
        let before = self.inner.refreshes_begun.load(SeqCst);
        let _one_at_a_time = self.inner.refreshing.lock().unwrap_or_else(PoisonError::into_inner);
        if self.inner.refresh_succeeded.load(SeqCst) > before {
            return Ok(());
        }
        self.refresh_locked()
    }

    pub(crate) fn refresh_locked(&self) -> Result<(), RepositoryError> {
        let number = self.inner.refreshes_begun.fetch_add(1, SeqCst) + 1;
        self.follow_patiently()?;
        self.inner.refresh_succeeded.store(number, SeqCst);
        Ok(())
    }

    /// A collector may delete old objects while we read them: then look again.
    fn follow_patiently(&self) -> Result<(), RepositoryError> {
        let mut attempts = 3;
        loop {
            match self.follow() {
                Err(RepositoryError::Object(ObjectError::NotFound { key })) => {
                    attempts -= 1;
                    if attempts == 0 {
                        let detail = "the log goes on after it, but it is not there";
                        return Err(RepositoryError::damaged(&key, detail));
                    }
                }
                // A full disk of the host's own is no reason to fail: go on in memory.
                Err(RepositoryError::Local { .. }) if self.index().local.is_some() => {
                    let mut index = self.index_mut();
                    if let Some(local) = index.local.take() {
                        local.clear();
                    }
                    index.reset();
                }
                other => return other,
            }
        }
    }

    fn follow(&self) -> Result<(), RepositoryError> {
        let applied = self.index().applied;
        let listed = if self.inner.objects.features().list {
            let names = self.inner.objects.list_names(INDEX)?;
            Some(names.iter().filter_map(|name| number_of(name)).collect::<BTreeSet<u64>>())
        } else {
            None
        };
        let last = match &listed {
            Some(numbers) => numbers.last().copied().unwrap_or(0),
            None => self.last_by_probing(applied)?,
        };
        if last == applied {
            return Ok(());
        }
        if last < applied {
            // The store was put back to an earlier state: what we know beyond it is void.
            self.index_mut().reset();
            return self.follow();
        }
        // One after the other as long as the next one is there: a session that is under way
        // must see every removal. Otherwise from the latest snapshot on.
        let next_is_there = match &listed {
            Some(numbers) => numbers.contains(&(applied + 1)),
            None => applied > 0 && self.has_object(applied + 1)?,
        };
        let (from, newest) = if applied > 0 && next_is_there {
            (applied + 1, None)
        } else {
            let newest = self.load_object(last)?;
            let snapshot = if newest.snapshot.is_some() { last } else { newest.latest_snapshot };
            (snapshot.max(1), Some(newest))
        };
        let jump = newest.is_some();
        // On a copy, so that readers never wait for a merge of segments.
        let mut index = self.index().clone();
        if jump && applied > 0 {
            index.reset();
        }
        let (mut loaded, mut newest) = (Vec::new().into_iter(), newest);
        for number in from..=last {
            let read_before = if number == last { newest.take() } else { None };
            if loaded.len() == 0 && read_before.is_none() {
                let upto = if newest.is_some() { last - 1 } else { last };
                loaded = self.load_objects(number, upto)?.into_iter();
            }
            let Some(object) = read_before.or_else(|| loaded.next()) else { break };
            let jumped = jump && number == from;
            let tables = match object.snapshot.as_ref().filter(|_| jumped) {
                Some(snapshot) => self.load_segments(&snapshot.tables)?,
                None => Vec::new(),
            };
            index.apply(number, &object, tables)?;
        }
        index.save()?;
        *self.index_mut() = index;
        Ok(())
    }

    fn load_segments(&self, tables: &[[u8; 16]]) -> Result<Vec<Segment>, RepositoryError> {
        let local = self.index().local.clone();
        tables
            .iter()
            .map(|table| Segment::from_packs(&self.load_table(table)?, local.as_deref()))
            .collect()
    }

    /// The local copy of the index is damaged, or cannot be written: throw it away, go on in
    /// memory, and take from the store again what was in it.
    fn rebuild(&self) -> Result<(), RepositoryError> {
        let _one_at_a_time = self.inner.refreshing.lock().unwrap_or_else(PoisonError::into_inner);
        if self.index().verify().is_ok() {
            return Ok(());
        }
        let (tables, first, last) = {
            let mut index = self.index_mut();
            if let Some(local) = &index.local {
                local.clear();
            }
            index.local = None;
            (index.tables.clone(), index.latest_snapshot.max(1), index.applied)
        };
        let mut segments = match self.load_segments(&tables) {
            Err(RepositoryError::Object(ObjectError::NotFound { .. })) => return self.start_over(),
            other => other?,
        };
        for number in first..=last {
            match self.load_object(number) {
                Err(RepositoryError::Object(ObjectError::NotFound { .. })) => {
                    return self.start_over();
                }
                other => segments.push(Segment::from_packs(&other?.added, None)?),
            }
        }
        self.index_mut().replace_segments(segments)
    }

    fn start_over(&self) -> Result<(), RepositoryError> {
        self.index_mut().reset();
        self.refresh_locked()
    }

    /// Looks something up in the index; mends the local copy when it is damaged.
    pub(crate) fn look_up<T>(
        &self,
        look: impl Fn(&Index) -> Result<T, RepositoryError>,
    ) -> Result<T, RepositoryError> {
        let found = look(&self.index());
        match found {
            Err(RepositoryError::Local { .. }) => {
                self.rebuild()?;
                look(&self.index())
            }
            other => other,
        }
    }

    /// The index as it is now, with every local file checked: for work that must not be
    /// stopped half way by a damaged copy.
    pub(crate) fn sound_index(&self) -> Result<Index, RepositoryError> {
        self.look_up(|index| index.verify().map(|()| index.clone()))
    }

    fn has_object(&self, number: u64) -> Result<bool, RepositoryError> {
        match self.inner.objects.head(&index_key(number)) {
            Ok(_) => Ok(true),
            Err(ObjectError::NotFound { .. }) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    /// For stores that cannot list: the hint, then one number after the other.
    fn last_by_probing(&self, applied: u64) -> Result<u64, RepositoryError> {
        let objects = &self.inner.objects;
        let mut last = applied;
        if last == 0 || !self.has_object(last)? {
            let hint = match objects.get(INDEX_HINT, 20) {
                Ok(bytes) => std::str::from_utf8(&bytes).ok().and_then(|t| t.trim().parse().ok()),
                Err(ObjectError::NotFound { .. }) => None,
                Err(error) => return Err(error.into()),
            };
            // The hint is never trusted: it only says where to begin.
            last = match hint.filter(|hint| *hint > applied) {
                Some(hint) if self.has_object(hint)? => hint,
                _ => applied,
            };
        }
        let read = |number| self.load_object(number).map(drop);
        last_in_row(last, |number| self.has_object(number), read)
    }

    /// The next few objects of the log from `first` on, read at the same time: each may take a
    /// round trip to the other side of the world.
    fn load_objects(&self, first: u64, last: u64) -> Result<Vec<IndexObject>, RepositoryError> {
        let last = last.min(first + ambient::threads(LOADED_AT_ONCE as usize) as u64 - 1);
        if first == last {
            return Ok(vec![self.load_object(first)?]);
        }
        std::thread::scope(|scope| {
            let loads: Vec<_> = (first..=last)
                .map(|number| scope.spawn(move || self.load_object(number)))
                .collect();
            let panicked = || RepositoryError::damaged(INDEX, "a reader of it panicked");
            loads.into_iter().map(|load| load.join().unwrap_or_else(|_| Err(panicked()))).collect()
        })
    }

    pub(crate) fn load_object(&self, number: u64) -> Result<IndexObject, RepositoryError> {
        let bytes = self.inner.objects.get(&index_key(number), OBJECT_BYTES_MAX)?;
        IndexObject::decode(&self.inner.cipher, number, &bytes)
    }

    pub(crate) fn load_table(&self, table: &[u8; 16]) -> Result<Vec<PackEntry>, RepositoryError> {
        let bytes = self.inner.objects.get(&table_key(table), OBJECT_BYTES_MAX)?;
        decode_table(&self.inner.cipher, table, &bytes)
    }

    /// Extends the log by what `decide` makes of the state after everything that is there.
    /// Writes nothing when that is empty. Gives the number of the last object.
    pub(crate) fn extend(
        &self,
        mut decide: impl FnMut(&Index) -> Result<IndexObject, RepositoryError>,
    ) -> Result<u64, RepositoryError> {
        for attempt in 0..ATTEMPTS {
            let one_at_a_time =
                self.inner.refreshing.lock().unwrap_or_else(PoisonError::into_inner);
            self.refresh_locked()?;
            let (object, number) = {
                let index = self.index();
                let mut object = decide(&index)?;
                object.latest_snapshot = index.latest_snapshot;
                (object, index.applied + 1)
            };
            if object.is_empty() {
                return Ok(number - 1);
            }
            let bytes = object.encode(&self.inner.cipher, number, ambient::random());
            match self.inner.objects.put_new(&index_key(number), Bytes::from(bytes)) {
                Ok(()) => {
                    // Through the log, not around it: what we wrote is read back as everyone
                    // else will, except that a snapshot's tables are known already.
                    self.refresh_locked()?;
                    return Ok(number);
                }
                Err(ObjectError::AlreadyExists { .. }) => {
                    drop(one_at_a_time);
                    let [chance] = ambient::random::<1>();
                    let pause = u64::from(chance) * u64::from(attempt.min(20)) / 32;
                    ambient::sleep(Duration::from_millis(pause));
                }
                Err(error) => return Err(error.into()),
            }
        }
        Err(RepositoryError::Busy { location: self.location(), attempts: ATTEMPTS })
    }

    /// Makes packs known, and holds on to those that a session relies on: what was condemned
    /// meanwhile is revived in the same object; what was removed is an error.
    pub(crate) fn publish_packs(
        &self,
        added: &[PackEntry],
        relied: &HashSet<PackId>,
        epoch: u64,
    ) -> Result<(), RepositoryError> {
        self.extend(|index| {
            let gone = |what: &str| RepositoryError::Stale { detail: what.to_owned() };
            if !added.is_empty() && index.epoch != epoch {
                return Err(gone("the log was cut before this session listed its packs"));
            }
            if let Some(pack) = added.iter().find(|pack| index.removed.contains(&pack.id)) {
                return Err(gone(&crate::layout::pack_key(&pack.id)));
            }
            Ok(IndexObject {
                added: added.to_vec(),
                revived: to_revive(index, relied)?,
                ..IndexObject::default()
            })
        })
        .map(drop)
    }
}
