//! Other hosts of the same plane as a source of chunks, and this host as theirs.
//!
//! `plane/peers.json` says who they are, and `plane/identity.json` who this host is to them; its agent
//! writes both, and a shim looks again when they have changed.
//!
//! **Invariant:** without a plane there are no peers, and nothing differs.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use api::PeersPrint;
use chunk::{ChunkSource, Verified};
use model::ChunkId;
use peer::{Identity, Peer, Peers, Source};
use serde::{Deserialize, Serialize};
use volume::Cache;

use crate::Host;
use crate::dir::{self, HostDir};
use crate::failure::Result;
use crate::parcel::Here;
use crate::record::Parcel;
use crate::store::Store;

/// Who the peers are, in the folder of what a plane has said.
const PEERS: &str = "peers.json";
const IDENTITY: &str = "identity.json";
const FORMAT: u32 = 1;
/// A shim looks this often whether its peers have changed.
const LOOK: Duration = Duration::from_secs(2);

#[derive(Serialize, Deserialize)]
struct PeersFile {
    format: u32,
    #[serde(flatten)]
    said: PeersPrint,
}

/// What this reads of the agent's file.
#[derive(Deserialize)]
struct IdentityFile {
    key: String,
    certificate: String,
    authority: String,
}

/// What a host gives to its peers.
#[derive(Clone)]
pub struct Held {
    cache: Arc<Cache>,
    parcels: Arc<Here>,
}

impl Held {
    /// A chunk that lies in this host's cache, or in a parcel of a guest that went on elsewhere.
    pub fn get(&self, id: &ChunkId) -> Option<Verified> {
        self.cache.read(id).or_else(|| self.parcels.get(id))
    }
}

impl Host {
    /// What this host can give to its peers.
    pub fn held(&self) -> Result<Held> {
        let cache = Cache::open(&self.dir.folder("cache")?, self.dir.cache_bytes_max())?;
        Ok(Held { cache: Arc::new(cache), parcels: Arc::new(Here::of(&self.dir)) })
    }

    /// Who the peers were when a plane last said so.
    pub fn noted_peers(&self) -> Result<Option<PeersPrint>> {
        let noted: Option<PeersFile> = self.read_for_plane(PEERS)?;
        Ok(noted.map(|noted| noted.said))
    }

    /// Notes who the peers are, for what runs here.
    pub fn note_peers(&self, said: &PeersPrint) -> Result<()> {
        let said = PeersFile { format: FORMAT, said: said.clone() };
        dir::replace_passing(&self.dir.folder("plane")?.join(PEERS), &said)
    }
}

/// Where an instance's chunks come from: the repository, and other hosts before it.
#[derive(Clone)]
pub struct Chunks {
    pub source: Arc<dyn ChunkSource>,
    pub peers: Option<Arc<Peers>>,
}

impl Chunks {
    pub fn of(host: &HostDir, store: &Store) -> Self {
        let (source, peers) = before(host, store.source());
        Self { source, peers }
    }

    /// Who has this parcel is asked first from now on: nobody else has what is in it.
    pub fn prefer(&self, parcel: &Parcel) {
        let (Some(peers), Ok(address)) = (&self.peers, parcel.address.parse()) else { return };
        let peer = Peer { name: parcel.peer.clone(), address };
        // A name that is none is nobody's, and nobody is asked by it.
        let _ = peers.prefer(&format!(".h{}.", parcel.host), peer);
    }
}

/// A source that asks this host's peers before the one beneath; and the peers, of whom there may be none.
fn before(
    host: &HostDir,
    beneath: Arc<dyn ChunkSource>,
) -> (Arc<dyn ChunkSource>, Option<Arc<Peers>>) {
    let folder = host.root().join("plane");
    // Who joins a plane later has peers from the next start on.
    if !folder.join(PEERS).exists() {
        return (beneath, None);
    }
    let peers = Arc::new(Peers::new());
    let mut watched = Watched { folder, seen: None };
    watched.look(&peers);
    let weak = Arc::downgrade(&peers);
    let watching = ambient::spawn("peers".to_owned(), move || {
        while let Some(peers) = weak.upgrade() {
            watched.look(&peers);
            drop(peers);
            ambient::sleep(LOOK);
        }
    });
    // Without the thread those that are known now stay.
    drop(watching);
    (Arc::new(Source::new(peers.clone(), beneath)), Some(peers))
}

struct Watched {
    folder: PathBuf,
    /// When the two files were written that were read last.
    seen: Option<[SystemTime; 2]>,
}

impl Watched {
    fn look(&mut self, peers: &Peers) {
        let written = |file: &str| std::fs::metadata(self.folder.join(file)).ok()?.modified().ok();
        let (Some(told), Some(is)) = (written(PEERS), written(IDENTITY)) else { return };
        if self.seen == Some([told, is]) {
            return;
        }
        self.seen = Some([told, is]);
        // Whoever they are: the repository has everything.
        if let Err(error) = read(&self.folder, peers) {
            eprintln!("no peers: {error}");
        }
    }
}

fn read(folder: &Path, peers: &Peers) -> Result<()> {
    let told: PeersFile = dir::decode(&folder.join(PEERS))?;
    let IdentityFile { key, certificate, authority } = dir::decode(&folder.join(IDENTITY))?;
    let known = told.said.peers.into_iter().filter_map(|peer| {
        let address: SocketAddr = peer.address.parse().ok()?;
        Some(Peer { name: peer.name, address })
    });
    let set = peers.set(&Identity { key, certificate, authority }, known.collect());
    set.map_err(|error| crate::Failure::new("plane", error.to_string(), ""))
}
