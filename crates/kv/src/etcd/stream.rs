//! A watch on the cluster: followed at one member, gone on with at the next.
//!
//! **Invariant:** what was given has a growing revision, and the next member is asked for what
//! comes behind it: nothing twice, nothing left out.

use reqwest::Client;
use serde_json::json;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use tokio::sync::oneshot;
use tokio::time::{sleep, timeout};

use super::http::{ATTEMPT, PAUSE, full};
use super::wire::{self, Event, Line, Watched};
use crate::watch::Feed;
use crate::{Batch, Change, KvError, Revision};

/// Bytes of one line: etcd sends at most a commit's values at once.
const LINE_BYTES_MAX: usize = 256 << 20;

/// See the module's documentation.
pub struct Stream {
    /// What is in front of every key of the store.
    pub prefix: String,
    /// What is watched, with that.
    pub below: String,
    /// The last revision that was given.
    pub after: Revision,
    pub feed: Feed,
    /// Ends when nobody reads any more.
    pub stopped: oneshot::Receiver<()>,
}

/// Why a member is no longer followed.
enum End {
    /// Another one may be.
    Member,
    /// None can be.
    All(KvError),
    /// Nobody reads.
    Reader,
}

impl Stream {
    pub async fn run(mut self, client: Client, endpoints: Vec<String>) {
        for endpoint in endpoints.iter().cycle() {
            let end = self.follow(&client, endpoint).await;
            match end {
                End::Member => {}
                End::All(error) => {
                    self.feed.give(Err(error));
                    return;
                }
                End::Reader => return,
            }
            tokio::select! {
                _ = &mut self.stopped => return,
                () = sleep(PAUSE) => {}
            }
        }
    }

    async fn follow(&mut self, client: &Client, endpoint: &str) -> End {
        let body = json!({"create_request": {
            "key": STANDARD.encode(&self.below),
            "range_end": STANDARD.encode(wire::end_of(&self.below)),
            "start_revision": (self.after.0 + 1).to_string(),
        }});
        // A member that has lost its leader says so, and is not waited for.
        let request = client
            .post(format!("{endpoint}/v3/watch"))
            .header("Grpc-Metadata-hasleader", "true")
            .body(body.to_string());
        let response = tokio::select! {
            _ = &mut self.stopped => return End::Reader,
            response = timeout(ATTEMPT, request.send()) => response,
        };
        let Ok(Ok(mut response)) = response else { return End::Member };
        if !response.status().is_success() {
            return End::Member;
        }
        let mut bytes = Vec::new();
        loop {
            let part = tokio::select! {
                _ = &mut self.stopped => return End::Reader,
                part = response.chunk() => part,
            };
            let Ok(Some(part)) = part else { return End::Member };
            bytes.extend_from_slice(&part);
            while let Some(end) = bytes.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = bytes.drain(..=end).collect();
                match serde_json::from_slice::<Line>(&line) {
                    Ok(Line { result: Some(watched) }) => {
                        if let Some(end) = self.take(watched) {
                            return end;
                        }
                    }
                    Ok(_) => return End::Member,
                    Err(error) => return End::All(ended(full(&error))),
                }
            }
            if bytes.len() > LINE_BYTES_MAX {
                return End::All(ended("a line without an end".to_owned()));
            }
        }
    }

    fn take(&mut self, watched: Watched) -> Option<End> {
        if watched.canceled {
            let compacted = watched.compact_revision;
            if compacted == 0 {
                return Some(End::Member);
            }
            return Some(End::All(ended(format!(
                "what followed revision {} is no longer known",
                self.after.0
            ))));
        }
        // One answer may have several commits; a commit is never in two.
        let mut batches: Vec<Batch> = Vec::new();
        for event in &watched.events {
            let revision = Revision(event.kv.mod_revision);
            let Some(change) = self.change(event) else {
                return Some(End::All(ended("an entry that nobody here wrote".to_owned())));
            };
            match batches.last_mut() {
                Some(batch) if batch.revision == revision => batch.changes.push(change),
                _ => batches.push(Batch { revision, changes: vec![change] }),
            }
        }
        for batch in batches {
            let revision = batch.revision;
            if revision > self.after {
                if !self.feed.give(Ok(batch)) {
                    return Some(End::Reader);
                }
                self.after = revision;
            }
        }
        None
    }

    fn change(&self, event: &Event) -> Option<Change> {
        match event.kind.as_str() {
            "DELETE" => Some(Change::Deleted { key: wire::key(&event.kv, &self.prefix)? }),
            _ => Some(Change::Put(wire::entry(&event.kv, &self.prefix)?)),
        }
    }
}

fn ended(detail: String) -> KvError {
    KvError::WatchEnded { detail }
}
