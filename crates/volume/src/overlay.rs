//! The overlay: the pages an instance has written since its base.
//!
//! Two files. `N.data` is an array of 4 KiB slots; `N.journal` says which page lies in which slot
//! with which checksum, and which pages are zero. A page's state is one of
//!
//! ```text
//! absent --write--> fresh (in a slot no batch names) --flush--> flushed --write--> fresh, new slot
//!    \---zero write, discard--> zero (no slot) <--zero write, discard-- any
//! ```
//!
//! Invariants
//! * A slot that a durable batch names is never overwritten before a later durable batch has
//!   stopped naming it. So a crash at any point leaves every flushed page as it was flushed.
//! * A fresh page is rewritten in its own slot: no batch names that slot. Or, when a long write finds its
//!   pages in many places, as after random ones, in a new one with the others.
//! * Every read compares the page with its checksum; what does not match is an error, never data.
//! * Once a page is in an overlay it stays there, as bytes or as zero, until the whole overlay goes.
//!
//! Crash: what `flush` confirmed is there; each page written later is as before or as written.
//!
//! Errors: when the disk is full, a write fails and the page keeps its old bytes. A flush that failed
//! may be called again: its records are kept, and after a failed sync of the data the pages are
//! written once more, because the kernel may have dropped them.
//!
//! Locks, in this order: `flush`, `gate` (shared by writers; exclusive while a flush notes what is
//! fresh), `stripes` (shared by readers of a page, exclusive for its writers; ascending), `map`
//! (never held across I/O). None is ever held while the network is waited for.

mod map;

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, RwLock, RwLockReadGuard, RwLockWriteGuard};

use model::PAGE_BYTES;
use xxhash_rust::xxh3::xxh3_64;

use crate::disk::{Disk, DiskFile};
use crate::error::{Result, VolumeError};
use crate::journal::{Journal, OverlayId, Record};
use crate::lock::{exclusive, lock, shared};
use crate::ranges::RangeSet;
use map::Map;

const PAGE: u64 = PAGE_BYTES as u64;
const STRIPES: usize = 64;
/// Pages that share a stripe in sequence: 256 KiB.
const STRIPE_PAGES: u64 = 64;
/// A journal shorter than this is never compacted.
const COMPACT_MIN_BYTES: u64 = 1 << 20;
/// A journal is compacted when it is this many times as long as what it says now.
const COMPACT_FACTOR: u64 = 4;
/// A freed run of at least this many slots (1 MiB) is given back to the file system.
const PUNCH_MIN_SLOTS: u32 = 256;

/// One overlay, open. All methods may be called from many threads.
pub struct Overlay {
    volume: String,
    number: u64,
    /// The number that its data file will have in the host's cache.
    segment: u64,
    data: Arc<dyn DiskFile>,
    flush: Mutex<FlushState>,
    gate: RwLock<()>,
    stripes: [RwLock<()>; STRIPES],
    map: RwLock<Map>,
    /// False until the first write: lets reads pass an empty overlay without a lock.
    used: AtomicBool,
    /// For the counts: those who ask do not wait for a flush.
    journal_bytes: AtomicU64,
}

/// A write of at least so many pages (64 KiB) is worth laying together ...
const TOGETHER_MIN: usize = 16;
/// ... when its pages lie in pieces of fewer than this on average.
const PIECE_MIN: usize = 8;

/// Whether writing pages into the slots that they have would take many small writes.
fn are_scattered(own: &[Option<u32>]) -> bool {
    let begins = |at: usize| match (own[at], at.checked_sub(1).and_then(|before| own[before])) {
        (Some(slot), Some(before)) => before.checked_add(1) != Some(slot),
        (Some(_), None) => true,
        (None, _) => false,
    };
    let pieces = (0..own.len()).filter(|&at| begins(at)).count();
    own.len() >= TOGETHER_MIN && pieces * PIECE_MIN > own.len()
}

struct FlushState {
    journal: Journal,
    /// Records that no durable batch holds yet, in order.
    records: Vec<Record>,
    /// Slots that become free once `records` are durable.
    leaving: Vec<(u32, u32)>,
    /// A sync of the data failed: what `records` name must be written again.
    data_unsure: bool,
}

/// What a partial write found.
#[derive(Debug, PartialEq, Eq)]
pub enum Patched {
    /// The page is changed.
    Done,
    /// The overlay does not hold the page: what lies below it is needed.
    NeedsBelow,
}

/// What an overlay says about a page.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PageState {
    /// Nothing: look below.
    Absent,
    /// It is zero.
    Zero,
    /// It has bytes.
    Data,
}

/// Counts of an overlay.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct OverlayStats {
    /// Pages with bytes.
    pub data_pages: u64,
    /// Pages that are zero.
    pub zero_pages: u64,
    /// Bytes of the data file that have ever been used.
    pub file_bytes: u64,
    /// Bytes of the journal.
    pub journal_bytes: u64,
}

/// Name of an overlay's data file.
pub fn data_name(number: u64) -> String {
    format!("{number}.data")
}

/// Name of an overlay's journal.
pub fn journal_name(number: u64) -> String {
    format!("{number}.journal")
}

impl Overlay {
    /// Creates an empty overlay. Its files are durable once the directory is synced.
    pub fn create(disk: Arc<dyn Disk>, volume: &str, id: OverlayId) -> Result<Self> {
        let name = data_name(id.number);
        let fail = |error| VolumeError::io(volume, format!("creating {name}"), error);
        // Empty: there is nothing of it to be synced but that it is there.
        let data = disk.create(&name).map_err(fail)?;
        let journal = Journal::create(disk, volume, &journal_name(id.number), id)?;
        Ok(Self::new(volume, id, data, journal, Map::default()))
    }

    /// Opens an overlay with everything that was flushed.
    pub fn open(disk: Arc<dyn Disk>, volume: &str, id: OverlayId) -> Result<Self> {
        let name = data_name(id.number);
        let fail = |error| VolumeError::io(volume, format!("opening {name}"), error);
        let data = disk.open(&name).map_err(fail)?;
        let mut map = Map::default();
        let journal = Journal::open(disk, volume, &journal_name(id.number), id, |record| {
            map.replay(record);
        })?;
        map.find_free_slots();
        // What lies after the last slot was never flushed.
        let end = u64::from(map.slots.high_water()) * PAGE;
        if data.len().map_err(fail)? > end {
            data.set_len(end).map_err(fail)?;
        }
        Ok(Self::new(volume, id, data, journal, map))
    }

    fn new(
        volume: &str,
        id: OverlayId,
        data: Arc<dyn DiskFile>,
        journal: Journal,
        map: Map,
    ) -> Self {
        let used = map.pages.len() > 0 || !map.zeros.is_empty();
        Self {
            volume: volume.to_owned(),
            number: id.number,
            segment: u64::from_le_bytes(ambient::random()),
            journal_bytes: AtomicU64::new(journal.len()),
            data,
            flush: Mutex::new(FlushState {
                journal,
                records: Vec::new(),
                leaving: Vec::new(),
                data_unsure: false,
            }),
            gate: RwLock::new(()),
            stripes: std::array::from_fn(|_| RwLock::new(())),
            map: RwLock::new(map),
            used: AtomicBool::new(used),
        }
    }

    /// The overlay's number within its volume.
    pub fn number(&self) -> u64 {
        self.number
    }

    /// The number that its data file will have in the host's cache.
    pub(crate) fn segment(&self) -> u64 {
        self.segment
    }

    /// Where in its data file a page's bytes are, if it has any.
    pub(crate) fn offset(&self, page: u64) -> Option<u64> {
        shared(&self.map).pages.get(page).map(|slot| u64::from(slot.slot) * PAGE)
    }

    /// Whether nothing was ever written.
    pub fn is_unused(&self) -> bool {
        !self.used.load(Ordering::Acquire)
    }

    /// Reads the pages from `first` that this overlay holds into `buf` (whole pages), skipping
    /// those already `found`, and marks the ones it filled.
    pub fn read(&self, first: u64, buf: &mut [u8], found: &mut [bool]) -> Result<()> {
        debug_assert_eq!(buf.len(), found.len() * PAGE_BYTES);
        if self.is_unused() {
            return Ok(());
        }
        let _stripes = self.share(first, found.len() as u64);
        self.read_held(first, buf, found)
    }

    /// [`Overlay::read`] with the stripes already held.
    fn read_held(&self, first: u64, buf: &mut [u8], found: &mut [bool]) -> Result<()> {
        let count = found.len() as u64;
        // Runs of pages whose slots are adjacent: (index of the first page, its slot, checksums).
        let mut runs: Vec<(usize, u32, Vec<u64>)> = Vec::new();
        {
            let map = shared(&self.map);
            map.pages.for_range(first, count, |page, slot| {
                let at = (page - first) as usize;
                if std::mem::replace(&mut found[at], true) {
                    return;
                }
                match runs.last_mut() {
                    Some((start, run_slot, sums))
                        if *start + sums.len() == at
                            && *run_slot as usize + sums.len() == slot.slot as usize =>
                    {
                        sums.push(slot.sum);
                    }
                    _ => runs.push((at, slot.slot, vec![slot.sum])),
                }
            });
            for (zero_first, zero_count) in map.zeros.overlaps(first, count) {
                for page in zero_first..zero_first + zero_count {
                    let at = (page - first) as usize;
                    if !std::mem::replace(&mut found[at], true) {
                        buf[at * PAGE_BYTES..][..PAGE_BYTES].fill(0);
                    }
                }
            }
        }
        for (at, slot, sums) in runs {
            let bytes = &mut buf[at * PAGE_BYTES..][..sums.len() * PAGE_BYTES];
            self.read_slots(first + at as u64, slot, &sums, bytes)?;
        }
        Ok(())
    }

    /// Reads a run of slots and checks every page.
    fn read_slots(&self, first: u64, slot: u32, sums: &[u64], bytes: &mut [u8]) -> Result<()> {
        let damaged = |page, slot: u32, what: &str| VolumeError::DamagedPage {
            volume: self.volume.clone(),
            page,
            detail: format!("slot {slot} of {}: {what}", data_name(self.number)),
        };
        if let Err(error) = self.data.read_at(bytes, u64::from(slot) * PAGE) {
            if error.kind() == std::io::ErrorKind::UnexpectedEof {
                return Err(damaged(first, slot, "the file ends before it"));
            }
            let doing = format!("reading page {first} from {}", data_name(self.number));
            return Err(VolumeError::io(&self.volume, doing, error));
        }
        for (i, (page, &sum)) in bytes.chunks_exact(PAGE_BYTES).zip(sums).enumerate() {
            if xxh3_64(page) != sum {
                let what = "its bytes do not match their checksum";
                return Err(damaged(first + i as u64, slot + i as u32, what));
            }
        }
        Ok(())
    }

    /// Writes whole pages from `first`. Pages of zeros take no space.
    pub fn write(&self, first: u64, bytes: &[u8]) -> Result<()> {
        let count = (bytes.len() / PAGE_BYTES) as u64;
        let _gate = shared(&self.gate);
        let _stripes = self.exclude(first, count);
        self.write_held(first, bytes)
    }

    /// [`Overlay::write`] with gate and stripes already held.
    fn write_held(&self, first: u64, bytes: &[u8]) -> Result<()> {
        debug_assert_eq!(bytes.len() % PAGE_BYTES, 0);
        self.used.store(true, Ordering::Release);
        let is_zero: Vec<bool> = bytes.chunks_exact(PAGE_BYTES).map(chunk::is_zero).collect();
        let mut at = 0;
        while at < is_zero.len() {
            let zero = is_zero[at];
            let end =
                is_zero[at..].iter().position(|&z| z != zero).map_or(is_zero.len(), |n| at + n);
            let page = first + at as u64;
            if zero {
                exclusive(&self.map).set_zero(page, (end - at) as u64);
            } else {
                let run = &bytes[at * PAGE_BYTES..end * PAGE_BYTES];
                // On a full disk the places that they have may still do.
                self.write_data(page, run, true).or_else(|_| self.write_data(page, run, false))?;
            }
            at = end;
        }
        Ok(())
    }

    /// Writes a run of pages that are not zero: chooses slots, writes, then lets the map know. Pages that
    /// lie scattered are laid `together`.
    fn write_data(&self, first: u64, bytes: &[u8], together: bool) -> Result<()> {
        let count = bytes.len() / PAGE_BYTES;
        // (index of the first page, first slot, number, newly taken)
        let mut runs: Vec<(usize, u32, u32, bool)> = Vec::new();
        {
            let mut map = exclusive(&self.map);
            let mut own: Vec<Option<u32>> = vec![None; count];
            map.pages.for_range(first, count as u64, |page, slot| {
                own[(page - first) as usize] = slot.fresh.then_some(slot.slot);
            });
            if together && are_scattered(&own) {
                own.fill(None);
            }
            let mut at = 0;
            while at < count {
                if let Some(slot) = own[at] {
                    let n =
                        (at..count).take_while(|&i| own[i] == Some(slot + (i - at) as u32)).count();
                    runs.push((at, slot, n as u32, false));
                    at += n;
                    continue;
                }
                let want = own[at..].iter().take_while(|own| own.is_none()).count();
                let Some((slot, n)) = map.slots.take(want as u32) else {
                    for &(_, slot, n, new) in &runs {
                        if new {
                            map.slots.give_back(slot, n);
                        }
                    }
                    return Err(VolumeError::NoSpace {
                        volume: self.volume.clone(),
                        doing: "taking a slot: the overlay has 16 TiB".to_owned(),
                    });
                };
                runs.push((at, slot, n, true));
                at += n as usize;
            }
        }
        for (done, &(at, slot, n, _)) in runs.iter().enumerate() {
            let run = &bytes[at * PAGE_BYTES..][..n as usize * PAGE_BYTES];
            if let Err(error) = self.data.write_at(run, u64::from(slot) * PAGE) {
                // What was written before stays written; slots of the rest are not used.
                let mut map = exclusive(&self.map);
                for &(_, slot, n, new) in &runs[done..] {
                    if new {
                        map.slots.give_back(slot, n);
                    }
                }
                let doing = format!("writing page {}", first + at as u64);
                return Err(VolumeError::io(&self.volume, doing, error));
            }
            let sums: Vec<u64> = run.chunks_exact(PAGE_BYTES).map(xxh3_64).collect();
            let mut map = exclusive(&self.map);
            for (i, sum) in sums.into_iter().enumerate() {
                let page = first + (at + i) as u64;
                map.set_slot(page, slot + i as u32, sum);
            }
        }
        Ok(())
    }

    /// Changes a part of one page; `below` is what the page holds when this overlay has nothing.
    pub fn patch(
        &self,
        page: u64,
        offset: usize,
        bytes: &[u8],
        below: Option<&[u8]>,
    ) -> Result<Patched> {
        let _gate = shared(&self.gate);
        let _stripes = self.exclude(page, 1);
        let mut whole = [0; PAGE_BYTES];
        let mut found = [false];
        self.read_held(page, &mut whole, &mut found)?;
        if !found[0] {
            match below {
                Some(below) => whole.copy_from_slice(below),
                None => return Ok(Patched::NeedsBelow),
            }
        }
        whole[offset..offset + bytes.len()].copy_from_slice(bytes);
        self.write_held(page, &whole)?;
        Ok(Patched::Done)
    }

    /// Makes whole pages zero. Costs nothing per page that was absent.
    pub fn discard(&self, first: u64, count: u64) {
        if count == 0 {
            return;
        }
        let _gate = shared(&self.gate);
        let _stripes = self.exclude(first, count);
        self.used.store(true, Ordering::Release);
        exclusive(&self.map).set_zero(first, count);
    }

    /// What this overlay says about one page.
    pub fn state(&self, page: u64) -> PageState {
        let map = shared(&self.map);
        if map.pages.get(page).is_some() {
            PageState::Data
        } else if map.zeros.contains(page) {
            PageState::Zero
        } else {
            PageState::Absent
        }
    }

    /// Marks those pages from `first` that this overlay holds.
    pub fn mark_held(&self, first: u64, held: &mut [bool]) {
        if self.is_unused() {
            return;
        }
        let map = shared(&self.map);
        let count = held.len() as u64;
        map.pages.for_range(first, count, |page, _| held[(page - first) as usize] = true);
        for (zero_first, zero_count) in map.zeros.overlaps(first, count) {
            held[(zero_first - first) as usize..][..zero_count as usize].fill(true);
        }
    }

    /// The next pages with bytes at or after `first`, ascending, at most `max`.
    pub fn next_data(&self, first: u64, max: usize) -> Vec<u64> {
        let map = shared(&self.map);
        map.pages.next(first, max).into_iter().map(|(page, _)| page).collect()
    }

    /// All ranges of pages that were made zero; some may have got bytes again later.
    pub fn zero_ranges(&self) -> RangeSet {
        shared(&self.map).zeros.clone()
    }

    /// Counts.
    pub fn stats(&self) -> OverlayStats {
        let map = shared(&self.map);
        let zero_pages = map.zeros.iter().map(|(first, count)| {
            let mut data = 0;
            map.pages.for_range(first, count, |_, _| data += 1);
            count - data
        });
        OverlayStats {
            data_pages: map.pages.len(),
            zero_pages: zero_pages.sum(),
            file_bytes: u64::from(map.slots.high_water()) * PAGE,
            journal_bytes: self.journal_bytes.load(Ordering::Relaxed),
        }
    }

    /// Makes everything written before the call durable. Flushes wait for each other; reads and
    /// writes go on meanwhile.
    pub fn flush(&self) -> Result<()> {
        let mut flush = lock(&self.flush);
        let flush = &mut *flush;
        let snapshot = {
            let _gate = exclusive(&self.gate);
            let mut map = exclusive(&self.map);
            map.take_fresh(&mut flush.records, &mut flush.leaving);
            let compact = flush.journal.len() > COMPACT_MIN_BYTES
                && flush.journal.len() > COMPACT_FACTOR * map.said_bytes();
            (compact && !flush.records.is_empty()).then(|| map.snapshot())
        };
        if flush.records.is_empty() {
            return Ok(());
        }
        if flush.data_unsure {
            self.write_again(&flush.records)?;
        }
        flush.data_unsure = true;
        self.data.sync().map_err(|error| {
            let doing = format!("flushing {}", data_name(self.number));
            VolumeError::io(&self.volume, doing, error)
        })?;
        flush.data_unsure = false;
        match snapshot {
            Some(records) => flush.journal.rewrite(&records)?,
            None => flush.journal.append(&flush.records)?,
        }
        self.journal_bytes.store(flush.journal.len(), Ordering::Relaxed);
        flush.records.clear();
        let leaving = std::mem::take(&mut flush.leaving);
        // Nobody can take these slots yet, so nothing is written into them meanwhile.
        for &(slot, count) in leaving.iter().filter(|run| run.1 >= PUNCH_MIN_SLOTS) {
            let _ = self.data.punch(u64::from(slot) * PAGE, u64::from(count) * PAGE);
        }
        let mut map = exclusive(&self.map);
        for (slot, count) in leaving {
            map.slots.give_back(slot, count);
        }
        Ok(())
    }

    /// After a sync that failed, the kernel may hold pages that it will never write. Reads them
    /// back, as far as they are still wanted, and writes them once more.
    fn write_again(&self, records: &[Record]) -> Result<()> {
        let mut page_bytes = [0; PAGE_BYTES];
        for record in records {
            let Record::Slots { first, slot, sums } = record else {
                continue;
            };
            for (i, &sum) in sums.iter().enumerate() {
                let (page, slot) = (first + i as u64, slot + i as u32);
                let wanted = shared(&self.map).pages.get(page);
                // A page that moved on meanwhile leaves a slot that nobody reads.
                if wanted.is_none_or(|wanted| wanted.slot != slot) {
                    continue;
                }
                self.read_slots(page, slot, &[sum], &mut page_bytes)?;
                self.data.write_at(&page_bytes, u64::from(slot) * PAGE).map_err(|error| {
                    VolumeError::io(&self.volume, format!("writing page {page} again"), error)
                })?;
            }
        }
        Ok(())
    }

    fn share(&self, first: u64, count: u64) -> Vec<RwLockReadGuard<'_, ()>> {
        stripes_of(first, count).map(|stripe| shared(&self.stripes[stripe])).collect()
    }

    fn exclude(&self, first: u64, count: u64) -> Vec<RwLockWriteGuard<'_, ()>> {
        stripes_of(first, count).map(|stripe| exclusive(&self.stripes[stripe])).collect()
    }
}

/// The stripes of a range, ascending so that two ranges never wait for each other in a circle.
fn stripes_of(first: u64, count: u64) -> impl Iterator<Item = usize> {
    let start = first / STRIPE_PAGES;
    let end = (first + count.max(1) - 1) / STRIPE_PAGES;
    let all = end - start + 1 >= STRIPES as u64;
    let (start, end) = (start as usize % STRIPES, end as usize % STRIPES);
    (0..STRIPES).filter(move |&stripe| {
        all || if start <= end {
            (start..=end).contains(&stripe)
        } else {
            stripe >= start || stripe <= end
        }
    })
}
