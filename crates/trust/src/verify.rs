//! A host's side: from a root that a person trusts to documents that may be believed; and a
//! publisher's, who has to believe what it signs on.
//!
//! *Invariants.* What is believed follows from what was believed before: it is verified against that,
//! in a folder of its own, and then takes its place as a whole ([`crate::state`]). Those who ask take
//! turns. Who only wants what was believed last asks nobody, and waits for nobody.
//!
//! *Dates.* They are looked at here and not by `tough`, by the one clock that this program has: so a
//! publisher, who is about to sign again what has ended, can be let through with everything else
//! verified.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use jiff::Timestamp;
use objects::Objects;
use tough::schema::{
    Metafile, Role, RoleType, Root, Signed, Snapshot, Targets, Timestamp as Current,
};
use tough::{ExpirationEnforcement, Limits, Repository, RepositoryLoader};

use crate::clock::{instant, now, unix_ms};
use crate::delegates;
use crate::documents::Documents;
use crate::key::Key;
use crate::publish::{may_sign, target_name};
use crate::roots::{self, fingerprint};
use crate::state::{self, State, folder};
use crate::store::{
    ROOT_BYTES_MAX, SNAPSHOT_BYTES_MAX, Source, TARGETS_BYTES_MAX, TIMESTAMP_BYTES_MAX,
    documents_url, metadata_url,
};
use crate::{Result, TrustError, wait};

/// How current something is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Freshness {
    /// Whether it was asked for now; else it is what this host had.
    pub asked: bool,
    /// Why it is what this host had.
    pub why: Option<String>,
    /// When this host last asked, milliseconds since the Unix epoch.
    pub asked_unix_ms: u64,
    /// When the first of its signatures ends, milliseconds since the Unix epoch.
    pub expires_unix_ms: u64,
}

/// Who looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Viewer {
    Host,
    Publisher,
}

/// A maker's signed state that was verified.
#[derive(Debug)]
pub struct Trusted {
    pub(crate) root: Signed<Root>,
    pub(crate) timestamp: Signed<Current>,
    pub(crate) snapshot: Signed<Snapshot>,
    pub(crate) targets: Signed<Targets>,
    documents: Documents,
    viewer: Viewer,
    freshness: Freshness,
}

impl Trusted {
    /// Begins to trust a maker: from the root with this fingerprint (hexadecimal digits of the
    /// SHA-256 of its bytes), into a new folder.
    pub fn begin(objects: &Arc<dyn Objects>, root: &str, dir: &Path) -> Result<Self> {
        write_first(objects, root, dir)?;
        Self::refresh(objects, dir)
    }

    /// Asks the maker for news, and believes what follows from what was believed before.
    pub fn refresh(objects: &Arc<dyn Objects>, dir: &Path) -> Result<Self> {
        Self::ask(objects, dir, Viewer::Host)
    }

    /// As whoever publishes sees it, in a folder of its own; begun with the first root of the store.
    /// What has ended is no error, as it is about to be signed
    /// again; nor is a clock that went back. Signatures, and that nothing is older than what was seen
    /// before, are looked at as by everybody. A rotation that was interrupted is seen as what it is: the
    /// new root, and what the old one's keys have signed.
    pub fn to_publish(objects: &Arc<dyn Objects>, dir: &Path) -> Result<Self> {
        if State::read(dir)?.is_none() {
            let first = roots::fingerprints(&**objects)?.remove(0);
            write_first(objects, &first, dir)?;
        }
        Self::ask(objects, dir, Viewer::Publisher)
    }

    fn ask(objects: &Arc<dyn Objects>, dir: &Path, viewer: Viewer) -> Result<Self> {
        let _lock = lock(dir)?;
        let before = State::read(dir)?;
        let latest = before.as_ref().and_then(|state| state.latest);
        if viewer == Viewer::Host {
            clock(latest)?;
        }
        let begin = match &before {
            Some(state) => state.root.clone(),
            None => state::first(dir)?,
        };
        let asking = Asking { objects, dir, before: before.as_ref(), begin: &begin };
        let (loaded, newest) = match asking.load(u64::MAX) {
            Err(forged @ TrustError::Forged { .. }) if viewer == Viewer::Publisher => {
                asking.interrupted(forged)?
            }
            other => other.map(|loaded| (loaded, None))?,
        };
        let (snapshot, mut targets) = (loaded.snapshot().clone(), loaded.targets().clone());
        let read = |name: &str, meta: &Metafile| delegates::fetch(&**objects, name, meta);
        delegates::attach(&mut targets, &snapshot, read)?;
        let state = State {
            root: loaded.root().clone(),
            timestamp: loaded.timestamp().clone(),
            snapshot,
            targets,
            asked_unix_ms: ambient::unix_ms(),
            latest: Some(instant()),
        };
        let mut trusted = Self::of(state.clone(), dir, Some(objects.clone()), viewer, None);
        trusted.in_time()?;
        state.write(dir)?;
        let signed = trusted.targets.signed.targets_iter();
        trusted.documents.keep_only(signed.map(|(_, target)| &*target.hashes.sha256));
        if let Some(newest) = newest {
            trusted.root = newest;
        }
        Ok(trusted)
    }

    /// What this host believed last, without asking anybody. Signatures that have ended meanwhile
    /// are an error, as they are when the maker is asked.
    pub fn kept(dir: &Path, why: Option<String>) -> Result<Self> {
        let state = State::read(dir)?.ok_or_else(|| TrustError::Away {
            location: "the maker".to_owned(),
            detail: "nothing of it was believed yet".to_owned(),
        })?;
        clock(state.latest)?;
        let trusted = Self::of(state, dir, None, Viewer::Host, why);
        trusted.in_time()?;
        Ok(trusted)
    }

    fn of(
        state: State,
        dir: &Path,
        objects: Option<Arc<dyn Objects>>,
        viewer: Viewer,
        why: Option<String>,
    ) -> Self {
        let State { root, timestamp, snapshot, targets, asked_unix_ms, .. } = state;
        let freshness =
            Freshness { asked: objects.is_some(), why, asked_unix_ms, expires_unix_ms: 0 };
        let folder = dir.join("documents");
        let documents = Documents { folder, objects, fetched_bytes: AtomicU64::new(0) };
        let mut trusted = Self { root, timestamp, snapshot, targets, documents, viewer, freshness };
        let first = trusted.expires().into_iter().map(|(_, ends)| unix_ms(ends)).min();
        trusted.freshness.expires_unix_ms = first.unwrap_or(0);
        trusted
    }

    fn expires(&self) -> [(RoleType, Timestamp); 4] {
        [
            (RoleType::Root, self.root.signed.expires()),
            (RoleType::Timestamp, self.timestamp.signed.expires()),
            (RoleType::Snapshot, self.snapshot.signed.expires()),
            (RoleType::Targets, self.targets.signed.expires()),
        ]
    }

    /// An error once one of its signatures has ended.
    fn in_time(&self) -> Result<()> {
        let now = now();
        match self.expires().into_iter().find(|(_, ends)| *ends <= now) {
            Some((role, ends)) if self.viewer == Viewer::Host => {
                Err(TrustError::Expired { role: role.to_string(), expired: ends.to_string() })
            }
            _ => Ok(()),
        }
    }

    /// Whether what is there is not signed by the keys of the newest root: somebody was interrupted
    /// who rotated them.
    pub(crate) fn is_unfinished(&self) -> bool {
        self.root.signed.verify_role(&self.timestamp).is_err()
    }

    /// Forgets that this host's clock was later once. Only a person can say that it was wrong then.
    pub fn accept_clock(dir: &Path) -> Result<()> {
        let _lock = lock(dir)?;
        state::forget_clock(dir)
    }

    /// Reads a signed document of at most `bytes_max` bytes.
    pub fn read(&self, name: &str, bytes_max: u64) -> Result<Vec<u8>> {
        self.in_time()?;
        let target = target_name(name)?;
        let found = delegates::find(&self.targets, &target);
        let found = found.ok_or_else(|| TrustError::NoDocument { name: name.to_owned() })?;
        let (signed, by) = found;
        if let Some(role) = by
            && let Some(list) = &role.targets
            && self.viewer == Viewer::Host
            && list.signed.expires <= now()
        {
            let (role, expired) = (role.name.clone(), list.signed.expires.to_string());
            return Err(TrustError::Expired { role, expired });
        }
        if signed.length > bytes_max {
            return Err(TrustError::Format {
                detail: format!("{name} has more than {bytes_max} bytes"),
            });
        }
        self.documents.read(name, &signed.hashes.sha256, signed.length)
    }

    /// What reading documents has brought from the maker since this was asked, bytes.
    pub fn fetched_bytes(&self) -> u64 {
        self.documents.fetched_bytes.load(Ordering::Relaxed)
    }

    /// The names of all signed documents, ordered.
    pub fn names(&self) -> Vec<String> {
        let all = self.targets.signed.targets_iter();
        let mut names: Vec<String> = all.map(|(name, _)| name.resolved().to_owned()).collect();
        names.sort();
        names.dedup();
        names
    }

    /// Whether a document is signed.
    pub fn has(&self, name: &str) -> bool {
        target_name(name).is_ok_and(|name| delegates::find(&self.targets, &name).is_some())
    }

    /// Whether these keys are enough for the maker's own list.
    pub(crate) fn may_sign_own(&self, keys: &[Key]) -> Result<bool> {
        may_sign(&self.root.signed, RoleType::Targets, keys)
    }

    /// How current this is.
    pub fn freshness(&self) -> &Freshness {
        &self.freshness
    }

    /// Whether it was signed after `other`, of the same maker.
    pub fn is_newer_than(&self, other: &Self) -> bool {
        self.timestamp.signed.version > other.timestamp.signed.version
    }

    /// The number of its root.
    pub fn root_version(&self) -> u64 {
        self.root.signed.version.get()
    }

    /// The public keys of each role (`root`, `targets`, `snapshot`, `timestamp`) and how many of
    /// them must sign.
    pub fn roles(&self) -> BTreeMap<String, (Vec<Vec<u8>>, u64)> {
        let root = &self.root.signed;
        let of = |role: RoleType| {
            let public = root.keys(role).filter_map(|key| match key {
                tough::schema::key::Key::Ed25519 { keyval, .. } => Some(keyval.public.to_vec()),
                _ => None,
            });
            let threshold = root.roles.get(&role).map_or(0, |keys| keys.threshold.get());
            (role.to_string(), (public.collect(), threshold))
        };
        [RoleType::Root, RoleType::Targets, RoleType::Snapshot, RoleType::Timestamp]
            .into_iter()
            .map(of)
            .collect()
    }
}

/// Keeps the root with this fingerprint as the one that a person trusted.
fn write_first(objects: &Arc<dyn Objects>, wanted: &str, dir: &Path) -> Result<()> {
    let wanted = wanted.to_ascii_lowercase();
    let (mut first, mut newest) = (None, String::new());
    roots::each(&**objects, |bytes| {
        newest = fingerprint(bytes);
        if newest == wanted {
            first = Some(bytes.clone());
        }
    })?;
    let wrong = || TrustError::OtherRoot { location: objects.location(), found: newest.clone() };
    state::write_first(dir, &first.ok_or_else(wrong)?)
}

/// An error when the clock was later before.
fn clock(latest: Option<Timestamp>) -> Result<()> {
    let now = instant();
    match latest {
        Some(before) if now < before => {
            Err(TrustError::Clock { now: now.to_string(), before: before.to_string() })
        }
        _ => Ok(()),
    }
}

/// Somebody asks, and has the lock.
struct Asking<'a> {
    objects: &'a Arc<dyn Objects>,
    dir: &'a Path,
    before: Option<&'a State>,
    /// The root to begin with: the newest that was believed, else the first.
    begin: &'a Signed<Root>,
}

impl Asking<'_> {
    /// Verifies what is there against what was believed before; of roots only those up to a number
    /// are looked at.
    fn load(&self, roots_max: u64) -> Result<Repository> {
        let work = self.dir.join("asking");
        let _ = fs::remove_dir_all(&work);
        folder(&work)?;
        if let Some(before) = self.before {
            before.show(&work)?;
        }
        let loaded = self.load_in(&work, roots_max);
        let _ = fs::remove_dir_all(&work);
        loaded
    }

    fn load_in(&self, work: &Path, roots_max: u64) -> Result<Repository> {
        let root = serde_json::to_vec(self.begin)
            .map_err(|error| TrustError::Format { detail: error.to_string() })?;
        let limits = Limits {
            max_root_size: ROOT_BYTES_MAX,
            max_targets_size: TARGETS_BYTES_MAX,
            max_timestamp_size: TIMESTAMP_BYTES_MAX,
            max_snapshot_size: SNAPSHOT_BYTES_MAX,
            max_root_updates: roots::ROOTS_MAX,
        };
        let loader = RepositoryLoader::new(&root, metadata_url(), documents_url())
            .transport(Source::new(self.objects.clone(), roots_max))
            .limits(limits)
            .datastore(work)
            // We look at dates ourselves: see the module's documentation.
            .expiration_enforcement(ExpirationEnforcement::Unsafe);
        wait(loader.load())?.map_err(|error| TrustError::of(error, &self.objects.location()))
    }

    /// After a rotation that was interrupted: the newest root, and what an older one's keys signed.
    fn interrupted(&self, forged: TrustError) -> Result<(Repository, Option<Signed<Root>>)> {
        let mut chain = roots::after(&**self.objects, self.begin)?;
        let Some(newest) = chain.pop() else { return Err(forged) };
        for known in chain.iter().rev().chain([self.begin]) {
            match self.load(known.signed.version.get()) {
                Err(TrustError::Forged { .. }) => {}
                other => return other.map(|loaded| (loaded, Some(newest))),
            }
        }
        Err(forged)
    }
}

fn lock(dir: &Path) -> Result<fs::File> {
    let path = dir.join("lock");
    let file = fs::File::options().create(true).append(true).open(&path);
    let file = file.map_err(TrustError::io(path.display()))?;
    file.lock().map_err(TrustError::io(path.display()))?;
    Ok(file)
}
