//! A real etcd cluster of three, on the loopback or on networks of their own, each member killable.
#![allow(dead_code, reason = "each test binary uses a part of it")]

use std::fs::File;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// What a cluster may take to be of one mind.
const READY: Duration = Duration::from_secs(30);

pub struct Cluster {
    _folder: tempfile::TempDir,
    members: Vec<Member>,
}

struct Member {
    process: Child,
    client: SocketAddr,
}

/// Where a member is to be.
pub struct Seat {
    /// What begins its command.
    pub words: Vec<String>,
    /// For clients, and for the other members.
    pub at: [SocketAddr; 2],
}

impl Cluster {
    /// Starts three members, and waits until they have a leader.
    pub fn start() -> Self {
        let cluster = Self::of(&Self::seats(3), "http", &[]);
        cluster.await_leader(Self::leader);
        cluster
    }

    /// Places on the loopback that are free.
    pub fn seats(count: usize) -> Vec<Seat> {
        // Held until all are chosen, so that no two are the same.
        let bind = || TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let held: Vec<_> = (0..count).map(|_| [bind(), bind()]).collect();
        let at = |listener: &TcpListener| listener.local_addr().unwrap();
        held.iter().map(|[a, b]| Seat { words: Vec::new(), at: [at(a), at(b)] }).collect()
    }

    /// Starts members there, which clients reach by this scheme.
    pub fn of(seats: &[Seat], scheme: &str, options: &[&str]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let initial: Vec<_> = seats
            .iter()
            .enumerate()
            .map(|(n, seat)| format!("m{n}=http://{}", seat.at[1]))
            .collect();
        let member = |(n, seat): (usize, &Seat)| {
            let (client, peer) =
                (format!("{scheme}://{}", seat.at[0]), format!("http://{}", seat.at[1]));
            let log = File::create(folder.path().join(format!("m{n}.log"))).unwrap();
            let etcd = "etcd".to_owned();
            let mut words = seat.words.iter().chain([&etcd]);
            let process = Command::new(words.next().unwrap())
                .args(words)
                .args(["--name", &format!("m{n}"), "--data-dir"])
                .arg(folder.path().join(format!("m{n}")))
                .args(["--listen-client-urls", &client, "--advertise-client-urls", &client])
                .args(["--listen-peer-urls", &peer, "--initial-advertise-peer-urls", &peer])
                .args(["--initial-cluster", &initial.join(",")])
                .args(options)
                .stdout(Stdio::null())
                .stderr(log)
                .spawn()
                .expect("etcd is not installed: scripts/install-deps --test installs it");
            Member { process, client: seat.at[0] }
        };
        let members = seats.iter().enumerate().map(member).collect();
        Self { members, _folder: folder }
    }

    /// Waits until somebody leads, as `leader` finds out.
    pub fn await_leader(&self, leader: impl Fn(&Self) -> Option<usize>) -> usize {
        let ends = Instant::now() + READY;
        loop {
            if let Some(leader) = leader(self) {
                return leader;
            }
            assert!(Instant::now() < ends, "the cluster has no leader");
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    pub fn location(&self, prefix: &str) -> String {
        format!("etcd://{}/{prefix}", self.hosts())
    }

    pub fn hosts(&self) -> String {
        let hosts: Vec<_> = self.members.iter().map(|m| m.client.to_string()).collect();
        hosts.join(",")
    }

    /// Which member leads, by what those say that can be reached.
    pub fn leader(&self) -> Option<usize> {
        let status: Vec<_> = self.members.iter().map(|m| status(m.client)).collect();
        let leads = |me: &(String, String)| {
            // One that was cut off from the others believes in itself for a moment.
            let named = status.iter().flatten().filter(|(_, leader)| *leader == me.0).count();
            named * 2 > self.members.len()
        };
        status.iter().position(|said| said.as_ref().is_some_and(leads))
    }

    /// As the power would go.
    pub fn kill(&mut self, member: usize) {
        self.members[member].process.kill().unwrap();
        self.members[member].process.wait().unwrap();
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        for member in &mut self.members {
            let _ = member.process.kill();
            let _ = member.process.wait();
        }
    }
}

/// Who a member is, and who leads it.
fn status(member: SocketAddr) -> Option<(String, String)> {
    let mut stream = TcpStream::connect_timeout(&member, Duration::from_secs(2)).ok()?;
    stream.set_read_timeout(Some(Duration::from_secs(2))).ok()?;
    let request = "POST /v3/maintenance/status HTTP/1.1\r\nHost: etcd\r\nConnection: close\r\n\
                   Content-Length: 2\r\n\r\n{}";
    stream.write_all(request.as_bytes()).ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    let field = |name: &str| {
        let rest = answer.split_once(&format!("\"{name}\":\""))?.1;
        Some(rest.split_once('"')?.0.to_owned())
    };
    Some((field("member_id")?, field("leader")?)).filter(|(_, leader)| leader != "0")
}
