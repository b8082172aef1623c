//! Records and refs' payloads: the envelopes that let `check` and `gc` walk from a ref to every
//! chunk without knowing what an appliance or a checkpoint is.
//!
//! A record is a chunk:
//!
//! ```text
//! 0   40  header, magic "cltvrecd"
//! 40  ..  count u32, then children: kind u8 (0 manifest, 1 record, 2 chunk), id 32, label (u8 length, text)
//! ..  ..  the body: whatever its owner likes, to the end
//! ```
//!
//! What is not named as a child is not kept: a body's own ids do not count.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};

use chunk::header::Intent;
use chunk::{CHUNK_BYTES_MAX, ChunkSink, ChunkSource, Urgency, Verified, id_of};
use model::{ChunkId, ManifestId};

use crate::RepositoryError;
use crate::layout::RECORD_FORMAT;
use crate::wire::{Malformed, Reader, put_text};

/// Something that a record or ref names, and so keeps.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Target {
    /// A volume's manifest, with all its nodes and pages.
    Manifest(ManifestId),
    /// Another record, with its children.
    Record(ChunkId),
    /// A chunk that names nothing further.
    Chunk(ChunkId),
    /// A root of a ref, and no child: of this record, wherever the ref's other roots lead to it, only itself is
    /// kept, and what its child [`PARENT`] leads to.
    Gone(ChunkId),
}

/// The label of the child that a record follows.
pub const PARENT: &str = "parent";

impl Target {
    /// The chunk that it is, or begins with.
    pub fn chunk(&self) -> ChunkId {
        match self {
            Self::Manifest(id) => (*id).into(),
            Self::Record(id) | Self::Chunk(id) | Self::Gone(id) => *id,
        }
    }

    fn kind(&self) -> u8 {
        match self {
            Self::Manifest(_) => 0,
            Self::Record(_) => 1,
            Self::Chunk(_) => 2,
            Self::Gone(_) => 3,
        }
    }

    pub(crate) fn put(&self, out: &mut Vec<u8>) {
        out.push(self.kind());
        out.extend_from_slice(self.chunk().as_bytes());
    }

    pub(crate) fn read(fields: &mut Reader<'_>) -> Result<Self, Malformed> {
        let kind = fields.u8()?;
        let id = ChunkId::from_bytes(fields.array()?);
        match kind {
            0 => Ok(Self::Manifest(id.into())),
            1 => Ok(Self::Record(id)),
            2 => Ok(Self::Chunk(id)),
            3 => Ok(Self::Gone(id)),
            _ => Err(Malformed("a child of unknown kind")),
        }
    }
}

/// A child of a record, with its role.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Child {
    /// Its role, for example `disk0`, `ram`, `parent`: at most 255 bytes. Shown in errors.
    pub label: String,
    /// What it is.
    pub target: Target,
}

impl Child {
    /// A child with a role.
    pub fn new(label: &str, target: Target) -> Self {
        Self { label: label.to_owned(), target }
    }
}

/// A record that was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// What it names and keeps.
    pub children: Vec<Child>,
    /// Its owner's bytes.
    pub body: Vec<u8>,
}

impl Record {
    /// The first child with this label.
    pub fn child(&self, label: &str) -> Option<&Target> {
        self.children.iter().find(|child| child.label == label).map(|child| &child.target)
    }
}

/// Writes a record; gives its id. Visible only when a ref names it, directly or not.
pub fn write_record(
    sink: &mut dyn ChunkSink,
    children: &[Child],
    body: &[u8],
) -> Result<ChunkId, RepositoryError> {
    let invalid =
        |detail: &str| RepositoryError::Invalid { what: "a record", detail: detail.to_owned() };
    if children.iter().any(|child| matches!(child.target, Target::Gone(_))) {
        return Err(invalid("only a ref says that something is gone"));
    }
    if children.iter().any(|child| child.label.len() > 255) {
        return Err(invalid("a label has more than 255 bytes"));
    }
    let mut out = RECORD_FORMAT.header().encode().to_vec();
    out.extend_from_slice(&(children.len() as u32).to_le_bytes());
    for child in children {
        child.target.put(&mut out);
        put_text(&mut out, &child.label);
    }
    out.extend_from_slice(body);
    if out.len() > CHUNK_BYTES_MAX {
        return Err(invalid("it has more than 1 MiB"));
    }
    let id = id_of(&out);
    sink.put(id, &out).map_err(from_sink)?;
    Ok(id)
}

/// Reads a record.
pub fn read_record(source: &dyn ChunkSource, id: &ChunkId) -> Result<Record, RepositoryError> {
    let chunks = source.fetch(id, Urgency::Urgent)?;
    let bytes = chunks.first().ok_or(chunk::FetchError::Missing { id: *id })?;
    parse_record(id, bytes)
}

pub(crate) fn parse_record(id: &ChunkId, bytes: &[u8]) -> Result<Record, RepositoryError> {
    let name = format!("record {}", id.short());
    let (_, rest) = RECORD_FORMAT
        .read(bytes, Intent::Read)
        .map_err(|error| RepositoryError::header(&name, error))?;
    let parse = || {
        let mut fields = Reader::new(rest);
        let mut children = Vec::new();
        for _ in 0..fields.count(34)? {
            let target = Target::read(&mut fields)?;
            if matches!(target, Target::Gone(_)) {
                return Err(Malformed("a child of unknown kind"));
            }
            children.push(Child { label: fields.text()?.to_owned(), target });
        }
        Ok(Record { children, body: fields.rest().to_vec() })
    };
    parse().map_err(RepositoryError::malformed(&name))
}

/// Bytes of a piece of a blob.
pub const PIECE_BYTES: usize = 512 << 10;
/// The largest blob that is read, bytes.
const BLOB_BYTES_MAX: u64 = 1 << 30;

/// Writes bytes of any length as a record of pieces; gives the record's id.
pub fn write_blob(sink: &mut dyn ChunkSink, bytes: &[u8]) -> Result<ChunkId, RepositoryError> {
    let mut children = Vec::new();
    for piece in bytes.chunks(PIECE_BYTES) {
        let id = id_of(piece);
        sink.put(id, piece).map_err(from_sink)?;
        children.push(Child::new("", Target::Chunk(id)));
    }
    write_record(sink, &children, &(bytes.len() as u64).to_le_bytes())
}

/// The pieces of a blob, in their order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pieces {
    /// The blob's length, bytes.
    pub bytes: u64,
    /// Each has [`PIECE_BYTES`], the last what is left.
    pub ids: Vec<ChunkId>,
}

/// What a blob of [`write_blob`] consists of, for who reads a part of it.
pub fn read_pieces(source: &dyn ChunkSource, id: &ChunkId) -> Result<Pieces, RepositoryError> {
    let record = read_record(source, id)?;
    let damaged = || RepositoryError::damaged(&format!("record {}", id.short()), "not a blob");
    let length: [u8; 8] = record.body.as_slice().try_into().map_err(|_| damaged())?;
    let bytes = u64::from_le_bytes(length);
    if bytes > BLOB_BYTES_MAX || bytes.div_ceil(PIECE_BYTES as u64) != record.children.len() as u64
    {
        return Err(damaged());
    }
    Ok(Pieces { bytes, ids: record.children.iter().map(|child| child.target.chunk()).collect() })
}

/// Reads what [`write_blob`] wrote.
pub fn read_blob(source: &dyn ChunkSource, id: &ChunkId) -> Result<Vec<u8>, RepositoryError> {
    let pieces = read_pieces(source, id)?;
    let damaged = || RepositoryError::damaged(&format!("record {}", id.short()), "not a blob");
    let length = pieces.bytes as usize;
    let mut bytes = Vec::with_capacity(length);
    let known = fetch_all(source, &pieces.ids)?;
    for piece in &pieces.ids {
        bytes.extend_from_slice(known.get(piece).ok_or_else(damaged)?);
    }
    if bytes.len() == length { Ok(bytes) } else { Err(damaged()) }
}

/// Requests for the pieces of a blob on their way at once.
const LANES: usize = 4;

/// Fetches chunks side by side, each once: a program has many pieces that are alike.
fn fetch_all(
    source: &dyn ChunkSource,
    ids: &[ChunkId],
) -> Result<HashMap<ChunkId, Verified>, RepositoryError> {
    let mut seen = HashSet::new();
    let queue: VecDeque<ChunkId> = ids.iter().copied().filter(|id| seen.insert(*id)).collect();
    let (queue, fetched) = (Mutex::new(queue), Mutex::new(HashMap::new()));
    let lane = || -> Result<(), RepositoryError> {
        loop {
            let Some(id) = lock(&queue).pop_front() else { return Ok(()) };
            match source.fetch(&id, Urgency::Urgent) {
                Ok(chunks) => lock(&fetched).extend(chunks.into_iter().take(1).map(|c| (id, c))),
                Err(error) => {
                    // The others need not go on either.
                    lock(&queue).clear();
                    return Err(error.into());
                }
            }
        }
    };
    std::thread::scope(|scope| {
        let lanes: Vec<_> =
            (1..ambient::threads(LANES).min(ids.len())).map(|_| scope.spawn(lane)).collect();
        let mine = lane();
        let others = lanes.into_iter().map(|lane| lane.join().unwrap_or(Ok(())));
        others.fold(mine, Result::and)
    })?;
    Ok(fetched.into_inner().unwrap_or_else(PoisonError::into_inner))
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Each critical section is one call: a panic elsewhere leaves it whole.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

pub(crate) fn from_sink(error: chunk::SinkError) -> RepositoryError {
    use objects::ObjectError;
    let location = "the repository".to_owned();
    match error {
        chunk::SinkError::NoSpace { detail } => ObjectError::NoSpace { location, detail }.into(),
        chunk::SinkError::Denied { detail } => {
            ObjectError::Denied { location, key: "a chunk".to_owned(), detail }.into()
        }
        chunk::SinkError::Unavailable { detail } => {
            ObjectError::Unavailable { location, detail }.into()
        }
        chunk::SinkError::TooLarge { bytes } => {
            RepositoryError::Invalid { what: "a chunk", detail: format!("it has {bytes} bytes") }
        }
    }
}
