//! A file system that mke2fs made, read back; whole, and with bytes that were changed.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use files::{CopyOptions, FileKind, FileSystem, FilesError, copy_out, parts};
use proptest::prelude::*;
use tempfile::TempDir;

/// A folder with a bit of everything, and an image of it.
fn image(options: &[&str]) -> (TempDir, Vec<u8>) {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("root");
    fs::create_dir_all(root.join("etc/deep")).unwrap();
    fs::write(root.join("etc/hostname"), "demo\n").unwrap();
    fs::write(root.join("etc/deep/empty"), "").unwrap();
    let large: Vec<u8> = (0..3_000_000_u32).map(|i| (i / 7) as u8).collect();
    fs::write(root.join("large"), &large).unwrap();
    let sparse = fs::File::create(root.join("sparse")).unwrap();
    // Where blocks are found through other blocks (ext2), the library does not know large holes.
    sparse.set_len(if options.contains(&"ext2") { 10_000 } else { 5_000_000 }).unwrap();
    std::os::unix::fs::symlink("/etc/passwd", root.join("leads-out")).unwrap();
    std::os::unix::fs::symlink("../hostname", root.join("etc/deep/name")).unwrap();
    rustix::fs::mkfifoat(rustix::fs::CWD, root.join("pipe"), rustix::fs::Mode::RUSR).unwrap();
    let file = dir.path().join("image");
    let made = Command::new("mke2fs")
        .env("PATH", format!("{}:/usr/sbin:/sbin", std::env::var("PATH").unwrap()))
        .args(["-q", "-d"])
        .arg(&root)
        .args(options)
        .arg(&file)
        .arg("16M")
        .output()
        .unwrap();
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    let bytes = fs::read(&file).unwrap();
    (dir, bytes)
}

fn open(bytes: Vec<u8>) -> Result<FileSystem, FilesError> {
    let disk = Arc::new(bytes);
    let part = parts(&*disk).unwrap().remove(0);
    FileSystem::open(disk, &part)
}

#[test]
fn what_was_put_in_comes_out() {
    for options in [&["-t", "ext4"][..], &["-t", "ext2"], &["-t", "ext4", "-b", "1024"]] {
        let (dir, bytes) = image(options);
        let system = open(bytes).unwrap();
        let mut names: Vec<_> = system.list(b"/").unwrap().into_iter().collect();
        names.sort_by(|a, b| a.name.cmp(&b.name));
        let names: Vec<_> =
            names.iter().map(|e| (String::from_utf8_lossy(&e.name).into_owned(), e.kind)).collect();
        let expected = [
            ("etc", FileKind::Directory),
            ("large", FileKind::File),
            ("leads-out", FileKind::Link),
            ("lost+found", FileKind::Directory),
            ("pipe", FileKind::Special),
            ("sparse", FileKind::File),
        ];
        assert_eq!(names, expected.map(|(name, kind)| (name.to_owned(), kind)), "{options:?}");
        assert_eq!(system.link(b"/leads-out").unwrap(), b"/etc/passwd");
        assert_eq!(system.follow(b"/etc/deep/name").unwrap(), b"/etc/hostname");
        assert_eq!(system.read(b"/etc/hostname", 1, 99).unwrap(), b"emo\n");

        let out = dir.path().join("out");
        let copied = copy_out(&system, b"/", &out, CopyOptions::default(), &mut |_, _| {}).unwrap();
        assert_eq!((copied.files, copied.links, copied.left_out), (4, 2, 1));
        let root = dir.path().join("root");
        for file in ["etc/hostname", "etc/deep/empty", "large", "sparse"] {
            assert_eq!(fs::read(out.join(file)).unwrap(), fs::read(root.join(file)).unwrap());
        }
        assert_eq!(fs::read_link(out.join("leads-out")).unwrap(), Path::new("/etc/passwd"));
        let blocks =
            std::os::unix::fs::MetadataExt::blocks(&out.join("sparse").metadata().unwrap());
        assert!(blocks < 100, "{blocks} blocks for a hole");
    }
}

#[test]
fn what_is_there_stays_unless_it_is_to_be_replaced() {
    let (dir, bytes) = image(&["-t", "ext4"]);
    let system = open(bytes).unwrap();
    let target = dir.path().join("precious");
    fs::write(&target, "mine").unwrap();
    let link = dir.path().join("link");
    std::os::unix::fs::symlink(&target, &link).unwrap();
    let copy = |to: &Path, replace| {
        copy_out(&system, b"/etc/hostname", to, CopyOptions { replace }, &mut |_, _| {})
    };
    assert!(matches!(copy(&link, false), Err(FilesError::Exists { .. })));
    copy(&link, true).unwrap();
    assert_eq!(fs::read_to_string(&link).unwrap(), "demo\n");
    assert_eq!(fs::read_to_string(&target).unwrap(), "mine", "a link was followed");
}

#[test]
fn wrong_questions_are_answered_as_such() {
    let (_dir, bytes) = image(&["-t", "ext4"]);
    let system = open(bytes).unwrap();
    assert!(matches!(system.stat(b"/nothing"), Err(FilesError::NotFound { .. })));
    assert!(matches!(system.stat(b"relative"), Err(FilesError::NotFound { .. })));
    assert!(matches!(system.list(b"/large"), Err(FilesError::WrongKind { .. })));
    assert!(matches!(system.read(b"/etc", 0, 1), Err(FilesError::WrongKind { .. })));
    assert!(matches!(open(vec![0; 1 << 20]), Err(FilesError::Unknown { .. })));
}

/// Reads everything there is, within bounds.
/// Room was made for what it says of itself before anything was read: too much for any host, and so the
/// end of this process.
#[test]
fn it_has_no_larger_blocks_and_no_more_groups_of_them_than_there_is_room_for() {
    let (_dir, sound) = image(&["-t", "ext2"]);
    // Its blocks, the upper half of their number, and how many of them are a group.
    for (blocks, more, of_group) in [(u32::MAX, 0, 1), (1 << 20, 0, 1), (0, 1 << 10, 1 << 15)] {
        let mut bytes = sound.clone();
        for (at, number) in [(0x04, blocks), (0x150, more), (0x20, of_group)] {
            bytes[1024 + at..][..4].copy_from_slice(&u32::to_le_bytes(number));
        }
        let error = open(bytes).err().expect("it cannot be so");
        assert!(error.to_string().contains("groups of blocks"), "{blocks}: {error}");
    }
    for power in [7_u32, 19, 40, u32::MAX] {
        let mut bytes = sound.clone();
        bytes[1024 + 0x18..][..4].copy_from_slice(&power.to_le_bytes());
        let error = open(bytes).err().expect("it cannot be so");
        assert!(error.to_string().contains("too large"), "{power}: {error}");
    }
}

fn walk(system: &FileSystem, path: &[u8], left: &mut u32) {
    let Ok(entries) = system.list(path) else { return };
    for entry in entries.into_iter().take(20) {
        if *left == 0 {
            return;
        }
        *left -= 1;
        let below = [path, b"/", &entry.name].concat();
        let _ = system.stat(&below);
        let _ = system.link(&below);
        let _ = system.read(&below, 0, 1 << 16);
        let _ = system.read(&below, 1 << 20, 1 << 16);
        if path.len() < 40 {
            walk(system, &below, left);
        }
    }
}

#[test]
fn a_damaged_one_is_an_error_and_never_the_end_of_this_process() {
    let (_dir, bytes) = image(&["-t", "ext4"]);
    // Where its tables and directories are; data blocks are just data.
    let interesting: Vec<usize> = (0..bytes.len() / 1024)
        .filter(|at| bytes[at * 1024..][..1024].iter().any(|b| *b != 0))
        .collect();
    let mut runner = proptest::test_runner::TestRunner::new(ProptestConfig {
        cases: 200,
        failure_persistence: None,
        ..ProptestConfig::default()
    });
    let changes = proptest::collection::vec(
        (any::<prop::sample::Index>(), 0..1024_usize, any::<u8>()),
        1..40,
    );
    runner
        .run(&changes, |changes| {
            let mut bytes = bytes.clone();
            for (block, at, byte) in changes {
                bytes[block.get(&interesting) * 1024 + at] = byte;
            }
            if let Ok(system) = open(bytes) {
                walk(&system, b"", &mut 200);
                let _ = system.stat(b"/");
            }
            Ok(())
        })
        .unwrap();
}
