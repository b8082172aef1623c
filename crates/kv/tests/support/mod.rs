//! A real etcd cluster of three on the loopback, each member killable.

use std::fs::File;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
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
    client: u16,
}

impl Cluster {
    /// Starts three members, and waits until they have a leader.
    pub fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        // Held until all are chosen, so that no two are the same.
        let held: Vec<_> = (0..6).map(|_| TcpListener::bind("127.0.0.1:0").unwrap()).collect();
        let ports: Vec<_> = held.iter().map(|l| l.local_addr().unwrap().port()).collect();
        drop(held);
        let url = |port: u16| format!("http://127.0.0.1:{port}");
        let initial: Vec<_> = (0..3).map(|n| format!("m{n}={}", url(ports[n + 3]))).collect();
        let members = (0..3).map(|n| {
            let (client, peer) = (url(ports[n]), url(ports[n + 3]));
            let log = File::create(folder.path().join(format!("m{n}.log"))).unwrap();
            let process = Command::new("etcd")
                .args(["--name", &format!("m{n}"), "--data-dir"])
                .arg(folder.path().join(format!("m{n}")))
                .args(["--listen-client-urls", &client, "--advertise-client-urls", &client])
                .args(["--listen-peer-urls", &peer, "--initial-advertise-peer-urls", &peer])
                .args(["--initial-cluster", &initial.join(",")])
                .stdout(Stdio::null())
                .stderr(log)
                .spawn()
                .expect("etcd is not installed: scripts/install-deps --test installs it");
            Member { process, client: ports[n] }
        });
        let cluster = Self { members: members.collect(), _folder: folder };
        let ends = Instant::now() + READY;
        while cluster.leader().is_none() {
            assert!(Instant::now() < ends, "the cluster has no leader");
            std::thread::sleep(Duration::from_millis(50));
        }
        cluster
    }

    pub fn location(&self, prefix: &str) -> String {
        let hosts: Vec<_> =
            self.members.iter().map(|m| format!("127.0.0.1:{}", m.client)).collect();
        format!("etcd://{}/{prefix}", hosts.join(","))
    }

    /// Which member leads, by what one of them says.
    pub fn leader(&self) -> Option<usize> {
        let status: Vec<_> = self.members.iter().map(|m| status(m.client)).collect();
        let (_, leader) = (*status.iter().flatten().next()?).clone();
        status.iter().position(|s| s.as_ref().is_some_and(|(me, _)| *me == leader))
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
fn status(port: u16) -> Option<(String, String)> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).ok()?;
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
