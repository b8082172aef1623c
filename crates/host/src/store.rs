//! The repository as a host uses it: heads, versions, checkpoints, branches, and sessions that
//! write them.
//!
//! | ref kind | name | payload | names |
//! | --- | --- | --- | --- |
//! | `appliance` | the appliance's | the version's id | the version's record |
//! | `instance` | the instance's | its head | version, checkpoint, origin, automatic checkpoints |
//! | `branch` | instance id and checkpoint | the head it left | version, checkpoint, automatic ones |
//! | `trace` | version id and how it starts | nothing | a trace, and not the version |
//!
//! *Invariant.* A head, version or branch is made visible only after the session that wrote what
//! it names has finished.

use std::sync::Arc;
use std::time::Duration;

use api::RepoInitPrint;
use chunk::ChunkSource;
use model::{CheckpointId, ChunkId, Generation, InstanceId, Name, VersionId};
use objects::{Counted, ObjectError, Objects, ProbeError};
use repository::{Init, RefError, RefPayload, RefValue, Repository, RepositoryError, Target};

use crate::dir::HostDir;
use crate::failure::{Failure, Result};
use crate::origin::Origin;
use crate::record::{self, AutoPoint, Checkpoint, Head, Version};

mod care;
mod find;
mod makers;
mod mend;
mod open;
pub mod retain;
mod session;
mod traces;

use makers::Makers;
pub use open::key_import;
use open::{keep_key, open_objects, open_stranger, open_with_keys};
pub use session::Session;
pub use traces::{VersionTrace, touched};

const APPLIANCE: &str = "appliance";
const INSTANCE: &str = "instance";
const BRANCH: &str = "branch";

/// Where a repository's key is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeyPlace {
    /// In a folder: with it. Elsewhere: on the host.
    Default,
    /// A file in the repository's folder.
    Repository,
    /// In this host's `keys/`.
    Host,
    /// There is none: the repository is public.
    None,
}

/// An open repository, with what this host knows about it.
#[derive(Clone)]
pub struct Store {
    repository: Repository,
    /// Read-only repositories that may hold what this one names: appliances too.
    sources: Vec<Repository>,
    /// Makers' repositories: their chunks, and nothing that is not signed.
    makers: Arc<Makers>,
    /// Its own store, and the sources'.
    counted: Vec<Arc<Counted<Arc<dyn Objects>>>>,
    location: String,
}

/// The newest generation of an instance's head.
pub struct Current {
    /// The newest generation, also when the instance was removed; 0 when there never was one.
    pub generation: Generation,
    /// The head, when there is an instance.
    pub head: Option<(Generation, Head)>,
}

/// What became of an advance.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Advance {
    Done(Generation),
    /// Somebody else has advanced it.
    Fenced,
}

/// A line beside an instance's own.
#[derive(Debug, Clone)]
pub struct Branch {
    name: String,
    generation: Generation,
    pub checkpoint: CheckpointId,
    /// The head that it left, with the automatic checkpoints that went with it.
    pub head: Head,
}

/// A location as it is written down: folders absolute, URLs as they are.
pub fn absolute_location(location: &str) -> Result<String> {
    if location.contains("://") {
        return Ok(location.to_owned());
    }
    let path = std::path::absolute(location)?;
    Ok(path.to_string_lossy().into_owned())
}

impl Store {
    /// Makes a repository.
    pub fn init(
        host: &HostDir,
        location: &str,
        place: KeyPlace,
        grace: Option<Duration>,
    ) -> Result<RepoInitPrint> {
        let objects = objects::create(location)?;
        let in_folder = objects.folder().is_some();
        let (key, key_place) = match place {
            KeyPlace::None => (None, repository::KeyPlace::Host),
            KeyPlace::Repository => {
                (Some(repository::new_key()), repository::KeyPlace::InRepository)
            }
            KeyPlace::Default if in_folder => {
                (Some(repository::new_key()), repository::KeyPlace::InRepository)
            }
            KeyPlace::Default | KeyPlace::Host => {
                (Some(repository::new_key()), repository::KeyPlace::Host)
            }
        };
        let init = Init {
            key: key.clone(),
            key_place,
            local_dir: Some(host.folder("index")?),
            grace_ms: grace.map_or(repository::GRACE_MS, |grace| grace.as_millis() as u64),
        };
        // Kept before the repository exists: a key must never be lost to a crash.
        let kept = match (&key, key_place) {
            (Some(key), repository::KeyPlace::Host) => Some(keep_key(host, key)?),
            _ => None,
        };
        let repository = Repository::init(objects, &init).inspect_err(|_| {
            if let Some(kept) = &kept {
                let _ = std::fs::remove_file(kept);
            }
        })?;
        Ok(RepoInitPrint {
            location: location.to_owned(),
            id: hex(&repository.id()),
            encrypted: repository.is_private(),
            key: key.map(|_| match key_place {
                repository::KeyPlace::Host => "host".to_owned(),
                repository::KeyPlace::InRepository => "repository".to_owned(),
            }),
        })
    }

    /// Opens a repository and its sources; tries every key that this host has.
    pub fn open(host: &HostDir, location: &str) -> Result<Self> {
        let mut sources = Vec::new();
        let mut counted = Vec::new();
        for source in host.sources().iter().filter(|source| *source != location) {
            let open = || {
                let objects = open_objects(host, source)?;
                let repository = open_with_keys(host, objects.clone(), Vec::new())?;
                Ok((objects, repository))
            };
            let (objects, repository) =
                open().map_err(|failure: Failure| failure.during(format!("source {source}")))?;
            counted.push(objects);
            sources.push(repository);
        }
        let objects = open_objects(host, location)?;
        let makers = Arc::new(Makers::new(host));
        for (location, mirrors) in crate::makers::locations(host) {
            makers.know_with(&location, &mirrors);
        }
        let behind = sources.iter().map(|source| Arc::new(source.clone()) as _);
        let behind = behind.chain([makers.clone() as Arc<dyn ChunkSource>]).collect();
        let repository = open_with_keys(host, objects.clone(), behind)?;
        counted.push(objects);
        Ok(Self { repository, sources, makers, counted, location: location.to_owned() })
    }

    /// Fails, and says why, when nothing can be stored here: before a verb that will want to.
    pub fn must_be_writable(&self) -> Result<()> {
        Ok(self.repository.must_be_writable()?)
    }

    /// Where it is.
    pub fn location(&self) -> &str {
        &self.location
    }

    /// Where appliances are looked for, for messages.
    pub fn places(&self) -> String {
        let sources = self.sources.iter().map(Repository::location);
        std::iter::once(self.location.clone()).chain(sources).collect::<Vec<_>>().join(" or ")
    }

    /// Bytes that were read from the store and its sources since it was opened.
    pub fn fetched_bytes(&self) -> u64 {
        let own: u64 = self.counted.iter().map(|objects| objects.counts().read_bytes).sum();
        own + self.makers.fetched_bytes()
    }

    /// Chunks may also come from a maker's repository.
    pub fn know(&self, location: &str) {
        self.makers.know(location);
    }

    /// Opens a maker's repository, so that it can be asked where its chunks lie.
    pub fn reach(&self, location: &str) -> Result<()> {
        self.makers.reach(location)
    }

    /// The repository itself, for who copies out of it.
    pub fn repository(&self) -> &Repository {
        &self.repository
    }

    /// Whether anything can be stored in it.
    pub fn is_writable(&self) -> bool {
        self.repository.is_writable()
    }

    /// Where chunks come from.
    pub fn source(&self) -> Arc<dyn ChunkSource> {
        Arc::new(self.repository.clone())
    }

    /// A session that writes while somebody waits.
    pub fn session(&self) -> Result<Session> {
        Ok(Session::packs(self.repository.writer()?, self.source()))
    }

    /// A session that writes what many will fetch.
    pub fn thorough_session(&self) -> Result<Session> {
        Ok(Session::packs(self.repository.thorough_writer()?, self.source()))
    }

    /// The head of an instance.
    pub fn head(&self, name: &Name) -> Result<Current> {
        let refs = self.repository.refs();
        // One look: with another one for the generation, a head that comes in between would be taken
        // for none, and then be written over. A removed one's generations go on counting.
        let Some(generation) = refs.current(INSTANCE, name.as_str())? else {
            return Ok(Current { generation: Generation::default(), head: None });
        };
        let head = match refs.read_at(INSTANCE, name.as_str(), generation)? {
            Some(value) => {
                let head = decode_head(name.as_str(), &value.body)?;
                // Also on a host that does not trust the maker: a chunk is what its id says.
                if let Some(follow) = &head.follow {
                    self.know(&follow.location);
                }
                Some((generation, head))
            }
            None => None,
        };
        Ok(Current { generation, head })
    }

    /// The head as one generation said.
    pub fn head_at(&self, name: &Name, generation: Generation) -> Result<Option<Head>> {
        match self.repository.refs().read_at(INSTANCE, name.as_str(), generation)? {
            Some(value) => decode_head(name.as_str(), &value.body).map(Some),
            None => Ok(None),
        }
    }

    /// Every instance's head.
    pub fn heads(&self) -> Result<Vec<(Generation, Head)>> {
        let mut heads = Vec::new();
        for entry in self.repository.refs().list(INSTANCE)? {
            heads.push((entry.value.generation, decode_head(&entry.name, &entry.value.body)?));
        }
        Ok(heads)
    }

    /// Moves a head to its next generation.
    pub fn advance(&self, from: Generation, head: &Head) -> Result<Advance> {
        if head.parcel.is_some() && head.lease.is_none() {
            let what = "a head that nobody holds may not wait for a checkpoint";
            return Err(Failure::new("internal", what, ""));
        }
        let name = head.name.as_str();
        let payload = RefPayload { roots: roots_of(head), body: record::encode_head(head) };
        self.advance_ref(INSTANCE, name, from, payload)
    }

    /// Removes an instance: its newest generation names nothing any more.
    pub fn retire(&self, from: Generation, name: &Name) -> Result<Advance> {
        match self.repository.refs().remove(INSTANCE, name.as_str(), from) {
            Ok(()) => Ok(Advance::Done(from.next())),
            Err(RefError::Fenced { .. }) => Ok(Advance::Fenced),
            Err(error) => Err(error.into()),
        }
    }

    fn advance_ref(
        &self,
        kind: &str,
        name: &str,
        from: Generation,
        payload: RefPayload,
    ) -> Result<Advance> {
        match self.repository.refs().advance(kind, name, from, &payload) {
            Ok(generation) => Ok(Advance::Done(generation)),
            Err(RefError::Fenced { .. }) => Ok(Advance::Fenced),
            Err(error) => Err(error.into()),
        }
    }

    /// The newest version of an appliance: this repository's own, else a source's.
    pub fn appliance(&self, name: &Name) -> Result<Option<VersionId>> {
        for repository in std::iter::once(&self.repository).chain(&self.sources) {
            if let Some(value) = repository.refs().read(APPLIANCE, name.as_str())? {
                return Ok(Some(first_root(&value)?.into()));
            }
        }
        Ok(None)
    }

    /// Every appliance.
    pub fn appliances(&self) -> Result<Vec<(Name, VersionId)>> {
        let mut appliances = Vec::new();
        for entry in self.repository.refs().list(APPLIANCE)? {
            let name = Name::appliance(&entry.name).map_err(|e| damaged(&entry.name, e))?;
            appliances.push((name, first_root(&entry.value)?.into()));
        }
        Ok(appliances)
    }

    /// Makes a version the newest of its appliance.
    pub fn set_appliance(&self, name: &Name, version: VersionId) -> Result<()> {
        loop {
            let refs = self.repository.refs();
            let current = refs.read(APPLIANCE, name.as_str())?;
            let generation = refs.current(APPLIANCE, name.as_str())?.unwrap_or_default();
            if let Some(value) = &current
                && first_root(value).is_ok_and(|root| VersionId::from(root) == version)
            {
                return Ok(());
            }
            let roots = vec![Target::Record(version.into())];
            let payload = RefPayload { roots, body: version.to_string().into_bytes() };
            if let Advance::Done(_) =
                self.advance_ref(APPLIANCE, name.as_str(), generation, payload)?
            {
                return Ok(());
            }
        }
    }

    /// Says what an appliance's newest version was built from.
    pub fn set_origin(&self, name: &Name, version: VersionId, origin: &Origin) -> Result<()> {
        let refs = self.repository.refs();
        let current = refs.read(APPLIANCE, name.as_str())?;
        let generation = refs.current(APPLIANCE, name.as_str())?.unwrap_or_default();
        let body = serde_json::to_vec(origin)
            .map_err(|error| Failure::new("internal", error.to_string(), ""))?;
        let is_newest = |value: &RefValue| {
            first_root(value).is_ok_and(|root| VersionId::from(root) == version)
                && value.body != body
        };
        if current.as_ref().is_some_and(is_newest) {
            let payload = RefPayload { roots: vec![Target::Record(version.into())], body };
            // Who was faster has another newest version.
            self.advance_ref(APPLIANCE, name.as_str(), generation, payload)?;
        }
        Ok(())
    }

    /// What an appliance's newest version was built from, where it was built.
    pub fn origin(&self, name: &Name, version: VersionId) -> Result<Option<Origin>> {
        let value = self.repository.refs().read(APPLIANCE, name.as_str())?;
        let origin = value.and_then(|value| serde_json::from_slice::<Origin>(&value.body).ok());
        Ok(origin.filter(|origin| origin.version == version.to_string()))
    }

    /// Reads a version.
    pub fn version(&self, id: VersionId) -> Result<Version> {
        let what = format!("version {}", id.short());
        let record = self.record(id.into(), &what)?;
        record::decode_version(&record.body).map_err(|e| record_failure(e, &what))
    }

    /// Reads a checkpoint.
    pub fn checkpoint(&self, id: CheckpointId) -> Result<Checkpoint> {
        Self::checkpoint_of(&self.repository, id)
    }

    /// Reads a checkpoint that may not be in the repository yet.
    pub fn checkpoint_of(source: &dyn ChunkSource, id: CheckpointId) -> Result<Checkpoint> {
        let what = format!("checkpoint {}", id.short());
        let record = repository::read_record(source, &id.into());
        let record = record.map_err(|e| Failure::from(e).during(&what))?;
        record::decode_checkpoint(&record.body).map_err(|e| record_failure(e, &what))
    }

    fn record(&self, id: ChunkId, what: &str) -> Result<repository::Record> {
        repository::read_record(&self.repository, &id).map_err(|e| Failure::from(e).during(what))
    }

    /// Keeps a checkpoint that is not on an instance's own line, which it left at `left`, and the
    /// automatic ones that go with it. What a branch has is never thinned out.
    pub fn add_branch(
        &self,
        head: &Head,
        checkpoint: CheckpointId,
        left: Option<CheckpointId>,
        autos: Vec<AutoPoint>,
    ) -> Result<()> {
        let name = format!("{}.{}", head.instance, checkpoint.short());
        // A host that comes back knows a head of before: what is gone since then is gone for it too.
        let now = self.head(&head.name)?.head.map(|(_, now)| now);
        let mut gone = head.gone.clone();
        if let Some(now) = now.filter(|now| now.instance == head.instance) {
            gone.extend(now.gone.iter().filter(|id| !head.gone.contains(id)));
        }
        let branch = Head {
            gone,
            checkpoint: Some(checkpoint),
            lease: None,
            state: model::InstanceState::Suspended,
            origin: None,
            auto: None,
            autos,
            holds: Vec::new(),
            left,
            trial: None,
            network: None,
            keep_taken: None,
            parcel: None,
            ..head.clone()
        };
        let payload = RefPayload { roots: roots_of(&branch), body: record::encode_head(&branch) };
        let generation = self.repository.refs().current(BRANCH, &name)?.unwrap_or_default();
        // Fenced: the same branch, by another process. It is there, which is all that is wanted.
        self.advance_ref(BRANCH, &name, generation, payload).map(drop)
    }

    /// The branches of an instance.
    pub fn branches(&self, instance: InstanceId) -> Result<Vec<Branch>> {
        let mut branches = Vec::new();
        let entries = match self.repository.refs().list(BRANCH) {
            // A static web server shows what is asked for by name: the instance's own line.
            Err(RefError::Repository(RepositoryError::Object(ObjectError::Unsupported {
                ..
            }))) => return Ok(branches),
            other => other?,
        };
        for entry in entries {
            let head = decode_head(&entry.name, &entry.value.body)?;
            if head.instance == instance
                && let Some(checkpoint) = head.checkpoint
            {
                let generation = entry.value.generation;
                branches.push(Branch { name: entry.name, generation, checkpoint, head });
            }
        }
        Ok(branches)
    }

    /// The versions that branches can be started from.
    fn branch_versions(&self) -> Result<Vec<VersionId>> {
        let branches = self.repository.refs().list(BRANCH)?;
        branches.iter().map(|e| Ok(decode_head(&e.name, &e.value.body)?.version)).collect()
    }

    /// Forgets a branch.
    pub fn retire_branch(&self, branch: &Branch) -> Result<()> {
        match self.repository.refs().remove(BRANCH, &branch.name, branch.generation) {
            Ok(()) | Err(RefError::Fenced { .. }) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Proves anew that the store creates nothing twice: opening it asks once, and stores are replaced.
    pub fn probe(&self) -> Result<()> {
        let Some(objects) = self.counted.last().filter(|_| self.is_writable()) else {
            return Ok(());
        };
        match objects::probe(&**objects) {
            Ok(()) | Err(ProbeError::Object(ObjectError::NoSpace { .. })) => Ok(()),
            Err(error) => Err(RepositoryError::Probe(error).into()),
        }
    }

    /// By how much the store's clock is ahead of this host's, milliseconds; None where nothing can be
    /// written, so that it cannot be known.
    pub fn clock_ahead_ms(&self) -> Result<Option<i64>> {
        match self.counted.last() {
            Some(objects) if self.is_writable() => Ok(objects::clock_ahead_ms(&**objects)?),
            _ => Ok(None),
        }
    }

    /// The key as text.
    pub fn key_export(&self, _host: &HostDir) -> Result<String> {
        match self.repository.key() {
            Some(key) => Ok(repository::export_key(key).to_string()),
            None => Err(Failure::new(
                "key",
                "this repository is public: it has no key",
                "`collective repo init --key host` makes a private one",
            )),
        }
    }
}

fn decode_head(name: &str, body: &[u8]) -> Result<Head> {
    record::decode_head(body).map_err(|e| record_failure(e, &format!("instance {name}")))
}

/// All that a head keeps: what it names, and its automatic checkpoints, which nothing else names.
fn roots_of(head: &Head) -> Vec<Target> {
    let autos = head.autos.iter().map(|auto| auto.id);
    let named = [head.checkpoint, head.origin].into_iter().flatten();
    let mut roots: Vec<Target> =
        named.chain(autos).map(|id| Target::Record(ChunkId::from(id))).collect();
    roots.push(Target::Record(head.version.into()));
    roots.extend(head.trial.map(|trial| Target::Record(trial.back.into())));
    roots.extend(head.gone.iter().map(|id| Target::Gone(ChunkId::from(*id))));
    roots
}

fn first_root(payload: &RefValue) -> Result<ChunkId> {
    payload.roots.first().map(Target::chunk).ok_or_else(|| damaged("ref", "it names nothing"))
}

fn damaged(what: &str, detail: impl std::fmt::Display) -> Failure {
    Failure::new(
        "damaged",
        format!("{what}: {detail}"),
        "`collective repo check` looks for what else is damaged",
    )
}

fn record_failure(error: record::RecordError, what: &str) -> Failure {
    match error {
        record::RecordError::Newer { .. } => Failure::new(
            "format",
            format!("{what}: {error}"),
            "it was written by a newer Collective: use that version",
        ),
        _ => damaged(what, error),
    }
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
