//! Making a repository, and opening one.
//!
//! Opening goes: configuration (is it one, is it ours to read), key check (before anything is
//! decrypted), probe (may this store be trusted; once for each host), index.

use std::path::PathBuf;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, RwLock};

use bytes::Bytes;
use chunk::ChunkSource;
use chunk::crypt::{Cipher, CipherKind, MasterKey, RepositoryId};
use chunk::header::Intent;
use objects::{ObjectError, Objects, ProbeError, probe};

use crate::config::{CONFIG_BYTES_MAX, Config};
use crate::index::{Index, LocalDir};
use crate::key::{KeyPlace, place_key_file, read_key_file};
use crate::layout::CONFIG;
use crate::pack_ciphers::PackCiphers;
use crate::sessions::Sessions;
use crate::{Inner, Repository, RepositoryError};

/// The grace age of a new repository, milliseconds: one hour. Whoever stores something must be
/// heard of (by the index objects that it writes) at least this often.
pub const GRACE_MS: u64 = 3_600_000;

/// How a repository is to be made.
#[derive(Debug, Clone)]
pub struct Init {
    /// The key of a private repository; none makes a public one. With
    /// [`KeyPlace::InRepository`], a key that an `init` which died left in the folder is taken
    /// instead: see [`Repository::key`].
    pub key: Option<MasterKey>,
    /// Where that key is kept.
    pub key_place: KeyPlace,
    /// How long something must be unreferenced before it can be deleted, milliseconds; holds
    /// for the repository's life. See [`GRACE_MS`].
    pub grace_ms: u64,
    /// As in [`Open::local_dir`].
    pub local_dir: Option<PathBuf>,
}

impl Default for Init {
    fn default() -> Self {
        Self { key: None, key_place: KeyPlace::Host, grace_ms: GRACE_MS, local_dir: None }
    }
}

/// How a repository is to be opened.
#[derive(Default, Clone)]
pub struct Open {
    /// The key; a private repository in a folder may hold it itself.
    pub key: Option<MasterKey>,
    /// A directory of this host in which copies of the index are kept, shared by all processes
    /// and all repositories; without one they are kept in memory.
    pub local_dir: Option<PathBuf>,
    /// Further places that may have a chunk that is missing or damaged here: a mirror, the
    /// maker's repository.
    pub sources: Vec<Arc<dyn ChunkSource>>,
}

impl Repository {
    /// Makes a repository in an empty store, and opens it.
    ///
    /// Crash: the configuration is written last; before it there is no repository.
    pub fn init(objects: Arc<dyn Objects>, init: &Init) -> Result<Self, RepositoryError> {
        let location = objects.location();
        if !objects.features().write {
            return Err(ObjectError::ReadOnly { location }.into());
        }
        if init.grace_ms == 0 {
            let detail = "it must be at least 1 ms".to_owned();
            return Err(RepositoryError::Invalid { what: "a grace age", detail });
        }
        match objects.head(CONFIG) {
            Ok(_) => return Err(RepositoryError::ExistsAlready { location }),
            Err(ObjectError::NotFound { .. }) => {}
            Err(error) => return Err(error.into()),
        }
        probe(&*objects).map_err(RepositoryError::Probe)?;
        let key = match (&init.key, init.key_place) {
            (Some(key), KeyPlace::InRepository) => {
                let folder = objects.folder().ok_or_else(|| RepositoryError::Invalid {
                    what: "a key inside the repository",
                    detail: "only a repository in a folder can hold its key".to_owned(),
                })?;
                Some(place_key_file(folder, key)?)
            }
            (key, _) => key.clone(),
        };
        let repository = RepositoryId(ambient::random());
        let cipher = cipher_of(key.as_ref(), repository);
        let config = Config {
            repository,
            cipher: cipher.kind(),
            key_check: cipher.key_check(),
            grace_ms: init.grace_ms,
        };
        match objects.put_new(CONFIG, Bytes::from(config.encode())) {
            Err(ObjectError::AlreadyExists { .. }) => {
                return Err(RepositoryError::ExistsAlready { location });
            }
            other => other?,
        }
        let local = match &init.local_dir {
            Some(dir) => Some(Arc::new(LocalDir::open(dir, repository)?)),
            None => None,
        };
        let open = Open { key, ..Open::default() };
        Self::assemble(objects, config, cipher, open, local, None)
    }

    /// Opens a repository.
    pub fn open(objects: Arc<dyn Objects>, open: Open) -> Result<Self, RepositoryError> {
        let location = objects.location();
        let bytes = match objects.get(CONFIG, CONFIG_BYTES_MAX) {
            Err(ObjectError::NotFound { .. }) => {
                return Err(RepositoryError::NotARepository { location });
            }
            other => other?,
        };
        // Which of a host's repositories it is, the object's name alone does not say.
        let placed = |error| match error {
            RepositoryError::Damaged { object, detail } => {
                RepositoryError::Damaged { object: format!("{location}/{object}"), detail }
            }
            RepositoryError::Header { object, error } => {
                RepositoryError::Header { object: format!("{location}/{object}"), error }
            }
            other => other,
        };
        let config = Config::decode(&bytes, Intent::Read).map_err(placed)?;
        let newer_to_writers = Config::decode(&bytes, Intent::Write).map_err(placed).err();
        let mut open = open;
        if config.cipher == CipherKind::Aes256Gcm && open.key.is_none() {
            open.key = match objects.folder() {
                Some(folder) => read_key_file(folder)?,
                None => None,
            };
            if open.key.is_none() {
                return Err(RepositoryError::NeedsKey { location });
            }
        }
        if config.cipher == CipherKind::None {
            open.key = None;
        }
        let cipher = cipher_of(open.key.as_ref(), config.repository);
        cipher.verify_key(&config.key_check).map_err(|_| RepositoryError::WrongKey { location })?;
        let local = match &open.local_dir {
            Some(dir) => Some(Arc::new(LocalDir::open(dir, config.repository)?)),
            None => None,
        };
        let read_only = (!may_be_written(&*objects, local.as_deref())?)
            .then(|| ObjectError::ReadOnly { location: objects.location() }.into());
        Self::assemble(objects, config, cipher, open, local, newer_to_writers.or(read_only))
    }

    fn assemble(
        objects: Arc<dyn Objects>,
        config: Config,
        cipher: Cipher,
        open: Open,
        local: Option<Arc<LocalDir>>,
        not_writable: Option<RepositoryError>,
    ) -> Result<Self, RepositoryError> {
        let inner = Inner {
            objects,
            config,
            cipher,
            key: open.key,
            sources: open.sources,
            index: RwLock::new(Index::open(local)),
            refreshing: Mutex::new(()),
            refreshes_begun: AtomicU64::new(0),
            refresh_succeeded: AtomicU64::new(0),
            pack_ciphers: PackCiphers::default(),
            sessions: Sessions::default(),
            unsure: Mutex::default(),
            opened: ambient::now(),
            not_writable,
        };
        let repository = Self { inner: Arc::new(inner) };
        repository.refresh()?;
        Ok(repository)
    }

    /// Fails, and says why, when nothing can be stored here.
    pub fn must_be_writable(&self) -> Result<(), RepositoryError> {
        match &self.inner.not_writable {
            None => Ok(()),
            Some(error) => Err(error.clone()),
        }
    }
}

/// Whether the store can be written; an error when it must not be. A host that has proven it
/// once does not again, as long as the configuration lies there with the same date: then it is
/// the same store.
fn may_be_written(
    objects: &dyn Objects,
    local: Option<&LocalDir>,
) -> Result<bool, RepositoryError> {
    if !objects.features().write {
        return Ok(false);
    }
    let store = match local {
        Some(_) => {
            let meta = objects.head(CONFIG)?;
            format!("{} {}", objects.location(), meta.modified_unix_ms)
        }
        None => String::new(),
    };
    if local.is_some_and(|local| local.was_probed(&store)) {
        return Ok(true);
    }
    match probe(objects) {
        Ok(()) => {
            if let Some(local) = local {
                local.remember_probe(&store);
            }
            Ok(true)
        }
        // Who may only read can still read.
        Err(ProbeError::Object(ObjectError::ReadOnly { .. } | ObjectError::Denied { .. })) => {
            Ok(false)
        }
        // A full store can still be read, and be emptied.
        Err(ProbeError::Object(ObjectError::NoSpace { .. })) => Ok(true),
        Err(error) => Err(RepositoryError::Probe(error)),
    }
}

fn cipher_of(key: Option<&MasterKey>, repository: RepositoryId) -> Cipher {
    match key {
        Some(key) => Cipher::aes256gcm(key, repository),
        None => Cipher::none(repository),
    }
}
