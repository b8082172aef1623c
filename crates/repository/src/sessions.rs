//! What finished store sessions rely on until a ref names it.
//!
//! Between the end of a session and the ref write, nothing in the store says that the
//! session's chunks are wanted. A collector may condemn their packs meanwhile (it deletes them
//! only a grace age later). So before a ref is written, the index is refreshed and every pack
//! that a finished session relied on is looked at: a condemned one is revived first, a missing
//! one is an error. See "Deleting" in `docs/format/repository.md`.

use std::collections::HashSet;
use std::sync::{Mutex, MutexGuard, PoisonError};

use chunk::crypt::PackId;

#[derive(Default)]
pub(crate) struct Sessions(Mutex<State>);

#[derive(Default)]
struct State {
    /// Sessions that finished since the last ref write, with a number each.
    outstanding: Vec<(u64, HashSet<PackId>)>,
    counter: u64,
    /// When a ref write released several sessions at once, of which it can only have named
    /// one's chunks.
    ambiguous: Option<ambient::Instant>,
}

/// What a ref write must hold on to.
pub(crate) struct Reliance {
    pub(crate) packs: HashSet<PackId>,
    upto: u64,
    sessions: usize,
    /// Since when chunks may be relied on that are not among `packs`.
    pub(crate) ambiguous: Option<ambient::Instant>,
}

impl Sessions {
    pub(crate) fn finished(&self, packs: HashSet<PackId>) {
        let mut state = self.state();
        state.counter += 1;
        let number = state.counter;
        state.outstanding.push((number, packs));
    }

    pub(crate) fn reliance(&self) -> Reliance {
        let state = self.state();
        Reliance {
            packs: state.outstanding.iter().flat_map(|(_, packs)| packs).copied().collect(),
            upto: state.counter,
            sessions: state.outstanding.len(),
            ambiguous: state.ambiguous,
        }
    }

    /// The ref is written: it protects what it names.
    pub(crate) fn release(&self, reliance: &Reliance) {
        let mut state = self.state();
        state.outstanding.retain(|(number, _)| *number > reliance.upto);
        if reliance.sessions > 1 {
            state.ambiguous.get_or_insert_with(ambient::now);
        }
    }

    /// Everything that the next ref names was looked at.
    pub(crate) fn settled(&self) {
        self.state().ambiguous = None;
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
