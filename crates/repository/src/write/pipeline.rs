//! The threads of a session.
//!
//! Ends of the chain close downwards: the sender of frames is dropped, the compressors end,
//! then the packer closes its last pack and ends, then the uploaders. A failure is kept once,
//! and every stage drains its queue after it, so that nobody waits for ever.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::JoinHandle;

use bytes::Bytes;
use chunk::PAGE_BYTES;
use chunk::crypt::PackId;
use chunk::frame::{Frame, FrameBuilder};
use crossbeam_channel::{Receiver, Sender, bounded};
use objects::ObjectError;

use crate::layout::pack_key;
use crate::pack::{PackBuilder, PackEntry};
use crate::{Repository, RepositoryError};

/// Threads that upload: one waits for the store while the other's bytes are on their way.
const UPLOADERS: usize = 2;
/// Threads that compress, at most; one a core below that.
const COMPRESSORS_MAX: usize = 16;
/// Frames waiting for a compressor, for each compressor.
const FRAMES_WAITING: usize = 8;

/// How often a waiter looks whether all stages still live.
const LOOK_AGAIN: ambient::Duration = ambient::Duration::from_millis(200);

/// What the stages share.
#[derive(Default)]
struct Shared {
    uploaded: Mutex<Vec<PackEntry>>,
    failure: Mutex<Option<RepositoryError>>,
    /// Frames that are in packs (or were given up), and the bytes they take there.
    packed: Mutex<(u64, u64)>,
    packed_more: Condvar,
}

impl Shared {
    fn fail(&self, error: RepositoryError) {
        self.failure.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(error);
    }

    fn check(&self) -> Result<(), RepositoryError> {
        match &*self.failure.lock().unwrap_or_else(PoisonError::into_inner) {
            Some(error) => Err(error.clone()),
            None => Ok(()),
        }
    }

    fn count_packed(&self, bytes: u64) {
        let mut packed = self.packed.lock().unwrap_or_else(PoisonError::into_inner);
        *packed = (packed.0 + 1, packed.1 + bytes);
        self.packed_more.notify_all();
    }

    fn failed(&self) -> bool {
        self.check().is_err()
    }
}

/// The running threads of one session.
pub(super) struct Pipeline {
    frames: Option<Sender<FrameBuilder>>,
    empties: Receiver<FrameBuilder>,
    threads: Vec<JoinHandle<()>>,
    shared: Arc<Shared>,
    sent: AtomicU64,
}

impl Pipeline {
    pub(super) fn start(repository: &Repository, apart: bool) -> Result<Self, RepositoryError> {
        let compressors =
            std::thread::available_parallelism().map_or(2, |n| n.get().clamp(2, COMPRESSORS_MAX));
        let compressors = ambient::threads(compressors);
        let waiting = compressors * FRAMES_WAITING;
        let (frames, to_compress) = bounded::<FrameBuilder>(waiting);
        let (recycle, empties) = bounded::<FrameBuilder>(waiting * 2);
        let (compressed, to_pack) = bounded::<Frame>(waiting);
        let (packed, to_upload) = bounded::<(PackEntry, Vec<u8>)>(1);
        let shared = Arc::new(Shared::default());
        let mut this = Self {
            frames: Some(frames),
            empties,
            threads: Vec::new(),
            shared,
            sent: AtomicU64::new(0),
        };
        for _ in 0..compressors {
            let (to_compress, compressed) = (to_compress.clone(), compressed.clone());
            let recycle = recycle.clone();
            this.spawn("compress", move |_| compress(&to_compress, &compressed, &recycle))?;
        }
        drop((compressed, to_compress));
        let of = repository.clone();
        this.spawn("pack", move |shared| pack(&of, &to_pack, &packed, shared, apart))?;
        for _ in 0..ambient::threads(UPLOADERS) {
            let (of, to_upload) = (repository.clone(), to_upload.clone());
            this.spawn("upload", move |shared| upload(&of, &to_upload, shared))?;
        }
        Ok(this)
    }

    fn spawn(
        &mut self,
        stage: &str,
        run: impl FnOnce(&Shared) + Send + 'static,
    ) -> Result<(), RepositoryError> {
        let shared = Arc::clone(&self.shared);
        let thread = ambient::spawn(format!("store-{stage}"), move || run(&shared));
        self.threads.push(thread.map_err(|error| ObjectError::Unavailable {
            location: "this machine".to_owned(),
            detail: format!("cannot start a thread: {error}"),
        })?);
        Ok(())
    }

    /// A builder whose buffers were used before, if one is back.
    pub(super) fn empty_builder(&self) -> Option<FrameBuilder> {
        self.empties.try_recv().ok()
    }

    /// Hands a frame over; waits while too many are under way.
    pub(super) fn send(&self, frame: FrameBuilder) -> Result<(), RepositoryError> {
        self.shared.check()?;
        if let Some(frames) = &self.frames {
            // It fails only when every compressor has ended, which only a panic makes them.
            frames.send(frame).map_err(|_| self.broken())?;
            self.sent.fetch_add(1, Ordering::Relaxed);
        }
        Ok(())
    }

    /// Waits until everything that was sent is in packs; gives the bytes that it takes there.
    pub(super) fn packed_bytes(&self) -> Result<u64, RepositoryError> {
        let sent = self.sent.load(Ordering::Relaxed);
        let mut packed = self.shared.packed.lock().unwrap_or_else(PoisonError::into_inner);
        while packed.0 < sent {
            // A stage ends before the last frame only by a panic.
            if self.threads.iter().any(JoinHandle::is_finished) {
                return Err(self.broken());
            }
            let wait = self.shared.packed_more.wait_timeout(packed, LOOK_AGAIN);
            packed = wait.unwrap_or_else(PoisonError::into_inner).0;
        }
        let bytes = packed.1;
        drop(packed);
        self.shared.check()?;
        Ok(bytes)
    }

    /// The packs that became durable since this was last asked.
    pub(super) fn take_uploaded(&self) -> Result<Vec<PackEntry>, RepositoryError> {
        self.shared.check()?;
        let mut uploaded = self.shared.uploaded.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(std::mem::take(&mut uploaded))
    }

    /// Waits until everything that was sent is durable; gives the packs not yet taken.
    pub(super) fn finish(mut self) -> Result<Vec<PackEntry>, RepositoryError> {
        self.frames = None;
        for thread in std::mem::take(&mut self.threads) {
            if thread.join().is_err() {
                self.shared.fail(self.broken());
            }
        }
        self.take_uploaded()
    }

    fn broken(&self) -> RepositoryError {
        let detail = "a thread of the store session ended unexpectedly".to_owned();
        ObjectError::Unavailable { location: "this machine".to_owned(), detail }.into()
    }
}

impl Drop for Pipeline {
    /// Without [`Pipeline::finish`] this is an abort: what is not uploaded yet never will be.
    fn drop(&mut self) {
        if self.threads.is_empty() {
            return;
        }
        // Before the end of the frames, which would close the last pack.
        let detail = "the session was aborted".to_owned();
        let location = "the repository".to_owned();
        self.shared.fail(ObjectError::Unavailable { location, detail }.into());
        self.frames = None;
        for thread in std::mem::take(&mut self.threads) {
            // Its panic, if it had one, was reported by the panic hook.
            let _ = thread.join();
        }
    }
}

fn compress(
    frames: &Receiver<FrameBuilder>,
    compressed: &Sender<Frame>,
    recycle: &Sender<FrameBuilder>,
) {
    for mut builder in frames {
        let frame = builder.finish();
        // When there are enough empty ones, this one is simply dropped.
        let _ = recycle.try_send(builder);
        if compressed.send(frame).is_err() {
            return;
        }
    }
}

fn pack(
    repository: &Repository,
    frames: &Receiver<Frame>,
    packed: &Sender<(PackEntry, Vec<u8>)>,
    shared: &Shared,
    apart: bool,
) {
    let cipher = &repository.inner.cipher;
    // What is stored once and read by many: pages and what names them are in packs of their own, so
    // that who needs the one does not fetch the other from a server that serves whole files only.
    let mut open: [Option<PackBuilder>; 2] = [None, None];
    for frame in frames {
        if shared.failed() {
            shared.count_packed(0);
            continue;
        }
        let of_pages = frame.plain_bytes == frame.ids.len() * PAGE_BYTES;
        let open = &mut open[usize::from(apart && !of_pages)];
        let builder =
            open.get_or_insert_with(|| PackBuilder::new(cipher, PackId(ambient::random())));
        let bytes = builder.push(cipher, frame);
        shared.count_packed(bytes);
        if builder.is_full()
            && let Some(full) = open.take()
            && packed.send(full.finish()).is_err()
        {
            return;
        }
    }
    for last in open.into_iter().flatten().filter(|_| !shared.failed()) {
        // It fails only when the uploaders are gone: then they have reported why.
        let _ = packed.send(last.finish());
    }
}

fn upload(repository: &Repository, packs: &Receiver<(PackEntry, Vec<u8>)>, shared: &Shared) {
    for (entry, bytes) in packs {
        if shared.failed() {
            continue;
        }
        match repository.inner.objects.put_new(&pack_key(&entry.id), Bytes::from(bytes)) {
            Ok(()) => {
                shared.uploaded.lock().unwrap_or_else(PoisonError::into_inner).push(entry);
            }
            Err(error) => shared.fail(error.into()),
        }
    }
}
