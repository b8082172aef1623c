//! VMDK (VMware's "Virtual Disk Format 5.0"): one sparse file that carries its descriptor, or a
//! descriptor as a text file with its extents beside it.
//!
//! A descriptor names files. Those of a descriptor file are taken only when they are plain names,
//! beside it; the converter then sees a descriptor of our own making ([`Descriptor::canonical`])
//! that names what was copied, and never the foreign one.

use std::fmt::Write as _;

use super::{Fields, Source, leads_elsewhere};
use crate::error::{ImportError, Result};
use crate::names::plain;

const WHAT: &str = "vmdk";
pub(crate) const SECTOR_BYTES: u64 = 512;
/// Where QEMU looks for the descriptor, wherever the header says that it is.
const FIXED_DESCRIPTOR_AT: u64 = 512;
/// Longest embedded descriptor, bytes: what QEMU reads.
const EMBEDDED_BYTES_MAX: usize = 20 << 9;
/// Longest descriptor file, bytes.
pub const DESCRIPTOR_BYTES_MAX: u64 = 64 << 10;
/// Most extents of one disk: 8 TiB in pieces of 2 GiB are 4096; what is made by hand has few.
const EXTENTS_MAX: usize = 4096;

/// Whether a sparse file is a disk or a piece of one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// It carries its descriptor.
    Whole,
    /// A descriptor file names it.
    Extent,
}

/// What an extent is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ExtentKind {
    /// The bytes as they are, in a file from this sector on.
    Flat {
        /// The first sector in the file.
        offset_sectors: u64,
    },
    /// A sparse file.
    Sparse,
    /// Zeros, without a file.
    Zero,
}

/// One run of sectors of a disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Extent {
    /// How many sectors it has.
    pub sectors: u64,
    /// What it is.
    pub kind: ExtentKind,
    /// The file, a plain name; empty for zeros.
    pub file: String,
}

/// A descriptor file, understood.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Descriptor {
    /// In the order of the disk.
    pub extents: Vec<Extent>,
}

/// Looks at a sparse file; gives its size, bytes.
pub fn guard_sparse(file: &mut dyn Source, part: Part) -> Result<u64> {
    let header = Fields::read(WHAT, file, 0, 512)?;
    header.expect_magic(0, b"KDMV")?;
    if !(1..=3).contains(&header.le32(4)?) {
        return Err(header.malformed("its version is not 1 to 3"));
    }
    let sectors = header.le64(12)?;
    if sectors == 0 {
        // QEMU takes such a file for a descriptor and opens what that names.
        return Err(leads_elsewhere("its descriptor", "leads to other files"));
    }
    let (descriptor_at, descriptor_sectors) = (header.le64(28)?, header.le64(36)?);
    let length = descriptor_sectors.saturating_mul(SECTOR_BYTES).min(EMBEDDED_BYTES_MAX as u64);
    let said_at = descriptor_at.saturating_mul(SECTOR_BYTES);
    let said = Fields::read_up_to(WHAT, file, said_at, length as usize)?;
    let fixed = Fields::read_up_to(WHAT, file, FIXED_DESCRIPTOR_AT, EMBEDDED_BYTES_MAX)?;
    for place in [&said, &fixed] {
        let names_parent = |w: &[u8]| w.eq_ignore_ascii_case(b"parentFileNameHint");
        if place.bytes.windows(18).any(names_parent) {
            return Err(leads_elsewhere("its parent disk", "is named"));
        }
    }
    if part == Part::Whole {
        if descriptor_at == 0 {
            return Err(ImportError::Unsupported {
                what: "one extent of a disk in several files".to_owned(),
                hint: "import its descriptor instead: the small .vmdk with the same name",
            });
        }
        let end = said.bytes.iter().position(|byte| *byte == 0).unwrap_or(said.bytes.len());
        let text = std::str::from_utf8(&said.bytes[..end])
            .map_err(|_| said.malformed("its descriptor is no text"))?;
        check_lines(text)?;
    }
    sectors.checked_mul(SECTOR_BYTES).ok_or_else(|| header.malformed("its size is beyond any disk"))
}

impl Descriptor {
    /// Reads a descriptor file.
    pub fn parse(text: &str) -> Result<Self> {
        let mut descriptor = Self { extents: check_lines(text)? };
        descriptor.extents.retain(|extent| extent.sectors > 0);
        if descriptor.extents.is_empty() {
            return Err(ImportError::malformed(WHAT, "its descriptor names no extents"));
        }
        super::bounded(descriptor.virtual_bytes()?)?;
        Ok(descriptor)
    }

    /// The disk's size, bytes.
    pub fn virtual_bytes(&self) -> Result<u64> {
        self.extents
            .iter()
            .try_fold(0_u64, |sum, extent| sum.checked_add(extent.sectors))
            .and_then(|sectors| sectors.checked_mul(SECTOR_BYTES))
            .ok_or_else(|| ImportError::malformed(WHAT, "its size is beyond any disk"))
    }

    /// The files that it names, each once, in order.
    pub fn files(&self) -> Vec<&str> {
        let mut files: Vec<&str> = Vec::new();
        for extent in self.extents.iter().filter(|extent| !extent.file.is_empty()) {
            if !files.contains(&extent.file.as_str()) {
                files.push(&extent.file);
            }
        }
        files
    }

    /// A descriptor of our own for the same disk, in which the files are called as `name` says.
    pub fn canonical(&self, name: impl Fn(usize) -> String) -> String {
        let files = self.files();
        let sparse = self.extents.iter().any(|extent| extent.kind == ExtentKind::Sparse);
        let kind = if sparse { "twoGbMaxExtentSparse" } else { "twoGbMaxExtentFlat" };
        let mut text = format!(
            "# Disk DescriptorFile\nversion=1\nCID=fffffffe\nparentCID=ffffffff\n\
             createType=\"{kind}\"\n\n# Extent description\n"
        );
        for extent in &self.extents {
            let called = |file: &str| {
                name(files.iter().position(|known| *known == file).unwrap_or_default())
            };
            let sectors = extent.sectors;
            let _ = match extent.kind {
                ExtentKind::Flat { offset_sectors } => {
                    writeln!(
                        text,
                        "RW {sectors} FLAT \"{}\" {offset_sectors}",
                        called(&extent.file)
                    )
                }
                ExtentKind::Sparse => {
                    writeln!(text, "RW {sectors} SPARSE \"{}\"", called(&extent.file))
                }
                ExtentKind::Zero => writeln!(text, "RW {sectors} ZERO"),
            };
        }
        text.push_str("\n# The Disk Data Base\n#DDB\n\nddb.adapterType = \"ide\"\n");
        text
    }
}

/// Reads every line of a descriptor, and refuses what leads elsewhere.
fn check_lines(text: &str) -> Result<Vec<Extent>> {
    let malformed = |detail: String| ImportError::malformed(WHAT, detail);
    let mut extents = Vec::new();
    for line in text.lines().map(str::trim).filter(|line| !line.is_empty()) {
        if line.starts_with('#') {
            continue;
        }
        let first = line.split_whitespace().next().unwrap_or_default();
        if ["RW", "RDONLY", "NOACCESS"].contains(&first) {
            if extents.len() == EXTENTS_MAX {
                return Err(malformed("its descriptor names too many extents".to_owned()));
            }
            extents.push(extent(line)?);
            continue;
        }
        let Some((key, value)) = line.split_once('=') else {
            return Err(malformed(format!("its descriptor has the line {:?}", cut(line))));
        };
        let (key, value) = (key.trim().to_ascii_lowercase(), value.trim().trim_matches('"'));
        match key.as_str() {
            "parentcid" if !value.eq_ignore_ascii_case("ffffffff") => {
                return Err(leads_elsewhere("its parent disk", "would have to be read too"));
            }
            "parentfilenamehint" => return Err(leads_elsewhere("its parent disk", "is named")),
            _ => {}
        }
    }
    Ok(extents)
}

/// `ACCESS SECTORS KIND ["FILE" [OFFSET]]`.
fn extent(line: &str) -> Result<Extent> {
    let malformed =
        || ImportError::malformed(WHAT, format!("its descriptor has the extent {:?}", cut(line)));
    let (words, rest) = match line.split_once('"') {
        Some((words, rest)) => (words, Some(rest)),
        None => (line, None),
    };
    let mut words = words.split_whitespace();
    let (access, sectors, kind) = (words.next(), words.next(), words.next());
    if words.next().is_some() || access == Some("NOACCESS") {
        return Err(malformed());
    }
    let sectors: u64 = sectors.and_then(|text| text.parse().ok()).ok_or_else(malformed)?;
    let (file, offset) = match rest {
        Some(rest) => {
            let (file, offset) = rest.split_once('"').ok_or_else(malformed)?;
            (file.to_owned(), offset.trim())
        }
        None => (String::new(), ""),
    };
    let offset_sectors: u64 =
        if offset.is_empty() { 0 } else { offset.parse().map_err(|_| malformed())? };
    let kind = match kind {
        Some("FLAT" | "VMFS") => ExtentKind::Flat { offset_sectors },
        Some("SPARSE") => ExtentKind::Sparse,
        Some("ZERO") if rest.is_none() => {
            return Ok(Extent { sectors, kind: ExtentKind::Zero, file });
        }
        _ => return Err(malformed()),
    };
    if !plain(&file) {
        return Err(ImportError::Unsafe {
            what: format!("its extent {:?}", cut(&file)),
            detail: "is not a plain name of a file beside it".to_owned(),
            hint: "put all of its files into one folder, and name them without folders",
        });
    }
    Ok(Extent { sectors, kind, file })
}

/// As much of foreign text as a message may hold.
fn cut(text: &str) -> String {
    text.chars().take(80).collect()
}
