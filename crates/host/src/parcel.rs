//! Parcels: what a guest leaves behind on this host when it goes on elsewhere before the repository has it.
//!
//! ```text
//! parcels/<tag>.chunks   ( id: 32  len: u32 LE  chunk: len )*    all that the checkpoint before does not have
//! parcels/<tag>.json     what it is; written last: without it the file beside it is the leavings of the dead
//! ```
//!
//! It is written before the head offers it, on the disk when the head does, and removed only when the
//! repository has what is in it: as the head's own line, or as a branch ([`crate::Host::see_to_parcels`]).
//!
//! **Invariant:** a chunk of it is what its id says, or it is not there.
//! **Invariant:** whatever ends this host's processes, or its machine, a parcel that a head has named is whole.

use std::collections::{HashMap, HashSet};
use std::fs::{self, File};
use std::io::{BufReader, BufWriter, ErrorKind, Read, Write};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, SystemTime};

use chunk::{
    CHUNK_BYTES_MAX, ChunkSink, ChunkSource, FetchError, Put, SinkError, Urgency, Verified,
};
use model::{CheckpointId, ChunkId};
use serde::{Deserialize, Serialize};

use crate::auto::line::Taken;
use crate::dir::{self, HostDir};
use crate::failure::{Failure, Result};
use crate::record::{self, Blob, Head, Parcel, Why};

const FOLDER: &str = "parcels";
const FORMAT: u32 = 1;
/// The bytes before each chunk.
const BEFORE: usize = 36;
/// Chunks without the file that says what they are belong to a process that died, when they are so old.
const LEAVINGS: Duration = Duration::from_secs(24 * 60 * 60);

/// Writes the chunks of one.
pub struct Writer {
    path: PathBuf,
    file: BufWriter<File>,
    ids: Vec<ChunkId>,
    known: HashSet<ChunkId>,
    bytes: u64,
    closed: bool,
}

/// What a parcel is, as its file says.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct About {
    format: u32,
    repository: String,
    /// The head that offered it, as it is in the repository.
    head: String,
    why: String,
    taken_unix_ms: u64,
    made_unix_ms: u64,
}

/// Where this host gives chunks to others.
#[derive(Debug, Clone)]
pub struct GivenAt {
    /// What its certificate calls it.
    pub peer: String,
    /// `ADDRESS:PORT`.
    pub address: String,
}

/// A parcel that lies here.
pub struct Lying {
    /// Where its instance's head is kept.
    pub repository: String,
    /// The head that offered it.
    pub head: Head,
    pub parcel: Parcel,
    pub taken: Taken,
    pub made_unix_ms: u64,
    file: File,
    /// Where each chunk lies, once somebody asks for one: who only looks what lies here does not read all of it.
    chunks: OnceLock<HashMap<ChunkId, (u64, u32)>>,
    path: PathBuf,
}

impl Writer {
    /// Begins one.
    pub fn create(host: &HostDir) -> Result<Self> {
        let tag = u64::from_le_bytes(ambient::random());
        let path = host.folder(FOLDER)?.join(format!("{tag:016x}.chunks"));
        let mut options = fs::OpenOptions::new();
        let file = options.write(true).create_new(true).mode(0o600).open(&path)?;
        let (file, ids, known) = (BufWriter::new(file), Vec::new(), HashSet::new());
        Ok(Self { path, file, ids, known, bytes: 0, closed: false })
    }

    /// Bytes of the chunks so far.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Closes it: gives the head that offers it, when all of it is on the disk.
    pub fn close(
        mut self,
        repository: &str,
        head: &Head,
        taken: Taken,
        by: &HostDir,
        at: &GivenAt,
    ) -> Result<Head> {
        let list: Vec<u8> = self.ids.iter().flat_map(|id| *id.as_bytes()).collect();
        let id = repository::write_blob(&mut self, &list)?;
        let blake3 = *blake3::hash(&list).as_bytes();
        let chunks = Blob { id, bytes: list.len() as u64, blake3 };
        let (host, host_name) = (by.id(), by.name().to_owned());
        let GivenAt { peer, address } = at.clone();
        let parcel = Parcel { checkpoint: taken.id, chunks, host, host_name, peer, address };
        let head = Head { parcel: Some(parcel), ..head.clone() };
        self.file.flush()?;
        self.file.get_ref().sync_all()?;
        let text = String::from_utf8(record::encode_head(&head));
        let about = About {
            format: FORMAT,
            repository: repository.to_owned(),
            head: text.map_err(|e| Failure::new("internal", e.to_string(), ""))?,
            why: taken.why.as_str().to_owned(),
            taken_unix_ms: taken.taken_unix_ms,
            made_unix_ms: ambient::unix_ms(),
        };
        dir::replace_json(&self.path.with_extension("json"), &about)?;
        self.closed = true;
        Ok(head)
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        if !self.closed {
            remove(&self.path);
        }
    }
}

impl ChunkSink for Writer {
    fn put(&mut self, id: ChunkId, bytes: &[u8]) -> Result<Put, SinkError> {
        if bytes.len() > CHUNK_BYTES_MAX {
            return Err(SinkError::TooLarge { bytes: bytes.len() });
        }
        if !self.known.insert(id) {
            return Ok(Put::Reused);
        }
        let mut write = || {
            self.file.write_all(id.as_bytes())?;
            self.file.write_all(&(bytes.len() as u32).to_le_bytes())?;
            self.file.write_all(bytes)
        };
        write().map_err(|error| {
            let detail = format!("{}: {error}", self.path.display());
            match error.kind() {
                ErrorKind::StorageFull | ErrorKind::QuotaExceeded => SinkError::NoSpace { detail },
                _ => SinkError::Unavailable { detail },
            }
        })?;
        self.ids.push(id);
        self.bytes += bytes.len() as u64;
        Ok(Put::Stored)
    }
}

/// Removes a parcel; what says that it is one goes first.
fn remove(chunks: &Path) {
    let _ = fs::remove_file(chunks.with_extension("json"));
    let _ = fs::remove_file(chunks);
}

/// Takes back the parcel of a checkpoint that was never offered, or that the repository has.
pub fn discard(host: &HostDir, checkpoint: CheckpointId) -> Result<()> {
    for lying in lie(host)?.into_iter().filter(|lying| lying.parcel.checkpoint == checkpoint) {
        lying.remove();
    }
    Ok(())
}

/// Every parcel that lies here. One that cannot be read is left where it is, and said.
pub fn lie(host: &HostDir) -> Result<Vec<Lying>> {
    let mut found = Vec::new();
    for path in files(&host.root().join(FOLDER))? {
        match Lying::open(&path) {
            Ok(lying) => found.push(lying),
            Err(failure) if path.exists() => eprintln!("{}: {failure}", path.display()),
            // It has just gone.
            Err(_) => {}
        }
    }
    Ok(found)
}

/// The files that say what a parcel is.
fn files(folder: &Path) -> Result<Vec<PathBuf>> {
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error.into()),
    };
    let mut found = Vec::new();
    for entry in entries {
        let path = entry?.path();
        let hidden = path.file_name().is_some_and(|name| name.as_encoded_bytes()[0] == b'.');
        if !hidden && path.extension().is_some_and(|extension| extension == "json") {
            found.push(path);
        }
    }
    Ok(found)
}

/// Removes what processes left that died before it was a parcel.
pub fn sweep(host: &HostDir) -> Result<()> {
    let folder = host.root().join(FOLDER);
    let Ok(entries) = fs::read_dir(&folder) else { return Ok(()) };
    for entry in entries {
        let path = entry?.path();
        let is_chunks = path.extension().is_some_and(|extension| extension == "chunks");
        let is_old = age(&path).is_some_and(|age| age > LEAVINGS);
        if is_chunks && is_old && !path.with_extension("json").exists() {
            let _ = fs::remove_file(&path);
        }
    }
    Ok(())
}

/// How long ago something was last written; none: it is not there.
fn age(path: &Path) -> Option<Duration> {
    let written = fs::metadata(path).ok()?.modified().ok()?;
    let written = written.duration_since(SystemTime::UNIX_EPOCH).ok()?;
    Some(Duration::from_millis(ambient::unix_ms()).saturating_sub(written))
}

impl Lying {
    fn open(about: &Path) -> Result<Self> {
        let damaged = |detail: &str| {
            let hint = "keep a copy of it: the work of a guest is in it that moved from here";
            Failure::new("damaged", format!("this parcel cannot be read: {detail}"), hint)
        };
        let path = about.with_extension("chunks");
        let about: About = dir::decode(about)?;
        if about.format > FORMAT {
            let hint = "it was written by a newer Collective: use that version";
            return Err(Failure::new("format", "this parcel cannot be read", hint));
        }
        let head =
            record::decode_head(about.head.as_bytes()).map_err(|e| damaged(&e.to_string()))?;
        let parcel = head.parcel.clone().ok_or_else(|| damaged("its head offers none"))?;
        let why = Why::parse(&about.why).ok_or_else(|| damaged("nobody knows why it is"))?;
        let file = File::open(&path)?;
        Ok(Self {
            repository: about.repository,
            taken: Taken { id: parcel.checkpoint, why, taken_unix_ms: about.taken_unix_ms },
            made_unix_ms: about.made_unix_ms,
            head,
            parcel,
            file,
            chunks: OnceLock::new(),
            path,
        })
    }

    /// A chunk of it.
    pub fn get(&self, id: &ChunkId) -> Option<Verified> {
        let (offset, len) = *self.chunks.get_or_init(|| index(&self.file)).get(id)?;
        if len as usize > CHUNK_BYTES_MAX {
            return None;
        }
        let mut bytes = vec![0; len as usize];
        self.file.read_exact_at(&mut bytes, offset).ok()?;
        Verified::check(*id, bytes).ok()
    }

    /// Removes it from this host.
    pub fn remove(&self) {
        remove(&self.path);
    }
}

impl Lying {
    /// Puts all of it where it lasts.
    pub fn put_into(&self, sink: &mut dyn ChunkSink) -> Result<()> {
        let list = repository::read_blob(self, &self.parcel.chunks.id)?;
        for id in ids(&list)? {
            let chunk = self.get(&id).ok_or_else(|| {
                let hint = "`collective undo NAME` goes back to its last checkpoint";
                Failure::new("damaged", format!("{} is not whole", self.path.display()), hint)
            })?;
            sink.put(id, &chunk)?;
        }
        Ok(())
    }
}

impl ChunkSource for Lying {
    fn fetch(&self, id: &ChunkId, _: Urgency) -> Result<Vec<Verified>, FetchError> {
        self.get(id).map(|chunk| vec![chunk]).ok_or(FetchError::Missing { id: *id })
    }
}

/// Where each chunk lies in a file of them, as far as that can be read. (Of a file that was cut short the last one
/// cannot, and is not there.)
fn index(file: &File) -> HashMap<ChunkId, (u64, u32)> {
    let mut reader = BufReader::new(file);
    let (mut chunks, mut at) = (HashMap::new(), 0);
    let mut before = [0; BEFORE];
    while reader.read_exact(&mut before).is_ok() {
        let (id, len) = before.split_at(32);
        let id = ChunkId::from_bytes(id.try_into().expect("32 bytes"));
        let len = u32::from_le_bytes(len.try_into().expect("4 bytes"));
        at += BEFORE as u64;
        chunks.insert(id, (at, len));
        at += u64::from(len);
        if reader.seek_relative(i64::from(len)).is_err() {
            break;
        }
    }
    chunks
}

/// The parcels of a host, for who gives their chunks away: looked for again when there are others.
pub struct Here {
    host: HostDir,
    now: Mutex<(Option<SystemTime>, Arc<Vec<Lying>>)>,
}

/// A folder that was written so lately may have been again in the same moment of its disk's clock.
const LATELY: Duration = Duration::from_secs(1);

impl Here {
    pub fn of(host: &HostDir) -> Self {
        Self { host: host.clone(), now: Mutex::default() }
    }

    /// A chunk that lies in one.
    pub fn get(&self, id: &ChunkId) -> Option<Verified> {
        self.look().iter().find_map(|lying| lying.get(id))
    }

    fn look(&self) -> Arc<Vec<Lying>> {
        let folder = self.host.root().join(FOLDER);
        let written = fs::metadata(&folder).and_then(|found| found.modified()).ok();
        let mut now = self.now.lock().unwrap_or_else(PoisonError::into_inner);
        if now.0 != written {
            let lately = age(&folder).is_some_and(|age| age < LATELY);
            let found = Arc::new(lie(&self.host).unwrap_or_default());
            *now = (written.filter(|_| !lately), found);
        }
        now.1.clone()
    }
}

/// Puts all of one that lies elsewhere where it lasts, as far as `source` has it.
pub fn fetch_into(
    parcel: &Parcel,
    source: &dyn ChunkSource,
    sink: &mut dyn ChunkSink,
) -> Result<()> {
    for id in ids(&repository::read_blob(source, &parcel.chunks.id)?)? {
        let came = source.fetch(&id, Urgency::Urgent)?;
        let chunk = came.iter().find(|chunk| chunk.id() == id);
        sink.put(id, chunk.ok_or(FetchError::Missing { id })?)?;
    }
    Ok(())
}

/// Which chunks are in one, as its list says.
pub fn ids(list: &[u8]) -> Result<Vec<ChunkId>> {
    let (ids, rest) = list.as_chunks::<32>();
    if !rest.is_empty() {
        let hint = "`collective undo NAME` goes back to its last checkpoint";
        return Err(Failure::new("damaged", "what is on its way is not listed well", hint));
    }
    Ok(ids.iter().map(|id| ChunkId::from_bytes(*id)).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A head that this host holds.
    fn head(host: &HostDir) -> Head {
        let mut head = record::tests::head();
        head.lease.as_mut().unwrap().holder = host.id();
        head
    }

    fn write(host: &HostDir, chunks: &[&[u8]]) -> Writer {
        let mut writer = Writer::create(host).unwrap();
        for bytes in chunks {
            writer.put(chunk::id_of(bytes), bytes).unwrap();
        }
        writer
    }

    fn close(host: &HostDir, writer: Writer) -> Head {
        let id = CheckpointId::from_bytes([5; 32]);
        let taken = Taken { id, why: Why::Suspend, taken_unix_ms: 9 };
        let at = GivenAt { peer: "i1.h1.x".to_owned(), address: "192.0.2.1:1".to_owned() };
        writer.close("/repository", &head(host), taken, host, &at).unwrap()
    }

    #[test]
    fn what_was_put_is_there_until_it_is_removed() {
        let folder = tempfile::tempdir().unwrap();
        let host = HostDir::open(folder.path()).unwrap();
        let here = Here::of(&host);
        let (one, two) = (vec![1; 4096], vec![2; 70_000]);
        let writer = write(&host, &[&one, &two, &one]);
        assert_eq!(writer.bytes(), 74_096, "the same is written once");
        assert!(here.get(&chunk::id_of(&one)).is_none(), "it is no parcel yet");
        let offer = close(&host, writer);
        assert!(offer.is_offered());
        assert_eq!(offer.parcel.as_ref().unwrap().host, host.id());
        assert_eq!(&*here.get(&chunk::id_of(&one)).unwrap(), &one[..]);
        assert!(here.get(&chunk::id_of(b"absent")).is_none());

        let lying = lie(&host).unwrap().pop().unwrap();
        assert_eq!((&lying.head, lying.taken.taken_unix_ms), (&offer, 9));
        let stored = chunk::Memory::new();
        lying.put_into(&mut &stored).unwrap();
        let mut wanted = vec![chunk::id_of(&one), chunk::id_of(&two)];
        wanted.sort_unstable();
        assert_eq!(stored.ids(), wanted, "all of it, and not its own list");
        let elsewhere = chunk::Memory::new();
        fetch_into(&lying.parcel, &lying, &mut &elsewhere).unwrap();
        assert_eq!(elsewhere.ids(), wanted);

        lying.remove();
        assert!(lie(&host).unwrap().is_empty());
        assert_eq!(fs::read_dir(folder.path().join(FOLDER)).unwrap().count(), 0);
    }

    #[test]
    fn what_is_damaged_or_cut_short_is_not_there() {
        let folder = tempfile::tempdir().unwrap();
        let host = HostDir::open(folder.path()).unwrap();
        let one = vec![1; 4096];
        close(&host, write(&host, &[&one]));
        let path = lie(&host).unwrap().pop().unwrap().path.clone();
        let whole = fs::read(&path).unwrap();
        let mut damaged = whole.clone();
        damaged[100] ^= 1;
        let cut = &whole[..100];
        for (bytes, what) in [(&damaged[..], "damaged"), (cut, "cut short")] {
            fs::write(&path, bytes).unwrap();
            let lying = lie(&host).unwrap().pop().unwrap();
            assert!(lying.get(&chunk::id_of(&one)).is_none(), "{what}");
            assert!(lying.put_into(&mut chunk::Memory::new()).is_err(), "{what}");
        }
        fs::write(&path, &whole).unwrap();
        let lying = lie(&host).unwrap().pop().unwrap();
        assert!(lying.get(&chunk::id_of(&one)).is_some());
    }

    #[test]
    fn one_that_is_not_closed_leaves_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let host = HostDir::open(folder.path()).unwrap();
        drop(write(&host, &[&[1; 4096]]));
        assert_eq!(fs::read_dir(folder.path().join(FOLDER)).unwrap().count(), 0);
        // Who was killed leaves its chunks, which stay as long as it may live.
        std::mem::forget(write(&host, &[&[1; 4096]]));
        assert!(lie(&host).unwrap().is_empty());
        sweep(&host).unwrap();
        assert_eq!(fs::read_dir(folder.path().join(FOLDER)).unwrap().count(), 1);
    }

    #[test]
    fn a_list_is_whole_ids() {
        assert_eq!(ids(&[7; 64]).unwrap(), [ChunkId::from_bytes([7; 32]); 2]);
        assert_eq!(ids(&[7; 63]).unwrap_err().kind, "damaged");
    }
}
