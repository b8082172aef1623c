//! A maker's side: documents in, signed metadata out.
//!
//! ```text
//! documents ──▶ N.targets.json ──▶ N.snapshot.json ──▶ timestamp.json
//! ```
//!
//! Each is written when what it names is durable. All but the timestamp are created and never
//! written over, so of two publishers at once one meets the other's number and is told. The
//! timestamp is what makes a change visible, in one step.
//!
//! *Crash.* Before the timestamp nothing has happened; the number of a dead publisher's snapshot
//! counts as taken until it has been silent for [`ABANDONED_MS`].

use std::collections::{BTreeMap, HashMap};
use std::num::NonZeroU64;
use std::path::Path;
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
    Hashes, KeyHolder, Metafile, Role, RoleKeys, RoleType, Root, Signed, Snapshot, Target, Targets,
    Timestamp,
};

use crate::clock::in_days;
use crate::key::{Key, hex};
use crate::store::{OBJECT_BYTES_MAX, SIGNED};
use crate::verify::Trusted;
use crate::{Result, TrustError, wait};

/// TUF's version, as `tough` has it.
const SPEC: &str = "1.0.0";
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

/// Whose keys count for what: public keys, and how many of them must sign.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Roles {
    /// Who may say who may sign.
    pub root: (Vec<Vec<u8>>, u64),
    /// Who may sign versions.
    pub targets: (Vec<Vec<u8>>, u64),
    /// Who may say what is current.
    pub online: (Vec<Vec<u8>>, u64),
}

impl Roles {
    /// One key for everything.
    pub fn single(public: Vec<u8>) -> Self {
        let one = (vec![public], 1);
        Self { root: one.clone(), targets: one.clone(), online: one }
    }

    fn root(&self, version: u64, validity: Validity) -> Result<Root> {
        let mut keys = HashMap::new();
        let mut role = |(public, threshold): &(Vec<Vec<u8>>, u64)| -> Result<RoleKeys> {
            let mut keyids = Vec::new();
            for bytes in public {
                let key = Key::tuf(bytes);
                let id =
                    key.key_id().map_err(|error| TrustError::Key { detail: error.to_string() })?;
                keys.insert(id.clone(), key);
                if !keyids.contains(&id) {
                    keyids.push(id);
                }
            }
            let threshold = NonZeroU64::new(*threshold).filter(|t| t.get() <= keyids.len() as u64);
            let threshold = threshold.ok_or_else(|| TrustError::Key {
                detail: format!("of {} keys, at least one and no more must sign", keyids.len()),
            })?;
            Ok(RoleKeys { keyids, threshold, _extra: HashMap::new() })
        };
        let online = role(&self.online)?;
        let roles = HashMap::from([
            (RoleType::Root, role(&self.root)?),
            (RoleType::Targets, role(&self.targets)?),
            (RoleType::Snapshot, online.clone()),
            (RoleType::Timestamp, online),
        ]);
        Ok(Root {
            spec_version: SPEC.to_owned(),
            consistent_snapshot: true,
            version: number(version),
            expires: in_days(validity.root),
            keys,
            roles,
            _extra: HashMap::new(),
        })
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

/// Begins: a first root, and no documents. Gives the root's fingerprint.
pub fn start(
    objects: &Arc<dyn Objects>,
    roles: &Roles,
    keys: &[Key],
    validity: Validity,
) -> Result<String> {
    let root = roles.root(1, validity)?;
    let holder = KeyHolder::Root(root.clone());
    let signed = sign(root.clone(), &holder, keys)?;
    enough(&root, &root, signed.signed())?;
    match objects.put_new(&format!("{SIGNED}1.root.json"), Bytes::from(signed.buffer().clone())) {
        Err(ObjectError::AlreadyExists { .. }) => {
            return Err(TrustError::Conflict { location: objects.location() });
        }
        other => other?,
    }
    write(objects, &root, keys, Documents::new(), 0, 0, validity)?;
    Ok(hex(digest(&SHA256, signed.buffer()).as_ref()))
}

/// Changes documents. `trusted` is the state that this follows on: it is read, verified and compared
/// by whoever publishes, as by everybody.
pub fn change(
    objects: &Arc<dyn Objects>,
    trusted: &Trusted,
    changes: &BTreeMap<String, Change>,
    keys: &[Key],
    validity: Validity,
) -> Result<()> {
    let repository = trusted.repository();
    let mut documents = repository.targets().signed.targets.clone();
    for (name, change) in changes {
        let target = target_name(name)?;
        match change {
            Change::Remove => {
                documents.remove(&target);
            }
            Change::Put(content) => {
                let sha256 = digest(&SHA256, content).as_ref().to_vec();
                let key = format!("{SIGNED}targets/{}.{name}", hex(&sha256));
                match objects.put_new(&key, Bytes::from(content.clone())) {
                    // The same bytes, by its name.
                    Ok(()) | Err(ObjectError::AlreadyExists { .. }) => {}
                    Err(error) => return Err(error.into()),
                }
                documents.insert(target, described(content.len(), sha256));
            }
        }
    }
    let root = &repository.root().signed;
    let snapshot = repository.snapshot().signed.version.get();
    let targets = repository.targets().signed.version.get();
    write(objects, root, keys, documents, targets, snapshot, validity)
}

/// Replaces the root: other keys, other thresholds. `keys` must satisfy the old root and the new.
/// Everything is signed again by the new keys. Gives the new root's fingerprint.
pub fn rotate(
    objects: &Arc<dyn Objects>,
    trusted: &Trusted,
    roles: &Roles,
    keys: &[Key],
    validity: Validity,
) -> Result<String> {
    let repository = trusted.repository();
    let old = &repository.root().signed;
    let root = roles.root(old.version.get() + 1, validity)?;
    let by_old = sign(root.clone(), &KeyHolder::Root(old.clone()), keys)?;
    let by_new = sign(root.clone(), &KeyHolder::Root(root.clone()), keys)?;
    let signed = by_new
        .add_old_signatures(by_old.signed().signatures.clone())
        .map_err(|error| TrustError::of(error, &objects.location()))?;
    enough(old, &root, signed.signed())?;
    let key = format!("{SIGNED}{}.root.json", root.version);
    match objects.put_new(&key, Bytes::from(signed.buffer().clone())) {
        Err(ObjectError::AlreadyExists { .. }) => {
            return Err(TrustError::Conflict { location: objects.location() });
        }
        other => other?,
    }
    ambient::step("rotate: root");
    let documents = repository.targets().signed.targets.clone();
    let snapshot = repository.snapshot().signed.version.get();
    let targets = repository.targets().signed.version.get();
    write(objects, &root, keys, documents, targets, snapshot, validity)?;
    Ok(hex(digest(&SHA256, signed.buffer()).as_ref()))
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

type Documents = HashMap<TargetName, Target>;

/// Signs and writes everything below the root; the timestamp last.
fn write(
    objects: &Arc<dyn Objects>,
    root: &Root,
    keys: &[Key],
    documents: Documents,
    targets_before: u64,
    snapshot_before: u64,
    validity: Validity,
) -> Result<()> {
    let holder = KeyHolder::Root(root.clone());
    let mut targets = Targets::new(
        SPEC.to_owned(),
        number(targets_before + 1),
        in_days(validity.targets.max(validity.fresh)),
    );
    targets.targets = documents;
    // Numbers of publishers that died are stepped over.
    let mut step = 0;
    let (signed_targets, snapshot) = loop {
        targets.version = number(targets_before + 1 + step);
        let version = number(snapshot_before + 1 + step);
        let signed_targets = sign(targets.clone(), &holder, keys)?;
        let mut snapshot = Snapshot::new(SPEC.to_owned(), version, in_days(validity.fresh));
        snapshot.meta.insert("targets.json".to_owned(), file(&signed_targets));
        let snapshot = sign(snapshot, &holder, keys)?;
        let key = format!("{SIGNED}{version}.snapshot.json");
        match objects.put_new(&key, Bytes::from(snapshot.buffer().clone())) {
            Ok(()) => break (signed_targets, snapshot),
            Err(ObjectError::AlreadyExists { .. }) if step < ABANDONED_MAX => {
                abandoned(objects, &key)?;
                step += 1;
            }
            Err(ObjectError::AlreadyExists { .. }) => {
                return Err(TrustError::Conflict { location: objects.location() });
            }
            Err(error) => return Err(error.into()),
        }
    };
    ambient::step("sign: snapshot");
    let key = format!("{SIGNED}{}.targets.json", signed_targets.signed().signed.version);
    // The snapshot's number is ours, so this is a dead publisher's where it is there.
    objects.replace(&key, Bytes::from(signed_targets.buffer().clone()))?;
    ambient::step("sign: targets");
    let version = snapshot.signed().signed.version;
    let mut timestamp = Timestamp::new(SPEC.to_owned(), version, in_days(validity.fresh));
    timestamp.meta.insert("snapshot.json".to_owned(), file(&snapshot));
    let timestamp = sign(timestamp, &holder, keys)?;
    let bytes = Bytes::from(timestamp.buffer().clone());
    objects.replace(&format!("{SIGNED}timestamp.json"), bytes)?;
    ambient::step("sign: visible");
    Ok(())
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

fn number(version: u64) -> NonZeroU64 {
    NonZeroU64::new(version).unwrap_or(NonZeroU64::MIN)
}

/// The newest root of a store and its bytes; what is there need not be believed.
pub(crate) fn newest_root(objects: &dyn Objects) -> Result<Vec<(u64, Bytes)>> {
    let mut roots = Vec::new();
    for version in 1..=1024 {
        match objects.get(&format!("{SIGNED}{version}.root.json"), OBJECT_BYTES_MAX) {
            Ok(bytes) => roots.push((version, bytes)),
            Err(ObjectError::NotFound { .. }) => break,
            Err(error @ ObjectError::Unavailable { .. }) => {
                let (location, detail) = (objects.location(), error.to_string());
                return Err(TrustError::Away { location, detail });
            }
            Err(error) => return Err(error.into()),
        }
    }
    if roots.is_empty() {
        return Err(TrustError::NotSigned { location: objects.location() });
    }
    Ok(roots)
}

/// Makes a folder of a host's that only its owner enters.
pub(crate) fn folder(path: &Path) -> Result<()> {
    use std::os::unix::fs::DirBuilderExt;
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
        .map_err(TrustError::io(path.display()))
}
