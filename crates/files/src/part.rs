//! Where on a disk its parts lie: a partition table (GPT or MBR), or none.

use crate::{Disk, FilesError, Result};

const SECTOR: u64 = 512;
/// Entries of a GPT that are looked at; the usual table has 128.
const GPT_ENTRIES_MAX: u32 = 1024;
const GPT_ENTRY_BYTES: u32 = 128;
const GPT_ENTRY_BYTES_MAX: u32 = 4096;
/// Where ext2, 3 and 4 have their magic number.
const EXT_MAGIC_AT: u64 = 1024 + 56;

/// A run of bytes on a disk that may hold a file system.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Part {
    /// `p1`, `p2` ...; none: all of the disk.
    pub number: Option<u32>,
    /// Where it begins, bytes.
    pub start: u64,
    /// Its length, bytes.
    pub bytes: u64,
}

impl Part {
    /// The name that people see: `p1`; empty for all of the disk.
    pub fn name(&self) -> String {
        self.number.map_or_else(String::new, |number| format!("p{number}"))
    }
}

/// The parts of a disk, in the order of their numbers. A disk without a table is one part; a part
/// that reaches beyond the disk's end is left out.
pub fn parts(disk: &dyn Disk) -> Result<Vec<Part>> {
    let whole = Part { number: None, start: 0, bytes: disk.size_bytes() };
    if whole.bytes < 2 * SECTOR || is_ext(disk, &whole)? {
        return Ok(vec![whole]);
    }
    let mut first = [0; SECTOR as usize];
    read(disk, 0, &mut first)?;
    if first[510..] != [0x55, 0xaa] {
        return Ok(vec![whole]);
    }
    let entries: Vec<&[u8]> = first[446..510].chunks_exact(16).collect();
    let found = if entries.iter().any(|entry| entry[4] == 0xee) {
        gpt(disk)?
    } else {
        mbr(disk, &entries)?
    };
    Ok(if found.is_empty() { vec![whole] } else { found })
}

/// Whether an ext2, 3 or 4 file system begins there.
pub(crate) fn is_ext(disk: &dyn Disk, part: &Part) -> Result<bool> {
    if part.bytes < 4 * SECTOR {
        return Ok(false);
    }
    let mut magic = [0; 2];
    read(disk, part.start + EXT_MAGIC_AT, &mut magic)?;
    Ok(magic == [0x53, 0xef])
}

/// Groups of blocks that a file system may have: of the smallest blocks that is 8 TiB, of the usual ones
/// 128 TiB.
const EXT_GROUPS_MAX: u64 = 1 << 20;
/// Each of them has an entry of at least so many bytes in a table.
const EXT_GROUP_BYTES: u64 = 32;

/// Blocks have 1 KiB times a power of two, and this is the largest: 64 KiB.
const EXT_BLOCK_POWER_MAX: u32 = 6;

/// How large it says that its blocks are, and how many groups of them it has: the parser makes room
/// for a cache of blocks and for all groups before it reads the first.
pub(crate) fn bound(disk: &dyn Disk, part: &Part) -> Result<()> {
    let mut said = [0; 1024];
    read(disk, part.start + 1024, &mut said)?;
    let power = u32_at(&said, 0x18);
    if power > EXT_BLOCK_POWER_MAX {
        let detail = format!("blocks of 2^{power} KiB are too large");
        return Err(FilesError::Damaged { detail });
    }
    let blocks = u64::from(u32_at(&said, 0x04)) | u64::from(u32_at(&said, 0x150)) << 32;
    let of_group = u64::from(u32_at(&said, 0x20)).max(1);
    let groups = blocks.div_ceil(of_group);
    if groups > EXT_GROUPS_MAX.min(part.bytes / EXT_GROUP_BYTES) {
        let detail = format!("there is no room for {groups} groups of blocks");
        return Err(FilesError::Damaged { detail });
    }
    Ok(())
}

/// The four primary partitions, and the logical ones of an extended one.
fn mbr(disk: &dyn Disk, entries: &[&[u8]]) -> Result<Vec<Part>> {
    /// Logical partitions that are looked for: the chain may be a ring.
    const LOGICAL_MAX: u32 = 64;
    let is_extended = |kind: u8| matches!(kind, 0x05 | 0x0f | 0x85);
    let mut found = Vec::new();
    for (number, entry) in (1..).zip(entries) {
        let (start, sectors) = (u64::from(u32_at(entry, 8)), u64::from(u32_at(entry, 12)));
        if entry[4] == 0 || sectors == 0 {
            continue;
        }
        if !is_extended(entry[4]) {
            found.extend(inside(disk, number, start, sectors));
            continue;
        }
        let mut table = start;
        for number in 5..5 + LOGICAL_MAX {
            let mut sector = [0; SECTOR as usize];
            if inside(disk, 0, table, 1).is_none() {
                break;
            }
            read(disk, table * SECTOR, &mut sector)?;
            let (own, next) = (&sector[446..462], &sector[462..478]);
            if sector[510..] != [0x55, 0xaa] || own[4] == 0 {
                break;
            }
            let begin = table + u64::from(u32_at(own, 8));
            found.extend(inside(disk, number, begin, u64::from(u32_at(own, 12))));
            if !is_extended(next[4]) || u32_at(next, 8) == 0 {
                break;
            }
            table = start + u64::from(u32_at(next, 8));
        }
    }
    found.sort_by_key(|part| part.number);
    Ok(found)
}

fn gpt(disk: &dyn Disk) -> Result<Vec<Part>> {
    let mut header = [0; 92];
    read(disk, SECTOR, &mut header)?;
    let (count, entry_bytes) = (u32_at(&header, 80), u32_at(&header, 84));
    let sizes = GPT_ENTRY_BYTES..=GPT_ENTRY_BYTES_MAX;
    if &header[..8] != b"EFI PART" || !sizes.contains(&entry_bytes) {
        return Err(FilesError::Damaged { detail: "its partition table (GPT) is none".to_owned() });
    }
    let table = u64_at(&header, 72);
    let mut found = Vec::new();
    for index in 0..count.min(GPT_ENTRIES_MAX) {
        let mut entry = [0; 56];
        let at = table
            .checked_mul(SECTOR)
            .and_then(|at| at.checked_add(u64::from(index) * u64::from(entry_bytes)))
            .filter(|at| at.saturating_add(entry.len() as u64) <= disk.size_bytes());
        let Some(at) = at else { break };
        read(disk, at, &mut entry)?;
        let (first, last) = (u64_at(&entry, 32), u64_at(&entry, 40));
        if entry[..16] != [0; 16] && first <= last {
            found.extend(inside(disk, index + 1, first, (last - first).saturating_add(1)));
        }
    }
    Ok(found)
}

/// A part given in sectors, if the disk has all of it.
fn inside(disk: &dyn Disk, number: u32, start: u64, sectors: u64) -> Option<Part> {
    let (start, bytes) = (start.checked_mul(SECTOR)?, sectors.checked_mul(SECTOR)?);
    let is_inside = bytes > 0 && start.checked_add(bytes)? <= disk.size_bytes();
    is_inside.then_some(Part { number: Some(number), start, bytes })
}

fn read(disk: &dyn Disk, offset: u64, buf: &mut [u8]) -> Result<()> {
    disk.read_at(offset, buf).map_err(|error| FilesError::Disk { detail: error.to_string() })
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    let mut number = [0; 4];
    number.copy_from_slice(&bytes[at..at + 4]);
    u32::from_le_bytes(number)
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from(u32_at(bytes, at)) | u64::from(u32_at(bytes, at + 4)) << 32
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn put_entry(disk: &mut [u8], at: usize, kind: u8, start: u32, sectors: u32) {
        disk[at + 4] = kind;
        disk[at + 8..at + 12].copy_from_slice(&start.to_le_bytes());
        disk[at + 12..at + 16].copy_from_slice(&sectors.to_le_bytes());
    }

    fn signed(sectors: usize) -> Vec<u8> {
        let mut disk = vec![0; sectors * 512];
        disk[510..512].copy_from_slice(&[0x55, 0xaa]);
        disk
    }

    #[test]
    fn no_table_is_one_part() {
        let whole = |bytes| Part { number: None, start: 0, bytes };
        assert_eq!(parts(&vec![0; 4096]).unwrap(), [whole(4096)]);
        assert_eq!(parts(&vec![0; 100]).unwrap(), [whole(100)]);
        assert_eq!(parts(&signed(8)).unwrap(), [whole(4096)]);
    }

    #[test]
    fn primary_and_logical_partitions() {
        let mut disk = signed(100);
        put_entry(&mut disk, 446, 0x83, 2, 10);
        put_entry(&mut disk, 462, 0x05, 20, 60);
        put_entry(&mut disk, 478, 0x83, 90, 11); // beyond the end
        let (first, second) = (20 * 512, 40 * 512);
        for table in [first, second] {
            disk[table + 510..table + 512].copy_from_slice(&[0x55, 0xaa]);
            put_entry(&mut disk, table + 446, 0x83, 1, 5);
        }
        put_entry(&mut disk, first + 462, 0x05, 20, 20);
        // A chain that bites its tail ends all the same.
        put_entry(&mut disk, second + 462, 0x05, 20, 20);
        let found = parts(&disk).unwrap();
        assert_eq!(found[0], Part { number: Some(1), start: 1024, bytes: 5120 });
        assert_eq!(found[1], Part { number: Some(5), start: 21 * 512, bytes: 2560 });
        assert_eq!(found[2], Part { number: Some(6), start: 41 * 512, bytes: 2560 });
        assert_eq!(found[1].name(), "p5");
        assert!(found.len() < 70);
    }

    #[test]
    fn a_gpt() {
        let mut disk = signed(100);
        put_entry(&mut disk, 446, 0xee, 1, 99);
        disk[512..520].copy_from_slice(b"EFI PART");
        disk[512 + 72] = 2;
        disk[512 + 80..512 + 84].copy_from_slice(&u32::MAX.to_le_bytes());
        disk[512 + 84] = 128;
        for (index, (first, last)) in [(40_u64, 49_u64), (60, 50), (90, 100)].iter().enumerate() {
            let at = 1024 + index * 128;
            disk[at] = 1;
            disk[at + 32..at + 40].copy_from_slice(&first.to_le_bytes());
            disk[at + 40..at + 48].copy_from_slice(&last.to_le_bytes());
        }
        let found = parts(&disk).unwrap();
        assert_eq!(found, [Part { number: Some(1), start: 40 * 512, bytes: 5120 }]);
        disk[512] = b'x';
        assert!(matches!(parts(&disk), Err(FilesError::Damaged { .. })));
    }

    proptest! {
        #[test]
        fn any_table_ends_and_stays_inside(
            mut disk in proptest::collection::vec(any::<u8>(), 2048..8192),
            is_gpt: bool,
        ) {
            disk[510..512].copy_from_slice(&[0x55, 0xaa]);
            if is_gpt {
                disk[450] = 0xee;
                disk[512..520].copy_from_slice(b"EFI PART");
                disk[512 + 72..512 + 80].copy_from_slice(&2_u64.to_le_bytes());
                disk[512 + 84..512 + 88].copy_from_slice(&128_u32.to_le_bytes());
            }
            match parts(&disk) {
                Ok(parts) => {
                    let end = disk.len() as u64;
                    prop_assert!(parts.iter().all(|part| part.start + part.bytes <= end));
                }
                Err(error) => prop_assert!(matches!(error, FilesError::Damaged { .. }), "{error}"),
            }
        }
    }
}
