//! VHDX (Microsoft's [MS-VHDX]): a table of regions leads to the metadata, which say how large the
//! disk is and whether it has a parent.

use super::{Fields, Source, leads_elsewhere};
use crate::error::Result;

const WHAT: &str = "vhdx";
/// Where the two copies of the table of regions are.
const REGION_TABLES: [u64; 2] = [192 << 10, 256 << 10];
const TABLE_BYTES: usize = 64 << 10;
/// Most entries of either table, by the specification.
const ENTRIES_MAX: u32 = 2047;

const METADATA_REGION: [u8; 16] = guid(0x8b7c_a206, 0x4790, 0x4b9a, 0xb8fe_575f_050f_886e);
const FILE_PARAMETERS: [u8; 16] = guid(0xcaa1_6737, 0xfa36, 0x4d43, 0xb3b6_33f0_aa44_e76b);
const DISK_SIZE: [u8; 16] = guid(0x2fa5_4224, 0xcd1b, 0x4876, 0xb211_5dbe_d83b_f4b8);
const PARENT_LOCATOR: [u8; 16] = guid(0xa8d3_5f2d, 0xb30b, 0x454d, 0xabf7_d3d8_4834_ab0c);

/// A GUID's bytes: its first three numbers are little-endian, the rest is as written.
const fn guid(a: u32, b: u16, c: u16, d: u64) -> [u8; 16] {
    let (a, b, c, d) = (a.to_le_bytes(), b.to_le_bytes(), c.to_le_bytes(), d.to_be_bytes());
    [a[0], a[1], a[2], a[3], b[0], b[1], c[0], c[1], d[0], d[1], d[2], d[3], d[4], d[5], d[6], d[7]]
}

pub(super) fn guard(file: &mut dyn Source) -> Result<u64> {
    Fields::read(WHAT, file, 0, 8)?.expect_magic(0, b"vhdxfile")?;
    let metadata_at = metadata_region(file)?;
    let table = Fields::read(WHAT, file, metadata_at, TABLE_BYTES)?;
    table.expect_magic(0, b"metadata")?;
    let mut size = None;
    for index in 0..u32::from(table.le16(10)?).min(ENTRIES_MAX) {
        let entry = 32 + index as usize * 32;
        let item: [u8; 16] = table.array(entry)?;
        let at = metadata_at.saturating_add(u64::from(table.le32(entry + 16)?));
        match item {
            FILE_PARAMETERS => {
                let parameters = Fields::read(WHAT, file, at, 8)?;
                if parameters.le32(4)? & 0b10 != 0 {
                    return Err(leads_elsewhere("its parent disk", "would have to be read too"));
                }
            }
            PARENT_LOCATOR => {
                return Err(leads_elsewhere("its parent disk", "is named"));
            }
            DISK_SIZE => size = Some(Fields::read(WHAT, file, at, 8)?.le64(0)?),
            _ => {}
        }
    }
    size.ok_or_else(|| table.malformed("its size is nowhere"))
}

fn metadata_region(file: &mut dyn Source) -> Result<u64> {
    let mut whole = None;
    for at in REGION_TABLES {
        let table = Fields::read(WHAT, file, at, TABLE_BYTES)?;
        if table.expect_magic(0, b"regi").is_err() {
            continue;
        }
        for index in 0..table.le32(8)?.min(ENTRIES_MAX) {
            let entry = 16 + index as usize * 32;
            if table.array::<16>(entry)? == METADATA_REGION {
                let region = table.le64(entry + 16)?;
                // Two tables that disagree would let two programs see two disks.
                if whole.is_some_and(|other| other != region) {
                    return Err(table.malformed("its two tables of regions disagree"));
                }
                whole = Some(region);
            }
        }
    }
    whole.ok_or_else(|| crate::error::ImportError::malformed(WHAT, "it has no metadata"))
}
