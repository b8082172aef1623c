//! Roots as they lie in a store. Nothing is believed by looking at them: a fingerprint is for a
//! person to compare, and a chain begins at a root that is believed already.
//!
//! *Bounds.* 256 KiB for a root, 1024 roots; none is kept but those that are asked for. What is no
//! root of its number ends the row, so a server that has an answer to everything does not.

use aws_lc_rs::digest::{SHA256, digest};
use bytes::Bytes;
use objects::{ObjectError, Objects};
use tough::schema::{Root, Signed};

use crate::key::hex;
use crate::store::{ROOT_BYTES_MAX, SIGNED};
use crate::{Result, TrustError};

/// Roots of one maker that are looked at, at most.
pub(crate) const ROOTS_MAX: u64 = 1024;

/// The fingerprints of the roots of a store, the oldest first. Nothing is believed by this: a person
/// compares the last one with what the maker says elsewhere.
pub fn fingerprints(objects: &dyn Objects) -> Result<Vec<String>> {
    let mut all = Vec::new();
    each(objects, |bytes| all.push(fingerprint(bytes)))?;
    Ok(all)
}

/// The SHA-256 of a root's file, in hexadecimal digits.
pub(crate) fn fingerprint(root: &[u8]) -> String {
    hex(digest(&SHA256, root).as_ref())
}

/// Shows the bytes of each root, the oldest first.
pub(crate) fn each(objects: &dyn Objects, mut show: impl FnMut(&Bytes)) -> Result<()> {
    for number in 1..=ROOTS_MAX {
        match at(objects, number)? {
            Some((bytes, _)) => show(&bytes),
            None if number == 1 => {
                return Err(TrustError::NotSigned { location: objects.location() });
            }
            None => break,
        }
    }
    Ok(())
}

/// The root with this number; none where there is nothing, or something else.
pub(crate) fn at(objects: &dyn Objects, number: u64) -> Result<Option<(Bytes, Signed<Root>)>> {
    let read = objects.get(&format!("{SIGNED}{number}.root.json"), ROOT_BYTES_MAX);
    let bytes = match read {
        Ok(bytes) => bytes,
        Err(ObjectError::NotFound { .. } | ObjectError::TooLarge { .. }) => return Ok(None),
        Err(error) => return Err(TrustError::read(error, &objects.location())),
    };
    let root = serde_json::from_slice(&bytes).ok();
    let root = root.filter(|root: &Signed<Root>| root.signed.version.get() == number);
    Ok(root.map(|root| (bytes, root)))
}

/// The roots that follow on one that is believed, each signed as the one before it and itself ask
/// for; the newest last.
pub(crate) fn after(objects: &dyn Objects, first: &Signed<Root>) -> Result<Vec<Signed<Root>>> {
    let mut chain: Vec<Signed<Root>> = Vec::new();
    while (chain.len() as u64) < ROOTS_MAX {
        let last = &chain.last().unwrap_or(first).signed;
        let Some((_, next)) = at(objects, last.version.get() + 1)? else { break };
        if last.verify_role(&next).is_err() || next.signed.verify_role(&next).is_err() {
            break;
        }
        chain.push(next);
    }
    Ok(chain)
}
