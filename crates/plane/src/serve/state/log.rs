//! The audit log in the state: `audit/NUMBER`, and its end in `audit-head`.
//!
//! **Invariant:** what a request changes and its entry are one commit: neither is there without the
//! other. Of several planes that write at once each goes on from the head that it has read, or reads
//! it again, so the chain stays one.

use std::sync::PoisonError;

use api::{AuditEntry, AuditHead, AuditPrint};
use kv::{Condition, Outcome, Revision, Txn};

use super::{Result, json, read};
use crate::audit;
use crate::serve::ask::Ask;
use crate::serve::{Plane, Refused};

/// How often another plane's entry may come first.
const TRIES: usize = 64;
/// Entries that one answer has at most: those whose numbers begin alike.
const PAGE: u64 = 1000;

/// Documents that are written down whole.
const SAYS_BYTES_MAX: usize = 2048;

const HEAD: &str = "audit-head";

impl Plane {
    /// Commits what a request changes, with its entry.
    pub(in crate::serve) fn commit(&self, ask: &Ask<'_>, txn: Txn) -> Result<Outcome> {
        self.append(ask, 204, &self.with_answer(ask, txn)?)
    }

    /// Writes down that a request was refused, or has changed nothing in the state.
    pub(in crate::serve) fn note(&self, ask: &Ask<'_>, status: u16) -> Result<()> {
        self.append(ask, status, &Txn::new()).map(drop)
    }

    fn append(&self, ask: &Ask<'_>, status: u16, txn: &Txn) -> Result<Outcome> {
        // Of one plane's requests each waits for the one before: none is tried in vain.
        let _turn = self.log.lock().unwrap_or_else(PoisonError::into_inner);
        let mut seen = self.audit_head()?;
        for _ in 0..TRIES {
            let (at, head) = &seen;
            let entry = entry(ask, status, head);
            let new = AuditHead { number: entry.number, hash: entry.hash.clone() };
            let txn = txn
                .clone()
                .when(HEAD, at.map_or(Condition::Absent, Condition::At))
                .put(HEAD, json(&new))
                .put(&key(entry.number), json(&entry));
            if let Outcome::Done(revision) = self.kv.commit(&txn)? {
                ask.noted.set(true);
                return Ok(Outcome::Done(revision));
            }
            let now = self.audit_head()?;
            if now.0 == seen.0 {
                return Ok(Outcome::Refused);
            }
            seen = now;
        }
        let hint = "too many planes write at once: try again";
        Err(Refused::new(503, "unavailable", "the audit log did not take it", hint))
    }

    fn audit_head(&self) -> Result<(Option<Revision>, AuditHead)> {
        match self.kv.get(HEAD)? {
            Some(entry) => Ok((Some(entry.revision), read(&entry)?)),
            None => Ok((None, audit::nothing())),
        }
    }

    /// What comes after an entry, of one project or of all.
    pub(in crate::serve) fn audit(&self, after: u64, project: Option<&str>) -> Result<AuditPrint> {
        let (_, head) = self.audit_head()?;
        let after = after.min(head.number);
        let page = (after + 1) / PAGE;
        let prefix = format!("audit/{page:017}");
        let mut entries = Vec::new();
        for found in self.kv.list(&prefix)?.entries {
            let entry: AuditEntry = read(&found)?;
            // What was written after the head was read comes with the next.
            if (after + 1..=head.number).contains(&entry.number)
                && project.is_none_or(|project| entry.project.as_deref() == Some(project))
            {
                entries.push(entry);
            }
        }
        let next = (page * PAGE + PAGE - 1).min(head.number).max(after);
        Ok(AuditPrint { entries, next, head })
    }
}

fn key(number: u64) -> String {
    format!("audit/{number:020}")
}

/// No body has a secret in it: what is shown is in a header.
fn says(body: &[u8]) -> Option<String> {
    match std::str::from_utf8(body) {
        _ if body.is_empty() => None,
        Ok(text) if text.len() <= SAYS_BYTES_MAX => Some(text.to_owned()),
        _ => Some(format!("blake3:{}", blake3::hash(body).to_hex())),
    }
}

/// Of a path, which anybody may make long.
const PATH_CHARS_MAX: usize = 256;

fn entry(ask: &Ask<'_>, status: u16, head: &AuditHead) -> AuditEntry {
    let mut entry = AuditEntry {
        number: head.number + 1,
        unix_ms: ambient::unix_ms(),
        who: ask.caller.name(),
        token: ask.caller.token().map(str::to_owned),
        what: ask.request.method.clone(),
        on: ask.request.path.chars().take(PATH_CHARS_MAX).collect(),
        says: ask.says.borrow().clone().or_else(|| says(&ask.request.body)),
        project: ask.project.borrow().clone(),
        status,
        request: ask.request.id.clone(),
        before: head.hash.clone(),
        hash: String::new(),
    };
    entry.hash = audit::hash(&entry);
    entry
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use kv::Kv;

    use super::*;
    use crate::access::Caller;
    use crate::audit::Verifier;
    use crate::serve::ask::Request;

    fn plane(folder: &std::path::Path) -> Arc<Plane> {
        let state = format!("embedded:{}", folder.join("state").display());
        Plane::open(&state, &folder.join("token"), Duration::from_secs(60)).unwrap()
    }

    fn add_user(plane: &Plane, name: &str) {
        let request = Request {
            id: name.to_owned(),
            method: "PUT".to_owned(),
            path: format!("/v1/users/{name}"),
            body: b"{}".to_vec(),
            ..Request::default()
        };
        let ask = Ask::new(&request, &Caller::Administrator, Vec::new());
        plane.put_user(&ask, &model::Name::new(name).unwrap(), &Default::default()).unwrap();
    }

    fn verify(plane: &Plane) -> String {
        let mut verifier = Verifier::new(None);
        let mut after = 0;
        loop {
            let page = plane.audit(after, None).unwrap();
            let read = page.entries.iter().try_for_each(|entry| verifier.read(entry));
            let end = if page.next == page.head.number { verifier.end(&page.head) } else { Ok(()) };
            if read.is_err() || end.is_err() || page.next == page.head.number {
                return read.and(end).err().unwrap_or_default();
            }
            after = page.next;
        }
    }

    fn changed(kv: &dyn Kv, number: u64, change: impl FnOnce(&mut AuditEntry)) {
        let found = kv.get(&key(number)).unwrap().unwrap();
        let mut entry: AuditEntry = read(&found).unwrap();
        change(&mut entry);
        kv.commit(&Txn::new().put(&found.key, json(&entry))).unwrap();
    }

    #[test]
    fn the_log_is_one_chain_whoever_writes_and_shows_what_was_done_to_it() {
        let folder = tempfile::tempdir().unwrap();
        let one = plane(folder.path());
        // A second plane on the same state, that knows nothing of the first one's turns.
        let kv = one.kv.clone();
        let secret = one.secret.clone();
        let authority = crate::identity::Authority::of(&secret).unwrap();
        let two = Plane::on(kv, secret, authority, one.lease);
        std::thread::scope(|scope| {
            for (at, plane) in [&*one, &two, &one, &two].into_iter().enumerate() {
                scope.spawn(move || (0..10).for_each(|n| add_user(plane, &format!("u{at}-{n}"))));
            }
        });
        assert_eq!((verify(&one).as_str(), one.audit(0, None).unwrap().head.number), ("", 40));
        let users = one.users().unwrap();
        let (entries, kv) = (one.audit(0, None).unwrap().entries, &*one.kv);
        for user in &users {
            let path = format!("/v1/users/{}", user.name);
            assert_eq!(entries.iter().filter(|entry| entry.on == path).count(), 1, "{path}");
        }

        changed(kv, 7, |entry| entry.who = "bert".to_owned());
        assert_eq!(verify(&one), "entry 7 is not what was written");
        changed(kv, 7, |entry| *entry = entries[6].clone());
        assert_eq!(verify(&one), "");
        kv.commit(&Txn::new().delete(&key(9))).unwrap();
        assert_eq!(verify(&one), "entry 9 is missing: 10 stands in its place");
        kv.commit(&Txn::new().put(&key(9), json(&entries[9])).put(&key(10), json(&entries[8])))
            .unwrap();
        assert_eq!(verify(&one), "entry 9 is missing: 10 stands in its place");
        kv.commit(&Txn::new().put(&key(9), json(&entries[8])).put(&key(10), json(&entries[9])))
            .unwrap();
        assert_eq!(verify(&one), "");
        kv.commit(&Txn::new().delete(&key(40)).delete(&key(39))).unwrap();
        assert_eq!(verify(&one), "entries 39 to 40 are missing at the end");
    }

    #[test]
    fn a_long_log_is_read_in_parts() {
        let folder = tempfile::tempdir().unwrap();
        let plane = plane(folder.path());
        let request = Request { method: "PUT".to_owned(), ..Request::default() };
        let ask = Ask::new(&request, &Caller::Administrator, Vec::new());
        // As if it had been going on for long.
        let head = AuditHead { number: 1997, hash: audit::NOTHING.to_owned() };
        plane.kv.commit(&Txn::new().put(HEAD, json(&head))).unwrap();
        for _ in 0..4 {
            plane.note(&ask, 403).unwrap();
        }
        let page = |after| {
            let page = plane.audit(after, None).unwrap();
            (page.entries.iter().map(|entry| entry.number).collect::<Vec<_>>(), page.next)
        };
        assert_eq!(page(0), (vec![], 999));
        assert_eq!(page(999), (vec![1998, 1999], 1999));
        assert_eq!(page(1998), (vec![1999], 1999));
        assert_eq!(page(1999), (vec![2000, 2001], 2001));
        assert_eq!((page(2001), page(u64::MAX)), ((vec![], 2001), (vec![], 2001)));
    }
}
