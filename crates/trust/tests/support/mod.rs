//! A maker that publishes, a host that believes, and what lies between them.

// Each binary of tests uses a part.
#![allow(dead_code)]

use std::collections::{BTreeMap, HashMap};
use std::num::NonZeroU64;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use aws_lc_rs::digest::{SHA256, digest};
use bytes::Bytes;
use objects::{Features, Memory, ObjectError, ObjectMeta, Objects};
use tough::editor::signed::SignedRole;
use tough::key_source::KeySource;
use tough::schema::{
    DelegatedRole, DelegatedTargets, Delegations, Hashes, KeyHolder, Metafile, PathSet, Role,
    RoleType, Root, Signed, Snapshot, Target, Targets, Timestamp,
};
use trust::key::Key;
use trust::{Change, Roles, Trusted, Validity};

/// A maker with its store, and a host that trusts it.
pub struct Story {
    pub folder: tempfile::TempDir,
    pub store: Arc<dyn Objects>,
    pub root: Key,
    pub targets: Key,
    pub online: Key,
    pub fingerprint: String,
}

pub const DOCUMENT: &str = "web.appliance.json";

impl Story {
    pub fn new() -> Self {
        Self::over(Arc::new(Memory::new()))
    }

    pub fn over(store: Arc<dyn Objects>) -> Self {
        let [root, targets, online] = [(); 3].map(|()| Key::generate().unwrap());
        let roles = roles(&root, &targets, &online);
        let keys = [root.clone(), targets.clone(), online.clone()];
        let fingerprint = trust::start(&store, &roles, &keys, Validity::default()).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let story = Self { folder, store, root, targets, online, fingerprint };
        story.publish("1");
        story
    }

    pub fn maker(&self) -> PathBuf {
        self.folder.path().join("maker")
    }

    pub fn host(&self) -> PathBuf {
        self.folder.path().join("host")
    }

    /// The maker's own view, which it publishes on.
    pub fn own(&self) -> Trusted {
        Trusted::to_publish(&self.store, &self.maker()).unwrap()
    }

    pub fn publish(&self, content: &str) {
        self.publish_for(
            content,
            &[self.targets.clone(), self.online.clone()],
            Validity::default(),
        )
        .unwrap();
    }

    pub fn publish_for(
        &self,
        content: &str,
        keys: &[Key],
        validity: Validity,
    ) -> trust::Result<()> {
        let put = Change::Put(content.as_bytes().to_vec());
        let changes = BTreeMap::from([(DOCUMENT.to_owned(), put)]);
        trust::change(&self.store, &self.own(), &changes, keys, validity)
    }

    /// The host asks, and reads.
    pub fn ask(&self) -> trust::Result<String> {
        self.ask_in(&self.host())
    }

    /// Another host does.
    pub fn ask_in(&self, host: &Path) -> trust::Result<String> {
        let trusted = if host.exists() {
            Trusted::refresh(&self.store, host)?
        } else {
            Trusted::begin(&self.store, &self.fingerprint, host)?
        };
        trusted.read(DOCUMENT, 1 << 20).map(|bytes| String::from_utf8(bytes).unwrap())
    }

    pub fn get(&self, key: &str) -> Bytes {
        self.store.get(&format!("signed/{key}"), 1 << 20).unwrap()
    }

    /// The web server says something else.
    pub fn serve(&self, key: &str, bytes: impl Into<Bytes>) {
        self.store.replace(&format!("signed/{key}"), bytes.into()).unwrap();
    }

    /// All that lies in the store.
    pub fn everything(&self) -> Vec<(String, Bytes)> {
        let all = self.store.list("").unwrap();
        all.into_iter().map(|o| (o.key.clone(), self.store.get(&o.key, 1 << 20).unwrap())).collect()
    }

    pub fn put_back(&self, everything: &[(String, Bytes)]) {
        for object in self.store.list("").unwrap() {
            self.store.delete(&object.key).unwrap();
        }
        for (key, bytes) in everything {
            self.store.replace(key, bytes.clone()).unwrap();
        }
    }
}

pub fn roles(root: &Key, targets: &Key, online: &Key) -> Roles {
    let one = |key: &Key| (vec![key.public().unwrap()], 1);
    Roles { root: one(root), targets: one(targets), online: one(online) }
}

/// Puts a document, and all that says that it is current, in the place of what is there: the list of
/// documents signed by `keys` alone, whatever the root says of them, and what is above it by the
/// maker's own online key.
pub fn forge(story: &Story, content: &str, keys: &[Key]) {
    let number = |name: &str, end: &str| name.strip_suffix(end).and_then(|n| n.parse::<u64>().ok());
    let all = story.store.list_names("signed").unwrap();
    let newest = all.iter().filter_map(|name| number(name, ".root.json")).max().unwrap();
    let root: Signed<Root> =
        serde_json::from_slice(&story.get(&format!("{newest}.root.json"))).unwrap();
    let current: Signed<Timestamp> = serde_json::from_slice(&story.get("timestamp.json")).unwrap();
    let version = NonZeroU64::new(current.signed.version.get() + 1).unwrap();
    let ends = current.signed.expires;

    // Only for the library, which would not sign otherwise: nobody is shown this root.
    let mut accomplice = root.signed.clone();
    let role = accomplice.roles.get_mut(&RoleType::Targets).unwrap();
    role.keyids.clear();
    role.threshold = NonZeroU64::new(keys.len() as u64).unwrap();
    for key in keys {
        let public = as_signed(key);
        let id = public.key_id().unwrap();
        role.keyids.push(id.clone());
        accomplice.keys.insert(id, public);
    }
    let sha256 = digest(&SHA256, content.as_bytes()).as_ref().to_vec();
    let name: String = sha256.iter().map(|byte| format!("{byte:02x}")).collect();
    story.serve(&format!("targets/{name}.{DOCUMENT}"), content.as_bytes().to_vec());
    let hashes = |sha256: Vec<u8>| Hashes { sha256: sha256.into(), _extra: HashMap::new() };
    let mut targets = Targets::new("1.0.0".to_owned(), version, ends);
    let target = Target {
        length: content.len() as u64,
        hashes: hashes(sha256),
        custom: HashMap::new(),
        _extra: HashMap::new(),
    };
    targets.targets.insert(tough::TargetName::new(DOCUMENT).unwrap(), target);
    let targets = sign(targets, &accomplice, keys);
    let online = [story.online.clone()];
    let mut snapshot = Snapshot::new("1.0.0".to_owned(), version, ends);
    snapshot.meta.insert("targets.json".to_owned(), file(&targets));
    let snapshot = sign(snapshot, &root.signed, &online);
    let mut timestamp = Timestamp::new("1.0.0".to_owned(), version, ends);
    timestamp.meta.insert("snapshot.json".to_owned(), file(&snapshot));
    let timestamp = sign(timestamp, &root.signed, &online);
    story.serve(&format!("{version}.targets.json"), targets.buffer().clone());
    story.serve(&format!("{version}.snapshot.json"), snapshot.buffer().clone());
    story.serve("timestamp.json", timestamp.buffer().clone());
}

/// Puts a delegate's list in the place of what is there, signed by `key`, and has the maker's own online
/// key say that it is current; or with a number, only the latter of the list that once had that. Gives the
/// list's number.
pub fn forge_list(
    story: &Story,
    name: &str,
    documents: &[(&str, &str)],
    key: &Key,
    number: Option<NonZeroU64>,
) -> NonZeroU64 {
    let current: Signed<Timestamp> = serde_json::from_slice(&story.get("timestamp.json")).unwrap();
    let last = current.signed.version;
    let file_name = format!("{last}.snapshot.json");
    let mut snapshot: Signed<Snapshot> = serde_json::from_slice(&story.get(&file_name)).unwrap();
    let version = NonZeroU64::new(last.get() + 1).unwrap();
    let ends = current.signed.expires;
    let mut targets = Targets::new("1.0.0".to_owned(), number.unwrap_or(version), ends);
    for (name, content) in documents {
        let sha256 = digest(&SHA256, content.as_bytes()).as_ref().to_vec();
        let hex: String = sha256.iter().map(|byte| format!("{byte:02x}")).collect();
        if !name.contains('/') {
            story.serve(&format!("targets/{hex}.{name}"), content.as_bytes().to_vec());
        }
        let target = Target {
            length: content.len() as u64,
            hashes: Hashes { sha256: sha256.into(), _extra: HashMap::new() },
            custom: HashMap::new(),
            _extra: HashMap::new(),
        };
        targets.targets.insert(tough::TargetName::new(*name).unwrap(), target);
    }
    // Only for the library, which would not sign otherwise: nobody is shown these.
    let public = as_signed(key);
    let id = public.key_id().unwrap();
    let role = DelegatedRole {
        name: name.to_owned(),
        keyids: vec![id.clone()],
        threshold: NonZeroU64::MIN,
        paths: PathSet::Paths(Vec::new()),
        terminating: false,
        targets: None,
    };
    let holder = Delegations { keys: HashMap::from([(id, public)]), roles: vec![role] };
    let list = DelegatedTargets { name: name.to_owned(), targets };
    let list = sign_by(list, KeyHolder::Delegations(holder), std::slice::from_ref(key));
    let number = list.signed().signed.targets.version;
    story.serve(&format!("{number}.{name}.json"), list.buffer().clone());
    let root = newest_root(story);
    let online = [story.online.clone()];
    snapshot.signed.version = version;
    snapshot.signed.meta.insert(format!("{name}.json"), file(&list));
    let snapshot = sign(snapshot.signed, &root, &online);
    let mut timestamp = Timestamp::new("1.0.0".to_owned(), version, ends);
    timestamp.meta.insert("snapshot.json".to_owned(), file(&snapshot));
    let timestamp = sign(timestamp, &root, &online);
    story.serve(&format!("{version}.snapshot.json"), snapshot.buffer().clone());
    story.serve("timestamp.json", timestamp.buffer().clone());
    number
}

fn newest_root(story: &Story) -> Root {
    let number = |name: &str| name.strip_suffix(".root.json").and_then(|n| n.parse::<u64>().ok());
    let all = story.store.list_names("signed").unwrap();
    let newest = all.iter().filter_map(|name| number(name)).max().unwrap();
    let root: Signed<Root> =
        serde_json::from_slice(&story.get(&format!("{newest}.root.json"))).unwrap();
    root.signed
}

/// A public key as metadata names it.
fn as_signed(key: &Key) -> tough::schema::key::Key {
    tough::schema::key::Key::Ed25519 {
        keyval: tough::schema::key::Ed25519Key {
            public: key.public().unwrap().into(),
            _extra: HashMap::new(),
        },
        scheme: tough::schema::key::Ed25519Scheme::Ed25519,
        _extra: HashMap::new(),
    }
}

fn sign<T: Role + serde::Serialize>(role: T, root: &Root, keys: &[Key]) -> SignedRole<T> {
    sign_by(role, KeyHolder::Root(root.clone()), keys)
}

fn sign_by<T: Role + serde::Serialize>(role: T, holder: KeyHolder, keys: &[Key]) -> SignedRole<T> {
    let keys: Vec<Box<dyn KeySource>> =
        keys.iter().map(|key| Box::new(key.clone()) as Box<dyn KeySource>).collect();
    let chance = aws_lc_rs::rand::SystemRandom::new();
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(SignedRole::new(role, &holder, &keys, &chance)).unwrap()
}

fn file<T: Role + serde::Serialize>(signed: &SignedRole<T>) -> Metafile {
    Metafile {
        length: Some(*signed.length()),
        hashes: Some(Hashes { sha256: signed.sha256().to_vec().into(), _extra: HashMap::new() }),
        version: signed.signed().signed.version(),
        _extra: HashMap::new(),
    }
}

/// What somebody does once, just after an object was written or just before it is read.
type Once = Box<dyn FnOnce() + Send>;

/// A store in which something else happens meanwhile.
pub struct Meanwhile {
    inner: Arc<dyn Objects>,
    key: String,
    once: Mutex<Option<Once>>,
    /// What was asked for whole, and how many bytes it was to have at most.
    pub asked: Mutex<Vec<(String, u64)>>,
}

impl Meanwhile {
    pub fn new(inner: Arc<dyn Objects>, key: &str, once: impl FnOnce() + Send + 'static) -> Self {
        let (key, once) = (key.to_owned(), Mutex::new(Some(Box::new(once) as Once)));
        Self { inner, key, once, asked: Mutex::default() }
    }

    fn now(&self, key: &str) {
        if key == self.key
            && let Some(once) = self.once.lock().unwrap().take()
        {
            once();
        }
    }
}

impl Objects for Meanwhile {
    fn get(&self, key: &str, bytes_max: u64) -> Result<Bytes, ObjectError> {
        self.now(key);
        self.asked.lock().unwrap().push((key.to_owned(), bytes_max));
        self.inner.get(key, bytes_max)
    }
    fn get_range(&self, key: &str, offset: u64, bytes: u64) -> Result<Bytes, ObjectError> {
        self.inner.get_range(key, offset, bytes)
    }
    fn put_new(&self, key: &str, bytes: Bytes) -> Result<(), ObjectError> {
        let done = self.inner.put_new(key, bytes);
        self.now(key);
        done
    }
    fn put(&self, key: &str, bytes: Bytes) -> Result<(), ObjectError> {
        self.inner.put(key, bytes)
    }
    fn list(&self, prefix: &str) -> Result<Vec<ObjectMeta>, ObjectError> {
        self.inner.list(prefix)
    }
    fn head(&self, key: &str) -> Result<ObjectMeta, ObjectError> {
        self.inner.head(key)
    }
    fn delete(&self, key: &str) -> Result<(), ObjectError> {
        self.inner.delete(key)
    }
    fn features(&self) -> Features {
        self.inner.features()
    }
    fn location(&self) -> String {
        self.inner.location()
    }
}
