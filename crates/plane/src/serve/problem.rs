//! Why a request was refused, as callers read it (RFC 9457).

use api::Problem;
use kv::KvError;

/// A request that was refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refused {
    /// The HTTP status.
    pub status: u16,
    /// A stable word.
    pub kind: &'static str,
    /// What happened.
    pub detail: String,
    /// What to do next.
    pub hint: &'static str,
}

impl Refused {
    pub fn new(
        status: u16,
        kind: &'static str,
        detail: impl Into<String>,
        hint: &'static str,
    ) -> Self {
        Self { status, kind, detail: detail.into(), hint }
    }

    pub fn not_found(what: &str) -> Self {
        Self::new(404, "not_found", format!("there is no {what}"), "list them first")
    }

    pub fn wrong(detail: impl Into<String>) -> Self {
        Self::new(400, "usage", detail, "see /v1/openapi.json")
    }

    /// Somebody else has changed it.
    pub fn changed(what: &str) -> Self {
        let detail = format!("{what} is not what you have seen");
        Self::new(412, "changed", detail, "read it again, and decide by that")
    }

    pub(super) fn problem(&self) -> Problem {
        Problem {
            about: "about:blank".to_owned(),
            title: self.kind.replace('_', " "),
            status: self.status,
            detail: self.detail.clone(),
            kind: self.kind.to_owned(),
            hint: self.hint.to_owned(),
        }
    }
}

impl From<KvError> for Refused {
    fn from(error: KvError) -> Self {
        let (status, kind) = match &error {
            KvError::Invalid { .. } => (400, "usage"),
            KvError::Unavailable { .. } | KvError::Unknown { .. } => (503, "unavailable"),
            KvError::NoSpace { .. } => (507, "no_space"),
            _ => (500, "internal"),
        };
        Self::new(status, kind, error.to_string(), error.hint())
    }
}
