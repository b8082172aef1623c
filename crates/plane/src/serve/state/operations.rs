//! Operations: each change of an instance that somebody asks for has one, from then until it is as it was
//! asked, failed, or was called off.
//!
//! ```text
//! asked ──▶ waiting ⇄ running ──▶ done | failed | cancelled ──▶ forgotten
//!              └── cancel: nobody has begun it:        what was wished before is wished again
//!                          a guest leaves, or starts:  the same, and its host is told; it ends when that has
//!                          anything else:              refused
//! ```
//!
//! **Invariant:** of an instance at most one is not over (`operations/NAME`): whoever asks for something
//! else ends the one before.
//! **Invariant:** an order is written down as begun before its host has it, and is withdrawn with the wish
//! in one commit that asks whether it was begun: what was cancelled while nobody had begun it is never done.
//! **Invariant:** none is said to be over while a host that lives works on its instance ([`Plane::busy`]).
//! *Bounds:* [`KEPT`] of an instance that are over, for [`KEPT_MS`]; [`LISTED_MAX`] in one answer.
//! *On a crash* it goes on as it stands in the state.

use api::{
    InstanceWish, OperationKind, OperationPrint, OperationState, OrderAct, OrderPrint, StateWish,
    Trouble,
};
use kv::{Condition, Entry, Revision, Txn};
use model::{HostId, Name};
use serde::{Deserialize, Serialize};

use super::begun::{BegunRecord, ProgressRecord, parts};
use super::picture::{Picture, Step};
use super::projects::Belongs;
use super::usage::Change;
use super::{
    InstanceRecord, PlaceRecord, Result, SeenRecord, TRIES, TroubleRecord, host_id, json, name,
    read,
};
use crate::access::{Caller, Demand, Right};
use crate::serve::ask::{Ask, forbidden};
use crate::serve::{Plane, Refused};

/// How many of an instance are kept that are over.
const KEPT: usize = 8;
/// And for how long.
const KEPT_MS: u64 = 24 * 3600 * 1000;
/// The newest ones are listed.
const LISTED_MAX: usize = 1000;
/// What has failed so often is failed; it is tried again all the same, as long as it is wished.
const FAILURES_MAX: u32 = 5;

/// `operations/NAME`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct OperationRecord {
    pub id: String,
    pub kind: OperationKind,
    pub belongs: Belongs,
    pub asked_by: String,
    pub request: String,
    pub begun_unix_ms: u64,
    /// What was wished before; none: nothing.
    pub before: Option<InstanceWish>,
    /// The host that had it.
    pub source: Option<String>,
    /// The host where it is to be.
    pub target: Option<String>,
    pub cancelled_by: Option<String>,
    /// What carries the request to those who do it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub traceparent: Option<String>,
}

impl OperationRecord {
    /// Nobody wished anything of it before, and no host had it.
    pub(super) fn is_new(&self) -> bool {
        self.before.is_none() && self.source.is_none()
    }
}

/// What a host that lives has begun of an operation.
struct Begun {
    host: HostId,
    entry: Entry,
    record: BegunRecord,
}

/// `operated/ID`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct OperatedRecord {
    operation: OperationRecord,
    end: End,
    ended_unix_ms: u64,
}

/// How an operation has ended.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct End {
    pub state: OperationState,
    pub step: Option<String>,
    pub failure: Option<Trouble>,
}

impl End {
    fn of(state: OperationState, step: impl Into<String>) -> Self {
        Self { state, step: Some(step.into()), failure: None }
    }

    fn failed(kind: &str, detail: String, hint: String) -> Self {
        let failure = Some(Trouble { kind: kind.to_owned(), detail, hint });
        Self { state: OperationState::Failed, step: None, failure }
    }
}

/// The instance of an operation, by its id.
fn instance_of(id: &str) -> Result<Name> {
    let known = id.split_once('~').and_then(|(of, _)| name(of).ok());
    known.ok_or_else(|| Refused::not_found(&format!("operation {id:?}")))
}

fn kind(wish: &InstanceWish, holder: Option<&str>) -> OperationKind {
    match (wish.state, &wish.on, holder) {
        (StateWish::Suspended, ..) => OperationKind::Suspend,
        (StateWish::Stopped, ..) => OperationKind::Stop,
        (StateWish::Running, Some(on), Some(holder)) if on != holder => OperationKind::Move,
        (StateWish::Running, ..) => OperationKind::Start,
    }
}

impl Plane {
    /// What is asked for by this wish, begun now.
    pub(super) fn begun_operation(
        &self,
        ask: &Ask<'_>,
        name: &Name,
        (belongs, before): (&Belongs, Option<&InstanceWish>),
        wish: &InstanceWish,
    ) -> Result<OperationRecord> {
        let source = self.seen(name.as_str())?.and_then(|(_, seen)| seen.head.holder);
        let begun_unix_ms = ambient::unix_ms();
        let chance: [u8; 2] = ambient::random();
        let chance = u16::from_le_bytes(chance);
        let id = format!("{name}~{begun_unix_ms:012x}{chance:04x}");
        *ask.operation.borrow_mut() = Some(id.clone());
        Ok(OperationRecord {
            id,
            kind: kind(wish, source.as_deref()),
            belongs: belongs.clone(),
            asked_by: ask.caller.name(),
            request: ask.request.id.clone(),
            begun_unix_ms,
            before: before.cloned(),
            source,
            target: wish.on.clone().filter(|_| wish.state == StateWish::Running),
            cancelled_by: None,
            traceparent: spans::traceparent(),
        })
    }

    /// Also begins an operation, in the place of the one that is not over.
    pub(super) fn with_operation(&self, txn: Txn, new: &OperationRecord) -> Result<Txn> {
        let of = instance_of(&new.id)?;
        let key = format!("operations/{of}");
        let txn = match self.kv.get(&key)? {
            Some(entry) => {
                let old: OperationRecord = read(&entry)?;
                let why = format!("{} has asked for something else: {}", new.asked_by, new.id);
                let end = End::of(OperationState::Cancelled, why);
                self.put_ended(txn.when(&key, Condition::At(entry.revision)), old, end)?
            }
            None => txn.when(&key, Condition::Absent),
        };
        Ok(txn.put(&key, json(new)))
    }

    /// Also ends the one of an instance that is wished for no longer.
    pub(super) fn without_operation(&self, txn: Txn, of: &Name, by: Option<&str>) -> Result<Txn> {
        let key = format!("operations/{of}");
        let Some(entry) = self.kv.get(&key)? else {
            return Ok(txn.when(&key, Condition::Absent));
        };
        let trouble = self.kv.get(&format!("trouble/{of}"))?.as_ref().map(read::<TroubleRecord>);
        let trouble = trouble.transpose()?.and_then(|trouble| trouble.trouble);
        let end = match (trouble, by) {
            // Whoever takes back what does not work has not changed their mind.
            (Some(trouble), _) => {
                End { state: OperationState::Failed, step: None, failure: Some(trouble) }
            }
            (None, Some(by)) => {
                End::of(OperationState::Cancelled, format!("{by} wishes for it no longer"))
            }
            (None, None) => {
                let hint = "`collective ps` lists those that there are";
                End::failed("not_found", format!("{of} was removed"), hint.to_owned())
            }
        };
        let txn = txn.when(&key, Condition::At(entry.revision)).delete(&key);
        self.put_ended(txn, read(&entry)?, end)
    }

    /// Also keeps how it ended, and forgets the oldest of its instance.
    fn put_ended(&self, txn: Txn, operation: OperationRecord, end: End) -> Result<Txn> {
        Ok(self.ended_as(operation, end)?(txn))
    }

    /// The same, to be added later.
    fn ended_as(
        &self,
        operation: OperationRecord,
        end: End,
    ) -> Result<impl Fn(Txn) -> Txn + use<>> {
        let of = instance_of(&operation.id)?;
        let kept = self.kv.list(&format!("operated/{of}~"))?.entries;
        // Their ids grow with time, and so do their keys.
        let too_many = (kept.len() + 1).saturating_sub(KEPT);
        let oldest: Vec<_> = kept.into_iter().take(too_many).map(|entry| entry.key).collect();
        let key = format!("operated/{}", operation.id);
        let record = OperatedRecord { operation, end, ended_unix_ms: ambient::unix_ms() };
        let record = json(&record);
        Ok(move |txn| {
            let txn = oldest.iter().fold(txn, |txn: Txn, key| txn.delete(key));
            txn.put(&key, record.clone())
        })
    }

    /// Forgets those that have been over for long.
    pub(in crate::serve) fn sweep_operations(&self) -> Result<()> {
        for entry in self.kv.list("operated/")?.entries {
            let record: OperatedRecord = read(&entry)?;
            if record.ended_unix_ms.saturating_add(KEPT_MS) < ambient::unix_ms() {
                self.kv.commit(&Txn::remove(&entry.key, entry.revision))?;
            }
        }
        Ok(())
    }

    /// Those that the caller may see, the oldest first; of one project or instance, if one is named.
    pub(in crate::serve) fn operations(
        &self,
        caller: &Caller,
        project: Option<&str>,
        instance: Option<&str>,
    ) -> Result<Vec<OperationPrint>> {
        let fits = |operation: &OperationRecord| {
            let belongs = &operation.belongs.project;
            let of = operation.id.split_once('~').map(|(of, _)| of);
            caller.may_in(belongs, Right::See)
                && project.is_none_or(|project| project == belongs)
                && instance.is_none_or(|instance| Some(instance) == of)
        };
        // Those that end between are in both, and are over.
        let mut found = std::collections::BTreeMap::new();
        for entry in self.kv.list("operations/")?.entries {
            let operation: OperationRecord = read(&entry)?;
            if fits(&operation) {
                found.insert(operation.id.clone(), self.print_operation(operation)?);
            }
        }
        for entry in self.kv.list("operated/")?.entries {
            let record: OperatedRecord = read(&entry)?;
            if fits(&record.operation) {
                found.insert(record.operation.id.clone(), print_ended(record)?);
            }
        }
        let mut found: Vec<_> = found.into_values().collect();
        found.sort_by(|a, b| (a.begun_unix_ms, &a.id).cmp(&(b.begun_unix_ms, &b.id)));
        found.drain(..found.len().saturating_sub(LISTED_MAX));
        Ok(found)
    }

    pub(in crate::serve) fn operation(
        &self,
        ask: &Ask<'_>,
        id: &str,
    ) -> Result<(Revision, OperationPrint)> {
        let (revision, print) = self.known_operation(id)?;
        may(ask, &print.project, &print.owner, Right::See)?;
        Ok((revision, print))
    }

    /// One that is not over, or was a while ago.
    pub(in crate::serve) fn known_operation(&self, id: &str) -> Result<(Revision, OperationPrint)> {
        if let Some((entry, record)) = self.live(&instance_of(id)?)?
            && record.id == id
        {
            return Ok((entry.revision, self.print_operation(record)?));
        }
        let entry = self.kv.get(&format!("operated/{id}"))?;
        let entry = entry.ok_or_else(|| Refused::not_found(&format!("operation {id}")))?;
        Ok((entry.revision, print_ended(read(&entry)?)?))
    }

    /// The one of an instance that is not over.
    fn live(&self, of: &Name) -> Result<Option<(Entry, OperationRecord)>> {
        let entry = self.kv.get(&format!("operations/{of}"))?;
        entry.map(|entry| read(&entry).map(|record| (entry, record))).transpose()
    }

    /// The id of the one of an instance that is not over.
    pub(in crate::serve) fn live_operation(&self, of: &Name) -> Result<Option<String>> {
        Ok(self.live(of)?.map(|(_, record)| record.id))
    }

    fn print_operation(&self, operation: OperationRecord) -> Result<OperationPrint> {
        let of = instance_of(&operation.id)?;
        let place: Option<PlaceRecord> =
            self.kv.get(&format!("places/{of}"))?.as_ref().map(read).transpose()?;
        let trouble: Option<TroubleRecord> =
            self.kv.get(&format!("trouble/{of}"))?.as_ref().map(read).transpose()?;
        let next = place.and_then(|place| place.next);
        self.print_live(&of, operation, (next, trouble.and_then(|trouble| trouble.trouble)))
    }

    /// What is not over of an instance, of which this is known.
    pub(super) fn operation_of(
        &self,
        of: &Name,
        known: (Option<String>, Option<Trouble>),
    ) -> Result<Option<OperationPrint>> {
        let live = self.live(of)?;
        live.map(|(_, operation)| self.print_live(of, operation, known)).transpose()
    }

    fn print_live(
        &self,
        of: &Name,
        operation: OperationRecord,
        (next, failure): (Option<String>, Option<Trouble>),
    ) -> Result<OperationPrint> {
        let progress: Option<ProgressRecord> =
            self.kv.get(&format!("progress/{of}"))?.as_ref().map(read).transpose()?;
        let works = match progress {
            // What a host did that is gone nobody does now.
            Some(progress) if self.kv.get(&format!("alive/{}", progress.host))?.is_some() => {
                Some(progress)
            }
            _ => None,
        };
        let state = if works.is_some() { OperationState::Running } else { OperationState::Waiting };
        let mut print = print(operation, End { state, step: next, failure })?;
        if let Some(works) = works {
            print.step = works.step.or(print.step);
            print.host = Some(works.host);
            print.done_bytes = works.done_bytes;
        }
        Ok(print)
    }

    /// Calls one off; at this revision, if one is given. One that was called off already is.
    pub(in crate::serve) fn cancel_operation(
        &self,
        ask: &Ask<'_>,
        id: &str,
        at: Option<Revision>,
    ) -> Result<()> {
        let of = instance_of(id)?;
        for _ in 0..TRIES {
            let Some((entry, record)) = self.live(&of)?.filter(|(_, record)| record.id == id)
            else {
                let (_, over) = self.known_operation(id)?;
                may(ask, &over.project, &over.owner, Right::Own)?;
                return match over.state {
                    OperationState::Cancelled => Ok(()),
                    // It has ended since it was looked for.
                    state if !state.is_over() => continue,
                    state => Err(too_late(format!("{id} is over: {}", state.as_str()), over.kind)),
                };
            };
            may(ask, &record.belongs.project, &record.belongs.owner, Right::Own)?;
            if at.is_some_and(|at| at != entry.revision) {
                return Err(Refused::changed(&format!("operation {id}")));
            }
            if record.cancelled_by.is_some() {
                return Ok(());
            }
            let Some(wished) = self.kv.get(&format!("instances/{of}"))? else { continue };
            let old: InstanceRecord = read(&wished)?;
            let begun = self.begun_by_living(&of)?;
            let call_back = |txn: Txn| self.call_back(txn, ask, &of, &record, &begun);
            let wish = wished_again(&record, &old.wish).or_else(|| {
                // Whether it is there at all, its host has to say.
                (!begun.is_empty()).then(|| resting(&old.wish))
            });
            let outcome = match wish {
                Some(wish) => {
                    let generation = self.seen(of.as_str())?.map(|(_, seen)| seen.head.generation);
                    let new = InstanceRecord { wish, at: generation, ..old.clone() };
                    let old = Some((wished.revision, &old));
                    let change = Change { name: &of, old, new: Some(&new) };
                    self.change_instance(Some(ask), &change, |txn| {
                        call_back(txn.delete(&format!("trouble/{of}")))
                    })?
                }
                None => {
                    self.may_be_forgotten(ask, &of)?;
                    self.remove_wish_and(Some(ask), &of, &(wished.revision, old), call_back)?
                }
            };
            if outcome.is_done() {
                return Ok(());
            }
        }
        Err(Refused::changed(&format!("operation {id}")))
    }

    /// Also takes back what hosts were to do for it: it is over, or its host is told; refused when it is
    /// too late for either.
    fn call_back(
        &self,
        txn: Txn,
        ask: &Ask<'_>,
        of: &Name,
        record: &OperationRecord,
        begun: &[Begun],
    ) -> Result<Txn> {
        let key = format!("operations/{of}");
        let live = self.live(of)?.filter(|(_, live)| live == record);
        let Some((entry, _)) = live else {
            return Err(Refused::changed(&format!("operation {}", record.id)));
        };
        let mut txn = txn.when(&key, Condition::At(entry.revision));
        let standing = self.orders_of(of)?;
        for (host, order) in &standing {
            txn = txn.when(&order.key, Condition::At(order.revision));
            let starts = |begun: &Begun| begun.record.act == OrderAct::Start;
            if !begun.iter().any(|begun| begun.host == *host && starts(begun)) {
                txn = txn.delete(&order.key);
            }
            if !begun.iter().any(|begun| begun.host == *host) {
                // Its host does not get it between; one that is gone has it, or not.
                let key = format!("begun/{host}/{of}");
                let had = self.kv.get(&key)?.map(|had| Condition::At(had.revision));
                txn = txn.when(&key, had.unwrap_or(Condition::Absent));
            }
        }
        let by = ask.caller.name();
        for Begun { host, entry, record: order } in begun {
            let ends = matches!(order.act, OrderAct::Leave | OrderAct::Start);
            if !ends || self.is_past(of, &order.order)? {
                let (_, host) = self.host(*host)?;
                let detail = format!("host {} has begun it already", host.name);
                return Err(too_late(detail, record.kind));
            }
            // It has not ended between.
            txn = txn.when(&entry.key, Condition::At(entry.revision));
            if order.act == OrderAct::Start {
                let key = format!("orders/{host}/{of}");
                if !standing.iter().any(|(_, order)| order.key == key) {
                    txn = txn.when(&key, Condition::Absent);
                }
                let off = called_off(of, &order.order);
                txn = txn.put(&key, json(&off));
            }
        }
        if begun.iter().any(|begun| begun.record.act == OrderAct::Start)
            && let Some((revision, seen)) = self.seen(of.as_str())?
        {
            // When its host dies before it says what came of it, somebody else has to look.
            let (key, seen) = (format!("seen/{of}"), SeenRecord { looked: false, ..seen });
            txn = txn.when(&key, Condition::At(revision)).put(&key, json(&seen));
        }
        if begun.is_empty() {
            let end = End::of(OperationState::Cancelled, format!("{by} has cancelled it"));
            let ended = OperationRecord { cancelled_by: Some(by), ..record.clone() };
            return self.put_ended(txn.delete(&key), ended, end);
        }
        let told = OperationRecord { cancelled_by: Some(by), ..record.clone() };
        Ok(txn.put(&key, json(&told)))
    }

    fn begun_by_living(&self, of: &Name) -> Result<Vec<Begun>> {
        let alive = self.alive()?;
        let begun = self.begun_of(of)?.into_iter();
        Ok(begun.filter(|begun| alive.contains(&begun.host)).collect())
    }

    /// What hosts have begun with an instance.
    fn begun_of(&self, of: &Name) -> Result<Vec<Begun>> {
        let entries = self.kv.list("begun/")?.entries;
        let found = entries.into_iter().filter_map(|entry| {
            let (host, _) = parts(&entry.key).filter(|(_, name)| *name == of.as_str())?;
            Some(read(&entry).map(|record| Begun { host, entry, record }))
        });
        found.collect()
    }

    /// What ends one that is over, when nobody works on it; not, when something else was asked meanwhile.
    pub(in crate::serve) fn end_operation(
        &self,
        of: &Name,
        (at, record): &(Revision, OperationRecord),
        wished: Revision,
        end: End,
    ) -> Result<impl Fn(Txn) -> Txn + use<>> {
        let (at, key, wish) = (*at, format!("operations/{of}"), format!("instances/{of}"));
        let ended = self.ended_as(record.clone(), end)?;
        Ok(move |txn: Txn| {
            let stands = txn.when(&key, Condition::At(at)).when(&wish, Condition::At(wished));
            ended(stands.delete(&key))
        })
    }
}

/// A start that its host is to end. Whoever has begun it knows it by its id.
fn called_off(of: &Name, id: &str) -> OrderPrint {
    OrderPrint { called_off: true, ..OrderPrint::new(id, of.as_str(), OrderAct::Start, 0) }
}

/// It is not to run.
fn resting(wish: &InstanceWish) -> InstanceWish {
    InstanceWish {
        state: StateWish::Suspended,
        on: None,
        take_over: false,
        take_over_anyway: false,
        ..wish.clone()
    }
}

/// What is wished when it is called off; none: nothing.
fn wished_again(record: &OperationRecord, now: &InstanceWish) -> Option<InstanceWish> {
    // What a host had already, and came under the plane by it, stays there.
    let before = record.before.as_ref().or(record.source.as_ref().map(|_| now))?;
    let moves = record.kind == OperationKind::Move;
    let on = if moves { record.source.clone() } else { before.on.clone() };
    Some(InstanceWish {
        on,
        take_over: false,
        take_over_anyway: false,
        // Its host has said so.
        cpus: before.cpus.max(now.cpus),
        memory_bytes: before.memory_bytes.max(now.memory_bytes),
        ..before.clone()
    })
}

impl Picture {
    /// What was asked of an instance, when that was called off and is not over.
    pub fn called_off(&self, of: &Name) -> Option<&OperationRecord> {
        let (_, operation) = self.operations.get(of)?;
        operation.cancelled_by.is_some().then_some(operation)
    }

    /// How an operation has ended, if it has, when nobody works on it and this is to be done next.
    pub fn end(&self, of: &Name, record: &OperationRecord, step: &Step) -> Option<End> {
        let trouble = self.trouble.get(of);
        let trouble = trouble.filter(|trouble| trouble.tries >= FAILURES_MAX);
        let trouble = trouble.and_then(|trouble| trouble.trouble.clone());
        let holder = self.holder(of);
        let target = record.target.as_deref().and_then(|target| host_id(target).ok());
        match (step, &record.cancelled_by) {
            (Step::Order { .. }, _) | (Step::Rest(Some(_)), None) => trouble.map(|failure| End {
                state: OperationState::Failed,
                step: None,
                failure: Some(failure),
            }),
            (_, Some(by)) => {
                Some(End::of(OperationState::Cancelled, format!("{by} has cancelled it")))
            }
            (Step::Rest(None), None) if target.is_some() && target != holder => {
                let name = |id: HostId| self.host_name(id);
                let place = holder.map_or_else(|| "nowhere".to_owned(), name);
                let target = target.map_or_else(String::new, name);
                let detail = format!("it is on {place}: host {target} does not take it now");
                let hint = "`collective host list` shows hosts that are ready";
                Some(End::failed("state", detail, hint.to_owned()))
            }
            (Step::Rest(None), None) => {
                let place = holder.map(|host| format!(" on {}", self.host_name(host)));
                let place = place.unwrap_or_default();
                let now = self.seen.get(of).map_or("", |seen| seen.head.state.as_str());
                Some(End::of(OperationState::Done, format!("it is {now}{place}")))
            }
            (Step::Stopped, None) => {
                let step = "it ran, and has powered itself off";
                Some(End::of(OperationState::Done, step))
            }
            (Step::Stays(why), None) => {
                let hint = format!("`collective resume {of}` tries it again");
                Some(End::failed("state", why.clone(), hint))
            }
            (Step::Removed, None) => {
                let hint = "`collective ps` lists those that there are";
                Some(End::failed("not_found", format!("{of} was removed"), hint.to_owned()))
            }
        }
    }
}

fn may(ask: &Ask<'_>, project: &str, owner: &str, right: Right) -> Result<()> {
    ask.in_project(project);
    if ask.caller.may_with(project, owner, right) {
        Ok(())
    } else {
        Err(forbidden(Demand::Instance(right)))
    }
}

/// It cannot be called off any more.
fn too_late(detail: String, kind: OperationKind) -> Refused {
    let hint = match kind {
        OperationKind::Start => "when it runs, `collective suspend` or `collective stop` it",
        OperationKind::Move => "when it runs there, `collective move` it back",
        OperationKind::Suspend | OperationKind::Stop => {
            "when it rests, `collective resume` lets it go on"
        }
    };
    Refused::new(409, "state", detail, hint)
}

fn print(operation: OperationRecord, end: End) -> Result<OperationPrint> {
    Ok(OperationPrint {
        instance: instance_of(&operation.id)?.to_string(),
        id: operation.id,
        kind: operation.kind,
        project: operation.belongs.project,
        owner: operation.belongs.owner,
        asked_by: operation.asked_by,
        request: operation.request,
        begun_unix_ms: operation.begun_unix_ms,
        state: end.state,
        step: end.step,
        host: None,
        done_bytes: None,
        cancelled_by: operation.cancelled_by,
        failure: end.failure,
        ended_unix_ms: None,
    })
}

fn print_ended(record: OperatedRecord) -> Result<OperationPrint> {
    let ended_unix_ms = Some(record.ended_unix_ms);
    Ok(OperationPrint { ended_unix_ms, ..print(record.operation, record.end)? })
}
