//! Gathering the log into a snapshot, so that a new host reads few objects, and deleting what
//! the snapshot supersedes.
//!
//! A snapshot names *tables*, which list packs as deltas do. Tables that are still mostly in
//! use are kept from one snapshot to the next.

use std::collections::HashSet;

use bytes::Bytes;
use chunk::crypt::PackId;

use super::Run;
use crate::RepositoryError;
use crate::index::Index;
use crate::layout::{INDEX, INDEX_HINT, TABLES, index_key, number_of, table_key};
use crate::log::{IndexObject, Snapshot, SnapshotPack, encode_table};
use crate::pack::PackEntry;
use crate::wire::unhex;

/// So many objects since the latest snapshot call for a new one.
const OBJECTS_MAX: u64 = 32;
/// Chunks that one table lists, at most (unless one pack has more): 16 MiB of names.
const TABLE_CHUNKS_MAX: usize = 1 << 20;

impl Run<'_> {
    /// Writes a snapshot when the log has grown, then deletes what old snapshots superseded.
    pub(super) fn compact(&mut self) -> Result<(), RepositoryError> {
        let index = self.repository.index().clone();
        let since = index.applied - index.latest_snapshot;
        if since >= OBJECTS_MAX {
            self.snapshot(&index)?;
        }
        self.delete_superseded()
    }

    fn snapshot(&mut self, index: &Index) -> Result<(), RepositoryError> {
        let begun = ambient::now();
        let mut tables = Tables { run: self, written: Vec::new(), batch: Vec::new(), chunks: 0 };
        let mut listed: HashSet<PackId> = HashSet::new();
        for table in &index.tables {
            let packs = self.repository.load_table(table)?;
            let (all, used) = (packs.len(), keep_known(packs, index, &mut listed));
            if used.len() * 2 >= all {
                tables.written.push(*table);
            } else {
                tables.add(used)?;
            }
        }
        for number in index.latest_snapshot.max(1)..=index.applied {
            let added = self.repository.load_object(number)?.added;
            tables.add(keep_known(added, index, &mut listed))?;
        }
        let tables = tables.finish()?;
        let mut written = false;
        let number = self.repository.extend(|now| {
            // Only what we have read can be gathered, and only while our new tables are too
            // young for another collection to take them for garbage.
            let elapsed = ambient::now().duration_since(begun).as_millis() as u64;
            written = now.applied == index.applied
                && now.epoch == index.epoch
                && elapsed < self.repository.grace_ms().max(2) / 2;
            let snapshot = written.then(|| snapshot_of(now, &tables));
            Ok(IndexObject { snapshot, ..IndexObject::default() })
        })?;
        if written {
            self.stats.compacted_index_objects = index.applied - index.latest_snapshot;
            let hint = Bytes::from(number.to_string());
            self.repository.inner.objects.put(INDEX_HINT, hint)?;
        }
        Ok(())
    }

    /// Objects before a snapshot go when the snapshot is older than the grace age: by then
    /// whoever was reading them has finished.
    fn delete_superseded(&mut self) -> Result<(), RepositoryError> {
        let objects = &self.repository.inner.objects;
        let index = self.repository.index().clone();
        if index.latest_snapshot == 0 {
            return Ok(());
        }
        let snapshot = objects.head(&index_key(index.latest_snapshot))?;
        if !self.is_old(snapshot.modified_unix_ms) {
            return Ok(());
        }
        for object in objects.list(INDEX)? {
            let number = object.key.rsplit('/').next().and_then(number_of);
            if number.is_some_and(|number| number < index.latest_snapshot) {
                objects.delete(&object.key)?;
                self.stats.deleted_index_objects += 1;
            }
        }
        let named: HashSet<[u8; 16]> = index.tables.iter().copied().collect();
        for object in objects.list(TABLES)? {
            let table = object.key.rsplit('/').next().and_then(unhex);
            if table.is_some_and(|table| !named.contains(&table))
                && self.is_old(object.modified_unix_ms)
            {
                objects.delete(&object.key)?;
                self.stats.deleted_index_objects += 1;
            }
        }
        Ok(())
    }
}

/// Writes tables as packs come, so that only one is in memory.
struct Tables<'a> {
    run: &'a Run<'a>,
    written: Vec<[u8; 16]>,
    batch: Vec<PackEntry>,
    chunks: usize,
}

impl Tables<'_> {
    fn add(&mut self, packs: Vec<PackEntry>) -> Result<(), RepositoryError> {
        for pack in packs {
            self.chunks += pack.chunks();
            self.batch.push(pack);
            if self.chunks >= TABLE_CHUNKS_MAX {
                self.flush()?;
            }
        }
        Ok(())
    }

    fn flush(&mut self) -> Result<(), RepositoryError> {
        let packs = std::mem::take(&mut self.batch);
        self.chunks = 0;
        if packs.is_empty() {
            return Ok(());
        }
        let table = ambient::random();
        let repository = self.run.repository;
        let bytes = encode_table(&repository.inner.cipher, &table, ambient::random(), &packs);
        repository.inner.objects.put_new(&table_key(&table), Bytes::from(bytes))?;
        self.written.push(table);
        Ok(())
    }

    fn finish(mut self) -> Result<Vec<[u8; 16]>, RepositoryError> {
        self.flush()?;
        Ok(self.written)
    }
}

fn keep_known(
    packs: Vec<PackEntry>,
    index: &Index,
    listed: &mut HashSet<PackId>,
) -> Vec<PackEntry> {
    packs
        .into_iter()
        .filter(|pack| index.packs.contains_key(&pack.id) && listed.insert(pack.id))
        .collect()
}

fn snapshot_of(index: &Index, tables: &[[u8; 16]]) -> Snapshot {
    let listed = index.packs.iter().map(|(id, info)| SnapshotPack {
        id: *id,
        bytes: info.bytes,
        chunks: info.chunks,
        condemned_at: info.condemned_at,
    });
    // An orphan that is condemned has no size: no index ever listed it.
    let orphans = index.condemned_orphans.iter().map(|(id, number)| SnapshotPack {
        id: *id,
        bytes: 0,
        chunks: 0,
        condemned_at: *number,
    });
    let mut packs: Vec<SnapshotPack> = listed.chain(orphans).collect();
    packs.sort_by_key(|pack| pack.id);
    Snapshot { packs, tables: tables.to_vec() }
}
