//! Chunks: runs of bytes named by what they contain. No I/O, no clock, no randomness.
//!
//! A chunk is one page of a volume (4 KiB), one node of a manifest, or one record. Its id is the
//! BLAKE3 of its plaintext ([`id_of`]), so that every host, cache and repository means the same
//! bytes by it. Pages that are all zero are holes: they have no chunk and cost nothing.
//!
//! | module | says |
//! | --- | --- |
//! | [`id`] | how a chunk gets its id |
//! | [`verified`] | [`Verified`], the type of bytes that are proven to be what their id says |
//! | [`source`] | [`ChunkSource`] and [`ChunkSink`], the two doors every store of chunks has |
//! | [`frame`] | many chunks compressed together: the unit that is read from a repository |
//! | [`header`] | the header that all our formats begin with |
//! | [`crypt`] | keys, stored names, and the sealing of frames and records |
//!
//! The bytes are described in `docs/format/README.md` and `docs/format/chunk.md`, and pinned by
//! the golden files in `tests/golden`.
//!
//! # Invariants
//!
//! * Bytes that came from outside become [`Verified`] only by hashing to the id that was asked for.
//! * Nothing here allocates more than its caller's bound because of bytes from outside.
//! * No pair of key and nonce is used twice: see [`crypt`].

pub mod crypt;
pub mod frame;
pub mod header;
pub mod id;
pub mod source;
pub mod verified;

pub use id::{CHUNK_BYTES_MAX, id_of, is_zero, zero_page_id};
pub use model::{ChunkId, PAGE_BYTES};
pub use source::{ChunkSink, ChunkSource, FetchError, Memory, Place, Put, SinkError, Urgency};
pub use verified::{Mismatch, Verified};
