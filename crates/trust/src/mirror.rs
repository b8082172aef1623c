//! Copying what a maker signed to another place, as it is: no key is needed for that, and none helps.
//!
//! *Order.* Documents, `targets`, `snapshot`, roots, and the timestamp last. What was believed is
//! written, byte for byte, and nothing else that lies at the maker's: so a reader of the copy sees the
//! state before or this one.
//!
//! *Crash.* Before the timestamp, the state before. There is one exception, at the maker's as in the
//! copy: between a new root and the timestamp that its keys signed, a reader believes neither.

use std::collections::BTreeMap;
use std::sync::Arc;

use aws_lc_rs::digest::{SHA256, digest};
use bytes::Bytes;
use objects::{ObjectError, Objects};
use serde::de::DeserializeOwned;
use tough::schema::{Metafile, Root, Signed};

use crate::delegates;
use crate::documents::key_of;
use crate::roots::{self, fingerprint};
use crate::store::{SIGNED, SNAPSHOT_BYTES_MAX, TARGETS_BYTES_MAX, TIMESTAMP_BYTES_MAX};
use crate::verify::Trusted;
use crate::{Result, TrustError};

/// Longer documents that are there are not read again: their names are their hashes, and whoever reads
/// them looks.
const COMPARED_BYTES_MAX: u64 = 1 << 20;

/// What a copy of the signed documents took.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Mirrored {
    /// Objects that were written, and their bytes.
    pub written: u64,
    /// Their bytes.
    pub written_bytes: u64,
    /// Bytes of those that were there already.
    pub same_bytes: u64,
}

/// Fails when what is signed in `to` is another maker's, or when `to` has seen a newer root than
/// `from`: before anything is copied there.
pub fn may_mirror(from: &dyn Objects, to: &dyn Objects) -> Result<()> {
    for number in 1..=roots::ROOTS_MAX {
        let Some((there, _)) = roots::at(to, number)? else { break };
        match roots::at(from, number)? {
            Some((here, _)) if here == there => {}
            Some(_) => {
                let (location, found) = (to.location(), fingerprint(&there));
                return Err(TrustError::OtherRoot { location, found });
            }
            None if number == 1 => {
                return Err(TrustError::NotSigned { location: from.location() });
            }
            None => {
                let detail = format!("{} has root {number}", to.location());
                return Err(TrustError::Rollback { detail });
            }
        }
    }
    Ok(())
}

/// Makes what is signed in `to` what `trusted` was believed to be. All that the documents name must be
/// in `to` already. Older roots, which a new reader begins with, come from `from`.
pub fn mirror(
    from: &Arc<dyn Objects>,
    trusted: &Trusted,
    to: &Arc<dyn Objects>,
) -> Result<Mirrored> {
    may_mirror(&**from, &**to)?;
    let roots = chain(&**from, trusted)?;
    let [timestamp, snapshot, targets] = metadata(&**from, trusted)?;
    let mut copy = Copy { to, done: Mirrored::default() };
    let there: BTreeMap<String, u64> =
        to.list(&format!("{SIGNED}targets"))?.into_iter().map(|o| (o.key, o.bytes)).collect();
    for (name, target) in trusted.targets.signed.targets_iter() {
        let name = name.resolved();
        let key = key_of(name, &target.hashes.sha256);
        if target.length > COMPARED_BYTES_MAX && there.get(&key) == Some(&target.length) {
            copy.done.same_bytes += target.length;
            continue;
        }
        copy.put(&key, trusted.read(name, TARGETS_BYTES_MAX)?.into())?;
    }
    ambient::step("mirror: documents");
    for (key, bytes) in lists(&**from, trusted)? {
        copy.put(&key, bytes)?;
    }
    copy.put(&targets.0, targets.1)?;
    copy.put(&snapshot.0, snapshot.1)?;
    ambient::step("mirror: snapshot");
    for (version, bytes) in roots {
        copy.put(&format!("{SIGNED}{version}.root.json"), bytes)?;
    }
    ambient::step("mirror: roots");
    copy.put(&timestamp.0, timestamp.1)?;
    ambient::step("mirror: visible");
    Ok(copy.done)
}

struct Copy<'a> {
    to: &'a Arc<dyn Objects>,
    done: Mirrored,
}

impl Copy<'_> {
    /// Writes an object, unless it is there as it should be. Everything but the timestamp is the same
    /// for ever: what differs is damaged.
    fn put(&mut self, key: &str, bytes: Bytes) -> Result<()> {
        match self.to.get(key, TARGETS_BYTES_MAX) {
            Ok(there) if there == bytes => {
                self.done.same_bytes += bytes.len() as u64;
                return Ok(());
            }
            Ok(_) | Err(ObjectError::NotFound { .. } | ObjectError::TooLarge { .. }) => {}
            Err(error) => return Err(error.into()),
        }
        self.done.written += 1;
        self.done.written_bytes += bytes.len() as u64;
        Ok(self.to.replace(key, bytes)?)
    }
}

/// The roots up to the one that is believed, each signed as the one before it says. (A newer one came
/// after this state: another copy will bring it.)
fn chain(from: &dyn Objects, trusted: &Trusted) -> Result<Vec<(u64, Bytes)>> {
    let mut chain = Vec::new();
    let mut before: Option<Signed<Root>> = None;
    for number in 1..=trusted.root_version() {
        let follows = |root: &Signed<Root>| {
            before.as_ref().is_none_or(|before| before.signed.verify_role(root).is_ok())
        };
        let found = roots::at(from, number)?.filter(|(_, root)| follows(root));
        let is_last = number == trusted.root_version();
        let found = found.filter(|(_, root)| !is_last || *root == trusted.root);
        let (bytes, root) = found.ok_or_else(|| TrustError::Mixed {
            detail: format!("root {number} at {} is not the maker's", from.location()),
        })?;
        chain.push((number, bytes));
        before = Some(root);
    }
    Ok(chain)
}

/// Timestamp, snapshot and targets that were believed, with their keys, to the byte.
fn metadata(from: &dyn Objects, trusted: &Trusted) -> Result<[(String, Bytes); 3]> {
    let key = format!("{SIGNED}timestamp.json");
    let timestamp = match from.get(&key, TIMESTAMP_BYTES_MAX) {
        Ok(bytes) if serde_json::from_slice(&bytes).is_ok_and(|t| trusted.timestamp == t) => bytes,
        // The maker has signed again since: what was believed says the same in other bytes.
        _ => serde_json::to_vec(&trusted.timestamp)
            .map_err(|error| TrustError::Format { detail: error.to_string() })?
            .into(),
    };
    let number = trusted.snapshot.signed.version;
    let named = trusted.timestamp.signed.meta.get("snapshot.json");
    let snapshot_key = format!("{SIGNED}{number}.snapshot.json");
    let snapshot = exact(from, &snapshot_key, SNAPSHOT_BYTES_MAX, named, &trusted.snapshot)?;
    let number = trusted.targets.signed.version;
    let named = trusted.snapshot.signed.meta.get("targets.json");
    let targets_key = format!("{SIGNED}{number}.targets.json");
    // As it is written: without what others signed.
    let mut alone = trusted.targets.clone();
    alone.signed.delegations = delegates::bare_of(&trusted.targets.signed);
    let targets = exact(from, &targets_key, TARGETS_BYTES_MAX, named, &alone)?;
    Ok([(key, timestamp), (snapshot_key, snapshot), (targets_key, targets)])
}

/// The lists of those who sign a part of the names.
fn lists(from: &dyn Objects, trusted: &Trusted) -> Result<Vec<(String, Bytes)>> {
    let mut lists = Vec::new();
    for role in delegates::roles(&trusted.targets) {
        let meta = trusted.snapshot.signed.meta.get(&delegates::file_of(&role.name));
        let (Some(list), Some(meta)) = (&role.targets, meta) else { continue };
        let key = delegates::object_of(&role.name, meta);
        lists.push((key.clone(), exact(from, &key, TARGETS_BYTES_MAX, Some(meta), list)?));
    }
    Ok(lists)
}

/// An object, as it was believed, with the hash by which it is named.
fn exact<T: DeserializeOwned + PartialEq>(
    from: &dyn Objects,
    key: &str,
    bytes_max: u64,
    named: Option<&Metafile>,
    believed: &T,
) -> Result<Bytes> {
    let read = from.get(key, bytes_max);
    let bytes = read.map_err(|error| TrustError::read(error, &from.location()))?;
    let hashes = named.and_then(|named| named.hashes.as_ref());
    let is_named = hashes.is_none_or(|h| *h.sha256 == *digest(&SHA256, &bytes).as_ref());
    if is_named && serde_json::from_slice::<T>(&bytes).is_ok_and(|read| read == *believed) {
        return Ok(bytes);
    }
    let detail = format!("{key} at {} is not what it was a moment ago", from.location());
    Err(TrustError::Mixed { detail })
}
