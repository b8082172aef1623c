//! Which format a file has: said by a person, or shown by its own magic.
//!
//! *Invariant.* `raw` is never the outcome of a guess. A disk's owner writes its first bytes, so a
//! file that was raw yesterday may carry any magic today; and a file without magic may be anything.
//! What carries the magic of two formats is refused, because somebody made it so.

use std::fmt;
use std::io::{Read, Seek, SeekFrom};

use crate::error::{ImportError, Result};

/// A format of disks or of computers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Format {
    /// The bytes of a disk, one after the other. Stated, never detected.
    Raw,
    /// QEMU's, versions 2 and 3.
    Qcow2,
    /// VMware's: one sparse file, or a descriptor with its extents beside it.
    Vmdk,
    /// VirtualBox's.
    Vdi,
    /// Microsoft's older one (`vpc` in QEMU's words).
    Vhd,
    /// Microsoft's newer one.
    Vhdx,
    /// A CD.
    Iso,
    /// A whole computer in a tar.
    Ova,
    /// The same as a descriptor with its files beside it.
    Ovf,
    /// Vagrant's.
    Box,
}

impl Format {
    /// Every format that can be stated.
    pub const ALL: [Self; 10] = [
        Self::Raw,
        Self::Qcow2,
        Self::Vmdk,
        Self::Vdi,
        Self::Vhd,
        Self::Vhdx,
        Self::Iso,
        Self::Ova,
        Self::Ovf,
        Self::Box,
    ];

    /// The word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Raw => "raw",
            Self::Qcow2 => "qcow2",
            Self::Vmdk => "vmdk",
            Self::Vdi => "vdi",
            Self::Vhd => "vhd",
            Self::Vhdx => "vhdx",
            Self::Iso => "iso",
            Self::Ova => "ova",
            Self::Ovf => "ovf",
            Self::Box => "box",
        }
    }

    /// Reads the word.
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|format| format.as_str() == text)
    }
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Where a CD says that it is one.
const CD_MAGIC_AT: usize = 0x8001;
/// As much of a file's beginning as detection looks at, bytes.
const HEAD_BYTES: usize = 40 << 10;
/// The footer of a fixed VHD.
const TAIL_BYTES: u64 = 512;

/// Detects the format of a file by its magic.
pub fn detect(file: &mut (impl Read + Seek)) -> Result<Format> {
    let reading = || ImportError::io("reading its beginning");
    let mut head = Vec::with_capacity(HEAD_BYTES);
    file.seek(SeekFrom::Start(0)).map_err(reading())?;
    file.by_ref().take(HEAD_BYTES as u64).read_to_end(&mut head).map_err(reading())?;
    let end = file.seek(SeekFrom::End(0)).map_err(reading())?;
    let mut tail = Vec::new();
    file.seek(SeekFrom::Start(end.saturating_sub(TAIL_BYTES))).map_err(reading())?;
    file.by_ref().take(TAIL_BYTES).read_to_end(&mut tail).map_err(reading())?;
    judge(&head, &tail)
}

/// The same, from the first bytes and the last 512.
pub fn judge(head: &[u8], tail: &[u8]) -> Result<Format> {
    let starts = |at: usize, magic: &[u8]| head.get(at..).is_some_and(|h| h.starts_with(magic));
    let mut found = Vec::new();
    if starts(0, b"QFI\xfb") {
        found.push(Format::Qcow2);
    }
    if starts(0, b"KDMV") || begins_descriptor(head) {
        found.push(Format::Vmdk);
    }
    if starts(0x40, &0xbeda_107f_u32.to_le_bytes()) {
        found.push(Format::Vdi);
    }
    if starts(0, b"conectix") || tail.len() == 512 && tail.starts_with(b"conectix") {
        found.push(Format::Vhd);
    }
    if starts(0, b"vhdxfile") {
        found.push(Format::Vhdx);
    }
    if starts(CD_MAGIC_AT, b"CD001") {
        found.push(Format::Iso);
    }
    if starts(257, b"ustar") {
        // An OVA begins with its descriptor; everything else that is a tar is a box.
        found.push(if first_name(head).ends_with(b".ovf") { Format::Ova } else { Format::Box });
    }
    if starts(0, &[0x1f, 0x8b, 8]) && holds_tar(head) {
        found.push(Format::Box);
    }
    if is_ovf(head) {
        found.push(Format::Ovf);
    }
    match found.as_slice() {
        [format] => Ok(*format),
        [] => Err(ImportError::Unrecognised { looks_like: looks_like(head) }),
        several => {
            let names: Vec<&str> = several.iter().map(|format| format.as_str()).collect();
            Err(ImportError::Ambiguous { formats: names.join(", ") })
        }
    }
}

/// A VMDK's descriptor as a file of its own.
fn begins_descriptor(head: &[u8]) -> bool {
    let line = head.split(|byte| *byte == b'\n').next().unwrap_or_default();
    line.trim_ascii().eq_ignore_ascii_case(b"# Disk DescriptorFile")
}

/// The name of a tar's first member.
fn first_name(head: &[u8]) -> &[u8] {
    let field = head.get(..100).unwrap_or_default();
    field.split(|byte| *byte == 0).next().unwrap_or_default()
}

/// Whether a gzip begins with a tar's header.
fn holds_tar(head: &[u8]) -> bool {
    let mut block = [0; 512];
    flate2::read::GzDecoder::new(head).read_exact(&mut block).is_ok()
        && block[257..].starts_with(b"ustar")
}

/// XML whose first element is an OVF envelope.
fn is_ovf(head: &[u8]) -> bool {
    let text = head.strip_prefix(b"\xef\xbb\xbf").unwrap_or(head).trim_ascii_start();
    let starts_xml = text.starts_with(b"<?xml") || text.starts_with(b"<");
    let has = |word: &[u8]| text.windows(word.len()).any(|window| window == word);
    starts_xml && has(b"Envelope") && has(b"/ovf/envelope/")
}

/// What an unrecognised file may be, for the message.
fn looks_like(head: &[u8]) -> &'static str {
    let known: [(&[u8], &str); 8] = [
        (b"PK\x03\x04", "it looks like a zip: unpack it first"),
        (b"\xfd7zXZ", "it is compressed with xz: unpack it first"),
        (b"\x28\xb5\x2f\xfd", "it is compressed with zstd: unpack it first"),
        (b"BZh", "it is compressed with bzip2: unpack it first"),
        (b"7z\xbc\xaf", "it looks like a 7z archive: unpack it first"),
        (b"\x1f\x8b", "it is compressed with gzip, and holds no tar: unpack it first"),
        (b"COWD", "it looks like the extent of a disk of ESX"),
        (b"QED\0", "it looks like a QED disk: `qemu-img convert` makes a qcow2 of it"),
    ];
    let seems = known.iter().find(|(magic, _)| head.starts_with(magic)).map(|(_, seems)| *seems);
    let boots = head.len() >= 512 && head[510..512] == [0x55, 0xaa];
    seems.unwrap_or(if boots { "it begins like the bare content of a disk" } else { "" })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(at: usize, magic: &[u8]) -> Vec<u8> {
        let mut bytes = vec![0; HEAD_BYTES];
        bytes[at..at + magic.len()].copy_from_slice(magic);
        bytes
    }

    #[track_caller]
    fn check(head: &[u8], tail: &[u8], expected: Option<Format>) {
        assert_eq!(judge(head, tail).ok(), expected);
    }

    #[test]
    fn magic_tells_the_format() {
        let vdi = 0xbeda_107f_u32.to_le_bytes();
        for (at, magic, format) in [
            (0, &b"QFI\xfb\0\0\0\x03"[..], Format::Qcow2),
            (0, b"KDMV", Format::Vmdk),
            (0, b"# Disk DescriptorFile\r\nversion=1", Format::Vmdk),
            (0x40, &vdi, Format::Vdi),
            (0, b"conectix", Format::Vhd),
            (0, b"vhdxfile", Format::Vhdx),
            (CD_MAGIC_AT, b"CD001", Format::Iso),
            (257, b"ustar\0", Format::Box),
            (0, b"<?xml?><Envelope xmlns='http://schemas.dmtf.org/ovf/envelope/1'>", Format::Ovf),
        ] {
            check(&file(at, magic), &[0; 512], Some(format));
            // And nothing of it may be missing.
            check(&file(at, &magic[..3]), &[0; 512], None);
        }
        let mut fixed = [0; 512];
        fixed[..8].copy_from_slice(b"conectix");
        check(&file(0, b""), &fixed, Some(Format::Vhd));
        let mut ova = file(257, b"ustar");
        ova[..5].copy_from_slice(b"a.ovf");
        check(&ova, &[], Some(Format::Ova));
    }

    #[test]
    fn raw_is_never_guessed() {
        let boots = file(510, &[0x55, 0xaa]);
        let noise: Vec<u8> =
            (0..4096_u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
        for bytes in [&boots[..], &noise, b"", b"x", &[0; 4096]] {
            let error = judge(bytes, &bytes[bytes.len().saturating_sub(512)..]).unwrap_err();
            assert!(matches!(error, ImportError::Unrecognised { .. }), "{error}");
            assert!(error.hint().contains("--format raw"));
        }
    }

    #[test]
    fn two_magics_are_one_too_many() {
        let mut both = file(0, b"QFI\xfb");
        both[CD_MAGIC_AT..][..5].copy_from_slice(b"CD001");
        let error = judge(&both, &[]).unwrap_err();
        assert!(matches!(error, ImportError::Ambiguous { .. }), "{error}");
        let mut tail = [0; 512];
        tail[..8].copy_from_slice(b"conectix");
        assert!(judge(&file(0, b"QFI\xfb"), &tail).is_err());
    }
}
