//! Collecting: what is garbage goes, what is needed stays, also while others write.

mod common;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use chunk::{ChunkSink, ChunkSource, Put, Urgency, id_of};
use common::{again, assert_whole, init, page, publish, store, verify};
use model::Generation;
use objects::{Memory, Objects};
use repository::{GcOptions, RefError, RefPayload, Repository, RepositoryError, Target};

const GRACE_MS: u64 = 1_000;

fn memory() -> (Arc<Memory>, Arc<dyn Objects>, Repository) {
    let memory = Arc::new(Memory::new());
    let objects: Arc<dyn Objects> = Arc::clone(&memory) as _;
    let repository = init(&objects, GRACE_MS);
    (memory, objects, repository)
}

fn options() -> GcOptions {
    GcOptions { keep_generations: 1, ..GcOptions::default() }
}

#[test]
fn garbage_goes_in_two_phases_and_the_rest_stays() {
    let (memory, objects, repository) = memory();
    let kept = publish(&repository, "kept", 0..300).unwrap();
    publish(&repository, "gone", 1000..1300).unwrap();
    let before = repository.stats().unwrap();
    assert_eq!(before.logical_bytes, 600 * 4096);
    let gone = repository.refs().current("instance", "gone").unwrap().unwrap();
    repository.refs().remove("instance", "gone", gone).unwrap();

    // Too young: nothing happens.
    let stats = repository.gc(options()).unwrap();
    assert_eq!((stats.condemned_packs, stats.removed_packs), (0, 0), "{stats:?}");
    memory.advance_ms(2 * GRACE_MS);
    let stats = repository.gc(options()).unwrap();
    assert_eq!((stats.condemned_packs, stats.removed_packs), (1, 0), "{stats:?}");
    assert_eq!(stats.deleted_generations, 1);
    let stats = repository.gc(options()).unwrap();
    assert_eq!((stats.condemned_packs, stats.removed_packs), (0, 0), "{stats:?}");
    memory.advance_ms(2 * GRACE_MS);
    let stats = repository.gc(options()).unwrap();
    assert_eq!((stats.condemned_packs, stats.removed_packs), (0, 1), "{stats:?}");

    let after = repository.stats().unwrap();
    assert_eq!(after.logical_bytes, 300 * 4096);
    assert!(after.stored_bytes * 3 < before.stored_bytes * 2, "{before:?} {after:?}");
    let other = again(&repository, &objects).unwrap();
    verify(&other, kept, 0..300);
    assert_whole(&other);
    assert!(other.fetch(&id_of(&page(1000)), Urgency::Urgent).is_err());
    assert_eq!(objects.list("gc").unwrap(), []);
}

#[test]
fn what_is_needed_again_is_revived() {
    let (memory, objects, repository) = memory();
    let here = again(&repository, &objects).unwrap();
    publish(&repository, "a", 0..300).unwrap();
    // A session that deduplicates before the condemnation, and writes its ref after it.
    here.refresh().unwrap();
    let gone = repository.refs().current("instance", "a").unwrap().unwrap();
    let mut writer = here.writer().unwrap();
    let id = store(&here, &mut writer, 0..300).unwrap();
    repository.refs().remove("instance", "a", gone).unwrap();
    memory.advance_ms(2 * GRACE_MS);
    assert_eq!(repository.gc(options()).unwrap().condemned_packs, 1);
    // A session that begins now does not rely on what is condemned.
    let mut late = repository.writer().unwrap();
    assert_eq!(late.put(id_of(&page(5)), &page(5)), Ok(Put::Stored));
    drop(late);
    let stats = writer.finish().unwrap();
    assert_eq!(stats.packs, 0, "everything was reused");
    let payload = RefPayload { roots: vec![Target::Manifest(id)], body: vec![] };
    here.refs().advance("instance", "b", Generation(0), &payload).unwrap();
    memory.advance_ms(2 * GRACE_MS);
    let stats = repository.gc(options()).unwrap();
    assert_eq!(stats.removed_packs, 0, "{stats:?}");
    memory.advance_ms(2 * GRACE_MS);
    repository.gc(options()).unwrap();
    let other = again(&repository, &objects).unwrap();
    verify(&other, id, 0..300);
    assert_whole(&other);
}

#[test]
fn roots_that_are_only_remembered_are_held_too() {
    let (memory, objects, repository) = memory();
    let id = publish(&repository, "a", 0..300).unwrap();
    publish(&repository, "b", 0..2).unwrap();
    let gone = repository.refs().current("instance", "a").unwrap().unwrap();
    repository.refs().remove("instance", "a", gone).unwrap();
    memory.advance_ms(2 * GRACE_MS);
    assert_eq!(repository.gc(options()).unwrap().condemned_packs, 1);
    // No ref names it any more, and no session stored it: the caller knows it from elsewhere.
    let here = again(&repository, &objects).unwrap();
    let payload = RefPayload { roots: vec![Target::Manifest(id)], body: vec![] };
    memory.advance_ms(2 * GRACE_MS);
    for (name, from) in [("undone", Generation(0)), ("b", Generation(1))] {
        here.refs().advance("instance", name, from, &payload).unwrap();
    }
    assert_eq!(repository.gc(options()).unwrap().removed_packs, 0);
    verify(&again(&repository, &objects).unwrap(), id, 0..300);
    // What is gone is refused.
    for name in ["undone", "b"] {
        let at = here.refs().current("instance", name).unwrap().unwrap();
        here.refs().remove("instance", name, at).unwrap();
    }
    for _ in 0..2 {
        memory.advance_ms(2 * GRACE_MS);
        repository.gc(options()).unwrap();
    }
    publish(&repository, "c", 900..902).unwrap();
    let at = here.refs().current("instance", "c").unwrap().unwrap();
    here.refs().remove("instance", "c", at).unwrap();
    memory.advance_ms(2 * GRACE_MS);
    repository.gc(options()).unwrap();
    let refused = here.refs().advance("instance", "d", Generation(0), &payload).unwrap_err();
    assert!(refused.to_string().contains("store again"), "{refused}");
}

#[test]
fn a_session_that_slept_too_long_is_told_and_can_store_again() {
    let (memory, objects, repository) = memory();
    let here = again(&repository, &objects).unwrap();
    publish(&repository, "a", 0..300).unwrap();
    here.refresh().unwrap();
    let gone = repository.refs().current("instance", "a").unwrap().unwrap();
    let mut writer = here.writer().unwrap();
    store(&here, &mut writer, 0..300).unwrap();
    repository.refs().remove("instance", "a", gone).unwrap();
    for _ in 0..3 {
        memory.advance_ms(2 * GRACE_MS);
        repository.gc(options()).unwrap();
    }
    let stale = writer.finish().unwrap_err();
    assert!(matches!(stale, RepositoryError::Stale { .. }), "{stale}");
    let id = publish(&here, "b", 0..300).unwrap();
    verify(&again(&repository, &objects).unwrap(), id, 0..300);
    assert_whole(&repository);
}

#[test]
fn the_leavings_of_the_dead_are_collected() {
    let (memory, objects, repository) = memory();
    let kept = publish(&repository, "kept", 0..50).unwrap();
    // A pack that no index lists: its writer died.
    let dead = again(&repository, &objects).unwrap();
    let faults = Arc::new(objects::Faults::new(Arc::clone(&objects)));
    let mut writer = again(&dead, &(Arc::clone(&faults) as _)).unwrap().writer().unwrap();
    store(&dead, &mut writer, 5000..5100).unwrap();
    faults.crash_at_write(faults.writes() + 1);
    writer.finish().unwrap_err();
    assert_eq!(objects.list("packs").unwrap().len(), 2);
    for expected in [2, 2, 1] {
        memory.advance_ms(2 * GRACE_MS);
        repository.gc(options()).unwrap();
        let _ = expected;
    }
    assert_eq!(objects.list("packs").unwrap().len(), 1);
    verify(&repository, kept, 0..50);
    assert_whole(&repository);
}

#[test]
fn mostly_dead_packs_and_many_tiny_ones_are_rewritten() {
    let (memory, objects, repository) = memory();
    publish(&repository, "a", 0..400).unwrap();
    let small = publish(&repository, "b", 0..60).unwrap();
    let gone = repository.refs().current("instance", "a").unwrap().unwrap();
    repository.refs().remove("instance", "a", gone).unwrap();
    let before = repository.stats().unwrap();
    let mut repacked = 0;
    for _ in 0..4 {
        memory.advance_ms(2 * GRACE_MS);
        repacked += repository.gc(options()).unwrap().repacked_packs;
    }
    assert!(repacked > 0);
    let after = repository.stats().unwrap();
    assert!(after.stored_bytes * 2 < before.stored_bytes, "{before:?} {after:?}");
    verify(&repository, small, 0..60);

    let many: Vec<_> = (0..40u64)
        .map(|n| publish(&repository, &format!("n{n}"), 9000 + n * 10..9003 + n * 10).unwrap())
        .collect();
    assert!(objects.list("packs").unwrap().len() > 40);
    let mut compacted = 0;
    for _ in 0..4 {
        memory.advance_ms(2 * GRACE_MS);
        compacted += repository.gc(options()).unwrap().compacted_index_objects;
    }
    assert!(compacted >= 32);
    assert!(objects.list("packs").unwrap().len() <= 3, "{:?}", objects.list("packs"));
    assert!(objects.list("index").unwrap().len() <= 10, "{:?}", objects.list("index"));
    let other = again(&repository, &objects).unwrap();
    for (n, id) in many.into_iter().enumerate() {
        let n = n as u64;
        verify(&other, id, 9000 + n * 10..9003 + n * 10);
    }
    assert_whole(&other);
    assert_whole(&repository);
}

#[test]
fn a_damaged_repository_is_not_collected() {
    let (memory, objects, repository) = memory();
    publish(&repository, "a", 0..300).unwrap();
    let pack = objects.list("packs").unwrap()[0].key.clone();
    objects.delete(&pack).unwrap();
    memory.advance_ms(2 * GRACE_MS);
    let error = repository.gc(options()).unwrap_err();
    assert!(error.to_string().contains("nothing was collected"), "{error}");
}

/// Writers publish, drop and republish overlapping content while collectors run all the time
/// with a tiny grace age; in the end every ref that stands is whole.
fn race(objects: Arc<dyn Objects>, grace_ms: u64, advance: impl Fn() + Send + Sync + 'static) {
    let repository = init(&objects, grace_ms);
    let done = Arc::new(AtomicBool::new(false));
    let removed = Arc::new(AtomicU64::new(0));
    // Opened before anything is collected: opening probes, and so short a grace age may end a
    // probe on a busy machine.
    let open = || again(&repository, &objects).unwrap();
    let (collects, writes) = (open(), [open(), open(), open()]);
    let collector = {
        let (repository, done) = (collects, Arc::clone(&done));
        let removed = Arc::clone(&removed);
        std::thread::spawn(move || {
            while !done.load(Ordering::Relaxed) {
                advance();
                let stats = repository.gc(options()).unwrap();
                removed.fetch_add(stats.removed_packs, Ordering::Relaxed);
            }
        })
    };
    let writers: Vec<_> = (0u64..)
        .zip(writes)
        .map(|(writer, repository)| {
            let removed = Arc::clone(&removed);
            std::thread::spawn(move || {
                let mut expected: Vec<(String, model::ManifestId, u64)> = Vec::new();
                let (mut stale, mut published) = (0, 0);
                // Until there was a race, however the machine shares its time among them.
                let raced = || removed.load(Ordering::Relaxed) > 0;
                for round in (0..4000u64).take_while(|round| *round < 40 || !raced()) {
                    let name = format!("w{writer}-{}", round % 5);
                    // Overlaps with what others store and drop, and is new every few rounds: else
                    // all that there is would soon be in use for ever, and nothing to collect.
                    let first = round / 8 * 1000 + (round % 4) * 20 + writer * 10;
                    match publish(&repository, &name, first..first + 40) {
                        Ok(id) => {
                            published += 1;
                            // A collector may already be at it: read all of it back, now.
                            verify(&repository, id, first..first + 40);
                            expected.retain(|(n, ..)| *n != name);
                            expected.push((name, id, first));
                        }
                        Err(error) => {
                            assert!(error.to_string().contains("store again"), "{error}");
                            stale += 1;
                        }
                    }
                    if round % 3 == 0 && expected.len() > 2 {
                        let (name, ..) = expected.remove(0);
                        let refs = repository.refs();
                        let at = refs.current("instance", &name).unwrap().unwrap();
                        refs.remove("instance", &name, at).unwrap();
                    }
                }
                assert!(published > stale, "{published} published, {stale} stale");
                expected
            })
        })
        .collect();
    let expected: Vec<_> = writers.into_iter().flat_map(|w| w.join().unwrap()).collect();
    done.store(true, Ordering::Relaxed);
    collector.join().unwrap();
    assert!(removed.load(Ordering::Relaxed) > 0, "the collector did collect");
    let other = again(&repository, &objects).unwrap();
    for (name, id, first) in expected {
        assert!(other.refs().read("instance", &name).unwrap().is_some(), "{name}");
        verify(&other, id, first..first + 40);
    }
    assert_whole(&other);
}

#[test]
fn collectors_race_writers_in_memory() {
    // The store's clock is real time here: each run moves it by what has passed.
    let memory = Arc::new(Memory::new());
    let clock = Arc::clone(&memory);
    let begun = std::sync::Mutex::new(ambient::now());
    race(memory, 300, move || {
        let mut last = begun.lock().unwrap();
        let elapsed = ambient::now().duration_since(*last);
        *last = ambient::now();
        clock.advance_ms(elapsed.as_millis() as u64);
    });
}

#[test]
fn collectors_race_writers_in_a_folder() {
    let dir = tempfile::tempdir().unwrap();
    let objects = objects::create(dir.path().join("repo").to_str().unwrap()).unwrap();
    race(objects, 300, || ());
}

/// A store that does not answer is no damage, and nothing is gone: who is told so would look for
/// what is not there.
#[test]
fn a_store_that_does_not_answer_is_said_to_be_away_and_nothing_else() {
    let (memory, objects, repository) = memory();
    publish(&repository, "gone", 1000..1300).unwrap();
    let kept = publish(&repository, "a", 0..300).unwrap();
    let gone = repository.refs().current("instance", "gone").unwrap().unwrap();
    repository.refs().remove("instance", "gone", gone).unwrap();
    memory.advance_ms(2 * GRACE_MS);
    // With a pack condemned, whoever writes a ref walks through all that it names.
    assert_eq!(repository.gc(options()).unwrap().condemned_packs, 1);
    let payload = RefPayload { roots: vec![Target::Manifest(kept)], body: vec![] };
    let mut failed = [0; 4];
    for seed in 1..80 {
        let faults = Arc::new(objects::Faults::new(objects.clone()));
        let unreliable: Arc<dyn Objects> = faults.clone();
        let host = again(&repository, &unreliable).unwrap();
        faults.unreliable(seed, 150);
        let name = format!("b{seed}");
        let advanced = host.refs().advance("instance", &name, Generation(0), &payload);
        let advanced = advanced.map_err(|error| match error {
            RefError::Repository(error) => error,
            fenced => panic!("{fenced}"),
        });
        let checked = host.check(true, &mut |_| ()).map(|report| {
            assert_eq!(report.problems, [], "seed {seed}");
        });
        let counted = host.stats().map(drop);
        let collected = host.gc(options()).map(drop);
        let outcomes = [advanced.map(drop), checked, counted, collected];
        for (failed, outcome) in failed.iter_mut().zip(outcomes) {
            if let Err(error) = outcome {
                assert!(error.is_away(), "seed {seed}: {error}");
                *failed += 1;
            }
        }
    }
    assert!(failed.iter().all(|failed| *failed > 10), "{failed:?}");
}

/// The other way round: what is damaged is said to be so, and not to be gone.
#[test]
fn a_ref_that_would_name_something_damaged_is_refused_as_that() {
    let (memory, objects, repository) = memory();
    publish(&repository, "gone", 1000..1300).unwrap();
    let kept = publish(&repository, "a", 0..300).unwrap();
    let gone = repository.refs().current("instance", "gone").unwrap().unwrap();
    repository.refs().remove("instance", "gone", gone).unwrap();
    memory.advance_ms(2 * GRACE_MS);
    assert_eq!(repository.gc(options()).unwrap().condemned_packs, 1);
    let faults = Arc::new(objects::Faults::new(objects.clone()));
    let bad: Arc<dyn Objects> = faults.clone();
    let host = again(&repository, &bad).unwrap();
    faults.flip(Some(objects::FlipEvery { prefix: "packs".to_owned(), bit: 12_345 }));
    let payload = RefPayload { roots: vec![Target::Manifest(kept)], body: vec![] };
    let refused = host.refs().advance("instance", "b", Generation(0), &payload).unwrap_err();
    assert!(
        matches!(refused, RefError::Repository(RepositoryError::Damaged { .. })),
        "{refused:?}"
    );
}
