//! Looking at everything: that refs open, that all they need is indexed, that packs are there
//! with the right size, and, if asked, that every byte is what it should be.
//!
//! Problems are collected, not thrown: a check of a damaged repository goes to its end.

use std::collections::{BTreeMap, HashMap, HashSet};

use chunk::crypt::{FrameKind, PackId, StoredName};
use chunk::frame::{FRAME_BYTES_MAX, decode};
use chunk::{ChunkSource, FetchError, Urgency, id_of};
use model::ChunkId;
use objects::OBJECT_BYTES_MAX;

use crate::index::{Index, Marks};
use crate::layout::{PACKS, REFS, pack_key, pack_of, ref_key};
use crate::pack::read_pack;
use crate::walk::{Place, Visitor, What, walk};
use crate::{Repository, RepositoryError, Target};

/// More problems than this are counted, but not described.
const PROBLEMS_MAX: usize = 1000;

/// Something that is not as it should be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// The object in the store, or the chunk.
    pub object: String,
    /// What needs it: ref and generation, record, role of the volume, where known.
    pub place: Option<String>,
    /// The page of the volume, where known.
    pub page: Option<u64>,
    /// What is wrong.
    pub detail: String,
}

impl std::fmt::Display for Problem {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}", self.object, self.detail)?;
        if let Some(place) = &self.place {
            write!(f, " (needed by {place}")?;
            if let Some(page) = self.page {
                write!(f, ", page {page}")?;
            }
            f.write_str(")")?;
        }
        Ok(())
    }
}

/// What a check found.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct CheckReport {
    /// Generations of refs that were opened.
    pub refs: u64,
    /// Different manifests that they need.
    pub manifests: u64,
    /// Different chunks that they need, and that are in this repository.
    pub chunks: u64,
    /// Packs that are listed in the index.
    pub packs: u64,
    /// Bytes of packs that were read and verified.
    pub verified_bytes: u64,
    /// What is wrong, at most the first thousand.
    pub problems: Vec<Problem>,
    /// How many problems there are.
    pub problem_count: u64,
}

/// How far a check is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CheckProgress {
    /// What is looked at now.
    pub step: &'static str,
    /// How many are done.
    pub done: u64,
    /// How many there are.
    pub total: u64,
}

impl CheckReport {
    fn add(&mut self, problem: Problem) {
        self.problem_count += 1;
        if self.problems.len() < PROBLEMS_MAX {
            self.problems.push(problem);
        }
    }

    fn object(&mut self, object: &str, detail: impl ToString) {
        let (object, detail) = (object.to_owned(), detail.to_string());
        self.add(Problem { object, place: None, page: None, detail });
    }
}

/// What was seen before the volumes were walked.
pub(crate) struct Examined {
    /// With what is wrong about objects that are no packs.
    pub(crate) report: CheckReport,
    /// What refs name.
    pub(crate) roots: Vec<(Place, Target)>,
    pub(crate) index: Index,
    /// Packs that are missing or not whole, and what is wrong with each.
    pub(crate) bad: HashMap<PackId, String>,
    /// Chunks that are whole in no place.
    damaged: HashSet<StoredName>,
}

impl Repository {
    /// Checks everything; reads and verifies every byte of every pack if `read_data`.
    ///
    /// Fails only when the store cannot be asked; whatever is wrong in it is in the report.
    pub fn check(
        &self,
        read_data: bool,
        progress: &mut dyn FnMut(CheckProgress),
    ) -> Result<CheckReport, RepositoryError> {
        let Examined { mut report, roots, index, bad, damaged } =
            self.examine(read_data, progress)?;
        let mut finder = Finder {
            repository: self,
            index: &index,
            marks: index.marks(),
            damaged: &damaged,
            elsewhere: HashSet::new(),
            report: CheckReport::default(),
        };
        let total = roots.len() as u64;
        let roots = roots.into_iter().zip(0..).map(|(root, done)| {
            progress(CheckProgress { step: "volumes", done, total });
            root
        });
        walk(self, roots, &mut finder)?;
        progress(CheckProgress { step: "volumes", done: total, total });
        let Finder { marks, report: found, .. } = finder;
        let mut needed = HashSet::new();
        if !bad.is_empty() {
            index.for_each(&marks, |_, location, marked| {
                if marked && bad.contains_key(&location.pack) {
                    needed.insert(location.pack);
                }
            })?;
        }
        // A pack on its way out that nothing needs is nobody's loss.
        let condemned = |id: &PackId| index.packs.get(id).is_some_and(|p| p.condemned_at != 0);
        let mut bad: Vec<(PackId, String)> = bad.into_iter().collect();
        bad.sort_unstable();
        for (pack, complaint) in bad {
            if needed.contains(&pack) || !condemned(&pack) {
                report.object(&pack_key(&pack), complaint);
            }
        }
        report.chunks = found.chunks;
        report.manifests = found.manifests;
        report.problem_count += found.problem_count;
        let room = PROBLEMS_MAX.saturating_sub(report.problems.len());
        report.problems.extend(found.problems.into_iter().take(room));
        Ok(report)
    }

    /// Looks at refs, log and packs.
    pub(crate) fn examine(
        &self,
        read_data: bool,
        progress: &mut dyn FnMut(CheckProgress),
    ) -> Result<Examined, RepositoryError> {
        let mut report = CheckReport::default();
        let roots = self.check_refs(&mut report, progress)?;
        match self.refresh() {
            Err(error) if !error.is_away() => report.object("index", error),
            other => other?,
        }
        let index = self.sound_index()?;
        self.check_log(&index, &mut report)?;
        let mut bad = self.check_packs(&index, &mut report)?;
        let mut damaged = HashSet::new();
        if read_data {
            damaged = self.check_data(&index, &mut report, &mut bad, progress)?;
        }
        Ok(Examined { report, roots, index, bad, damaged })
    }

    fn check_refs(
        &self,
        report: &mut CheckReport,
        progress: &mut dyn FnMut(CheckProgress),
    ) -> Result<Vec<(Place, Target)>, RepositoryError> {
        if !self.inner.objects.features().list {
            let location = self.location();
            let operation = "list its refs, so it can only be checked at its origin".to_owned();
            return Err(objects::ObjectError::Unsupported { location, operation }.into());
        }
        let refs = self.refs().all()?;
        let total = refs.len() as u64;
        let mut roots = Vec::new();
        for (done, (stored, generations)) in refs.iter().enumerate() {
            progress(CheckProgress { step: REFS, done: done as u64, total });
            for (generation, _) in generations {
                match self.refs().open(stored, *generation) {
                    Ok(opened) => {
                        report.refs += 1;
                        let root =
                            format!("{} {}, generation {generation}", opened.kind, opened.name);
                        roots.extend(crate::walk::roots(&root, &opened.value.roots));
                    }
                    Err(error) if error.is_away() => return Err(error),
                    Err(error) => report.object(&ref_key(stored, *generation), error),
                }
            }
        }
        Ok(roots)
    }

    /// Every object of the log since the latest snapshot, and the snapshot's tables.
    fn check_log(&self, index: &Index, report: &mut CheckReport) -> Result<(), RepositoryError> {
        for number in index.latest_snapshot.max(1)..=index.applied {
            match self.load_object(number) {
                Err(error) if error.is_away() => return Err(error),
                Err(error) => report.object(&crate::layout::index_key(number), error),
                Ok(_) => {}
            }
        }
        for table in &index.tables {
            match self.load_table(table) {
                Err(error) if error.is_away() => return Err(error),
                Err(error) => report.object(&crate::layout::table_key(table), error),
                Ok(_) => {}
            }
        }
        Ok(())
    }

    /// The packs that are missing, or not as long as they should be.
    fn check_packs(
        &self,
        index: &Index,
        report: &mut CheckReport,
    ) -> Result<HashMap<PackId, String>, RepositoryError> {
        let mut bad = HashMap::new();
        let listed: HashMap<PackId, u64> = self
            .inner
            .objects
            .list(PACKS)?
            .into_iter()
            .filter_map(|object| Some((pack_of(&object.key)?, object.bytes)))
            .collect();
        report.packs = index.packs.len() as u64;
        for (id, info) in &index.packs {
            match listed.get(id) {
                None => drop(bad.insert(*id, "it is missing".to_owned())),
                Some(bytes) if *bytes != info.bytes => {
                    bad.insert(*id, format!("it has {bytes} bytes instead of {}", info.bytes));
                }
                Some(_) => {}
            }
        }
        Ok(bad)
    }

    /// Reads every pack. Gives the chunks that are whole in none, and adds to `bad`.
    fn check_data(
        &self,
        index: &Index,
        report: &mut CheckReport,
        bad: &mut HashMap<PackId, String>,
        progress: &mut dyn FnMut(CheckProgress),
    ) -> Result<HashSet<StoredName>, RepositoryError> {
        let (mut lost, mut whole) = (HashSet::new(), HashSet::new());
        let mut names: BTreeMap<PackId, Vec<StoredName>> = BTreeMap::new();
        index.for_each(&index.marks(), |name, location, _| {
            names.entry(location.pack).or_default().push(*name);
        })?;
        let total = names.len() as u64;
        for (done, (pack, names)) in names.into_iter().enumerate() {
            progress(CheckProgress { step: PACKS, done: done as u64, total });
            match self.verify_pack(&pack) {
                Ok((bytes, good, complaint)) => {
                    report.verified_bytes += bytes;
                    let unlike = || "the index names chunks that it does not hold".to_owned();
                    let lacks = names.iter().any(|name| !good.contains(name));
                    let Some(complaint) = complaint.or_else(|| lacks.then(unlike)) else {
                        continue;
                    };
                    bad.entry(pack).or_insert(complaint);
                    lost.extend(names.into_iter().filter(|name| !good.contains(name)));
                    whole.extend(good);
                }
                Err(error) if error.is_away() => return Err(error),
                Err(error) => {
                    bad.entry(pack).or_insert_with(|| error.to_string());
                    lost.extend(names);
                }
            }
        }
        progress(CheckProgress { step: PACKS, done: total, total });
        let mut damaged = HashSet::new();
        for name in lost.into_iter().filter(|name| !whole.contains(name)) {
            if index.locations(&name)?.iter().all(|at| bad.contains_key(&at.pack)) {
                damaged.insert(name);
            }
        }
        Ok(damaged)
    }

    /// Reads a whole pack. Gives its size, the chunks that are whole, and a complaint if one of
    /// its frames is not.
    #[allow(clippy::type_complexity)]
    fn verify_pack(
        &self,
        pack: &PackId,
    ) -> Result<(u64, HashSet<StoredName>, Option<String>), RepositoryError> {
        let bytes = self.inner.objects.get(&pack_key(pack), OBJECT_BYTES_MAX)?;
        let (good, complaint) = self.verify_pack_bytes(pack, &bytes)?;
        Ok((bytes.len() as u64, good, complaint))
    }

    /// The chunks of a pack that are whole, and a complaint if one of its frames is not.
    pub(crate) fn verify_pack_bytes(
        &self,
        pack: &PackId,
        bytes: &[u8],
    ) -> Result<(HashSet<StoredName>, Option<String>), RepositoryError> {
        let cipher = self.inner.cipher.pack(*pack);
        let mut good = HashSet::new();
        let mut complaint = None;
        let frames = read_pack(&self.inner.cipher, *pack, bytes)?;
        let mut offset = crate::pack::PACK_HEAD_BYTES as usize;
        for (number, frame) in frames.iter().enumerate() {
            let end = offset + frame.stored_bytes as usize;
            let mut sealed = bytes.get(offset..end).unwrap_or_default().to_vec();
            offset = end;
            let opened = cipher
                .open(FrameKind::Chunks, number as u32, &mut sealed)
                .map_err(|error| error.to_string())
                .and_then(|()| decode(&sealed, FRAME_BYTES_MAX).map_err(|error| error.to_string()));
            match opened {
                Err(error) => {
                    complaint.get_or_insert(format!("frame {number} {error}"));
                }
                Ok(chunks) => {
                    if chunks.len() != frame.chunks as usize {
                        let detail = format!("frame {number} is not what the table says");
                        complaint.get_or_insert(detail);
                    }
                    let name = |chunk| self.inner.cipher.stored_name(&id_of(chunk));
                    good.extend(chunks.iter().map(name));
                }
            }
        }
        Ok((good, complaint))
    }
}

/// Finds out what each missing or damaged chunk means for whom.
struct Finder<'a> {
    repository: &'a Repository,
    index: &'a Index,
    marks: Marks,
    damaged: &'a HashSet<StoredName>,
    /// Chunks that another source has.
    elsewhere: HashSet<ChunkId>,
    report: CheckReport,
}

impl Finder<'_> {
    fn problem(&mut self, place: &Place, what: What, id: &ChunkId, detail: &str) {
        let page = match what {
            What::Page(page) => Some(page),
            _ => None,
        };
        self.report.add(Problem {
            object: format!("chunk {}", id.short()),
            place: Some(place.to_string()),
            page,
            detail: detail.to_owned(),
        });
    }
}

impl Visitor for Finder<'_> {
    fn needs(&mut self, place: &Place, what: What, id: &ChunkId) -> Result<bool, RepositoryError> {
        let name = self.repository.inner.cipher.stored_name(id);
        match self.index.mark(&mut self.marks, &name)? {
            Some(seen) => {
                if !seen {
                    self.report.chunks += 1;
                    self.report.manifests += u64::from(what == What::Manifest);
                    if self.damaged.contains(&name) {
                        self.problem(place, what, id, "it is damaged");
                    }
                }
                Ok(!seen)
            }
            None if self.elsewhere.contains(id) => Ok(false),
            None => match self.repository.fetch(id, Urgency::Background) {
                // In a maker's repository, or a mirror: what is below it is there, too.
                Ok(chunks) => {
                    self.elsewhere.extend(chunks.iter().map(|chunk| chunk.id()));
                    Ok(false)
                }
                Err(error @ FetchError::Unavailable { .. }) => Err(error.into()),
                Err(error) => {
                    self.problem(place, what, id, &error.to_string());
                    Ok(false)
                }
            },
        }
    }

    fn unreadable(&mut self, place: &Place, error: RepositoryError) -> Result<(), RepositoryError> {
        self.report.add(Problem {
            object: "volume".to_owned(),
            place: Some(place.to_string()),
            page: None,
            detail: error.to_string(),
        });
        Ok(())
    }
}
