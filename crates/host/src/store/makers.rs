//! Makers' repositories as places where chunks come from: opened when the first chunk is asked for,
//! so that a maker who is away is in nobody's way.
//!
//! *Invariant.* Only chunks come from here, each by its id: what a maker says otherwise has to be
//! signed ([`crate::makers`]).

use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

use chunk::{ChunkSource, FetchError, Place, Urgency, Verified};
use model::ChunkId;
use objects::{Counted, Objects};
use repository::Repository;

use super::{open_objects, open_with_keys};
use crate::dir::HostDir;
use crate::failure::Result;

/// All makers that are known.
pub struct Makers {
    host: HostDir,
    known: RwLock<Vec<Arc<Maker>>>,
}

struct Maker {
    location: String,
    opened: Mutex<Option<Opened>>,
}

#[derive(Clone)]
struct Opened {
    repository: Repository,
    objects: Arc<Counted<Arc<dyn Objects>>>,
}

impl Makers {
    pub fn new(host: &HostDir) -> Self {
        Self { host: host.clone(), known: RwLock::new(Vec::new()) }
    }

    /// From now on chunks may come from there too.
    pub fn know(&self, location: &str) {
        let mut known = self.known.write().unwrap_or_else(PoisonError::into_inner);
        if known.iter().all(|maker| maker.location != location) {
            let (location, opened) = (location.to_owned(), Mutex::new(None));
            known.push(Arc::new(Maker { location, opened }));
        }
    }

    /// Opens it now.
    pub fn reach(&self, location: &str) -> Result<()> {
        self.know(location);
        match self.all().into_iter().find(|maker| maker.location == location) {
            Some(maker) => maker.open(&self.host).map(drop),
            None => Ok(()),
        }
    }

    pub fn fetched_bytes(&self) -> u64 {
        let opened = self.all().into_iter().filter_map(|maker| maker.lock().clone());
        opened.map(|opened| opened.objects.counts().read_bytes).sum()
    }

    fn all(&self) -> Vec<Arc<Maker>> {
        self.known.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Maker {
    fn lock(&self) -> MutexGuard<'_, Option<Opened>> {
        // What is in there is whole at any time.
        self.opened.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn open(&self, host: &HostDir) -> Result<Repository> {
        let mut opened = self.lock();
        if let Some(opened) = &*opened {
            return Ok(opened.repository.clone());
        }
        let objects = open_objects(host, &self.location)?;
        let repository = open_with_keys(host, objects.clone(), Vec::new())?;
        *opened = Some(Opened { repository: repository.clone(), objects });
        Ok(repository)
    }
}

impl ChunkSource for Makers {
    fn fetch(&self, id: &ChunkId, urgency: Urgency) -> Result<Vec<Verified>, FetchError> {
        let mut worst = FetchError::Missing { id: *id };
        for maker in self.all() {
            let fetched = match maker.open(&self.host) {
                Ok(repository) => repository.fetch(id, urgency),
                Err(failure) => {
                    let detail = format!("{}: {failure}", maker.location);
                    Err(FetchError::Unavailable { detail })
                }
            };
            match fetched {
                Ok(chunks) => return Ok(chunks),
                Err(FetchError::Missing { .. }) => {}
                // Somebody who is away may have it, which is worth waiting for.
                Err(error) if !matches!(worst, FetchError::Unavailable { .. }) => worst = error,
                Err(_) => {}
            }
        }
        Err(worst)
    }

    fn place(&self, id: &ChunkId) -> Option<Place> {
        let opened = self.all().into_iter().filter_map(|maker| maker.lock().clone());
        opened.into_iter().find_map(|opened| opened.repository.place(id))
    }

    fn fetch_near(&self, ids: &[ChunkId], urgency: Urgency) -> Vec<Verified> {
        let Some(first) = ids.first() else { return Vec::new() };
        let mut opened = self.all().into_iter().filter_map(|maker| maker.lock().clone());
        let has = opened.find(|opened| opened.repository.place(first).is_some());
        has.map_or_else(Vec::new, |opened| opened.repository.fetch_near(ids, urgency))
    }
}
