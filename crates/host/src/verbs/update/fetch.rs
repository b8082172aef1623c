//! What of a new version is not here yet, and bringing it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use chunk::ChunkSource;
use delta::{Layout, PART_BYTES_MAX, Part};
use manifest::{Manifest, NodeCache};
use model::{ChunkId, DiskRole, VersionId};
use trust::{TrustError, Trusted};
use volume::{Cache, Cancel, Fetcher};

use crate::Host;
use crate::deltas::{self, Budget, Sources};
use crate::failure::{Failure, Result};
use crate::makers::document::DeltaSays;
use crate::makers::{Maker, Release};
use crate::record::Version;
use crate::store::Store;

/// Threads that fetch a new version.
const FETCH_THREADS: usize = 4;
/// Pages that are fetched at once, at most; and at least, so that a request is worth it.
const BATCH: usize = 1024;
const BATCH_LEAST: usize = 64;
/// Decoded nodes that are kept while two versions are compared.
const NODES_KEPT: usize = 512;
/// What is fetched without a layout beside the pages: names of them, and where these lie. Bytes, roughly.
const NAMES_BYTES: u64 = 256 << 10;
/// Parts of a delta are fuller than this on average, bytes.
const PART_BYTES_LEAST: u64 = 64 << 10;
/// A page, bytes.
const PAGE: u64 = model::PAGE_BYTES as u64;

/// A new version, and what it is compared with.
pub(super) struct News<'a> {
    pub maker: &'a Maker,
    pub trusted: &'a Trusted,
    pub release: &'a Release,
    /// The maker's version that the instance has.
    pub from: VersionId,
    pub old: &'a Version,
    pub new: &'a Version,
    /// Where everything lies in the new version, if its maker says so to who has the old one.
    pub layout: Option<&'a Layout>,
}

/// Waits as long as is needed to be no faster than was said.
struct Pace<'a> {
    began: ambient::Instant,
    /// Bytes a second.
    rate: Option<u64>,
    store: &'a Store,
    trusted: &'a Trusted,
    /// What had come when it began, bytes.
    before: u64,
}

impl<'a> Pace<'a> {
    fn new(rate: Option<u64>, store: &'a Store, trusted: &'a Trusted) -> Self {
        let before = store.fetched_bytes() + trusted.fetched_bytes();
        let rate = rate.filter(|rate| *rate > 0);
        Self { began: ambient::now(), rate, store, trusted, before }
    }

    /// How many pages are fetched at once: those of half a second.
    fn batch(&self) -> usize {
        let pages = self.rate.map_or(u64::MAX, |rate| rate / 2 / PAGE);
        usize::try_from(pages).unwrap_or(BATCH).clamp(BATCH_LEAST, BATCH)
    }

    fn keep(&self) {
        if let Some(rate) = self.rate {
            let now = self.store.fetched_bytes() + self.trusted.fetched_bytes();
            let due = Duration::from_secs_f64((now - self.before) as f64 / rate as f64);
            ambient::sleep(due.saturating_sub(self.began.elapsed()));
        }
    }
}

impl Host {
    /// Brings what of a new version this host lacks: by differences where they are smaller.
    pub(super) fn fetch_ahead(
        &self,
        store: &Store,
        news: &News<'_>,
        rate: Option<u64>,
        progress: &mut dyn FnMut(&str),
    ) -> Result<Fetched> {
        let News { old, new, .. } = *news;
        let source = store.source();
        let fetcher = self.fetcher(store)?;
        let pace = Pace::new(rate, store, news.trusted);
        let given = fetch_layout(store, news, &fetcher, &pace, progress)?;
        let mut missing = missing(&fetcher, old, new)?;
        let (delta_bytes, fallback);
        let mut bytes = missing.len() as u64 * PAGE;
        match given {
            Some(given) => {
                bytes += given.pages * PAGE;
                (delta_bytes, fallback) = (given.delta_bytes, given.fallback);
            }
            None if missing.is_empty() => (delta_bytes, fallback) = (0, None),
            None => {
                store.reach(&news.maker.location)?;
                (delta_bytes, fallback) =
                    fetch_delta(store, news, &fetcher, &mut missing, &pace, progress)?;
            }
        }
        if !missing.is_empty() {
            store.reach(&news.maker.location)?;
        }
        let mut ordered: Vec<(Option<chunk::Place>, ChunkId)> =
            missing.iter().map(|id| (source.place(id), *id)).collect();
        ordered.sort_unstable_by_key(|(place, _)| *place);
        let mut done = 0;
        for batch in ordered.chunks(pace.batch()) {
            let ids: Vec<ChunkId> = batch.iter().map(|(_, id)| *id).collect();
            let fetched = fetcher.get_near(&ids, &Cancel::default()).unwrap_or_default();
            for chunk in fetched {
                chunk?;
            }
            done += ids.len();
            progress(&format!(
                "fetching version {}: {} of {} pages",
                new.version,
                done,
                ordered.len()
            ));
            pace.keep();
        }
        for blob in [&new.kernel, &new.initrd, &new.firmware].into_iter().flatten() {
            let folder = self.dir.folder("cache/blobs")?;
            crate::blob::materialise(&folder, blob, &fetcher)?;
        }
        ambient::step("update: fetched");
        let left = self::missing(&fetcher, old, new)?;
        if !left.is_empty() {
            self.must_have_room(new, left.len() as u64 * PAGE)?;
        }
        Ok(Fetched { bytes, delta_bytes, fallback, all: left.is_empty() })
    }

    /// An error where what is left to fetch found no room on this host's disk. A cache that is to be
    /// smaller than that is no error: its user said so.
    fn must_have_room(&self, new: &Version, left: u64) -> Result<()> {
        let cache = self.dir.folder("cache")?;
        let free = crate::dir::free_bytes(&cache)?;
        if free >= left {
            return Ok(());
        }
        let message = format!(
            "{} of version {} have no room: {} are free in {}",
            model::format_bytes(left),
            new.version,
            model::format_bytes(free),
            cache.display()
        );
        let hint = "free some space, and do it again: what was fetched stays, and nothing else was changed";
        Err(Failure::new("no_space", message, hint))
    }

    /// What brings pages to this host's cache, and nodes of manifests too.
    pub(in crate::verbs) fn fetcher(&self, store: &Store) -> Result<Arc<Fetcher>> {
        let cache = Cache::open(&self.dir.folder("cache")?, self.dir.cache_bytes_max())?;
        Ok(Arc::new(Fetcher::new(Arc::new(cache), store.source(), FETCH_THREADS)))
    }
}

/// What was brought.
pub(super) struct Fetched {
    /// Bytes of pages that were not here before.
    pub bytes: u64,
    /// What was used as differences, as they are published, bytes; a part of it may have been here.
    pub delta_bytes: u64,
    /// Why not all of these could be used, where it was so.
    pub fallback: Option<String>,
    /// Whether all of it is here now: a cache may be too small, or its disk full.
    pub all: bool,
}

/// What an update takes, bytes.
pub(in crate::verbs) struct Size {
    /// On the wire.
    pub fetch: u64,
    /// Of pages that are not here.
    pub new: u64,
}

/// What fetching a release takes for who has the version `from`.
pub(super) fn size(
    store: &Store,
    maker: &Maker,
    fetcher: &Arc<Fetcher>,
    release: &Release,
    from: VersionId,
    layout: &Option<Layout>,
    (old, new): (&Version, &Version),
) -> Result<Size> {
    let delta = release.deltas.iter().find(|delta| delta.from == from.to_string());
    if let Some(says) = delta.filter(|_| layout.is_some())
        && let Some(gives) = &says.layout
    {
        return Ok(Size { fetch: says.all_bytes(), new: gives.new_bytes });
    }
    store.reach(&maker.location)?;
    let missing = missing(fetcher, old, new)?;
    let size = wire_bytes(store, &missing);
    let fetch = delta.map_or(size, |delta| delta.bytes.min(size));
    Ok(Size { fetch, new: missing.len() as u64 * PAGE })
}

impl Host {
    /// The same, of a release that is only looked at.
    pub(in crate::verbs) fn update_size(
        &self,
        store: &Store,
        maker: &Maker,
        trusted: &Trusted,
        release: &Release,
        from: VersionId,
    ) -> Result<Size> {
        store.know(&maker.location);
        let fetcher = self.fetcher(store)?;
        let layout = layout_of(store, &fetcher, trusted, release, from);
        let (old, new) = (store.version(from)?, store.version(release.version_id()?)?);
        size(store, maker, &fetcher, release, from, &layout, (&old, &new))
    }
}

/// The pages of a new version's disks that this host lacks, where they differ from the old one's.
///
/// Nobody is asked for what is here: what was fetched once is found again without its maker.
pub(in crate::verbs) fn missing(
    fetcher: &Arc<Fetcher>,
    old: &Version,
    new: &Version,
) -> Result<BTreeSet<ChunkId>> {
    let cache = fetcher.cache();
    let nodes = NodeCache::new(fetcher.clone(), NODES_KEPT);
    let mut missing = BTreeSet::new();
    let before: BTreeMap<&str, usize> =
        old.hardware.disks.iter().enumerate().map(|(at, disk)| (disk.name.as_str(), at)).collect();
    for (spec, id) in new.hardware.disks.iter().zip(&new.disks) {
        if spec.role == DiskRole::Data && before.contains_key(spec.name.as_str()) {
            continue;
        }
        let theirs = Manifest::open(*id, &**fetcher)?;
        let ours = match before.get(spec.name.as_str()).and_then(|at| old.disks.get(*at)) {
            Some(id) => Manifest::open(*id, &**fetcher)?,
            None => Manifest::empty(spec.size_bytes)?,
        };
        Manifest::diff(&ours, &theirs, &nodes, &mut |_, _, chunk| {
            missing.extend(chunk.filter(|chunk| !cache.has(chunk)));
        })?;
    }
    Ok(missing)
}

/// Pages of its system disks, holes among them.
fn pages_of(version: &Version) -> u64 {
    let system = version.hardware.disks.iter().filter(|disk| disk.role == DiskRole::System);
    system.map(|disk| disk.size_bytes.div_ceil(PAGE)).fold(0, u64::saturating_add)
}

/// What parts of a delta gave.
struct Given {
    pages: u64,
    delta_bytes: u64,
    fallback: Option<String>,
}

/// What a maker says of where everything lies, for who has a version; none: it says nothing that is of use here.
pub(super) fn layout_of(
    store: &Store,
    fetcher: &Arc<Fetcher>,
    trusted: &Trusted,
    release: &Release,
    from: VersionId,
) -> Option<Layout> {
    let from_text = from.to_string();
    let says = release.deltas.iter().find(|delta| delta.from == from_text)?;
    let bytes = says.layout.as_ref()?.bytes;
    // Nothing is fetched that is not worth it, or that cannot be used.
    if !is_worth_it(says) || !deltas::is_here(&store.version(from).ok()?, fetcher) {
        return None;
    }
    let name = Release::layout_document(&from_text, &release.id);
    let name = Release::place(trusted, &release.appliance, name);
    // Without it there is only more to fetch.
    let layout =
        Layout::decode(&trusted.read(&name, bytes.min(PART_BYTES_MAX as u64)).ok()?).ok()?;
    let fits =
        layout.from == *from.as_bytes() && layout.to == *release.version_id().ok()?.as_bytes();
    fits.then_some(layout)
}

/// Whether a delta says of itself that it takes less than what it gives, with the names of that.
fn is_worth_it(says: &DeltaSays) -> bool {
    let gives = says.layout.as_ref().map_or(0, |layout| layout.new_bytes);
    let most = gives.saturating_add(gives / 8).saturating_add(NAMES_BYTES);
    says.all_bytes() <= most && u64::from(says.parts) <= says.bytes / PART_BYTES_LEAST + 2
}

/// Brings a new version by its delta alone: the pages that its parts give, and the manifests that follow from
/// where they lie. None: there is no such delta, or it is of no use here. Whatever does not fit is missing
/// afterwards.
fn fetch_layout(
    store: &Store,
    news: &News<'_>,
    fetcher: &Arc<Fetcher>,
    pace: &Pace<'_>,
    progress: &mut dyn FnMut(&str),
) -> Result<Option<Given>> {
    let from = news.from.to_string();
    let says = news.release.deltas.iter().find(|delta| delta.from == from);
    let (Some(says), Some(layout)) = (says, news.layout) else { return Ok(None) };
    let gives = says.layout.as_ref().map_or(0, |layout| layout.new_bytes) / PAGE;
    if deltas::says_pages(layout, news.new) != Some(gives) || !deltas::is_needed(news.new, fetcher)
    {
        return Ok(None);
    }
    // As its maker made them: the instance may have a CD more.
    let old = Sources::open(&store.version(news.from)?, fetcher)?;
    let mut given = BTreeMap::new();
    let mut budget = Budget::new(gives, gives);
    let mut take = |part: &Part| {
        deltas::give(part, &old, fetcher, &mut budget, &mut given)?;
        Ok(true)
    };
    let before = says.layout.as_ref().map_or(0, |layout| layout.bytes);
    let (bytes, mut fallback) = each_part(news, says, before, pace, progress, &mut take)?;
    let whole = deltas::rebuild(layout, news.new, &old, &given, fetcher)?;
    if !whole && fallback.is_none() {
        fallback = Some(not_whole("what its parts give is not that version", progress));
    }
    Ok(Some(Given { pages: given.len() as u64, delta_bytes: bytes, fallback }))
}

/// Brings what is said by differences to the version that is here, where that is less than the pages
/// themselves; gives the bytes that it took, and what was wrong with them. Whatever does not fit is left
/// in `missing`.
fn fetch_delta(
    store: &Store,
    news: &News<'_>,
    fetcher: &Arc<Fetcher>,
    missing: &mut BTreeSet<ChunkId>,
    pace: &Pace<'_>,
    progress: &mut dyn FnMut(&str),
) -> Result<(u64, Option<String>)> {
    let from = news.from.to_string();
    let says = news.release.deltas.iter().find(|delta| delta.from == from);
    let is_less = |delta: &&DeltaSays| {
        delta.bytes < wire_bytes(store, missing)
            && u64::from(delta.parts) <= delta.bytes / PART_BYTES_LEAST + 2
    };
    let Some(says) = says.filter(is_less) else {
        return Ok((0, None));
    };
    let published = store.version(news.from)?;
    let (old, new) = (Sources::open(&published, fetcher)?, Sources::open(news.new, fetcher)?);
    let mut budget = Budget::new(pages_of(news.new), missing.len() as u64);
    let mut take = |part: &Part| {
        deltas::apply(part, &old, &new, fetcher, &mut budget, missing)?;
        Ok(!missing.is_empty())
    };
    each_part(news, says, 0, pace, progress, &mut take)
}

/// Reads the parts of a delta one by one, until `take` has enough; gives the bytes that it took, those before it
/// among them, and what was wrong.
fn each_part(
    news: &News<'_>,
    says: &DeltaSays,
    before: u64,
    pace: &Pace<'_>,
    progress: &mut dyn FnMut(&str),
    take: &mut dyn FnMut(&Part) -> Result<bool>,
) -> Result<(u64, Option<String>)> {
    let (mut bytes, mut wrong) = (before, None);
    for number in 0..says.parts {
        let name = Release::delta_document(&says.from, &news.release.id, number);
        let name = Release::place(news.trusted, &news.release.appliance, name);
        // Without it there is only more to fetch.
        let part = match news.trusted.read(&name, PART_BYTES_MAX as u64) {
            Ok(part) => part,
            Err(error) => {
                let is_away = matches!(error, TrustError::Away { .. });
                wrong = Some(error.to_string());
                if is_away {
                    break;
                }
                continue;
            }
        };
        bytes += part.len() as u64;
        if bytes > says.bytes.saturating_add(before) {
            wrong = Some("its parts are longer than it says".to_owned());
            break;
        }
        let part = match Part::decode(&part) {
            Ok(part) => part,
            Err(error) => {
                wrong = Some(error.to_string());
                continue;
            }
        };
        let goes_on = take(&part)?;
        progress(&format!(
            "fetching what is new in version {}: {} of {}",
            news.new.version,
            model::format_bytes(bytes),
            model::format_bytes(says.bytes + before)
        ));
        pace.keep();
        if !goes_on {
            break;
        }
    }
    Ok((bytes, wrong.map(|why| not_whole(&why, progress))))
}

fn not_whole(why: &str, progress: &mut dyn FnMut(&str)) -> String {
    let said = format!(
        "what differs could not be had whole, and the pages themselves were fetched: {why}"
    );
    progress(&said);
    said
}

/// What fetching these takes, as far as the index tells: bytes of the frames that they lie in.
pub(in crate::verbs) fn wire_bytes(store: &Store, ids: &BTreeSet<ChunkId>) -> u64 {
    let source = store.source();
    let places: BTreeSet<_> = ids.iter().filter_map(|id| source.place(id)).collect();
    places.iter().map(|place| u64::from(place.bytes)).sum()
}
