//! Making a delta: which old pages help to say a new one.
//!
//! A file that changed is said by the file of its name before, or where names have numbers
//! (`linux-6.1.0-9`, `libfoo.so.1.2`) by the one that differs in these alone; what lies in no file that is
//! known, by what lay there. Which old pages are taken decides only how small it gets.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, Mutex, PoisonError};

use chunk::Urgency;
use delta::{Group, OLD_BYTES_MAX, Opening, PART_BYTES_MAX, Part, Run};
use files::{FileKind, FileSystem};
use manifest::{Manifest, Visit};
use model::{ChunkId, VersionId};
use volume::{Cancel, Fetcher, View};

use super::open::{self, Side};
use super::{Budget, PAGE, PAGES_MAX, Sources, Spot, lay};
use crate::failure::{Failure, Result};
use crate::inside::{self, Bytes};
use crate::record::Version;

/// New pages in a group: enough to learn from each other, few enough to be thrown away.
const GROUP_NEW: usize = (3 << 20) / PAGE;
// What does not compress at all has to fit into a part, with its runs.
const _: () = assert!(GROUP_NEW * PAGE + (PART_BYTES_MAX >> 3) <= PART_BYTES_MAX);
/// Old pages in a group.
const GROUP_OLD: usize = OLD_BYTES_MAX / PAGE;
/// A part is begun anew when it is so full, bytes.
const PART_FULL: usize = PART_BYTES_MAX / 2;
/// Files that are looked at, at most, and how deep.
const FILES_MAX: usize = 1 << 20;
const DEPTH_MAX: usize = 64;
/// Files are looked into for what is compressed when they have so many bytes.
const OPEN_LEAST: u64 = 64 << 10;
const OPEN_MOST: u64 = 64 << 20;
/// Bytes that are read of a file at once.
const READ: usize = 1 << 20;

/// What is said together.
#[derive(Default)]
pub(super) struct Item {
    pub new: Vec<Spot>,
    pub old: Vec<Spot>,
    /// What is compressed in their bytes.
    pub new_opened: Vec<Opening>,
    pub old_opened: Vec<Opening>,
    /// What says the same without opening anything, for when that does not pay.
    pub instead: Vec<Item>,
}

/// A delta.
pub struct Made {
    pub parts: Vec<Vec<u8>>,
    /// None: everything lies in more places than one has room for.
    pub layout: Option<Vec<u8>>,
    /// Pages that it gives.
    pub pages: usize,
}

/// A delta from one version to another, with the new one's records; none: there is nothing to gain.
pub fn make(
    from: (VersionId, &Version),
    to: (VersionId, &Version),
    records: Vec<Vec<u8>>,
    fetcher: &Arc<Fetcher>,
    progress: &mut dyn FnMut(&str),
) -> Result<Option<Made>> {
    let (old, new) = (Sources::open(from.1, fetcher)?, Sources::open(to.1, fetcher)?);
    let old_at = spots(&old)?;
    let mut wanted = spots(&new)?;
    wanted.retain(|id, _| !old_at.contains_key(id));
    if wanted.is_empty() || old_at.is_empty() || old_at.len() + wanted.len() > PAGES_MAX {
        return Ok(None);
    }
    let pages = wanted.len();
    let layout = lay::layout((from.0, &old), (to.0, &new), &old_at, &wanted, records)?;
    let new_at = spots(&new)?;
    let (mut items, mut opened) = (Vec::new(), Vec::new());
    for (number, _) in new.numbered() {
        progress("looking for what changed in files");
        let before = files_of(&old, number, fetcher)?;
        let Some(now) = files_of(&new, number, fetcher)? else { continue };
        let before = before.unwrap_or_default();
        for (path, file) in &now.by_path {
            let ids = file.pages(&now)?;
            let mut new: Vec<(usize, Spot)> = ids
                .iter()
                .enumerate()
                .filter_map(|(at, id)| Some((at, wanted.remove(&(*id)?)?)))
                .collect();
            if new.is_empty() {
                continue;
            }
            let twin = before.twin(path);
            let old_ids = match twin {
                Some(twin) => twin.pages(&before)?,
                None => Vec::new(),
            };
            let old: Vec<Spot> =
                old_ids.iter().flatten().filter_map(|id| old_at.get(id).copied()).collect();
            let place =
                |ids: &[Option<ChunkId>], at: &HashMap<ChunkId, Spot>| -> Vec<Option<Spot>> {
                    ids.iter().map(|id| at.get(&(*id)?).copied()).collect()
                };
            if let Some(this) = Side::new(file.bytes(&now), place(&ids, &new_at)) {
                let that = twin.and_then(|twin| twin.bytes(&before));
                let that = Side::new(that, place(&old_ids, &old_at));
                for (pages, mut item) in open::items(&this, that.as_ref()) {
                    let (inside, rest): (Vec<_>, Vec<_>) =
                        new.into_iter().partition(|(at, _)| pages.contains(at));
                    new = rest;
                    item.instead = cut(&inside, ids.len(), &old);
                    if !inside.is_empty() {
                        opened.push(item);
                    }
                }
            }
            items.extend(cut(&new, ids.len(), &old));
        }
    }
    // What is in no file: tables of the file system, and disks that have none that is known.
    let mut rest: Vec<Spot> = wanted.into_values().collect();
    rest.sort_unstable();
    for spots in rest.chunks(GROUP_NEW) {
        let old = spots.iter().filter(|(number, page)| {
            let run = Run { source: *number, first: *page, count: 1 };
            old.ids(&[run], 1).is_ok_and(|ids| ids.is_some())
        });
        let old = old.copied().collect();
        items.push(Item { old, new: spots.to_vec(), ..Item::default() });
    }
    let mut groups = together(items);
    groups.extend(opened);
    let mut packed = pack_all(&groups, &old, &new, fetcher, progress)?;
    if !keep_within(&mut packed, pages as u64, &new, fetcher)? {
        return Ok(None);
    }
    let parts = parts(from.0, to.0, packed);
    let fits = parts.iter().all(|part| part.len() <= PART_BYTES_MAX);
    Ok(fits.then_some(Made { parts, layout, pages }))
}

/// Says without old pages what would name more of them than who uses it is ready to read. False: that is not
/// enough.
pub(super) fn keep_within(
    groups: &mut [Group],
    pages: u64,
    new: &Sources,
    fetcher: &Arc<Fetcher>,
) -> Result<bool> {
    let mut budget = Budget::new(pages, pages);
    for group in groups {
        if budget.name(group).is_none() {
            return Ok(false);
        }
        if budget.work(group) {
            continue;
        }
        let bytes = bytes_of(new, &group.new, fetcher)?;
        let packed = delta::pack(&[], &bytes).map_err(internal)?;
        let (old_opened, new_opened) = (Vec::new(), Vec::new());
        let new = std::mem::take(&mut group.new);
        *group = Group { old: Vec::new(), new, old_opened, new_opened, packed };
        if !budget.work(group) {
            return Ok(false);
        }
    }
    Ok(true)
}

fn internal(error: delta::DeltaError) -> Failure {
    Failure::new("internal", error.to_string(), "")
}

/// Where every page of a version lies; one place each.
fn spots(sources: &Sources) -> Result<HashMap<ChunkId, Spot>> {
    let mut spots = HashMap::new();
    for (number, disk) in sources.numbered() {
        disk.walk(&sources.nodes, &mut |_, _| Visit::Descend, &mut |page, id| {
            if spots.len() <= PAGES_MAX {
                spots.entry(*id).or_insert((number, page));
            }
        })?;
    }
    Ok(spots)
}

/// A file's new pages with the old ones that help: of a long file, those around the same place.
fn cut(new: &[(usize, Spot)], pages: usize, old: &[Spot]) -> Vec<Item> {
    let cut = |some: &[(usize, Spot)]| {
        let middle = some[some.len() / 2].0;
        let around = (middle * old.len()).checked_div(pages.max(1)).unwrap_or(0);
        let first = around.saturating_sub(GROUP_OLD / 2).min(old.len().saturating_sub(GROUP_OLD));
        let old = &old[first..old.len().min(first + GROUP_OLD)];
        let new = some.iter().map(|(_, spot)| *spot).collect();
        Item { new, old: old.to_vec(), ..Item::default() }
    };
    new.chunks(GROUP_NEW).map(cut).collect()
}

/// Small items side by side, so that they learn from each other.
fn together(items: Vec<Item>) -> Vec<Item> {
    let mut groups: Vec<Item> = Vec::new();
    for item in items {
        match groups.last_mut() {
            Some(last)
                if last.new.len() + item.new.len() <= GROUP_NEW
                    && last.old.len() + item.old.len() <= GROUP_OLD =>
            {
                last.new.extend(item.new);
                last.old.extend(item.old);
            }
            _ => groups.push(item),
        }
    }
    for group in &mut groups {
        let mut seen = BTreeSet::new();
        group.old.retain(|spot| seen.insert(*spot));
    }
    groups
}

fn runs(spots: &[Spot]) -> Vec<Run> {
    let mut runs: Vec<Run> = Vec::new();
    for (source, page) in spots {
        match runs.last_mut() {
            Some(run) if run.source == *source && run.first + u64::from(run.count) == *page => {
                run.count += 1;
            }
            _ => runs.push(Run { source: *source, first: *page, count: 1 }),
        }
    }
    runs
}

/// Packs all groups, on as many threads as there are CPUs.
fn pack_all(
    items: &[Item],
    old: &Sources,
    new: &Sources,
    fetcher: &Arc<Fetcher>,
    progress: &mut dyn FnMut(&str),
) -> Result<Vec<Group>> {
    let threads = std::thread::available_parallelism().map_or(1, |threads| threads.get());
    let (next, packed) = (Mutex::new(0), Mutex::new(BTreeMap::new()));
    let lock = |error: PoisonError<_>| error.into_inner();
    let (told, tells) = std::sync::mpsc::channel();
    let work = |told: std::sync::mpsc::Sender<()>| -> Result<()> {
        loop {
            let at = {
                let mut next = next.lock().unwrap_or_else(lock);
                *next += 1;
                *next - 1
            };
            let Some(item) = items.get(at) else { return Ok(()) };
            let groups = pack_one(item, old, new, fetcher)?;
            packed.lock().unwrap_or_else(PoisonError::into_inner).insert(at, groups);
            let _ = told.send(());
        }
    };
    std::thread::scope(|scope| -> Result<()> {
        let workers: Vec<_> = (0..threads)
            .map(|_| {
                let told = told.clone();
                scope.spawn(|| work(told))
            })
            .collect();
        drop(told);
        for (done, ()) in tells.iter().enumerate() {
            progress(&format!(
                "comparing with the version before: {} of {}",
                done + 1,
                items.len()
            ));
        }
        for worker in workers {
            let ended = worker.join();
            ended.unwrap_or_else(|_| Err(Failure::new("internal", "a packer panicked", "")))?;
        }
        Ok(())
    })?;
    Ok(packed
        .into_inner()
        .unwrap_or_else(PoisonError::into_inner)
        .into_values()
        .flatten()
        .collect())
}

/// Packs one item; when what it opens does not pay, or is too large, what it would be instead.
fn pack_one(
    item: &Item,
    old: &Sources,
    new: &Sources,
    fetcher: &Arc<Fetcher>,
) -> Result<Vec<Group>> {
    let (old_runs, new_runs) = (runs(&item.old), runs(&item.new));
    let (before, bytes) = (bytes_of(old, &old_runs, fetcher)?, bytes_of(new, &new_runs, fetcher)?);
    if item.new_opened.is_empty() {
        let packed = delta::pack(&before, &bytes).map_err(internal)?;
        let (old_opened, new_opened) = (Vec::new(), Vec::new());
        return Ok(vec![Group { old: old_runs, new: new_runs, old_opened, new_opened, packed }]);
    }
    let plain = delta::open(&before, &item.old_opened)
        .and_then(|before| Ok((before, delta::open(&bytes, &item.new_opened)?)));
    let packed = plain.and_then(|(before, bytes)| delta::pack(&before, &bytes)).ok();
    if let Some(packed) = packed.filter(|packed| packed.len() < bytes.len().min(PART_FULL)) {
        let group = Group {
            old: old_runs,
            new: new_runs,
            old_opened: item.old_opened.clone(),
            new_opened: item.new_opened.clone(),
            packed,
        };
        return Ok(vec![group]);
    }
    let mut groups = Vec::new();
    for item in &item.instead {
        groups.extend(pack_one(item, old, new, fetcher)?);
    }
    Ok(groups)
}

fn bytes_of(sources: &Sources, runs: &[Run], fetcher: &Arc<Fetcher>) -> Result<Vec<u8>> {
    let ids = sources.ids(runs, usize::MAX)?.unwrap_or_default();
    let mut bytes = Vec::with_capacity(ids.len() * PAGE);
    let got = fetcher.get_many(&ids, Urgency::Background, &Cancel::default()).unwrap_or_default();
    for chunk in got {
        bytes.extend_from_slice(chunk?.bytes());
    }
    Ok(bytes)
}

fn parts(from: VersionId, to: VersionId, groups: Vec<Group>) -> Vec<Vec<u8>> {
    let part = |groups| Part { from: *from.as_bytes(), to: *to.as_bytes(), steps: true, groups };
    let (mut parts, mut bytes, mut some) = (Vec::new(), 0, Vec::new());
    for group in groups {
        if bytes + group.packed.len() > PART_FULL && !some.is_empty() {
            parts.push(part(std::mem::take(&mut some)).encode());
            bytes = 0;
        }
        bytes += group.packed.len();
        some.push(group);
    }
    if !some.is_empty() {
        parts.push(part(some).encode());
    }
    parts
}

/// The files of one disk.
#[derive(Default)]
struct Files {
    systems: Vec<FileSystem>,
    by_path: BTreeMap<Vec<u8>, FileOf>,
    /// By their paths without the numbers in them.
    by_form: HashMap<Vec<u8>, Vec<u8>>,
}

struct FileOf {
    system: usize,
    path: Vec<u8>,
    bytes: u64,
}

impl Files {
    fn twin(&self, path: &[u8]) -> Option<&FileOf> {
        self.by_path.get(path).or_else(|| self.by_path.get(self.by_form.get(&form(path))?))
    }
}

impl FileOf {
    /// All of it, if it is of a size of which compressed ones are.
    fn bytes(&self, files: &Files) -> Option<Vec<u8>> {
        if !(OPEN_LEAST..=OPEN_MOST).contains(&self.bytes) {
            return None;
        }
        let mut all = Vec::with_capacity(self.bytes as usize);
        while (all.len() as u64) < self.bytes {
            let read = files.systems[self.system].read(&self.path, all.len() as u64, READ).ok()?;
            if read.is_empty() {
                return None;
            }
            all.extend(read);
        }
        Some(all)
    }

    /// Its pages, as chunks; none: a hole, or zeros.
    fn pages(&self, files: &Files) -> Result<Vec<Option<ChunkId>>> {
        let mut pages = Vec::new();
        let mut offset = 0;
        while offset < self.bytes {
            let mut bytes = match files.systems[self.system].read(&self.path, offset, READ) {
                Ok(bytes) if !bytes.is_empty() => bytes,
                // A file that cannot be read is told by where it lies.
                _ => break,
            };
            offset += bytes.len() as u64;
            bytes.resize(bytes.len().next_multiple_of(PAGE), 0);
            let id = |page: &[u8]| (!chunk::is_zero(page)).then(|| chunk::id_of(page));
            pages.extend(bytes.chunks_exact(PAGE).map(id));
        }
        Ok(pages)
    }
}

/// A path with every number in it as `#`.
fn form(path: &[u8]) -> Vec<u8> {
    let mut form = Vec::with_capacity(path.len());
    for byte in path {
        match byte {
            b'0'..=b'9' if form.last() == Some(&b'#') => {}
            b'0'..=b'9' => form.push(b'#'),
            other => form.push(*other),
        }
    }
    form
}

/// The files on a disk; none: there is no such disk.
fn files_of(sources: &Sources, number: u16, fetcher: &Arc<Fetcher>) -> Result<Option<Files>> {
    let Some(disk) = sources.disk(number) else { return Ok(None) };
    let view = View::open(&format!("disk {number}"), Manifest::id(disk), fetcher.clone())?;
    let bytes: Arc<dyn files::Disk> = Arc::new(Bytes(Arc::new(view)));
    let mut files = Files::default();
    // Whatever cannot be read as files is told by where it lies.
    for part in files::parts(&*bytes).unwrap_or_default() {
        let Ok(system) = FileSystem::open(bytes.clone(), &part) else { continue };
        let found = inside::walk(&system, FILES_MAX, DEPTH_MAX, &mut |_| {});
        let number = files.systems.len();
        files.systems.push(system);
        for (path, stat) in found.into_iter().filter(|(_, stat)| stat.kind == FileKind::File) {
            let key = [format!("{number}").as_bytes(), &path].concat();
            files.by_form.entry(form(&key)).or_insert_with(|| key.clone());
            files.by_path.insert(key, FileOf { system: number, path, bytes: stat.size_bytes });
        }
    }
    Ok(Some(files))
}
