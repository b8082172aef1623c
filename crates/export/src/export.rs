//! A mount and what its owner may do with it.

use std::collections::BTreeSet;
use std::fmt;
use std::io;
use std::ops::Range;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use fuser::{BackgroundSession, Config, INodeNo, Session, SessionACL};

use crate::bdi::Bdi;
use crate::error::ExportError;
use crate::mount::{self, Access, Gone};
use crate::outside::Outside;
use crate::serve::{REQUEST_BYTES_MAX, Server};
use crate::shared::{Entry, Shared};
use crate::stale::{self, Stale};
use crate::{ExportFile, Options, PAGE, cleanup_stale};

/// Files on one mount.
const FILES_MAX: usize = 1024;

/// What the kernel reads at once when it is asked to, on a mount that nobody tuned, whatever its
/// read-ahead (bdi.io_pages).
const IO_BYTES_DEFAULT: u64 = 128 * 1024;

/// How often a wait looks whether writes are held meanwhile.
const LOOK: Duration = Duration::from_millis(100);

/// How long an unmount may take before the connection is cut.
const PATIENCE: Duration = Duration::from_secs(20);

/// A mounted directory of files. Unmounted when dropped.
pub struct Export {
    dir: PathBuf,
    shared: Arc<Shared>,
    outside: Outside,
    session: Option<BackgroundSession>,
    /// The kernel reads no more than this of a range it is asked to prefetch.
    prefetch_piece: u64,
    mounted: bool,
}

/// What the mount did so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    pub reads: u64,
    pub read_bytes: u64,
    /// Reads that were not local when they came.
    pub reads_handed_over: u64,
    /// Reads that wait for their bytes right now.
    pub reads_held: u64,
    pub writes: u64,
    pub write_bytes: u64,
    /// Writes that could not be stored and are tried again, right now.
    pub writes_held: u64,
    pub flushes: u64,
    pub discards: u64,
}

impl Export {
    /// Mounts `files` on `mount_dir`, which must exist. A dead mount found there is removed first.
    pub fn mount(
        mount_dir: &Path,
        files: Vec<(String, Arc<dyn ExportFile>)>,
        options: Options,
    ) -> Result<Export, ExportError> {
        let entries = entries(files)?;
        if cleanup_stale(mount_dir)? == Stale::Live {
            return Err(ExportError::Mounted { dir: mount_dir.to_owned() });
        }
        let failed = |source| ExportError::Mount { dir: mount_dir.to_owned(), source };
        let dir = stale::resolve(mount_dir).map_err(failed)?;
        let root = rustix::process::geteuid().is_root();
        let ids = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
        let owner = options.owner.unwrap_or(ids);
        let allow_other = options.allow_other.unwrap_or(root);
        let shared = Arc::new(Shared::new(entries, options, owner));

        // Before the mount: see the module doc of `outside`.
        let outside = Outside::start().map_err(failed)?;
        shared.outside_tid.store(outside.tid, Ordering::Relaxed);
        let device = mount::mount(&dir, Access::Checked { allow_other }).map_err(failed)?;
        let mut export =
            Export { dir, shared, outside, session: None, prefetch_piece: 0, mounted: true };
        export.serve(device, allow_other).map_err(failed)?;
        export.open_and_tune().map_err(failed)?;
        Ok(export)
    }

    /// Opens the files for this process's own use while read-ahead is large: a descriptor keeps
    /// what it was opened with, so a prefetch may ask for runs where a client's fault asks for a
    /// page. Then sets the limits for the clients.
    fn open_and_tune(&mut self) -> io::Result<()> {
        let bdi = Bdi::new(self.outside.device(&self.dir)?);
        let wanted = self.shared.options.read_ahead_bytes;
        let tuned = bdi.set_read_ahead(REQUEST_BYTES_MAX);
        self.prefetch_piece = match tuned {
            Ok(()) => u64::from(REQUEST_BYTES_MAX),
            Err(_) => IO_BYTES_DEFAULT,
        };
        let files = self.shared.entries.iter();
        let files = files.map(|file| (self.dir.join(&file.name), file.only_write_back.clone()));
        self.outside.open(files.collect())?;
        let tuned = tuned.and(bdi.set_read_ahead(wanted)).and(bdi.lift_dirty_limits());
        if let Err(error) = tuned {
            tracing::debug!(dir = %self.dir.display(), %error, "the mount keeps default limits");
        }
        Ok(())
    }

    fn serve(&mut self, device: OwnedFd, allow_other: bool) -> io::Result<()> {
        let acl = if allow_other { SessionACL::All } else { SessionACL::Owner };
        let mut config = Config::default();
        config.acl = acl;
        config.n_threads = Some(self.shared.options.loop_threads.clamp(1, 64));
        config.clone_fd = true;
        let session = Session::from_fd(Server(Arc::clone(&self.shared)), device, acl, config)?;
        self.session = Some(session.spawn()?);
        Ok(())
    }

    /// The directory, without symbolic links.
    pub fn mount_dir(&self) -> &Path {
        &self.dir
    }

    /// The path of a file, for whoever opens it.
    pub fn path(&self, file: &str) -> Result<PathBuf, ExportError> {
        self.index(file)?;
        Ok(self.dir.join(file))
    }

    /// Makes all that clients have written to a file, through whatever mapping, durable.
    ///
    /// Gives up with [`ExportError::WritesHeld`] when writes cannot be stored (disk full): then
    /// nothing is lost, and another sync may succeed later.
    pub fn sync(&self, file: &str) -> Result<(), ExportError> {
        self.write_back_and(file, true)
    }

    /// Brings all that clients have written to a file to its [`ExportFile::write_at`], as
    /// [`sync`](Self::sync) does, without [`ExportFile::flush`]: for an owner that freezes the
    /// file's content now and makes it durable later.
    pub fn write_back(&self, file: &str) -> Result<(), ExportError> {
        self.write_back_and(file, false)
    }

    fn write_back_and(&self, file: &str, flush: bool) -> Result<(), ExportError> {
        let index = self.index(file)?;
        let failed = |source| ExportError::Sync { name: file.to_owned(), source };
        let answered = self.outside.sync(index, flush).map_err(failed)?;
        let tried_before = self.shared.held_writes.rounds();
        loop {
            match answered.recv_timeout(LOOK) {
                Ok(result) => return result.map_err(failed),
                Err(RecvTimeoutError::Disconnected) => return Err(ExportError::Closed),
                Err(RecvTimeoutError::Timeout) => {
                    // Held, and tried again in vain since we came: the round that was going on
                    // then does not count.
                    let count = self.shared.held_writes.count(index);
                    if count > 0 && self.shared.held_writes.rounds() >= tried_before + 2 {
                        return Err(ExportError::WritesHeld { name: file.to_owned(), count });
                    }
                }
            }
        }
    }

    /// Puts bytes of a file into the kernel's cache before anyone asks for them.
    ///
    /// Whole pages, at most 1 MiB at a time. `Ok(false)`, and nothing done, once somebody else has
    /// opened the file: the kernel would let the bytes overwrite what was written since; use
    /// [`prefetch`](Self::prefetch) then.
    pub fn store(&self, file: &str, offset: u64, bytes: &[u8]) -> Result<bool, ExportError> {
        let index = self.index(file)?;
        let entry = &self.shared.entries[index];
        let len = bytes.len() as u64;
        let end = offset.checked_add(len).filter(|end| {
            offset.is_multiple_of(PAGE)
                && (end.is_multiple_of(PAGE) || *end == entry.size)
                && *end <= entry.size
                && len <= u64::from(REQUEST_BYTES_MAX)
        });
        if end.is_none() {
            return Err(ExportError::BadRange { name: file.to_owned(), offset, len });
        }
        let Some(session) = &self.session else { return Err(ExportError::Closed) };
        let opened = entry.opened.lock().unwrap_or_else(PoisonError::into_inner);
        if *opened || bytes.is_empty() {
            return Ok(!*opened);
        }
        session
            .notifier()
            .store(INodeNo(index as u64 + 2), offset, bytes)
            .map_err(|source| ExportError::Cache { name: file.to_owned(), source })?;
        drop(opened);
        Ok(true)
    }

    /// Asks the kernel to read ranges of a file into its cache, as a client's read-ahead would.
    ///
    /// Safe at any time. Returns when all is asked for, not when it is there.
    pub fn prefetch(&self, file: &str, ranges: Vec<Range<u64>>) -> Result<(), ExportError> {
        let index = self.index(file)?;
        let size = self.shared.entries[index].size;
        if let Some(bad) = ranges.iter().find(|r| r.start > r.end || r.end > size) {
            let (offset, len) = (bad.start, bad.end.saturating_sub(bad.start));
            return Err(ExportError::BadRange { name: file.to_owned(), offset, len });
        }
        let failed = |source| ExportError::Cache { name: file.to_owned(), source };
        let pieces = ranges.iter().flat_map(|range| pieces(range, self.prefetch_piece)).collect();
        let answered = self.outside.prefetch(index, pieces).map_err(failed)?;
        answered.recv().map_err(|_| ExportError::Closed)?.map_err(failed)
    }

    pub fn stats(&self) -> Stats {
        let counters = &self.shared.counters;
        let writes_held = (0..self.shared.entries.len())
            .map(|entry| self.shared.held_writes.count(entry) as u64)
            .sum();
        Stats {
            reads: counters.reads.load(Ordering::Relaxed),
            read_bytes: counters.read_bytes.load(Ordering::Relaxed),
            reads_handed_over: counters.handed_over.load(Ordering::Relaxed),
            reads_held: self.shared.held_reads.count() as u64,
            writes: counters.writes.load(Ordering::Relaxed),
            write_bytes: counters.write_bytes.load(Ordering::Relaxed),
            writes_held,
            flushes: counters.flushes.load(Ordering::Relaxed),
            discards: counters.discards.load(Ordering::Relaxed),
        }
    }

    /// Answers every read that waits for its bytes with `EIO`, now and from now on, so that a
    /// client that hangs in one can be killed. For an owner that is about to unmount.
    pub fn give_up_reads(&self) {
        self.shared.held_reads.give_up();
    }

    /// Syncs, unmounts and waits until nothing uses the files any more. If a client still has one
    /// open, the mount is taken away from under it: it gets errors, and this is said.
    pub fn unmount(mut self) -> Result<(), ExportError> {
        self.leave()
    }

    fn leave(&mut self) -> Result<(), ExportError> {
        if !std::mem::take(&mut self.mounted) {
            return Ok(());
        }
        let failed = |detail: String| ExportError::Unmount { dir: self.dir.clone(), detail };
        self.shared.held_reads.give_up();
        let result = match self.outside.unmount(&self.dir) {
            Err(error) => Err(error),
            Ok(answered) => self.wait_unmounted(&answered),
        };
        self.shared.close();
        match result {
            Ok(Gone::Cleanly) => {
                // The connection is over and the loop threads end by themselves; unless the mount
                // was copied into another mount namespace, which is not ours to wait for.
                if let Some(session) = self.session.take() {
                    for _ in 0..PATIENCE.as_millis() {
                        if session.guard.is_finished() {
                            break;
                        }
                        std::thread::sleep(Duration::from_millis(1));
                    }
                }
                Ok(())
            }
            Ok(Gone::Detached) => Err(failed("a client still had files open".to_owned())),
            Err(error) => Err(failed(error.to_string())),
        }
    }

    fn wait_unmounted(&self, answered: &Receiver<io::Result<Gone>>) -> io::Result<Gone> {
        if let Ok(result) = answered.recv_timeout(PATIENCE) {
            return result;
        }
        // Stuck in writing back: writes that find no room, or a file that does not answer.
        self.shared.held_writes.give_up();
        if let Ok(result) = answered.recv_timeout(LOOK) {
            return result;
        }
        mount::detach(&self.dir).map(|()| Gone::Detached)
    }

    fn index(&self, file: &str) -> Result<usize, ExportError> {
        let found = self.shared.entries.iter().position(|entry| entry.name == file);
        found.ok_or_else(|| ExportError::NoSuchFile { name: file.to_owned() })
    }
}

impl Drop for Export {
    fn drop(&mut self) {
        if let Err(error) = self.leave() {
            tracing::warn!(dir = %self.dir.display(), %error, "unmounted with errors");
        }
    }
}

impl fmt::Debug for Export {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Export").field("dir", &self.dir).field("stats", &self.stats()).finish()
    }
}

fn pieces(range: &Range<u64>, most: u64) -> impl Iterator<Item = Range<u64>> {
    let end = range.end;
    let starts = (range.start..end).step_by(most.max(PAGE) as usize);
    starts.map(move |start| start..end.min(start + most))
}

fn entries(files: Vec<(String, Arc<dyn ExportFile>)>) -> Result<Vec<Entry>, ExportError> {
    if files.is_empty() || files.len() > FILES_MAX {
        return Err(ExportError::BadCount { count: files.len(), max: FILES_MAX });
    }
    let mut seen = BTreeSet::new();
    for (name, _) in &files {
        let bad = |reason| Err(ExportError::BadName { name: name.clone(), reason });
        if name.is_empty() || name.len() > 255 {
            return bad("a name has 1 to 255 bytes");
        }
        if name == "." || name == ".." || name.contains(['/', '\0']) {
            return bad("it means another directory");
        }
        if !seen.insert(name) {
            return bad("another file has this name");
        }
    }
    let entries = files.into_iter().map(|(name, file)| Entry::new(name, file)).collect::<Vec<_>>();
    match entries.iter().find(|entry| i64::try_from(entry.size).is_err()) {
        Some(Entry { name, size, .. }) => {
            Err(ExportError::TooLarge { name: name.clone(), size_bytes: *size })
        }
        None => Ok(entries),
    }
}
