//! A host's side: from a root that a person trusts to documents that may be believed.
//!
//! What has been believed lies in a folder of the host:
//!
//! ```text
//! first.json       the root that a person trusted
//! state/           what was believed last: root, timestamp, snapshot, targets, and the latest time
//! state/kept/      metadata and documents as they were read, for when the maker is away
//! lock             held while the state is replaced
//! ```
//!
//! *Invariants.* The state is replaced as a whole, after everything in it was verified against the
//! state before it. Two processes take turns.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::Arc;

use aws_lc_rs::digest::{SHA256, digest};
use objects::Objects;
use rustix::fs::{CWD, RenameFlags};
use tough::schema::RoleType;
use tough::{ExpirationEnforcement, IntoVec, Limits, Repository, RepositoryLoader};

use crate::clock::{now, unix_ms};
use crate::key::hex;
use crate::publish::{folder, newest_root, target_name};
use crate::store::{OBJECT_BYTES_MAX, Source, documents_url, metadata_url, write};
use crate::{Result, TrustError, wait};

const FIRST: &str = "first.json";
const STATE: &str = "state";
const KEPT: &str = "kept";

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

/// A maker's signed state that was verified.
#[derive(Debug)]
pub struct Trusted {
    repository: Repository,
    freshness: Freshness,
}

/// The fingerprints of the roots of a store, the oldest first. Nothing is believed by this: a person
/// compares the last one with what the maker says elsewhere.
pub fn fingerprints(objects: &dyn Objects) -> Result<Vec<String>> {
    Ok(newest_root(objects)?.iter().map(|(_, bytes)| fingerprint(bytes)).collect())
}

fn fingerprint(root: &[u8]) -> String {
    hex(digest(&SHA256, root).as_ref())
}

impl Trusted {
    /// Begins to trust a maker: from the root with this fingerprint (hexadecimal digits of the
    /// SHA-256 of its bytes), into a new folder.
    pub fn begin(objects: &Arc<dyn Objects>, root: &str, dir: &Path) -> Result<Self> {
        let roots = newest_root(&**objects)?;
        let wanted = root.to_ascii_lowercase();
        let found = roots.iter().find(|(_, bytes)| fingerprint(bytes) == wanted);
        let Some((_, first)) = found else {
            let newest = roots.last().map_or_else(String::new, |(_, bytes)| fingerprint(bytes));
            return Err(TrustError::OtherRoot { location: objects.location(), found: newest });
        };
        folder(dir)?;
        folder(&dir.join(STATE).join(KEPT))?;
        write(&dir.join(FIRST), first).map_err(TrustError::io(dir.display()))?;
        Self::refresh(objects, dir)
    }

    /// Asks the maker for news, and believes what follows from what was believed before.
    pub fn refresh(objects: &Arc<dyn Objects>, dir: &Path) -> Result<Self> {
        let _lock = lock(dir)?;
        let location = objects.location();
        let work = dir.join("state.new");
        let _ = fs::remove_dir_all(&work);
        copy(&dir.join(STATE), &work)?;
        let loaded = load(&root_of(dir)?, &work, Some(objects.clone()), &location);
        let repository = match loaded {
            Ok(repository) => repository,
            Err(error) => {
                let _ = fs::remove_dir_all(&work);
                return Err(error);
            }
        };
        write(&work.join("asked"), ambient::unix_ms().to_string().as_bytes())
            .map_err(TrustError::io(work.display()))?;
        drop(repository);
        rustix::fs::renameat_with(CWD, &work, CWD, dir.join(STATE), RenameFlags::EXCHANGE)
            .map_err(|error| TrustError::io(work.display())(error.into()))?;
        let _ = fs::File::open(dir).and_then(|folder| folder.sync_all());
        ambient::step("trust: believed");
        let _ = fs::remove_dir_all(&work);
        // Opened where it stays: it goes on reading documents, and keeps them.
        let repository = load(&root_of(dir)?, &dir.join(STATE), Some(objects.clone()), &location)?;
        Ok(Self::of(repository, true, None, dir))
    }

    /// What this host believed last, without asking anybody. Signatures that have ended meanwhile
    /// are an error, as they are when the maker is asked.
    pub fn kept(dir: &Path, why: Option<String>) -> Result<Self> {
        let _lock = lock(dir)?;
        let repository = load(&root_of(dir)?, &dir.join(STATE), None, "this host")?;
        Ok(Self::of(repository, false, why, dir))
    }

    fn of(repository: Repository, asked: bool, why: Option<String>, dir: &Path) -> Self {
        let said = fs::read_to_string(dir.join(STATE).join("asked")).unwrap_or_default();
        let expires = [
            repository.root().signed.expires,
            repository.timestamp().signed.expires,
            repository.snapshot().signed.expires,
            repository.targets().signed.expires,
        ];
        let freshness = Freshness {
            asked,
            why,
            asked_unix_ms: said.trim().parse().unwrap_or(0),
            expires_unix_ms: expires.into_iter().map(unix_ms).min().unwrap_or(0),
        };
        Self { repository, freshness }
    }

    /// Forgets that this host's clock was later once. Only a person can say that it was wrong then.
    pub fn accept_clock(dir: &Path) -> Result<()> {
        let _lock = lock(dir)?;
        match fs::remove_file(dir.join(STATE).join("latest_known_time.json")) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(TrustError::io(dir.display())(error))
            }
            _ => Ok(()),
        }
    }

    /// Reads a signed document of at most `bytes_max` bytes.
    pub fn read(&self, name: &str, bytes_max: u64) -> Result<Vec<u8>> {
        let target = target_name(name)?;
        let missing = || TrustError::NoDocument { name: name.to_owned() };
        let signed = self.repository.targets().signed.find_target(&target, false);
        if signed.map_err(|_| missing())?.length > bytes_max {
            return Err(TrustError::Format {
                detail: format!("{name} has more than {bytes_max} bytes"),
            });
        }
        let of = |error| TrustError::of(error, "the maker");
        wait(async {
            match self.repository.read_target(&target).await.map_err(of)? {
                Some(stream) => stream.into_vec().await.map_err(of),
                None => Err(missing()),
            }
        })?
    }

    /// The names of all signed documents, ordered.
    pub fn names(&self) -> Vec<String> {
        let all = self.repository.targets().signed.targets.keys();
        let mut names: Vec<String> = all.map(|name| name.resolved().to_owned()).collect();
        names.sort();
        names
    }

    /// How current this is.
    pub fn freshness(&self) -> &Freshness {
        &self.freshness
    }

    /// The number of its root.
    pub fn root_version(&self) -> u64 {
        self.repository.root().signed.version.get()
    }

    /// The public keys of each role (`root`, `targets`, `snapshot`, `timestamp`) and how many of
    /// them must sign.
    pub fn roles(&self) -> BTreeMap<String, (Vec<Vec<u8>>, u64)> {
        let root = &self.repository.root().signed;
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

    pub(crate) fn repository(&self) -> &Repository {
        &self.repository
    }
}

/// The root to begin with: the newest that was believed, else the first.
fn root_of(dir: &Path) -> Result<Vec<u8>> {
    let first = dir.join(FIRST);
    let newest = dir.join(STATE).join("root.json");
    fs::read(&newest).or_else(|_| fs::read(&first)).map_err(TrustError::io(first.display()))
}

fn load(
    root: &[u8],
    state: &Path,
    objects: Option<Arc<dyn Objects>>,
    location: &str,
) -> Result<Repository> {
    let source = Source { objects, kept: state.join(KEPT) };
    let limits = Limits {
        max_root_size: 1 << 20,
        max_targets_size: OBJECT_BYTES_MAX,
        max_timestamp_size: 64 << 10,
        max_snapshot_size: 1 << 20,
        max_root_updates: 1024,
    };
    let loader = RepositoryLoader::new(&root, metadata_url(), documents_url())
        .transport(source)
        .limits(limits)
        .datastore(state)
        .expiration_enforcement(ExpirationEnforcement::Safe);
    wait(loader.load())?.map_err(|error| match TrustError::of(error, location) {
        TrustError::Expired { role, .. } => {
            TrustError::Expired { role, expired: now().to_string() }
        }
        other => other,
    })
}

fn lock(dir: &Path) -> Result<fs::File> {
    let path = dir.join("lock");
    let file = fs::File::options().create(true).append(true).open(&path);
    let file = file.map_err(TrustError::io(path.display()))?;
    file.lock().map_err(TrustError::io(path.display()))?;
    Ok(file)
}

/// Copies a state; documents and metadata that were kept are linked.
fn copy(from: &Path, to: &Path) -> Result<()> {
    folder(&to.join(KEPT))?;
    for (source, target) in [(from.to_owned(), to.to_owned()), (from.join(KEPT), to.join(KEPT))] {
        for entry in fs::read_dir(&source).map_err(TrustError::io(source.display()))? {
            let path = entry.map_err(TrustError::io(source.display()))?.path();
            let Some(name) = path.file_name().filter(|_| path.is_file()) else { continue };
            fs::copy(&path, target.join(name)).map_err(TrustError::io(path.display()))?;
        }
    }
    Ok(())
}
