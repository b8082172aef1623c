//! The service: a state in a key-value store, and HTTP in front of it.
//!
//! ```text
//! socket ──http──▶ routes ──▶ state ──▶ kv ◀── steer
//!                     │
//!                     └─▶ openapi: the document is made of the same table
//! ```
//!
//! **Invariant:** all of it is by TLS, and every answer but those of `/v1/openapi.json`,
//! `/v1/authority.pem` and `/v1/login` needs a token or a host's certificate ([`crate::identity`]).
//! **Invariant:** any number of planes may serve one etcd state: nothing that matters is in memory.
//! *On a crash* an operation has happened or has not; the caller asks again.

mod ask;
mod door;
mod events;
mod followed;
mod gate;
mod http;
mod metrics;
mod openapi;
mod presence;
mod problem;
mod restore;
mod routes;
mod state;
mod steer;
#[cfg(test)]
mod steered;
mod token;

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use kv::Kv;
use tokio::sync::Semaphore;

use crate::client::{self, ClientError};
use crate::identity::{Authority, IdentityError, Secret};
use crate::login::Provider;
use state::Revocations;

pub(crate) use ask::{Ask, Request};
#[doc(hidden)]
pub use door::Bounds;
pub use http::Server;
pub use openapi::document;
pub use problem::Refused;
pub use restore::{RestoreError, restore};

/// Why there is no service.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// Its state cannot be opened.
    #[error("{0}")]
    State(#[from] kv::KvError),
    /// Its token cannot be used.
    #[error("{0}")]
    Identity(#[from] IdentityError),
    /// A file or a socket.
    #[error("{what}: {source}")]
    Io {
        /// What was done.
        what: String,
        /// What the system says.
        source: std::io::Error,
    },
}

impl ServeError {
    /// What to do next.
    pub fn hint(&self) -> &'static str {
        match self {
            Self::State(error) => error.hint(),
            Self::Identity(_) => "remove the token's file: a new one is made, and hosts join again",
            Self::Io { .. } => "is the address free, and may this user write there?",
        }
    }
}

/// A plane without its socket.
#[derive(Debug)]
pub struct Plane {
    kv: Arc<dyn Kv>,
    secret: Secret,
    authority: Authority,
    /// How long a host is counted on after its last beat.
    lease: Duration,
    /// What the file beside the token's says.
    revoked: Mutex<Revocations>,
    revoked_file: PathBuf,
    /// Who says who people are.
    login: Option<Provider>,
    /// Where hosts find it, when somebody has said so.
    found_at: OnceLock<String>,
    gate: gate::Gate,
    /// Places for those who read what happens.
    streams: Arc<Semaphore>,
    /// When answers were swept last.
    swept: Mutex<Option<ambient::Instant>>,
    /// Who writes the audit log.
    log: Mutex<()>,
    /// Who adds to what was used.
    metering: Mutex<()>,
    /// Hosts that are overloaded are not relieved.
    no_relief: AtomicBool,
    requests: AtomicU64,
    refused: AtomicU64,
    /// How often steering met an error.
    stumbled: AtomicU64,
    /// Keys of the state that could not be read when it was looked at last.
    unreadable: AtomicU64,
    /// All hosts, and when they were read: many ask who their peers are.
    hosts_seen: Mutex<Option<(ambient::Instant, HostsSeen)>>,
    /// Where all planes are, and when that was read.
    planes_seen: Mutex<(Option<ambient::Instant>, Arc<Vec<String>>)>,
}

type HostsSeen = Arc<Vec<(model::HostId, api::HostPrint)>>;

impl Plane {
    /// A plane on a state (see [`kv::open`]). The token that callers need is in a file, made when it
    /// is not there, which only its owner reads.
    pub fn open(
        state: impl Into<kv::Location>,
        token_file: &Path,
        lease: Duration,
    ) -> Result<Arc<Self>, ServeError> {
        Self::open_with(state, token_file, lease, None)
    }

    /// The same, where people may log in by a provider.
    pub fn open_with(
        state: impl Into<kv::Location>,
        token_file: &Path,
        lease: Duration,
        login: Option<Provider>,
    ) -> Result<Arc<Self>, ServeError> {
        let token = token::read_or_make(token_file)
            .map_err(|source| ServeError::Io { what: token_file.display().to_string(), source })?;
        let secret = Secret::parse(&token)?;
        let authority = Authority::of(&secret)?;
        let mut revoked_file = token_file.as_os_str().to_owned();
        revoked_file.push(".revoked");
        let revoked_file = PathBuf::from(revoked_file);
        let revoked = state::read_revocations(&revoked_file).map_err(|source| ServeError::Io {
            what: revoked_file.display().to_string(),
            source,
        })?;
        let kv = kv::open(state)?;
        restore::is_whole(&*kv)?;
        let plane = Self::on(kv, secret, authority, lease);
        let plane = Self { revoked: Mutex::new(revoked), revoked_file, login, ..plane };
        plane.keep_revocations().map_err(|refused| ServeError::Io {
            what: refused.detail,
            source: std::io::Error::other(refused.hint),
        })?;
        Ok(Arc::new(plane))
    }

    fn on(kv: Arc<dyn Kv>, secret: Secret, authority: Authority, lease: Duration) -> Self {
        let (revoked, revoked_file, swept, log, metering, hosts_seen) = Default::default();
        let (login, found_at, gate, planes_seen) = Default::default();
        let (no_relief, requests, refused, stumbled, unreadable) = Default::default();
        Self {
            kv,
            secret,
            authority,
            lease,
            revoked,
            revoked_file,
            login,
            found_at,
            gate,
            streams: Arc::new(Semaphore::new(events::STREAMS_MAX)),
            swept,
            log,
            metering,
            no_relief,
            requests,
            refused,
            stumbled,
            unreadable,
            hosts_seen,
            planes_seen,
        }
    }

    /// Whether instances leave hosts that are overloaded, while this plane steers; they do, unless
    /// this says otherwise.
    pub fn relieve(&self, whether: bool) {
        self.no_relief.store(!whether, Ordering::Relaxed);
    }

    fn relieves(&self) -> bool {
        !self.no_relief.load(Ordering::Relaxed)
    }

    /// Hosts find it there. Without a word they find it where it listens, when that is one address.
    pub fn is_at(&self, url: &str) -> Result<(), ClientError> {
        client::place(url)?;
        self.found_at.get_or_init(|| url.trim_end_matches('/').to_owned());
        Ok(())
    }

    /// What lets a new host join, and nothing else.
    pub fn join_token(&self) -> String {
        self.secret.join_token(&self.authority)
    }

    /// What names its authority: whoever logs in knows the plane by it.
    pub fn fingerprint(&self) -> String {
        self.authority.fingerprint()
    }
}
