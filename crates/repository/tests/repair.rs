//! One flipped bit, a cut, a loss, in every object of a repository: a check names the object, nobody
//! is given anything wrong, and a copy puts it back.

mod common;

use std::sync::Arc;

use bytes::Bytes;
use chunk::crypt::MasterKey;
use common::{again, assert_whole, publish, verify};
use objects::{Memory, Objects};
use repository::{GcOptions, Init, Open, Repository, RepositoryError, repair};

const GRACE_MS: u64 = 1000;

fn as_objects(memory: &Arc<Memory>) -> Arc<dyn Objects> {
    memory.clone()
}

/// A repository with two instances and a snapshot of its index; its objects that are not hints.
fn filled(key: Option<MasterKey>) -> (Arc<Memory>, Repository, Vec<String>) {
    let memory = Arc::new(Memory::new());
    let init = Init { key, grace_ms: GRACE_MS, ..Init::default() };
    let repository = Repository::init(as_objects(&memory), &init).unwrap();
    for round in 0..3 {
        publish(&repository, "a", 0..40 + round).unwrap();
        publish(&repository, "b", 100..120 + round).unwrap();
    }
    memory.advance_ms(2 * GRACE_MS);
    repository.gc(GcOptions::default()).unwrap();
    publish(&repository, "a", 0..50).unwrap();
    publish(&repository, "b", 100..130).unwrap();
    let keys: Vec<String> = memory
        .list("")
        .unwrap()
        .into_iter()
        .map(|object| object.key)
        .filter(|key| !key.ends_with("hint") && !key.starts_with("gc/"))
        .collect();
    (memory, repository, keys)
}

/// The volumes that are read back, as far as they can be; nothing but right bytes may come out.
fn read_what_can_be(objects: &Arc<Memory>, key: Option<MasterKey>, ids: &[model::ManifestId]) {
    use chunk::{ChunkSource, Urgency};
    let open = Open { key, ..Open::default() };
    let Ok(opened) = Repository::open(as_objects(objects), open) else { return };
    for (id, first) in ids.iter().zip([0, 100]) {
        let nodes = manifest::NodeCache::new(Arc::new(opened.clone()), 64);
        let Ok(volume) = manifest::Manifest::open(*id, &opened) else { continue };
        for at in 0..30 {
            let Ok(Some(chunk)) = volume.lookup(&nodes, at) else { continue };
            if let Ok(read) = opened.fetch(&chunk, Urgency::Urgent) {
                assert_eq!(&*read[0], common::page(first + at).as_slice(), "page {at}");
            }
        }
    }
}

fn every_object_is_put_back(key: Option<MasterKey>) -> usize {
    let (memory, repository, keys) = filled(key.clone());
    let ids = ["a", "b"].map(|name| {
        let seeds = if name == "a" { 0..50 } else { 100..130 };
        // The same content: nothing is written, and the id is what the head names.
        publish(&repository, name, seeds).unwrap()
    });
    let copy = Arc::new(memory.image());
    let mut harms = 0;
    for at in &keys {
        let whole = memory.get(at, u64::MAX >> 1).unwrap();
        let len = whole.len();
        // A bit in the header, in the middle and in the last byte, and a cut; an empty one. (Bytes 16
        // to 23 of a pack's header are features that a reader may ignore, and does.)
        let flips = [9, 34, len / 3, len / 2, len - 1].into_iter().filter(|byte| *byte < len);
        let mut damaged: Vec<Vec<u8>> = flips
            .map(|byte| {
                let mut bytes = whole.to_vec();
                bytes[byte] ^= 1 << (byte % 8);
                bytes
            })
            .collect();
        damaged.push(whole[..len - 1].to_vec());
        damaged.push(Vec::new());
        for bytes in damaged {
            harms += 1;
            let hurt = Arc::new(memory.image());
            hurt.put(at, Bytes::from(bytes)).unwrap();
            read_what_can_be(&hurt, key.clone(), &ids);
            match again(&repository, &as_objects(&hurt)) {
                Ok(opened) => {
                    let report = opened.check(true, &mut |_| ()).unwrap();
                    let named =
                        report.problems.iter().any(|problem| problem.to_string().contains(at));
                    assert!(named, "{at}: {:?}", report.problems);
                }
                Err(error) => assert!(error.to_string().contains(at), "{at}: {error}"),
            }
            let report =
                repair(&as_objects(&hurt), &as_objects(&copy), key.clone(), &mut |_| ()).unwrap();
            assert_eq!((&report.repaired, report.left.len()), (&vec![at.clone()], 0), "{report:?}");
            assert_eq!(hurt.get(at, u64::MAX >> 1).unwrap(), whole);
            let opened = again(&repository, &as_objects(&hurt)).unwrap();
            assert_whole(&opened);
            verify(&opened, ids[0], 0..50);
            verify(&opened, ids[1], 100..130);
        }
    }
    harms
}

#[test]
fn a_flipped_bit_in_any_object_is_named_and_put_back() {
    let harms = every_object_is_put_back(Some(repository::new_key()));
    println!("private: {harms} damaged objects");
    assert!(harms > 80, "{harms}");
}

#[test]
fn a_flipped_bit_in_any_object_of_a_public_repository_is_named_and_put_back() {
    let harms = every_object_is_put_back(None);
    println!("public: {harms} damaged objects");
    assert!(harms > 80, "{harms}");
}

#[test]
fn what_is_named_and_lost_is_put_back() {
    let (memory, repository, keys) = filled(Some(repository::new_key()));
    let copy = Arc::new(memory.image());
    let key = repository.key().cloned();
    let log: Vec<&String> = keys.iter().filter(|key| key.starts_with("index/")).collect();
    let mut put_back = 0;
    for at in keys.iter().filter(|key| !key.starts_with("refs/")) {
        let hurt = Arc::new(memory.image());
        hurt.delete(at).unwrap();
        let report =
            repair(&as_objects(&hurt), &as_objects(&copy), key.clone(), &mut |_| ()).unwrap();
        assert_eq!(report.left, []);
        // Nothing names what lies behind the end of the log.
        if log.last() == Some(&at) {
            assert!(report.repaired.is_empty(), "{report:?}");
            continue;
        }
        put_back += report.repaired.len();
        assert_whole(&again(&repository, &as_objects(&hurt)).unwrap());
    }
    assert!(put_back >= keys.iter().filter(|key| key.starts_with("packs/")).count() + 2);
}

#[test]
fn what_is_whole_in_neither_is_said_and_the_rest_is_put_back() {
    let (memory, repository, keys) = filled(Some(repository::new_key()));
    let copy = Arc::new(memory.image());
    let packs: Vec<&String> = keys.iter().filter(|key| key.starts_with("packs/")).collect();
    let harm = |store: &Memory, key: &str| {
        let mut bytes = store.get(key, u64::MAX >> 1).unwrap().to_vec();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 4;
        store.put(key, bytes.into()).unwrap();
    };
    harm(&memory, packs[0]);
    harm(&memory, packs[1]);
    harm(&copy, packs[1]);
    let key = repository.key().cloned();
    let report = repair(&as_objects(&memory), &as_objects(&copy), key, &mut |_| ()).unwrap();
    assert_eq!(report.repaired, [packs[0].clone()]);
    assert_eq!(report.left.len(), 1);
    assert_eq!(report.left[0].object, *packs[1]);
}

/// Nothing is touched by what is no copy, not even a configuration that cannot be read.
#[test]
fn another_repository_is_no_copy() {
    let (memory, repository, _) = filled(None);
    let (other, _, _) = filled(None);
    let before = memory.list("").unwrap();
    let refused = |error: RepositoryError| {
        assert!(matches!(error, RepositoryError::Invalid { .. }), "{error}");
    };
    let run = || repair(&as_objects(&memory), &as_objects(&other), None, &mut |_| ());
    refused(run().unwrap_err());
    let mut config = memory.get("config", 1 << 20).unwrap().to_vec();
    for flipped in [8, 45] {
        config[flipped] ^= 1;
        memory.put("config", config.clone().into()).unwrap();
        refused(run().unwrap_err());
        config[flipped] ^= 1;
    }
    memory.put("config", config.into()).unwrap();
    assert_eq!(memory.list("").unwrap().len(), before.len());
    assert_whole(&again(&repository, &as_objects(&memory)).unwrap());
    // A private one's copy needs its key.
    let (private, _, _) = filled(Some(repository::new_key()));
    let copy = Arc::new(private.image());
    let error = repair(&as_objects(&private), &as_objects(&copy), None, &mut |_| ()).unwrap_err();
    assert!(matches!(error, RepositoryError::NeedsKey { .. }), "{error}");
}
