//! A cpio archive in the kernel's `newc` form, with the same bytes for the same entries.
//!
//! Entries are sorted by path, so parents come before children; owners are root, times are the
//! build epoch, inode numbers count up.

use std::collections::BTreeMap;

use crate::workshop::EPOCH_SECONDS;

enum Entry {
    Folder,
    File { bytes: Vec<u8>, mode: u32 },
    Link { target: String },
    Device { major: u32, minor: u32, mode: u32 },
}

/// An archive being collected. Paths are relative, without a leading slash.
#[derive(Default)]
pub(crate) struct Archive {
    entries: BTreeMap<String, Entry>,
}

impl Archive {
    fn put(&mut self, path: &str, entry: Entry) {
        let mut parent = path;
        while let Some((up, _)) = parent.rsplit_once('/') {
            self.entries.entry(up.to_owned()).or_insert(Entry::Folder);
            parent = up;
        }
        self.entries.insert(path.to_owned(), entry);
    }

    pub fn folder(&mut self, path: &str) {
        self.put(path, Entry::Folder);
    }

    pub fn file(&mut self, path: &str, mode: u32, bytes: Vec<u8>) {
        self.put(path, Entry::File { bytes, mode });
    }

    pub fn link(&mut self, path: &str, target: &str) {
        self.put(path, Entry::Link { target: target.to_owned() });
    }

    pub fn character_device(&mut self, path: &str, major: u32, minor: u32, mode: u32) {
        self.put(path, Entry::Device { major, minor, mode });
    }

    pub fn contains(&self, path: &str) -> bool {
        self.entries.contains_key(path)
    }

    /// The archive's bytes.
    pub fn finish(self) -> Vec<u8> {
        let mut out = Vec::new();
        for (index, (path, entry)) in self.entries.iter().enumerate() {
            let (mode, bytes, device): (u32, &[u8], (u32, u32)) = match entry {
                Entry::Folder => (0o040755, &[], (0, 0)),
                Entry::File { bytes, mode } => (0o100000 | mode, bytes, (0, 0)),
                Entry::Link { target } => (0o120777, target.as_bytes(), (0, 0)),
                Entry::Device { major, minor, mode } => (0o020000 | mode, &[], (*major, *minor)),
            };
            put_entry(&mut out, index as u32 + 1, path, mode, bytes, device, EPOCH_SECONDS as u32);
        }
        put_entry(&mut out, 0, "TRAILER!!!", 0, &[], (0, 0), 0);
        // The kernel reads whole 512-byte blocks faster, and cpio pads to them.
        out.resize(out.len().next_multiple_of(512), 0);
        out
    }
}

fn put_entry(
    out: &mut Vec<u8>,
    inode: u32,
    path: &str,
    mode: u32,
    bytes: &[u8],
    device: (u32, u32),
    time: u32,
) {
    let links = if mode & 0o170000 == 0o040000 { 2 } else { 1 };
    let fields = [
        inode,
        mode,
        0,
        0,
        links,
        time,
        bytes.len() as u32,
        0,
        0,
        device.0,
        device.1,
        path.len() as u32 + 1,
        0,
    ];
    out.extend_from_slice(b"070701");
    for field in fields {
        out.extend_from_slice(format!("{field:08X}").as_bytes());
    }
    out.extend_from_slice(path.as_bytes());
    out.push(0);
    out.resize(out.len().next_multiple_of(4), 0);
    out.extend_from_slice(bytes);
    out.resize(out.len().next_multiple_of(4), 0);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_order_of_putting_does_not_matter() {
        let mut one = Archive::default();
        one.file("etc/a", 0o644, b"A".to_vec());
        one.link("bin", "usr/bin");
        let mut two = Archive::default();
        two.link("bin", "usr/bin");
        two.folder("etc");
        two.file("etc/a", 0o644, b"A".to_vec());
        let (one, two) = (one.finish(), two.finish());
        assert_eq!(one, two);
        assert!(one.starts_with(b"070701"));
        assert_eq!(one.len() % 512, 0);
    }
}
