//! Files on a real mount behave like files, and what is refused is refused.

mod support;

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use export::{Export, ExportError, ExportFile, Options};
use rustix::fs::FallocateFlags;
use support::{Chance, Event, Mapping, MemFile, Mounted, PAGE, pattern};

#[test]
fn the_directory_shows_the_files() {
    let dir = tempfile::tempdir().unwrap();
    let file = |size| Arc::new(MemFile::new(size)) as Arc<dyn ExportFile>;
    let files = vec![("ram".to_owned(), file(PAGE * 4)), ("disk0".to_owned(), file(10_000))];
    let export = Export::mount(dir.path(), files, Options::disk()).unwrap();
    let mut names: Vec<_> = fs::read_dir(export.mount_dir())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    assert_eq!(names, ["disk0", "ram"]);
    let metadata = fs::metadata(export.path("disk0").unwrap()).unwrap();
    assert_eq!(metadata.len(), 10_000);
    assert_eq!(metadata.permissions().mode() & 0o7777, 0o600);
    assert_eq!(metadata.uid(), rustix::process::geteuid().as_raw());
    assert!(fs::metadata(dir.path().join("disk1")).is_err());
    assert!(matches!(export.path("disk1"), Err(ExportError::NoSuchFile { .. })));
    rustix::fs::statfs(export.mount_dir()).unwrap();
    export.unmount().unwrap();
    assert!(!support::is_mounted(dir.path()));
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
}

#[test]
fn many_files_are_all_listed() {
    let dir = tempfile::tempdir().unwrap();
    let files = (0..600)
        .map(|n| {
            let name = format!("a-name-that-fills-the-buffer-of-readdir-a-little-{n:04}");
            (name, Arc::new(MemFile::new(PAGE)) as Arc<dyn ExportFile>)
        })
        .collect();
    let export = Export::mount(dir.path(), files, Options::disk()).unwrap();
    assert_eq!(fs::read_dir(export.mount_dir()).unwrap().count(), 600);
}

#[test]
fn bad_names_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    for names in [&["a/b"][..], &[".."], &["."], &[""], &["a", "a"], &["a\0b"], &[]] {
        let files = names
            .iter()
            .map(|name| (name.to_string(), Arc::new(MemFile::new(PAGE)) as Arc<dyn ExportFile>))
            .collect();
        let error = Export::mount(dir.path(), files, Options::disk()).unwrap_err();
        assert!(
            matches!(error, ExportError::BadName { .. } | ExportError::BadCount { .. }),
            "{error}"
        );
    }
    assert!(!support::is_mounted(dir.path()));
    let nowhere = dir.path().join("nowhere");
    let files = vec![("a".to_owned(), Arc::new(MemFile::new(PAGE)) as Arc<dyn ExportFile>)];
    let error = Export::mount(&nowhere, files, Options::disk()).unwrap_err();
    assert!(matches!(error, ExportError::Mount { .. }), "{error}");
}

/// Random reads, writes, mapped accesses, holes and syncs against a plain vector.
fn check_against_model(seed: u64, size: usize, options: Options) {
    let mounted = Mounted::with(MemFile::patterned(size), options);
    let mut model = pattern(size);
    let file = mounted.open();
    let mut mapping = Mapping::new(&file, size);
    let mut chance = Chance(seed);
    for step in 0..2000 {
        let offset = chance.below(size as u64) as usize;
        let most = (size - offset).min(if step % 50 == 0 { 200_000 } else { 9000 });
        let len = 1 + chance.below(most as u64) as usize;
        let range = offset..offset + len;
        match chance.below(8) {
            0 | 1 => {
                let mut bytes = vec![0; len];
                file.read_exact_at(&mut bytes, offset as u64).unwrap();
                assert_eq!(bytes, model[range], "seed {seed}, step {step}");
            }
            2 | 3 => {
                let bytes: Vec<u8> = (0..len).map(|_| chance.next() as u8).collect();
                file.write_all_at(&bytes, offset as u64).unwrap();
                model[range].copy_from_slice(&bytes);
            }
            4 => assert_eq!(mapping.bytes()[range.clone()], model[range], "seed {seed}"),
            5 => {
                let byte = chance.next() as u8;
                mapping.bytes()[range.clone()].fill(byte);
                model[range].fill(byte);
            }
            6 => {
                let how = [
                    FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE,
                    FallocateFlags::ZERO_RANGE,
                ];
                let how = how[chance.below(2) as usize];
                rustix::fs::fallocate(&file, how, offset as u64, len as u64).unwrap();
                model[range].fill(0);
            }
            _ if step % 20 == 0 => {
                mounted.export.sync("disk0").unwrap();
                assert!(*mounted.file.bytes.read().unwrap() == model, "seed {seed}, step {step}");
            }
            _ => {}
        }
    }
    drop(mapping);
    drop(file);
    let backing = Arc::clone(&mounted.file);
    mounted.export.unmount().unwrap();
    assert!(*backing.bytes.read().unwrap() == model, "seed {seed}: unmount wrote everything");
}

#[test]
fn random_accesses_equal_a_model() {
    for seed in [1, 2, 3] {
        check_against_model(seed, PAGE * 256, Options::disk());
        check_against_model(seed + 10, PAGE * 100 + 1234, Options::ram());
    }
}

/// Each thread has pages of its own, of which it knows the content; all share the file.
#[test]
fn many_threads_and_syncs_at_once() {
    const THREADS: usize = 6;
    const EACH: usize = 64;
    let size = PAGE * THREADS * EACH;
    let mounted = Mounted::with(MemFile::new(size), Options::ram());
    // A third of it is answered by the fetch pool.
    mounted.file.remote_from.store(size as u64 * 2 / 3, Ordering::SeqCst);
    mounted.file.gate.open();
    let file = mounted.open();
    let models: Vec<Vec<u8>> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..THREADS)
            .map(|thread| {
                let file = &file;
                scope.spawn(move || {
                    let mut chance = Chance(1000 + thread as u64);
                    // Pages of all threads alternate.
                    let at = |page: usize| ((page * THREADS + thread) * PAGE) as u64;
                    let mut model = vec![0u8; EACH * PAGE];
                    let mut bytes = vec![0; PAGE];
                    for step in 0..1500 {
                        let page = chance.below(EACH as u64) as usize;
                        let own = page * PAGE..(page + 1) * PAGE;
                        if chance.below(2) == 0 {
                            bytes.fill(step as u8);
                            file.write_all_at(&bytes, at(page)).unwrap();
                            model[own].copy_from_slice(&bytes);
                        } else {
                            file.read_exact_at(&mut bytes, at(page)).unwrap();
                            assert!(bytes == model[own], "thread {thread}, step {step}");
                        }
                    }
                    model
                })
            })
            .collect();
        for _ in 0..20 {
            mounted.export.sync("disk0").unwrap();
            mounted.export.prefetch("disk0", vec![0..size as u64 / 2, 0..size as u64]).unwrap();
        }
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    mounted.export.sync("disk0").unwrap();
    let stored = mounted.file.bytes.read().unwrap();
    for (at, bytes) in stored.chunks(PAGE).enumerate() {
        let page = at / THREADS * PAGE;
        assert!(*bytes == models[at % THREADS][page..page + PAGE]);
    }
}

#[test]
fn fsync_returns_after_writes_and_flush() {
    let mounted = Mounted::new(MemFile::new(PAGE * 64));
    let file = mounted.open();
    for page in [3u64, 5, 6, 7, 40] {
        file.write_all_at(&[page as u8; PAGE], page * PAGE as u64).unwrap();
    }
    assert!(!mounted.file.events().contains(&Event::FlushEnd));
    file.sync_all().unwrap();
    let events = mounted.file.events();
    let written: u64 =
        events.iter().map(|event| if let Event::Write(_, len) = event { *len } else { 0 }).sum();
    assert_eq!(written, 5 * PAGE as u64);
    assert_eq!(events.last(), Some(&Event::FlushEnd));

    mounted.file.flush_fails.store(true, Ordering::SeqCst);
    file.write_all_at(&[9; PAGE], 0).unwrap();
    assert_eq!(file.sync_all().unwrap_err().raw_os_error(), Some(libc::EIO));
    let error = mounted.export.sync("disk0").unwrap_err();
    assert!(matches!(error, ExportError::Sync { .. }), "{error}");
    mounted.file.flush_fails.store(false, Ordering::SeqCst);
    mounted.export.sync("disk0").unwrap();
}

#[test]
fn holes_reach_discard_as_whole_pages() {
    let mounted = Mounted::new(MemFile::patterned(PAGE * 16 + 100));
    let file = mounted.open();
    let punch = |offset: usize, len: usize| {
        let how = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        rustix::fs::fallocate(&file, how, offset as u64, len as u64).unwrap();
    };
    let page = PAGE as u64;
    punch(PAGE, PAGE * 3);
    assert_eq!(mounted.file.events(), [Event::Discard(page, page * 3)]);
    mounted.file.clear_events();
    punch(PAGE * 8 - 10, PAGE + 20);
    assert_eq!(
        mounted.file.events(),
        [
            Event::Write(page * 8 - 10, 10),
            Event::Write(page * 9, 10),
            Event::Discard(page * 8, page)
        ]
    );
    mounted.file.clear_events();
    // Over the end of the file: only what exists, the short last page included.
    punch(PAGE * 15, PAGE * 100);
    assert_eq!(mounted.file.events(), [Event::Discard(page * 15, page + 100)]);
    let mut expected = pattern(PAGE * 16 + 100);
    expected[PAGE..PAGE * 4].fill(0);
    expected[PAGE * 8 - 10..PAGE * 9 + 10].fill(0);
    expected[PAGE * 15..].fill(0);
    let mut bytes = vec![0; expected.len()];
    file.read_exact_at(&mut bytes, 0).unwrap();
    assert!(bytes == expected);
}

#[test]
fn the_size_is_fixed() {
    let size = PAGE * 8;
    let mounted = Mounted::new(MemFile::patterned(size));
    let file = mounted.open();
    let refused = |result: io::Result<()>, errno| {
        assert_eq!(result.unwrap_err().raw_os_error(), Some(errno));
    };
    file.set_len(size as u64).unwrap();
    refused(file.set_len(size as u64 + 1), libc::EPERM);
    refused(file.set_len(0), libc::EPERM);
    let path = mounted.export.path("disk0").unwrap();
    refused(File::options().write(true).truncate(true).open(&path).map(drop), libc::EPERM);
    let allocate =
        |offset, len, how| rustix::fs::fallocate(&file, how, offset, len).map_err(io::Error::from);
    allocate(0, size as u64, FallocateFlags::empty()).unwrap();
    refused(allocate(0, size as u64 + 1, FallocateFlags::empty()), libc::EFBIG);
    refused(allocate(size as u64, 1, FallocateFlags::ZERO_RANGE), libc::EFBIG);
    refused(allocate(0, 4096, FallocateFlags::COLLAPSE_RANGE), libc::EOPNOTSUPP);

    // Direct I/O asks us, and is refused; the page cache accepts what it cannot store, and says
    // so when it is asked to.
    let direct =
        File::options().read(true).write(true).custom_flags(libc::O_DIRECT).open(&path).unwrap();
    #[repr(align(4096))]
    struct Aligned([u8; PAGE]);
    let page = Aligned([7; PAGE]);
    refused(direct.write_all_at(&page.0, size as u64), libc::EFBIG);
    direct.write_all_at(&page.0, 0).unwrap();
    assert_eq!(mounted.file.bytes.read().unwrap()[..PAGE], page.0);
    let mut beyond = Aligned([1; PAGE]);
    assert_eq!(direct.read_at(&mut beyond.0, size as u64 * 2).unwrap(), 0);

    let not_ours = if rustix::process::geteuid().is_root() { libc::EPERM } else { libc::EACCES };
    refused(fs::remove_file(&path), not_ours);
    refused(fs::set_permissions(&path, fs::Permissions::from_mode(0o666)), libc::EPERM);
    assert!(File::create(mounted.export.mount_dir().join("new")).is_err());
    assert!(fs::rename(&path, mounted.export.mount_dir().join("new")).is_err());
    assert!(fs::create_dir(mounted.export.mount_dir().join("new")).is_err());
    assert_eq!(fs::metadata(&path).unwrap().len(), size as u64);
}

#[test]
fn a_buffered_write_beyond_the_end_fails_at_sync_and_stores_nothing() {
    let size = PAGE * 4;
    let mounted = Mounted::new(MemFile::patterned(size));
    let file = mounted.open();
    let _ = file.write_all_at(&[7; PAGE], size as u64);
    assert!(file.sync_all().is_err());
    assert!(*mounted.file.bytes.read().unwrap() == pattern(size));
}

#[test]
fn a_lost_page_is_an_error() {
    let mounted = Mounted::new(MemFile::patterned(PAGE * 4));
    let file = mounted.open();
    mounted.file.read_fails.store(true, Ordering::SeqCst);
    let mut bytes = [0; PAGE];
    let error = file.read_exact_at(&mut bytes, 0).unwrap_err();
    assert_eq!(error.raw_os_error(), Some(libc::EIO));
    mounted.file.read_fails.store(false, Ordering::SeqCst);
    file.read_exact_at(&mut bytes, 0).unwrap();
    assert_eq!(bytes[..], pattern(PAGE)[..]);
}

/// Root lifts what would throttle a guest; a normal user lives with the kernel's defaults.
#[test]
fn the_mount_is_tuned() {
    if !rustix::process::geteuid().is_root() {
        return;
    }
    for (options, read_ahead_kb) in [(Options::ram(), "4"), (Options::disk(), "512")] {
        let mounted = Mounted::with(MemFile::new(PAGE), options);
        let device = fs::metadata(mounted.export.mount_dir()).unwrap().dev();
        let (major, minor) = (rustix::fs::major(device), rustix::fs::minor(device));
        let knob = |name: &str| {
            let path = format!("/sys/class/bdi/{major}:{minor}/{name}");
            fs::read_to_string(path).unwrap().trim().to_owned()
        };
        assert_eq!(knob("read_ahead_kb"), read_ahead_kb);
        assert_eq!(knob("strict_limit"), "0");
        assert_eq!(knob("max_ratio"), "100");
    }
}
