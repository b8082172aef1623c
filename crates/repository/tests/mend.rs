//! What is damaged or lost comes back from whoever has the chunks, whatever repository that is; what
//! nobody has is said; and nobody who dies meanwhile makes it worse.

mod common;

use std::sync::Arc;

use chunk::{ChunkSource, FetchError, Urgency, Verified};
use common::{again, assert_whole, publish, verify};
use model::{ChunkId, ManifestId};
use objects::{Faults, Memory, Objects};
use repository::{GcOptions, Helper, Init, MendReport, Repository, new_key};

const GRACE_MS: u64 = 1000;

fn repository() -> (Arc<Memory>, Repository) {
    let memory = Arc::new(Memory::new());
    let init = Init { key: Some(new_key()), grace_ms: GRACE_MS, ..Init::default() };
    let objects: Arc<dyn Objects> = memory.clone();
    let repository = Repository::init(objects, &init).unwrap();
    (memory, repository)
}

/// Two volumes, in several packs.
fn fill(repository: &Repository) -> [ManifestId; 2] {
    publish(repository, "a", 0..100).unwrap();
    publish(repository, "b", 200..260).unwrap();
    let a = publish(repository, "a", 0..150).unwrap();
    let b = publish(repository, "b", 210..270).unwrap();
    [a, b]
}

fn assert_volumes(repository: &Repository, ids: &[ManifestId; 2]) {
    verify(repository, ids[0], 0..150);
    verify(repository, ids[1], 210..270);
}

fn helper(name: &str, source: &Repository) -> Helper {
    Helper { name: name.to_owned(), source: Arc::new(source.clone()) }
}

fn packs(memory: &Memory) -> Vec<String> {
    memory.list("packs").unwrap().into_iter().map(|object| object.key).collect()
}

fn mend(repository: &Repository, helpers: &[Helper]) -> MendReport {
    repository.mend(helpers, &mut |_| ()).unwrap()
}

/// Every harm that can come to a pack: a bit, its end, all of it.
fn harms(memory: &Memory, key: &str) -> Vec<Arc<Memory>> {
    let whole = memory.get(key, u64::MAX >> 1).unwrap();
    let mut flipped = whole.to_vec();
    flipped[whole.len() / 3] ^= 8;
    let mut hurt = Vec::new();
    for bytes in [Some(flipped), Some(whole[..whole.len() - 5].to_vec()), Some(Vec::new()), None] {
        let image = Arc::new(memory.image());
        match bytes {
            Some(bytes) => image.put(key, bytes.into()).unwrap(),
            None => image.delete(key).unwrap(),
        }
        hurt.push(image);
    }
    hurt
}

#[test]
fn what_is_damaged_or_lost_comes_from_another_repository() {
    let (memory, first) = repository();
    let ids = fill(&first);
    // Somebody else's, with packs and names of its own, and more in it.
    let (_, other) = repository();
    publish(&other, "c", 500..600).unwrap();
    fill(&other);
    let mut mended = 0;
    for key in packs(&memory) {
        for hurt in harms(&memory, &key) {
            let objects: Arc<dyn Objects> = hurt.clone();
            let opened = again(&first, &objects).unwrap();
            assert!(!opened.check(true, &mut |_| ()).unwrap().problems.is_empty());
            let report = mend(&opened, &[helper("other", &other)]);
            assert_eq!(report.left, [], "{key}");
            mended += report.mended.len();
            // Nothing more to mend, and a check does not complain of what is on its way out.
            assert_eq!(mend(&opened, &[]).mended, []);
            assert_whole(&opened);
            assert_volumes(&opened, &ids);
            // Collections take the damaged pack, and nothing that is needed.
            for _ in 0..3 {
                hurt.advance_ms(2 * GRACE_MS);
                opened.gc(GcOptions { keep_generations: 1, ..GcOptions::default() }).unwrap();
            }
            assert!(hurt.head(&key).is_err(), "{key} is collected");
            let opened = again(&first, &objects).unwrap();
            assert_whole(&opened);
            assert_volumes(&opened, &ids);
        }
    }
    assert!(mended >= 4 * 4, "{mended}");
}

#[test]
fn what_nobody_has_is_named_and_heals_when_it_is_written_again() {
    let (memory, first) = repository();
    let ids = fill(&first);
    let (_, half) = repository();
    publish(&half, "a", (0..150).step_by(2)).unwrap();
    for key in packs(&memory) {
        let mut bytes = memory.get(&key, u64::MAX >> 1).unwrap().to_vec();
        let third = bytes.len() / 3;
        bytes[third] ^= 8;
        memory.put(&key, bytes.into()).unwrap();
    }
    let lost = |report: MendReport| {
        let lost = report.left.into_iter().map(|problem| problem.object);
        lost.collect::<std::collections::BTreeSet<_>>()
    };
    let all = lost(mend(&first, &[]));
    let left = lost(mend(&first, &[helper("half", &half)]));
    assert!(!left.is_empty() && left.len() < all.len() && left.is_subset(&all), "{left:?}");
    // What was mended stays so, also where its damaged pack has to stay.
    for _ in 0..4 {
        memory.advance_ms(2 * GRACE_MS);
        first.gc(GcOptions { keep_generations: 1, ..GcOptions::default() }).unwrap();
    }
    assert!(lost(mend(&first, &[])).is_subset(&left));
    // Nobody deduplicates against what is lost.
    publish(&first, "a", 0..150).unwrap();
    publish(&first, "b", 210..270).unwrap();
    assert_volumes(&first, &ids);
    assert_eq!(mend(&first, &[]).left, []);
    assert_whole(&first);
}

/// Gives chunks that nobody asked for.
struct Liar(Repository);

impl ChunkSource for Liar {
    fn fetch(&self, _: &ChunkId, urgency: Urgency) -> Result<Vec<Verified>, FetchError> {
        self.0.fetch(&chunk::id_of(&common::page(500)), urgency)
    }
}

#[test]
fn who_gives_something_else_is_not_believed() {
    let (memory, first) = repository();
    let ids = fill(&first);
    let (_, other) = repository();
    publish(&other, "c", 500..510).unwrap();
    let key = packs(&memory).remove(0);
    memory.delete(&key).unwrap();
    let liar = Helper { name: "liar".to_owned(), source: Arc::new(Liar(other.clone())) };
    let report = mend(&first, std::slice::from_ref(&liar));
    assert!(report.mended.is_empty() && !report.left.is_empty(), "{report:?}");
    fill(&other);
    let report = mend(&first, &[liar, helper("other", &other)]);
    assert_eq!(report.left, []);
    assert!(report.mended.iter().all(|m| !m.fetched.contains_key("liar")), "{report:?}");
    assert_whole(&first);
    assert_volumes(&first, &ids);
}

#[test]
fn who_dies_while_mending_makes_nothing_worse() {
    let (memory, first) = repository();
    let ids = fill(&first);
    let (_, other) = repository();
    fill(&other);
    let helpers = [helper("other", &other)];
    let key = packs(&memory).remove(1);
    let hurt = harms(&memory, &key).remove(0);
    let mut died = 0;
    for write in 0.. {
        let image = Arc::new(hurt.image());
        let faults = Arc::new(Faults::new(image.clone()));
        let opened = again(&first, &(faults.clone() as Arc<dyn Objects>)).unwrap();
        faults.crash_at_write(faults.writes() + write);
        let done = opened.mend(&helpers, &mut |_| ());
        let opened = again(&first, &(image.clone() as Arc<dyn Objects>)).unwrap();
        if done.is_err() {
            died += 1;
            image.advance_ms(2 * GRACE_MS);
            opened.gc(GcOptions { keep_generations: 1, ..GcOptions::default() }).unwrap();
            assert_eq!(mend(&opened, &helpers).left, []);
        }
        assert_whole(&opened);
        assert_volumes(&opened, &ids);
        if done.is_ok() {
            break;
        }
    }
    assert!(died >= 3, "{died}");
}
