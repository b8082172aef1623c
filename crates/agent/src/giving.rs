//! This host as a peer: gives what it has to other hosts of the plane, and learns who they are.

use std::collections::BTreeMap;
use std::net::{SocketAddr, ToSocketAddrs, UdpSocket};
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use api::{PeerPrint, PeersPrint};
use host::{Failure, Host};
use peer::{Peers, Server};
use plane::client::Client;
use plane::identity::Peer;

use crate::Identity;

/// Who the peers are is asked this often.
pub(crate) const ASK: Duration = Duration::from_secs(5);

/// Where a host gives chunks to others.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Give {
    /// At the address by which it reaches the plane, at any free port.
    #[default]
    ByThePlane,
    At(SocketAddr),
    Nowhere,
}

/// The giving end, if there is one, and who the peers are.
pub(crate) struct Giving {
    server: Option<Server>,
    /// None: it is not known yet whose certificates were taken back, and nobody is answered.
    said: Arc<RwLock<Option<PeersPrint>>>,
}

impl Giving {
    /// Begins to give. Where that cannot be, what fails is the others' loss: they have the repository.
    pub fn start(host: &Host, identity: &Identity, give: Give) -> Result<Self, Failure> {
        // Cut by a power cut: then nobody is answered until the plane has been asked.
        let said = Arc::new(RwLock::new(host.noted_peers().unwrap_or_default()));
        let address = match give {
            Give::ByThePlane => by_the_plane(&identity.url),
            Give::At(address) => Some(address),
            Give::Nowhere => None,
        };
        let Some(address) = address else {
            return Ok(Self { server: None, said });
        };
        let held = host.held()?;
        let known = said.clone();
        let has = move |id: &_| held.get(id);
        let server = Server::start(address, &identity.to_peers(), has, move |certificate| {
            let known = known.read().unwrap_or_else(PoisonError::into_inner);
            let Some(known) = &*known else { return false };
            Peer::of(certificate).is_some_and(|peer| {
                let revoked = known.revoked.get(&peer.host.to_string());
                revoked.is_none_or(|revoked| peer.issued_unix_ms > *revoked)
            })
        });
        let server = server.map_err(|error| {
            let hint =
                "`--peers ADDRESS:PORT` says where else, `--peers off` that it gives nothing";
            Failure::new("plane", error.to_string(), hint)
        })?;
        Ok(Self { server: Some(server), said })
    }

    /// Bytes that it has given.
    pub fn given_bytes(&self) -> Arc<AtomicU64> {
        self.server.as_ref().map(Server::sent_bytes).unwrap_or_default()
    }

    /// Where this host gives to `target`, if that takes guests of which the repository does not have all,
    /// and answers now.
    pub fn given_at(&self, identity: &Identity, target: &str) -> Option<PeerPrint> {
        let here = self.told(identity)?;
        let known = self.said.read().unwrap_or_else(PoisonError::into_inner).clone()?;
        let part = format!(".h{target}.");
        let there = known.peers.iter().find(|peer| peer.parcels && peer.name.contains(&part))?;
        let (name, address) = (there.name.clone(), there.address.parse().ok()?);
        let peers = Peers::new();
        peers.set(&identity.to_peers(), vec![peer::Peer { name, address }]).ok()?;
        peers.answers().then_some(here)
    }

    /// What is said of it to the plane.
    pub fn told(&self, identity: &Identity) -> Option<PeerPrint> {
        let address = self.server.as_ref()?.address().to_string();
        Some(PeerPrint { name: identity.name()?, address, parcels: true })
    }

    /// Shows another certificate from now on.
    pub fn renew(&self, identity: &Identity) {
        if let Some(server) = &self.server {
            // The old one lasts for days still, and is tried to be replaced with the next renewal.
            let _ = server.renew(&identity.to_peers());
        }
    }

    /// Of other sites, where a host there is, as the plane has said last.
    pub fn sites(&self) -> BTreeMap<String, String> {
        let known = self.said.read().unwrap_or_else(PoisonError::into_inner);
        known.as_ref().map(|said| said.sites.clone()).unwrap_or_default()
    }

    /// Asks who the peers are. What fails is asked again.
    pub fn learn(&self, host: &Host, client: &Client) {
        let path = format!("/v1/hosts/{}/peers", host.id());
        let Ok(said) = client.get::<PeersPrint>(&path) else { return };
        let mut known = self.said.write().unwrap_or_else(PoisonError::into_inner);
        if known.as_ref() != Some(&said) {
            // What cannot be written now is written when they change again; who counts is known.
            let _ = host.note_peers(&said);
            *known = Some(said);
        }
    }
}

/// The address of this host on the way to the plane. (Nothing is sent: UDP only chooses a way.)
fn by_the_plane(url: &str) -> Option<SocketAddr> {
    let place = url.strip_prefix("https://")?.trim_end_matches('/');
    let to = place.to_socket_addrs().ok()?.next()?;
    let any: SocketAddr =
        if to.is_ipv4() { ([0, 0, 0, 0], 0).into() } else { ([0u16; 8], 0).into() };
    let socket = UdpSocket::bind(any).ok()?;
    socket.connect(to).ok()?;
    let mut own = socket.local_addr().ok()?;
    own.set_port(0);
    Some(own)
}
