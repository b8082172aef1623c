//! The bytes of a pack: many frames in one object.
//!
//! ```text
//! 0   40  header, magic "cltvpack"
//! 40  16  repository id
//! 56  32  pack id (also its name in the store)
//! 88  ..  frames, each sealed, one after another; frame n is sealed as (chunks, n)
//! ..  ..  the table, sealed as (table, 0): which frames with which chunks
//! -16 4   table_bytes: length of the sealed table
//! -12 4   reserved, zero
//! -8  8   "cltvpend"
//! ```
//!
//! The table is a count (u32), then for each frame its sealed bytes (u32) and its count of chunks
//! (u32). A reader goes from the index straight to a frame; the table is there so that a cut
//! pack shows, and so that an index can be made again from the packs alone (by opening the
//! frames: names follow from content).

use chunk::crypt::{Cipher, FrameKind, PackCipher, PackId, RepositoryId, StoredName};
use chunk::frame::Frame;
use chunk::header::{HEADER_BYTES, Intent};
use objects::OBJECT_BYTES_MAX;

use crate::RepositoryError;
use crate::layout::{PACK_FORMAT, pack_key};
use crate::wire::{Malformed, Reader};

/// Bytes before the first frame.
pub(crate) const PACK_HEAD_BYTES: u64 = HEADER_BYTES as u64 + 16 + 32;
/// Bytes after the table.
const PACK_TAIL_BYTES: usize = 16;
/// A pack is closed when it has this many bytes.
pub(crate) const PACK_BYTES: usize = 16 << 20;
/// The most frames in one pack.
pub(crate) const PACK_FRAMES_MAX: usize = 1 << 16;
const TAIL_MAGIC: &[u8; 8] = b"cltvpend";

/// One frame, as tables and indexes list it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct FrameEntry {
    /// Sealed bytes in the pack.
    pub(crate) stored_bytes: u32,
    /// The chunks in it, in order.
    pub(crate) names: Vec<StoredName>,
}

/// One pack, as tables and indexes list it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct PackEntry {
    pub(crate) id: PackId,
    /// The whole object.
    pub(crate) bytes: u64,
    pub(crate) frames: Vec<FrameEntry>,
}

impl PackEntry {
    pub(crate) fn chunks(&self) -> usize {
        self.frames.iter().map(|frame| frame.names.len()).sum()
    }
}

pub(crate) fn put_frames(out: &mut Vec<u8>, frames: &[FrameEntry]) {
    out.extend_from_slice(&(frames.len() as u32).to_le_bytes());
    for frame in frames {
        out.extend_from_slice(&frame.stored_bytes.to_le_bytes());
        out.extend_from_slice(&(frame.names.len() as u32).to_le_bytes());
        frame.names.iter().for_each(|name| out.extend_from_slice(name));
    }
}

/// Reads frames that lie one after another in a pack of `pack_bytes`.
pub(crate) fn read_frames(
    fields: &mut Reader<'_>,
    pack_bytes: u64,
) -> Result<Vec<FrameEntry>, Malformed> {
    let count = fields.count(8)?;
    if count > PACK_FRAMES_MAX {
        return Err(Malformed("too many frames in a pack"));
    }
    let mut frames = Vec::with_capacity(count);
    let mut end = PACK_HEAD_BYTES;
    for _ in 0..count {
        let stored_bytes = fields.u32()?;
        let chunks = fields.count(16)?;
        end += u64::from(stored_bytes);
        if chunks > chunk::frame::FRAME_CHUNKS_MAX || end > pack_bytes {
            return Err(Malformed("a frame is larger than its pack"));
        }
        let names = (0..chunks).map(|_| fields.array()).collect::<Result<_, _>>()?;
        frames.push(FrameEntry { stored_bytes, names });
    }
    Ok(frames)
}

/// A frame as the pack's own table lists it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct TableFrame {
    pub(crate) stored_bytes: u32,
    pub(crate) chunks: u32,
}

/// Puts a pack together, frame by frame.
pub(crate) struct PackBuilder {
    cipher: PackCipher,
    bytes: Vec<u8>,
    frames: Vec<FrameEntry>,
}

impl PackBuilder {
    /// Begins a pack. The id must be fresh from the operating system's generator: the pack's key
    /// follows from it.
    pub(crate) fn new(cipher: &Cipher, id: PackId) -> Self {
        let mut bytes = Vec::with_capacity(PACK_BYTES + (PACK_BYTES >> 3));
        bytes.extend_from_slice(&PACK_FORMAT.header().encode());
        bytes.extend_from_slice(&cipher.repository().0);
        bytes.extend_from_slice(&id.0);
        Self { cipher: cipher.pack(id), bytes, frames: Vec::new() }
    }

    /// Seals and appends one frame; gives the bytes that it takes.
    pub(crate) fn push(&mut self, cipher: &Cipher, frame: Frame) -> u64 {
        let names = frame.ids.iter().map(|id| cipher.stored_name(id)).collect();
        let mut sealed = frame.bytes;
        self.cipher.seal(FrameKind::Chunks, self.frames.len() as u32, &mut sealed);
        self.frames.push(FrameEntry { stored_bytes: sealed.len() as u32, names });
        self.bytes.extend_from_slice(&sealed);
        sealed.len() as u64
    }

    pub(crate) fn is_full(&self) -> bool {
        self.bytes.len() >= PACK_BYTES || self.frames.len() >= PACK_FRAMES_MAX
    }

    /// Closes the pack; gives its entry and bytes.
    pub(crate) fn finish(mut self) -> (PackEntry, Vec<u8>) {
        let mut table = (self.frames.len() as u32).to_le_bytes().to_vec();
        for frame in &self.frames {
            table.extend_from_slice(&frame.stored_bytes.to_le_bytes());
            table.extend_from_slice(&(frame.names.len() as u32).to_le_bytes());
        }
        self.cipher.seal(FrameKind::Table, 0, &mut table);
        self.bytes.extend_from_slice(&table);
        self.bytes.extend_from_slice(&(table.len() as u32).to_le_bytes());
        self.bytes.extend_from_slice(&[0; 4]);
        self.bytes.extend_from_slice(TAIL_MAGIC);
        let bytes = self.bytes.len() as u64;
        (PackEntry { id: self.cipher.id(), bytes, frames: self.frames }, self.bytes)
    }
}

/// Checks a whole pack's head, tail and table; gives its frames, which lie one after another
/// from [`PACK_HEAD_BYTES`] and are not opened.
pub(crate) fn read_pack(
    cipher: &Cipher,
    id: PackId,
    bytes: &[u8],
) -> Result<Vec<TableFrame>, RepositoryError> {
    let key = pack_key(&id);
    let damaged = |detail: &str| RepositoryError::damaged(&key, detail);
    check_head(cipher.repository(), id, bytes)?;
    let (body, tail) =
        bytes.split_last_chunk::<PACK_TAIL_BYTES>().ok_or_else(|| damaged("it is cut"))?;
    let mut fields = Reader::new(tail);
    let malformed = RepositoryError::malformed(&key);
    let table_bytes = fields.u32().map_err(&malformed)? as usize;
    if fields.u32().map_err(&malformed)? != 0 || fields.rest() != TAIL_MAGIC {
        return Err(damaged("its end is not a pack's end: it is cut or overwritten"));
    }
    let start = body.len().checked_sub(table_bytes).ok_or_else(|| damaged("its table is cut"))?;
    let mut table = body[start..].to_vec();
    cipher
        .pack(id)
        .open(FrameKind::Table, 0, &mut table)
        .map_err(|error| damaged(&format!("its table {error}")))?;
    read_table(&table, start as u64).map_err(&malformed)
}

/// `end` is where the frames end in the pack.
fn read_table(table: &[u8], end: u64) -> Result<Vec<TableFrame>, Malformed> {
    let mut fields = Reader::new(table);
    let mut at = PACK_HEAD_BYTES;
    let frames = (0..fields.count(8)?)
        .map(|_| {
            let frame = TableFrame { stored_bytes: fields.u32()?, chunks: fields.u32()? };
            at += u64::from(frame.stored_bytes);
            Ok(frame)
        })
        .collect::<Result<Vec<_>, Malformed>>()?;
    fields.end()?;
    if at == end { Ok(frames) } else { Err(Malformed("its frames do not fill it")) }
}

/// Checks a pack's head alone.
pub(crate) fn check_head(
    repository: RepositoryId,
    id: PackId,
    bytes: &[u8],
) -> Result<(), RepositoryError> {
    let key = pack_key(&id);
    let (_, rest) = PACK_FORMAT
        .read(bytes, Intent::Read)
        .map_err(|error| RepositoryError::header(&key, error))?;
    let mut fields = Reader::new(rest);
    let malformed = RepositoryError::malformed(&key);
    if fields.array::<16>().map_err(&malformed)? != repository.0 {
        return Err(RepositoryError::damaged(&key, "it belongs to another repository"));
    }
    if fields.array::<32>().map_err(&malformed)? != id.0 {
        return Err(RepositoryError::damaged(&key, "it is another pack under this name"));
    }
    Ok(())
}

const _: () = assert!(PACK_BYTES as u64 * 4 <= OBJECT_BYTES_MAX);
