//! Putting back what is damaged or lost, from a copy of the same repository: a backup.
//!
//! Objects are created once and never changed, so an object of the copy that is whole is the one
//! that was here. It is judged before it is used (opened with the repository's key, every frame
//! decoded), and it goes in whole, in the damaged one's place.
//!
//! What is not brought back: an object that is not here and that nothing here names. A collector
//! may have removed it since the copy was made; and whether the newest generation of a ref is
//! missing cannot be told from a ref that never went so far.
//!
//! Crash: each object is as it was, or whole. To be repeated until nothing is left.

use std::collections::BTreeSet;
use std::sync::Arc;

use bytes::Bytes;
use chunk::crypt::MasterKey;
use chunk::header::Intent;
use model::Generation;
use objects::{OBJECT_BYTES_MAX, ObjectError, Objects};

use crate::config::Config;
use crate::layout::{
    CONFIG, INDEX, PACKS, REFS, TABLES, index_key, number_of, pack_key, pack_of, table_key,
};
use crate::log::{IndexObject, decode_table};
use crate::pack::{PACK_HEAD_BYTES, check_head};
use crate::wire::unhex;
use crate::{CheckProgress, Open, Problem, Repository, RepositoryError};

/// What a repair did.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct RepairReport {
    /// Objects that were read and judged.
    pub objects: u64,
    /// Their bytes.
    pub read_bytes: u64,
    /// Keys of the objects that were put back.
    pub repaired: Vec<String>,
    /// What is damaged or missing here, and not whole in the copy either.
    pub left: Vec<Problem>,
}

/// Reads everything in `here`, and puts back from `copy` what is damaged or missing.
///
/// Fails when the copy is not one of this repository, or when either store cannot be asked.
pub fn repair(
    here: &Arc<dyn Objects>,
    copy: &Arc<dyn Objects>,
    key: Option<MasterKey>,
    progress: &mut dyn FnMut(CheckProgress),
) -> Result<RepairReport, RepositoryError> {
    if !here.features().list || !here.features().write {
        return Err(ObjectError::ReadOnly { location: here.location() }.into());
    }
    let open = Open { key, ..Open::default() };
    let repair = Repair { here, copy: Repository::open(Arc::clone(copy), open)? };
    repair.is_a_copy()?;
    let mut report = RepairReport::default();
    repair.object(CONFIG, true, &mut report)?;
    // The index first: it says which packs there should be.
    for folder in [INDEX, TABLES, REFS, PACKS] {
        let listed = here.list(folder)?.into_iter().map(|object| object.key).collect();
        repair.objects(folder, &listed, false, &mut report, progress)?;
        // What names them is whole now, or nobody can tell.
        let mut named = repair.named(folder)?;
        named.retain(|key| !listed.contains(key));
        repair.objects(folder, &named, true, &mut report, progress)?;
    }
    Ok(report)
}

struct Repair<'a> {
    here: &'a Arc<dyn Objects>,
    copy: Repository,
}

impl Repair<'_> {
    fn is_a_copy(&self) -> Result<(), RepositoryError> {
        let bytes = self.here.get(CONFIG, OBJECT_BYTES_MAX);
        let config = match bytes.map_err(RepositoryError::from) {
            Ok(bytes) => Config::decode(&bytes, Intent::Write),
            Err(error) => Err(error),
        };
        let same = match config {
            Ok(config) => config.repository == self.copy.inner.config.repository,
            Err(
                RepositoryError::Damaged { .. }
                | RepositoryError::Header { .. }
                | RepositoryError::Object(ObjectError::NotFound { .. }),
            ) => self.knows_a_pack()?,
            Err(error) => return Err(error),
        };
        if same {
            return Ok(());
        }
        let detail = format!("{} is not one of {}", self.copy.location(), self.here.location());
        Err(RepositoryError::Invalid { what: "this copy", detail })
    }

    /// Whether a pack here says that it belongs to the copy's repository: for when the
    /// configuration cannot say which one this is.
    fn knows_a_pack(&self) -> Result<bool, RepositoryError> {
        let repository = self.copy.inner.config.repository;
        for object in self.here.list(PACKS)? {
            let Some(pack) = pack_of(&object.key) else { continue };
            match self.here.get_range(&object.key, 0, PACK_HEAD_BYTES) {
                Ok(head) if check_head(repository, pack, &head).is_ok() => return Ok(true),
                Ok(_) | Err(ObjectError::NotFound { .. } | ObjectError::Truncated { .. }) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(false)
    }

    fn objects(
        &self,
        step: &'static str,
        keys: &BTreeSet<String>,
        named: bool,
        report: &mut RepairReport,
        progress: &mut dyn FnMut(CheckProgress),
    ) -> Result<(), RepositoryError> {
        let total = keys.len() as u64;
        for (done, key) in keys.iter().enumerate() {
            progress(CheckProgress { step, done: done as u64, total });
            self.object(key, named, report)?;
        }
        if total > 0 {
            progress(CheckProgress { step, done: total, total });
        }
        Ok(())
    }

    /// Judges one object, and puts it back when it is not whole; and when it is not there, if
    /// something here names it.
    fn object(
        &self,
        key: &str,
        named: bool,
        report: &mut RepairReport,
    ) -> Result<(), RepositoryError> {
        let found = match self.here.get(key, OBJECT_BYTES_MAX) {
            // Listed a moment ago: a collector was faster.
            Err(ObjectError::NotFound { .. }) if !named => return Ok(()),
            Err(ObjectError::NotFound { .. }) => None,
            Err(ObjectError::TooLarge { .. }) => Some(Bytes::new()),
            other => Some(other?),
        };
        let complaint = match &found {
            Some(bytes) => {
                report.objects += 1;
                report.read_bytes += bytes.len() as u64;
                match self.judge(key, bytes) {
                    None | Some(Ok(())) => return Ok(()),
                    Some(Err(error)) => error.to_string(),
                }
            }
            None => "it is missing".to_owned(),
        };
        let whole = match self.copy.inner.objects.get(key, OBJECT_BYTES_MAX) {
            Ok(bytes) if self.judge(key, &bytes).is_some_and(|judged| judged.is_ok()) => bytes,
            Ok(_) | Err(ObjectError::NotFound { .. } | ObjectError::TooLarge { .. }) => {
                report.left.push(Problem {
                    object: key.to_owned(),
                    place: None,
                    page: None,
                    detail: format!("{complaint}; and the copy has it not whole either"),
                });
                return Ok(());
            }
            Err(error) => return Err(error.into()),
        };
        self.here.replace(key, whole)?;
        report.repaired.push(key.to_owned());
        Ok(())
    }

    /// Whether these bytes are what belongs under this key. None for what has no meaning that is
    /// kept: hints, markers, the key.
    fn judge(&self, key: &str, bytes: &[u8]) -> Option<Result<(), RepositoryError>> {
        let cipher = &self.copy.inner.cipher;
        let mut parts = key.split('/');
        let folder = parts.next()?;
        Some(match folder {
            CONFIG => Config::decode(bytes, Intent::Read).map(drop),
            INDEX => IndexObject::decode(cipher, number_of(parts.next()?)?, bytes).map(drop),
            TABLES => decode_table(cipher, &unhex(parts.next()?)?, bytes).map(drop),
            PACKS => {
                let pack = pack_of(key)?;
                match self.copy.verify_pack_bytes(&pack, bytes) {
                    Ok((_, Some(complaint))) => Err(RepositoryError::damaged(key, complaint)),
                    other => other.map(drop),
                }
            }
            REFS => {
                let stored = unhex(parts.next()?)?;
                let generation = Generation(number_of(parts.next()?)?);
                crate::refs::open(cipher, &stored, generation, bytes).map(drop)
            }
            _ => return None,
        })
    }

    /// What there should be in a folder, as far as what is here says so.
    fn named(&self, folder: &str) -> Result<BTreeSet<String>, RepositoryError> {
        match folder {
            INDEX => {
                let Some((newest, object)) = self.newest()? else { return Ok(BTreeSet::new()) };
                let first = if object.snapshot.is_some() { newest } else { object.latest_snapshot };
                Ok((first.max(1)..=newest).map(index_key).collect())
            }
            TABLES => self.tables(),
            PACKS => self.packs(),
            _ => Ok(BTreeSet::new()),
        }
    }

    /// The last object of the log, if it can be read.
    fn newest(&self) -> Result<Option<(u64, IndexObject)>, RepositoryError> {
        let names = self.here.list_names(INDEX)?;
        let newest = names.iter().filter_map(|name| number_of(name)).max();
        Ok(newest.and_then(|number| Some((number, self.index_object(number)?))))
    }

    fn index_object(&self, number: u64) -> Option<IndexObject> {
        let bytes = self.here.get(&index_key(number), OBJECT_BYTES_MAX).ok()?;
        IndexObject::decode(&self.copy.inner.cipher, number, &bytes).ok()
    }

    /// Tables that the latest snapshot names. It is read by itself: the index cannot be opened
    /// while one is missing.
    fn tables(&self) -> Result<BTreeSet<String>, RepositoryError> {
        let Some((_, newest)) = self.newest()? else { return Ok(BTreeSet::new()) };
        let snapshot = match newest.snapshot {
            None => self.index_object(newest.latest_snapshot).and_then(|object| object.snapshot),
            some => some,
        };
        Ok(snapshot.into_iter().flat_map(|s| s.tables).map(|table| table_key(&table)).collect())
    }

    /// Packs that the index names.
    fn packs(&self) -> Result<BTreeSet<String>, RepositoryError> {
        let open = Open { key: self.copy.key().cloned(), ..Open::default() };
        match Repository::open(Arc::clone(self.here), open) {
            Ok(opened) => Ok(opened.sound_index()?.packs.keys().map(pack_key).collect()),
            // Said already, object by object.
            Err(
                RepositoryError::Damaged { .. }
                | RepositoryError::Object(ObjectError::NotFound { .. }),
            ) => Ok(BTreeSet::new()),
            Err(error) => Err(error),
        }
    }
}
