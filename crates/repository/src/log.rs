//! The bytes of index objects: the log in which the repository's packs are listed.
//!
//! An index object is a header and one sealed record, bound to its key (so to its number) and
//! its header:
//!
//! ```text
//! 0  1   kind: 0 delta, 1 snapshot
//! 1  7   reserved, zero
//! 8  8   number of the latest snapshot before this object, 0 if none
//! 16 ..  added:     count u32, then packs (id 32, bytes u64, frames)
//! .. ..  condemned: count u32, then pack ids
//! .. ..  revived:   count u32, then pack ids
//! .. ..  removed:   count u32, then pack ids
//! .. ..  in a snapshot only: count u32, then packs (id 32, bytes u64, chunks u32, condemned_at u64);
//!        count u32, then table ids (16)
//! ```
//! frames: count u32, then for each: stored_bytes u32, count u32, that many 16-byte names.
//!
//! A *table* object, which a snapshot names, is a header and one sealed record with
//! `count u32, then packs` as in `added`.

use chunk::crypt::{Cipher, PackId};
use chunk::header::{Format, HEADER_BYTES, Header, Intent};

use crate::RepositoryError;
use crate::layout::{INDEX_FORMAT, TABLE_FORMAT, index_key, table_key};
use crate::pack::{PackEntry, put_frames, read_frames};
use crate::wire::{Malformed, Reader, hex};

/// Fresh random bytes for each sealing.
pub(crate) type Salt = [u8; chunk::crypt::SALT_BYTES];

/// One object of the log.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct IndexObject {
    /// The latest snapshot before this object. Exact, because who writes an object has read all
    /// before it.
    pub(crate) latest_snapshot: u64,
    pub(crate) added: Vec<PackEntry>,
    pub(crate) condemned: Vec<PackId>,
    pub(crate) revived: Vec<PackId>,
    pub(crate) removed: Vec<PackId>,
    /// The whole state, in place of everything before.
    pub(crate) snapshot: Option<Snapshot>,
}

/// All packs at one point of the log.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Snapshot {
    pub(crate) packs: Vec<SnapshotPack>,
    pub(crate) tables: Vec<[u8; 16]>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SnapshotPack {
    pub(crate) id: PackId,
    pub(crate) bytes: u64,
    pub(crate) chunks: u32,
    /// Number of the index object that condemned it; 0 for a pack in use.
    pub(crate) condemned_at: u64,
}

impl IndexObject {
    pub(crate) fn is_empty(&self) -> bool {
        self.added.is_empty()
            && self.condemned.is_empty()
            && self.revived.is_empty()
            && self.removed.is_empty()
            && self.snapshot.is_none()
    }

    pub(crate) fn encode(&self, cipher: &Cipher, number: u64, salt: Salt) -> Vec<u8> {
        let mut out = vec![u8::from(self.snapshot.is_some()), 0, 0, 0, 0, 0, 0, 0];
        out.extend_from_slice(&self.latest_snapshot.to_le_bytes());
        put_packs(&mut out, &self.added);
        for ids in [&self.condemned, &self.revived, &self.removed] {
            out.extend_from_slice(&(ids.len() as u32).to_le_bytes());
            ids.iter().for_each(|id| out.extend_from_slice(&id.0));
        }
        if let Some(snapshot) = &self.snapshot {
            out.extend_from_slice(&(snapshot.packs.len() as u32).to_le_bytes());
            for pack in &snapshot.packs {
                out.extend_from_slice(&pack.id.0);
                out.extend_from_slice(&pack.bytes.to_le_bytes());
                out.extend_from_slice(&pack.chunks.to_le_bytes());
                out.extend_from_slice(&pack.condemned_at.to_le_bytes());
            }
            out.extend_from_slice(&(snapshot.tables.len() as u32).to_le_bytes());
            snapshot.tables.iter().for_each(|table| out.extend_from_slice(table));
        }
        seal(cipher, &INDEX_FORMAT, &index_key(number), salt, &out)
    }

    pub(crate) fn decode(
        cipher: &Cipher,
        number: u64,
        bytes: &[u8],
    ) -> Result<Self, RepositoryError> {
        let key = index_key(number);
        let plain = open(cipher, &INDEX_FORMAT, &key, bytes)?;
        Self::parse(&plain).map_err(RepositoryError::malformed(&key))
    }

    fn parse(plain: &[u8]) -> Result<Self, Malformed> {
        let mut fields = Reader::new(plain);
        let kind = fields.u8()?;
        if kind > 1 || fields.take(7)? != [0; 7] {
            return Err(Malformed("an unknown kind of index object"));
        }
        let latest_snapshot = fields.u64()?;
        let added = read_packs(&mut fields)?;
        let condemned = read_ids(&mut fields)?;
        let revived = read_ids(&mut fields)?;
        let removed = read_ids(&mut fields)?;
        let snapshot = if kind == 1 { Some(Snapshot::parse(&mut fields)?) } else { None };
        fields.end()?;
        Ok(Self { latest_snapshot, added, condemned, revived, removed, snapshot })
    }
}

impl Snapshot {
    fn parse(fields: &mut Reader<'_>) -> Result<Self, Malformed> {
        let packs = (0..fields.count(52)?)
            .map(|_| {
                Ok(SnapshotPack {
                    id: PackId(fields.array()?),
                    bytes: fields.u64()?,
                    chunks: fields.u32()?,
                    condemned_at: fields.u64()?,
                })
            })
            .collect::<Result<_, Malformed>>()?;
        let tables =
            (0..fields.count(16)?).map(|_| fields.array()).collect::<Result<_, Malformed>>()?;
        Ok(Self { packs, tables })
    }
}

pub(crate) fn encode_table(
    cipher: &Cipher,
    table: &[u8; 16],
    salt: Salt,
    packs: &[PackEntry],
) -> Vec<u8> {
    let mut out = Vec::new();
    put_packs(&mut out, packs);
    seal(cipher, &TABLE_FORMAT, &table_key(table), salt, &out)
}

pub(crate) fn decode_table(
    cipher: &Cipher,
    table: &[u8; 16],
    bytes: &[u8],
) -> Result<Vec<PackEntry>, RepositoryError> {
    let key = table_key(table);
    let plain = open(cipher, &TABLE_FORMAT, &key, bytes)?;
    let mut fields = Reader::new(&plain);
    let packs = read_packs(&mut fields).and_then(|packs| fields.end().map(|()| packs));
    packs.map_err(RepositoryError::malformed(&key))
}

fn put_packs(out: &mut Vec<u8>, packs: &[PackEntry]) {
    out.extend_from_slice(&(packs.len() as u32).to_le_bytes());
    for pack in packs {
        out.extend_from_slice(&pack.id.0);
        out.extend_from_slice(&pack.bytes.to_le_bytes());
        put_frames(out, &pack.frames);
    }
}

fn read_packs(fields: &mut Reader<'_>) -> Result<Vec<PackEntry>, Malformed> {
    (0..fields.count(44)?)
        .map(|_| {
            let id = PackId(fields.array()?);
            let bytes = fields.u64()?;
            if bytes > objects::OBJECT_BYTES_MAX {
                return Err(Malformed("a pack is larger than any object"));
            }
            Ok(PackEntry { id, bytes, frames: read_frames(fields, bytes)? })
        })
        .collect()
}

fn read_ids(fields: &mut Reader<'_>) -> Result<Vec<PackId>, Malformed> {
    (0..fields.count(32)?).map(|_| fields.array().map(PackId)).collect()
}

/// Seals what is small: header, salt, bytes, tag.
///
/// The header is part of the place to which it is sealed, so that no bit of the object can
/// change unnoticed, not even one that a reader would ignore.
pub(crate) fn seal(
    cipher: &Cipher,
    format: &Format,
    key: &str,
    salt: Salt,
    plain: &[u8],
) -> Vec<u8> {
    seal_with(cipher, &format.header(), key, salt, plain)
}

/// The same, under a header that says more.
pub(crate) fn seal_with(
    cipher: &Cipher,
    header: &Header,
    key: &str,
    salt: Salt,
    plain: &[u8],
) -> Vec<u8> {
    let mut out = header.encode().to_vec();
    let place = place(key, &out);
    out.extend_from_slice(&cipher.seal_record(&place, salt, plain));
    out
}

/// Opens what [`seal`] sealed.
pub(crate) fn open(
    cipher: &Cipher,
    format: &Format,
    key: &str,
    bytes: &[u8],
) -> Result<Vec<u8>, RepositoryError> {
    let (_, sealed) =
        format.read(bytes, Intent::Read).map_err(|error| RepositoryError::header(key, error))?;
    let place = place(key, &bytes[..HEADER_BYTES]);
    cipher.open_record(&place, sealed).map_err(|error| RepositoryError::damaged(key, error))
}

fn place(key: &str, header: &[u8]) -> String {
    format!("{key} {}", hex(header))
}
