//! Frames: many chunks compressed together.
//!
//! A frame is the unit that is read from a repository, decompressed, and sealed as one
//! message. Pages compress better together than alone, and one request brings the neighbours.
//!
//! ```text
//! 0  1  codec: 0 stored as it is, 1 zstd
//! 1  1  reserved, zero
//! 2  2  count of chunks, 1..=FRAME_CHUNKS_MAX
//! 4  4  body_bytes: the body before compression
//! 8  .. body, encoded as codec says: count x u32 lengths, then the chunks one after another
//! ```
//!
//! All numbers are little-endian. The table of lengths lies inside the compressed body because
//! it is nearly always the same number again and again. See `docs/format/chunk.md`.
//!
//! A frame proves nothing about its chunks: whoever decodes one still hashes each chunk
//! ([`crate::Verified::check`]).

use std::cell::RefCell;
use std::ops::Range;

use model::ChunkId;
use zstd::bulk::{Compressor, Decompressor};

use crate::CHUNK_BYTES_MAX;

/// The most chunks in one frame.
pub const FRAME_CHUNKS_MAX: usize = 1024;
/// The most plaintext in one frame that any reader has to accept, bytes: a table and one chunk
/// of the largest size beside a full frame.
pub const FRAME_BYTES_MAX: usize = 2 * CHUNK_BYTES_MAX;

/// How much a writer does to make frames small. Both were chosen by measurement, see
/// `docs/format/chunk.md`; readers do not care.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Effort {
    /// Pages that are put together.
    pub pages: usize,
    /// zstd's level.
    pub level: i32,
}

impl Effort {
    /// Somebody waits for it: checkpoints.
    pub const QUICK: Self = Self { pages: 32, level: 2 };
    /// It is stored once and fetched by many: what a build makes.
    pub const THOROUGH: Self = Self { pages: 64, level: 6 };
    /// Every start fetches all of it: what earlier starts touched.
    pub const FORESEEN: Self = Self { pages: 128, level: 19 };
    /// A start fetches a page of it here and there, and somebody waits for each: what is left when
    /// [`Effort::FORESEEN`] is taken out.
    pub const SELDOM: Self = Self { pages: 16, level: 6 };

    /// After how many bytes a frame is closed although it has fewer chunks.
    fn bytes(self) -> usize {
        self.pages * 4096 + 4096
    }
}

const HEAD_BYTES: usize = 8;
/// What [`crate::crypt`] appends to a frame.
const SEAL_BYTES: usize = 16;
const CODEC_STORED: u8 = 0;
const CODEC_ZSTD: u8 = 1;

/// Why bytes are not a frame.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// It does not follow the format.
    #[error("not a frame: {detail}")]
    Malformed {
        /// What is wrong, for a person.
        detail: &'static str,
    },
    /// It was made with a codec that this program does not know.
    #[error("a frame with codec {codec}: made by a newer Collective")]
    UnknownCodec {
        /// The codec's number.
        codec: u8,
    },
    /// It says that it is larger than the reader allows.
    #[error("a frame of {bytes} bytes, where at most {bytes_max} are allowed")]
    TooLarge {
        /// What the frame says, bytes.
        bytes: u64,
        /// What the reader allows, bytes.
        bytes_max: usize,
    },
}

/// Collects chunks and makes frames of them, one after another.
pub struct FrameBuilder {
    effort: Effort,
    ids: Vec<ChunkId>,
    lengths: Vec<u32>,
    /// The chunks, behind room for the largest table of lengths: so a body needs no copy.
    bytes: Vec<u8>,
    packed: Vec<u8>,
    compressor: Option<Compressor<'static>>,
}

/// A finished frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    /// The chunks in it, in order.
    pub ids: Vec<ChunkId>,
    /// Bytes of all chunks together, before compression.
    pub plain_bytes: usize,
    /// The encoded frame, not yet sealed.
    pub bytes: Vec<u8>,
}

impl FrameBuilder {
    /// Without any chunk.
    ///
    /// # Panics
    /// When the effort puts more than [`FRAME_CHUNKS_MAX`] pages together, or none.
    pub fn new(effort: Effort) -> Self {
        assert!((1..=FRAME_CHUNKS_MAX).contains(&effort.pages), "{effort:?}");
        let bytes = vec![0; effort.pages * 4];
        Self { effort, ids: vec![], lengths: vec![], bytes, packed: vec![], compressor: None }
    }

    /// What it was made for.
    pub fn effort(&self) -> Effort {
        self.effort
    }

    /// Takes one chunk.
    ///
    /// # Panics
    /// When the chunk is larger than [`CHUNK_BYTES_MAX`] or does not [`fit`](Self::fits): both
    /// are the caller's mistakes.
    pub fn push(&mut self, id: ChunkId, bytes: &[u8]) {
        assert!(bytes.len() <= CHUNK_BYTES_MAX, "a chunk of {} bytes", bytes.len());
        assert!(self.fits(bytes.len()), "a frame that is full");
        self.ids.push(id);
        self.lengths.push(bytes.len() as u32);
        self.bytes.extend_from_slice(bytes);
    }

    /// Whether another chunk of this size still belongs into the frame. An empty frame takes
    /// any chunk.
    pub fn fits(&self, chunk_bytes: usize) -> bool {
        self.ids.is_empty()
            || self.ids.len() < self.effort.pages
                && self.plain_bytes() + chunk_bytes <= self.effort.bytes()
    }

    /// Whether it has as many chunks as a writer puts together.
    pub fn is_full(&self) -> bool {
        self.ids.len() >= self.effort.pages || self.plain_bytes() >= self.effort.bytes()
    }

    /// How many chunks it has.
    pub fn len(&self) -> usize {
        self.ids.len()
    }

    /// Whether it has none.
    pub fn is_empty(&self) -> bool {
        self.ids.is_empty()
    }

    /// Bytes of its chunks together.
    pub fn plain_bytes(&self) -> usize {
        self.bytes.len() - self.table_room()
    }

    /// Bytes before the first chunk.
    fn table_room(&self) -> usize {
        self.effort.pages * 4
    }

    /// The chunks in it, in order.
    pub fn ids(&self) -> &[ChunkId] {
        &self.ids
    }

    /// The bytes of a chunk that is still in it.
    pub fn chunk(&self, slot: usize) -> Option<&[u8]> {
        let length = *self.lengths.get(slot)? as usize;
        let before: usize = self.lengths[..slot].iter().map(|length| *length as usize).sum();
        let start = self.table_room() + before;
        Some(&self.bytes[start..start + length])
    }

    /// Makes a frame of the chunks, and is empty again. The frame's bytes have room for what
    /// sealing adds.
    ///
    /// Bytes that do not compress are stored as they are.
    ///
    /// # Panics
    /// When it is empty.
    pub fn finish(&mut self) -> Frame {
        assert!(!self.is_empty(), "a frame without chunks");
        let start = self.table_room() - self.lengths.len() * 4;
        for (at, length) in self.bytes[start..].chunks_exact_mut(4).zip(&self.lengths) {
            at.copy_from_slice(&length.to_le_bytes());
        }
        let plain_bytes = self.plain_bytes();
        let is_smaller = self.compress(start);
        let body = &self.bytes[start..];

        let mut head = [0; HEAD_BYTES];
        head[0] = if is_smaller { CODEC_ZSTD } else { CODEC_STORED };
        head[2..4].copy_from_slice(&(self.ids.len() as u16).to_le_bytes());
        head[4..8].copy_from_slice(&(body.len() as u32).to_le_bytes());
        let encoded = if is_smaller { &self.packed } else { body };
        let mut bytes = Vec::with_capacity(HEAD_BYTES + encoded.len() + SEAL_BYTES);
        bytes.extend_from_slice(&head);
        bytes.extend_from_slice(encoded);

        self.lengths.clear();
        self.bytes.truncate(self.effort.pages * 4);
        Frame { ids: std::mem::take(&mut self.ids), plain_bytes, bytes }
    }

    /// Compresses the body, which begins at `start`, into `packed`; whether that is smaller.
    fn compress(&mut self, start: usize) -> bool {
        // Making a context costs more than compressing a frame: it is kept between frames.
        if self.compressor.is_none() {
            self.compressor = Compressor::new(self.effort.level).ok();
        }
        let Some(compressor) = &mut self.compressor else { return false };
        let body = &self.bytes[start..];
        self.packed.clear();
        self.packed.reserve(zstd::zstd_safe::compress_bound(body.len()));
        match compressor.compress_to_buffer(body, &mut self.packed) {
            Ok(packed_bytes) => packed_bytes < body.len(),
            Err(_) => false,
        }
    }
}

/// The chunks of a decoded frame: bytes that are not verified yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chunks {
    body: Vec<u8>,
    ranges: Vec<Range<usize>>,
}

impl Chunks {
    /// How many chunks there are; at least one.
    pub fn len(&self) -> usize {
        self.ranges.len()
    }

    /// Never true: a frame has at least one chunk.
    pub fn is_empty(&self) -> bool {
        self.ranges.is_empty()
    }

    /// The bytes of one chunk.
    pub fn get(&self, slot: usize) -> Option<&[u8]> {
        self.ranges.get(slot).map(|range| &self.body[range.clone()])
    }

    /// All chunks in order.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &[u8]> {
        self.ranges.iter().map(|range| &self.body[range.clone()])
    }
}

/// Reads a frame. Allocates at most `plain_bytes_max` and a table in proportion, whatever the
/// bytes say.
pub fn decode(bytes: &[u8], plain_bytes_max: usize) -> Result<Chunks, FrameError> {
    let malformed = |detail| FrameError::Malformed { detail };
    let (head, encoded) =
        bytes.split_first_chunk::<HEAD_BYTES>().ok_or(malformed("shorter than its header"))?;
    let [codec, reserved, count @ .., b0, b1, b2, b3] = *head;
    let count = usize::from(u16::from_le_bytes(count));
    let body_bytes = u32::from_le_bytes([b0, b1, b2, b3]) as usize;
    if reserved != 0 {
        return Err(malformed("a reserved byte is set"));
    }
    if count == 0 || count > FRAME_CHUNKS_MAX {
        return Err(malformed("an impossible count of chunks"));
    }
    let table_bytes = count * 4;
    let plain_bytes = body_bytes
        .checked_sub(table_bytes)
        .ok_or(malformed("its body has no room for its table"))?;
    if plain_bytes > plain_bytes_max {
        return Err(FrameError::TooLarge { bytes: plain_bytes as u64, bytes_max: plain_bytes_max });
    }
    let body = match codec {
        CODEC_STORED => encoded.to_vec(),
        CODEC_ZSTD => decompress(encoded, body_bytes)?,
        codec => return Err(FrameError::UnknownCodec { codec }),
    };
    if body.len() != body_bytes {
        return Err(malformed("its body is not as long as it says"));
    }

    let mut ranges = Vec::with_capacity(count);
    let mut start = table_bytes;
    for length in body[..table_bytes].chunks_exact(4) {
        let length = u32::from_le_bytes([length[0], length[1], length[2], length[3]]) as usize;
        if length > body_bytes - start {
            return Err(malformed("a chunk reaches beyond its end"));
        }
        ranges.push(start..start + length);
        start += length;
    }
    if start != body_bytes {
        return Err(malformed("bytes are left over after its last chunk"));
    }
    Ok(Chunks { body, ranges })
}

fn decompress(encoded: &[u8], body_bytes: usize) -> Result<Vec<u8>, FrameError> {
    thread_local! {
        /// A context takes 0.1 MB and longer to make than a frame to read: one for each thread.
        static DECOMPRESSOR: RefCell<Option<Decompressor<'static>>> = const { RefCell::new(None) };
    }
    let malformed = FrameError::Malformed { detail: "its body does not decompress" };
    DECOMPRESSOR.with_borrow_mut(|slot| {
        if slot.is_none() {
            *slot = Decompressor::new().ok();
        }
        // zstd never writes beyond the capacity that it is given: that is the bound.
        let mut body = Vec::with_capacity(body_bytes);
        match slot.as_mut().map(|context| context.decompress_to_buffer(encoded, &mut body)) {
            Some(Ok(_)) => Ok(body),
            _ => Err(malformed),
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id_of;

    const FRAME_CHUNKS: usize = Effort::QUICK.pages;

    fn frame_of(chunks: &[&[u8]]) -> Frame {
        let mut builder = FrameBuilder::new(Effort::QUICK);
        for chunk in chunks {
            builder.push(id_of(chunk), chunk);
        }
        builder.finish()
    }

    #[test]
    fn chunks_come_back_in_order() {
        let pages: Vec<Vec<u8>> = (0..FRAME_CHUNKS).map(|i| vec![i as u8; 4096]).collect();
        let slices: Vec<&[u8]> = pages.iter().map(Vec::as_slice).collect();
        let frame = frame_of(&slices);
        assert_eq!(frame.ids.len(), FRAME_CHUNKS);
        assert!(frame.bytes.len() < 1024, "{} bytes", frame.bytes.len());
        let chunks = decode(&frame.bytes, FRAME_BYTES_MAX).unwrap();
        assert!(chunks.iter().eq(slices.iter().copied()));
        assert_eq!(chunks.get(FRAME_CHUNKS), None);
    }

    #[test]
    fn what_does_not_compress_is_stored() {
        let mut noise = vec![0; 4096];
        blake3::Hasher::new().finalize_xof().fill(&mut noise);
        let frame = frame_of(&[&noise]);
        assert_eq!(frame.bytes.len(), HEAD_BYTES + 4 + noise.len());
        assert_eq!(decode(&frame.bytes, 4096).unwrap().get(0), Some(noise.as_slice()));
    }

    #[test]
    fn a_builder_is_empty_again_and_knows_its_bounds() {
        let mut builder = FrameBuilder::new(Effort::QUICK);
        assert!(builder.fits(CHUNK_BYTES_MAX));
        while builder.fits(4096) {
            builder.push(id_of(b""), &[builder.len() as u8; 4096]);
        }
        assert!(builder.is_full());
        assert_eq!(builder.chunk(3), Some([3; 4096].as_slice()));
        assert_eq!(builder.chunk(FRAME_CHUNKS), None);
        builder.finish();
        assert!(builder.is_empty() && builder.plain_bytes() == 0);
        builder.push(id_of(b"a"), b"a");
        assert_eq!(decode(&builder.finish().bytes, 1).unwrap().len(), 1);
    }

    #[test]
    fn bombs_are_refused_before_they_are_unpacked() {
        let frame = frame_of(&[&vec![0; CHUNK_BYTES_MAX]]);
        let error = decode(&frame.bytes, 4096).unwrap_err();
        let bytes = CHUNK_BYTES_MAX as u64;
        assert_eq!(error, FrameError::TooLarge { bytes, bytes_max: 4096 });
        // The header lies about the size: zstd stops at what it says.
        let mut liar = frame.bytes;
        liar[4..8].copy_from_slice(&4100_u32.to_le_bytes());
        assert!(matches!(decode(&liar, 4096).unwrap_err(), FrameError::Malformed { .. }));
    }

    #[test]
    fn a_newer_codec_is_named() {
        let mut frame = frame_of(&[b"abc"]);
        frame.bytes[0] = 9;
        let error = decode(&frame.bytes, 4096).unwrap_err();
        assert_eq!(error, FrameError::UnknownCodec { codec: 9 });
    }

    #[test]
    fn every_cut_is_noticed() {
        let frame = frame_of(&[b"abc", b"", b"defg"]);
        for len in 0..frame.bytes.len() {
            assert!(decode(&frame.bytes[..len], 4096).is_err(), "{len}");
        }
    }
}
