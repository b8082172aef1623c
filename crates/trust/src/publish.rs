//! A maker's side: documents in, signed metadata out.
//!
//! ```text
//! documents ──▶ N.snapshot.json ──▶ N.targets.json ──▶ (N.root.json) ──▶ timestamp.json
//! ```
//!
//! *Invariants.* Everything is signed before anything is written: who forgot a key has changed nothing.
//! The snapshot is created and never written over, so of two publishers at once one meets the other's
//! number and is told; whatever else has that number is its owner's. The timestamp is what makes a
//! change visible, in one step, and only where it is still the one that this follows on.
//!
//! *Crash.* Before the timestamp nothing has happened; the number of a dead publisher's snapshot
//! counts as taken until it has been silent for [`ABANDONED_MS`]. But for a new root: between it and
//! the timestamp hosts refuse what is signed by the old keys. Whoever has the new keys brings it to
//! its end, by the same command or by any other that signs ([`Trusted::to_publish`]).

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::num::NonZeroU64;
use std::sync::Arc;

use aws_lc_rs::digest::{SHA256, digest};
// Asked for by the interface; a signature of Ed25519 draws nothing.
use aws_lc_rs::rand as unused_chance;
use bytes::Bytes;
use objects::{ObjectError, Objects};
use serde::Serialize;
use tough::TargetName;
use tough::editor::signed::SignedRole;
use tough::key_source::KeySource;
use tough::schema::{
    DelegatedTargets, Delegations, Hashes, KeyHolder, Metafile, Role, RoleType, Root, Signed,
    Snapshot, Target, Targets, Timestamp,
};

use crate::clock::{in_days, now};
use crate::delegates;
use crate::documents::key_of;
use crate::key::{Key, hex};
use crate::roles::Roles;
use crate::roots;
use crate::store::{SIGNED, TIMESTAMP_BYTES_MAX};
use crate::verify::Trusted;
use crate::{Result, TrustError, wait};

/// TUF's version, as `tough` has it.
pub(crate) const SPEC: &str = "1.0.0";
/// What is current: the only object that is replaced.
const TIMESTAMP: &str = "signed/timestamp.json";
/// The list of documents, as the snapshot names it.
const TARGETS: &str = "targets.json";
/// A snapshot that no timestamp has named for this long is a dead publisher's, milliseconds.
const ABANDONED_MS: u64 = 15 * 60 * 1000;
/// Dead publishers that are stepped over at once.
const ABANDONED_MAX: u64 = 64;

/// How long signatures are valid, days.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Validity {
    /// The root.
    pub root: u32,
    /// The list of documents.
    pub targets: u32,
    /// What says that there is nothing newer: after it hosts suspect that they are shown old state.
    pub fresh: u32,
}

impl Default for Validity {
    fn default() -> Self {
        Self { root: 3 * 365, targets: 365, fresh: 90 }
    }
}

/// What becomes of a document.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// It is this from now on.
    Put(Vec<u8>),
    /// It is no longer among what is signed.
    Remove,
}

/// What is to be signed.
pub(crate) struct Next<'a> {
    pub(crate) objects: &'a Arc<dyn Objects>,
    pub(crate) keys: &'a [Key],
    pub(crate) validity: Validity,
    /// Whose keys sign.
    pub(crate) root: Root,
    /// Its bytes, where it is new.
    pub(crate) new_root: Option<Bytes>,
    /// The documents that are signed; none: the list stays as it is, and is not signed again.
    pub(crate) documents: Option<Documents>,
    /// Who else may sign, as that list says.
    pub(crate) delegations: Option<Delegations>,
    /// The lists of those whose documents are signed, by name.
    pub(crate) delegated: BTreeMap<String, Documents>,
    /// Documents that are new.
    pub(crate) bodies: Vec<(String, Bytes)>,
    /// What this follows on; none: it is the first.
    pub(crate) after: Option<After>,
}

/// What somebody follows on.
pub(crate) struct After {
    /// The highest number that anything has there.
    number: u64,
    timestamp: u64,
    /// The lists of documents as the snapshot names them, also of those who sign no more.
    meta: HashMap<String, Metafile>,
}

impl After {
    pub(crate) fn of(trusted: &Trusted) -> Self {
        let timestamp = trusted.timestamp.signed.version.get();
        let snapshot = &trusted.snapshot.signed;
        let lists = snapshot.meta.values().map(|meta| meta.version.get());
        let highest = lists.fold(trusted.targets.signed.version.get(), u64::max);
        Self {
            number: timestamp.max(snapshot.version.get()).max(highest),
            timestamp,
            meta: snapshot.meta.clone(),
        }
    }
}

pub(crate) type Documents = HashMap<TargetName, Target>;

/// Whether something was signed there: until then whoever has the first root's keys may begin, or
/// go on beginning.
pub fn is_begun(objects: &dyn Objects) -> Result<bool> {
    Ok(current(objects)?.is_some())
}

/// Begins: a first root, and no documents. Gives the root's fingerprint. Where somebody was
/// interrupted who began, it goes on: with the root that is there, and its keys.
pub fn start(
    objects: &Arc<dyn Objects>,
    roles: &Roles,
    keys: &[Key],
    validity: Validity,
) -> Result<String> {
    let conflict = || TrustError::Conflict { location: objects.location() };
    if is_begun(objects)? {
        return Err(conflict());
    }
    let (root, bytes, is_new) = match roots::at(objects, 1)? {
        Some((bytes, root)) => {
            // A timestamp that was lost is no beginning: what it named would be forgotten.
            if !objects.features().list || !objects.list_names("signed/targets")?.is_empty() {
                let detail = "documents are signed there, and nothing says which are current";
                return Err(TrustError::Mixed { detail: detail.to_owned() });
            }
            enough(&root.signed, &root.signed, &root)?;
            (root.signed, bytes, false)
        }
        None => {
            let root = roles.root(1, validity)?;
            let signed = sign(root.clone(), &KeyHolder::Root(root.clone()), keys)?;
            enough(&root, &root, signed.signed())?;
            (root, Bytes::from(signed.buffer().clone()), true)
        }
    };
    let next = Next {
        objects,
        keys,
        validity,
        root,
        new_root: is_new.then(|| bytes.clone()),
        documents: Some(Documents::new()),
        delegations: None,
        delegated: BTreeMap::new(),
        bodies: Vec::new(),
        after: None,
    };
    next.write()?;
    Ok(roots::fingerprint(&bytes))
}

/// Changes documents. `trusted` is the state that this follows on: it is read, verified and compared
/// by whoever publishes, as by everybody. Each document stays in the list that it is in; a new one comes
/// into the maker's own where the keys are enough for that, else into a delegate's.
pub fn change(
    objects: &Arc<dyn Objects>,
    trusted: &Trusted,
    changes: &BTreeMap<String, Change>,
    keys: &[Key],
    validity: Validity,
) -> Result<()> {
    let mut next = Next::after(objects, trusted, keys, validity);
    for (name, change) in changes {
        let target = target_name(name)?;
        let documents = match trusted.list_for(name, keys)?.0 {
            None => next.documents.get_or_insert_with(|| trusted.targets.signed.targets.clone()),
            Some(by) => {
                let there = || {
                    let all = delegates::roles(&trusted.targets).iter();
                    let list = all.filter(|role| role.name == by).find_map(|r| r.targets.as_ref());
                    list.map(|list| list.signed.targets.clone()).unwrap_or_default()
                };
                next.delegated.entry(by.clone()).or_insert_with(there)
            }
        };
        match change {
            Change::Remove => {
                documents.remove(&target);
            }
            Change::Put(content) => {
                let sha256 = digest(&SHA256, content).as_ref().to_vec();
                next.bodies.push((key_of(name, &sha256), Bytes::from(content.clone())));
                documents.insert(target, described(content.len(), sha256));
            }
        }
    }
    next.write()
}

/// Signs again what is there, so that it stays valid: all of it with the keys of those who sign
/// versions, and without them only what says that it is current. A delegate's keys sign that one's list
/// again. Gives whether the maker's own list was signed.
pub fn sign_again(
    objects: &Arc<dyn Objects>,
    trusted: &Trusted,
    keys: &[Key],
    validity: Validity,
) -> Result<bool> {
    let root = trusted.root.signed.clone();
    // After a rotation that was interrupted, the list has to be signed by its new keys.
    let all =
        may_sign(&root, RoleType::Targets, keys)? || root.verify_role(&trusted.targets).is_err();
    let ended = trusted.targets.signed.expires;
    if !all && ended <= now() {
        let (role, expired) = (RoleType::Targets.to_string(), ended.to_string());
        return Err(TrustError::Expired { role, expired });
    }
    let mut next = Next::after(objects, trusted, keys, validity);
    next.documents = all.then(|| trusted.targets.signed.targets.clone());
    for role in delegates::roles(&trusted.targets) {
        if let Some(list) = &role.targets
            && delegates::may_sign(role, keys)?
        {
            next.delegated.insert(role.name.clone(), list.signed.targets.clone());
        }
    }
    next.write()?;
    Ok(all)
}

/// Replaces the root: other keys, other thresholds. `keys` must satisfy the old root and the new.
/// Everything is signed again by the new keys. Gives the new root's fingerprint. Where the same was
/// begun and interrupted, it is brought to its end.
pub fn rotate(
    objects: &Arc<dyn Objects>,
    trusted: &Trusted,
    roles: &Roles,
    keys: &[Key],
    validity: Validity,
) -> Result<String> {
    let old = &trusted.root.signed;
    let there = if trusted.is_unfinished() && roles.are_of(old)? {
        roots::at(objects, old.version.get())?
    } else {
        None
    };
    let (root, bytes, is_new) = match there {
        Some((bytes, root)) => (root.signed, bytes, false),
        None => {
            let root = roles.root(old.version.get() + 1, validity)?;
            let by_old = sign(root.clone(), &KeyHolder::Root(old.clone()), keys)?;
            let by_new = sign(root.clone(), &KeyHolder::Root(root.clone()), keys)?;
            let signed = by_new
                .add_old_signatures(by_old.signed().signatures.clone())
                .map_err(|error| TrustError::of(error, &objects.location()))?;
            enough(old, &root, signed.signed())?;
            (root, Bytes::from(signed.buffer().clone()), true)
        }
    };
    let next = Next {
        root,
        new_root: is_new.then(|| bytes.clone()),
        documents: Some(trusted.targets.signed.targets.clone()),
        ..Next::after(objects, trusted, keys, validity)
    };
    next.write()?;
    Ok(roots::fingerprint(&bytes))
}

/// Whether a new root has the signatures that the old and the new one ask for.
fn enough(old: &Root, new: &Root, signed: &Signed<Root>) -> Result<()> {
    for root in [old, new] {
        root.verify_role(signed).map_err(|_| TrustError::Key {
            detail: format!(
                "these keys are not enough to sign root {}: {} of the keys of root {} are needed",
                new.version,
                root.roles.get(&RoleType::Root).map_or(0, |role| role.threshold.get()),
                root.version,
            ),
        })?;
    }
    Ok(())
}

/// Whether these keys are enough for a role.
pub(crate) fn may_sign(root: &Root, role: RoleType, keys: &[Key]) -> Result<bool> {
    let Some(wanted) = root.roles.get(&role) else { return Ok(false) };
    let mut ids = BTreeSet::new();
    for key in keys {
        let id = Key::tuf(&key.public()?).key_id();
        let id = id.map_err(|error| TrustError::Key { detail: error.to_string() })?;
        if wanted.keyids.contains(&id) {
            ids.insert(id.to_vec());
        }
    }
    Ok(ids.len() as u64 >= wanted.threshold.get())
}

/// All that is signed at once.
struct Below {
    targets: Option<SignedRole<Targets>>,
    delegated: Vec<(String, SignedRole<DelegatedTargets>)>,
    snapshot: SignedRole<Snapshot>,
    timestamp: SignedRole<Timestamp>,
}

impl Next<'_> {
    /// Signs everything, and only then writes: the timestamp last.
    pub(crate) fn write(&self) -> Result<()> {
        if self.root.expires <= now() {
            let (role, expired) = (RoleType::Root.to_string(), self.root.expires.to_string());
            return Err(TrustError::Expired { role, expired });
        }
        let conflict = || TrustError::Conflict { location: self.objects.location() };
        let first = self.after.as_ref().map_or(1, |after| after.number + 1);
        let mut below = self.sign(first)?;
        for (key, bytes) in &self.bodies {
            // The same bytes, by its name.
            put_new(self.objects, key, bytes.clone())?;
        }
        // Numbers of publishers that died are stepped over.
        let mut version = first;
        loop {
            let key = format!("{SIGNED}{version}.snapshot.json");
            if put_new(self.objects, &key, buffer(&below.snapshot))? {
                break;
            }
            if version - first >= ABANDONED_MAX {
                return Err(conflict());
            }
            abandoned(self.objects, &key)?;
            version += 1;
            below = self.sign(version)?;
        }
        ambient::step("sign: snapshot");
        if let Some(targets) = &below.targets {
            // The snapshot's number is ours, so this is a dead publisher's where it is there.
            let key = format!("{SIGNED}{version}.{TARGETS}");
            self.objects.replace(&key, buffer(targets))?;
        }
        for (name, list) in &below.delegated {
            self.objects.replace(&format!("{SIGNED}{version}.{name}.json"), buffer(list))?;
        }
        ambient::step("sign: targets");
        self.unmoved()?;
        if let Some(root) = &self.new_root {
            // From here on hosts ask for the new keys: one step is left.
            let key = format!("{SIGNED}{}.root.json", self.root.version);
            if !put_new(self.objects, &key, root.clone())? {
                return Err(conflict());
            }
            ambient::step("rotate: root");
            self.unmoved()?;
        }
        self.objects.replace(TIMESTAMP, buffer(&below.timestamp))?;
        ambient::step("sign: visible");
        Ok(())
    }

    /// Everything below the root, with this number.
    fn sign(&self, version: u64) -> Result<Below> {
        let holder = KeyHolder::Root(self.root.clone());
        let fresh = in_days(self.validity.fresh);
        let days = self.validity.targets.max(self.validity.fresh);
        let list = |documents: &Documents| {
            let mut targets = Targets::new(SPEC.to_owned(), number(version), in_days(days));
            targets.targets.clone_from(documents);
            targets
        };
        let targets = match &self.documents {
            Some(documents) => {
                let mut targets = list(documents);
                if let Some(delegations) = &self.delegations {
                    targets.delegations = Some(delegations.clone());
                }
                Some(sign(targets, &holder, self.keys)?)
            }
            None => None,
        };
        let mut delegated = Vec::new();
        for (name, documents) in &self.delegated {
            let holder = KeyHolder::Delegations(self.delegations.clone().unwrap_or_default());
            let targets = DelegatedTargets { name: name.clone(), targets: list(documents) };
            let signed = sign(targets, &holder, self.keys).map_err(|error| match error {
                TrustError::Key { .. } => TrustError::Key {
                    detail: format!("these keys are not enough to sign as {name}"),
                },
                error => error,
            });
            delegated.push((name.clone(), signed?));
        }
        let mut snapshot = Snapshot::new(SPEC.to_owned(), number(version), fresh);
        snapshot.meta = self.after.as_ref().map(|after| after.meta.clone()).unwrap_or_default();
        if let Some(targets) = &targets {
            snapshot.meta.insert(TARGETS.to_owned(), file(targets));
        }
        for (name, list) in &delegated {
            snapshot.meta.insert(delegates::file_of(name), file(list));
        }
        if !snapshot.meta.contains_key(TARGETS) {
            let detail = "the snapshot names no list of documents".to_owned();
            return Err(TrustError::Format { detail });
        }
        let snapshot = sign(snapshot, &holder, self.keys)?;
        let mut timestamp = Timestamp::new(SPEC.to_owned(), number(version), fresh);
        timestamp.meta.insert("snapshot.json".to_owned(), file(&snapshot));
        let timestamp = sign(timestamp, &holder, self.keys)?;
        Ok(Below { targets, delegated, snapshot, timestamp })
    }

    /// Fails when another publisher was quicker: a timestamp is written over, and never a newer one.
    fn unmoved(&self) -> Result<()> {
        let expected = self.after.as_ref().map(|after| after.timestamp);
        if current(self.objects)? == expected {
            return Ok(());
        }
        Err(TrustError::Conflict { location: self.objects.location() })
    }
}

/// The number of the timestamp that is there; 0 for what is none.
fn current(objects: &dyn Objects) -> Result<Option<u64>> {
    match objects.get(TIMESTAMP, TIMESTAMP_BYTES_MAX) {
        Ok(bytes) => {
            let there = serde_json::from_slice::<Signed<Timestamp>>(&bytes);
            Ok(Some(there.map_or(0, |there| there.signed.version.get())))
        }
        Err(ObjectError::NotFound { .. }) => Ok(None),
        Err(error) => Err(TrustError::read(error, &objects.location())),
    }
}

/// Whether it was created: false when the key is taken.
fn put_new(objects: &dyn Objects, key: &str, bytes: Bytes) -> Result<bool> {
    match objects.put_new(key, bytes) {
        Ok(()) => Ok(true),
        Err(ObjectError::AlreadyExists { .. }) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

fn buffer<T: Role + Serialize>(signed: &SignedRole<T>) -> Bytes {
    Bytes::from(signed.buffer().clone())
}

/// Fails while whoever took this number may still live, by the store's clock.
fn abandoned(objects: &Arc<dyn Objects>, key: &str) -> Result<()> {
    let conflict = || TrustError::Conflict { location: objects.location() };
    let written = objects.head(key)?.modified_unix_ms;
    let probe = format!("probe/{}", hex(&ambient::random::<16>()));
    objects.put_new(&probe, Bytes::from_static(b"now"))?;
    let now = objects.head(&probe)?.modified_unix_ms;
    objects.delete(&probe)?;
    if now.saturating_sub(written) >= ABANDONED_MS { Ok(()) } else { Err(conflict()) }
}

fn sign<T: Role + Serialize>(role: T, holder: &KeyHolder, keys: &[Key]) -> Result<SignedRole<T>> {
    let keys: Vec<Box<dyn KeySource>> =
        keys.iter().map(|key| Box::new(key.clone()) as Box<dyn KeySource>).collect();
    let rng = unused_chance::SystemRandom::new();
    wait(SignedRole::new(role, holder, &keys, &rng))?.map_err(|error| match error {
        tough::error::Error::SigningKeysNotFound { role } => {
            TrustError::Key { detail: format!("these keys are not enough to sign as {role}") }
        }
        tough::error::Error::KeysNotFoundInRoot { .. } => {
            TrustError::Key { detail: "none of these keys is one of the maker's".to_owned() }
        }
        error => TrustError::of(error, "a key"),
    })
}

/// A role as the one above names it.
fn file<T: Role + Serialize>(signed: &SignedRole<T>) -> Metafile {
    Metafile {
        length: Some(*signed.length()),
        hashes: Some(hashes(signed.sha256().to_vec())),
        version: signed.signed().signed.version(),
        _extra: HashMap::new(),
    }
}

fn described(bytes: usize, sha256: Vec<u8>) -> Target {
    Target {
        length: bytes as u64,
        hashes: hashes(sha256),
        custom: HashMap::new(),
        _extra: HashMap::new(),
    }
}

fn hashes(sha256: Vec<u8>) -> Hashes {
    Hashes { sha256: sha256.into(), _extra: HashMap::new() }
}

/// Document names are object keys in one piece.
pub(crate) fn target_name(name: &str) -> Result<TargetName> {
    let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b"-_.".contains(&b);
    let invalid = || TrustError::NoDocument { name: name.to_owned() };
    if name.is_empty() || name.len() > 200 || name.starts_with('.') || !name.bytes().all(plain) {
        return Err(invalid());
    }
    TargetName::new(name).map_err(|_| invalid())
}

pub(crate) fn number(version: u64) -> NonZeroU64 {
    NonZeroU64::new(version).unwrap_or(NonZeroU64::MIN)
}
