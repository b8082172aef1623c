//! What the store on etcd keeps of what it promises while members, and those who ask them, cannot reach
//! each other. Each has a network of its own, between which packets vanish.

#[path = "../../collective/tests/support/lan.rs"]
mod lan;
mod support;

use std::collections::BTreeSet;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use kv::{KvError, Outcome, Revision, Txn, Watch};
use lan::Lan;
use support::{Cluster, Seat};

const MEMBERS: [&str; 3] = ["E0", "E1", "E2"];
/// Long enough for what must come, whatever else the machine does.
const SOON: Duration = Duration::from_secs(60);

/// What one who writes, `P`, and one who reads, `Q`, have met.
#[derive(Default)]
struct Met {
    /// What was said to be done, and what was said not to be.
    sure: Mutex<BTreeSet<String>>,
    never: Mutex<BTreeSet<String>>,
    /// Reads that were answered.
    read: AtomicUsize,
    /// Calls that were not.
    unwritten: AtomicUsize,
    unread: AtomicUsize,
    over: AtomicBool,
}

/// Ends what goes on, also when the test fails.
struct Ends<'a>(&'a AtomicBool);

impl Drop for Ends<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[test]
fn etcd_keeps_every_promise_while_members_are_cut_off() {
    let lan = Lan::of_neighbours(&["E0", "E1", "E2", "P", "Q"]);
    let seats = MEMBERS.map(|member| {
        let at = [2379, 2380].map(|port| (lan.address(member), port).into());
        Seat { words: lan.entrance(member).to_vec(), at }
    });
    let cluster = Cluster::of(&seats, "http", &[]);
    let leader = || MEMBERS[cluster.await_leader(|cluster| lan.inside("", || cluster.leader()))];
    leader();
    let (location, met) = (cluster.location("set"), Met::default());
    thread::scope(|scope| {
        let _ends = Ends(&met.over);
        scope.spawn(|| lan.inside("P", || write(&location, &met)));
        scope.spawn(|| lan.inside("Q", || read(&location, &met)));
        let progress = || {
            let (sure, read) = (count(&met), met.read.load(Ordering::Relaxed));
            await_more("commits", sure + 20, || count(&met));
            await_more("reads", read + 5, || met.read.load(Ordering::Relaxed));
        };
        progress();

        // The leader is alone, and does not know: whoever asks it hears nothing, and asks another one.
        let first = leader();
        let others = || MEMBERS.iter().filter(|member| **member != first);
        others().for_each(|other| lan.cut(first, other));
        progress();
        others().for_each(|other| lan.heal(first, other));
        progress();

        // Nobody who asks reaches the leader, which the others follow.
        let second = leader();
        ["P", "Q"].iter().for_each(|asker| lan.cut(asker, second));
        progress();
        ["P", "Q"].iter().for_each(|asker| lan.heal(asker, second));

        // Who writes reaches nobody; others do.
        let unwritten = met.unwritten.load(Ordering::Relaxed);
        MEMBERS.iter().for_each(|member| lan.cut("P", member));
        await_more("failures", unwritten + 1, || met.unwritten.load(Ordering::Relaxed));
        let read = met.read.load(Ordering::Relaxed);
        await_more("reads", read + 5, || met.read.load(Ordering::Relaxed));
        MEMBERS.iter().for_each(|member| lan.heal("P", member));
        progress();

        // No member reaches another one: nobody is told anything, and nothing old.
        let pairs = [("E0", "E1"), ("E1", "E2"), ("E2", "E0")];
        let failures = || {
            let (unread, unwritten) = (&met.unread, &met.unwritten);
            unread.load(Ordering::Relaxed).min(unwritten.load(Ordering::Relaxed))
        };
        let (unread, unwritten) = (&met.unread, &met.unwritten);
        unread.store(0, Ordering::Relaxed);
        unwritten.store(0, Ordering::Relaxed);
        pairs.iter().for_each(|(one, other)| lan.cut(one, other));
        await_more("failures of both", 1, failures);
        pairs.iter().for_each(|(one, other)| lan.heal(one, other));
        progress();
    });
}

fn count(met: &Met) -> usize {
    met.sure.lock().unwrap().len()
}

fn await_more(what: &str, wanted: usize, count: impl Fn() -> usize) {
    let ends = Instant::now() + SOON;
    while count() < wanted {
        assert!(Instant::now() < ends, "{} {what} of {wanted}", count());
        thread::sleep(Duration::from_millis(20));
    }
}

/// Adds to a set; then all that was said to be done is there, nothing that was said not to be, and a watch
/// has seen exactly what is there.
fn write(location: &str, met: &Met) {
    let kv = kv::open(location).unwrap();
    let watch = kv.watch("set/", kv.list("set/").unwrap().revision).unwrap();
    let mut seen = Vec::new();
    for number in 0.. {
        if met.over.load(Ordering::Relaxed) {
            break;
        }
        let key = format!("set/{number:06}");
        match kv.commit(&Txn::create(&key, key.as_str())) {
            Ok(Outcome::Done(_)) => drop(met.sure.lock().unwrap().insert(key)),
            Ok(Outcome::Refused) => panic!("{key} is new"),
            Err(KvError::Unknown { .. }) => drop(met.unwritten.fetch_add(1, Ordering::Relaxed)),
            Err(KvError::Unavailable { .. }) => {
                met.never.lock().unwrap().insert(key);
                met.unwritten.fetch_add(1, Ordering::Relaxed);
            }
            Err(error) => panic!("{error}"),
        }
        take(&watch, Duration::from_millis(5), &mut seen);
    }
    kv.commit(&Txn::create("set/end", "")).unwrap();
    let ends = Instant::now() + SOON;
    while seen.last().is_none_or(|last| last != "set/end") {
        assert!(Instant::now() < ends, "the end never came");
        take(&watch, Duration::from_millis(500), &mut seen);
    }
    // What nobody knew to be done may have been done after what came next.
    let mut there = kv.list("set/").unwrap().entries;
    there.sort_by_key(|entry| entry.revision);
    let there: Vec<_> = there.into_iter().map(|entry| entry.key).collect();
    assert_eq!(seen, there, "each once, in the order in which it was done");
    let there: BTreeSet<_> = there.into_iter().collect();
    assert!(met.sure.lock().unwrap().is_subset(&there));
    assert!(met.never.lock().unwrap().is_disjoint(&there));
}

fn take(watch: &Watch, within: Duration, seen: &mut Vec<String>) {
    while let Some(batch) = watch.next(within).unwrap() {
        seen.extend(batch.changes.iter().map(|change| change.key().to_owned()));
    }
}

/// Reads the set: all is there that was done before it was asked for, at no older revision than before.
fn read(location: &str, met: &Met) {
    let kv = kv::open(location).unwrap();
    let mut last = Revision(0);
    while !met.over.load(Ordering::Relaxed) {
        let sure = met.sure.lock().unwrap().clone();
        match kv.list("set/") {
            Ok(listing) => {
                let there: BTreeSet<_> = listing.entries.into_iter().map(|e| e.key).collect();
                assert!(sure.is_subset(&there), "what was read is old");
                assert!(listing.revision >= last, "{:?} after {last:?}", listing.revision);
                last = listing.revision;
                met.read.fetch_add(1, Ordering::Relaxed);
            }
            Err(KvError::Unavailable { .. }) => drop(met.unread.fetch_add(1, Ordering::Relaxed)),
            Err(error) => panic!("{error}"),
        }
        thread::sleep(Duration::from_millis(20));
    }
}
