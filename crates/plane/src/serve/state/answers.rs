//! Requests that are sent twice: by `Idempotency-Key` the second has the answer of the first.
//!
//! **Invariant:** what a request with a key changes and its answer are one commit: it is done once,
//! however often, to whichever plane, and at whatever moment it is sent.
//! **Invariant:** what was refused has no answer kept: nothing was done, and it may be tried again.

use kv::{Condition, Entry, Txn};
use serde::{Deserialize, Serialize};

use super::{Result, json, read};
use crate::serve::ask::Ask;
use crate::serve::routes::Reply;
use crate::serve::{Plane, Refused};

/// `answers/HASH`, of the caller and the key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct AnswerRecord {
    /// Of the request: another one with this key is another one.
    request: String,
    unix_ms: u64,
    status: u16,
    /// What was answered, but for a token's secret.
    body: Option<String>,
    /// The id of the operation that it has begun.
    #[serde(default)]
    operation: Option<String>,
}

/// How long an answer is kept.
const KEPT_MS: u64 = 24 * 3600 * 1000;
const KEY_BYTES_MAX: usize = 255;

/// Where the answer to a request is kept, if it has a key.
fn place(ask: &Ask<'_>) -> Result<Option<String>> {
    let Some(key) = ask.header("idempotency-key") else { return Ok(None) };
    if key.is_empty() || key.len() > KEY_BYTES_MAX {
        return Err(Refused::wrong(format!("an Idempotency-Key of {} bytes", key.len())));
    }
    Ok(Some(format!("answers/{}", hash(&[ask.caller.name().as_bytes(), key.as_bytes()]))))
}

fn request(ask: &Ask<'_>) -> String {
    let request = ask.request;
    let conditions = ["if-match", "if-none-match"].map(|name| ask.header(name).unwrap_or_default());
    let conditions = conditions.map(str::as_bytes);
    let (path, query) = (request.path.as_bytes(), request.query.as_bytes());
    hash(&[request.method.as_bytes(), path, query, conditions[0], conditions[1], &request.body])
}

fn hash(parts: &[&[u8]]) -> String {
    let mut hasher = blake3::Hasher::new_derive_key("collective plane answers, version 1");
    for part in parts {
        hasher.update(&(part.len() as u64).to_le_bytes()).update(part);
    }
    hasher.finalize().to_hex().to_string()
}

impl Plane {
    /// The answer that this request has had already.
    pub(in crate::serve) fn answered(&self, ask: &Ask<'_>) -> Result<Option<Reply>> {
        let Some(place) = place(ask)? else { return Ok(None) };
        let Some(entry) = self.kv.get(&place)? else { return Ok(None) };
        let record: AnswerRecord = read(&entry)?;
        if self.has_ended(&entry, &record)? {
            return Ok(None);
        }
        if record.request != request(ask) {
            let hint = "a key is for one request: choose another one";
            let detail = "another request had this Idempotency-Key";
            return Err(Refused::new(422, "usage", detail, hint));
        }
        let kind = if record.body.is_some() { "application/json" } else { "" };
        let body = record.body.unwrap_or_default().into_bytes();
        // It was written by the commit that is answered for.
        let etag = (record.status == 204).then_some(entry.revision);
        let (status, operation) = (record.status, record.operation);
        let (planes, stream) = Default::default();
        Ok(Some(Reply { status, kind, etag, operation, known: true, planes, body, stream }))
    }

    /// Also keeps the answer.
    pub(super) fn with_answer(&self, ask: &Ask<'_>, txn: Txn) -> Result<Txn> {
        let Some(place) = place(ask)? else { return Ok(txn) };
        let body = ask.answer.borrow().clone();
        let status = if body.is_some() { 200 } else { 204 };
        let unix_ms = ambient::unix_ms();
        let operation = ask.operation.borrow().clone();
        let record = AnswerRecord { request: request(ask), unix_ms, status, body, operation };
        Ok(txn.when(&place, Condition::Absent).put(&place, json(&record)))
    }

    fn has_ended(&self, entry: &Entry, record: &AnswerRecord) -> Result<bool> {
        let ended = record.unix_ms.saturating_add(KEPT_MS) < ambient::unix_ms();
        if ended {
            self.kv.commit(&Txn::remove(&entry.key, entry.revision))?;
        }
        Ok(ended)
    }

    /// Removes those that have been kept for long enough.
    pub(in crate::serve) fn sweep_answers(&self) -> Result<()> {
        for entry in self.kv.list("answers/")?.entries {
            self.has_ended(&entry, &read(&entry)?)?;
        }
        Ok(())
    }
}
