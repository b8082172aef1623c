//! A read-only tree, mounted.

use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::sync::Arc;

use export::{Node, NodeKind, Tree, TreeMount};

/// `/`, `/dir`, `/dir/file` with numbers in it, `/link`.
struct Small;

const LARGE: u64 = 3_000_000;

impl Tree for Small {
    fn node(&self, path: &[u8]) -> io::Result<Node> {
        let (kind, size_bytes) = match path {
            b"/" | b"/dir" => (NodeKind::Directory, 0),
            b"/dir/file" => (NodeKind::File, LARGE),
            b"/link" => (NodeKind::Link, 8),
            _ => return Err(io::ErrorKind::NotFound.into()),
        };
        Ok(Node { kind, size_bytes, mode: 0o4600, uid: 12345, gid: 1, modified_unix_s: -5 })
    }

    fn list(&self, path: &[u8]) -> io::Result<Vec<(Vec<u8>, NodeKind)>> {
        match path {
            b"/" => {
                Ok(vec![(b"dir".to_vec(), NodeKind::Directory), (b"link".to_vec(), NodeKind::Link)])
            }
            b"/dir" => Ok(vec![(b"file".to_vec(), NodeKind::File)]),
            _ => Err(io::ErrorKind::NotADirectory.into()),
        }
    }

    fn link(&self, _path: &[u8]) -> io::Result<Vec<u8>> {
        Ok(b"dir/file".to_vec())
    }

    fn read(&self, _path: &[u8], offset: u64, bytes: usize) -> io::Result<Vec<u8>> {
        // In small pieces, as a file system may give them.
        let end = (offset + bytes.min(10_000) as u64).min(LARGE);
        Ok((offset..end).map(|at| (at / 3) as u8).collect())
    }
}

#[test]
fn everything_can_be_read_and_nothing_changed() {
    let dir = tempfile::tempdir().unwrap();
    let mount = TreeMount::mount(dir.path(), Arc::new(Small)).unwrap();
    let file = dir.path().join("dir/file");
    let content = fs::read(&file).unwrap();
    assert_eq!(content.len() as u64, LARGE);
    assert!(content.iter().enumerate().all(|(at, byte)| *byte == (at / 3) as u8));
    assert_eq!(fs::read(dir.path().join("link")).unwrap().len(), content.len());
    let mut names: Vec<_> =
        fs::read_dir(dir.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
    names.sort();
    assert_eq!(names, ["dir", "link"]);
    let mode = file.metadata().unwrap().permissions().mode();
    assert_eq!(mode & 0o7777, 0o600, "set-user-id came through");

    let refused = |result: io::Result<()>| result.unwrap_err().kind();
    assert_eq!(refused(fs::write(&file, "x")), io::ErrorKind::ReadOnlyFilesystem);
    assert_eq!(refused(fs::remove_file(&file)), io::ErrorKind::ReadOnlyFilesystem);
    assert_eq!(refused(fs::create_dir(dir.path().join("new"))), io::ErrorKind::ReadOnlyFilesystem);
    assert!(fs::read(dir.path().join("none")).is_err_and(|e| e.kind() == io::ErrorKind::NotFound));

    // Somebody else takes the mount away: then whoever serves it is told.
    assert!(mount.is_mounted());
    let done = std::process::Command::new("umount").arg(dir.path()).output().unwrap();
    assert!(done.status.success(), "{done:?}");
    mount.wait();
    assert!(fs::read_dir(dir.path()).unwrap().next().is_none());
}

#[test]
fn it_goes_when_it_is_dropped() {
    let dir = tempfile::tempdir().unwrap();
    let mount = TreeMount::mount(dir.path(), Arc::new(Small)).unwrap();
    assert!(dir.path().join("dir").is_dir());
    drop(mount);
    assert!(!dir.path().join("dir").exists());
}
