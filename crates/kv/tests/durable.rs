//! What the embedded store keeps of what it said, when its process is killed and when the power
//! goes.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use kv::{Embedded, Kv, KvError, Outcome, Txn};

/// Ends what a test started, whatever happens.
struct Killed(Child);

impl Drop for Killed {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
#[ignore = "a child process of other tests"]
fn child_that_writes() {
    let folder = std::env::var("KV_FOLDER").unwrap();
    let kv = Embedded::open(folder.as_ref()).unwrap();
    let lease = kv.grant(Duration::from_secs(60)).unwrap();
    let from = kv.list("n/").unwrap().entries.len();
    for n in from.. {
        let txn = Txn::create(&format!("n/{n:06}"), n.to_string())
            .put("left", n.to_string())
            .put_leased("right", n.to_string(), lease);
        assert!(kv.commit(&txn).unwrap().is_done());
        println!("done {n}");
    }
}

#[test]
fn what_was_done_is_there_after_a_kill() {
    let folder = tempfile::tempdir().unwrap();
    let mut wanted = 0usize;
    for round in 0..6 {
        let mut child = Killed(
            Command::new(std::env::current_exe().unwrap())
                .args(["child_that_writes", "--exact", "--ignored", "--nocapture"])
                .env("KV_FOLDER", folder.path())
                .stdout(Stdio::piped())
                .stderr(Stdio::null())
                .spawn()
                .unwrap(),
        );
        let lines = BufReader::new(child.0.stdout.take().unwrap()).lines();
        let mut said = lines.map_while(Result::ok).filter_map(|line| {
            line.split("done ").nth(1).and_then(|n| n.trim().parse::<usize>().ok())
        });
        for n in said.by_ref().take(20 + 7 * round) {
            wanted = n + 1;
        }
        if round == 0 {
            // Two processes on one file would be two truths.
            let second = Embedded::open(folder.path());
            assert!(matches!(second, Err(KvError::InUse { .. })), "{second:?}");
        }
        child.0.kill().unwrap();
        child.0.wait().unwrap();
        // What it said before it died, and nobody had read yet.
        if let Some(n) = said.last() {
            wanted = n + 1;
        }

        let kv = Embedded::open(folder.path()).unwrap();
        let entries = kv.list("n/").unwrap().entries;
        assert!(entries.len() >= wanted, "{} of {wanted} are there", entries.len());
        let last = entries.last().unwrap();
        for side in ["left", "right"] {
            let entry = kv.get(side).unwrap().unwrap();
            assert_eq!((&entry.value, entry.revision), (&last.value, last.revision), "half of it");
        }
        // The lease goes on; it began its time again.
        kv.keep_alive(kv.get("right").unwrap().unwrap().lease.unwrap()).unwrap();
    }
    assert!(wanted > 100);
}

/// Memory that can be looked at as a disk whose power went: of what was written since the last
/// sync, each write may be there or not.
#[derive(Debug, Clone, Default)]
struct Disk(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    now: Vec<u8>,
    durable: Vec<u8>,
    unsynced: Vec<(u64, Vec<u8>)>,
    /// Images as a power cut leaves them, with what had been said to be done.
    images: Vec<(Vec<u8>, u64)>,
    said: u64,
    dice: u64,
}

impl State {
    fn roll(&mut self) -> u64 {
        self.dice ^= self.dice << 13;
        self.dice ^= self.dice >> 7;
        self.dice ^= self.dice << 17;
        self.dice
    }

    fn cut(&mut self) {
        let mut image = self.durable.clone();
        image.resize(self.now.len().max(image.len()), 0);
        for n in 0..self.unsynced.len() {
            if self.roll() & 1 == 1 {
                let (at, bytes) = &self.unsynced[n];
                image[*at as usize..][..bytes.len()].copy_from_slice(bytes);
            }
        }
        self.images.push((image, self.said));
    }
}

impl redb::StorageBackend for Disk {
    fn len(&self) -> Result<u64, std::io::Error> {
        Ok(self.0.lock().unwrap().now.len() as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> Result<(), std::io::Error> {
        let state = self.0.lock().unwrap();
        out.copy_from_slice(&state.now[offset as usize..][..out.len()]);
        Ok(())
    }

    fn set_len(&self, len: u64) -> Result<(), std::io::Error> {
        self.0.lock().unwrap().now.resize(len as usize, 0);
        Ok(())
    }

    fn sync_data(&self) -> Result<(), std::io::Error> {
        let mut state = self.0.lock().unwrap();
        state.cut();
        state.durable = state.now.clone();
        state.unsynced.clear();
        state.cut();
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> Result<(), std::io::Error> {
        let mut state = self.0.lock().unwrap();
        state.now[offset as usize..][..data.len()].copy_from_slice(data);
        state.unsynced.push((offset, data.to_vec()));
        Ok(())
    }
}

#[test]
fn what_was_done_is_there_after_a_power_cut() {
    let disk = Disk::default();
    disk.0.lock().unwrap().dice = 0x9e37_79b9_7f4a_7c15;
    let kv = Embedded::on(disk.clone()).unwrap();
    // The file exists from here on: before, there was nothing to lose.
    disk.0.lock().unwrap().images.clear();
    for n in 1..=40u64 {
        let txn = Txn::new().put("left", n.to_string()).put("right", n.to_string());
        let outcome = kv.commit(&txn.put(&format!("n/{n:02}"), vec![n as u8; 3000])).unwrap();
        assert!(matches!(outcome, Outcome::Done(_)));
        disk.0.lock().unwrap().said = n;
    }
    drop(kv);
    let images = std::mem::take(&mut disk.0.lock().unwrap().images);
    assert!(images.len() >= 80);
    let mut ends = BTreeMap::new();
    for (image, said) in images {
        let after = Disk::default();
        after.0.lock().unwrap().now = image.clone();
        after.0.lock().unwrap().durable = image;
        after.0.lock().unwrap().dice = 1;
        let kv = Embedded::on(after).unwrap();
        let number = |key: &str| {
            let entry = kv.get(key).unwrap();
            entry.map_or(0, |e| std::str::from_utf8(&e.value).unwrap().parse::<u64>().unwrap())
        };
        let found = number("left");
        assert!(found == said || found == said + 1, "{said} were done, {found} are there");
        assert_eq!(number("right"), found);
        let listed = kv.list("n/").unwrap();
        assert_eq!(listed.entries.len() as u64, found);
        assert!(listed.entries.iter().enumerate().all(|(n, e)| e.value == [n as u8 + 1; 3000]));
        assert_eq!(listed.revision.0, found);
        *ends.entry(found - said).or_insert(0) += 1;
    }
    assert_eq!(ends.len(), 2, "both ends of a commit were met: {ends:?}");
}
