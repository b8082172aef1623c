//! Makers' repositories, and their mirrors, as places where chunks come from: opened when the first chunk
//! is asked for.
//!
//! *Order.* Mirrors that have the chunk, or whose maker's instance was looked at last and that were not
//! tried yet; makers whose index has it; the others, the one whose instance was looked at last before
//! all others; and one that could not be opened is asked again after a minute, so that a maker who is
//! away is not in the way of another one's guests. A mirror that could not be opened, or gave something
//! else than what it was asked for a moment ago, comes after all others.
//!
//! *Invariant.* Only chunks come from here, each by its id: what a maker says otherwise has to be
//! signed ([`crate::makers`]).

use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::Duration;

use chunk::{ChunkSource, FetchError, Place, Urgency, Verified};
use model::ChunkId;
use objects::{Counted, Objects};
use repository::Repository;

use super::{open_objects, open_stranger, open_with_keys};
use crate::dir::HostDir;
use crate::failure::{Failure, Result};

/// All makers that are known.
pub struct Makers {
    host: HostDir,
    known: RwLock<Vec<Arc<Maker>>>,
}

/// So long a maker that could not be opened counts as away.
const AWAY: Duration = Duration::from_secs(60);

/// A place that serves a maker's chunks: its own, or a mirror.
struct Maker {
    location: String,
    /// Of a mirror, where its maker is.
    mirrors: Option<String>,
    /// When it last did not serve what it should have.
    failed: Mutex<Option<ambient::Instant>>,
    /// Locked for moments only: nobody waits here for who opens it.
    opened: Mutex<Option<Opened>>,
    /// Held by who opens it. When that failed last, and why.
    opening: Mutex<Option<(ambient::Instant, String)>>,
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

    /// From now on chunks may come from there too, and before they come from others.
    pub fn know(&self, location: &str) {
        self.know_with(location, &[]);
    }

    /// The same, and before it from its mirrors.
    pub fn know_with(&self, location: &str, mirrors: &[String]) {
        let mut known = self.known.write().unwrap_or_else(PoisonError::into_inner);
        if known.iter().all(|maker| maker.maker() != location) {
            let place = |at: &str, mirrors: Option<&str>| {
                Arc::new(Maker {
                    location: at.to_owned(),
                    mirrors: mirrors.map(str::to_owned),
                    failed: Mutex::new(None),
                    opened: Mutex::new(None),
                    opening: Mutex::new(None),
                })
            };
            known.extend(mirrors.iter().map(|at| place(at, Some(location))));
            known.push(place(location, None));
        }
        known.sort_by_key(|maker| maker.maker() != location);
    }

    /// Opens it now, and its mirrors; one of them is enough.
    pub fn reach(&self, location: &str) -> Result<()> {
        self.know(location);
        let all = self.all().into_iter().filter(|maker| maker.maker() == location);
        let opened: Vec<Result<()>> = all.map(|maker| maker.open(&self.host).map(drop)).collect();
        if opened.iter().any(Result::is_ok) { Ok(()) } else { opened.into_iter().collect() }
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
    /// Whose chunks they are.
    fn maker(&self) -> &str {
        self.mirrors.as_deref().unwrap_or(&self.location)
    }

    /// Whether it is a mirror that did not serve a moment ago.
    fn rests(&self) -> bool {
        let failed = *self.failed.lock().unwrap_or_else(PoisonError::into_inner);
        self.mirrors.is_some() && failed.is_some_and(|at| at.elapsed() < AWAY)
    }

    fn did_not_serve(&self) {
        *self.failed.lock().unwrap_or_else(PoisonError::into_inner) = Some(ambient::now());
    }

    /// Whether nobody has tried to open it.
    fn is_untried(&self) -> bool {
        // Who is opening it holds this.
        self.opening.try_lock().is_ok_and(|failed| failed.is_none()) && self.opened().is_none()
    }

    fn lock(&self) -> MutexGuard<'_, Option<Opened>> {
        // What is in there is whole at any time.
        self.opened.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn opened(&self) -> Option<Repository> {
        self.lock().as_ref().map(|opened| opened.repository.clone())
    }

    /// Opens it, whatever it said before.
    fn open(&self, host: &HostDir) -> Result<Repository> {
        let mut failed = self.opening.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(opened) = self.opened() {
            return Ok(opened);
        }
        let open = || {
            let objects = open_objects(host, &self.location)?;
            let repository = match &self.mirrors {
                Some(_) => open_stranger(host, objects.clone(), &self.location)?,
                None => open_with_keys(host, objects.clone(), Vec::new())?,
            };
            Ok(Opened { repository, objects })
        };
        let opened: Opened = open().inspect_err(|failure: &Failure| {
            *failed = Some((ambient::now(), format!("{}: {failure}", self.location)));
        })?;
        *failed = None;
        let repository = opened.repository.clone();
        *self.lock() = Some(opened);
        Ok(repository)
    }

    /// Opens it for a chunk: one that was away a moment ago still is.
    fn open_again(&self, host: &HostDir) -> Result<Repository, FetchError> {
        if let Some(opened) = self.opened() {
            return Ok(opened);
        }
        let failed = self.opening.lock().unwrap_or_else(PoisonError::into_inner).clone();
        match failed {
            Some((at, detail)) if at.elapsed() < AWAY => Err(FetchError::Unavailable { detail }),
            _ => self.open(host).map_err(|failure| {
                let detail = format!("{}: {failure}", self.location);
                FetchError::Unavailable { detail }
            }),
        }
    }
}

impl Makers {
    /// In the order in which they are asked for a chunk.
    fn in_order(&self, id: &ChunkId) -> Vec<Arc<Maker>> {
        let all = self.all();
        let first = all.first().map(|first| first.maker().to_owned());
        let is_first = |maker: &Maker| first.as_deref() == Some(maker.maker());
        let rank = |maker: &Arc<Maker>| {
            let (is_mirror, opened) = (maker.mirrors.is_some(), maker.opened());
            let has = opened.as_ref().is_some_and(|opened| opened.place(id).is_some());
            match opened {
                _ if maker.rests() => 5,
                Some(_) if is_mirror && has => 0,
                None if is_mirror && is_first(maker) && maker.is_untried() => 0,
                Some(_) if has => 1,
                _ if !is_mirror && is_first(maker) => 2,
                Some(_) => 3,
                None if !is_mirror => 4,
                None => 5,
            }
        };
        let mut ranked: Vec<_> = all.iter().map(|maker| (rank(maker), maker.clone())).collect();
        ranked.sort_by_key(|(rank, _)| *rank);
        ranked.into_iter().map(|(_, maker)| maker).collect()
    }
}

impl ChunkSource for Makers {
    fn fetch(&self, id: &ChunkId, urgency: Urgency) -> Result<Vec<Verified>, FetchError> {
        let mut worst = FetchError::Missing { id: *id };
        for maker in self.in_order(id) {
            match maker.open_again(&self.host).and_then(|opened| opened.fetch(id, urgency)) {
                Ok(chunks) => return Ok(chunks),
                Err(FetchError::Missing { .. }) => {}
                Err(FetchError::Damaged { .. }) if maker.mirrors.is_some() => {
                    maker.did_not_serve();
                }
                // Somebody who is away may have it, which is worth waiting for.
                Err(error) => {
                    maker.did_not_serve();
                    if !matches!(worst, FetchError::Unavailable { .. }) {
                        worst = error;
                    }
                }
            }
        }
        Err(worst)
    }

    fn place(&self, id: &ChunkId) -> Option<Place> {
        let mut serving = self.all().into_iter().filter(|maker| !maker.rests());
        serving.find_map(|maker| maker.opened()?.place(id))
    }

    fn fetch_near(&self, ids: &[ChunkId], urgency: Urgency) -> Vec<Verified> {
        let Some(first) = ids.first() else { return Vec::new() };
        let mut serving = self.all().into_iter().filter(|maker| !maker.rests());
        let has = serving.find_map(|maker| {
            let opened = maker.opened().filter(|opened| opened.place(first).is_some())?;
            Some((maker, opened))
        });
        let Some((maker, opened)) = has else { return Vec::new() };
        let chunks = opened.fetch_near(ids, urgency);
        if chunks.is_empty() {
            maker.did_not_serve();
        }
        chunks
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::sync::mpsc;

    use chunk::ChunkSink;
    use repository::{Child, Init, RefPayload, Target};

    use super::*;

    /// A maker's repository with one chunk.
    fn maker(folder: &std::path::Path) -> (String, ChunkId) {
        let location = folder.to_string_lossy().into_owned();
        let objects = objects::create(&location).unwrap();
        let repository = Repository::init(objects, &Init::default()).unwrap();
        let bytes = vec![7; 4096];
        let id = chunk::id_of(&bytes);
        let mut writer = repository.writer().unwrap();
        writer.put(id, &bytes).unwrap();
        let children = [Child::new("chunk", Target::Chunk(id))];
        let record = repository::write_record(&mut writer, &children, b"{}").unwrap();
        writer.finish().unwrap();
        let payload = RefPayload { roots: vec![Target::Record(record)], body: Vec::new() };
        repository.refs().advance("release", "web/1", Default::default(), &payload).unwrap();
        (location, id)
    }

    /// A maker who is away: whoever connects is counted, and sent away or left waiting.
    fn away(waiting: bool) -> (String, Arc<AtomicUsize>) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let location = format!("http://{}", listener.local_addr().unwrap());
        let asked = Arc::new(AtomicUsize::new(0));
        let counter = asked.clone();
        std::thread::spawn(move || {
            let mut left = Vec::new();
            for socket in listener.incoming().flatten() {
                counter.fetch_add(1, Ordering::SeqCst);
                if waiting {
                    left.push(socket);
                }
            }
        });
        (location, asked)
    }

    #[test]
    fn a_maker_who_is_away_is_not_in_the_way_of_another_ones_guests() {
        let folder = tempfile::tempdir().unwrap();
        let host = HostDir::open(&folder.path().join("host")).unwrap();
        let (here, id) = maker(&folder.path().join("www"));
        let (gone, asked) = away(false);
        let makers = Makers::new(&host);
        makers.know(&gone);
        makers.know(&here);
        assert!(makers.fetch(&id, Urgency::Urgent).is_ok());
        assert_eq!(asked.load(Ordering::SeqCst), 0, "the instance's own is asked first");
        // Whoever else's instance is looked at next.
        makers.know(&gone);
        assert!(makers.fetch(&id, Urgency::Urgent).is_ok());
        assert_eq!(asked.load(Ordering::SeqCst), 0, "who has it is asked first");
        // Nobody has it whom one can ask. That is found out once, and not for each chunk.
        let absent = chunk::id_of(b"absent");
        let why = makers.fetch(&absent, Urgency::Urgent);
        assert!(matches!(why, Err(FetchError::Unavailable { .. })), "{why:?}");
        let once = asked.load(Ordering::SeqCst);
        assert!(once > 0);
        let why = makers.fetch(&absent, Urgency::Urgent);
        assert!(matches!(why, Err(FetchError::Unavailable { .. })), "{why:?}");
        assert_eq!(asked.load(Ordering::SeqCst), once, "a moment later it still is");
    }

    #[test]
    fn nobody_waits_for_a_maker_that_is_being_opened() {
        let folder = tempfile::tempdir().unwrap();
        let host = HostDir::open(&folder.path().join("host")).unwrap();
        let (here, id) = maker(&folder.path().join("www"));
        let (silent, asked) = away(true);
        let makers = Arc::new(Makers::new(&host));
        makers.know(&silent);
        makers.know(&here);
        let waits = makers.clone();
        std::thread::spawn(move || {
            waits.fetch(&chunk::id_of(b"absent"), Urgency::Urgent).map(drop)
        });
        while asked.load(Ordering::SeqCst) == 0 {
            std::thread::sleep(Duration::from_millis(10));
        }
        let (done, got) = mpsc::channel();
        std::thread::spawn(move || {
            let placed = makers.place(&id).is_some();
            let near = makers.fetch_near(&[id], Urgency::Urgent).len();
            let bytes = makers.fetched_bytes();
            let fetched = makers.fetch(&id, Urgency::Urgent).is_ok();
            let _ = done.send((placed, near, bytes > 0, fetched));
        });
        // It is silent for 20 s, several times.
        let got = got.recv_timeout(Duration::from_secs(15));
        assert_eq!(got, Ok((true, 1, true, true)));
    }
}
