//! Chunks from other hosts: what a host has in its cache it gives to hosts of the same plane.
//!
//! ```text
//! fetcher ──▶ Source ──ids──▶ Server of a peer: its cache
//!               └── what no peer gave ──▶ the source beneath: a repository
//! ```
//!
//! Both ends show a certificate of the plane's authority. The protocol is a few lines of our own over
//! TLS ([`wire`]): ids there, chunks back. (HTTP would bring an asynchronous runtime into every shim,
//! which has none.) docs/format/peer.md has its bytes.
//!
//! *Invariants.*
//! * A chunk of a peer's is what its id says, or it has not come.
//! * A peer is given what it names, and nothing that lies beside it: who knows no id learns nothing.
//! * A peer that is away, slow or wrong costs a bounded time once, and then none for a while: the
//!   repository beneath has everything.

mod client;
mod pool;
mod server;
mod timed;
pub mod wire;

pub use client::Source;
pub use pool::{Peer, Peers};
pub use server::Server;

use std::sync::Arc;

use rustls::RootCertStore;
use rustls::crypto::aws_lc_rs;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

/// What both ends say that they speak.
const PROTOCOL: &[u8] = b"collective-peer/1";

/// Why there is no peer to be had, or to be.
#[derive(Debug, thiserror::Error)]
pub enum PeerError {
    /// A key or a certificate cannot be used.
    #[error("no TLS between hosts: {0}")]
    Identity(String),
    /// The operating system refused.
    #[error("{what}: {source}")]
    Io {
        /// What was done.
        what: &'static str,
        source: std::io::Error,
    },
}

/// Who a host is to its peers; all of it PEM.
#[derive(Clone, PartialEq, Eq)]
pub struct Identity {
    pub key: String,
    pub certificate: String,
    pub authority: String,
}

/// The same, read.
struct Read {
    key: PrivateKeyDer<'static>,
    certificate: CertificateDer<'static>,
    roots: Arc<RootCertStore>,
}

impl Identity {
    fn read(&self) -> Result<Read, PeerError> {
        let no = |error: &dyn std::fmt::Display| PeerError::Identity(error.to_string());
        let key = PrivateKeyDer::from_pem_slice(self.key.as_bytes()).map_err(|e| no(&e))?;
        let certificate =
            CertificateDer::from_pem_slice(self.certificate.as_bytes()).map_err(|e| no(&e))?;
        let authority =
            CertificateDer::from_pem_slice(self.authority.as_bytes()).map_err(|e| no(&e))?;
        let mut roots = RootCertStore::empty();
        roots.add(authority).map_err(|e| no(&e))?;
        Ok(Read { key, certificate, roots: Arc::new(roots) })
    }
}

fn provider() -> Arc<rustls::crypto::CryptoProvider> {
    Arc::new(aws_lc_rs::default_provider())
}
