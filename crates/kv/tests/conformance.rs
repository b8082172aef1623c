//! What every store promises, on the embedded one and on three members of etcd.

#[path = "support/proxy.rs"]
mod proxy;
mod support;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use kv::{Change, Condition, Kv, KvError, Outcome, Revision, Txn, VALUE_BYTES_MAX, Watch};
use proxy::Proxy;
use support::Cluster;

/// Long enough for what must come, short enough to fail by.
const SOON: Duration = Duration::from_secs(15);

#[test]
fn embedded_keeps_every_promise() {
    let folder = tempfile::tempdir().unwrap();
    let kv = kv::open(&format!("embedded:{}", folder.path().display())).unwrap();
    suite(&kv);
}

#[test]
fn etcd_keeps_every_promise_also_when_its_leader_is_killed() {
    let mut cluster = Cluster::start();
    let kv = kv::open(&cluster.location("suite")).unwrap();
    suite(&kv);
    two_stores_in_one_cluster_do_not_meet(&cluster);
    what_was_sent_twice_happens_once(&cluster);

    let ended = Arc::new(AtomicBool::new(false));
    let work = work_under_loss(cluster.location("loss"), ended.clone());
    thread::sleep(Duration::from_millis(500));
    let leader = cluster.leader().unwrap();
    let killed = Instant::now();
    cluster.kill(leader);
    // A lease that somebody keeps alive outlives the leader.
    let lease = kv.grant(Duration::from_secs(2)).unwrap();
    assert!(killed.elapsed() < Duration::from_secs(6), "written {:?} later", killed.elapsed());
    kv.commit(&Txn::new().put_leased("alive", "", lease)).unwrap();
    for _ in 0..6 {
        thread::sleep(Duration::from_millis(500));
        kv.keep_alive(lease).unwrap();
    }
    assert!(kv.get("alive").unwrap().is_some());
    ended.store(true, Ordering::Relaxed);
    work.join().unwrap();
}

fn suite(kv: &Arc<dyn Kv>) {
    conditions_are_held_to(&**kv);
    what_no_store_takes_is_refused(&**kv);
    a_list_is_all_below_a_prefix_at_one_moment(&**kv);
    a_commit_is_all_or_nothing(&**kv);
    a_watch_leaves_nothing_out(kv);
    writers_at_once_lose_nothing(kv);
    a_lease_ends_when_nobody_keeps_it(&**kv);
}

fn done(outcome: Outcome) -> Revision {
    match outcome {
        Outcome::Done(revision) => revision,
        Outcome::Refused => panic!("refused"),
    }
}

fn conditions_are_held_to(kv: &dyn Kv) {
    assert_eq!(kv.get("a").unwrap(), None);
    let first = done(kv.commit(&Txn::create("a", "1")).unwrap());
    assert_eq!(kv.commit(&Txn::create("a", "2")).unwrap(), Outcome::Refused);
    let entry = kv.get("a").unwrap().unwrap();
    assert_eq!((entry.value.as_slice(), entry.revision, entry.lease), (&b"1"[..], first, None));
    let second = done(kv.commit(&Txn::replace("a", first, "2")).unwrap());
    assert!(second > first);
    assert_eq!(kv.commit(&Txn::replace("a", first, "3")).unwrap(), Outcome::Refused);
    assert_eq!(kv.commit(&Txn::remove("a", first)).unwrap(), Outcome::Refused);
    assert_eq!(kv.commit(&Txn::replace("b", first, "3")).unwrap(), Outcome::Refused);
    assert_eq!(kv.get("a").unwrap().unwrap().value, b"2");
    assert!(kv.commit(&Txn::remove("a", second)).unwrap().is_done());
    assert_eq!(kv.get("a").unwrap(), None);
    // What is created again is not what was.
    let third = done(kv.commit(&Txn::create("a", "4")).unwrap());
    assert!(third > second);
    assert_eq!(kv.commit(&Txn::replace("a", second, "5")).unwrap(), Outcome::Refused);
    // Nothing to write, and nothing to delete, are no reasons to fail.
    let only = Txn::new().when("a", Condition::At(third)).when("b", Condition::Absent);
    assert!(kv.commit(&only).unwrap().is_done());
    assert!(kv.commit(&Txn::new().delete("never")).unwrap().is_done());
    assert!(kv.commit(&Txn::new().put("a", "")).unwrap().is_done());
    assert_eq!(kv.get("a").unwrap().unwrap().value, b"");
}

fn what_no_store_takes_is_refused(kv: &dyn Kv) {
    let invalid = |txn: Txn| {
        assert!(matches!(kv.commit(&txn), Err(KvError::Invalid { .. })));
    };
    invalid(Txn::create("", "1"));
    invalid(Txn::create(&"k".repeat(513), "1"));
    invalid(Txn::create("big", vec![0; VALUE_BYTES_MAX + 1]));
    invalid(Txn::new().put("twice", "1").delete("twice"));
    invalid((0..61).fold(Txn::new(), |txn, n| txn.put(&format!("many/{n}"), "")));
    for ttl in [Duration::from_secs(1), Duration::from_secs(100_000)] {
        assert!(matches!(kv.grant(ttl), Err(KvError::Invalid { .. })));
    }
    // And what just fits is taken, all bytes as they are.
    let large: Vec<u8> = (0..VALUE_BYTES_MAX).map(|n| (n % 251) as u8).collect();
    assert!(kv.commit(&Txn::create(&"k".repeat(512), large.clone())).unwrap().is_done());
    assert_eq!(kv.get(&"k".repeat(512)).unwrap().unwrap().value, large);
    let many = (0..60).fold(Txn::new(), |txn, n| {
        txn.when(&format!("many/{n}"), Condition::Absent).put(&format!("many/{n}"), "")
    });
    assert!(kv.commit(&many).unwrap().is_done());
}

fn a_list_is_all_below_a_prefix_at_one_moment(kv: &dyn Kv) {
    // More than one page of any store.
    for page in 0..42 {
        let txn = (0..50).fold(Txn::new(), |txn, n| {
            txn.put(&format!("list/{:04}", page * 50 + n), format!("{n}"))
        });
        kv.commit(&txn).unwrap();
    }
    for other in ["lis", "list0", "list", "lisu"] {
        kv.commit(&Txn::create(other, "")).unwrap();
    }
    let listing = kv.list("list/").unwrap();
    let keys: Vec<_> = listing.entries.iter().map(|entry| entry.key.clone()).collect();
    let expected: Vec<_> = (0..2100).map(|n| format!("list/{n:04}")).collect();
    assert_eq!(keys, expected);
    assert!(listing.entries.iter().all(|entry| entry.revision <= listing.revision));
    assert_eq!(kv.list("list/2").unwrap().entries.len(), 100);
    assert_eq!(kv.list("nothing/").unwrap().entries, []);
    assert!(kv.list("").unwrap().entries.len() > 2100);
}

fn a_commit_is_all_or_nothing(kv: &dyn Kv) {
    kv.commit(&Txn::new().put("all/1", "a").put("all/2", "a")).unwrap();
    let entries = kv.list("all/").unwrap().entries;
    assert_eq!(entries[0].revision, entries[1].revision);
    let at = entries[0].revision;
    let wrong = Txn::new()
        .when("all/1", Condition::At(at))
        .when("all/3", Condition::At(at))
        .put("all/1", "b")
        .put("all/3", "b")
        .delete("all/2");
    assert_eq!(kv.commit(&wrong).unwrap(), Outcome::Refused);
    assert_eq!(kv.list("all/").unwrap().entries, entries);
    let right = Txn::new()
        .when("all/1", Condition::At(at))
        .when("all/3", Condition::Absent)
        .put("all/3", "b")
        .delete("all/2");
    let done = done(kv.commit(&right).unwrap());
    let after: Vec<_> =
        kv.list("all/").unwrap().entries.into_iter().map(|e| (e.key, e.revision)).collect();
    assert_eq!(after, [("all/1".to_owned(), at), ("all/3".to_owned(), done)]);
}

/// Reads until `last` has come; what was put and deleted, in order.
fn read_until(watch: &Watch, last: &str) -> Vec<(Revision, String, Option<Vec<u8>>)> {
    let mut seen = Vec::new();
    let ends = Instant::now() + SOON;
    loop {
        assert!(Instant::now() < ends, "{last} never came; seen: {}", seen.len());
        let Some(batch) = watch.next(Duration::from_millis(500)).unwrap() else { continue };
        for change in batch.changes {
            let key = change.key().to_owned();
            let ends = key == last;
            match change {
                Change::Put(entry) => {
                    assert_eq!(entry.revision, batch.revision);
                    seen.push((batch.revision, key, Some(entry.value)));
                }
                Change::Deleted { .. } => seen.push((batch.revision, key, None)),
            }
            if ends {
                return seen;
            }
        }
    }
}

fn a_watch_leaves_nothing_out(kv: &Arc<dyn Kv>) {
    let from = kv.list("watch/").unwrap().revision;
    // Before it begins, and while it goes on.
    let one = done(kv.commit(&Txn::new().put("watch/a", "1").put("other/a", "1")).unwrap());
    let watch = kv.watch("watch/", from).unwrap();
    let late = kv.watch("watch/", one).unwrap();
    let two = done(kv.commit(&Txn::new().put("watch/a", "2").put("watch/b", "2")).unwrap());
    let three = done(kv.commit(&Txn::new().delete("watch/a").delete("watch/never")).unwrap());
    kv.commit(&Txn::new().put("other/b", "3")).unwrap();
    let four = done(kv.commit(&Txn::new().put("watch/z", "4")).unwrap());
    let text = |key: &str| key.to_owned();
    let value = |value: &str| Some(value.as_bytes().to_vec());
    let expected = [
        (one, text("watch/a"), value("1")),
        (two, text("watch/a"), value("2")),
        (two, text("watch/b"), value("2")),
        (three, text("watch/a"), None),
        (four, text("watch/z"), value("4")),
    ];
    assert_eq!(read_until(&watch, "watch/z"), expected);
    assert_eq!(read_until(&late, "watch/z"), expected[1..]);
    assert_eq!(watch.next(Duration::from_millis(50)).unwrap(), None);
}

fn writers_at_once_lose_nothing(kv: &Arc<dyn Kv>) {
    const WRITERS: u64 = 8;
    const EACH: u64 = 20;
    kv.commit(&Txn::create("count", "0")).unwrap();
    let watch = kv.watch("count", kv.list("count").unwrap().revision).unwrap();
    let refused = AtomicU64::new(0);
    thread::scope(|scope| {
        for _ in 0..WRITERS {
            scope.spawn(|| {
                let mut left = EACH;
                while left > 0 {
                    let entry = kv.get("count").unwrap().unwrap();
                    let next = number(&entry.value) + 1;
                    let txn = Txn::replace("count", entry.revision, next.to_string());
                    match kv.commit(&txn).unwrap() {
                        Outcome::Done(_) => left -= 1,
                        Outcome::Refused => drop(refused.fetch_add(1, Ordering::Relaxed)),
                    }
                }
            });
        }
    });
    assert_eq!(number(&kv.get("count").unwrap().unwrap().value), WRITERS * EACH);
    assert!(refused.into_inner() > 0, "they never met: this shows nothing");
    kv.commit(&Txn::new().put("count/end", "")).unwrap();
    let seen = read_until(&watch, "count/end");
    let numbers: Vec<_> =
        seen.iter().filter(|s| s.1 == "count").map(|s| number(s.2.as_ref().unwrap())).collect();
    assert_eq!(numbers, (1..=WRITERS * EACH).collect::<Vec<_>>());
    assert!(seen.windows(2).all(|pair| pair[0].0 < pair[1].0));
}

fn number(value: &[u8]) -> u64 {
    std::str::from_utf8(value).unwrap().parse().unwrap()
}

fn a_lease_ends_when_nobody_keeps_it(kv: &dyn Kv) {
    let ttl = Duration::from_secs(2);
    let (kept, left) = (kv.grant(ttl).unwrap(), kv.grant(ttl).unwrap());
    let begun = Instant::now();
    let watch = kv.watch("lease/", kv.list("lease/").unwrap().revision).unwrap();
    kv.commit(&Txn::new().put_leased("lease/kept", "", kept).put_leased("lease/left", "", left))
        .unwrap();
    // A key that is written anew without the lease no longer goes with it.
    kv.commit(&Txn::new().put_leased("lease/free", "", left)).unwrap();
    kv.commit(&Txn::new().put("lease/free", "")).unwrap();
    assert_eq!(kv.get("lease/kept").unwrap().unwrap().lease, Some(kept));
    let mut gone = None;
    while begun.elapsed() < SOON && gone.is_none() {
        kv.keep_alive(kept).unwrap();
        let batch = watch.next(Duration::from_millis(300)).unwrap();
        let changes = batch.into_iter().flat_map(|batch| batch.changes);
        if changes.into_iter().any(|c| matches!(c, Change::Deleted { key } if key == "lease/left"))
        {
            gone = Some(begun.elapsed());
        }
    }
    assert!(gone.is_some_and(|after| after >= ttl), "{gone:?}");
    assert_eq!(kv.keep_alive(left), Err(KvError::LeaseGone));
    assert_eq!(kv.revoke(left), Err(KvError::LeaseGone));
    let late = Txn::new().put_leased("lease/late", "", left);
    assert_eq!(kv.commit(&late), Err(KvError::LeaseGone));
    let keys: Vec<_> = kv.list("lease/").unwrap().entries.into_iter().map(|e| e.key).collect();
    assert_eq!(keys, ["lease/free", "lease/kept"]);
    kv.revoke(kept).unwrap();
    assert_eq!(kv.get("lease/kept").unwrap(), None);
}

fn two_stores_in_one_cluster_do_not_meet(cluster: &Cluster) {
    let one = kv::open(&cluster.location("one")).unwrap();
    let two = kv::open(&cluster.location("two")).unwrap();
    let watch = two.watch("", two.list("").unwrap().revision).unwrap();
    one.commit(&Txn::create("k", "one")).unwrap();
    assert!(two.commit(&Txn::create("k", "two")).unwrap().is_done());
    assert_eq!(read_until(&watch, "k").len(), 1);
    assert_eq!(one.get("k").unwrap().unwrap().value, b"one");
}

fn what_was_sent_twice_happens_once(cluster: &Cluster) {
    let proxy = Proxy::before(&cluster.location(""));
    let kv = kv::open(&proxy.location("twice")).unwrap();
    // Past the proxy: what the watch is told is no answer of those that get lost.
    let beside = kv::open(&cluster.location("twice")).unwrap();
    let watch = beside.watch("t/", beside.list("t/").unwrap().revision).unwrap();
    let lossy = |txn: Txn| {
        kv.get("-").unwrap();
        proxy.swallow(1);
        let result = kv.commit(&txn);
        assert_eq!(proxy.left(), 0, "no answer was lost");
        result
    };
    // The second attempt finds the first one's work, and says so.
    let revision = done(lossy(Txn::create("t/a", "1")).unwrap());
    assert_eq!(kv.get("t/a").unwrap().unwrap().revision, revision);
    let revision = done(lossy(Txn::replace("t/a", revision, "2").put("t/b", "2")).unwrap());
    assert_eq!(kv.get("t/b").unwrap().unwrap().revision, revision);
    // What could happen twice is sent once; what leaves no mark is not guessed at.
    let unknown = |result| assert!(matches!(result, Err(KvError::Unknown { .. })), "{result:?}");
    unknown(lossy(Txn::new().put("t/a", "3")));
    unknown(lossy(Txn::remove("t/b", revision)));
    // Refused at the first attempt, by somebody else's work: nobody can tell.
    unknown(lossy(Txn::create("t/a", "4")));
    proxy.swallow(1);
    let lease = kv.grant(Duration::from_secs(9)).unwrap();
    proxy.swallow(1);
    kv.revoke(lease).unwrap();
    assert_eq!(kv.keep_alive(lease), Err(KvError::LeaseGone));
    kv.commit(&Txn::create("t/z", "")).unwrap();
    let seen: Vec<_> = read_until(&watch, "t/z").into_iter().map(|s| s.1).collect();
    assert_eq!(seen, ["t/a", "t/a", "t/b", "t/a", "t/b", "t/z"], "each once");
}

/// Adds numbers to a set by compare-and-swap until it is ended; then each that was `Done` is there,
/// each that was `Refused` is not, and a watch has seen exactly what is there.
fn work_under_loss(location: String, ended: Arc<AtomicBool>) -> thread::JoinHandle<()> {
    thread::spawn(move || {
        let kv = kv::open(&location).unwrap();
        let watch = kv.watch("set/", kv.list("set/").unwrap().revision).unwrap();
        let (mut sure, mut never) = (BTreeSet::new(), BTreeSet::new());
        let mut number = 0u64;
        while !ended.load(Ordering::Relaxed) {
            number += 1;
            let key = format!("set/{number:06}");
            match kv.commit(&Txn::create(&key, key.as_str())) {
                Ok(Outcome::Done(_)) => drop(sure.insert(key)),
                Ok(Outcome::Refused) => panic!("{key} is new"),
                Err(KvError::Unknown { .. }) => {}
                Err(KvError::Unavailable { .. }) => drop(never.insert(key)),
                Err(error) => panic!("{error}"),
            }
        }
        assert!(sure.len() > 20, "{} commits", sure.len());
        kv.commit(&Txn::create("set/end", "")).unwrap();
        let seen: Vec<_> = read_until(&watch, "set/end").into_iter().map(|seen| seen.1).collect();
        let there: Vec<_> = kv.list("set/").unwrap().entries.into_iter().map(|e| e.key).collect();
        assert_eq!(seen, there, "each once, in order");
        let there: BTreeSet<_> = there.into_iter().collect();
        assert!(sure.is_subset(&there));
        assert!(never.is_disjoint(&there));
    })
}
