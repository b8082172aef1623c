//! The end that gives: a host's agent.
//!
//! *Bounds:* [`CONNECTIONS_MAX`] callers at once, each a thread; [`SHAKE`], [`IDLE`] and [`PROMPT`] are how
//! long one may take.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use chunk::Verified;
use model::ChunkId;
use rustls::server::WebPkiClientVerifier;
use rustls::{ServerConfig, ServerConnection, StreamOwned};
use rustls_pki_types::CertificateDer;

use crate::timed::Timed;
use crate::wire::{self, HEADER_BYTES};
use crate::{Identity, PROTOCOL, PeerError, provider};

const CONNECTIONS_MAX: usize = 64;
const IDLE: Duration = Duration::from_secs(60);
/// Until a caller has shown who it is.
const SHAKE: Duration = Duration::from_secs(5);
/// Until it has said what it wants, and taken it.
const PROMPT: Duration = Duration::from_secs(30);

/// What a host gives: a chunk that it has.
type Has = dyn Fn(&ChunkId) -> Option<Verified> + Send + Sync;
/// Whether a certificate of the authority's is one of a host that still counts.
type Counts = dyn Fn(&CertificateDer<'_>) -> bool + Send + Sync;

/// Serves until it is dropped.
pub struct Server {
    address: SocketAddr,
    config: Arc<RwLock<Arc<ServerConfig>>>,
    over: Arc<AtomicBool>,
    sent: Arc<AtomicU64>,
}

impl Server {
    /// Listens at an address (port 0: any free one).
    pub fn start(
        address: SocketAddr,
        identity: &Identity,
        has: impl Fn(&ChunkId) -> Option<Verified> + Send + Sync + 'static,
        counts: impl Fn(&CertificateDer<'_>) -> bool + Send + Sync + 'static,
    ) -> Result<Self, PeerError> {
        let (has, counts): (Arc<Has>, Arc<Counts>) = (Arc::new(has), Arc::new(counts));
        let io = |what| move |source| PeerError::Io { what, source };
        let listener = TcpListener::bind(address).map_err(io("cannot listen for peers"))?;
        let address = listener.local_addr().map_err(io("cannot listen for peers"))?;
        let config = Arc::new(RwLock::new(config(identity)?));
        let over = Arc::new(AtomicBool::new(false));
        let sent = Arc::new(AtomicU64::new(0));
        let server =
            Self { address, config: config.clone(), over: over.clone(), sent: sent.clone() };
        std::thread::Builder::new()
            .name("peers".to_owned())
            .spawn(move || accept(&listener, &config, &over, &sent, &has, &counts))
            .map_err(io("cannot begin a thread for peers"))?;
        Ok(server)
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Bytes of replies with something in them that it has sent; they go on being counted.
    pub fn sent_bytes(&self) -> Arc<AtomicU64> {
        self.sent.clone()
    }

    /// Shows this one from the next connection on.
    pub fn renew(&self, identity: &Identity) -> Result<(), PeerError> {
        let new = config(identity)?;
        *self.config.write().unwrap_or_else(PoisonError::into_inner) = new;
        Ok(())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
        // Wakes who waits for a caller.
        let mut to = self.address;
        if to.ip().is_unspecified() {
            to.set_ip(std::net::Ipv4Addr::LOCALHOST.into());
        }
        let _ = TcpStream::connect_timeout(&to, Duration::from_millis(500));
    }
}

fn config(identity: &Identity) -> Result<Arc<ServerConfig>, PeerError> {
    let read = identity.read()?;
    let no = |error: &dyn std::fmt::Display| PeerError::Identity(error.to_string());
    let hosts = WebPkiClientVerifier::builder_with_provider(read.roots, provider())
        .build()
        .map_err(|error| no(&error))?;
    let mut config = ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(|error| no(&error))?
        .with_client_cert_verifier(hosts)
        .with_single_cert(vec![read.certificate], read.key)
        .map_err(|error| no(&error))?;
    config.alpn_protocols = vec![PROTOCOL.to_vec()];
    Ok(Arc::new(config))
}

fn accept(
    listener: &TcpListener,
    config: &RwLock<Arc<ServerConfig>>,
    over: &Arc<AtomicBool>,
    sent: &Arc<AtomicU64>,
    has: &Arc<Has>,
    counts: &Arc<Counts>,
) {
    let places = Arc::new(AtomicUsize::new(0));
    loop {
        let accepted = listener.accept();
        if over.load(Ordering::Relaxed) {
            return;
        }
        let Ok((socket, _)) = accepted else {
            // Out of descriptors: some will be let go.
            ambient::sleep(Duration::from_millis(50));
            continue;
        };
        if places.fetch_add(1, Ordering::Relaxed) >= CONNECTIONS_MAX {
            // It asks somebody else.
            places.fetch_sub(1, Ordering::Relaxed);
            continue;
        }
        let config = config.read().unwrap_or_else(PoisonError::into_inner).clone();
        let (has, counts) = (has.clone(), counts.clone());
        let (their_places, their_over, sent) = (places.clone(), over.clone(), sent.clone());
        let spawned = std::thread::Builder::new().name("peer".to_owned()).spawn(move || {
            // A caller that hangs up is no concern of ours.
            let _ = serve(socket, config, &*has, &*counts, &their_over, &sent);
            their_places.fetch_sub(1, Ordering::Relaxed);
        });
        if spawned.is_err() {
            places.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

fn serve(
    socket: TcpStream,
    config: Arc<ServerConfig>,
    has: &Has,
    counts: &Counts,
    over: &AtomicBool,
    sent: &AtomicU64,
) -> std::io::Result<()> {
    let connection = ServerConnection::new(config).map_err(std::io::Error::other)?;
    let mut stream = StreamOwned::new(connection, Timed::new(socket, SHAKE)?);
    stream.conn.complete_io(&mut stream.sock)?;
    let mut header = [0; HEADER_BYTES];
    loop {
        stream.sock.within(IDLE);
        stream.read_exact(&mut header)?;
        stream.sock.within(PROMPT);
        let shown = stream.conn.peer_certificates().and_then(|shown| shown.first());
        let speaks = stream.conn.alpn_protocol() == Some(PROTOCOL);
        // Asked each time: one that is taken back ends the connections too.
        if !speaks || !shown.is_some_and(counts) || over.load(Ordering::Relaxed) {
            return Err(std::io::ErrorKind::PermissionDenied.into());
        }
        let Some(bytes) = wire::decode_header(&header) else {
            return Err(std::io::ErrorKind::InvalidData.into());
        };
        let mut ids = vec![0; bytes];
        stream.read_exact(&mut ids)?;
        let mut gave = false;
        let chunks = wire::decode_ids(&ids).into_iter();
        let chunks = chunks.map(|id| has(&id).inspect(|_| gave = true));
        let reply = wire::encode_reply(chunks)?;
        stream.write_all(&reply)?;
        stream.flush()?;
        if gave {
            // As who asked counts it: without the length before it.
            sent.fetch_add(reply.len() as u64 - 4, Ordering::Relaxed);
        }
    }
}
