//! Whose keys count for what.

use std::collections::{BTreeSet, HashMap};
use std::num::NonZeroU64;

use tough::schema::{RoleKeys, RoleType, Root};

use crate::clock::in_days;
use crate::key::Key;
use crate::publish::{SPEC, Validity, number};
use crate::{Result, TrustError};

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

    /// The root that says so.
    pub(crate) fn root(&self, version: u64, validity: Validity) -> Result<Root> {
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

    /// Whether a root says just this.
    pub(crate) fn are_of(&self, root: &Root) -> Result<bool> {
        let wanted = self.root(root.version.get(), Validity::default())?;
        let of = |root: &Root, role: &RoleType| {
            root.roles.get(role).map(|keys| {
                let ids: BTreeSet<Vec<u8>> = keys.keyids.iter().map(|id| id.to_vec()).collect();
                (ids, keys.threshold)
            })
        };
        let all = [RoleType::Root, RoleType::Targets, RoleType::Snapshot, RoleType::Timestamp];
        Ok(all.iter().all(|role| of(&wanted, role) == of(root, role)))
    }
}
