//! A test's hands inside a repository: heads and checkpoints that no host would write, and the very
//! bytes in which something lies.
//!
//! Everything goes through the repository's own code, so that what comes out is well-formed but for
//! the one thing that was done to it.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use chunk::{ChunkSink, ChunkSource, Urgency, id_of};
use model::{ChunkId, Generation, ManifestId};
use repository::{Open, RefPayload, Repository, Target, read_record, write_blob, write_record};
use serde_json::Value;

/// An instance's head in an opened repository (a folder that holds its key).
pub struct Surgery {
    repository: Repository,
    folder: PathBuf,
    name: String,
}

/// A head as it was found.
#[derive(Clone)]
pub struct Found {
    pub payload: RefPayload,
    /// The checkpoint that it names.
    pub checkpoint: ChunkId,
}

impl Surgery {
    pub fn on(repository: &str, name: &str) -> Self {
        let opened = Repository::open(objects::open(repository).unwrap(), Open::default()).unwrap();
        Self { repository: opened, folder: repository.into(), name: name.to_owned() }
    }

    pub fn head(&self) -> Found {
        let value = self.repository.refs().read("instance", &self.name).unwrap().expect("a head");
        let body: Value = serde_json::from_slice(&value.body).unwrap();
        let checkpoint = parse(&body["checkpoint"]);
        Found { payload: RefPayload { roots: value.roots, body: value.body }, checkpoint }
    }

    /// What the head says, as JSON.
    pub fn head_body(&self) -> Value {
        let value = self.repository.refs().read("instance", &self.name).unwrap().expect("a head");
        serde_json::from_slice(&value.body).unwrap()
    }

    /// Moves the head to what a host once wrote there.
    pub fn put_head(&self, payload: &RefPayload) {
        let refs = self.repository.refs();
        let from: Generation = refs.current("instance", &self.name).unwrap().unwrap();
        refs.advance("instance", &self.name, from, payload).unwrap();
    }

    /// The body of a checkpoint's record.
    pub fn checkpoint_body(&self, id: &ChunkId) -> Value {
        let record = read_record(&self.repository, id).unwrap();
        serde_json::from_slice(&record.body).unwrap()
    }

    /// Makes the head name a checkpoint like its own but for one change; gives the head as it was.
    pub fn change_checkpoint(&self, change: impl FnOnce(&mut Value)) -> Found {
        let found = self.head();
        let record = read_record(&self.repository, &found.checkpoint).unwrap();
        let mut body: Value = serde_json::from_slice(&record.body).unwrap();
        change(&mut body);
        // What the record names is what keeps it: the memory may be another now.
        let mut children = record.children;
        for child in &mut children {
            if child.label == "ram" {
                child.target = Target::Manifest(ManifestId::from(parse(&body["memory"]["ram"])));
            }
        }
        let mut writer = self.repository.writer().unwrap();
        let id = write_record(&mut writer, &children, body.to_string().as_bytes()).unwrap();
        writer.finish().unwrap();
        let mut head: Value = serde_json::from_slice(&found.payload.body).unwrap();
        head["checkpoint"] = id.to_string().into();
        let old = Target::Record(found.checkpoint);
        let roots = found.payload.roots.iter();
        let roots = roots.map(|root| if *root == old { Target::Record(id) } else { *root });
        let payload = RefPayload { roots: roots.collect(), body: head.to_string().into_bytes() };
        self.put_head(&payload);
        found
    }

    /// Makes an appliance's newest version one like it but for one change.
    pub fn change_appliance(&self, appliance: &str, change: impl FnOnce(&mut Value)) {
        let refs = self.repository.refs();
        let value = refs.read("appliance", appliance).unwrap().expect("an appliance");
        let record = read_record(&self.repository, &value.roots[0].chunk()).unwrap();
        let mut body: Value = serde_json::from_slice(&record.body).unwrap();
        change(&mut body);
        let mut writer = self.repository.writer().unwrap();
        let id = write_record(&mut writer, &record.children, body.to_string().as_bytes()).unwrap();
        writer.finish().unwrap();
        let payload =
            RefPayload { roots: vec![Target::Record(id)], body: id.to_string().into_bytes() };
        refs.advance("appliance", appliance, value.generation, &payload).unwrap();
    }

    /// Stores a file, as records name it.
    pub fn put_file(&self, bytes: &[u8]) -> Value {
        let mut writer = self.repository.writer().unwrap();
        let id = write_blob(&mut writer, bytes).unwrap();
        writer.finish().unwrap();
        let blake3 = id_of(bytes).to_string();
        serde_json::json!({ "id": id.to_string(), "bytes": bytes.len(), "blake3": blake3 })
    }

    /// Stores a copy of a chunk with some bytes changed; gives its id.
    pub fn changed_copy(&self, id: &ChunkId, change: impl FnOnce(&mut Vec<u8>)) -> ChunkId {
        let chunks = self.repository.fetch(id, Urgency::Urgent).unwrap();
        let mut bytes = chunks[0].bytes().to_vec();
        change(&mut bytes);
        let copy = id_of(&bytes);
        let mut writer = self.repository.writer().unwrap();
        writer.put(copy, &bytes).unwrap();
        writer.finish().unwrap();
        copy
    }

    /// Stores the manifest of an empty volume.
    pub fn empty_volume(&self, size_bytes: u64) -> ChunkId {
        let nodes = manifest::NodeCache::new(std::sync::Arc::new(self.repository.clone()), 8);
        let empty = manifest::Manifest::empty(size_bytes).unwrap();
        let mut writer = self.repository.writer().unwrap();
        let none = &mut std::iter::empty();
        let stored = empty.update(&nodes, none, None, &mut writer).unwrap();
        writer.finish().unwrap();
        stored.id().into()
    }

    /// Where a chunk lies: a byte without which it cannot be read. The repository says it itself,
    /// when all packs are away.
    pub fn locate(&self, id: &ChunkId) -> Byte {
        let (here, away) = (self.folder.join("packs"), self.folder.join("packs.away"));
        fs::rename(&here, &away).unwrap();
        let missing = self.repository.fetch(id, Urgency::Urgent);
        fs::rename(&away, &here).unwrap();
        let said = missing.expect_err("there are no packs").to_string();
        // ...: packs/ab/..., frame 13 at 2645459: ...
        let place = said.split_once("packs/").expect("it names the pack").1;
        let (pack, rest) = place.split_once(", frame ").expect("it names the frame");
        let offset = rest.split_once(" at ").unwrap().1.split_once(':').unwrap().0;
        let byte = Byte { pack: here.join(pack), offset: offset.parse::<u64>().unwrap() + 8 };
        drop(byte.flip());
        self.repository.fetch(id, Urgency::Urgent).expect("it is whole");
        byte
    }
}

/// The id in a field of JSON.
pub fn parse(field: &Value) -> ChunkId {
    field.as_str().expect("an id").parse().expect("an id")
}

/// A byte of a pack.
#[derive(Debug, Clone)]
pub struct Byte {
    pub pack: PathBuf,
    pub offset: u64,
}

/// A pack with one bit that is not what it was; put back when dropped.
pub struct Flipped(Byte);

impl Byte {
    #[must_use]
    pub fn flip(&self) -> Flipped {
        self.change();
        Flipped(self.clone())
    }

    fn change(&self) {
        let file = File::options().read(true).write(true).open(&self.pack).unwrap();
        let mut byte = [0];
        file.read_exact_at(&mut byte, self.offset).unwrap();
        file.write_all_at(&[byte[0] ^ 0x10], self.offset).unwrap();
    }
}

impl Drop for Flipped {
    fn drop(&mut self) {
        self.0.change();
    }
}

/// Every pack of a repository in a folder.
pub fn packs(repository: &Path) -> Vec<PathBuf> {
    fn walk(folder: &Path, found: &mut Vec<PathBuf>) {
        for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
            if entry.path().is_dir() {
                walk(&entry.path(), found);
            } else {
                found.push(entry.path());
            }
        }
    }
    let mut found = Vec::new();
    walk(&repository.join("packs"), &mut found);
    found.sort();
    found
}
