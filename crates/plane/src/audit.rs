//! The audit log: who has changed what, each entry bound to the one before. Pure.
//!
//! ```text
//! entry 1 ──hash──▶ entry 2 ──hash──▶ … ──hash──▶ entry n ◀── head: n, and its hash
//! ```
//!
//! **Invariant:** an entry that is changed, dropped, put elsewhere or put in between is found by whoever
//! reads all of it. One that is missing at the end is found by the head; who can change the head too
//! is found by a head that somebody has written down elsewhere ([`Expected`]).

use api::{AuditEntry, AuditHead};

/// What the first entry follows.
pub const NOTHING: &str = "0000000000000000000000000000000000000000000000000000000000000000";

/// The hash of an entry: of all its fields, and by `before` of all entries before it.
pub fn hash(entry: &AuditEntry) -> String {
    let mut hasher = blake3::Hasher::new_derive_key("collective audit log, version 1");
    let AuditEntry {
        number,
        unix_ms,
        who,
        token,
        what,
        on,
        says,
        project,
        status,
        request,
        before,
        hash: _,
    } = entry;
    // Each with its length: no two entries are alike as bytes.
    let numbers = [number.to_string(), unix_ms.to_string(), status.to_string()];
    let texts = [who, what, on, request, before];
    let perhaps = [token, says, project];
    for text in numbers.iter().chain(texts) {
        hasher.update(&(text.len() as u64).to_le_bytes()).update(text.as_bytes());
    }
    for text in perhaps {
        let text = text.as_ref().map_or_else(|| "-".to_owned(), |text| format!("+{text}"));
        hasher.update(&(text.len() as u64).to_le_bytes()).update(text.as_bytes());
    }
    hasher.finalize().to_hex().to_string()
}

/// The head before the first entry.
pub fn nothing() -> AuditHead {
    AuditHead { number: 0, hash: NOTHING.to_owned() }
}

/// A head that somebody has written down: `NUMBER:HASH`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Expected(pub AuditHead);

impl std::str::FromStr for Expected {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("{text:?} is no head: write NUMBER:HASH, as `audit verify` says it");
        let (number, hash) = text.split_once(':').ok_or_else(wrong)?;
        let number = number.parse().map_err(|_| wrong())?;
        let digits = hash.len() == 64 && hash.bytes().all(|byte| byte.is_ascii_hexdigit());
        digits
            .then(|| Self(AuditHead { number, hash: hash.to_ascii_lowercase() }))
            .ok_or_else(wrong)
    }
}

/// Reads entries in order, and finds what was done to them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verifier {
    reached: AuditHead,
    expected: Option<AuditHead>,
}

impl Verifier {
    /// Before the first entry. `expected` is looked for on the way.
    pub fn new(expected: Option<Expected>) -> Self {
        let expected = expected.map(|Expected(head)| head).filter(|head| *head != nothing());
        Self { reached: nothing(), expected }
    }

    /// What has been read so far.
    pub fn reached(&self) -> &AuditHead {
        &self.reached
    }

    /// The next entry; what is wrong with it.
    pub fn read(&mut self, entry: &AuditEntry) -> Result<(), String> {
        let next = self.reached.number + 1;
        if entry.number != next {
            return Err(format!("entry {next} is missing: {} stands in its place", entry.number));
        }
        if entry.before != self.reached.hash {
            return Err(format!("entry {next} does not follow the one before it"));
        }
        if entry.hash != hash(entry) {
            return Err(format!("entry {next} is not what was written"));
        }
        self.reached = AuditHead { number: next, hash: entry.hash.clone() };
        if self.expected.as_ref().is_some_and(|expected| expected.number == next) {
            if self.expected.as_ref() != Some(&self.reached) {
                return Err(format!("entry {next} is another one than was written down"));
            }
            self.expected = None;
        }
        Ok(())
    }

    /// After the last entry: whether that is where it ends.
    pub fn end(&self, head: &AuditHead) -> Result<(), String> {
        if self.reached.number < head.number {
            let missing = self.reached.number + 1;
            return Err(format!("entries {missing} to {} are missing at the end", head.number));
        }
        if self.reached != *head {
            return Err(format!("the log ends with another entry than {} as it says", head.number));
        }
        match &self.expected {
            Some(expected) => Err(format!(
                "entries {} to {} are missing at the end: the log was longer when its head was written \
                 down",
                self.reached.number + 1,
                expected.number
            )),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chain(count: u64) -> (Vec<AuditEntry>, AuditHead) {
        let mut head = nothing();
        let mut entries = Vec::new();
        for number in 1..=count {
            let mut entry = AuditEntry {
                number,
                unix_ms: 1000 + number,
                who: "anna".to_owned(),
                token: Some("ab".repeat(8)),
                what: "PUT".to_owned(),
                on: format!("/v1/instances/i{number}"),
                says: Some("{}".to_owned()),
                project: None,
                status: 204,
                request: number.to_string(),
                before: head.hash,
                hash: String::new(),
            };
            entry.hash = hash(&entry);
            head = AuditHead { number, hash: entry.hash.clone() };
            entries.push(entry);
        }
        (entries, head)
    }

    fn verify(entries: &[AuditEntry], head: &AuditHead, expected: Option<&AuditHead>) -> String {
        let mut verifier = Verifier::new(expected.cloned().map(Expected));
        let read = entries.iter().try_for_each(|entry| verifier.read(entry));
        read.and_then(|()| verifier.end(head)).err().unwrap_or_default()
    }

    #[test]
    fn what_was_done_to_a_log_is_found() {
        let (entries, head) = chain(5);
        assert_eq!(verify(&entries, &head, None), "");
        assert_eq!(verify(&[], &nothing(), None), "");
        // Each field of each entry.
        let changes: [fn(&mut AuditEntry); 10] = [
            |entry| entry.unix_ms += 1,
            |entry| entry.who = "bert".to_owned(),
            |entry| entry.token = None,
            |entry| entry.what = "DELETE".to_owned(),
            |entry| entry.on.push('x'),
            |entry| entry.project = Some(String::new()),
            |entry| entry.says = None,
            |entry| entry.status = 403,
            |entry| entry.request.clear(),
            |entry| entry.before = NOTHING.replace('0', "1"),
        ];
        for at in 0..entries.len() {
            for change in changes {
                let mut changed = entries.clone();
                change(&mut changed[at]);
                assert!(verify(&changed, &head, None).starts_with(&format!("entry {}", at + 1)));
                // Also when its own hash is made to fit: the next one does not.
                changed[at].hash = hash(&changed[at]);
                assert_ne!(verify(&changed, &head, None), "");
            }
        }
        for at in 0..entries.len() {
            let mut dropped = entries.clone();
            dropped.remove(at);
            assert!(verify(&dropped, &head, None).contains("missing"), "dropped {at}");
            let mut twice = entries.clone();
            twice.insert(at, entries[at].clone());
            assert_ne!(verify(&twice, &head, None), "", "twice {at}");
        }
        for at in 1..entries.len() {
            let mut reordered = entries.clone();
            reordered.swap(at - 1, at);
            assert_ne!(verify(&reordered, &head, None), "", "reordered {at}");
            // The numbers too.
            (reordered[at - 1].number, reordered[at].number) = (at as u64, at as u64 + 1);
            assert_ne!(verify(&reordered, &head, None), "", "reordered {at}");
        }
    }

    #[test]
    fn an_end_that_is_cut_off_is_found_by_the_head_or_by_one_written_down() {
        let (entries, head) = chain(5);
        let cut = &entries[..3];
        let there = AuditHead { number: 3, hash: entries[2].hash.clone() };
        assert!(verify(cut, &head, None).contains("4 to 5 are missing"));
        // With its head changed too it is whole by itself; not for who has written the old one down.
        assert_eq!(verify(cut, &there, None), "");
        assert!(verify(cut, &there, Some(&head)).contains("4 to 5 are missing"));
        assert_eq!(verify(&entries, &head, Some(&there)), "");
        assert_eq!(verify(&entries, &head, Some(&head)), "");
        // Another log of the same length.
        let (mut other, _) = chain(2);
        other[1].who = "bert".to_owned();
        other[1].hash = hash(&other[1]);
        let end = AuditHead { number: 2, hash: other[1].hash.clone() };
        let noted = AuditHead { number: 2, hash: entries[1].hash.clone() };
        assert_eq!(verify(&other, &end, None), "");
        assert!(verify(&other, &end, Some(&noted)).contains("another one than was written down"));
        let text = format!("{}:{}", head.number, head.hash);
        assert_eq!(text.parse(), Ok(Expected(head)));
        for wrong in ["", "5", "5:", "x:00", &text[..text.len() - 1]] {
            assert!(wrong.parse::<Expected>().is_err(), "{wrong}");
        }
    }
}
