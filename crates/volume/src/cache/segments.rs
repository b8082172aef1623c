//! The segments of the cache: files of chunks.
//!
//! A segment is appended to by the process that made it, or was an overlay's data file; then it
//! only ever is read, and goes as a whole. Its modification time says when it was last of use.

use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, RwLock};

use ambient::Instant;
use model::{ChunkId, PAGE_BYTES};
use rustix::fs::{Timespec, Timestamps, UTIME_NOW, UTIME_OMIT};

use super::index::{Place, UNIT, random};
use crate::lock::{exclusive, lock, shared};

const SUFFIX: &str = ".chunks";
const SEGMENT_BYTES_MAX: u64 = 64 << 20;
const SEGMENT_BYTES_MIN: u64 = 64 << 10;
/// Segments that are held open at most.
const OPEN_MAX: usize = 256;
/// A segment's time of use is not renewed more often than this.
const TOUCH_EVERY_MS: u64 = 10_000;
/// What was of use within a week is in use: [`Segments::room`].
const IN_USE_SECONDS: i64 = 7 * 24 * 3600;

/// Pages are appended apart from all else, so that each lies on a page boundary.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Pages,
    Others,
}

/// All segments in a directory.
pub struct Segments {
    dir: PathBuf,
    bytes_max: u64,
    segment_bytes: u64,
    open: RwLock<HashMap<u64, Arc<Segment>>>,
    /// What this process appends to, for each kind.
    own: [Mutex<Option<Own>>; 2],
    started: Instant,
}

struct Segment {
    file: File,
    touched_ms: AtomicU64,
}

struct Own {
    number: u64,
    segment: Arc<Segment>,
    end: u64,
}

impl Segments {
    pub fn open(dir: &Path, bytes_max: u64) -> Self {
        Self {
            dir: dir.to_owned(),
            bytes_max,
            segment_bytes: (bytes_max / 16).clamp(SEGMENT_BYTES_MIN, SEGMENT_BYTES_MAX),
            open: RwLock::default(),
            own: Default::default(),
            started: ambient::now(),
        }
    }

    pub fn bytes_max(&self) -> u64 {
        self.bytes_max
    }

    /// Fills as much of `buf` as the segment has from `offset`: the number of bytes, 0 when the
    /// segment is gone.
    pub fn read(&self, number: u64, offset: u64, buf: &mut [u8]) -> io::Result<usize> {
        let Some(segment) = self.segment(number) else { return Ok(0) };
        let mut read = 0;
        while read < buf.len() {
            match segment.file.read_at(&mut buf[read..], offset + read as u64) {
                Ok(0) => break,
                Ok(n) => read += n,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        if read == 0 {
            // Another process cut it to make room.
            exclusive(&self.open).remove(&number);
        } else {
            self.touch(&segment);
        }
        Ok(read)
    }

    /// Whether the segment is there.
    pub fn has(&self, number: u64) -> bool {
        self.segment(number).is_some()
    }

    /// Appends chunks in one write; gives their places.
    pub fn append(&self, kind: Kind, chunks: &[(ChunkId, &[u8])]) -> io::Result<Vec<Place>> {
        let padded = |len: usize| (len as u64).next_multiple_of(UNIT);
        let total = chunks.iter().map(|(_, bytes)| padded(bytes.len())).sum();
        let (number, segment, start) = self.reserve(kind, total)?;
        let mut bytes = Vec::with_capacity(total as usize);
        let mut places = Vec::with_capacity(chunks.len());
        for (_, chunk) in chunks {
            let offset = start + bytes.len() as u64;
            let place = Place::new(number, offset, chunk.len());
            places.push(place.ok_or(io::ErrorKind::FileTooLarge)?);
            bytes.extend_from_slice(chunk);
            bytes.resize(bytes.len().next_multiple_of(UNIT as usize), 0);
        }
        segment.file.write_all_at(&bytes, start)?;
        Ok(places)
    }

    /// Room for `bytes` at the end of this process's segment.
    fn reserve(&self, kind: Kind, bytes: u64) -> io::Result<(u64, Arc<Segment>, u64)> {
        let mut own = lock(&self.own[kind as usize]);
        if own.as_ref().is_none_or(|own| own.end >= self.segment_bytes || own.is_gone()) {
            // Forgotten first: whether the next one can be made or not, this one is full.
            *own = None;
            self.make_room(0);
            let number = random();
            let path = self.path(number);
            let file = File::options().read(true).write(true).create_new(true).open(path)?;
            let segment = Arc::new(Segment { file, touched_ms: AtomicU64::new(0) });
            self.remember(number, &segment);
            *own = Some(Own { number, segment, end: 0 });
        }
        let own = own.as_mut().ok_or(io::ErrorKind::NotFound)?;
        let start = own.end;
        own.end += bytes;
        Ok((own.number, own.segment.clone(), start))
    }

    /// Takes a file as a segment, unless it would take most of the cache.
    pub fn take(
        &self,
        number: u64,
        bytes: u64,
        give: impl FnOnce(&Path) -> io::Result<()>,
    ) -> io::Result<()> {
        if bytes > self.bytes_max / 4 * 3 {
            return Ok(());
        }
        self.make_room(bytes);
        give(&self.path(number))?;
        if let Some(segment) = self.segment(number) {
            self.touch(&segment);
        }
        Ok(())
    }

    /// Removes the segments that were not of use for longest, until there is room for `bytes` and
    /// one more segment.
    fn make_room(&self, bytes: u64) {
        let mut found = self.list();
        let mut total: u64 = found.iter().map(|(_, _, bytes)| bytes).sum();
        let room = self.bytes_max.saturating_sub(bytes + self.segment_bytes);
        found.sort_unstable();
        for (_, number, bytes) in found {
            if total <= room {
                return;
            }
            total -= bytes;
            // Cut first: the space is free even while others have it open.
            let path = self.path(number);
            if let Ok(file) = File::options().write(true).open(&path) {
                let _ = file.set_len(0);
            }
            let _ = std::fs::remove_file(path);
            exclusive(&self.open).remove(&number);
        }
    }

    /// All segments of the directory: when each was last of use (Unix seconds, nanoseconds), its
    /// number, and the bytes that it takes.
    fn list(&self) -> Vec<((i64, i64), u64, u64)> {
        let Ok(entries) = std::fs::read_dir(&self.dir) else { return Vec::new() };
        let mut found = Vec::new();
        for entry in entries.flatten() {
            if let Some(number) = entry.file_name().to_str().and_then(number_of)
                && let Ok(metadata) = entry.metadata()
            {
                let used = (metadata.mtime(), metadata.mtime_nsec());
                found.push((used, number, metadata.blocks() * 512));
            }
        }
        found
    }

    /// Bytes that can be added before a segment has to go that is in use.
    pub fn room(&self) -> u64 {
        let since = (ambient::unix_ms() / 1000) as i64 - IN_USE_SECONDS;
        let in_use: u64 = self
            .list()
            .into_iter()
            .filter(|((used, _), ..)| *used >= since)
            .map(|(_, _, bytes)| bytes)
            .sum();
        self.bytes_max.saturating_sub(in_use + self.segment_bytes)
    }

    fn segment(&self, number: u64) -> Option<Arc<Segment>> {
        if let Some(known) = shared(&self.open).get(&number) {
            return Some(known.clone());
        }
        // For writing too, so that its time can be renewed whoever made it.
        let file = File::options().read(true).write(true).open(self.path(number)).ok()?;
        let segment = Arc::new(Segment { file, touched_ms: AtomicU64::new(0) });
        self.remember(number, &segment);
        Some(segment)
    }

    fn remember(&self, number: u64, segment: &Arc<Segment>) {
        let mut open = exclusive(&self.open);
        if open.len() >= OPEN_MAX {
            open.clear();
        }
        open.insert(number, segment.clone());
    }

    /// Lets everybody know that a segment is of use.
    fn touch(&self, segment: &Segment) {
        let now_ms = ambient::now().duration_since(self.started).as_millis() as u64 + 1;
        let before = segment.touched_ms.load(Ordering::Relaxed);
        if before != 0 && now_ms - before < TOUCH_EVERY_MS {
            return;
        }
        segment.touched_ms.store(now_ms, Ordering::Relaxed);
        let at = |tv_nsec| Timespec { tv_sec: 0, tv_nsec };
        let times = Timestamps { last_access: at(UTIME_OMIT), last_modification: at(UTIME_NOW) };
        // A hint for eviction, nothing more.
        let _ = rustix::fs::futimens(&segment.file, &times);
    }

    fn path(&self, number: u64) -> PathBuf {
        self.dir.join(format!("{number:016x}{SUFFIX}"))
    }
}

impl Own {
    /// Whether another process removed it to make room.
    fn is_gone(&self) -> bool {
        self.end.is_multiple_of(64 * PAGE_BYTES as u64)
            && self.segment.file.metadata().is_ok_and(|metadata| metadata.nlink() == 0)
    }
}

fn number_of(name: &str) -> Option<u64> {
    u64::from_str_radix(name.strip_suffix(SUFFIX)?, 16).ok()
}
