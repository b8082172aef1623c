//! What a guest wrote on its disks: partition tables and file systems.

use std::sync::Arc;

use ::files::{FileKind, FileSystem};

/// Entries that are looked at, of all directories together.
const ENTRIES_MAX: usize = 64;

pub fn parts(bytes: &[u8]) {
    let disk = bytes.to_vec();
    if let Ok(parts) = ::files::parts(&disk) {
        assert!(!parts.is_empty());
        for part in parts {
            let end = part.start.checked_add(part.bytes);
            assert!(end.is_some_and(|end| end <= disk.len() as u64), "a part lies on its disk");
        }
    }
}

pub fn disks() -> Vec<Vec<u8>> {
    let mut mbr = vec![0; 64 * 512];
    mbr[446 + 4] = 0x83;
    mbr[446 + 8..446 + 12].copy_from_slice(&8_u32.to_le_bytes());
    mbr[446 + 12..446 + 16].copy_from_slice(&16_u32.to_le_bytes());
    mbr[510..512].copy_from_slice(&[0x55, 0xaa]);
    let mut extended = mbr.clone();
    extended[462 + 4] = 5;
    extended[462 + 8..462 + 12].copy_from_slice(&32_u32.to_le_bytes());
    extended[462 + 12..462 + 16].copy_from_slice(&16_u32.to_le_bytes());
    extended.copy_within(446..512, 32 * 512 + 446);
    let mut gpt = vec![0; 64 * 512];
    gpt[446 + 4] = 0xee;
    gpt[510..512].copy_from_slice(&[0x55, 0xaa]);
    gpt[512..520].copy_from_slice(b"EFI PART");
    for (at, number) in [(72, 2_u64), (80, 4 | 128 << 32)] {
        gpt[512 + at..520 + at].copy_from_slice(&number.to_le_bytes());
    }
    gpt[1024..1040].fill(1);
    gpt[1056..1064].copy_from_slice(&40_u64.to_le_bytes());
    gpt[1064..1072].copy_from_slice(&50_u64.to_le_bytes());
    vec![mbr, extended, gpt]
}

pub fn ext4(bytes: &[u8]) {
    let disk: Arc<dyn ::files::Disk> = Arc::new(inflated(bytes));
    let Ok(parts) = ::files::parts(&*disk) else { return };
    let Ok(system) = FileSystem::open(disk, &parts[0]) else { return };
    let mut folders = vec![b"/".to_vec()];
    let mut seen = 0;
    while let Some(folder) = folders.pop() {
        for entry in system.list(&folder).unwrap_or_default() {
            seen += 1;
            if seen > ENTRIES_MAX {
                return;
            }
            assert!(!entry.name.contains(&b'/') && entry.name != b"." && entry.name != b"..");
            let path = [&folder[..], b"/", &entry.name].concat();
            let _ = system.stat(&path);
            match entry.kind {
                FileKind::Directory if folders.len() < 8 => folders.push(path),
                FileKind::File => {
                    let _ = system.read(&path, 0, 8192);
                }
                FileKind::Link => {
                    let _ = system.link(&path);
                    let _ = system.follow(&path);
                }
                _ => {}
            }
        }
    }
}

/// Pages that are not zero, each after its number: a file system is mostly holes, and mutations
/// should not be.
fn inflated(bytes: &[u8]) -> Vec<u8> {
    const DISK_BYTES: usize = 256 << 10;
    let mut disk = vec![0; DISK_BYTES];
    for piece in bytes.chunks(1026) {
        let Some((number, content)) = piece.split_first_chunk::<2>() else { break };
        let at = usize::from(u16::from_le_bytes(*number)) % (DISK_BYTES / 1024) * 1024;
        disk[at..at + content.len()].copy_from_slice(content);
    }
    disk
}

fn deflated(disk: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for (number, content) in disk.chunks_exact(1024).enumerate() {
        if content.iter().any(|byte| *byte != 0) {
            bytes.extend_from_slice(&(number as u16).to_le_bytes());
            bytes.extend_from_slice(content);
        }
    }
    bytes
}

/// A file system with a folder, a file and a link, as `mke2fs` makes it; none where it is missing.
pub fn systems() -> Vec<Vec<u8>> {
    let make = || -> std::io::Result<Vec<u8>> {
        let folder = tempfile::tempdir()?;
        let tree = folder.path().join("tree");
        std::fs::create_dir_all(tree.join("folder"))?;
        std::fs::write(tree.join("folder/file"), vec![b'x'; 5000])?;
        std::os::unix::fs::symlink("folder/file", tree.join("link"))?;
        let disk = folder.path().join("disk");
        let made = std::process::Command::new("mke2fs")
            .args(["-q", "-t", "ext4", "-b", "1024", "-O", "^has_journal", "-N", "16"])
            .args(["-U", "00000000-0000-0000-0000-000000000001", "-E"])
            .args(["hash_seed=00000000-0000-0000-0000-000000000002", "-d"])
            .args([&tree, &disk])
            .arg("256k")
            .env("PATH", "/usr/sbin:/sbin:/usr/bin:/bin")
            .env("E2FSPROGS_FAKE_TIME", "1")
            .status()?;
        if !made.success() {
            return Err(std::io::ErrorKind::Other.into());
        }
        std::fs::read(disk)
    };
    make().map(|disk| vec![deflated(&disk)]).unwrap_or_default()
}
