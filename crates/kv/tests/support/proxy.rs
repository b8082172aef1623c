//! A member whose answers get lost.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Stands before a member, and can lose its answers: what was asked is done, and nobody says so.
pub struct Proxy {
    port: u16,
    swallow: Arc<AtomicUsize>,
}

impl Proxy {
    /// In front of the first member of a cluster, which is at `etcd://127.0.0.1:PORT,...`.
    pub fn before(location: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let first = location.split([',', '/']).find_map(|part| part.strip_prefix("127.0.0.1:"));
        let member = first.unwrap().parse().unwrap();
        let swallow = Arc::new(AtomicUsize::new(0));
        let left = swallow.clone();
        // Ends with the process: it waits for connections, and holds nothing.
        std::thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                let left = left.clone();
                std::thread::spawn(move || forward(client, member, &left));
            }
        });
        Self { port, swallow }
    }

    pub fn location(&self, prefix: &str) -> String {
        format!("etcd://127.0.0.1:{}/{prefix}", self.port)
    }

    /// From now on this many answers are lost.
    pub fn swallow(&self, answers: usize) {
        self.swallow.store(answers, Ordering::SeqCst);
    }

    pub fn left(&self) -> usize {
        self.swallow.load(Ordering::SeqCst)
    }
}

fn forward(mut client: TcpStream, member: u16, left: &AtomicUsize) -> Option<()> {
    let mut server = TcpStream::connect(("127.0.0.1", member)).ok()?;
    let (mut asked, mut asks) = (client.try_clone().ok()?, server.try_clone().ok()?);
    std::thread::spawn(move || {
        let _ = std::io::copy(&mut asked, &mut asks);
        let _ = asks.shutdown(Shutdown::Both);
    });
    let mut bytes = [0; 65536];
    loop {
        let got = server.read(&mut bytes).ok().filter(|got| *got > 0);
        let lost = got.is_some()
            && left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |n| n.checked_sub(1)).is_ok();
        if got.is_none() || lost {
            let _ = client.shutdown(Shutdown::Both);
            let _ = server.shutdown(Shutdown::Both);
            return None;
        }
        client.write_all(&bytes[..got?]).ok()?;
    }
}
