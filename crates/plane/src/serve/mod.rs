//! The service: a state in a key-value store, and HTTP in front of it.
//!
//! ```text
//! socket ──http──▶ routes ──▶ state ──▶ kv ◀── steer
//!                     │
//!                     └─▶ openapi: the document is made of the same table
//! ```
//!
//! **Invariant:** every answer but `/v1/openapi.json` needs the token. There is no TLS yet, so it
//! listens on the loopback only and refuses anything else.
//! **Invariant:** any number of planes may serve one etcd state: nothing that matters is in memory.
//! *On a crash* an operation has happened or has not; the caller asks again.

mod http;
mod openapi;
mod problem;
mod routes;
mod state;
mod steer;
mod token;

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use kv::Kv;

pub use http::Server;
pub use openapi::document;
pub use problem::Refused;

/// Why there is no service.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// Its state cannot be opened.
    #[error("{0}")]
    State(#[from] kv::KvError),
    /// An address that others can reach.
    #[error("{address} is not on the loopback, and what is said there would not be encrypted")]
    Exposed {
        /// What was asked for.
        address: SocketAddr,
    },
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
            Self::Exposed { .. } => "listen on 127.0.0.1 or [::1]",
            Self::Io { .. } => "is the address free, and may this user write there?",
        }
    }
}

/// A plane without its socket.
#[derive(Debug)]
pub struct Plane {
    kv: Arc<dyn Kv>,
    token: String,
    /// How long a host is counted on after its last beat.
    lease: Duration,
    requests: AtomicU64,
    refused: AtomicU64,
}

impl Plane {
    /// A plane on a state (see [`kv::open`]). The token that callers need is in a file, made when it
    /// is not there, which only its owner reads.
    pub fn open(state: &str, token_file: &Path, lease: Duration) -> Result<Arc<Self>, ServeError> {
        let token = token::read_or_make(token_file)
            .map_err(|source| ServeError::Io { what: token_file.display().to_string(), source })?;
        let (requests, refused) = Default::default();
        Ok(Arc::new(Self { kv: kv::open(state)?, token, lease, requests, refused }))
    }
}
