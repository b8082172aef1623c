//! Mending: what a repository needs and has not whole is fetched from elsewhere, chunk by chunk.
//!
//! Where [`mod@crate::repair`] puts whole objects back from a copy of the *same* repository, this asks
//! anybody who may have the chunks: a maker's repository, a mirror, another user's, a host's cache. A
//! chunk is what its id says, so it does not matter who had it.
//!
//! What was fetched goes into new packs, with what is still whole in the damaged ones; then the damaged
//! packs are *condemned*: nobody deduplicates against them any more, readers take the new places first,
//! and a collection deletes them after the grace age. A chunk that nobody had keeps its damaged pack
//! named, until it turns up or nothing needs it.
//!
//! Crash: what was listed stays, and is found by the next run; the rest is garbage. A pack is condemned
//! only after what was in it is listed elsewhere, in the object of the log that takes back what a
//! collection condemned of that meanwhile. Collections keep the youngest copy of a chunk, never a
//! damaged one that it mends.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use chunk::crypt::PackId;
use chunk::{ChunkSource, FetchError, Urgency, Verified};
use model::ChunkId;

use crate::check::{Examined, Problem};
use crate::hold::to_revive;
use crate::index::{Index, Marks};
use crate::layout::pack_key;
use crate::log::IndexObject;
use crate::walk::{Place, Visitor, What, walk_through};
use crate::write::PackWriter;
use crate::{CheckProgress, CheckReport, Repository, RepositoryError};

/// Chunks that came along with one that was asked for, and are kept in case they are next.
const NEIGHBOURS_MAX: usize = 8192;

/// Somebody who may have chunks that are missing.
#[derive(Clone)]
pub struct Helper {
    /// Who, for people.
    pub name: String,
    /// Where they come from.
    pub source: Arc<dyn ChunkSource>,
}

/// One finding, and what became of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mended {
    /// The pack in which they were damaged; none: they were nowhere.
    pub object: Option<String>,
    /// Chunks that were fetched, by who had them.
    pub fetched: BTreeMap<String, u64>,
    /// Chunks of a damaged pack that were still whole.
    pub rescued: u64,
}

/// What a check found, and what of it is mended.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct MendReport {
    /// What was looked at; its problems are in `left`.
    pub report: CheckReport,
    /// What was done.
    pub mended: Vec<Mended>,
    /// Bytes of chunks that were fetched.
    pub fetched_bytes: u64,
    /// What is damaged or missing, and nobody has.
    pub left: Vec<Problem>,
}

impl Repository {
    /// Checks everything, every byte, and mends what it can from `helpers` and the sources with which
    /// the repository was opened.
    pub fn mend(
        &self,
        helpers: &[Helper],
        progress: &mut dyn FnMut(CheckProgress),
    ) -> Result<MendReport, RepositoryError> {
        self.must_be_writable()?;
        let Examined { mut report, roots, index, bad, .. } = self.examine(true, progress)?;
        let mut mender = Mender {
            repository: self,
            helpers,
            marks: index.marks(),
            index: &index,
            bad: &bad,
            writer: self.writer()?,
            relied: HashSet::new(),
            handled: HashSet::new(),
            neighbours: HashMap::new(),
            done: BTreeMap::new(),
            fetched_bytes: 0,
            chunks: 0,
            // What is no pack is put back from a copy of the repository alone.
            left: std::mem::take(&mut report.problems),
        };
        let chain = Chain { repository: self.clone(), helpers: helpers.to_vec() };
        let chain: Arc<dyn ChunkSource> = Arc::new(chain);
        let total = roots.len() as u64;
        let roots = roots.into_iter().zip(0..).map(|(root, done)| {
            progress(CheckProgress { step: "mending", done, total });
            root
        });
        walk_through(&chain, roots, &mut mender)?;
        progress(CheckProgress { step: "mending", done: total, total });
        let Mender { writer, mut relied, done, fetched_bytes, chunks, left, .. } = mender;
        report.chunks = chunks;
        report.problem_count = left.len() as u64;
        relied.extend(writer.finish_copies()?);
        ambient::step("mend: listed");
        self.extend(|index| {
            let in_use = |id: &&PackId| index.packs.get(id).is_some_and(|p| p.condemned_at == 0);
            let mut condemned: Vec<PackId> = bad.keys().filter(in_use).copied().collect();
            condemned.sort_unstable();
            // A collection that did not know may have condemned the copies.
            let revived = to_revive(index, &relied)?;
            Ok(IndexObject { condemned, revived, ..IndexObject::default() })
        })?;
        ambient::step("mend: condemned");
        let mended = done.into_iter().map(|(pack, (fetched, rescued))| Mended {
            object: pack.map(|pack| pack_key(&pack)),
            fetched,
            rescued,
        });
        Ok(MendReport { report, mended: mended.collect(), fetched_bytes, left })
    }
}

struct Mender<'a> {
    repository: &'a Repository,
    helpers: &'a [Helper],
    index: &'a Index,
    marks: Marks,
    /// Packs that are missing or not whole.
    bad: &'a HashMap<PackId, String>,
    writer: PackWriter,
    /// Whole packs on their way out that have what is needed.
    relied: HashSet<PackId>,
    /// Chunks that no index lists and that were looked at.
    handled: HashSet<ChunkId>,
    neighbours: HashMap<ChunkId, (Verified, String)>,
    done: BTreeMap<Option<PackId>, (BTreeMap<String, u64>, u64)>,
    fetched_bytes: u64,
    chunks: u64,
    left: Vec<Problem>,
}

impl Mender<'_> {
    /// The chunk from whoever has it, and who that was.
    fn ask_others(&mut self, id: &ChunkId) -> Result<(Verified, String), FetchError> {
        if let Some(known) = self.neighbours.remove(id) {
            return Ok(known);
        }
        let repository = Helper {
            name: "a source of this host".to_owned(),
            source: Arc::new(self.repository.clone()),
        };
        let mut worst = FetchError::Missing { id: *id };
        for helper in self.helpers.iter().chain([&repository]) {
            match helper.source.fetch(id, Urgency::Background) {
                Ok(chunks) => {
                    let mut chunks = chunks.into_iter();
                    let Some(wanted) = chunks.next().filter(|chunk| chunk.id() == *id) else {
                        continue;
                    };
                    if self.neighbours.len() > NEIGHBOURS_MAX {
                        self.neighbours.clear();
                    }
                    let named = |chunk: Verified| (chunk.id(), (chunk, helper.name.clone()));
                    self.neighbours.extend(chunks.map(named));
                    return Ok((wanted, helper.name.clone()));
                }
                Err(FetchError::Missing { .. }) => {}
                Err(error) => worst = error,
            }
        }
        Err(worst)
    }

    /// Brings a chunk that lies nowhere but in damaged packs, or nowhere. Says whether it did.
    fn bring(
        &mut self,
        place: &Place,
        what: What,
        id: &ChunkId,
        pack: Option<PackId>,
    ) -> Result<bool, RepositoryError> {
        let here = match pack {
            // Its own frame may be whole.
            Some(_) => self.repository.fetch_here(id).ok(),
            None => None,
        };
        let rescued = here.and_then(|chunks| chunks.into_iter().next());
        let (chunk, from) = match rescued {
            Some(chunk) => (chunk, None),
            None => match self.ask_others(id) {
                Ok((chunk, from)) => (chunk, Some(from)),
                Err(error) => {
                    self.left.push(Problem {
                        object: format!("chunk {}", id.short()),
                        place: Some(place.to_string()),
                        page: if let What::Page(page) = what { Some(page) } else { None },
                        detail: match pack {
                            Some(pack) => format!(
                                "it is damaged in {}, and nobody who was asked has it: {error}",
                                pack_key(&pack)
                            ),
                            None => format!("nobody who was asked has it: {error}"),
                        },
                    });
                    return Ok(false);
                }
            },
        };
        self.writer.put_copy(*id, &chunk)?;
        let (fetched, kept) = self.done.entry(pack).or_default();
        match from {
            Some(from) => {
                *fetched.entry(from).or_default() += 1;
                self.fetched_bytes += chunk.len() as u64;
            }
            None => *kept += 1,
        }
        Ok(true)
    }
}

impl Visitor for Mender<'_> {
    fn needs(&mut self, place: &Place, what: What, id: &ChunkId) -> Result<bool, RepositoryError> {
        let name = self.repository.inner.cipher.stored_name(id);
        match self.index.mark(&mut self.marks, &name)? {
            Some(true) => Ok(false),
            Some(false) => {
                self.chunks += 1;
                let places = self.index.locations(&name)?;
                // Those in use come first.
                let whole = places.iter().find(|at| !self.bad.contains_key(&at.pack));
                match (whole, places.first()) {
                    (Some(whole), Some(first)) => {
                        if whole.pack != first.pack {
                            self.relied.insert(whole.pack);
                        }
                        Ok(true)
                    }
                    (_, first) => self.bring(place, what, id, first.map(|at| at.pack)),
                }
            }
            None if !self.handled.insert(*id) => Ok(false),
            // In a maker's repository, which keeps its own, and all that is below it.
            None if self.repository.has_elsewhere(id) => Ok(false),
            None => self.bring(place, what, id, None),
        }
    }

    fn unreadable(&mut self, place: &Place, error: RepositoryError) -> Result<(), RepositoryError> {
        self.left.push(Problem {
            object: "volume".to_owned(),
            place: Some(place.to_string()),
            page: None,
            detail: error.to_string(),
        });
        Ok(())
    }
}

/// The repository, and behind it whoever helps.
struct Chain {
    repository: Repository,
    helpers: Vec<Helper>,
}

impl ChunkSource for Chain {
    fn fetch(&self, id: &ChunkId, urgency: Urgency) -> Result<Vec<Verified>, FetchError> {
        let first = match self.repository.fetch(id, urgency) {
            Ok(chunks) => return Ok(chunks),
            Err(error) => error,
        };
        let mut helped = self.helpers.iter().map(|helper| helper.source.fetch(id, urgency));
        let right = |chunks: &Vec<Verified>| chunks.first().is_some_and(|c| c.id() == *id);
        helped.find_map(|chunks| chunks.ok().filter(right)).ok_or(first)
    }
}
