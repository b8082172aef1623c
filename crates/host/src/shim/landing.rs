//! What a guest came with and the repository does not have yet: the target's half of a live move.
//!
//! ```text
//! on its way ──all fetched from the source, and durable──▶ here: the owner makes it the head's checkpoint
//!     ▲  └──the source does not give it──▶ missing: said, and tried again
//!     └──────────────it does again────────────┘
//! ```
//! The guest runs meanwhile, and pages come from the source as they are touched. Nothing else of it is stored
//! before this is ([`Landing::wait`]).
//!
//! *Invariants.* What came stays on this host until the repository has all (in its cache, which drops what was
//! not used for a week before it drops that), and is put into the repository as it comes. Only the owner moves
//! the head.
//! *On a crash* the source still has it, and the next start fetches it again.

use std::collections::{HashMap, VecDeque};
use std::sync::mpsc::Sender;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use api::ArrivingPrint;
use chunk::{ChunkSource, Urgency, Verified};
use model::ChunkId;
use volume::{Cancel, Fetcher, Stride};

use super::server::Message;
use crate::auto::line::Taken;
use crate::failure::{Failure, Result};
use crate::parcel;
use crate::record::{Checkpoint, Parcel};
use crate::store::{Session, Store};

/// Whoever waits for a page goes first, and who has waited so lately...
const LATELY: Duration = Duration::from_millis(200);
/// ...but for so long at most.
const GIVE_WAY: Duration = Duration::from_secs(2);
const NAP: Duration = Duration::from_millis(5);
/// Chunks that are kept in memory until all is stored: records, and pieces of the devices' state.
const BESIDE_MAX: usize = 256;
/// What did not come is asked for again after this.
const AGAIN: Duration = Duration::from_secs(1);

/// See the module's documentation.
pub struct Landing {
    pub parcel: Parcel,
    taken: Taken,
    state: Mutex<State>,
    left: Mutex<Option<u64>>,
    /// Which chunks those are, once that has come.
    ids: OnceLock<Vec<ChunkId>>,
    /// What came and the cache does not take.
    beside: Mutex<HashMap<ChunkId, Verified>>,
    changed: Condvar,
    cancel: Cancel,
}

enum State {
    OnItsWay,
    Missing(Failure),
    Here,
}

/// What is left to be put, and where it is put.
struct Flight {
    session: Session,
    left: VecDeque<ChunkId>,
    /// A guest that waits for a page waits for no more than these.
    stride: Stride,
}

impl Landing {
    /// Of this checkpoint, which is what the parcel has.
    pub fn new(parcel: Parcel, checkpoint: &Checkpoint) -> Arc<Self> {
        let (id, why, taken_unix_ms) =
            (parcel.checkpoint, checkpoint.why, checkpoint.taken_unix_ms);
        Arc::new(Self {
            parcel,
            taken: Taken { id, why, taken_unix_ms },
            state: Mutex::new(State::OnItsWay),
            left: Mutex::new(None),
            ids: OnceLock::new(),
            beside: Mutex::default(),
            changed: Condvar::new(),
            cancel: Cancel::default(),
        })
    }

    /// Begins to bring it, in the background.
    pub fn begin(
        self: &Arc<Self>,
        store: &Store,
        source: &Arc<dyn ChunkSource>,
        fetcher: &Arc<Fetcher>,
        owner: Sender<Message>,
    ) {
        let (this, store) = (self.clone(), store.clone());
        let (source, fetcher) = (source.clone(), fetcher.clone());
        let bring = move || {
            let mut flight = None;
            while !this.cancel.is_cancelled() {
                match this.bring(&mut flight, &store, &*source, &fetcher) {
                    Ok(()) => {
                        this.set(State::Here);
                        let _ = owner.send(Message::Landed(this.taken));
                        return;
                    }
                    Err(failure) => this.set(State::Missing(failure)),
                }
                this.rest(AGAIN);
            }
        };
        if let Err(error) = ambient::spawn("landing".to_owned(), bring) {
            // The guest runs, and whoever wants to store it is told.
            self.set(State::Missing(Failure::from(error)));
        }
    }

    /// Ends it: the instance ends here.
    pub fn end(&self) {
        self.cancel.cancel();
        self.set(State::Missing(self.away(0)));
    }

    /// Waits until the repository has it, as long as it is on its way.
    pub fn wait(&self) -> Result<Taken> {
        let state = self.state();
        let still = |state: &mut State| matches!(state, State::OnItsWay);
        let state = self.changed.wait_while(state, still);
        match &*state.unwrap_or_else(PoisonError::into_inner) {
            State::Missing(failure) => Err(failure.clone()),
            State::OnItsWay | State::Here => Ok(self.taken),
        }
    }

    /// For `inspect`.
    pub fn print(&self) -> ArrivingPrint {
        let missing = match &*self.state() {
            State::Missing(failure) => Some(failure.message.clone()),
            State::OnItsWay | State::Here => None,
        };
        ArrivingPrint {
            from: self.parcel.host_name.clone(),
            checkpoint: self.parcel.checkpoint.to_string(),
            left_chunks: *self.left.lock().unwrap_or_else(PoisonError::into_inner),
            missing,
        }
    }

    /// So many are not here yet.
    fn leaves(&self, chunks: usize) {
        *self.left.lock().unwrap_or_else(PoisonError::into_inner) = Some(chunks as u64);
    }

    /// Why something of it cannot be had, for who waits for a page; none: the repository has all of it.
    pub fn lacks(&self) -> Option<Failure> {
        match &*self.state() {
            State::Here => None,
            State::OnItsWay => Some(self.away(0)),
            State::Missing(failure) => Some(failure.clone()),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Every critical section assigns: a panic elsewhere leaves it whole.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn set(&self, next: State) {
        *self.state() = next;
        self.changed.notify_all();
    }

    fn rest(&self, how_long: Duration) {
        let until = ambient::now() + how_long;
        while !self.cancel.is_cancelled() && ambient::now() < until {
            ambient::sleep(NAP);
        }
    }

    fn bring(
        &self,
        flight: &mut Option<Flight>,
        store: &Store,
        source: &dyn ChunkSource,
        fetcher: &Fetcher,
    ) -> Result<()> {
        let mut now = match flight.take() {
            Some(flight) => flight,
            None => Flight {
                session: store.session()?,
                left: self.ids(source)?.to_vec().into(),
                stride: Stride::default(),
            },
        };
        let mut missing = VecDeque::new();
        while !now.left.is_empty() && !self.cancel.is_cancelled() {
            let until = ambient::now() + GIVE_WAY;
            while fetcher.was_waited_for(LATELY) && ambient::now() < until {
                self.rest(NAP);
            }
            let many = now.left.len().min(now.stride.pages());
            let ids: Vec<ChunkId> = now.left.drain(..many).collect();
            let asked = ambient::now();
            let came = self.get(&ids, source, fetcher);
            now.stride.took(asked.elapsed());
            for chunk in &came {
                now.session.sink().put(chunk.id(), chunk)?;
            }
            if came.is_empty() {
                // Whoever has it is away: it is not asked for each.
                missing.extend(ids);
                break;
            }
            self.set(State::OnItsWay);
            self.leaves(now.left.len() + missing.len());
            missing.extend(ids.into_iter().filter(|id| !came.iter().any(|c| c.id() == *id)));
        }
        now.left.extend(missing);
        self.leaves(now.left.len());
        if now.left.is_empty() {
            now.session.finish()?;
            return Ok(());
        }
        let failure = self.away(now.left.len());
        *flight = Some(now);
        Err(failure)
    }

    fn ids(&self, source: &dyn ChunkSource) -> Result<&[ChunkId]> {
        if let Some(ids) = self.ids.get() {
            return Ok(ids);
        }
        let list = repository::read_blob(source, &self.parcel.chunks.id);
        let ids = parcel::ids(&list.map_err(|_| self.away(0))?)?;
        Ok(self.ids.get_or_init(|| ids))
    }

    /// What can be had of these now; none only if the first cannot be had.
    fn get(&self, ids: &[ChunkId], source: &dyn ChunkSource, fetcher: &Fetcher) -> Vec<Verified> {
        let mut beside = self.beside.lock().unwrap_or_else(PoisonError::into_inner);
        let here = |id: &ChunkId| beside.get(id).cloned().or_else(|| fetcher.cache().read(id));
        let mut came: Vec<Verified> = ids.iter().filter_map(here).collect();
        let has = |came: &[Verified], id: &ChunkId| came.iter().any(|chunk| chunk.id() == *id);
        let wanted: Vec<ChunkId> = ids.iter().filter(|id| !has(&came, id)).copied().collect();
        let Some(first) = wanted.first() else { return came };
        let mut fetched = source.fetch_near(&wanted, Urgency::Background);
        if fetched.is_empty() {
            fetched = source.fetch(first, Urgency::Background).unwrap_or_default();
        }
        fetched.retain(|chunk| wanted.contains(&chunk.id()));
        // A guest that touches it soon finds it here.
        fetcher.cache().keep(&fetched.iter().collect::<Vec<_>>());
        for chunk in fetched.iter().filter(|chunk| !fetcher.cache().has(&chunk.id())) {
            if beside.len() < BESIDE_MAX {
                beside.insert(chunk.id(), chunk.clone());
            }
        }
        came.extend(fetched);
        came
    }

    fn away(&self, chunks: usize) -> Failure {
        away(&self.parcel, chunks)
    }
}

/// What only the source has cannot be had from there.
pub fn away(parcel: &Parcel, chunks: usize) -> Failure {
    let source = &parcel.host_name;
    let what = match chunks {
        0 => "what it wrote last".to_owned(),
        _ => format!("{chunks} chunks of what it wrote last"),
    };
    Failure::new(
        "unavailable",
        format!(
            "it came from host {source} before the repository had all: {what} is only there, and that \
             host does not give it"
        ),
        format!(
            "start {source} and its agent: it goes on then. Without it, `collective resume NAME \
             --take-over` where it does not run goes back to its last checkpoint (after `collective stop \
             NAME --force` here)"
        ),
    )
}
