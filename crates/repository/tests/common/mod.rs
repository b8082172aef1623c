//! What the tests of this crate share.
#![allow(dead_code)]

use std::sync::Arc;

use chunk::{ChunkSource, Urgency, id_of};
use manifest::{Manifest, NodeCache};
use model::{ChunkId, Generation, ManifestId};
use objects::Objects;
use repository::{
    Child, Init, Open, RefPayload, Repository, RepositoryError, Target, new_key, write_record,
};

pub fn page(seed: u64) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    (0..4096)
        .map(|at| {
            if at % 4 == 0 {
                state ^= state << 13;
                state ^= state >> 7;
                state ^= state << 17;
            }
            (state >> (at % 4 * 8)) as u8 & 0x3f
        })
        .collect()
}

pub fn init(objects: &Arc<dyn Objects>, grace_ms: u64) -> Repository {
    let init = Init { key: Some(new_key()), grace_ms, ..Init::default() };
    Repository::init(Arc::clone(objects), &init).unwrap()
}

pub fn again(
    repository: &Repository,
    objects: &Arc<dyn Objects>,
) -> Result<Repository, RepositoryError> {
    let open = Open { key: repository.key().cloned(), ..Open::default() };
    Repository::open(Arc::clone(objects), open)
}

/// Stores a volume of these pages (by seed) and makes `kind`/`name` name it.
pub fn publish(
    repository: &Repository,
    name: &str,
    seeds: impl IntoIterator<Item = u64>,
) -> Result<ManifestId, Box<dyn std::error::Error + Send + Sync>> {
    let mut writer = repository.writer()?;
    let id = store(repository, &mut writer, seeds)?;
    let children = [Child::new("disk0", Target::Manifest(id))];
    let record = write_record(&mut writer, &children, b"{}")?;
    writer.finish()?;
    let from = repository.refs().current("instance", name)?.unwrap_or(Generation(0));
    let payload = RefPayload { roots: vec![Target::Record(record)], body: b"body".to_vec() };
    repository.refs().advance("instance", name, from, &payload)?;
    Ok(id)
}

pub fn store(
    repository: &Repository,
    sink: &mut dyn chunk::ChunkSink,
    seeds: impl IntoIterator<Item = u64>,
) -> Result<ManifestId, Box<dyn std::error::Error + Send + Sync>> {
    let mut changes: Vec<(u64, Option<ChunkId>)> = Vec::new();
    for (at, seed) in seeds.into_iter().enumerate() {
        let bytes = page(seed);
        let id = id_of(&bytes);
        sink.put(id, &bytes)?;
        changes.push((at as u64, Some(id)));
    }
    let size = changes.len() as u64 * 4096;
    let nodes = NodeCache::new(Arc::new(repository.clone()), 64);
    let empty = Manifest::empty(size)?;
    let manifest = empty.update(&nodes, &mut changes.into_iter(), None, sink)?;
    Ok(manifest.id())
}

/// Reads back a volume and compares every page.
pub fn verify(repository: &Repository, id: ManifestId, seeds: impl IntoIterator<Item = u64>) {
    let nodes = NodeCache::new(Arc::new(repository.clone()), 64);
    let manifest = Manifest::open(id, repository).unwrap();
    for (at, seed) in seeds.into_iter().enumerate() {
        let chunk = manifest.lookup(&nodes, at as u64).unwrap().expect("no hole");
        let read = repository.fetch(&chunk, Urgency::Urgent).unwrap();
        assert_eq!(&*read[0], page(seed).as_slice(), "page {at}");
    }
}

/// No problem anywhere, every byte read.
pub fn assert_whole(repository: &Repository) {
    let report = repository.check(true, &mut |_| ()).unwrap();
    assert_eq!(report.problems, [], "{report:?}");
}
