//! Nothing hangs: slow reads, full disks, killed servers, busy mounts.

mod support;

use std::fs::{self, File};
use std::io::{self, BufRead, BufReader};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::channel;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use export::{Export, ExportError, ExportFile, Options, Stale, Trouble, cleanup_stale};
use support::{Event, Gate, Mapping, MemFile, Mounted, PAGE, pattern};

const SOON: Duration = Duration::from_secs(30);

/// Opens a gate when a test ends, however it ends: a reader that waits could not be killed.
struct OpenAtLast<'a>(&'a Gate);

impl Drop for OpenAtLast<'_> {
    fn drop(&mut self) {
        self.0.open();
    }
}

fn wait_until(what: &str, condition: impl Fn() -> bool) {
    let start = ambient::now();
    while !condition() {
        assert!(start.elapsed() < SOON, "waited too long until {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

#[test]
fn slow_reads_do_not_block_fast_ones() {
    let pages = 256;
    let faults = Arc::new(Mutex::new(Vec::new()));
    let told = Arc::clone(&faults);
    let options = Options {
        loop_threads: 2,
        fetch_threads_max: 8,
        on_fault: Some(Arc::new(move |file, took| {
            told.lock().unwrap().push((file.to_owned(), took))
        })),
        ..Options::ram()
    };
    let mounted = Mounted::with(MemFile::patterned(PAGE * pages), options);
    mounted.file.remote_from.store((PAGE * 128) as u64, Ordering::SeqCst);
    let expected = pattern(PAGE * pages);
    let file = Arc::new(mounted.open());
    let _open = OpenAtLast(&mounted.file.gate);

    // More slow readers than loop threads and fetch threads together.
    let (done, all_done) = channel();
    for page in 128..160 {
        let (file, done) = (Arc::clone(&file), done.clone());
        std::thread::spawn(move || {
            let mut bytes = vec![0; PAGE];
            file.read_exact_at(&mut bytes, (page * PAGE) as u64).unwrap();
            done.send((page, bytes)).unwrap();
        });
    }
    wait_until("all readers wait", || mounted.export.stats().reads_held == 32);
    assert!(mounted.file.gate.waiting.load(Ordering::SeqCst) <= 8, "the pool is bounded");

    let start = ambient::now();
    for page in 0..128 {
        let mut bytes = vec![0; PAGE];
        file.read_exact_at(&mut bytes, (page * PAGE) as u64).unwrap();
        assert_eq!(bytes, expected[page * PAGE..][..PAGE]);
    }
    // Neither are writes and syncs in their way.
    file.write_all_at(&[1; PAGE], 0).unwrap();
    file.sync_all().unwrap();
    mounted.export.sync("disk0").unwrap();
    assert!(start.elapsed() < SOON);
    assert!(all_done.try_recv().is_err(), "no slow read was answered yet");
    assert_eq!(*faults.lock().unwrap(), [], "the others did not wait");
    let waited = start.elapsed();

    mounted.file.gate.open();
    for _ in 128..160 {
        let (page, bytes) = all_done.recv_timeout(SOON).unwrap();
        assert_eq!(bytes, expected[page * PAGE..][..PAGE]);
    }
    assert_eq!(mounted.export.stats().reads_held, 0);
    // Each is told once it has its answer, with all of its wait: also that for a thread.
    wait_until("all are told", || faults.lock().unwrap().len() == 32);
    let faults = faults.lock().unwrap();
    assert!(faults.iter().all(|(file, took)| file == "disk0" && *took >= waited), "{faults:?}");
}

#[test]
fn a_mapped_fault_waits_for_its_page_and_gets_the_right_one() {
    let size = PAGE * 16;
    let mounted = Mounted::with(MemFile::patterned(size), Options::ram());
    mounted.file.remote_from.store(0, Ordering::SeqCst);
    let _open = OpenAtLast(&mounted.file.gate);
    let file = mounted.open();
    let mut mapping = Mapping::new(&file, size);
    let (done, faulted) = channel();
    std::thread::spawn(move || {
        let sum = mapping.bytes()[PAGE * 3..PAGE * 4].to_vec();
        done.send(sum).unwrap();
    });
    wait_until("the fault waits", || mounted.export.stats().reads_held == 1);
    assert!(faulted.recv_timeout(Duration::from_millis(200)).is_err());
    mounted.file.gate.open();
    assert_eq!(faulted.recv_timeout(SOON).unwrap(), pattern(size)[PAGE * 3..PAGE * 4]);
    let page = PAGE as u64;
    assert_eq!(mounted.file.events(), [Event::Read(page * 3, page)], "one page, no read-ahead");
}

#[test]
fn held_reads_can_be_given_up() {
    let mounted = Mounted::new(MemFile::patterned(PAGE * 16));
    mounted.file.remote_from.store(0, Ordering::SeqCst);
    let _open = OpenAtLast(&mounted.file.gate);
    let file = mounted.open();
    let (done, answered) = channel();
    std::thread::spawn(move || {
        let mut bytes = [0; PAGE];
        done.send(file.read_exact_at(&mut bytes, 0)).unwrap();
    });
    wait_until("the read waits", || mounted.export.stats().reads_held > 0);
    mounted.export.give_up_reads();
    let error = answered.recv_timeout(SOON).unwrap().unwrap_err();
    assert_eq!(error.raw_os_error(), Some(libc::EIO));
}

#[test]
fn a_full_disk_holds_writes_until_there_is_room() {
    let told = Arc::new(Mutex::new(Vec::new()));
    let tell = Arc::clone(&told);
    let options = Options {
        on_trouble: Some(Arc::new(move |trouble: &Trouble<'_>| {
            tell.lock().unwrap().push(format!("{trouble:?}"));
        })),
        ..Options::disk()
    };
    let size = PAGE * 64;
    let mounted = Mounted::with(MemFile::new(size), options);
    let file = mounted.open();
    mounted.file.full.store(true, Ordering::SeqCst);
    file.write_all_at(&pattern(size), 0).unwrap();
    let error = mounted.export.sync("disk0").unwrap_err();
    assert!(matches!(error, ExportError::WritesHeld { .. }), "{error}");
    assert!(mounted.export.stats().writes_held > 0);
    // Reads go on, also of the pages that are held.
    let mut bytes = vec![0; size];
    file.read_exact_at(&mut bytes, 0).unwrap();
    assert!(bytes == pattern(size));

    mounted.file.full.store(false, Ordering::SeqCst);
    mounted.export.sync("disk0").unwrap();
    assert!(*mounted.file.bytes.read().unwrap() == pattern(size));
    assert_eq!(mounted.export.stats().writes_held, 0);
    wait_until("it is told", || told.lock().unwrap().len() >= 2);
    let told = told.lock().unwrap();
    assert!(told[0].starts_with("WriteHeld") && told[0].contains("disk0"), "{told:?}");
    assert_eq!(told.last().unwrap(), "WritesResumed");
}

#[test]
fn direct_writes_to_a_full_disk_fail_at_once() {
    use std::os::unix::fs::OpenOptionsExt;
    let mounted = Mounted::new(MemFile::new(PAGE * 4));
    mounted.file.full.store(true, Ordering::SeqCst);
    let path = mounted.export.path("disk0").unwrap();
    let file = File::options().write(true).custom_flags(libc::O_DIRECT).open(path).unwrap();
    #[repr(align(4096))]
    struct Aligned([u8; PAGE]);
    let error = file.write_all_at(&Aligned([1; PAGE]).0, 0).unwrap_err();
    assert_eq!(error.raw_os_error(), Some(libc::ENOSPC));
}

#[test]
fn sync_brings_what_is_dirty_in_a_mapping() {
    let size = PAGE * 512;
    let mounted = Mounted::with(MemFile::new(size), Options::ram());
    let file = mounted.open();
    let mut mapping = Mapping::new(&file, size);
    mapping.bytes()[..PAGE].copy_from_slice(&pattern(PAGE));
    mounted.export.write_back("disk0").unwrap();
    assert!(mounted.file.bytes.read().unwrap()[..PAGE] == pattern(PAGE));
    assert!(!mounted.file.events().contains(&Event::FlushStart), "written back, not flushed");
    mapping.bytes().copy_from_slice(&pattern(size));
    mounted.export.sync("disk0").unwrap();
    assert!(*mounted.file.bytes.read().unwrap() == pattern(size));
    assert_eq!(mounted.file.events().last(), Some(&Event::FlushEnd));
}

#[test]
fn stored_pages_are_read_without_asking() {
    let size = PAGE * 64;
    let mounted = Mounted::with(MemFile::patterned(size), Options::ram());
    let expected = pattern(size);
    let (from, to) = (PAGE * 8, PAGE * 24);
    assert!(mounted.export.store("disk0", from as u64, &expected[from..to]).unwrap());
    let bad = mounted.export.store("disk0", 1, &expected[..PAGE]).unwrap_err();
    assert!(matches!(bad, ExportError::BadRange { .. }), "{bad}");
    assert!(mounted.export.store("disk0", size as u64, &expected[..PAGE]).is_err());
    assert!(mounted.export.store("disk0", 0, &expected[..100]).is_err());

    let file = mounted.open();
    let mut mapping = Mapping::new(&file, size);
    assert_eq!(mapping.bytes()[from..to], expected[from..to]);
    assert_eq!(mounted.file.events(), [], "the kernel had them");
    // Somebody has it open now: a store could overwrite what they wrote.
    mapping.bytes()[from] = 77;
    assert!(!mounted.export.store("disk0", from as u64, &expected[from..to]).unwrap());
    assert_eq!(mapping.bytes()[from], 77);
}

#[test]
fn prefetch_is_safe_at_any_time() {
    let size = PAGE * 512;
    let mounted = Mounted::with(MemFile::patterned(size), Options::ram());
    let file = mounted.open();
    let mut mapping = Mapping::new(&file, size);
    mapping.bytes()[0] = 77;
    mapping.bytes()[PAGE * 100] = 78;
    let page = PAGE as u64;
    mounted.export.prefetch("disk0", vec![0..page * 256, page * 300..page * 301]).unwrap();
    wait_until("257 pages were read", || {
        mounted.export.stats().read_bytes >= page * 257 && {
            let events = mounted.file.events();
            let read = |event: &Event| if let Event::Read(_, len) = event { *len } else { 0 };
            events.iter().map(read).sum::<u64>() >= page * 257
        }
    });
    let reads = mounted.export.stats().reads;
    assert!(reads < 40, "runs, not pages: {reads}");
    let mut expected = pattern(size);
    (expected[0], expected[PAGE * 100]) = (77, 78);
    assert!(mapping.bytes()[..PAGE * 256] == expected[..PAGE * 256]);
    assert_eq!(mounted.export.stats().reads, reads, "no fault asked again");
    assert!(mounted.export.prefetch("disk0", vec![0..page, 0..size as u64 + 1]).is_err());
}

/// Why memory and disks are on mounts of their own: the kernel keeps read-ahead per mount.
#[test]
fn faults_of_memory_read_pages_and_faults_of_disks_read_runs() {
    let pages = 4096;
    let touch = |options| {
        let mounted = Mounted::with(MemFile::new(PAGE * pages), options);
        let file = mounted.open();
        let mut mapping = Mapping::new(&file, PAGE * pages);
        for page in (0..pages).step_by(256) {
            assert_eq!(mapping.bytes()[page * PAGE], 0);
        }
        mounted.export.stats().read_bytes / PAGE as u64
    };
    assert_eq!(touch(Options::ram()), 16);
    assert!(touch(Options::disk()) >= 16 * 16);
}

#[test]
fn a_busy_mount_goes_away_and_its_client_gets_errors() {
    let mounted = Mounted::new(MemFile::patterned(PAGE * 64));
    let file = mounted.open();
    file.write_all_at(&[5; PAGE], 0).unwrap();
    let Mounted { export, file: backing, dir } = mounted;
    let start = ambient::now();
    let error = export.unmount().unwrap_err();
    assert!(start.elapsed() < SOON);
    assert!(matches!(error, ExportError::Unmount { .. }), "{error}");
    assert!(!support::is_mounted(dir.path()));
    assert_eq!(backing.bytes.read().unwrap()[..PAGE], [5; PAGE], "synced before it was left");
    let mut bytes = [0; PAGE];
    assert!(file.read_exact_at(&mut bytes, PAGE as u64 * 32).is_err());
    wait_until("nothing holds the file", || Arc::strong_count(&backing) == 1);
    // And the directory can be used again.
    let files = vec![("ram".to_owned(), backing as Arc<dyn ExportFile>)];
    Export::mount(dir.path(), files, Options::ram()).unwrap().unmount().unwrap();
}

#[test]
fn a_panic_in_a_file_is_an_error_of_one_request() {
    struct Panics(AtomicU64);
    impl ExportFile for Panics {
        fn size_bytes(&self) -> u64 {
            PAGE as u64 * 64
        }
        fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
            self.0.fetch_add(1, Ordering::SeqCst);
            assert!(offset >= PAGE as u64 * 32, "a bug of the file");
            buf.fill(1);
            Ok(())
        }
        fn write_at(&self, _: u64, _: &[u8]) -> io::Result<()> {
            Ok(())
        }
        fn flush(&self) -> io::Result<()> {
            panic!("another bug")
        }
        fn discard(&self, _: u64, _: u64) -> io::Result<()> {
            Ok(())
        }
        fn is_local(&self, offset: u64, _: u64) -> bool {
            offset.is_multiple_of(PAGE as u64 * 2)
        }
    }
    let dir = tempfile::tempdir().unwrap();
    let files = vec![("a".to_owned(), Arc::new(Panics(AtomicU64::new(0))) as Arc<dyn ExportFile>)];
    let export = Export::mount(dir.path(), files, Options::ram()).unwrap();
    let file = File::open(export.path("a").unwrap()).unwrap();
    let mut bytes = [0; PAGE];
    for page in 0..16 {
        assert!(file.read_exact_at(&mut bytes, page * PAGE as u64).is_err());
    }
    assert!(file.sync_all().is_err());
    for page in 32..48 {
        file.read_exact_at(&mut bytes, page * PAGE as u64).unwrap();
    }
}

// ---- a serving process that is killed ----

/// A file that is stuck, as the child below is told.
struct Stuck {
    reads: bool,
    writes: bool,
    flushes: bool,
    dirty: AtomicBool,
}

impl Stuck {
    fn wait(&self, forever: bool) {
        if forever {
            std::thread::sleep(Duration::from_secs(3600));
        }
    }
}

impl ExportFile for Stuck {
    fn size_bytes(&self) -> u64 {
        PAGE as u64 * 64
    }
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        self.wait(self.reads && offset >= PAGE as u64 * 32);
        buf.fill(9);
        Ok(())
    }
    fn write_at(&self, _: u64, _: &[u8]) -> io::Result<()> {
        self.dirty.store(true, Ordering::SeqCst);
        self.wait(self.writes);
        Ok(())
    }
    fn flush(&self) -> io::Result<()> {
        self.wait(self.flushes);
        Ok(())
    }
    fn discard(&self, _: u64, _: u64) -> io::Result<()> {
        Ok(())
    }
    fn is_local(&self, offset: u64, len: u64) -> bool {
        offset + len <= PAGE as u64 * 32
    }
}

/// Not a test: the process that the tests below start and kill.
#[test]
#[ignore = "a child process of other tests"]
fn child() {
    let (Ok(dir), Ok(stuck)) = (std::env::var("EXPORT_DIR"), std::env::var("EXPORT_STUCK")) else {
        return;
    };
    let file = Stuck {
        reads: stuck == "reads",
        writes: stuck == "writes",
        flushes: stuck == "flushes",
        dirty: AtomicBool::new(false),
    };
    let files = vec![("ram".to_owned(), Arc::new(file) as Arc<dyn ExportFile>)];
    let export = Export::mount(Path::new(&dir), files, Options::ram()).unwrap();
    println!("ready");
    let mut line = String::new();
    io::stdin().read_line(&mut line).unwrap();
    println!("syncing");
    export.sync("ram").unwrap();
    println!("synced");
    std::thread::sleep(Duration::from_secs(600));
}

/// The child, killed at last; and its mount, removed at last.
struct Server {
    process: Child,
    dir: tempfile::TempDir,
    lines: BufReader<std::process::ChildStdout>,
}

impl Server {
    fn start(stuck: &str) -> Server {
        let dir = tempfile::tempdir().unwrap();
        let mut process = Command::new(std::env::current_exe().unwrap())
            .args(["--ignored", "--exact", "child", "--nocapture", "--test-threads=1"])
            .env("EXPORT_DIR", dir.path())
            .env("EXPORT_STUCK", stuck)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(process.stdout.take().unwrap());
        let mut server = Server { process, dir, lines };
        server.wait_for("ready");
        server
    }

    fn wait_for(&mut self, word: &str) {
        let mut line = String::new();
        while !line.contains(word) {
            line.clear();
            assert_ne!(self.lines.read_line(&mut line).unwrap(), 0, "the child ended early");
        }
    }

    fn sync(&mut self) {
        use std::io::Write;
        self.process.stdin.as_mut().unwrap().write_all(b"sync\n").unwrap();
        self.wait_for("syncing");
    }

    /// Whether SIGKILL ends the process soon.
    fn kill(&mut self) -> bool {
        self.process.kill().unwrap();
        let start = ambient::now();
        while start.elapsed() < SOON {
            if self.process.try_wait().unwrap().is_some() {
                return true;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        false
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let flags = rustix::mount::UnmountFlags::DETACH | rustix::mount::UnmountFlags::FORCE;
        let _ = rustix::mount::unmount(self.dir.path(), flags);
        let _ = cleanup_stale(self.dir.path());
        let _ = self.process.wait();
    }
}

#[test]
fn a_killed_server_leaves_errors_and_a_mount_that_can_be_cleaned_up() {
    let mut server = Server::start("reads");
    let path = server.dir.path().join("ram");
    assert_eq!(cleanup_stale(server.dir.path()).unwrap(), Stale::Live);
    let other = vec![("a".to_owned(), Arc::new(MemFile::new(PAGE)) as Arc<dyn ExportFile>)];
    let error = Export::mount(server.dir.path(), other, Options::ram()).unwrap_err();
    assert!(matches!(error, ExportError::Mounted { .. }), "{error}");

    let file = File::options().read(true).write(true).open(&path).unwrap();
    let mut bytes = [0; PAGE];
    file.read_exact_at(&mut bytes, 0).unwrap();
    assert_eq!(bytes, [9; PAGE]);
    // A client that waits for a page that never comes, while the server dies.
    let (done, answered) = channel();
    let waiting = file.try_clone().unwrap();
    std::thread::spawn(move || {
        let mut bytes = [0; PAGE];
        done.send(waiting.read_exact_at(&mut bytes, PAGE as u64 * 40)).unwrap();
    });
    assert!(answered.recv_timeout(Duration::from_millis(300)).is_err());
    assert!(server.kill());
    answered.recv_timeout(SOON).unwrap().unwrap_err();
    assert!(file.read_exact_at(&mut bytes, PAGE as u64 * 8).is_err());
    assert_eq!(File::open(&path).unwrap_err().raw_os_error(), Some(libc::ENOTCONN));
    drop(file);

    assert!(support::is_mounted(server.dir.path()));
    assert_eq!(cleanup_stale(server.dir.path()).unwrap(), Stale::Removed(1));
    assert!(!support::is_mounted(server.dir.path()));
    assert_eq!(cleanup_stale(server.dir.path()).unwrap(), Stale::Nothing);
    assert_eq!(fs::read_dir(server.dir.path()).unwrap().count(), 0);
}

#[test]
fn mounting_over_a_dead_mount_cleans_up_by_itself() {
    let mut server = Server::start("nothing");
    assert!(server.kill());
    let file = vec![("a".to_owned(), Arc::new(MemFile::new(PAGE)) as Arc<dyn ExportFile>)];
    let export = Export::mount(server.dir.path(), file, Options::ram()).unwrap();
    assert_eq!(fs::read(export.path("a").unwrap()).unwrap(), [0; PAGE]);
}

/// The reason for the thread with a file table of its own: `outside`.
#[test]
fn a_server_that_is_killed_while_it_syncs_is_gone() {
    for stuck in ["flushes", "writes"] {
        let mut server = Server::start(stuck);
        let file = File::options().write(true).open(server.dir.path().join("ram")).unwrap();
        file.write_all_at(&[1; PAGE], 0).unwrap();
        server.sync();
        std::thread::sleep(Duration::from_millis(300));
        assert!(server.kill(), "stuck in {stuck}: a killed server is still there");
        assert_eq!(cleanup_stale(server.dir.path()).unwrap(), Stale::Removed(1));
    }
}

#[test]
fn a_client_that_waits_for_a_page_can_be_killed_once_it_is_given_up() {
    let mounted = Mounted::with(MemFile::patterned(PAGE * 16), Options::ram());
    mounted.file.remote_from.store(0, Ordering::SeqCst);
    let _open = OpenAtLast(&mounted.file.gate);
    let mut client = Command::new("cat")
        .arg(mounted.export.path("disk0").unwrap())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    wait_until("the client waits", || mounted.export.stats().reads_held > 0);
    client.kill().unwrap();
    mounted.export.give_up_reads();
    client.wait().unwrap();
}
