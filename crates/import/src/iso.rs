//! A small CD with a few files: how configuration reaches a guest.
//!
//! ISO 9660 with Joliet names beside the plain ones, one folder, written into memory. A writer of
//! our own because what there is either is a program of its own to start, or in flux, or stamps
//! the time into what it writes: these bytes become pages of a volume, and the same configuration
//! must be the same pages. Some 200 lines are all it takes, because nothing is ever changed on a CD.
//!
//! ```text
//! 0..16 unused │ 16 primary │ 17 Joliet │ 18 end │ 19-22 path tables │ 23 folder │ 24 folder │ 25.. files
//! ```
//!
//! *Invariants.* The same label and files give the same bytes. Both folders lead to the same
//! content. Numbers stand in both byte orders, as the standard (ECMA-119) wants.

use crate::error::{ImportError, Result};
use crate::names::plain;

const SECTOR: usize = 2048;
const PRIMARY: usize = 16;
const JOLIET: usize = 17;
const END: usize = 18;
const PATHS: usize = 19;
const JOLIET_PATHS: usize = 21;
const FOLDER: usize = 23;
const JOLIET_FOLDER: usize = 24;
const FILES: usize = 25;
/// All files together, bytes: configuration, not software.
const CONTENT_BYTES_MAX: usize = 16 << 20;
/// A folder is one sector.
const FILES_MAX: usize = 8;
const NAME_CHARS_MAX: usize = 64;
const LABEL_CHARS_MAX: usize = 16;
/// 2026-01-01T00:00:00Z, whatever the clock says.
const DATE: [u8; 7] = [126, 1, 1, 0, 0, 0, 0];

/// Makes a CD. The label and the names are plain ASCII.
pub fn image(label: &str, files: &[(&str, &[u8])]) -> Result<Vec<u8>> {
    let total: usize = files.iter().map(|(_, content)| content.len()).sum();
    let good_name = |name: &str| plain(name) && name.is_ascii() && name.len() <= NAME_CHARS_MAX;
    if label.len() > LABEL_CHARS_MAX
        || !label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
        || files.len() > FILES_MAX
        || files.iter().any(|(name, _)| !good_name(name))
    {
        return Err(ImportError::malformed("CD", "its label or its names are not possible"));
    }
    if total > CONTENT_BYTES_MAX {
        return Err(ImportError::TooLarge {
            what: "what is on the CD, bytes",
            found: total.to_string(),
            max: CONTENT_BYTES_MAX.to_string(),
        });
    }
    let mut entries = Vec::new();
    let mut next = FILES;
    for (index, (name, content)) in files.iter().enumerate() {
        let short = short_name(name, index);
        entries.push(Entry { name, short, sector: next, bytes: content.len() });
        next += content.len().div_ceil(SECTOR);
    }
    let mut cd = Cd { bytes: vec![0; next * SECTOR], sectors: next };
    cd.descriptor(label, Names::Plain);
    cd.descriptor(label, Names::Joliet);
    cd.put(END * SECTOR, b"\xffCD001\x01");
    cd.path_tables(PATHS, FOLDER);
    cd.path_tables(JOLIET_PATHS, JOLIET_FOLDER);
    cd.folder(FOLDER, &entries, Names::Plain);
    cd.folder(JOLIET_FOLDER, &entries, Names::Joliet);
    for (entry, (_, content)) in entries.iter().zip(files) {
        cd.put(entry.sector * SECTOR, content);
    }
    Ok(cd.bytes)
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Names {
    Plain,
    Joliet,
}

struct Entry<'a> {
    name: &'a str,
    short: String,
    sector: usize,
    bytes: usize,
}

struct Cd {
    bytes: Vec<u8>,
    sectors: usize,
}

impl Cd {
    fn put(&mut self, at: usize, bytes: &[u8]) {
        self.bytes[at..at + bytes.len()].copy_from_slice(bytes);
    }

    /// A number in both byte orders.
    fn both32(&mut self, at: usize, number: usize) {
        let number = number as u32;
        self.put(at, &number.to_le_bytes());
        self.put(at + 4, &number.to_be_bytes());
    }

    fn both16(&mut self, at: usize, number: u16) {
        self.put(at, &number.to_le_bytes());
        self.put(at + 2, &number.to_be_bytes());
    }

    /// What the CD is, for one kind of names.
    fn descriptor(&mut self, label: &str, names: Names) {
        let joliet = names == Names::Joliet;
        let at = if joliet { JOLIET } else { PRIMARY } * SECTOR;
        let (paths, folder) = if joliet { (JOLIET_PATHS, JOLIET_FOLDER) } else { (PATHS, FOLDER) };
        self.put(at, if joliet { b"\x02CD001\x01" } else { b"\x01CD001\x01" });
        // Texts: the system's and the volume's names, and from 190 on who made it.
        for (from, to) in [(8, 40), (40, 72), (190, 813)] {
            let space: &[u8] = if joliet { b"\0 " } else { b" " };
            let fill: Vec<u8> = space.iter().copied().cycle().take(to - from).collect();
            self.put(at + from, &fill);
        }
        let label = if joliet { ucs2(label) } else { label.as_bytes().to_vec() };
        self.put(at + 40, &label);
        self.both32(at + 80, self.sectors);
        if joliet {
            // UCS-2, level 3.
            self.put(at + 88, b"%/E");
        }
        self.both16(at + 120, 1);
        self.both16(at + 124, 1);
        self.both16(at + 128, SECTOR as u16);
        self.both32(at + 132, PATH_TABLE_BYTES);
        self.put(at + 140, &(paths as u32).to_le_bytes());
        self.put(at + 148, &(paths as u32 + 1).to_be_bytes());
        self.record(at + 156, b"\0", folder, SECTOR, true);
        // Dates that are not given are sixteen zeros in text.
        for date in [813, 830, 847, 864] {
            self.put(at + date, b"0000000000000000");
        }
        self.put(at + 881, &[1]);
    }

    /// The root, once in each byte order.
    fn path_tables(&mut self, at: usize, folder: usize) {
        self.put(at * SECTOR, &[1, 0]);
        self.put(at * SECTOR + 2, &(folder as u32).to_le_bytes());
        self.put(at * SECTOR + 6, &1_u16.to_le_bytes());
        self.put((at + 1) * SECTOR, &[1, 0]);
        self.put((at + 1) * SECTOR + 2, &(folder as u32).to_be_bytes());
        self.put((at + 1) * SECTOR + 6, &1_u16.to_be_bytes());
    }

    fn folder(&mut self, sector: usize, entries: &[Entry<'_>], names: Names) {
        let mut at = sector * SECTOR;
        at += self.record(at, b"\0", sector, SECTOR, true);
        at += self.record(at, b"\x01", sector, SECTOR, true);
        let mut records: Vec<(Vec<u8>, &Entry<'_>)> = entries
            .iter()
            .map(|entry| match names {
                Names::Plain => (format!("{};1", entry.short).into_bytes(), entry),
                Names::Joliet => (ucs2(entry.name), entry),
            })
            .collect();
        records.sort_by(|a, b| a.0.cmp(&b.0));
        for (name, entry) in records {
            at += self.record(at, &name, entry.sector, entry.bytes, false);
        }
    }

    /// Writes a directory record; gives its length.
    fn record(
        &mut self,
        at: usize,
        name: &[u8],
        sector: usize,
        bytes: usize,
        folder: bool,
    ) -> usize {
        let length = (33 + name.len()).next_multiple_of(2);
        self.put(at, &[length as u8, 0]);
        self.both32(at + 2, sector);
        self.both32(at + 10, bytes);
        self.put(at + 18, &DATE);
        self.put(at + 25, &[if folder { 2 } else { 0 }]);
        self.both16(at + 28, 1);
        self.put(at + 32, &[name.len() as u8]);
        self.put(at + 33, name);
        length
    }
}

const PATH_TABLE_BYTES: usize = 10;

/// A name of eight and three for those who read no others; the number keeps them apart.
fn short_name(name: &str, index: usize) -> String {
    let (stem, end) = name.rsplit_once('.').unwrap_or((name, ""));
    let clean = |text: &str, count: usize| -> String {
        let good = |c: char| if c.is_ascii_alphanumeric() { c.to_ascii_uppercase() } else { '_' };
        text.chars().map(good).take(count).collect()
    };
    format!("{}{index}.{}", clean(stem, 7), clean(end, 3))
}

fn ucs2(text: &str) -> Vec<u8> {
    text.encode_utf16().flat_map(u16::to_be_bytes).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_files_are_the_same_cd() {
        let files: [(&str, &[u8]); 2] = [("meta-data", b"x"), ("user-data", &[7; 5000])];
        let cd = image("cidata", &files).unwrap();
        assert_eq!(cd, image("cidata", &files).unwrap());
        assert_eq!(cd.len() % SECTOR, 0);
        assert_eq!(crate::format::judge(&cd[..40 << 10], &[]).unwrap(), crate::Format::Iso);
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        assert!(image("a label that is too long", &[]).is_err());
        assert!(image("x", &[("../x", b"")]).is_err());
        assert!(image("x", &[("a", &vec![0; CONTENT_BYTES_MAX + 1])]).is_err());
        let many: Vec<(String, &[u8])> = (0..9).map(|i| (i.to_string(), &b""[..])).collect();
        let many: Vec<(&str, &[u8])> = many.iter().map(|(n, c)| (n.as_str(), *c)).collect();
        assert!(image("x", &many).is_err());
    }
}
