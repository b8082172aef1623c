//! A source of chunks that asks peers before the repository beneath.

use std::sync::Arc;

use chunk::{ChunkSource, FetchError, Place, Urgency, Verified};
use model::ChunkId;

use crate::pool::Peers;

/// Peers that are asked for one thing.
const TRIES: usize = 2;

/// See the module's documentation. Who the peers are may change while it is used.
pub struct Source {
    peers: Arc<Peers>,
    beneath: Arc<dyn ChunkSource>,
}

impl Source {
    /// `peers`, and the source that has everything.
    pub fn new(peers: Arc<Peers>, beneath: Arc<dyn ChunkSource>) -> Self {
        Self { peers, beneath }
    }
}

impl ChunkSource for Source {
    fn fetch(&self, id: &ChunkId, urgency: Urgency) -> Result<Vec<Verified>, FetchError> {
        let came = self.peers.ask(std::slice::from_ref(id), TRIES);
        if came.is_empty() { self.beneath.fetch(id, urgency) } else { Ok(came) }
    }

    fn place(&self, id: &ChunkId) -> Option<Place> {
        self.beneath.place(id)
    }

    /// A peer gives what it is asked for and nothing that comes along: while one gives, nobody waits for
    /// somebody else's request.
    fn together(&self, id: &ChunkId) -> Option<u64> {
        if self.peers.give() { None } else { self.beneath.together(id) }
    }

    fn fetch_near(&self, ids: &[ChunkId], urgency: Urgency) -> Vec<Verified> {
        let mut came = self.peers.ask(ids, TRIES);
        let missing: Vec<ChunkId> =
            ids.iter().filter(|id| !came.iter().any(|c| c.id() == **id)).copied().collect();
        if !missing.is_empty() {
            came.extend(self.beneath.fetch_near(&missing, urgency));
        }
        came
    }
}
