//! Peers and the connections to them.
//!
//! *Bounds:* [`CONNECT`], [`ANSWER`]; a peer that fails is left alone for [`BAD`], one that had nothing
//! of what it was asked for [`MISSES_MAX`] times in a row from [`POOR`] to [`POOR_MAX`], longer each time.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use ambient::{Duration, Instant};
use chunk::Verified;
use model::ChunkId;
use rustls::{ClientConfig, ClientConnection, StreamOwned};
use rustls_pki_types::ServerName;

use crate::timed::{self, Timed};
use crate::wire::{self, IDS_MAX, REPLY_BYTES_MAX};
use crate::{Identity, PROTOCOL, PeerError, provider};

const CONNECT: Duration = Duration::from_millis(500);
/// A guest may wait for it: all of an answer, however it comes.
const ANSWER: Duration = Duration::from_secs(3);
/// The same where many chunks are asked for, for which nobody waits.
const LONG_ANSWER: Duration = Duration::from_secs(20);
const BAD: Duration = Duration::from_secs(10);
/// Records and large pieces are in no cache, and are asked for first: soon it may have what comes next.
const POOR: Duration = Duration::from_millis(100);
const POOR_MAX: Duration = Duration::from_secs(5);
const MISSES_MAX: u32 = 32;
/// Connections that are kept to one peer.
const IDLE_MAX: usize = 8;

/// Another host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Peer {
    /// What its certificate says that it is called.
    pub name: String,
    pub address: SocketAddr,
}

/// The peers that a host has, best first; none until it is told of some.
pub struct Peers {
    now: RwLock<Now>,
    began: Instant,
    received: AtomicU64,
}

#[derive(Default)]
struct Now {
    config: Option<Arc<ClientConfig>>,
    peers: Vec<Arc<Known>>,
    first: Option<First>,
}

/// Who is asked before all others.
struct First {
    /// A part of its name, whatever certificate it has by now.
    part: String,
    /// As it was known when it was said; those that are told of later come before this.
    known: Arc<Known>,
}

impl Now {
    fn sort(&mut self) {
        let Some(First { part, known }) = &self.first else { return };
        let is_first = |known: &Known| known.peer.name.contains(part.as_str());
        if !self.peers.iter().any(|known| is_first(known)) {
            self.peers.push(known.clone());
        }
        self.peers.sort_by_key(|known| !is_first(known));
    }
}

struct Known {
    peer: Peer,
    name: ServerName<'static>,
    idle: Mutex<Vec<StreamOwned<ClientConnection, Timed>>>,
    /// Left alone until then, milliseconds since `began`.
    until_ms: AtomicU64,
    misses: AtomicU32,
    /// How often in a row it was left alone for having nothing.
    poor: AtomicU32,
    hits: AtomicU32,
}

impl Peers {
    /// None.
    #[expect(clippy::new_without_default, reason = "it reads a clock")]
    pub fn new() -> Self {
        Self { now: RwLock::default(), began: ambient::now(), received: AtomicU64::new(0) }
    }

    /// From now on these, as `identity`, which the plane of all of them has certified.
    pub fn set(&self, identity: &Identity, peers: Vec<Peer>) -> Result<(), PeerError> {
        let read = identity.read()?;
        let no = |error: rustls::Error| PeerError::Identity(error.to_string());
        let mut config = ClientConfig::builder_with_provider(provider())
            .with_protocol_versions(&[&rustls::version::TLS13])
            .map_err(no)?
            .with_root_certificates(read.roots)
            .with_client_auth_cert(vec![read.certificate], read.key)
            .map_err(no)?;
        config.alpn_protocols = vec![PROTOCOL.to_vec()];
        let peers = peers.into_iter().map(Known::new).collect::<Result<_, PeerError>>()?;
        let mut now = self.now.write().unwrap_or_else(PoisonError::into_inner);
        (now.config, now.peers) = (Some(Arc::new(config)), peers);
        now.sort();
        Ok(())
    }

    /// This one is asked before the others, also when they are others; and by another name and address,
    /// when one is told of whose name has `part` in it too.
    pub fn prefer(&self, part: &str, peer: Peer) -> Result<(), PeerError> {
        let mut now = self.now.write().unwrap_or_else(PoisonError::into_inner);
        now.first = Some(First { part: part.to_owned(), known: Known::new(peer)? });
        now.sort();
        Ok(())
    }

    /// Whether the best of them answers now, whatever it has.
    pub fn answers(&self) -> bool {
        let nothing = ChunkId::from_bytes([0; 32]);
        self.ready().first().is_some_and(|known| self.exchange(known, &[nothing]).is_ok())
    }

    /// Whether a peer has given something lately: then what is asked for mostly comes from there.
    pub fn give(&self) -> bool {
        self.ready().iter().any(|known| known.hits.load(Ordering::Relaxed) > 0)
    }

    /// Bytes of replies that brought something, as sent.
    pub fn received_bytes(&self) -> u64 {
        self.received.load(Ordering::Relaxed)
    }

    fn ready(&self) -> Vec<Arc<Known>> {
        let at = self.began.elapsed().as_millis() as u64;
        let now = self.now.read().unwrap_or_else(PoisonError::into_inner);
        let ready = now.peers.iter().filter(|known| known.until_ms.load(Ordering::Relaxed) <= at);
        ready.cloned().collect()
    }

    fn leave_alone(&self, known: &Known, how_long: Duration) {
        let until = self.began.elapsed() + how_long;
        known.until_ms.store(until.as_millis() as u64, Ordering::Relaxed);
        known.hits.store(0, Ordering::Relaxed);
        known.misses.store(0, Ordering::Relaxed);
    }

    /// Asks at most `tries` peers, each for what those before it did not have. What no one has is not
    /// in the answer.
    pub fn ask(&self, ids: &[ChunkId], tries: usize) -> Vec<Verified> {
        let mut came: Vec<Verified> = Vec::new();
        let mut missing: Vec<ChunkId> = ids.iter().copied().take(IDS_MAX).collect();
        for known in self.ready().into_iter().take(tries) {
            let known = &*known;
            match self.exchange(known, &missing) {
                Ok(chunks) if chunks.is_empty() => {
                    if known.misses.fetch_add(1, Ordering::Relaxed) + 1 >= MISSES_MAX {
                        let times = known.poor.fetch_add(1, Ordering::Relaxed).min(10);
                        self.leave_alone(known, POOR_MAX.min(POOR * (1 << times)));
                    }
                }
                Ok(chunks) => {
                    known.misses.store(0, Ordering::Relaxed);
                    known.poor.store(0, Ordering::Relaxed);
                    known.hits.store(1, Ordering::Relaxed);
                    missing.retain(|id| !chunks.iter().any(|chunk| chunk.id() == *id));
                    came.extend(chunks);
                    if missing.is_empty() {
                        break;
                    }
                }
                Err(_) => self.leave_alone(known, BAD),
            }
        }
        came
    }

    fn exchange(&self, known: &Known, ids: &[ChunkId]) -> std::io::Result<Vec<Verified>> {
        let kept = known.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
        // One that was kept may have been closed there meanwhile: that is no fault of the peer's.
        let within = if ids.len() == 1 { ANSWER } else { LONG_ANSWER };
        if let Some(mut kept) = kept {
            kept.sock.within(within);
            match self.over(&mut kept, ids) {
                Ok(chunks) => {
                    known.keep(kept);
                    return Ok(chunks);
                }
                Err(error) if timed::is_over(&error) => return Err(error),
                Err(_) => {}
            }
        }
        let socket = TcpStream::connect_timeout(&known.peer.address, CONNECT)?;
        let socket = Timed::new(socket, within)?;
        let config = self.now.read().unwrap_or_else(PoisonError::into_inner).config.clone();
        let config = config.ok_or(std::io::ErrorKind::NotConnected)?;
        let connection =
            ClientConnection::new(config, known.name.clone()).map_err(std::io::Error::other)?;
        let mut stream = StreamOwned::new(connection, socket);
        let chunks = self.over(&mut stream, ids)?;
        known.keep(stream);
        Ok(chunks)
    }

    fn over(
        &self,
        stream: &mut StreamOwned<ClientConnection, Timed>,
        ids: &[ChunkId],
    ) -> std::io::Result<Vec<Verified>> {
        stream.write_all(&wire::encode_request(ids))?;
        stream.flush()?;
        let mut len = [0; 4];
        stream.read_exact(&mut len)?;
        let len = u32::from_le_bytes(len) as usize;
        if len > REPLY_BYTES_MAX {
            return Err(std::io::ErrorKind::InvalidData.into());
        }
        let mut packed = vec![0; len];
        stream.read_exact(&mut packed)?;
        let chunks = wire::decode_reply(&packed, ids).ok_or(std::io::ErrorKind::InvalidData)?;
        if !chunks.is_empty() {
            self.received.fetch_add(len as u64, Ordering::Relaxed);
        }
        Ok(chunks)
    }
}

impl Known {
    fn new(peer: Peer) -> Result<Arc<Self>, PeerError> {
        let name = ServerName::try_from(peer.name.clone())
            .map_err(|error| PeerError::Identity(error.to_string()))?;
        Ok(Arc::new(Self {
            peer,
            name,
            idle: Mutex::default(),
            until_ms: AtomicU64::new(0),
            misses: AtomicU32::new(0),
            poor: AtomicU32::new(0),
            hits: AtomicU32::new(0),
        }))
    }

    fn keep(&self, stream: StreamOwned<ClientConnection, Timed>) {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        if idle.len() < IDLE_MAX {
            idle.push(stream);
        }
    }
}
