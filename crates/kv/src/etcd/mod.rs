//! The store on an etcd cluster, by its JSON gateway (`/v3/...`, etcd 3.4 and later).
//!
//! The gateway needs nothing that the workspace has not: the HTTP library of `objects`. etcd's gRPC
//! would need a compiler of protocols wherever Collective is built.
//!
//! *Retries.* An attempt has [`http::ATTEMPT`], a call [`http::CALL`]; each attempt goes to the next
//! member. A patient request to a cluster that has just lost its leader hangs for seconds; an
//! impatient one that is sent again is served about a second after the loss.
//!
//! *What was sent twice.* Each value begins with a mark that its commit drew by chance. A commit is
//! sent again only if it cannot happen twice (one of its conditions is about a key that it
//! writes). When the second attempt is refused, and what lies there has our mark, then the first
//! attempt did it. When it has not, nobody knows, and that is the answer.
//!
//! *On a crash* of a member the others go on. Leases live at least their time: a new leader begins
//! it again.

mod http;
mod mark;
mod stream;
mod tls;
pub(crate) mod wire;

use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use crate::watch::watch;
use crate::{
    Condition, Entry, Kv, KvError, LeaseId, Listing, Outcome, Result, Revision, Txn, Watch, Write,
    check_key, check_ttl,
};
use http::{Gateway, Trouble};
use mark::Mark;
pub use tls::Tls;
use wire::{Found, Granted, Kept, Ranged, Transacted};

/// Keys that one request lists.
const PAGE: u64 = 1000;

/// See the module's documentation.
#[derive(Debug)]
pub struct Etcd {
    gateway: Gateway,
    /// In front of each key; ends with `/`.
    prefix: String,
}

impl Etcd {
    /// A store below `prefix` of the cluster whose members answer at `endpoints`
    /// (`http://HOST:PORT`, or `https://HOST:PORT` by TLS). Fails when none of them does.
    pub fn open(endpoints: &[String], prefix: &str, tls: &Tls) -> Result<Self> {
        let gateway = Gateway::new(endpoints, tls)?;
        let etcd = Self { gateway, prefix: format!("{}/", prefix.trim_end_matches('/')) };
        etcd.get("-")?;
        Ok(etcd)
    }

    fn key(&self, key: &str) -> String {
        STANDARD.encode(format!("{}{key}", self.prefix))
    }

    fn range(&self, from: &str, end: &[u8], limit: u64, at: Revision) -> Result<Ranged> {
        let mut body = json!({
            "key": STANDARD.encode(from),
            "limit": limit.to_string(),
            "revision": at.0.to_string(),
        });
        if !end.is_empty() {
            body["range_end"] = STANDARD.encode(end).into();
        }
        self.gateway.read("kv/range", &body)
    }

    fn entry(&self, found: Found) -> Result<Entry> {
        self.entry_of(&found).ok_or_else(|| self.gateway.broken("an entry that nobody here wrote"))
    }

    fn entry_of(&self, found: &Found) -> Option<Entry> {
        wire::entry(found, &self.prefix)
    }

    fn request(&self, txn: &Txn, mark: Mark) -> Value {
        let compare: Vec<_> = txn
            .conditions
            .iter()
            .map(|(key, condition)| {
                let revision = match condition {
                    Condition::Absent => 0,
                    Condition::At(revision) => revision.0,
                };
                json!({
                    "key": self.key(key),
                    "target": "MOD",
                    "result": "EQUAL",
                    "mod_revision": revision.to_string(),
                })
            })
            .collect();
        let success: Vec<_> = txn
            .writes
            .iter()
            .map(|(key, write)| match write {
                Write::Put { value, lease } => json!({"request_put": {
                    "key": self.key(key),
                    "value": STANDARD.encode(mark.before(value)),
                    "lease": lease.map_or(0, |lease| lease.0).to_string(),
                }}),
                Write::Delete => json!({"request_delete_range": {"key": self.key(key)}}),
            })
            .collect();
        let failure: Vec<_> = txn
            .writes
            .iter()
            .filter(|(_, write)| matches!(write, Write::Put { .. }))
            .take(1)
            .map(|(key, _)| json!({"request_range": {"key": self.key(key)}}))
            .collect();
        json!({"compare": compare, "success": success, "failure": failure})
    }
}

impl Kv for Etcd {
    fn get(&self, key: &str) -> Result<Option<Entry>> {
        check_key(key)?;
        let from = format!("{}{key}", self.prefix);
        let ranged = self.range(&from, &[], 1, Revision(0))?;
        ranged.kvs.into_iter().next().map(|found| self.entry(found)).transpose()
    }

    fn list(&self, prefix: &str) -> Result<Listing> {
        let mut from = format!("{}{prefix}", self.prefix);
        let end = wire::end_of(&from);
        let mut listing = Listing { revision: Revision(0), entries: Vec::new() };
        loop {
            // Every page as of the moment of the first.
            let ranged = self.range(&from, &end, PAGE, listing.revision)?;
            if listing.revision == Revision(0) {
                listing.revision = Revision(ranged.header.revision);
            }
            for found in ranged.kvs {
                listing.entries.push(self.entry(found)?);
            }
            match listing.entries.last() {
                Some(last) if ranged.more => from = format!("{}{}\0", self.prefix, last.key),
                _ => return Ok(listing),
            }
        }
    }

    fn commit(&self, txn: &Txn) -> Result<Outcome> {
        txn.check()?;
        let mark = Mark::new();
        let body = self.request(txn, mark);
        let (result, doubtful) = self.gateway.write("kv/txn", &body, txn.at_most_once());
        let done: Transacted = result.map_err(|trouble| self.gateway.error(trouble, doubtful))?;
        let revision = Revision(done.header.revision);
        if done.succeeded {
            return Ok(Outcome::Done(revision));
        }
        if !doubtful {
            return Ok(Outcome::Refused);
        }
        let ranged = done.responses.into_iter().find_map(|response| response.response_range);
        match ranged.and_then(|ranged| ranged.kvs.into_iter().next()) {
            Some(found) if mark.is_on(&found.value) => {
                Ok(Outcome::Done(Revision(found.mod_revision)))
            }
            _ => Err(self.gateway.error(Trouble::Silent("it was sent twice".to_owned()), true)),
        }
    }

    fn watch(&self, prefix: &str, after: Revision) -> Result<Watch> {
        let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
        let (feed, watch) = watch(stop);
        self.gateway.follow(stream::Stream {
            prefix: self.prefix.clone(),
            below: format!("{}{prefix}", self.prefix),
            after,
            feed,
            stopped,
        });
        Ok(watch)
    }

    fn grant(&self, ttl: Duration) -> Result<LeaseId> {
        check_ttl(ttl)?;
        // Our own number, so that it can be asked for again.
        let id = (u64::from_le_bytes(ambient::random()) >> 1).max(1);
        let seconds = ttl.as_millis().div_ceil(1000);
        let body = json!({"ID": id.to_string(), "TTL": seconds.to_string()});
        match self.gateway.write::<Granted>("lease/grant", &body, true) {
            (Ok(granted), _) => Ok(LeaseId(granted.id)),
            // "Exists already": by the attempt that nobody answered.
            (Err(Trouble::Code(9, _)), true) => Ok(LeaseId(id)),
            (Err(trouble), doubtful) => Err(self.gateway.error(trouble, doubtful)),
        }
    }

    fn keep_alive(&self, lease: LeaseId) -> Result<()> {
        let body = json!({"ID": lease.0.to_string()});
        let kept: Kept = self.gateway.read("lease/keepalive", &body)?;
        if kept.result.ttl == 0 { Err(KvError::LeaseGone) } else { Ok(()) }
    }

    fn revoke(&self, lease: LeaseId) -> Result<()> {
        let body = json!({"ID": lease.0.to_string()});
        match self.gateway.write::<Value>("lease/revoke", &body, true) {
            (Ok(_), _) => Ok(()),
            (Err(Trouble::Code(5, _)), true) => Ok(()),
            (Err(trouble), doubtful) => Err(self.gateway.error(trouble, doubtful)),
        }
    }
}
