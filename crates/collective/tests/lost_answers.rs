//! Answers of a plane that are lost on the way: what was asked is done once all the same.

#[path = "../../kv/tests/support/mod.rs"]
mod etcd;
#[path = "support/fleet.rs"]
mod fleet;
mod support;

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use api::AuditPrint;
use etcd::Cluster;
use fleet::Fleet;
use plane::client::Client;
use plane::identity::Credentials;
use support::World;

/// Somebody between callers and a plane, who passes on what they say, and of as many connections as they are
/// told loses the answer: nothing that the plane says after its hello comes through, and once it has done
/// what was asked the connection breaks.
struct Line {
    plane: SocketAddr,
    /// Asks the plane itself how much it has written down of its callers.
    straight: Client,
    done_before: AtomicU64,
    to_lose: AtomicUsize,
    lost: AtomicUsize,
}

impl Line {
    /// And the address for callers.
    fn start(straight: Client) -> (Arc<Self>, String) {
        let plane = straight.url().strip_prefix("https://").unwrap().parse().unwrap();
        let (done_before, to_lose, lost) = Default::default();
        let line = Arc::new(Self { plane, straight, done_before, to_lose, lost });
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("https://{}", listener.local_addr().unwrap());
        let here = line.clone();
        std::thread::spawn(move || {
            for caller in listener.incoming() {
                let here = here.clone();
                std::thread::spawn(move || here.carry(&caller.unwrap()));
            }
        });
        (line, url)
    }

    /// Loses the answers on the next connections.
    fn lose(&self, connections: usize) {
        self.done_before.store(self.done(), Ordering::SeqCst);
        self.lost.store(0, Ordering::SeqCst);
        self.to_lose.store(connections, Ordering::SeqCst);
    }

    fn lost(&self) -> usize {
        self.lost.load(Ordering::SeqCst)
    }

    fn done(&self) -> u64 {
        self.straight.get::<AuditPrint>("/v1/audit").unwrap().head.number
    }

    fn carry(&self, caller: &TcpStream) {
        let one_less = |left: usize| left.checked_sub(1);
        let loses = self.to_lose.fetch_update(Ordering::SeqCst, Ordering::SeqCst, one_less).is_ok();
        let plane = TcpStream::connect(self.plane).unwrap();
        // A caller speaks twice: it says hello; and when it has heard the plane's it ends the handshake, and
        // asks.
        let (heard, asked) = (AtomicBool::new(false), AtomicBool::new(false));
        let over = AtomicBool::new(false);
        let end = || {
            over.store(true, Ordering::SeqCst);
            let _ = (caller.shutdown(Shutdown::Both), plane.shutdown(Shutdown::Both));
        };
        std::thread::scope(|scope| {
            scope.spawn(|| {
                pass(caller, &plane, || {
                    asked.fetch_or(heard.load(Ordering::SeqCst), Ordering::SeqCst);
                    true
                });
                end();
            });
            scope.spawn(|| {
                pass(&plane, caller, || {
                    heard.store(true, Ordering::SeqCst);
                    !(loses && asked.load(Ordering::SeqCst))
                });
                end();
            });
            while loses && !over.load(Ordering::SeqCst) {
                if self.done() > self.done_before.load(Ordering::SeqCst) {
                    self.lost.fetch_add(1, Ordering::SeqCst);
                    end();
                }
                std::thread::sleep(Duration::from_millis(10));
            }
        });
    }
}

/// Passes on what comes, unless it is told not to.
fn pass(mut from: &TcpStream, mut to: &TcpStream, mut passes: impl FnMut() -> bool) {
    let mut bytes = [0; 16 * 1024];
    while let Ok(count @ 1..) = from.read(&mut bytes) {
        if passes() && to.write_all(&bytes[..count]).is_err() {
            return;
        }
    }
}

#[test]
fn what_is_asked_is_done_once_although_its_answer_is_lost() {
    let world = World::empty("lost");
    let (_plane, fleet) = Fleet::start(&world, "127.0.0.1:0", 15);
    let file = world.host("P").join("plane.token").display().to_string();
    let own = Credentials::parse(std::fs::read_to_string(&file).unwrap().trim()).unwrap();
    let (line, url) = Line::start(Client::new(&fleet.url, own).unwrap());
    let run = |words: &[&str]| {
        world.run("A", &[words, &["--plane", &url, "--token-file", &file]].concat())
    };
    run(&["whoami"]).ok();

    // Without its key, the second would find the first one's user.
    line.lose(1);
    assert_eq!(run(&["user", "add", "anna"]).ok()["name"], "anna");
    assert_eq!((line.lost(), line.done()), (1, 1));
    line.lose(1);
    run(&["project", "add", "blue"]).ok();
    line.lose(1);
    run(&["project", "grant", "blue", "anna", "user"]).ok();
    assert_eq!((line.lost(), line.done()), (1, 3));

    // A token is said once: the one that nobody has heard of is taken back.
    line.lose(1);
    let made = run(&["token", "create", "--user", "anna"]).ok();
    assert_eq!(line.lost(), 1);
    let tokens = fleet.at("P", &["token", "list"]).ok();
    assert_eq!(tokens.as_array().map(Vec::len), Some(1), "{tokens}");
    assert_eq!(tokens[0]["id"], made["about"]["id"]);
    let token = made["token"].as_str().unwrap();
    let caller = world.run("A", &["whoami", "--plane", &fleet.url, "--token", token]).ok();
    assert_eq!(caller["user"], "anna");
    let log = fleet.at("P", &["audit", "list"]).ok();
    let log: Vec<_> = log.as_array().unwrap().iter().map(|entry| entry["what"].clone()).collect();
    assert_eq!(log[3..], ["POST", "DELETE", "POST"], "{log:?}");

    // Where no answer comes through, that is said, and it is done once.
    line.lose(usize::MAX);
    let (kind, message, _) = run(&["user", "add", "olaf"]).error();
    assert_eq!(kind, "unavailable");
    assert!(message.contains("whether it has done this is not known"), "{message}");
    assert_eq!(line.done(), 7);
    // What nobody was there to take is not sent again.
    let nowhere = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let words = ["user", "add", "otto", "--plane", &format!("https://{nowhere}")];
    let (kind, message, _) =
        world.run("A", &[&words[..], &["--token-file", &file]].concat()).error();
    assert!(kind == "unavailable" && !message.contains("not known"), "{message}");
}

#[test]
fn etcd_lets_another_plane_say_what_one_has_done_whose_answer_is_lost() {
    let world = World::empty("lost-other");
    let cluster = Cluster::start();
    let state = ["--state", &cluster.location("plane")];
    let (_one, one) = Fleet::start_on(&world, "P", "127.0.0.1:0", 15, &state);
    let (_two, two) = Fleet::start_on(&world, "Q", "127.0.0.1:0", 15, &state);
    let file = world.host("P").join("plane.token").display().to_string();
    let own = Credentials::parse(std::fs::read_to_string(&file).unwrap().trim()).unwrap();
    let (line, url) = Line::start(Client::new(&one.url, own).unwrap());
    let planes = format!("{url},{}", two.url);
    line.lose(usize::MAX);
    let words = ["user", "add", "anna", "--plane", &planes, "--token-file", &file];
    assert_eq!(world.run("A", &words).ok()["name"], "anna");
    assert_eq!((line.lost(), line.done()), (1, 1));
}
