//! A kernel or an initial RAM disk as a file that is read where it is touched.
//!
//! QEMU maps both. A guest that goes on from memory has booted: of its kernel QEMU reads a header
//! and the names of its sections, and the rest when the guest starts anew. Over a slow line that is
//! minutes; and a file that is here need not be hashed whole before the guest goes on.
//!
//! *Invariants.* Every byte is of a piece whose hash was compared with its name just before, from
//! wherever it came; the names are the blob's own. A read that cannot be had waits, as a volume's
//! does, until it can or the file is given up.

use std::collections::VecDeque;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use chunk::{ChunkSource, FetchError, Urgency, id_of};
use export::ExportFile;
use repository::{PIECE_BYTES, Pieces};
use volume::{Cancel, Fetcher, Scrub, Stall, StallObserver, VolumeError};

use crate::blob;
use crate::failure::Result;
use crate::record::Blob;

/// Pieces kept for the reads that follow: the kernel asks for less than one at a time.
const RECENT: usize = 4;
/// Between two attempts to have what could not be had.
const AGAIN: Duration = Duration::from_millis(500);

/// One such file.
pub struct BootFile {
    name: &'static str,
    observer: Arc<dyn StallObserver>,
    pieces: Pieces,
    blob: Blob,
    /// Where blobs are kept whole.
    folder: PathBuf,
    fetcher: Arc<Fetcher>,
    cancel: Cancel,
    recent: Mutex<VecDeque<(usize, Arc<Vec<u8>>)>>,
}

impl BootFile {
    /// Reads what the blob consists of, and none of it.
    pub fn open(
        name: &'static str,
        folder: &Path,
        blob: &Blob,
        fetcher: &Arc<Fetcher>,
        observer: Arc<dyn StallObserver>,
    ) -> Result<Self> {
        let pieces = repository::read_pieces(&**fetcher, &blob.id)?;
        if pieces.bytes != blob.bytes {
            return Err(blob::damaged(blob));
        }
        Ok(Self {
            name,
            observer,
            pieces,
            blob: blob.clone(),
            folder: folder.to_owned(),
            fetcher: fetcher.clone(),
            cancel: Cancel::default(),
            recent: Mutex::default(),
        })
    }

    /// Lets reads that wait for the repository fail, now and later.
    pub fn give_up(&self) {
        self.cancel.cancel();
    }

    /// Brings all of it to this host, so that the guest can start anew without the repository.
    /// `false` when `scrub` was cancelled before.
    pub fn keep(&self, scrub: &Scrub) -> Result<bool> {
        if blob::is_kept(&self.folder, &self.blob) {
            return Ok(true);
        }
        let mut bytes = Vec::with_capacity(self.pieces.bytes as usize);
        for piece in 0..self.pieces.ids.len() {
            if !scrub.await_leave() || self.cancel.is_cancelled() {
                return Ok(false);
            }
            let fetched = self.fetcher.fetch(&self.pieces.ids[piece], Urgency::Background);
            let fetched = fetched.map_err(repository::RepositoryError::from)?;
            let chunk = fetched.first().filter(|chunk| chunk.len() == self.piece_bytes(piece));
            bytes.extend_from_slice(chunk.ok_or_else(|| blob::damaged(&self.blob))?);
        }
        blob::keep(&self.folder, &self.blob, &bytes)?;
        Ok(true)
    }

    /// The piece, if it is in memory or in the file that this host has.
    fn local(&self, piece: usize) -> Option<Arc<Vec<u8>>> {
        let found = {
            let recent = self.recent.lock().unwrap_or_else(PoisonError::into_inner);
            recent.iter().find(|(known, _)| *known == piece).map(|(_, bytes)| bytes.clone())
        };
        found.or_else(|| {
            let file = File::open(blob::kept(&self.folder, &self.blob)).ok()?;
            let mut bytes = vec![0; self.piece_bytes(piece)];
            file.read_exact_at(&mut bytes, (piece * PIECE_BYTES) as u64).ok()?;
            // A crash or a bad disk may have changed it: then it comes from the repository.
            (id_of(&bytes) == self.pieces.ids[piece]).then(|| self.remember(piece, bytes))
        })
    }

    fn piece_bytes(&self, piece: usize) -> usize {
        let left = self.pieces.bytes - (piece * PIECE_BYTES) as u64;
        left.min(PIECE_BYTES as u64) as usize
    }

    fn remember(&self, piece: usize, bytes: Vec<u8>) -> Arc<Vec<u8>> {
        let bytes = Arc::new(bytes);
        let mut recent = self.recent.lock().unwrap_or_else(PoisonError::into_inner);
        recent.push_back((piece, bytes.clone()));
        if recent.len() > RECENT {
            recent.pop_front();
        }
        bytes
    }

    /// The piece, from wherever it can be had, however long that takes.
    fn piece(&self, piece: usize) -> io::Result<Arc<Vec<u8>>> {
        let mut first_seen = None;
        for attempts in 1.. {
            let error = match self.try_piece(piece)? {
                Ok(bytes) => {
                    if let Some(since) = first_seen {
                        self.observer.resumed(self.name, ambient::now().duration_since(since));
                    }
                    return Ok(bytes);
                }
                Err(error) => error,
            };
            let page = (piece * PIECE_BYTES / model::PAGE_BYTES) as u64;
            let error = VolumeError::Fetch { volume: self.name.to_owned(), page, error };
            let first_seen = *first_seen.get_or_insert_with(ambient::now);
            let (volume, page) = (self.name, Some(page));
            self.observer.stalled(&Stall { volume, page, error: &error, first_seen, attempts });
            ambient::sleep(AGAIN);
            if self.cancel.is_cancelled() {
                return Err(io::Error::new(io::ErrorKind::Interrupted, error));
            }
        }
        unreachable!("attempts do not end")
    }

    /// One attempt; the outer error is that it was given up.
    fn try_piece(&self, piece: usize) -> io::Result<std::result::Result<Arc<Vec<u8>>, FetchError>> {
        if let Some(bytes) = self.local(piece) {
            return Ok(Ok(bytes));
        }
        let ids = &self.pieces.ids[piece..=piece];
        let fetched = self.fetcher.get_many(ids, Urgency::Urgent, &self.cancel);
        Ok(match fetched.and_then(|mut chunks| chunks.pop()) {
            Some(Ok(chunk)) if chunk.len() == self.piece_bytes(piece) => {
                Ok(self.remember(piece, chunk.to_vec()))
            }
            Some(Ok(_)) => {
                Err(FetchError::Damaged { id: ids[0], detail: "not a piece of a file".to_owned() })
            }
            Some(Err(error)) => Err(error),
            None => return Err(io::ErrorKind::Interrupted.into()),
        })
    }

    fn copy(
        &self,
        offset: u64,
        buf: &mut [u8],
        piece: impl Fn(usize) -> io::Result<Option<Arc<Vec<u8>>>>,
    ) -> io::Result<bool> {
        let mut at = offset as usize;
        let mut rest = buf;
        while !rest.is_empty() {
            let Some(bytes) = piece(at / PIECE_BYTES)? else { return Ok(false) };
            let from = &bytes[at % PIECE_BYTES..];
            let len = from.len().min(rest.len());
            rest[..len].copy_from_slice(&from[..len]);
            rest = &mut rest[len..];
            at += len;
        }
        Ok(true)
    }
}

impl ExportFile for BootFile {
    fn size_bytes(&self) -> u64 {
        self.pieces.bytes
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        self.copy(offset, buf, |piece| self.piece(piece).map(Some)).map(drop)
    }

    fn write_at(&self, _: u64, _: &[u8]) -> io::Result<()> {
        Err(io::ErrorKind::ReadOnlyFilesystem.into())
    }

    fn flush(&self) -> io::Result<()> {
        Ok(())
    }

    fn discard(&self, _: u64, _: u64) -> io::Result<()> {
        Err(io::ErrorKind::ReadOnlyFilesystem.into())
    }

    fn is_local(&self, offset: u64, len: u64) -> bool {
        let (first, end) =
            (offset / PIECE_BYTES as u64, (offset + len).div_ceil(PIECE_BYTES as u64));
        (first..end).all(|piece| self.local(piece as usize).is_some())
    }

    fn try_read_local(&self, offset: u64, buf: &mut [u8]) -> io::Result<bool> {
        self.copy(offset, buf, |piece| Ok(self.local(piece)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use chunk::{ChunkSink, Memory};
    use std::sync::atomic::{AtomicU32, Ordering};
    use volume::Cache;

    struct World {
        folder: tempfile::TempDir,
        chunks: Arc<Memory>,
        fetcher: Arc<Fetcher>,
        bytes: Vec<u8>,
        blob: Blob,
        told: Arc<Told>,
    }

    /// How often it was said that something waits, and that it goes on.
    #[derive(Default)]
    struct Told(AtomicU32, AtomicU32);

    impl StallObserver for Told {
        fn stalled(&self, stall: &Stall<'_>) {
            assert_eq!(stall.volume, ".kernel");
            self.0.fetch_add(1, Ordering::Relaxed);
        }
        fn resumed(&self, _: &str, _: Duration) {
            self.1.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// A blob of seven pieces and a bit, no two of them alike.
    fn world() -> World {
        let folder = tempfile::tempdir().unwrap();
        let chunks = Arc::new(Memory::new());
        let length = 7 * PIECE_BYTES + 1234;
        let bytes: Vec<u8> = (0..length).map(|at| (at / 4096 + at % 251) as u8).collect();
        let id = repository::write_blob(&mut chunks.clone(), &bytes).unwrap();
        let blob = Blob { id, bytes: length as u64, blake3: *blake3::hash(&bytes).as_bytes() };
        let cache = Cache::open(&folder.path().join("cache"), 1 << 20).unwrap();
        let fetcher = Arc::new(Fetcher::new(Arc::new(cache), chunks.clone(), 2));
        World { folder, chunks, fetcher, bytes, blob, told: Arc::default() }
    }

    impl World {
        fn open(&self) -> BootFile {
            self.open_as(&self.blob).unwrap()
        }

        fn open_as(&self, blob: &Blob) -> Result<BootFile> {
            let told = self.told.clone();
            BootFile::open(".kernel", self.folder.path(), blob, &self.fetcher, told)
        }

        fn check(&self, file: &BootFile, offset: usize, len: usize) {
            let mut read = vec![0; len];
            file.read_at(offset as u64, &mut read).unwrap();
            assert_eq!(read, self.bytes[offset..][..len], "{len} bytes at {offset}");
        }
    }

    #[test]
    fn only_what_is_touched_is_fetched() {
        let world = world();
        let file = world.open();
        assert_eq!(file.size_bytes(), world.bytes.len() as u64);
        let before = world.chunks.fetches();
        world.check(&file, 0, 4096);
        world.check(&file, 100, 9000);
        world.check(&file, world.bytes.len() - 600, 600);
        assert_eq!(world.chunks.fetches() - before, 2);
        // Across a border.
        world.check(&file, 3 * PIECE_BYTES - 10, 20);
        assert_eq!(world.chunks.fetches() - before, 4);
        assert!(file.is_local(0, 4096) && !file.is_local(PIECE_BYTES as u64, 1));
        assert!(file.write_at(0, b"x").is_err() && file.discard(0, 4096).is_err());
    }

    #[test]
    fn what_is_kept_needs_no_source_and_is_not_believed_blindly() {
        let world = world();
        let file = world.open();
        assert!(file.keep(&Scrub::default()).unwrap());
        let fetched = world.chunks.fetches();
        world.check(&file, 0, world.bytes.len());
        assert_eq!(world.chunks.fetches(), fetched);

        // A bad disk: that piece comes from the source, and from nowhere when it has none.
        let kept = blob::kept(world.folder.path(), &world.blob);
        let mut damaged = world.bytes.clone();
        damaged[2 * PIECE_BYTES + 5] ^= 1;
        std::fs::remove_file(&kept).unwrap();
        std::fs::write(&kept, &damaged).unwrap();
        let file = world.open();
        world.check(&file, 2 * PIECE_BYTES, 4096);
        assert_eq!(world.chunks.fetches(), fetched + 1);
        assert!(file.keep(&Scrub::default()).unwrap(), "mended");
        assert_eq!(std::fs::read(&kept).unwrap(), world.bytes);

        let cancelled = Scrub::default();
        cancelled.cancel();
        std::fs::remove_file(&kept).unwrap();
        assert!(!world.open().keep(&cancelled).unwrap());
        assert!(!kept.exists());
    }

    #[test]
    fn a_read_waits_until_it_can_be_had_or_is_given_up() {
        let world = world();
        let file = Arc::new(world.open());
        let piece = id_of(&world.bytes[PIECE_BYTES..][..PIECE_BYTES]);
        world.chunks.remove(&piece);
        let reader = |at: u64| {
            let file = file.clone();
            std::thread::spawn(move || {
                let mut byte = [0];
                file.read_at(at, &mut byte).map(|()| byte[0])
            })
        };
        let waiting = reader(PIECE_BYTES as u64);
        while world.told.0.load(Ordering::Relaxed) == 0 {
            std::thread::sleep(Duration::from_millis(5));
        }
        assert!(!waiting.is_finished());
        world.chunks.clone().put(piece, &world.bytes[PIECE_BYTES..][..PIECE_BYTES]).unwrap();
        assert_eq!(waiting.join().unwrap().unwrap(), world.bytes[PIECE_BYTES]);
        assert_eq!(world.told.1.load(Ordering::Relaxed), 1);

        world.chunks.remove(&id_of(&world.bytes[4 * PIECE_BYTES..][..PIECE_BYTES]));
        let waiting = reader(4 * PIECE_BYTES as u64);
        file.give_up();
        assert!(waiting.join().unwrap().is_err());
    }

    #[test]
    fn a_blob_of_another_length_is_refused() {
        let world = world();
        let wrong = Blob { bytes: world.blob.bytes - 1, ..world.blob.clone() };
        assert!(world.open_as(&wrong).is_err());
    }
}
