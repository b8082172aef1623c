//! The local copy of the index: shared, bounded, and thrown away when it is damaged.

mod common;

use std::fs;
use std::path::Path;
use std::sync::Arc;

use chunk::{ChunkSink, ChunkSource, Put, Urgency, id_of};
use common::{page, publish, verify};
use objects::{Counted, Memory, Objects};
use repository::{Init, Open, Repository, new_key};

fn open(objects: &Arc<dyn Objects>, like: &Repository, dir: &Path) -> Repository {
    let open =
        Open { key: like.key().cloned(), local_dir: Some(dir.to_owned()), ..Open::default() };
    Repository::open(Arc::clone(objects), open).unwrap()
}

fn init(objects: &Arc<dyn Objects>, dir: &Path) -> Repository {
    let init = Init { key: Some(new_key()), local_dir: Some(dir.to_owned()), ..Init::default() };
    Repository::init(Arc::clone(objects), &init).unwrap()
}

fn files(dir: &Path, prefix: &str) -> Vec<std::path::PathBuf> {
    let inner = fs::read_dir(dir).unwrap().next().unwrap().unwrap().path();
    let mut files: Vec<_> = fs::read_dir(inner)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.file_name().unwrap().to_str().unwrap().starts_with(prefix))
        .collect();
    files.sort();
    files
}

#[test]
fn a_second_open_reads_only_what_is_new() {
    let dir = tempfile::tempdir().unwrap();
    let counted = Arc::new(Counted::new(Memory::new()));
    let objects: Arc<dyn Objects> = Arc::clone(&counted) as _;
    let repository = init(&objects, dir.path());
    let ids: Vec<_> = (0..40u64)
        .map(|n| publish(&repository, &format!("n{n}"), n * 100..n * 100 + 100).unwrap())
        .collect();
    assert_eq!(files(dir.path(), "state-").len(), 1, "older states are removed");
    assert!(!files(dir.path(), "seg-").is_empty());
    let before = counted.counts().reads;
    let again = open(&objects, &repository, dir.path());
    let reads = counted.counts().reads - before;
    assert!(reads < 20, "{reads} reads");
    for (n, id) in ids.into_iter().enumerate() {
        let first = n as u64 * 100;
        verify(&again, id, first..first + 100);
    }
    let mut writer = again.writer().unwrap();
    assert_eq!(writer.put(id_of(&page(123)), &page(123)), Ok(Put::Reused));
    let stats = again.stats().unwrap();
    assert_eq!(stats.logical_bytes, 4000 * 4096);
}

#[test]
fn a_log_with_few_objects_and_many_entries_is_fetched_once() {
    let counted = Arc::new(Counted::new(Memory::new()));
    let objects: Arc<dyn Objects> = Arc::clone(&counted) as _;
    let (maker, small, host) =
        (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let repository = init(&objects, maker.path());
    publish(&repository, "few", 0..100).unwrap();
    open(&objects, &repository, small.path());
    assert!(files(small.path(), "state-").is_empty(), "not worth a file");
    let id = publish(&repository, "many", 100..5000).unwrap();
    // So many that they lie in a file before any state is saved.
    let mut writer = repository.writer().unwrap();
    for n in 0..100_000u64 {
        writer.put(id_of(&n.to_le_bytes()), &n.to_le_bytes()).unwrap();
    }
    writer.finish().unwrap();
    let reads = || {
        let before = counted.counts();
        let opened = open(&objects, &repository, host.path());
        let after = counted.counts();
        (after.reads - before.reads, after.read_bytes - before.read_bytes, opened)
    };
    let (first, first_bytes, _) = reads();
    let held: u64 = objects
        .list_names("index")
        .unwrap()
        .iter()
        .map(|name| objects.head(&format!("index/{name}")).unwrap().bytes)
        .sum();
    assert!(first_bytes < held + 1024, "{first_bytes} bytes, of {held} of the log");
    assert_eq!(files(host.path(), "state-").len(), 1);
    let (second, second_bytes, again) = reads();
    assert!(second < first, "{second} reads, {first} before");
    assert!(second_bytes < 1024, "{second_bytes} bytes, {first_bytes} before");
    verify(&again, id, 100..5000);
    // What was written on the way there did not stay.
    let named = files(host.path(), "seg-").len();
    assert!(named <= 3, "{named} files");
}

#[test]
fn a_store_is_probed_once_and_again_when_it_is_another() {
    let dir = tempfile::tempdir().unwrap();
    let memory = Arc::new(Memory::new());
    let counted = Arc::new(Counted::new(Arc::clone(&memory)));
    let objects: Arc<dyn Objects> = Arc::clone(&counted) as _;
    let repository = init(&objects, dir.path());
    let writes = || {
        let before = counted.counts().writes;
        open(&objects, &repository, dir.path());
        counted.counts().writes - before
    };
    assert_eq!([writes(), writes(), writes()], [2, 0, 0]);
    // Everything was copied to another store behind the same address.
    let config = memory.get("config", 4096).unwrap();
    memory.delete("config").unwrap();
    memory.put_new("config", config).unwrap();
    assert_eq!([writes(), writes()], [2, 0]);
}

#[test]
fn large_segments_live_in_files_and_merge() {
    let dir = tempfile::tempdir().unwrap();
    let objects: Arc<dyn Objects> = Arc::new(Memory::new());
    let repository = init(&objects, dir.path());
    // Chunks of 8 bytes: many entries, few bytes.
    let mut next = 0u64;
    let mut ids = Vec::new();
    for session in 0..4u64 {
        let mut writer = repository.writer().unwrap();
        for _ in 0..70_000 {
            let bytes = next.to_le_bytes();
            let id = id_of(&bytes);
            assert_eq!(writer.put(id, &bytes), Ok(Put::Stored), "{session}");
            if next.is_multiple_of(1777) {
                ids.push((id, bytes));
            }
            next += 1;
        }
        writer.finish().unwrap();
    }
    assert!(!files(dir.path(), "seg-").is_empty());
    for (id, bytes) in &ids {
        assert!(repository.contains(id));
        assert_eq!(*repository.fetch(id, Urgency::Urgent).unwrap()[0], *bytes);
    }
    for absent in 0..2000u64 {
        assert!(!repository.contains(&id_of(&(next + absent).to_le_bytes())));
    }
    // A flipped bit in any segment is noticed, and the copy is made again.
    for file in files(dir.path(), "seg-") {
        let mut bytes = fs::read(&file).unwrap();
        for at in (0..bytes.len()).step_by(4096) {
            bytes[at] ^= 0x10;
        }
        fs::write(&file, bytes).unwrap();
    }
    for (id, bytes) in &ids {
        assert_eq!(*repository.fetch(id, Urgency::Urgent).unwrap()[0], *bytes);
    }
    let again = open(&objects, &repository, dir.path());
    for (id, _) in &ids {
        assert!(again.contains(id));
    }
}

#[test]
fn whatever_is_wrong_in_the_directory_only_costs_time() {
    let dir = tempfile::tempdir().unwrap();
    let objects: Arc<dyn Objects> = Arc::new(Memory::new());
    let repository = init(&objects, dir.path());
    let id = publish(&repository, "a", 0..200).unwrap();
    for n in 0..20 {
        publish(&repository, &format!("n{n}"), 1000 + n..1001 + n).unwrap();
    }
    let all = || files(dir.path(), "");
    assert!(all().len() >= 2);
    type Harm = fn(&Path);
    let harms: [Harm; 4] = [
        |path| fs::write(path, b"").unwrap(),
        |path| {
            let bytes = fs::read(path).unwrap();
            fs::write(path, &bytes[..bytes.len().saturating_sub(1)]).unwrap();
        },
        |path| {
            let mut bytes = fs::read(path).unwrap();
            let middle = bytes.len() / 2;
            if let Some(byte) = bytes.get_mut(middle) {
                *byte ^= 1;
            }
            fs::write(path, bytes).unwrap();
        },
        |path| fs::remove_file(path).unwrap(),
    ];
    for harm in harms {
        for path in all() {
            // What was harmed before may have been thrown away by now.
            if path.exists() {
                harm(&path);
            }
            let again = open(&objects, &repository, dir.path());
            verify(&again, id, 0..200);
            let fresh = publish(&again, "again", 0..201).unwrap();
            verify(&again, fresh, 0..201);
        }
    }
}
