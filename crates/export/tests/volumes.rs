//! A real volume behind a real mount.

mod support;

use std::fs::File;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::channel;
use std::time::Duration;

use chunk::{ChunkId, Memory, id_of};
use export::{Export, ExportFile, Options, VolumeFile};
use support::{Mapping, PAGE};
use volume::{Cache, Fetcher, Volume, VolumeOptions};

const SOON: Duration = Duration::from_secs(30);
const PAGES: usize = 300;

fn page(number: usize) -> Vec<u8> {
    let mut bytes = vec![number as u8; PAGE];
    bytes[..8].copy_from_slice(&(number as u64 + 1).to_le_bytes());
    bytes
}

fn content() -> Vec<u8> {
    (0..PAGES).flat_map(page).collect()
}

fn open(dir: &Path, base: Option<model::ManifestId>, store: &Arc<Memory>) -> Arc<Volume> {
    let cache = Arc::new(Cache::open(&dir.join("cache"), 16 << 20).unwrap());
    let fetcher = Arc::new(Fetcher::new(cache, store.clone(), 4));
    let size = (PAGES * PAGE) as u64;
    let options = VolumeOptions::named("t1/disk0");
    Arc::new(Volume::create(&dir.join("volume"), base, size, fetcher, options).unwrap())
}

/// A volume on a base that only the store has, mounted. Unmounted, then closed, then removed.
struct Mounted {
    export: Export,
    volume: Arc<Volume>,
    store: Arc<Memory>,
    _dir: tempfile::TempDir,
}

impl Mounted {
    fn new() -> Mounted {
        let dir = tempfile::tempdir().unwrap();
        let store = Arc::new(Memory::new());
        let maker = open(&dir.path().join("maker"), None, &store);
        maker.write_at(0, &content()).unwrap();
        maker.freeze().unwrap();
        let base = maker.seal(&mut store.clone()).unwrap().manifest;
        let volume = open(&dir.path().join("user"), Some(base), &store);
        let mount = dir.path().join("mount");
        std::fs::create_dir(&mount).unwrap();
        let file = Arc::new(VolumeFile::new(volume.clone())) as Arc<dyn ExportFile>;
        let export =
            Export::mount(&mount, vec![("disk0".to_owned(), file)], Options::ram()).unwrap();
        Mounted { export, volume, store, _dir: dir }
    }

    fn open(&self) -> File {
        let path = self.export.path("disk0").unwrap();
        File::options().read(true).write(true).open(path).unwrap()
    }

    /// Makes a page impossible to fetch; gives what brings it back.
    fn lose(&self, number: usize) -> (ChunkId, Vec<u8>) {
        let bytes = page(number);
        let id = id_of(&bytes);
        assert!(self.store.remove(&id));
        (id, bytes)
    }
}

/// Whatever happens in a test, nobody waits for a page for ever.
impl Drop for Mounted {
    fn drop(&mut self) {
        self.volume.cancel();
    }
}

#[test]
fn a_base_is_read_and_written_over_and_sealed() {
    let mounted = Mounted::new();
    let file = mounted.open();
    let mut mapping = Mapping::new(&file, PAGES * PAGE);
    let mut expected = content();
    assert!(mapping.bytes() == expected);
    mapping.bytes()[PAGE * 7 + 5] = 99;
    expected[PAGE * 7 + 5] = 99;
    file.write_all_at(&[1; 3 * PAGE], (PAGE * 20 + 100) as u64).unwrap();
    expected[PAGE * 20 + 100..][..3 * PAGE].fill(1);
    rustix::fs::fallocate(
        &file,
        rustix::fs::FallocateFlags::PUNCH_HOLE | rustix::fs::FallocateFlags::KEEP_SIZE,
        (PAGE * 40) as u64,
        (PAGE * 10) as u64,
    )
    .unwrap();
    expected[PAGE * 40..PAGE * 50].fill(0);
    assert!(mapping.bytes() == expected);

    mounted.export.write_back("disk0").unwrap();
    mounted.volume.freeze().unwrap();
    // What is written after the freeze is not in the seal.
    mapping.bytes()[0] = 200;
    mounted.export.sync("disk0").unwrap();
    let sealed = mounted.volume.seal(&mut mounted.store.clone()).unwrap();
    mounted.volume.adopt(&sealed).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let other = open(dir.path(), Some(sealed.manifest), &mounted.store);
    let mut bytes = vec![0; PAGES * PAGE];
    other.read_at(0, &mut bytes).unwrap();
    assert!(bytes == expected);
    expected[0] = 200;
    assert!(mapping.bytes() == expected);
    mounted.volume.read_at(0, &mut bytes).unwrap();
    assert!(bytes == expected);
}

#[test]
fn a_missing_page_holds_its_reader_alone_until_it_is_there() {
    let mounted = Mounted::new();
    let (id, bytes) = mounted.lose(100);
    let file = Arc::new(mounted.open());
    let (done, answered) = channel();
    let reader = Arc::clone(&file);
    std::thread::spawn(move || {
        let mut bytes = vec![0; PAGE];
        done.send(reader.read_exact_at(&mut bytes, (PAGE * 100) as u64).map(|()| bytes)).unwrap();
    });
    let mut other = vec![0; PAGE];
    for number in (0..PAGES).filter(|number| *number != 100) {
        file.read_exact_at(&mut other, (PAGE * number) as u64).unwrap();
        assert!(other == page(number));
    }
    file.sync_all().unwrap();
    assert!(answered.recv_timeout(Duration::from_millis(200)).is_err());
    assert_eq!(mounted.export.stats().reads_held, 1);
    mounted.store.insert(id, &bytes);
    assert!(answered.recv_timeout(SOON).unwrap().unwrap() == page(100));
}

#[test]
fn writing_a_part_of_a_missing_page_waits_for_the_rest_of_it() {
    let mounted = Mounted::new();
    let (id, bytes) = mounted.lose(50);
    let path = mounted.export.path("disk0").unwrap();
    let direct = File::options().write(true).custom_flags(libc::O_DIRECT).open(path).unwrap();
    let (done, written) = channel();
    std::thread::spawn(move || {
        #[repr(align(4096))]
        struct Sector([u8; 512]);
        done.send(direct.write_all_at(&Sector([7; 512]).0, (PAGE * 50 + 1024) as u64)).unwrap();
    });
    assert!(written.recv_timeout(Duration::from_millis(300)).is_err());
    let mut other = vec![0; PAGE];
    mounted.open().read_exact_at(&mut other, 0).unwrap();
    mounted.store.insert(id, &bytes);
    written.recv_timeout(SOON).unwrap().unwrap();
    let mut expected = page(50);
    expected[1024..1536].fill(7);
    mounted.volume.read_at((PAGE * 50) as u64, &mut other).unwrap();
    assert!(other == expected);
}

#[test]
fn cancelling_the_volume_ends_the_wait_with_an_error() {
    let mounted = Mounted::new();
    mounted.lose(10);
    let file = mounted.open();
    let (done, answered) = channel();
    std::thread::spawn(move || {
        let mut bytes = vec![0; PAGE];
        done.send(file.read_exact_at(&mut bytes, (PAGE * 10) as u64)).unwrap();
    });
    assert!(answered.recv_timeout(Duration::from_millis(300)).is_err());
    mounted.volume.cancel();
    let error = answered.recv_timeout(SOON).unwrap().unwrap_err();
    assert_eq!(error.raw_os_error(), Some(libc::EIO));
}
