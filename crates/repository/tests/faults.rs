//! Crashes at every write, damage of every object, a full store, a store that goes away.

mod common;

use std::sync::Arc;

use bytes::Bytes;
use chunk::{ChunkSource, FetchError, SinkError, Urgency, id_of};
use common::{again, assert_whole, init, page, publish, store, verify};
use model::Generation;
use objects::{Faults, FlipEvery, Memory, ObjectError, Objects};
use repository::{GcOptions, Open, RefError, RefPayload, Repository, RepositoryError, Target};

const GRACE_MS: u64 = 1_000;

fn as_objects<T: Objects + 'static>(objects: &Arc<T>) -> Arc<dyn Objects> {
    Arc::clone(objects) as _
}

/// Runs `act` on a copy of `image`, dying before each of its writes in turn; gives the store as
/// it is after each death, and last after the whole of it.
fn every_prefix(
    image: &Memory,
    key_of: &Repository,
    act: impl Fn(&Repository) -> Result<(), Box<dyn std::error::Error + Send + Sync>>,
) -> Vec<Arc<Memory>> {
    let mut images = Vec::new();
    for n in 0..1000 {
        let memory = Arc::new(image.image());
        let faults = Arc::new(Faults::new(as_objects(&memory)));
        let repository = again(key_of, &as_objects(&faults)).unwrap();
        faults.crash_at_write(faults.writes() + n);
        let result = act(&repository);
        images.push(memory);
        if result.is_ok() {
            return images;
        }
    }
    panic!("it never ends")
}

#[test]
fn a_crash_in_a_store_session_leaves_old_or_new() {
    let memory = Arc::new(Memory::new());
    let repository = init(&as_objects(&memory), GRACE_MS);
    let old = publish(&repository, "a", 0..100).unwrap();
    let images = every_prefix(&memory, &repository, |r| publish(r, "a", 50..200).map(drop));
    assert!(images.len() >= 4, "{} images", images.len());
    let mut seen_new = false;
    for image in &images {
        let opened = again(&repository, &as_objects(image)).unwrap();
        assert_whole(&opened);
        let value = opened.refs().read("instance", "a").unwrap().unwrap();
        verify(&opened, old, 0..100);
        match value.generation {
            Generation(1) => assert!(!seen_new),
            Generation(2) => seen_new = true,
            other => panic!("{other}"),
        }
        // And whoever comes next can do it all again.
        let id = publish(&opened, "a", 50..200).unwrap();
        verify(&opened, id, 50..200);
        assert_whole(&opened);
    }
    assert!(seen_new);
}

#[test]
fn a_crash_in_a_collection_loses_nothing() {
    let memory = Arc::new(Memory::new());
    let repository = init(&as_objects(&memory), GRACE_MS);
    let options = GcOptions { keep_generations: 1, ..GcOptions::default() };
    let kept = publish(&repository, "kept", 0..100).unwrap();
    publish(&repository, "gone", 500..900).unwrap();
    let part = publish(&repository, "part", 500..600).unwrap();
    let gone = repository.refs().current("instance", "gone").unwrap().unwrap();
    repository.refs().remove("instance", "gone", gone).unwrap();
    for n in 0..33 {
        publish(&repository, "kept", 0..100 + n % 2).unwrap();
    }
    publish(&repository, "kept", 0..100).unwrap();
    // Round after round: condemn and rewrite, remove, delete what is superseded.
    let mut image = memory.image();
    for round in 0..4 {
        image.advance_ms(2 * GRACE_MS);
        let images = every_prefix(&image, &repository, |r| Ok(r.gc(options).map(drop)?));
        assert!(images.len() > 2, "round {round}: {} images", images.len());
        for after in &images {
            let opened = again(&repository, &as_objects(after)).unwrap();
            assert_whole(&opened);
            verify(&opened, kept, 0..100);
            verify(&opened, part, 500..600);
            // The next collection goes on from there.
            after.advance_ms(2 * GRACE_MS);
            opened.gc(options).unwrap();
            assert_whole(&again(&repository, &as_objects(after)).unwrap());
        }
        let whole = Arc::new(image.image());
        again(&repository, &as_objects(&whole)).unwrap().gc(options).unwrap();
        image = whole.image();
    }
}

#[test]
fn lost_answers_are_errors_that_can_be_repeated() {
    let memory = Arc::new(Memory::new());
    let repository = init(&as_objects(&memory), GRACE_MS);
    publish(&repository, "a", 0..100).unwrap();
    // Pack, index, ref, hint.
    for n in 0..4 {
        let memory = Arc::new(memory.image());
        let faults = Arc::new(Faults::new(as_objects(&memory)));
        let opened = again(&repository, &as_objects(&faults)).unwrap();
        faults.lose_answer_at_write(faults.writes() + n);
        let _ = publish(&opened, "a", 50..200);
        assert_whole(&again(&repository, &as_objects(&memory)).unwrap());
        let id = publish(&opened, "a", 50..200).unwrap();
        verify(&again(&repository, &as_objects(&memory)).unwrap(), id, 50..200);
    }
}

/// Who is not told that a ref was advanced, and tries again, goes on from there: nobody else did it. Who has not
/// tried is told that somebody else did.
#[test]
fn who_was_not_told_of_its_own_advance_is_not_fenced_by_it() {
    let memory = Arc::new(Memory::new());
    let repository = init(&as_objects(&memory), GRACE_MS);
    let faults = Arc::new(Faults::new(as_objects(&memory)));
    let opened = again(&repository, &as_objects(&faults)).unwrap();
    let other = again(&repository, &as_objects(&memory)).unwrap();
    let says = |body: &[u8]| RefPayload { roots: Vec::new(), body: body.to_vec() };
    let advance = |repository: &Repository, from, body: &[u8]| {
        repository.refs().advance("instance", "a", Generation(from), &says(body))
    };
    let read = || {
        let value = repository.refs().read("instance", "a").unwrap().unwrap();
        (value.generation.0, value.body)
    };
    assert_eq!(advance(&opened, 0, b"first").unwrap(), Generation(1));
    faults.lose_answer_at_write(faults.writes());
    let lost = advance(&opened, 1, b"second").unwrap_err();
    assert!(!matches!(lost, RefError::Fenced { .. }), "{lost:?}");
    assert_eq!(read(), (2, b"second".to_vec()));
    assert!(matches!(advance(&other, 1, b"other"), Err(RefError::Fenced { .. })));
    assert_eq!(advance(&opened, 1, b"third").unwrap(), Generation(3));
    assert_eq!(read(), (3, b"third".to_vec()));
    // It was told of that one: whoever goes on from before it did not read it.
    assert!(matches!(advance(&opened, 2, b"late"), Err(RefError::Fenced { .. })));
    assert!(matches!(advance(&opened, 1, b"late"), Err(RefError::Fenced { .. })));
    // Somebody else went on from what it was not told of: that is a fence.
    faults.lose_answer_at_write(faults.writes());
    advance(&opened, 3, b"fourth").unwrap_err();
    assert_eq!(advance(&other, 4, b"other").unwrap(), Generation(5));
    assert!(matches!(advance(&opened, 3, b"fifth"), Err(RefError::Fenced { .. })));
    assert_eq!(read(), (5, b"other".to_vec()));
    // It did not happen, and somebody else was faster.
    faults.vanish(true);
    advance(&opened, 5, b"never").unwrap_err();
    faults.vanish(false);
    assert_eq!(advance(&other, 5, b"faster").unwrap(), Generation(6));
    assert!(matches!(advance(&opened, 5, b"late"), Err(RefError::Fenced { .. })));
}

/// One request in ten fails, and half of the writes among them are done nevertheless.
#[test]
fn an_unreliable_store_loses_nothing_that_was_acknowledged() {
    for seed in 1..=12u64 {
        let memory = Arc::new(Memory::new());
        let repository = init(&as_objects(&memory), GRACE_MS);
        let faults = Arc::new(Faults::new(as_objects(&memory)));
        let opened = again(&repository, &as_objects(&faults)).unwrap();
        faults.unreliable(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15), 100);
        let mut acknowledged: Vec<(String, model::ManifestId, u64)> = Vec::new();
        for round in 0..30u64 {
            let name = format!("n{}", round % 3);
            let first = round * 5;
            if let Ok(id) = publish(&opened, &name, first..first + 20) {
                acknowledged.retain(|(n, ..)| *n != name);
                acknowledged.push((name, id, first));
            }
            if round % 7 == 6 {
                memory.advance_ms(2 * GRACE_MS);
                let _ = opened.gc(GcOptions { keep_generations: 1, ..GcOptions::default() });
            }
        }
        assert!(!acknowledged.is_empty(), "seed {seed}");
        let after = again(&repository, &as_objects(&memory)).unwrap();
        for (name, id, first) in acknowledged {
            let value = after.refs().read("instance", &name).unwrap().unwrap();
            // One that was not acknowledged may have come after it, and be whole itself.
            let newest = repository::read_record(&after, &value.roots[0].chunk()).unwrap();
            if newest.child("disk0") == Some(&Target::Manifest(id)) {
                verify(&after, id, first..first + 20);
            }
        }
        assert_whole(&after);
    }
}

#[test]
fn a_full_store_is_said_and_loses_nothing() {
    let memory = Arc::new(Memory::new());
    let repository = init(&as_objects(&memory), GRACE_MS);
    let old = publish(&repository, "a", 0..100).unwrap();
    let faults = Arc::new(Faults::new(as_objects(&memory)));
    let opened = again(&repository, &as_objects(&faults)).unwrap();
    faults.full_at_write(faults.writes());
    let mut writer = opened.writer().unwrap();
    store(&opened, &mut writer, 200..300).unwrap();
    let error = writer.finish().unwrap_err();
    let full = |error: &RepositoryError| {
        matches!(error, RepositoryError::Object(ObjectError::NoSpace { .. }))
    };
    assert!(full(&error), "{error}");
    // Also when it shows in the middle: put says so.
    let mut writer = opened.writer().unwrap();
    let noise: Vec<u8> =
        (0..4096u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    let mut said = None;
    for n in 0..200_000u32 {
        let mut page = noise.clone();
        page[..4].copy_from_slice(&n.to_le_bytes());
        // Noise that does not compress, so that packs fill up.
        for (at, byte) in page.iter_mut().enumerate() {
            *byte = byte.wrapping_add((n.wrapping_mul(at as u32 | 1) >> 9) as u8);
        }
        if let Err(error) = chunk::ChunkSink::put(&mut writer, id_of(&page), &page) {
            said = Some(error);
            break;
        }
    }
    assert!(matches!(said, Some(SinkError::NoSpace { .. })), "{said:?}");
    drop(writer);
    verify(&again(&repository, &as_objects(&memory)).unwrap(), old, 0..100);
    assert_whole(&again(&repository, &as_objects(&memory)).unwrap());
}

#[test]
fn a_store_that_goes_away_is_unavailable_and_comes_back() {
    let memory = Arc::new(Memory::new());
    let repository = init(&as_objects(&memory), GRACE_MS);
    publish(&repository, "a", 0..100).unwrap();
    let faults = Arc::new(Faults::new(as_objects(&memory)));
    let opened = again(&repository, &as_objects(&faults)).unwrap();
    faults.vanish(true);
    let error = opened.fetch(&id_of(&page(3)), Urgency::Urgent).unwrap_err();
    assert!(matches!(error, FetchError::Unavailable { .. }), "{error}");
    let error = opened.refs().read("instance", "a").unwrap_err();
    let unavailable = |error: &RefError| matches!(error, RefError::Repository(RepositoryError::Object(e)) if e.is_transient());
    assert!(unavailable(&error), "{error}");
    faults.vanish(false);
    assert!(opened.fetch(&id_of(&page(3)), Urgency::Urgent).is_ok());
}

#[test]
fn two_hosts_advance_and_exactly_one_wins() {
    let memory = Arc::new(Memory::new());
    let repository = init(&as_objects(&memory), GRACE_MS);
    for round in 0..20u64 {
        let barrier = Arc::new(std::sync::Barrier::new(4));
        let hosts: Vec<_> = (0..4u8)
            .map(|host| {
                let (repository, barrier) =
                    (again(&repository, &as_objects(&memory)).unwrap(), Arc::clone(&barrier));
                std::thread::spawn(move || {
                    let payload = RefPayload { roots: vec![], body: vec![host] };
                    barrier.wait();
                    repository.refs().advance("instance", "x", Generation(round), &payload)
                })
            })
            .collect();
        let results: Vec<_> = hosts.into_iter().map(|host| host.join().unwrap()).collect();
        let won: Vec<_> = (0..4u8).filter(|host| results[*host as usize].is_ok()).collect();
        assert_eq!(won.len(), 1, "{results:?}");
        for error in results.iter().filter_map(|result| result.as_ref().err()) {
            let next = Generation(round + 1);
            assert!(matches!(error, RefError::Fenced { current, .. } if *current == next));
        }
        let value = repository.refs().read("instance", "x").unwrap().unwrap();
        assert_eq!((value.generation, value.body), (Generation(round + 1), won));
    }
}

/// Every object of a small repository, cut anywhere or with any bit flipped: opening, reading
/// and checking give clear errors or the right bytes, and never something else.
#[test]
fn damage_anywhere_is_noticed() {
    let memory = Arc::new(Memory::new());
    let repository = init(&as_objects(&memory), GRACE_MS);
    let id = publish(&repository, "a", 0..40).unwrap();
    publish(&repository, "a", 0..41).unwrap();
    let keys: Vec<String> = memory.list("").unwrap().into_iter().map(|object| object.key).collect();
    for kind in ["config", "packs/", "index/", "refs/"] {
        assert!(keys.iter().any(|key| key.starts_with(kind)), "{kind}");
    }
    for key in keys.iter().filter(|key| !key.ends_with("hint")) {
        let whole = memory.get(key, u64::MAX >> 1).unwrap();
        let step = (whole.len() / 24).max(1);
        let mut harmed: Vec<Bytes> =
            (0..whole.len()).step_by(step).map(|n| whole.slice(..n)).collect();
        for at in (0..whole.len()).step_by(step) {
            let mut bytes = whole.to_vec();
            // A pack's compatible features mean nothing to anyone yet.
            if key.starts_with("packs/") && (16..24).contains(&at) {
                continue;
            }
            bytes[at] ^= 1 << (at % 8);
            harmed.push(bytes.into());
        }
        for bytes in harmed {
            let image = Arc::new(memory.image());
            image.put(key, bytes).unwrap();
            let objects = as_objects(&image);
            let opened = match again(&repository, &objects) {
                Ok(opened) => opened,
                Err(error) => {
                    let about = error.to_string();
                    assert!(about.contains(key.as_str()), "{key}: {about}");
                    let not_the_key = !matches!(error, RepositoryError::WrongKey { .. });
                    assert!(not_the_key, "damage is not a wrong key");
                    continue;
                }
            };
            if let Err(error) = opened.refs().read("instance", "a") {
                assert!(error.to_string().contains("refs/"), "{error}");
            }
            for seed in 0..40 {
                match opened.fetch(&id_of(&page(seed)), Urgency::Urgent) {
                    Ok(chunks) => assert_eq!(&*chunks[0], page(seed).as_slice()),
                    Err(error) => assert!(error.to_string().contains("packs/"), "{error}"),
                }
            }
            let report = opened.check(true, &mut |_| ()).unwrap();
            assert!(report.problem_count > 0, "{key}");
            let _ = id;
        }
    }
}

#[test]
fn a_second_source_repairs_and_without_one_the_object_is_named() {
    let memory = Arc::new(Memory::new());
    let repository = init(&as_objects(&memory), GRACE_MS);
    publish(&repository, "a", 0..100).unwrap();
    let mirror = Arc::new(memory.image());
    let faults = Arc::new(Faults::new(as_objects(&memory)));
    faults.flip(Some(FlipEvery { prefix: "packs/".to_owned(), bit: 3000 }));
    let alone = again(&repository, &as_objects(&faults)).unwrap();
    let error = alone.fetch(&id_of(&page(3)), Urgency::Urgent).unwrap_err();
    assert!(matches!(error, FetchError::Damaged { .. }), "{error}");
    assert!(error.to_string().contains("packs/"), "{error}");
    let open = Open {
        key: repository.key().cloned(),
        sources: vec![Arc::new(again(&repository, &as_objects(&mirror)).unwrap())],
        ..Open::default()
    };
    let helped = Repository::open(as_objects(&faults), open).unwrap();
    for seed in 0..100 {
        let chunks = helped.fetch(&id_of(&page(seed)), Urgency::Urgent).unwrap();
        assert_eq!(&*chunks[0], page(seed).as_slice());
    }
}

#[test]
fn a_damaged_generation_is_never_skipped() {
    let memory = Arc::new(Memory::new());
    let repository = init(&as_objects(&memory), GRACE_MS);
    publish(&repository, "a", 0..10).unwrap();
    publish(&repository, "a", 0..20).unwrap();
    let refs = memory.list("refs").unwrap();
    let newest = refs.iter().rev().find(|o| o.key.ends_with("2")).unwrap();
    let bytes = memory.get(&newest.key, 1 << 20).unwrap();
    memory.put(&newest.key, bytes.slice(..bytes.len() - 1)).unwrap();
    let error = repository.refs().read("instance", "a").unwrap_err();
    assert!(error.to_string().contains(&newest.key), "{error}");
    let from = Generation(1);
    let error = repository.refs().advance("instance", "a", from, &RefPayload::default());
    assert!(matches!(error, Err(RefError::Fenced { current: Generation(2), .. })));
    let report = repository.check(false, &mut |_| ()).unwrap();
    assert_eq!(report.problems[0].object, newest.key);
}

#[test]
fn what_a_newer_program_made_is_named_so() {
    let memory = Arc::new(Memory::new());
    let repository = init(&as_objects(&memory), GRACE_MS);
    publish(&repository, "a", 0..10).unwrap();
    let keys: Vec<String> = memory.list("").unwrap().into_iter().map(|object| object.key).collect();
    for (offset, value) in [(8, 2), (32, 128)] {
        for key in keys.iter().filter(|key| !key.ends_with("hint")) {
            let image = Arc::new(memory.image());
            let mut bytes = image.get(key, 1 << 30).unwrap().to_vec();
            bytes[offset] = value;
            image.put(key, bytes.into()).unwrap();
            let said = match again(&repository, &as_objects(&image)) {
                Err(error) => error.to_string(),
                Ok(opened) => match opened.refs().read("instance", "a") {
                    Err(error) => error.to_string(),
                    Ok(_) => {
                        let report = opened.check(true, &mut |_| ()).unwrap();
                        report.problems[0].to_string()
                    }
                },
            };
            assert!(said.contains("newer Collective"), "{key}: {said}");
        }
    }
    // Read-only-compatible: it can be read, but not written.
    let mut bytes = memory.get("config", 4096).unwrap().to_vec();
    bytes[24] = 1;
    let body = bytes.len() - 16;
    let sum = blake3::hash(&bytes[..body]);
    bytes[body..].copy_from_slice(&sum.as_bytes()[..16]);
    memory.put("config", bytes.into()).unwrap();
    let opened = again(&repository, &as_objects(&memory)).unwrap();
    assert!(!opened.is_writable());
    assert!(opened.fetch(&id_of(&page(3)), Urgency::Urgent).is_ok());
    let refused = opened.writer().map(drop).unwrap_err();
    assert!(matches!(refused, RepositoryError::Header { .. }), "{refused}");
    assert!(refused.to_string().contains("newer Collective"), "{refused}");
    let payload = RefPayload { roots: vec![Target::Chunk(id_of(b"x"))], body: vec![] };
    assert!(opened.refs().advance("instance", "b", Generation(0), &payload).is_err());
}
