//! The changes below a prefix, in order.

use std::any::Any;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Weak};
use std::time::Duration;

use crate::{Entry, KvError, Result, Revision};

/// Batches that wait for a reader; one who is slower than this lists again.
const BATCHES_MAX: usize = 4096;

/// What happened to a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    Put(Entry),
    /// Deleted, or its lease is over.
    Deleted {
        key: String,
    },
}

impl Change {
    /// The key that changed.
    pub fn key(&self) -> &str {
        match self {
            Self::Put(entry) => &entry.key,
            Self::Deleted { key } => key,
        }
    }
}

/// All that one commit changed below the prefix.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Batch {
    pub revision: Revision,
    pub changes: Vec<Change>,
}

/// Changes as they come. Dropped, it ends.
pub struct Watch {
    batches: Receiver<Result<Batch>>,
    _alive: Arc<()>,
    _until_dropped: Box<dyn Any + Send>,
}

impl std::fmt::Debug for Watch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Watch")
    }
}

impl Watch {
    /// The next commit's changes; nothing when none came within `timeout`. After an error there is
    /// nothing more.
    pub fn next(&self, timeout: Duration) -> Result<Option<Batch>> {
        match self.batches.recv_timeout(timeout) {
            Ok(batch) => batch.map(Some),
            Err(RecvTimeoutError::Timeout) => Ok(None),
            Err(RecvTimeoutError::Disconnected) => Err(KvError::WatchEnded {
                detail: "its reader was too slow, or the store is closed".to_owned(),
            }),
        }
    }
}

/// The store's end of a watch.
#[derive(Debug)]
pub(crate) struct Feed {
    sender: SyncSender<Result<Batch>>,
    reader: Weak<()>,
}

/// A watch, and who feeds it. `until_dropped` goes with the watch.
pub(crate) fn watch(until_dropped: impl Any + Send) -> (Feed, Watch) {
    let (sender, batches) = sync_channel(BATCHES_MAX);
    let alive = Arc::new(());
    let feed = Feed { sender, reader: Arc::downgrade(&alive) };
    (feed, Watch { batches, _alive: alive, _until_dropped: Box::new(until_dropped) })
}

impl Feed {
    /// Whether anybody reads it still.
    pub(crate) fn is_read(&self) -> bool {
        self.reader.strong_count() > 0
    }

    /// Hands on what happened; false when nobody reads any more, or too slowly. Never waits.
    pub(crate) fn give(&self, batch: Result<Batch>) -> bool {
        match self.sender.try_send(batch) {
            Ok(()) => true,
            Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) => false,
        }
    }
}
