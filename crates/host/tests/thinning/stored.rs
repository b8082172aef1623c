//! What is thinned out in a repository: its bytes go, and what is needed stays.

use host::auto::line::{self, Taken};
use host::record::{AutoPoint, Blob, Change, Checkpoint, Head, Hold, Parcel, Traces, Why};
use host::store::{Advance, KeyPlace, Store};
use host::{Host, HostDir, Subject};
use model::{
    CheckpointId, ChunkId, Generation, HostId, InstanceState, Name, PAGE_BYTES, VersionId,
};

use crate::*;

/// Half a mebibyte of noise for each checkpoint.
const NOISE_PAGES: u64 = 128;

/// Stores a checkpoint with noise of its own.
fn store_checkpoint(store: &Store, head: &Head, why: Why, number: u64) -> CheckpointId {
    store_update(store, head, why, number, None)
}

/// With this change, an update's, and then with a label as those have.
fn store_update(
    store: &Store,
    head: &Head,
    why: Why,
    number: u64,
    change: Option<Change>,
) -> CheckpointId {
    let mut session = store.session().unwrap();
    let mut ids = Vec::new();
    for page in 0..NOISE_PAGES {
        let mut bytes = [0; PAGE_BYTES];
        let mut reader = blake3::Hasher::new()
            .update(&[number, page].map(u64::to_le_bytes).concat())
            .finalize_xof();
        reader.fill(&mut bytes);
        ids.push((page, Some(session.put_page(&bytes).unwrap())));
    }
    let size_bytes = NOISE_PAGES * PAGE_BYTES as u64;
    let disk = session.put_pages(size_bytes, &mut ids.into_iter()).unwrap();
    let checkpoint = Checkpoint {
        instance: head.instance,
        parent: head.explicit(),
        version: head.version,
        label: change.as_ref().map(|_| "update".to_owned()),
        why,
        taken_unix_ms: number * MINUTE_MS,
        memory: None,
        disks: vec![disk],
        dirty_bytes: 0,
        stored_bytes: 0,
        traces: Traces::default(),
        pause_us: None,
        change,
    };
    let id = session.put_checkpoint(&checkpoint).unwrap();
    session.finish().unwrap();
    id
}

fn bytes_below(folder: &std::path::Path) -> u64 {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    entries
        .map(|entry| match entry.file_type().unwrap().is_dir() {
            true => bytes_below(&entry.path()),
            false => entry.metadata().unwrap().len(),
        })
        .sum()
}

/// Thirty automatic checkpoints, three of which are kept, around two that somebody took and a fork
/// from an automatic one: the store shrinks to what is kept, and that is whole.
#[test]
fn what_is_thinned_out_frees_its_bytes() {
    let temporary = tempfile::tempdir().unwrap();
    let host = HostDir::open(&temporary.path().join("host")).unwrap();
    let folder = temporary.path().join("repository");
    let location = folder.to_str().unwrap();
    Store::init(&host, location, KeyPlace::None, Some(std::time::Duration::from_millis(1)))
        .unwrap();
    let store = Store::open(&host, location).unwrap();
    let version = {
        // Any record will do as a version that has no volumes.
        let mut session = store.session().unwrap();
        let blob = session.put_blob(b"version").unwrap();
        session.finish().unwrap();
        VersionId::from_bytes(*blob.id.as_bytes())
    };
    let keep = keep("last=3");
    let mut head = Head { version, ..head() };
    let mut generation = Generation(0);
    let mut explicit = Vec::new();
    let mut forked = None;
    for number in 0..30 {
        let why = if number % 15 == 7 { Why::Checkpoint } else { Why::Auto };
        let id = store_checkpoint(&store, &head, why, number);
        let bases: Vec<_> = head.checkpoint.into_iter().collect();
        let taken = Taken { id, why, taken_unix_ms: number * MINUTE_MS };
        head = line::advance(&head, taken, &keep, &bases);
        let Advance::Done(next) = store.advance(generation, &head).unwrap() else {
            panic!("nobody else moves it")
        };
        generation = next;
        if why == Why::Checkpoint {
            explicit.push(id);
        }
        if number == 10 {
            let name = Name::new("fork").unwrap();
            let autos = Vec::new();
            let fork = Head { name, origin: Some(id), autos, holds: Vec::new(), ..head.clone() };
            store.advance(Generation(0), &fork).unwrap();
            forked = Some(id);
        }
    }
    let noise = NOISE_PAGES * PAGE_BYTES as u64;
    let before = bytes_below(&folder);
    assert!(before > 30 * noise, "{before}");
    // What is condemned, repacked and then deleted takes some runs.
    for _ in 0..4 {
        store.gc().unwrap();
    }
    let after = bytes_below(&folder);
    // Two that somebody took, one that a fork is from, three automatic ones and the one before.
    assert!(after < 8 * noise && after > 6 * noise, "{before} -> {after}, noise {noise}");
    let check = store.check(true, &mut |_| {}).unwrap();
    assert!(check.ok, "{:?}", check.problems);
    let autos = head.autos.iter().map(|auto| auto.id);
    for id in autos.chain(explicit).chain(forked) {
        store.checkpoint(id).unwrap();
    }
}

/// A collection that is told what to keep thins out lines that rest and what was undone, and nothing
/// that somebody needs; saying so first changes nothing.
#[test]
fn what_a_collection_is_told_to_keep_is_kept_and_the_rest_goes() {
    let temporary = tempfile::tempdir().unwrap();
    let folder = temporary.path().join("repository");
    let (_, store, Head { version, .. }) = store_with_a_line(temporary.path());
    let all = keep("last=200");
    let grow = |name: &str, lease: bool, from: u64| {
        let mut head = Head { version, name: Name::new(name).unwrap(), ..head() };
        head.instance = InstanceId::from_bytes([from as u8; 16]);
        if !lease {
            (head.lease, head.state) = (None, InstanceState::Stopped);
        }
        head.holds = Vec::new();
        for number in from..from + 12 {
            let why = if number % 6 == 2 { Why::Checkpoint } else { Why::Auto };
            let id = store_checkpoint(&store, &head, why, number);
            head = line::advance(
                &head,
                Taken { id, why, taken_unix_ms: number * MINUTE_MS },
                &all,
                &[],
            );
        }
        let Advance::Done(at) = store.advance(Generation(0), &head).unwrap() else {
            panic!("nobody else moves it")
        };
        (at, head)
    };
    let (_, rests) = grow("rests", false, 0);
    let (_, runs) = grow("runs", true, 100);
    // Three branches: two that were undone, and what a crashed host had not stored.
    let mut undone = Vec::new();
    for (number, why) in [(50, Why::Undo), (51, Why::Undo), (52, Why::Suspend)] {
        let tip = store_checkpoint(&store, &rests, why, number);
        let autos = (0..3).map(|auto| AutoPoint {
            id: store_checkpoint(&store, &rests, Why::Auto, number * 100 + auto),
            taken_unix_ms: (number * 100 + auto) * MINUTE_MS,
            parent: rests.explicit(),
        });
        let left = Some(rests.autos[1].id);
        store.add_branch(&rests, tip, left, autos.collect()).unwrap();
        undone.push(tip);
    }
    let fork = Name::new("fork").unwrap();
    let origin = Some(rests.autos[3].id);
    let fork = Head { name: fork, origin, autos: Vec::new(), ..rests.clone() };
    let fork = Head { instance: InstanceId::from_bytes([9; 16]), ..fork };
    store.advance(Generation(0), &fork).unwrap();

    let policy = keep("last=1");
    let plan = store.plan_thinning(Some(&policy), None).unwrap();
    let noise = NOISE_PAGES * PAGE_BYTES as u64;
    let frees = store.thinning_frees(&plan).unwrap();
    // Of the line 10 but the last, the branches' start and the fork's; one branch with its tip; of the two
    // others 2 each.
    let gone = 10 - 3 + 4 + 4;
    assert!(frees > (gone - 1) * noise && frees < (gone + 1) * noise, "{} noises", frees / noise);
    let words = plan.words.join("; ");
    assert!(words.contains("rests: 7 of 10 automatic") && words.contains("runs: runs"), "{words}");
    assert!(words.contains("which was undone"), "{words}");
    assert_eq!(store.head(&rests.name).unwrap().head.unwrap().1, rests, "only said");
    let before = bytes_below(&folder);
    store.thin_out(plan).unwrap();
    for _ in 0..4 {
        store.gc().unwrap();
    }
    let freed = before - bytes_below(&folder);
    assert!(freed.abs_diff(frees) < 2 * noise, "{frees} were said, {freed} were freed");
    let check = store.check(true, &mut |_| {}).unwrap();
    assert!(check.ok, "{:?}", check.problems);
    let now = store.head(&rests.name).unwrap().head.unwrap().1;
    let stays: Vec<_> = now.autos.iter().map(|auto| auto.id).collect();
    assert_eq!(stays, [1, 3, 9].map(|at| rests.autos[at].id));
    assert_eq!(store.head(&runs.name).unwrap().head.unwrap().1, runs);
    let branches = store.branches(rests.instance).unwrap();
    let mut tips: Vec<_> = branches.iter().map(|branch| branch.checkpoint).collect();
    let mut expected = undone[1..].to_vec();
    tips.sort();
    expected.sort();
    assert_eq!(tips, expected);
    assert!(branches.iter().all(|branch| branch.head.autos.len() == 1));
    assert!(
        store
            .plan_thinning(Some(&policy), None)
            .unwrap()
            .words
            .iter()
            .all(|w| w.starts_with("runs"))
    );
}

/// The list that a head keeps is bounded, whatever a policy may say.
#[test]
fn a_head_with_as_many_as_can_be_is_written_and_read() {
    let keep = keep("last=200");
    let mut head = head();
    for number in 0..300 {
        let taken = Taken { id: id(number), why: Why::Auto, taken_unix_ms: number };
        let bases: Vec<_> = head.checkpoint.into_iter().collect();
        head = line::advance(&head, taken, &keep, &bases);
    }
    assert_eq!(head.autos.len(), 200);
    let body = host::record::encode_head(&head);
    assert!(body.len() < 256 << 10, "{}", body.len());
    assert_eq!(host::record::decode_head(&body), Ok(head.clone()));
    let autos = vec![AutoPoint { id: id(1), taken_unix_ms: 1, parent: None }; 513];
    let broken = Head { autos, ..head.clone() };
    assert!(host::record::decode_head(&host::record::encode_head(&broken)).is_err());
    let hold = Hold { host: HostId::from_bytes([1; 16]), checkpoint: id(1) };
    let held = Head { holds: vec![hold], autos: Vec::new(), auto: None, ..head };
    assert_eq!(host::record::decode_head(&host::record::encode_head(&held)), Ok(held));
}

/// A host that another one took an instance from may have writes on top of what somebody took. When
/// that is undone, no collection drops it, and no branch that has it goes without being forced.
#[test]
fn what_is_held_stays_on_a_branch_too() {
    let temporary = tempfile::tempdir().unwrap();
    let dir = HostDir::open(&temporary.path().join("host")).unwrap();
    let location = temporary.path().join("repository");
    let location = location.to_str().unwrap();
    let grace = Some(std::time::Duration::from_millis(1));
    Store::init(&dir, location, KeyPlace::None, grace).unwrap();
    let store = Store::open(&dir, location).unwrap();
    let mut session = store.session().unwrap();
    let blob = session.put_blob(b"version").unwrap();
    session.finish().unwrap();
    let version = VersionId::from_bytes(*blob.id.as_bytes());

    let mut line = Head { version, ..head() };
    let target = store_checkpoint(&store, &line, Why::Checkpoint, 1);
    line.checkpoint = Some(target);
    let held = store_checkpoint(&store, &line, Why::Checkpoint, 2);
    let mut undone = Head { checkpoint: Some(held), ..line.clone() };
    line::taken_over(&mut undone, HostId::from_bytes([7; 16]));
    let tip = store_checkpoint(&store, &undone, Why::Undo, 3);
    store.add_branch(&undone, tip, Some(target), Vec::new()).unwrap();
    // A newer one, so that the policy would drop the first; it began on that.
    let on_it = Head { checkpoint: Some(tip), ..undone.clone() };
    let other = store_checkpoint(&store, &on_it, Why::Undo, 4);
    store.add_branch(&undone, other, Some(tip), Vec::new()).unwrap();
    let stopped = Head { checkpoint: Some(target), lease: None, ..undone.clone() };
    let stopped = Head { state: InstanceState::Stopped, ..stopped };
    store.advance(Generation(0), &stopped).unwrap();

    let host = Host::with(dir, location);
    let rm = |id: CheckpointId, force| {
        let subject = format!("{}@{}", stopped.name, &id.to_string()[..12]);
        host.rm_branch(&Subject::parse(&subject).unwrap(), force)
    };
    store.thin_out(store.plan_thinning(Some(&keep("last=1")), None).unwrap()).unwrap();
    assert_eq!(store.branches(stopped.instance).unwrap().len(), 2);
    assert!(rm(tip, false).unwrap_err().message.contains("may have writes"));
    let (free, at) = (Head { holds: Vec::new(), ..stopped.clone() }, Generation(1));
    store.advance(at, &free).unwrap();
    let refused = rm(tip, false).unwrap_err();
    assert!(refused.message.contains("began on the branch"), "{refused:?}");
    assert!(rm(held, false).unwrap_err().hint.contains(&format!("rm t1@{}", tip.short())));
    assert!(rm(target, true).unwrap_err().message.contains("t1 is at"));

    // What it shares stays, for the other branch; and goes with that.
    assert_eq!(rm(tip, true).unwrap().name, format!("t1@{}", tip.short()));
    (0..4).for_each(|_| drop(store.gc().unwrap()));
    store.checkpoint(held).unwrap();
    rm(other, false).unwrap();
    let before = bytes_below(std::path::Path::new(location));
    (0..4).for_each(|_| drop(store.gc().unwrap()));
    let freed = before - bytes_below(std::path::Path::new(location));
    let noise = NOISE_PAGES * PAGE_BYTES as u64;
    assert!(freed.abs_diff(3 * noise) < noise / 2, "{freed}");
    assert!(store.check(true, &mut |_| {}).unwrap().ok);
    store.checkpoint(target).unwrap();
}

/// What somebody took stays, also where everything else is thinned out, until there is a policy for just
/// that; then what something else needs stays, and that the others were there is still known.
#[test]
fn what_somebody_took_goes_only_when_that_is_asked_for() {
    let temporary = tempfile::tempdir().unwrap();
    let folder = temporary.path().join("repository");
    let location = folder.to_str().unwrap();
    let (host, store, mut line) = store_with_a_line(temporary.path());
    let mut taken = Vec::new();
    for number in 0..12 {
        let id = store_checkpoint(&store, &line, Why::Checkpoint, number);
        line.checkpoint = Some(id);
        taken.push(id);
    }
    // A branch that left at the third, and a fork from the sixth, of before.
    let on_third = Head { checkpoint: Some(taken[2]), ..line.clone() };
    let tip = store_checkpoint(&store, &on_third, Why::Suspend, 20);
    store.add_branch(&on_third, tip, Some(taken[2]), Vec::new()).unwrap();
    store.advance(Generation(0), &line).unwrap();
    let instance = InstanceId::from_bytes([9; 16]);
    let fork = |name: &str, at: usize, parent: &Head| Head {
        name: Name::new(name).unwrap(),
        origin: Some(taken[at]),
        checkpoint: Some(taken[at]),
        instance,
        ..parent.clone()
    };
    let early = fork("early", 5, &line);
    store.advance(Generation(0), &early).unwrap();
    let gc = |keep: Option<&str>, taken: Option<&str>, dry_run| {
        let (keep, taken) = (keep.map(Keep::parse), taken.map(Keep::parse));
        let (keep, taken) = (keep.transpose().unwrap(), taken.transpose().unwrap());
        host.repo_gc(&host::GcOptions { keep, taken, dry_run, ..Default::default() }).unwrap()
    };
    let noise = NOISE_PAGES * PAGE_BYTES as u64;
    let whole = |id: CheckpointId| is_whole(&store, id);

    // Nobody asked for it.
    assert_eq!(gc(Some("last=1"), None, true).dropped, Vec::<String>::new());
    (0..4).for_each(|_| drop(gc(Some("last=1"), None, false)));
    assert!(taken.iter().all(|id| whole(*id)));

    // Up to the fork's origin all stays for the fork; of the six after it the newest two.
    let would = gc(None, Some("last=2"), true);
    assert_eq!(would.dropped, ["t1: 8 that somebody took"]);
    assert!(would.dropped_bytes.abs_diff(4 * noise) < noise / 2, "{}", would.dropped_bytes);
    assert_eq!(store.head(&line.name).unwrap().head.unwrap().1, line, "only said");
    let before = bytes_below(&folder);
    gc(None, Some("last=2"), false);
    (0..4).for_each(|_| drop(gc(None, None, false)));
    let freed = before - bytes_below(&folder);
    assert!(freed.abs_diff(4 * noise) < noise / 2, "{freed}");
    let kept: Vec<usize> = (0..12).filter(|at| whole(taken[*at])).collect();
    assert_eq!(kept, [0, 1, 2, 3, 4, 5, 10, 11]);
    assert!(store.check(true, &mut |_| {}).unwrap().ok);
    let dir = HostDir::open(&temporary.path().join("host")).unwrap();
    assert!(Store::mend(&dir, location, &[], &mut |_| {}).unwrap().ok);

    // When the fork is away, the branch keeps where it left, and nothing before that.
    let at = store.head(&early.name).unwrap().head.unwrap().0;
    store.retire(at, &early.name).unwrap();
    (0..4).for_each(|_| drop(gc(None, Some("last=2"), false)));
    let kept: Vec<usize> = (0..12).filter(|at| whole(taken[*at])).collect();
    assert_eq!(kept, [2, 10, 11]);

    // It is known what was there, and said what is near.
    let now = store.head(&line.name).unwrap().head.unwrap().1;
    let history = host.history(&line.name).unwrap();
    assert_eq!(history.len(), 13);
    assert_eq!(history.iter().filter(|line| line.gone).count(), 9);
    let refused = store.find_checkpoint(&now, &taken[7].to_string()).unwrap_err();
    assert_eq!(refused.kind, "gone");
    assert!(refused.hint.contains(&taken[2].short()) && refused.hint.contains(&taken[10].short()));
    assert_eq!(store.find_checkpoint(&now, &taken[10].to_string()), Ok(taken[10]));

    // A fork of now knows what it has not; and is whole, with what leads to it.
    let late = fork("late", 11, &now);
    store.advance(Generation(0), &late).unwrap();
    (0..4).for_each(|_| drop(gc(None, Some("last=1"), false)));
    assert!(store.check(true, &mut |_| {}).unwrap().ok);
    assert!(whole(taken[11]));
}

/// What its user says of an instance holds for it alone, at each collection, whether or not that is told something.
#[test]
fn a_collection_does_what_an_instance_says_of_what_somebody_took() {
    let temporary = tempfile::tempdir().unwrap();
    let (host, store, line) = store_with_a_line(temporary.path());
    let mut all = Vec::new();
    for (number, name) in [(0, "says"), (20, "silent")] {
        let mut line = Head { name: Name::new(name).unwrap(), ..line.clone() };
        line.instance = InstanceId::from_bytes([number + 1; 16]);
        for more in 0..5 {
            let number = u64::from(number) + more;
            line.checkpoint = Some(store_checkpoint(&store, &line, Why::Checkpoint, number));
            all.extend(line.checkpoint);
        }
        line.keep_taken = (name == "says").then(|| keep("last=2"));
        store.advance(Generation(0), &line).unwrap();
    }
    let options = host::GcOptions { dry_run: true, ..Default::default() };
    assert_eq!(host.repo_gc(&options).unwrap().dropped, ["says: 3 that somebody took"]);
    (0..4).for_each(|_| drop(host.repo_gc(&host::GcOptions::default()).unwrap()));
    let whole: Vec<usize> = (0..10).filter(|at| is_whole(&store, all[*at])).collect();
    assert_eq!(whole, [3, 4, 5, 6, 7, 8, 9]);
    // What is told is for who says nothing.
    collect(&host, "last=1");
    let whole: Vec<usize> = (0..10).filter(|at| is_whole(&store, all[*at])).collect();
    assert_eq!(whole, [3, 4, 9]);
    assert!(store.check(true, &mut |_| {}).unwrap().ok);
}

/// One checkpoint goes where somebody names it, and nothing that something needs.
#[test]
fn one_checkpoint_is_removed_and_what_is_needed_is_refused() {
    let temporary = tempfile::tempdir().unwrap();
    let (host, store, mut line) = store_with_a_line(temporary.path());
    let update = Change {
        from: line.version,
        to: line.version,
        back: None,
        tried: true,
        within_s: 60,
        migrate: Vec::new(),
        health: Vec::new(),
    };
    let mut taken = Vec::new();
    for number in 0..10 {
        let change = (number == 2).then(|| update.clone());
        let id = store_update(&store, &line, Why::Checkpoint, number, change);
        line.checkpoint = Some(id);
        taken.push(id);
    }
    let auto = store_checkpoint(&store, &line, Why::Auto, 10);
    line.autos = vec![AutoPoint { id: auto, taken_unix_ms: 10, parent: line.checkpoint }];
    // A branch that began at the fifth, a fork from the sixth, and a host that may rest on the seventh.
    let on_fifth = Head { checkpoint: Some(taken[4]), autos: Vec::new(), ..line.clone() };
    let tip = store_checkpoint(&store, &on_fifth, Why::Suspend, 20);
    store.add_branch(&on_fifth, tip, Some(taken[4]), Vec::new()).unwrap();
    line.holds = vec![Hold { host: HostId::from_bytes([7; 16]), checkpoint: taken[6] }];
    store.advance(Generation(0), &line).unwrap();
    let (name, instance) = (Name::new("fork").unwrap(), InstanceId::from_bytes([9; 16]));
    let (origin, autos) = (Some(taken[5]), Vec::new());
    let fork = Head { name, instance, origin, checkpoint: origin, autos, ..line.clone() };
    store.advance(Generation(0), &Head { holds: Vec::new(), ..fork }).unwrap();

    let rm = |id: CheckpointId, force| {
        let subject = format!("t1@{}", &id.to_string()[..16]);
        host.rm_branch(&Subject::parse(&subject).unwrap(), force)
    };
    let refused = |at: usize, why: &str| {
        let failure = rm(taken[at], false).unwrap_err();
        assert!(failure.message.contains(why) && !failure.hint.is_empty(), "{at}: {failure:?}");
    };
    refused(1, "an update of t1 goes back to");
    refused(2, "has the label \"update\"");
    refused(4, "the branch");
    refused(5, "fork was forked from");
    refused(6, "may have writes that rest on");
    // It may rest on what is shortly before that, and not have said so yet.
    refused(4, "began at");
    refused(9, "t1 is at");
    let generation = store.head(&line.name).unwrap().head.unwrap().0;
    assert_eq!(generation, Generation(1), "what is refused changes nothing");

    assert_eq!(rm(auto, false).unwrap().state, "removed");
    for at in [0, 3, 7, 8] {
        rm(taken[at], false).unwrap();
    }
    assert_eq!(rm(taken[3], false).unwrap_err().kind, "gone");
    (0..4).for_each(|_| drop(host.repo_gc(&host::GcOptions::default()).unwrap()));
    let whole = || (0..10).filter(|at| is_whole(&store, taken[*at])).collect::<Vec<_>>();
    // What is before the origin of a fork is the fork's too, as long as that is there.
    assert_eq!(whole(), [0, 1, 2, 3, 4, 5, 6, 9]);
    host.rm(&Name::new("fork").unwrap(), false).unwrap();
    (0..4).for_each(|_| drop(host.repo_gc(&host::GcOptions::default()).unwrap()));
    assert_eq!(whole(), [1, 2, 4, 5, 6, 9]);
    let history = host.history(&line.name).unwrap();
    assert_eq!(history.iter().filter(|line| line.gone).count(), 4);
    assert!(store.check(true, &mut |_| {}).unwrap().ok);
}

/// What is gone is noted in the head, which has a bound: then it is said that the rest stays.
#[test]
fn no_more_is_gone_than_a_head_can_say() {
    let temporary = tempfile::tempdir().unwrap();
    let (host, store, mut line) = store_with_a_line(temporary.path());
    let mut taken = Vec::new();
    for number in 0..4 {
        line.checkpoint = Some(store_checkpoint(&store, &line, Why::Checkpoint, number));
        taken.extend(line.checkpoint);
    }
    line.gone = (0..1023).map(|_| taken[0]).collect();
    store.advance(Generation(0), &line).unwrap();
    let taken_keep = Some(keep("last=1"));
    let options = host::GcOptions { taken: taken_keep, ..Default::default() };
    let dropped = host.repo_gc(&options).unwrap().dropped;
    assert_eq!(
        dropped,
        [
            "t1: 1 more stay: no more than 1024 can be gone of one instance",
            "t1: 1 that somebody took"
        ]
    );
    let subject = Subject::parse(&format!("t1@{}", &taken[2].to_string()[..16])).unwrap();
    let refused = host.rm_branch(&subject, false).unwrap_err();
    assert!(refused.message.contains("no more can be"), "{refused:?}");
    assert!(is_whole(&store, taken[2]));
}

/// A store with a version, and an empty line of it.
fn store_with_a_line(folder: &std::path::Path) -> (Host, Store, Head) {
    let dir = HostDir::open(&folder.join("host")).unwrap();
    let location = folder.join("repository");
    let location = location.to_str().unwrap();
    let grace = Some(std::time::Duration::from_millis(1));
    Store::init(&dir, location, KeyPlace::None, grace).unwrap();
    let store = Store::open(&dir, location).unwrap();
    let mut session = store.session().unwrap();
    let blob = session.put_blob(b"version").unwrap();
    session.finish().unwrap();
    let version = VersionId::from_bytes(*blob.id.as_bytes());
    let line = Head { version, lease: None, state: InstanceState::Stopped, ..head() };
    (Host::with(dir, location), store, line)
}

fn collect(host: &Host, taken: &str) {
    for taken in [Some(taken), None, None, None, None] {
        let taken = taken.map(keep);
        host.repo_gc(&host::GcOptions { taken, ..Default::default() }).unwrap();
    }
}

fn is_whole(store: &Store, id: CheckpointId) -> bool {
    let checkpoint = store.checkpoint(id).unwrap();
    store.source().fetch(&checkpoint.disks[0].into(), chunk::Urgency::Urgent).is_ok()
}

#[test]
fn what_an_update_goes_back_to_stays_as_long_as_the_update_does() {
    let temporary = tempfile::tempdir().unwrap();
    let (host, store, mut line) = store_with_a_line(temporary.path());
    let update = || Change {
        from: line.version,
        to: line.version,
        back: None,
        tried: true,
        within_s: 60,
        migrate: Vec::new(),
        health: Vec::new(),
    };
    // Two updates of it, each after a stop that bears no label.
    let changes = [None, None, Some(update()), None, None, Some(update()), None, None];
    let mut taken = Vec::new();
    for (number, change) in changes.into_iter().enumerate() {
        let id = store_update(&store, &line, Why::Stop, number as u64, change);
        line.checkpoint = Some(id);
        taken.push(id);
    }
    store.advance(Generation(0), &line).unwrap();
    collect(&host, "last=1");
    let whole: Vec<usize> = (0..8).filter(|at| is_whole(&store, taken[*at])).collect();
    assert_eq!(whole, [1, 2, 4, 5, 7]);
    assert!(store.check(true, &mut |_| {}).unwrap().ok);
}

#[test]
fn a_host_that_comes_back_late_claims_nothing_that_is_gone() {
    comes_back_late(|mut line, host| {
        line::taken_over(&mut line, host);
        line
    });
}

/// The host that a guest moved from, whose line went on without what is in its parcel.
#[test]
fn a_parcel_that_comes_late_still_has_what_it_rests_on() {
    comes_back_late(|line, host| {
        let chunks = Blob { id: ChunkId::from_bytes([8; 32]), bytes: 32, blake3: [9; 32] };
        let parcel = Parcel {
            checkpoint: CheckpointId::from_bytes([9; 32]),
            chunks,
            host,
            host_name: "h1".to_owned(),
            peer: "i1.h1.x".to_owned(),
            address: "192.0.2.1:1".to_owned(),
        };
        line::without_parcel(Head { parcel: Some(parcel), ..line })
    });
}

fn comes_back_late(takes_over: impl Fn(Head, HostId) -> Head) {
    let temporary = tempfile::tempdir().unwrap();
    let (host, store, mut line) = store_with_a_line(temporary.path());
    let mut taken = Vec::new();
    for number in 0..6 {
        line.checkpoint = Some(store_checkpoint(&store, &line, Why::Checkpoint, number));
        taken.push(line.checkpoint.unwrap());
    }
    // Its head, as this host knows it; then another one takes over, and goes on.
    let late = Head { lease: Some(lease(1)), ..line.clone() };
    let mut line = takes_over(line, lease(1).holder);
    for number in 6..8 {
        line.checkpoint = Some(store_checkpoint(&store, &line, Why::Checkpoint, number));
        taken.push(line.checkpoint.unwrap());
    }
    store.advance(Generation(0), &line).unwrap();
    collect(&host, "last=1");
    let whole: Vec<usize> = (0..8).filter(|at| is_whole(&store, taken[*at])).collect();
    // Also two before what it was seen to hold: it may be based on them still.
    assert_eq!(whole, [3, 4, 5, 7]);

    let tip = store_checkpoint(&store, &late, Why::Suspend, 20);
    store.add_branch(&late, tip, late.explicit(), Vec::new()).unwrap();
    let branch = store.branches(line.instance).unwrap().remove(0);
    assert!(taken[..3].iter().all(|id| branch.head.gone.contains(id)));
    assert!(store.check(true, &mut |_| {}).unwrap().ok);
    collect(&host, "last=1");
    assert!(is_whole(&store, tip) && is_whole(&store, taken[5]));
    assert!(store.check(true, &mut |_| {}).unwrap().ok);
}
