//! Two hosts of one plane, by TLS over the loopback.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use chunk::{ChunkId, ChunkSource, FetchError, Urgency, Verified};
use model::HostId;
use peer::{Identity, Peer, Peers, Server, Source};
use plane::identity::{Authority, Secret, new_key};

/// A plane's authority and what it certifies.
struct Plane(Authority);

impl Plane {
    fn new(byte: u8) -> Self {
        let secret = Secret::parse(&format!("{byte:02x}").repeat(32)).unwrap();
        Self(Authority::of(&secret).unwrap())
    }

    fn host(&self, byte: u8) -> (Identity, String) {
        let (key, public) = new_key().unwrap();
        let id = HostId::from_bytes([byte; 16]);
        let now = ambient::unix_ms();
        let given = self.0.host(id, &public, now).unwrap();
        let identity =
            Identity { key, certificate: given.certificate, authority: self.0.pem().to_owned() };
        (identity, format!("i{now}.h{id}.host.collective.internal"))
    }
}

/// What a host has, and how often it was asked.
#[derive(Default)]
struct Chunks {
    here: Mutex<HashMap<ChunkId, Verified>>,
    asked: AtomicU64,
}

impl Chunks {
    fn of(chunks: &[Verified]) -> Arc<Self> {
        let here = chunks.iter().map(|chunk| (chunk.id(), chunk.clone())).collect();
        Arc::new(Self { here: Mutex::new(here), asked: AtomicU64::new(0) })
    }

    fn get(&self, id: &ChunkId) -> Option<Verified> {
        self.asked.fetch_add(1, Ordering::Relaxed);
        self.here.lock().unwrap().get(id).cloned()
    }
}

impl ChunkSource for Chunks {
    fn fetch(&self, id: &ChunkId, _: Urgency) -> Result<Vec<Verified>, FetchError> {
        self.get(id).map(|chunk| vec![chunk]).ok_or(FetchError::Missing { id: *id })
    }

    fn fetch_near(&self, ids: &[ChunkId], _: Urgency) -> Vec<Verified> {
        ids.iter().filter_map(|id| self.get(id)).collect()
    }
}

fn chunks(count: u8) -> Vec<Verified> {
    (0..count).map(|byte| Verified::of(vec![byte; 4096])).collect()
}

fn serve(identity: &Identity, has: &Arc<Chunks>, counts: &Arc<AtomicBool>) -> Server {
    let (has, counts) = (has.clone(), counts.clone());
    Server::start(
        "127.0.0.1:0".parse().unwrap(),
        identity,
        move |id| has.get(id),
        move |_| counts.load(Ordering::Relaxed),
    )
    .unwrap()
}

fn peers(identity: &Identity, name: &str, address: SocketAddr) -> Arc<Peers> {
    let peers = Peers::new();
    peers.set(identity, vec![Peer { name: name.to_owned(), address }]).unwrap();
    Arc::new(peers)
}

#[test]
fn chunks_come_from_the_peer_and_what_it_lacks_from_beneath() {
    let plane = Plane::new(1);
    let ((a, _), (b, b_name)) = (plane.host(1), plane.host(2));
    let all = chunks(10);
    let has = Chunks::of(&all[..6]);
    let counts = Arc::new(AtomicBool::new(true));
    let server = serve(&b, &has, &counts);
    let peers = peers(&a, &b_name, server.address());
    let beneath = Chunks::of(&all);
    let source = Source::new(peers.clone(), beneath.clone());

    let ids: Vec<_> = all.iter().map(Verified::id).collect();
    assert_eq!(source.fetch(&ids[0], Urgency::Urgent).unwrap()[0].bytes(), all[0].bytes());
    assert_eq!(beneath.asked.load(Ordering::Relaxed), 0);
    let received = peers.received_bytes();
    assert!((1..4096).contains(&received), "packed: {received}");
    let came = source.fetch_near(&ids, Urgency::Background);
    assert_eq!(came.len(), 10);
    assert_eq!(beneath.asked.load(Ordering::Relaxed), 4, "what the peer lacks, and no more");
    // Both count the same; the one when it has sent it.
    while server.sent_bytes().load(Ordering::Relaxed) != peers.received_bytes() {
        std::thread::yield_now();
    }
    let missing = Verified::of(vec![99; 4096]).id();
    assert!(matches!(source.fetch(&missing, Urgency::Urgent), Err(FetchError::Missing { .. })));

    // One whose certificate is taken back gets nothing more, also where it is connected already.
    counts.store(false, Ordering::Relaxed);
    let before = has.asked.load(Ordering::Relaxed);
    assert_eq!(source.fetch(&ids[1], Urgency::Urgent).unwrap()[0].id(), ids[1]);
    assert_eq!(has.asked.load(Ordering::Relaxed), before);
}

#[test]
fn who_is_no_host_of_the_plane_is_neither_asked_nor_answered() {
    let (plane, other) = (Plane::new(1), Plane::new(2));
    let ((a, _), (b, b_name), (c, c_name)) = (plane.host(1), plane.host(2), other.host(3));
    let all = chunks(2);
    let counts = Arc::new(AtomicBool::new(true));
    let id = all[0].id();

    // A stranger asks.
    let has = Chunks::of(&all);
    let server = serve(&b, &has, &counts);
    let stranger = Identity { authority: a.authority.clone(), ..c.clone() };
    assert!(peers(&stranger, &b_name, server.address()).ask(&[id], 1).is_empty());
    assert_eq!(has.asked.load(Ordering::Relaxed), 0);
    // A stranger answers, and a host that is not the one that was meant.
    let strange = serve(&c, &has, &counts);
    assert!(peers(&a, &c_name, strange.address()).ask(&[id], 1).is_empty());
    let (_, another_name) = plane.host(4);
    assert!(peers(&a, &another_name, server.address()).ask(&[id], 1).is_empty());
    assert_eq!(has.asked.load(Ordering::Relaxed), 0);
    assert_eq!(peers(&a, &b_name, server.address()).ask(&[id], 1).len(), 1);
}

#[test]
fn a_peer_that_is_away_costs_a_moment_once_and_one_that_lies_gives_nothing() {
    let plane = Plane::new(1);
    let ((a, _), (b, b_name)) = (plane.host(1), plane.host(2));
    let all = chunks(4);
    let id = all[0].id();
    let counts = Arc::new(AtomicBool::new(true));
    let lies = Arc::new(Chunks::default());
    lies.here.lock().unwrap().insert(id, all[1].clone());
    let server = serve(&b, &lies, &counts);
    let here = peers(&a, &b_name, server.address());
    let beneath = Chunks::of(&all);
    let source = Source::new(here, beneath.clone());
    for _ in 0..3 {
        assert_eq!(source.fetch(&id, Urgency::Urgent).unwrap()[0].bytes(), all[0].bytes());
    }
    assert_eq!(lies.asked.load(Ordering::Relaxed), 1, "it is not asked again soon");
    assert_eq!(beneath.asked.load(Ordering::Relaxed), 3);

    // One that takes a call and says nothing.
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let away = peers(&a, &b_name, silent.local_addr().unwrap());
    let source = Source::new(away, beneath);
    let began = ambient::now();
    for _ in 0..100 {
        source.fetch(&id, Urgency::Urgent).unwrap();
    }
    assert!(began.elapsed() < ambient::Duration::from_secs(5), "{:?}", began.elapsed());
}

#[test]
fn a_peer_that_says_a_byte_now_and_then_is_as_one_that_says_nothing() {
    let plane = Plane::new(1);
    let ((a, _), (_, b_name)) = (plane.host(1), plane.host(2));
    let slow = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = slow.local_addr().unwrap();
    std::thread::spawn(move || {
        let (mut caller, _) = slow.accept().unwrap();
        // The beginning of a TLS record that never ends.
        let begins = [0x16, 3, 3, 0x3f, 0xff].into_iter().chain(std::iter::repeat(0));
        for byte in begins {
            if std::io::Write::write_all(&mut caller, &[byte]).is_err() {
                return;
            }
            std::thread::sleep(std::time::Duration::from_millis(200));
        }
    });
    let began = ambient::now();
    let id = chunks(1)[0].id();
    assert!(peers(&a, &b_name, address).ask(&[id], 1).is_empty());
    assert!(began.elapsed() < ambient::Duration::from_secs(5), "{:?}", began.elapsed());
}
