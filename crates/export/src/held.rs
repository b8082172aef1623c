//! Requests whose reply is held: reads that wait for bytes, and write-backs that found no room.
//!
//! Both can be given up at once when the export closes, without the help of the thread or the
//! file that is stuck: a client that waits in a fault cannot be killed until it is answered.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use fuser::{Errno, ReplyData, ReplyWrite};

use crate::shared::Shared;

/// How long a held write waits before it is tried again.
const RETRY: Duration = Duration::from_millis(200);

/// Replies of reads that were handed to the fetch pool.
#[derive(Default)]
pub(crate) struct HeldReads(Mutex<Reads>);

#[derive(Default)]
struct Reads {
    next: u64,
    waiting: BTreeMap<u64, ReplyData>,
    closed: bool,
}

impl HeldReads {
    /// Keeps a reply; `None` (and `EIO` to the client) when the export is closing.
    pub fn hold(&self, reply: ReplyData) -> Option<u64> {
        let mut reads = lock(&self.0);
        if reads.closed {
            drop(reads);
            reply.error(Errno::EIO);
            return None;
        }
        let id = reads.next;
        reads.next += 1;
        reads.waiting.insert(id, reply);
        Some(id)
    }

    /// The reply, unless it was given up meanwhile.
    pub fn take(&self, id: u64) -> Option<ReplyData> {
        lock(&self.0).waiting.remove(&id)
    }

    pub fn count(&self) -> usize {
        lock(&self.0).waiting.len()
    }

    /// Answers all of them with `EIO`, and from now on each new one.
    pub fn give_up(&self) {
        let mut reads = lock(&self.0);
        reads.closed = true;
        let waiting = std::mem::take(&mut reads.waiting);
        drop(reads);
        for reply in waiting.into_values() {
            reply.error(Errno::EIO);
        }
    }
}

/// A dirty page (or a run of them) that the kernel handed over and the file refused.
pub(crate) struct HeldWrite {
    pub entry: usize,
    pub offset: u64,
    pub bytes: Vec<u8>,
    pub reply: ReplyWrite,
}

/// Write-backs to try again, in order. Bounded by the kernel: it has at most `max_background`
/// write-backs under way, each of at most 1 MiB.
pub(crate) struct HeldWrites {
    state: Mutex<Writes>,
    wake: Condvar,
}

#[derive(Default)]
struct Writes {
    queue: VecDeque<HeldWrite>,
    /// Writes held for each file, those being tried right now included.
    counts: BTreeMap<usize, usize>,
    /// How often everything held was tried again.
    rounds: u64,
    thread: bool,
    closed: bool,
}

impl HeldWrites {
    pub fn new() -> HeldWrites {
        HeldWrites { state: Mutex::default(), wake: Condvar::new() }
    }

    /// Keeps a write; says whether it is the first one held for its file.
    pub fn hold(&self, write: HeldWrite, shared: &Weak<Shared>) -> bool {
        let mut state = lock(&self.state);
        if state.closed {
            drop(state);
            write.reply.error(Errno::EIO);
            return false;
        }
        let count = state.counts.entry(write.entry).or_default();
        *count += 1;
        let first = *count == 1;
        state.queue.push_back(write);
        if !state.thread {
            let shared = Weak::clone(shared);
            let thread = std::thread::Builder::new().name("export-held".to_owned());
            state.thread = thread.spawn(move || work(&shared)).is_ok();
            if !state.thread {
                // Without a thread to try again, the error is the only honest answer.
                state.counts.clear();
                let queue = std::mem::take(&mut state.queue);
                drop(state);
                queue.into_iter().for_each(|write| write.reply.error(Errno::EIO));
            }
        }
        first
    }

    /// Writes held for one file.
    pub fn count(&self, entry: usize) -> usize {
        lock(&self.state).counts.get(&entry).copied().unwrap_or(0)
    }

    /// How often everything held was tried again, so far.
    pub fn rounds(&self) -> u64 {
        lock(&self.state).rounds
    }

    /// Answers all of them with `EIO`, and from now on each new one.
    pub fn give_up(&self) {
        let mut state = lock(&self.state);
        state.closed = true;
        state.counts.clear();
        let queue = std::mem::take(&mut state.queue);
        drop(state);
        self.wake.notify_all();
        queue.into_iter().for_each(|write| write.reply.error(Errno::EIO));
    }

    /// Takes everything held, after a pause; `None` when there is nothing left to do.
    fn next_round(&self) -> Option<VecDeque<HeldWrite>> {
        let state = lock(&self.state);
        let (mut state, _) =
            self.wake.wait_timeout(state, RETRY).unwrap_or_else(PoisonError::into_inner);
        if state.closed || state.queue.is_empty() {
            state.thread = false;
            return None;
        }
        Some(std::mem::take(&mut state.queue))
    }

    /// Forgets one write; before it is answered, so that who was waiting for it sees it gone.
    fn went(&self, entry: usize) {
        if let Some(count) = lock(&self.state).counts.get_mut(&entry) {
            *count -= 1;
        }
    }

    /// Puts back what still does not go, ahead of what came meanwhile; says whether all went.
    fn end_round(&self, mut remaining: VecDeque<HeldWrite>) -> bool {
        let mut state = lock(&self.state);
        state.rounds += 1;
        if state.closed {
            drop(state);
            remaining.into_iter().for_each(|write| write.reply.error(Errno::EIO));
            return false;
        }
        remaining.append(&mut state.queue);
        state.queue = remaining;
        state.queue.is_empty()
    }
}

fn work(shared: &Weak<Shared>) {
    while let Some(shared) = shared.upgrade() {
        let Some(round) = shared.held_writes.next_round() else { return };
        let mut remaining = VecDeque::new();
        for write in round {
            match shared.write(write.entry, write.offset, &write.bytes) {
                Ok(()) => {
                    shared.held_writes.went(write.entry);
                    write.reply.written(write.bytes.len() as u32);
                }
                Err(_) => remaining.push_back(write),
            }
        }
        if shared.held_writes.end_round(remaining) {
            shared.writes_resumed();
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The errno a client sees for an error of the file.
pub(crate) fn errno(error: &io::Error) -> Errno {
    match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Errno::ENOSPC,
        _ => Errno::EIO,
    }
}
