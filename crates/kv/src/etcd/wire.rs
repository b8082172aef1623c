//! What etcd's JSON gateway says. Its 64-bit numbers are text, and what is zero is left out.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Deserializer};

use super::mark;
use crate::{Entry, LeaseId, Revision};

#[derive(Deserialize, Default)]
#[serde(default)]
pub struct Header {
    #[serde(deserialize_with = "number")]
    pub revision: u64,
}

#[derive(Deserialize, Default)]
#[serde(default)]
pub struct Found {
    #[serde(deserialize_with = "bytes")]
    pub key: Vec<u8>,
    #[serde(deserialize_with = "bytes")]
    pub value: Vec<u8>,
    #[serde(deserialize_with = "number")]
    pub mod_revision: u64,
    #[serde(deserialize_with = "number")]
    pub lease: u64,
}

#[derive(Deserialize, Default)]
#[serde(default)]
pub struct Ranged {
    pub header: Header,
    pub kvs: Vec<Found>,
    pub more: bool,
}

#[derive(Deserialize, Default)]
#[serde(default)]
pub struct Transacted {
    pub header: Header,
    pub succeeded: bool,
    pub responses: Vec<Response>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
pub struct Response {
    pub response_range: Option<Ranged>,
}

#[derive(Deserialize)]
pub struct Granted {
    #[serde(rename = "ID", deserialize_with = "number")]
    pub id: u64,
}

#[derive(Deserialize)]
pub struct Kept {
    pub result: KeptResult,
}

#[derive(Deserialize)]
pub struct KeptResult {
    #[serde(rename = "TTL", default, deserialize_with = "number")]
    pub ttl: u64,
}

/// An error, as the gateway words it.
#[derive(Deserialize)]
pub struct Refusal {
    #[serde(default)]
    pub code: u64,
    #[serde(default)]
    pub message: String,
}

/// One line of a watch.
#[derive(Deserialize)]
pub struct Line {
    pub result: Option<Watched>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
pub struct Watched {
    pub header: Header,
    pub created: bool,
    pub canceled: bool,
    #[serde(deserialize_with = "number")]
    pub compact_revision: u64,
    pub events: Vec<Event>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
pub struct Event {
    #[serde(rename = "type")]
    pub kind: String,
    pub kv: Found,
}

fn number<'de, D: Deserializer<'de>>(from: D) -> Result<u64, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Either {
        Text(String),
        Number(u64),
    }
    match Either::deserialize(from)? {
        Either::Text(text) => text.parse().map_err(serde::de::Error::custom),
        Either::Number(number) => Ok(number),
    }
}

fn bytes<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<u8>, D::Error> {
    let text = String::deserialize(from)?;
    STANDARD.decode(text).map_err(serde::de::Error::custom)
}

/// An entry below `prefix` without its mark; none when nobody of ours wrote it.
pub fn entry(found: &Found, prefix: &str) -> Option<Entry> {
    Some(Entry {
        key: key(found, prefix)?,
        value: found.value.get(mark::BYTES..)?.to_vec(),
        revision: Revision(found.mod_revision),
        lease: (found.lease != 0).then_some(LeaseId(found.lease)),
    })
}

/// A key below `prefix`.
pub fn key(found: &Found, prefix: &str) -> Option<String> {
    Some(std::str::from_utf8(&found.key).ok()?.strip_prefix(prefix)?.to_owned())
}

/// The first key that does not begin with `prefix`, which is text and so never all 0xff.
pub fn end_of(prefix: &str) -> Vec<u8> {
    let mut end = prefix.as_bytes().to_vec();
    if let Some(last) = end.last_mut() {
        *last += 1;
    }
    end
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_ends_behind_all_its_keys() {
        for prefix in ["a/", "é", "a\u{7f}"] {
            assert!(end_of(prefix).as_slice() > format!("{prefix}\u{10ffff}").as_bytes());
            assert!(end_of(prefix).as_slice() > prefix.as_bytes());
        }
    }

    #[test]
    fn numbers_are_text_or_numbers() {
        for text in [r#"{"revision":"7"}"#, r#"{"revision":7}"#] {
            assert_eq!(serde_json::from_str::<Header>(text).unwrap().revision, 7);
        }
        assert_eq!(serde_json::from_str::<Header>("{}").unwrap().revision, 0);
        assert!(serde_json::from_str::<Header>(r#"{"revision":"-7"}"#).is_err());
    }
}
