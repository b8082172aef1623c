//! Where everything lies in a new version: said by its maker, and made into manifests by whoever updates.
//!
//! *Invariant.* What is made here is used when its id is the one that the signed version says, and forgotten
//! otherwise: then the manifest is fetched as always.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use chunk::{ChunkSink, ChunkSource, FetchError, Put, SinkError, Urgency, Verified};
use delta::{DeltaError, DiskLayout, Layout, Stretch, What};
use manifest::{Manifest, NodeCache, Visit};
use model::{ChunkId, DiskRole, VersionId};
use volume::{Cache, Fetcher};

use super::{NODES_KEPT, Sources, Spot};
use crate::failure::{Failure, Result};
use crate::record::Version;

/// Nodes that are put into the cache at once.
const NODES_AT_ONCE: usize = 256;
/// Of the old version's pages, one in so many may be missing here.
const MISSING_ONE_IN: u64 = 16;

/// Says where everything lies in `new`; `given` are the pages that groups give. None: in more places than a
/// layout has room for.
pub fn layout(
    (from, old): (VersionId, &Sources),
    (to, new): (VersionId, &Sources),
    old_at: &HashMap<ChunkId, Spot>,
    given: &HashMap<ChunkId, Spot>,
    records: Vec<Vec<u8>>,
) -> Result<Option<Vec<u8>>> {
    let mut before = HashMap::new();
    for (source, disk) in old.numbered() {
        disk.walk(&old.nodes, &mut |_, _| Visit::Descend, &mut |page, id| {
            before.insert((source, page), *id);
        })?;
    }
    let mut disks = Vec::new();
    for (source, disk) in new.numbered() {
        let (mut stretches, mut end): (Vec<Stretch>, u64) = (Vec::new(), 0);
        disk.walk(&new.nodes, &mut |_, _| Visit::Descend, &mut |page, id| {
            hole(&mut stretches, page - end);
            end = page + 1;
            // Where an old stretch goes on, rather than any other place of the same page.
            let next = stretches.last().and_then(|last| match last.what {
                What::Old { source, first } => Some((source, first + u64::from(last.count))),
                _ => None,
            });
            let same = next.filter(|next| before.get(next) == Some(id));
            let what = match (same.or_else(|| old_at.get(id).copied()), given.get(id)) {
                (Some((source, first)), _) => What::Old { source, first },
                (None, Some(spot)) if *spot != (source, page) => {
                    What::Again { source: spot.0, first: spot.1 }
                }
                _ => What::New,
            };
            add(&mut stretches, what);
        })?;
        hole(&mut stretches, disk.pages() - end);
        disks.push(DiskLayout { source, stretches });
    }
    let layout = Layout { from: *from.as_bytes(), to: *to.as_bytes(), records, disks };
    match layout.encode() {
        Ok(bytes) => Ok(Some(bytes)),
        Err(DeltaError::TooLarge { .. }) => Ok(None),
        Err(error) => Err(Failure::new("internal", error.to_string(), "")),
    }
}

/// How many pages groups give to who has this layout of a version; none: it is not one of that version's disks.
pub fn says_pages(layout: &Layout, new: &Version) -> Option<u64> {
    let disks = new.hardware.disks.iter().zip(0_u16..);
    let mut disks = disks.filter(|(disk, _)| disk.role == DiskRole::System);
    let (mut given, mut full) = (0_u64, 0_u64);
    for said in &layout.disks {
        let (disk, _) = disks.next().filter(|(_, number)| *number == said.source)?;
        let pages = |of: fn(&What) -> bool| -> u64 {
            let stretches = said.stretches.iter().filter(|stretch| of(&stretch.what));
            stretches.map(|stretch| u64::from(stretch.count)).sum()
        };
        if pages(|_| true) != disk.size_bytes.div_ceil(super::PAGE as u64) {
            return None;
        }
        given += pages(|what| *what == What::New);
        full += pages(|what| *what != What::Hole);
    }
    (disks.next().is_none() && full <= super::PAGES_MAX as u64).then_some(given)
}

fn hole(stretches: &mut Vec<Stretch>, mut pages: u64) {
    while pages > 0 {
        let count = pages.min(u64::from(delta::RUN_MAX)) as u32;
        stretches.push(Stretch { what: What::Hole, count });
        pages -= u64::from(count);
    }
}

fn add(stretches: &mut Vec<Stretch>, what: What) {
    if let Some(last) = stretches.last_mut().filter(|last| last.count < delta::RUN_MAX) {
        let count = u64::from(last.count);
        let goes_on = match (last.what, what) {
            (What::New, What::New) => true,
            (What::Old { source, first }, What::Old { source: s, first: f })
            | (What::Again { source, first }, What::Again { source: s, first: f }) => {
                (source, first + count) == (s, f)
            }
            _ => false,
        };
        if goes_on {
            last.count += 1;
            return;
        }
    }
    stretches.push(Stretch { what, count: 1 });
}

/// Chunks that are here, and no others.
struct Here(Arc<Cache>);

impl ChunkSource for Here {
    fn fetch(&self, id: &ChunkId, _urgency: Urgency) -> Result<Vec<Verified>, FetchError> {
        self.0.read(id).map(|chunk| vec![chunk]).ok_or(FetchError::Missing { id: *id })
    }
}

/// How many pages a version's system disks have, and how many of them are not here; none: nobody can say
/// without fetching more.
fn pages_here(version: &Version, fetcher: &Arc<Fetcher>) -> Option<(u64, u64)> {
    let here = Arc::new(Here(fetcher.cache().clone()));
    let sources = Sources::open_from(version, here).ok()?;
    let (mut pages, mut missing) = (0_u64, 0_u64);
    for (_, disk) in sources.numbered() {
        let walked = disk.walk(&sources.nodes, &mut |_, _| Visit::Descend, &mut |_, id| {
            pages += 1;
            missing += u64::from(!fetcher.cache().has(id));
        });
        walked.ok()?;
    }
    Some((pages, missing))
}

/// Whether so much of the old version is here that a delta from it can be used.
pub fn is_here(old: &Version, fetcher: &Arc<Fetcher>) -> bool {
    pages_here(old, fetcher).is_some_and(|(pages, missing)| missing * MISSING_ONE_IN <= pages)
}

/// Whether anything of the new one is not here.
pub fn is_needed(new: &Version, fetcher: &Arc<Fetcher>) -> bool {
    pages_here(new, fetcher).is_none_or(|(_, missing)| missing > 0)
}

/// Makes the manifests of a new version, of where everything lies and what groups gave, and puts them into
/// the host's cache. False: something does not fit.
pub fn rebuild(
    layout: &Layout,
    new: &Version,
    old: &Sources,
    given: &BTreeMap<Spot, ChunkId>,
    fetcher: &Arc<Fetcher>,
) -> Result<bool> {
    for disk in &layout.disks {
        let at = usize::from(disk.source);
        let (Some(spec), Some(id)) = (new.hardware.disks.get(at), new.disks.get(at)) else {
            return Ok(false);
        };
        let Some(pages) = pages(disk, old, given)? else { return Ok(false) };
        let empty = Manifest::empty(spec.size_bytes)?;
        let nodes = NodeCache::new(fetcher.clone(), NODES_KEPT);
        let mut sink = Keeping { cache: fetcher.cache(), chunks: Vec::new() };
        let mut pages = pages.into_iter();
        // Pages beyond the end, for example.
        let Ok(made) = empty.update(&nodes, &mut pages, None, &mut sink) else { return Ok(false) };
        sink.flush();
        if made.id() != *id {
            return Ok(false);
        }
    }
    Ok(true)
}

type Pages = Vec<(u64, Option<ChunkId>)>;

/// What a disk has on its pages; none: something that is named is not there.
fn pages(
    disk: &DiskLayout,
    old: &Sources,
    given: &BTreeMap<Spot, ChunkId>,
) -> Result<Option<Pages>> {
    let (mut pages, mut at) = (Vec::new(), 0_u64);
    for Stretch { what, count } in &disk.stretches {
        let end = at + u64::from(*count);
        if pages.len() as u64 + u64::from(*count) > super::PAGES_MAX as u64 && *what != What::Hole {
            return Ok(None);
        }
        let from = match what {
            What::Hole => None,
            What::New => Some((disk.source, at)),
            What::Again { source, first } => Some((*source, *first)),
            What::Old { source, first } => {
                let run = delta::Run { source: *source, first: *first, count: *count };
                let Some(ids) = old.ids(&[run], *count as usize)? else { return Ok(None) };
                pages.extend((at..end).zip(ids.into_iter().map(Some)));
                None
            }
        };
        if let Some((source, first)) = from {
            for (page, spot) in (at..end).zip(first..) {
                let Some(id) = given.get(&(source, spot)) else { return Ok(None) };
                pages.push((page, Some(*id)));
            }
        }
        at = end;
    }
    Ok(Some(pages))
}

/// Puts what comes into the cache, many at a time.
struct Keeping<'a> {
    cache: &'a Cache,
    chunks: Vec<Verified>,
}

impl Keeping<'_> {
    fn flush(&mut self) {
        self.cache.keep(&self.chunks.iter().collect::<Vec<_>>());
        self.chunks.clear();
    }
}

impl ChunkSink for Keeping<'_> {
    fn put(&mut self, _id: ChunkId, bytes: &[u8]) -> Result<Put, SinkError> {
        self.chunks.push(Verified::of(bytes));
        if self.chunks.len() >= NODES_AT_ONCE {
            self.flush();
        }
        Ok(Put::Stored)
    }
}
