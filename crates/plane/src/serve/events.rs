//! The event stream: what changes of instances and hosts, as server-sent events.
//!
//! ```text
//! after (an id, or now) ──▶ watch of the state ──▶ what this caller may see ──▶ id, kind, document
//!                                  └─ too long ago: `reset`, and from now on
//! ```
//!
//! An id is a revision of the state, the same at every plane. Who gives it back (`Last-Event-ID`, or
//! `after` in the query) misses nothing; what changed often meanwhile may come once, as it is now.
//!
//! **Invariant:** a stream shows what its caller may see now: rights are looked at again with every
//! [`LOOK`], and a token that counts no longer ends it.
//! *Bounds:* [`STREAMS_MAX`] of a plane, each with a thread; a reader that is slower than
//! [`WAITING_MAX`] events is waited for, and when the state has forgotten what it has not seen, it is
//! told `reset`.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use api::EventPrint;
use hyper::body::Bytes;
use kv::{KvError, Revision};
use tokio::sync::{OwnedSemaphorePermit, mpsc};

use super::ask::{Ask, Request};
use super::state::{host_id, name};
use super::{Plane, Refused};
use crate::access::{Caller, Right};

/// Streams of one plane.
pub const STREAMS_MAX: usize = 256;
/// Events that wait for their reader.
const WAITING_MAX: usize = 64;
/// How often a silent stream says that it is there, and who reads it is looked at.
const LOOK: Duration = Duration::from_secs(5);

/// A stream that was begun.
#[derive(Debug)]
pub struct Stream {
    request: Arc<Request>,
    after: Option<Revision>,
    _place: OwnedSemaphorePermit,
}

type Result<T> = std::result::Result<T, Refused>;

/// Parts of a stream, on their way to its reader.
pub type Reader = mpsc::Receiver<Bytes>;

/// Where parts of a stream are put.
pub fn channel() -> (mpsc::Sender<Bytes>, Reader) {
    mpsc::channel(WAITING_MAX)
}

/// Which keys are about what.
const INSTANCES: [&str; 5] = ["instances/", "seen/", "places/", "trouble/", "moves/"];
const HOSTS: [&str; 2] = ["hosts/", "alive/"];
/// What changes an operation that is not over.
const OPERATIONS: [&str; 4] = ["operations/", "progress/", "places/", "trouble/"];

impl Plane {
    /// Begins a stream, when there is a place for it.
    pub(super) fn stream(&self, ask: &Ask<'_>, request: Request) -> Result<Stream> {
        let last = ask.header("last-event-id").map(str::parse).transpose();
        let last = last.map_err(|_| Refused::wrong("Last-Event-ID is no number"))?;
        let after = last.or(ask.number("after")?).map(Revision);
        if after.is_some_and(|after| after > self.kv.list("steering").map_or(after, |l| l.revision))
        {
            return Err(Refused::wrong(
                "that has not happened yet: leave `after` out, or begin anew",
            ));
        }
        let place = self.streams.clone().try_acquire_owned().map_err(|_| {
            let hint = "end one, or ask another plane";
            Refused::new(503, "unavailable", format!("{STREAMS_MAX} streams are open"), hint)
        })?;
        Ok(Stream { request: Arc::new(request), after, _place: place })
    }

    /// Sends what changes until nobody reads it. Blocks.
    pub(super) fn send_events(&self, stream: &Stream, to: &mpsc::Sender<Bytes>) -> Result<()> {
        let mut caller = self.caller(&stream.request)?;
        let mut after = match stream.after {
            Some(after) => after,
            None => self.kv.list("steering")?.revision,
        };
        let mut watch = None;
        // Its reader knows where it begins, also when nothing happens.
        if to.blocking_send(Bytes::from(format!("id: {}\n: here\n\n", after.0))).is_err() {
            return Ok(());
        }
        let mut looked = ambient::now();
        loop {
            if looked.elapsed() >= LOOK {
                looked = ambient::now();
                caller = self.caller(&stream.request)?;
                if !caller.is_member()
                    || to.blocking_send(Bytes::from_static(b": here\n\n")).is_err()
                {
                    return Ok(());
                }
            }
            let found = match &watch {
                Some(watch) => kv::Watch::next(watch, Duration::from_millis(500)),
                None => match self.kv.watch("", after) {
                    Ok(begun) => {
                        watch = Some(begun);
                        continue;
                    }
                    Err(error) => Err(error),
                },
            };
            match found {
                Ok(None) => {
                    if to.is_closed() {
                        return Ok(());
                    }
                }
                Ok(Some(batch)) => {
                    after = batch.revision;
                    let keys = batch.changes.iter().map(kv::Change::key);
                    let events = self.events(&caller, keys)?;
                    // Whoever has the last of them has all: before it, all are sent again.
                    let last = events.len().saturating_sub(1);
                    for (at, event) in events.iter().enumerate() {
                        let id =
                            if at == last { after } else { Revision(after.0.saturating_sub(1)) };
                        if to.blocking_send(text(id, event)).is_err() {
                            return Ok(());
                        }
                    }
                }
                Err(KvError::WatchEnded { .. }) => {
                    // Its reader lists again.
                    watch = None;
                    after = self.kv.list("steering")?.revision;
                    let reset = EventPrint { event: "reset".to_owned(), ..EventPrint::default() };
                    if to.blocking_send(text(after, &reset)).is_err() {
                        return Ok(());
                    }
                }
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// What has happened, by the keys that have changed, for this caller.
    fn events<'k>(
        &self,
        caller: &Caller,
        keys: impl Iterator<Item = &'k str>,
    ) -> Result<Vec<EventPrint>> {
        let (mut instances, mut hosts) = (BTreeSet::new(), BTreeSet::new());
        let mut operations = BTreeSet::new();
        for key in keys {
            let of =
                |prefixes: &[&str]| prefixes.iter().find_map(|prefix| key.strip_prefix(prefix));
            if let Some(id) = key.strip_prefix("operated/") {
                operations.insert(id.to_owned());
            } else if let Some(live) = of(&OPERATIONS).map(name).and_then(Result::ok) {
                operations.extend(self.live_operation(&live)?);
            }
            if let Some(of) = of(&INSTANCES) {
                instances.insert(of);
            } else if let Some(of) = of(&HOSTS) {
                hosts.insert(of);
            }
        }
        let mut events = Vec::new();
        for of in instances {
            let Ok(known) = name(of) else { continue };
            let placed = match self.placed(&known) {
                Ok(placed) => Some(placed),
                Err(refused) if refused.status == 404 => None,
                Err(refused) => return Err(refused),
            };
            let project = match &placed {
                Some(placed) => placed.project.clone(),
                // What was never there is nothing to anybody.
                None => match self.was_in(&known)? {
                    Some(project) => project,
                    None => continue,
                },
            };
            if caller.may_in(&project, Right::See) {
                let (event, removed) = ("instance".to_owned(), placed.is_none());
                let name = of.to_owned();
                let instance = placed;
                events.push(EventPrint { event, name, removed, instance, ..Default::default() });
            }
        }
        for of in hosts {
            let Ok(id) = host_id(of) else { continue };
            let host = match self.host(id) {
                Ok((_, host)) => Some(host),
                Err(refused) if refused.status == 404 => None,
                Err(refused) => return Err(refused),
            };
            let name = host.as_ref().map_or_else(|| of.to_owned(), |host| host.name.clone());
            let (event, removed) = ("host".to_owned(), host.is_none());
            events.push(EventPrint { event, name, removed, host, ..Default::default() });
        }
        for id in operations {
            let operation = match self.known_operation(&id) {
                Ok((_, operation)) => operation,
                // It was forgotten since.
                Err(refused) if refused.status == 404 => continue,
                Err(refused) => return Err(refused),
            };
            if caller.may_in(&operation.project, Right::See) {
                let (event, name) = ("operation".to_owned(), id);
                let operation = Some(operation);
                events.push(EventPrint { event, name, operation, ..Default::default() });
            }
        }
        Ok(events)
    }
}

fn text(id: Revision, event: &EventPrint) -> Bytes {
    let document = serde_json::to_string(event).unwrap_or_default();
    Bytes::from(format!("id: {}\nevent: {}\ndata: {document}\n\n", id.0, event.event))
}
