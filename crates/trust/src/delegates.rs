//! People who sign a part of a maker's names with keys of their own: TUF's delegated targets, one level
//! deep.
//!
//! ```text
//! N.targets.json   whose keys count for which part
//! N.<person>.json  the documents that this person signed
//! ```
//!
//! *Invariants.* A list with a name outside of its part is refused, and so is all that comes with it. What
//! the maker itself signed under a name comes first; parts do not overlap. The snapshot names a person's
//! list for ever, so that nobody is shown an older one, also after the person was revoked and named
//! again. A delegate delegates nothing.

use std::collections::HashMap;
use std::num::NonZeroU64;
use std::sync::Arc;

use aws_lc_rs::digest::{SHA256, digest};
use objects::Objects;
use tough::TargetName;
use tough::schema::{
    DelegatedRole, Delegations, Metafile, PathPattern, PathSet, Signed, Snapshot, Target, Targets,
};

use crate::key::Key;
use crate::publish::{After, Documents, Next, Validity};
use crate::store::{SIGNED, TARGETS_BYTES_MAX};
use crate::verify::Trusted;
use crate::{Result, TrustError};

/// Delegates of one maker, at most.
const DELEGATES_MAX: usize = 64;
/// What TUF has other files for.
const RESERVED: [&str; 4] = ["root", "timestamp", "snapshot", "targets"];

/// Somebody who signs a part of a maker's names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Delegate {
    /// As the maker calls this person.
    pub name: String,
    /// Names of appliances: `web`, or `web*` for all that begin so.
    pub part: Vec<String>,
    /// Public keys, and how many of them must sign.
    pub keys: (Vec<Vec<u8>>, u64),
}

/// The pattern of document names of a part.
fn pattern(part: &str) -> Result<String> {
    let base = part.strip_suffix('*').unwrap_or(part);
    let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
    if base.is_empty() || base.len() > 100 || !base.bytes().all(plain) {
        let detail = format!("{part:?} is no part of the names: for example web, or web*");
        return Err(TrustError::Key { detail });
    }
    Ok(if base == part { format!("{base}.*") } else { format!("{base}*") })
}

fn part(pattern: &str) -> String {
    pattern.strip_suffix(".*").unwrap_or(pattern).to_owned()
}

fn patterns(role: &DelegatedRole) -> Vec<&str> {
    match &role.paths {
        PathSet::Paths(paths) => paths.iter().map(PathPattern::value).collect(),
        PathSet::PathHashPrefixes(_) => Vec::new(),
    }
}

fn overlap(one: &str, other: &str) -> bool {
    let (one, other) = (one.trim_end_matches('*'), other.trim_end_matches('*'));
    one.starts_with(other) || other.starts_with(one)
}

/// A role without the list of its documents.
fn bare(role: &DelegatedRole) -> DelegatedRole {
    DelegatedRole {
        name: role.name.clone(),
        keyids: role.keyids.clone(),
        threshold: role.threshold,
        paths: role.paths.clone(),
        terminating: role.terminating,
        targets: None,
    }
}

/// Delegations as they are written: without the lists.
pub(crate) fn bare_of(targets: &Targets) -> Option<Delegations> {
    let delegations = targets.delegations.as_ref()?;
    let roles = delegations.roles.iter().map(bare).collect();
    Some(Delegations { keys: delegations.keys.clone(), roles })
}

/// Whether a name is in somebody's part.
pub(crate) fn covers(role: &DelegatedRole, name: &TargetName) -> bool {
    Delegations { keys: HashMap::new(), roles: vec![bare(role)] }.target_is_delegated(name)
}

pub(crate) fn roles(targets: &Signed<Targets>) -> &[DelegatedRole] {
    targets.signed.delegations.as_ref().map_or(&[], |delegations| &delegations.roles)
}

/// A name's document, and who signed it where that was a delegate.
pub(crate) fn find<'a>(
    targets: &'a Signed<Targets>,
    name: &TargetName,
) -> Option<(&'a Target, Option<&'a DelegatedRole>)> {
    if let Some(target) = targets.signed.targets.get(name) {
        return Some((target, None));
    }
    roles(targets).iter().find_map(|role| {
        let list = role.targets.as_ref()?;
        Some((list.signed.targets.get(name)?, Some(role)))
    })
}

/// The file of a delegate's list, as the snapshot names it.
pub(crate) fn file_of(name: &str) -> String {
    format!("{name}.json")
}

/// Where a delegate's list lies.
pub(crate) fn object_of(name: &str, meta: &Metafile) -> String {
    format!("{SIGNED}{}.{name}.json", meta.version)
}

/// A list's bytes from the maker, as the snapshot names them.
pub(crate) fn fetch(objects: &dyn Objects, name: &str, meta: &Metafile) -> Result<Vec<u8>> {
    let key = object_of(name, meta);
    let bytes_max = meta.length.unwrap_or(TARGETS_BYTES_MAX).min(TARGETS_BYTES_MAX);
    let read = objects.get(&key, bytes_max);
    let bytes = read.map_err(|error| TrustError::read(error, &objects.location()))?;
    let named = meta.hashes.as_ref().is_none_or(|h| *h.sha256 == *digest(&SHA256, &bytes).as_ref());
    if named {
        return Ok(bytes.to_vec());
    }
    Err(TrustError::Mixed { detail: format!("{key} is not what its snapshot names") })
}

/// Verifies the lists of all delegates, and puts each in its place. A delegate who has signed nothing yet
/// has none. (`tough` leaves out everybody's then.)
pub(crate) fn attach(
    targets: &mut Signed<Targets>,
    snapshot: &Signed<Snapshot>,
    mut read: impl FnMut(&str, &Metafile) -> Result<Vec<u8>>,
) -> Result<()> {
    let Some(delegations) = &mut targets.signed.delegations else { return Ok(()) };
    if delegations.roles.len() > DELEGATES_MAX {
        return Err(TrustError::Format { detail: "too many delegates".to_owned() });
    }
    let mut lists = Vec::new();
    for role in &delegations.roles {
        may_be_called(&role.name)
            .map_err(|_| TrustError::Format { detail: format!("a delegate {:?}", role.name) })?;
        let meta = snapshot.signed.meta.get(&file_of(&role.name));
        let list = match meta {
            None => None,
            Some(meta) => {
                let bytes = read(&role.name, meta)?;
                Some(verified(delegations, role, meta, &bytes)?)
            }
        };
        lists.push(list);
    }
    for (role, list) in delegations.roles.iter_mut().zip(lists) {
        role.targets = list;
    }
    Ok(())
}

fn verified(
    delegations: &Delegations,
    role: &DelegatedRole,
    meta: &Metafile,
    bytes: &[u8],
) -> Result<Signed<Targets>> {
    let name = &role.name;
    let list: Signed<Targets> = serde_json::from_slice(bytes)
        .map_err(|error| TrustError::Format { detail: format!("{name}: {error}") })?;
    delegations
        .verify_role(&list, name)
        .map_err(|error| TrustError::Forged { detail: format!("{name}: {error}") })?;
    if list.signed.version != meta.version {
        let detail = format!("{name}: number {}, and not {}", list.signed.version, meta.version);
        return Err(TrustError::Mixed { detail });
    }
    if !roles(&list).is_empty() {
        let detail = format!("{name} lets others sign, and may not");
        return Err(TrustError::Forged { detail });
    }
    let part = Delegations { keys: HashMap::new(), roles: vec![bare(role)] };
    let outside = list.signed.targets.keys().find(|target| !part.target_is_delegated(target));
    match outside {
        None => Ok(list),
        Some(target) => {
            let detail = format!("{name} signed {}, which is not {name}'s", target.resolved());
            Err(TrustError::Forged { detail })
        }
    }
}

fn may_be_called(name: &str) -> Result<()> {
    let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
    let letter = name.as_bytes().first().is_some_and(u8::is_ascii_lowercase);
    if letter && name.len() <= 40 && name.bytes().all(plain) && !RESERVED.contains(&name) {
        return Ok(());
    }
    let detail = format!("{name:?} is no name for who signs: small letters, digits and -");
    Err(TrustError::Key { detail })
}

/// Whether these keys are enough for a delegate.
pub(crate) fn may_sign(role: &DelegatedRole, keys: &[Key]) -> Result<bool> {
    let mut ids = std::collections::BTreeSet::new();
    for key in keys {
        let id = Key::tuf(&key.public()?).key_id();
        let id = id.map_err(|error| TrustError::Key { detail: error.to_string() })?;
        if role.keyids.contains(&id) {
            ids.insert(id.to_vec());
        }
    }
    Ok(ids.len() as u64 >= role.threshold.get())
}

impl Trusted {
    /// Who may sign which part of the names.
    pub fn delegates(&self) -> Vec<Delegate> {
        let keys = self.targets.signed.delegations.as_ref().map(|all| &all.keys);
        let of = |role: &DelegatedRole| {
            let public = role.keyids.iter().filter_map(|id| match keys?.get(id)? {
                tough::schema::key::Key::Ed25519 { keyval, .. } => Some(keyval.public.to_vec()),
                _ => None,
            });
            Delegate {
                name: role.name.clone(),
                part: patterns(role).into_iter().map(part).collect(),
                keys: (public.collect(), role.threshold.get()),
            }
        };
        roles(&self.targets).iter().map(of).collect()
    }

    /// Who signed a document, where that was a delegate.
    pub fn signed_by(&self, name: &str) -> Option<String> {
        let name = crate::publish::target_name(name).ok()?;
        find(&self.targets, &name)?.1.map(|role| role.name.clone())
    }

    /// Whose list a document is in, or is to be in when one changes it who has these keys: a delegate's,
    /// or the maker's own. And whether the keys are enough for that.
    pub fn list_for(&self, name: &str, keys: &[Key]) -> Result<(Option<String>, bool)> {
        let target = crate::publish::target_name(name)?;
        let own = self.may_sign_own(keys)?;
        let all = roles(&self.targets);
        match find(&self.targets, &target) {
            Some((_, None)) => return Ok((None, own)),
            Some((_, Some(role))) => {
                return Ok((Some(role.name.clone()), may_sign(role, keys)?));
            }
            None => {}
        }
        if !own {
            for role in all.iter().filter(|role| covers(role, &target)) {
                if may_sign(role, keys)? {
                    return Ok((Some(role.name.clone()), true));
                }
            }
        }
        Ok((None, own))
    }
}

/// Lets somebody sign a part of the names from now on. Who was named before gets these keys and this part:
/// then, and also after a revocation, they sign what they publish anew, so their keys are needed too.
pub fn delegate(
    objects: &Arc<dyn Objects>,
    trusted: &Trusted,
    delegate: &Delegate,
    keys: &[Key],
    validity: Validity,
) -> Result<()> {
    may_be_called(&delegate.name)?;
    let mut next = Next::after(objects, trusted, keys, validity);
    let mut delegations = bare_of(&trusted.targets.signed).unwrap_or_default();
    let documents = find_list(trusted, &delegate.name);
    delegations.roles.retain(|role| role.name != delegate.name);

    let mut keyids = Vec::new();
    for public in &delegate.keys.0 {
        let key = Key::tuf(public);
        let id = key.key_id().map_err(|error| TrustError::Key { detail: error.to_string() })?;
        delegations.keys.insert(id.clone(), key);
        if !keyids.contains(&id) {
            keyids.push(id);
        }
    }
    let threshold = NonZeroU64::new(delegate.keys.1).filter(|t| t.get() <= keyids.len() as u64);
    let threshold = threshold.ok_or_else(|| TrustError::Key {
        detail: format!("of {} keys, at least one and no more must sign", keyids.len()),
    })?;
    let mut paths = Vec::new();
    for part in &delegate.part {
        let pattern = pattern(part)?;
        let other = delegations
            .roles
            .iter()
            .find(|role| patterns(role).iter().any(|theirs| overlap(theirs, &pattern)));
        if let Some(other) = other {
            let detail = format!("{part} is {}'s already, or a part of it", other.name);
            return Err(TrustError::Key { detail });
        }
        let pattern = PathPattern::new(pattern);
        paths.push(pattern.map_err(|error| TrustError::Key { detail: error.to_string() })?);
    }
    let role = DelegatedRole {
        name: delegate.name.clone(),
        keyids,
        threshold,
        paths: PathSet::Paths(paths),
        terminating: false,
        targets: None,
    };
    let named = trusted.snapshot.signed.meta.contains_key(&file_of(&delegate.name));
    if may_sign(&role, keys)? {
        let stay = documents.into_iter().filter(|(name, _)| covers(&role, name)).collect();
        next.delegated.insert(delegate.name.clone(), stay);
    } else if named {
        let detail = format!(
            "{} has signed before: the keys that {0} has from now on have to sign too",
            delegate.name
        );
        return Err(TrustError::Key { detail });
    }
    delegations.roles.push(role);
    if delegations.roles.len() > DELEGATES_MAX {
        let detail = format!("more than {DELEGATES_MAX} people cannot sign");
        return Err(TrustError::Key { detail });
    }
    forget_keys(&mut delegations);
    next.documents = Some(trusted.targets.signed.targets.clone());
    next.delegations = Some(delegations);
    next.write()
}

/// Somebody signs nothing any more. What they signed is signed by the maker instead, or is offered no more.
pub fn revoke(
    objects: &Arc<dyn Objects>,
    trusted: &Trusted,
    name: &str,
    keep: bool,
    keys: &[Key],
    validity: Validity,
) -> Result<()> {
    let mut next = Next::after(objects, trusted, keys, validity);
    let mut delegations = bare_of(&trusted.targets.signed).unwrap_or_default();
    let before = delegations.roles.len();
    delegations.roles.retain(|role| role.name != name);
    if delegations.roles.len() == before {
        return Err(TrustError::Key { detail: format!("nobody called {name} may sign here") });
    }
    let mut documents = trusted.targets.signed.targets.clone();
    if keep {
        for (name, target) in find_list(trusted, name) {
            documents.entry(name).or_insert(target);
        }
    }
    forget_keys(&mut delegations);
    next.documents = Some(documents);
    next.delegations = Some(delegations);
    next.write()
}

/// What somebody has signed.
fn find_list(trusted: &Trusted, name: &str) -> Documents {
    let role = roles(&trusted.targets).iter().find(|role| role.name == name);
    let list = role.and_then(|role| role.targets.as_ref());
    list.map(|list| list.signed.targets.clone()).unwrap_or_default()
}

fn forget_keys(delegations: &mut Delegations) {
    let used: std::collections::HashSet<_> =
        delegations.roles.iter().flat_map(|role| role.keyids.iter().cloned()).collect();
    delegations.keys.retain(|id, _| used.contains(id));
}

impl<'a> Next<'a> {
    /// What follows on this, with nothing changed.
    pub(crate) fn after(
        objects: &'a Arc<dyn Objects>,
        trusted: &Trusted,
        keys: &'a [Key],
        validity: Validity,
    ) -> Self {
        Self {
            objects,
            keys,
            validity,
            root: trusted.root.signed.clone(),
            new_root: None,
            documents: None,
            delegations: bare_of(&trusted.targets.signed),
            delegated: Default::default(),
            bodies: Vec::new(),
            after: Some(After::of(trusted)),
        }
    }
}
