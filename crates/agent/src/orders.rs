//! Orders: each is carried out by the verbs that a person would use, and only at its generation. While any
//! is, the plane is told once a second how far it is, as it is asked for more.

use std::collections::HashMap;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::sync::{Arc, MutexGuard, PoisonError};
use std::thread::Scope;
use std::time::Duration;

use api::{
    CheckpointPrint, OrderAct, OrderCost, OrderEnd, OrderPrint, OrderReport, OrderUnderWay,
    OrdersKnown, Trouble,
};
use host::record::UpdatePolicy;
use host::{
    Accelerator, Failure, Reference, ResumeOptions, RunOptions, Size, StartOptions, parse_port,
};
use model::{Generation, Name, format_bytes};
use plane::client::{Client, REQUEST};
use spans::{Fact, Kind, Span};

use crate::work::Work;
use crate::{Agent, Heard, RETRY};

/// How long the plane may let us wait for an order.
const WAIT: Duration = Duration::from_secs(10);
/// And while one is carried out: so often the plane is told how far it is.
const TELL: Duration = Duration::from_secs(1);
/// How long a guest may take to become ready.
const READY: Duration = Duration::from_secs(300);
/// How long a guest may take to power off.
const POWER_OFF: Duration = Duration::from_secs(60);
/// Before a guest leaves, what it has is stored while it runs on, this often at most...
const NARROWINGS_MAX: usize = 4;
/// ...until that took no longer.
const NARROW: Duration = Duration::from_secs(1);
/// So often it is looked whether a start is called off.
const LOOK: Duration = Duration::from_millis(50);
/// Orders that are carried out at once.
const AT_ONCE: usize = 8;

/// How it went.
enum Outcome {
    Done(Option<OrderCost>),
    Refused,
    Failed(Failure),
}

impl Agent<'_> {
    /// Asks for orders, and begins each, until the agent ends.
    pub fn take_orders<'s>(&'s self, scope: &'s Scope<'s, '_>) {
        let path = format!("/v1/hosts/{}/orders", self.host.id());
        let mut client = None;
        while !self.over.load(Ordering::Relaxed) {
            // The certificate may be another one by now; and who beats has a connection of its own.
            let by = self.client();
            if client.as_ref().is_none_or(|(known, _)| !Arc::ptr_eq(known, &by)) {
                client = by.twin().ok().map(|twin| (by, twin));
            }
            let Some((by, twin)) = &client else {
                ambient::sleep(RETRY);
                continue;
            };
            let works: Vec<_> = self.under_way().values().cloned().collect();
            let wait = if works.is_empty() { WAIT } else { TELL };
            let asked = OrdersKnown {
                known: works.iter().map(|work| work.order.id.clone()).collect(),
                wait_ms: wait.as_millis() as u64,
                under_way: works.iter().map(|work| self.told(work)).collect(),
            };
            let Ok(orders) = twin.post::<Vec<OrderPrint>>(&path, &asked) else {
                ambient::sleep(RETRY);
                continue;
            };
            works.iter().for_each(|work| work.stands_among(&orders));
            let mut begun = false;
            for order in orders {
                let mut busy = self.under_way();
                if busy.len() >= AT_ONCE || busy.contains_key(&order.name) {
                    continue;
                }
                // One that cannot say what came of it must not be begun.
                let Ok(client) = by.twin() else { continue };
                let work = Arc::new(Work::new(order));
                busy.insert(work.order.name.clone(), work.clone());
                begun = true;
                scope.spawn(move || {
                    self.carry_out(&work, client);
                    self.under_way().remove(&work.order.name);
                });
            }
            if !begun {
                // What is there already is under way, or waits for its turn.
                ambient::sleep(Duration::from_millis(200));
            }
        }
    }

    fn under_way(&self) -> MutexGuard<'_, HashMap<String, Arc<Work>>> {
        self.under_way.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn told(&self, work: &Work) -> OrderUnderWay {
        let name = Name::new(&work.order.name).ok();
        work.told(|| self.host.fetched_bytes(&name?))
    }

    fn carry_out(&self, work: &Work, mut client: Client) {
        let order = &work.order;
        let Ok(name) = Name::new(&order.name) else { return };
        let mut span = Span::below(
            format!("host {}", order.act.as_str()),
            Kind::Asked,
            order.traceparent.as_deref(),
        );
        span.say(Fact::Instance, &order.name);
        span.say(Fact::Order, &order.id);
        span.say(Fact::Host, self.host.id().to_string());
        let outcome = {
            let _on = span.enter();
            self.obey(work, &name)
        };
        // The plane hears of what runs here before it hears that the order is done.
        if matches!(self.beat(&client, REQUEST), Ok(Ok(_))) {
            self.tenure.begun(&name);
        }
        let (end, trouble, cost) = match outcome {
            Outcome::Done(cost) => (OrderEnd::Done, None, cost),
            Outcome::Refused => (OrderEnd::Refused, None, None),
            Outcome::Failed(failure) => {
                let Failure { kind, message, hint } = failure;
                let trouble = Trouble { kind: kind.to_owned(), detail: message, hint };
                (OrderEnd::Failed, Some(trouble), None)
            }
        };
        self.figures.ordered(end);
        span.say(Fact::Status, ended(end));
        if let Some(trouble) = &trouble {
            span.failed(&trouble.kind);
        }
        if order.act != OrderAct::Look || trouble.is_some() {
            (self.heard)(&Heard::Did(words(order, end, trouble.as_ref())));
        }
        let (id, of) = (order.id.clone(), order.name.clone());
        let head = self.host.head_seen(&name).ok();
        let report = OrderReport { order: id, name: of, act: order.act, end, trouble, head, cost };
        let path = format!("/v1/hosts/{}/done", self.host.id());
        let _on = span.enter();
        while !self.over.load(Ordering::Relaxed)
            && client.send("POST", &path, &[], Some(&report)).is_err()
        {
            ambient::sleep(RETRY);
            // Whichever plane is asked by now.
            client = self.client().twin().unwrap_or(client);
        }
    }

    fn obey(&self, work: &Work, name: &Name) -> Outcome {
        let order = &work.order;
        let done = match order.act {
            OrderAct::Look => self.host.head_seen(name).map(|_| None),
            OrderAct::Unknown => {
                let what = "its plane is newer, and orders what this host does not know";
                Err(Failure::new("format", what, "upgrade this host"))
            }
            OrderAct::Start if order.called_off => {
                // An agent before this one may have begun it.
                let _ = self.host.call_off(name);
                return Outcome::Refused;
            }
            OrderAct::Start | OrderAct::TakeOver => match self.tenure.begins(self.host, name) {
                Ok(true) => self.start_unless_called_off(work, name).map(Some),
                // The plane counts this host as gone, or will soon.
                Ok(false) => return Outcome::Refused,
                Err(failure) => Err(failure),
            },
            OrderAct::Suspend | OrderAct::Leave | OrderAct::Stop => {
                if self.host.generation_here(name) != Some(Generation(order.at)) {
                    return Outcome::Refused;
                }
                match order.act {
                    OrderAct::Stop => self.host.stop(name, false, POWER_OFF).map(|_| None),
                    OrderAct::Leave => self.leave(work, name).map(Some),
                    _ => self.host.suspend(name, None).map(|last| Some(let_go(&last))),
                }
            }
        };
        match done {
            Ok(cost) => Outcome::Done(cost),
            // The head was moved by somebody else, or what was ordered is so already.
            Err(failure)
                if ["changed", "lease", "fenced", "exists", "state"].contains(&failure.kind) =>
            {
                Outcome::Refused
            }
            Err(failure) => Outcome::Failed(failure),
        }
    }

    /// Lets it go straight to the next host, which gets from here what the repository does not have yet.
    /// Where that cannot be, stores what it has while it runs on, until little is left, and only then lets
    /// it stand still. When the plane wants it to stay after all before that, it does.
    fn leave(&self, work: &Work, name: &Name) -> Result<OrderCost, Failure> {
        let identity = self.identity.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let target = work.order.target.as_deref();
        if let Some(here) = target.and_then(|target| self.giving.given_at(&identity, target)) {
            work.goes_past("it goes straight to its next host".to_owned(), 0)?;
            match self.host.part(name, &here) {
                Ok(last) => return Ok(let_go(&last)),
                Err(failure) if failure.kind == "fenced" => return Err(failure),
                // It runs on: a shim of before, or one that has more to store than this.
                Err(_) => {}
            }
        }
        let mut stored_bytes = 0;
        for pass in 1..=NARROWINGS_MAX {
            let step = format!("what it has is stored while it runs on, pass {pass}");
            work.goes_on(step, stored_bytes)?;
            let stored = self.host.checkpoint_by_itself(name)?;
            stored_bytes += stored.stored_bytes;
            if stored.total_ms < NARROW.as_millis() as u64 {
                break;
            }
        }
        work.goes_past("it stands still while the rest is stored".to_owned(), stored_bytes)?;
        let last = let_go(&self.host.suspend(name, None)?);
        Ok(OrderCost { stored_bytes: stored_bytes + last.stored_bytes, ..last })
    }

    /// Starts it, and calls that off when the plane does not want it any more before the guest runs.
    fn start_unless_called_off(&self, work: &Work, name: &Name) -> Result<OrderCost, Failure> {
        let (ends, ended) = channel::<()>();
        std::thread::scope(|scope| {
            scope.spawn(move || {
                while ended.recv_timeout(LOOK) == Err(RecvTimeoutError::Timeout) {
                    // Nobody answers before its shim is there; then it is asked again.
                    if work.is_to_end() && matches!(self.host.call_off(name), Ok(false)) {
                        work.passes();
                    }
                }
            });
            let started = self.start(&work.order, name);
            drop(ends);
            started
        })
    }

    fn start(&self, order: &OrderPrint, name: &Name) -> Result<OrderCost, Failure> {
        let start = StartOptions {
            ports: order.ports.iter().map(|port| parse_port(port)).collect::<Result<_, _>>()?,
            network: order.network.as_deref().map(named).transpose()?,
            accel: Accelerator::Auto,
            wait: false,
            timeout: READY,
        };
        let head = self.host.head_seen(name)?;
        let started = match &order.appliance {
            Some(appliance) if head.state == "none" => {
                if head.generation != order.at {
                    let hint = "look at it again";
                    return Err(Failure::new("changed", format!("{name} was removed"), hint));
                }
                let appliance = Reference::parse(appliance)?;
                no_larger(order, &self.host.size_of(&appliance)?)?;
                let options = RunOptions {
                    appliance,
                    updates: UpdatePolicy::Auto,
                    name: Some(name.clone()),
                    properties: Vec::new(),
                    user_data: None,
                    network_config: None,
                    boot: false,
                    auto: None,
                    start,
                };
                self.host.run(&options)?
            }
            _ => {
                no_larger(order, &self.host.size_of_instance(name)?)?;
                let take_over = order.act == OrderAct::TakeOver;
                let at = Some(Generation(order.at));
                let options = ResumeOptions { name: name.clone(), take_over, at, start };
                self.host.resume(&options)?
            }
        };
        let (fetched_bytes, peer_bytes) = (started.fetched_bytes, started.peer_bytes);
        Ok(OrderCost { fetched_bytes, peer_bytes, ..OrderCost::default() })
    }
}

/// A guest stands still while what it has is stored.
fn let_go(last: &CheckpointPrint) -> OrderCost {
    let (stood_ms, stored_bytes) = (last.total_ms, last.stored_bytes);
    OrderCost { stood_ms, stored_bytes, ..OrderCost::default() }
}

/// Refuses what needs more than was wished for: that is what its project's quota was asked for.
fn no_larger(order: &OrderPrint, needs: &Size) -> Result<(), Failure> {
    let cpus = order.cpus.unwrap_or(u32::MAX);
    let memory_bytes = order.memory_bytes.unwrap_or(u64::MAX);
    if needs.cpus <= cpus && needs.memory_bytes <= memory_bytes {
        return Ok(());
    }
    let size = |cpus, bytes| format!("{cpus} CPUs and {}", format_bytes(bytes));
    let what = format!(
        "it needs {}, and was wished for with {}",
        size(needs.cpus, needs.memory_bytes),
        size(cpus, memory_bytes)
    );
    let hint = format!("`collective resume {}` wishes for what it needs", order.name);
    Err(Failure::new("quota", what, hint))
}

fn named(network: &str) -> Result<Name, Failure> {
    Name::new(network).map_err(|e| Failure::new("usage", e.to_string(), ""))
}

fn ended(end: OrderEnd) -> &'static str {
    match end {
        OrderEnd::Done => "done",
        OrderEnd::Refused => "refused",
        OrderEnd::Failed => "failed",
        OrderEnd::Unknown => "unknown",
    }
}

fn words(order: &OrderPrint, end: OrderEnd, trouble: Option<&Trouble>) -> String {
    let did = match order.act {
        OrderAct::Start => "started",
        OrderAct::TakeOver => "taken over",
        OrderAct::Suspend | OrderAct::Leave => "suspended",
        OrderAct::Stop => "stopped",
        OrderAct::Look => "looked at",
        OrderAct::Unknown => "obeyed",
    };
    match (end, trouble) {
        (OrderEnd::Done, _) => format!("{} was {did}", order.name),
        (OrderEnd::Refused, _) => {
            format!("{} was not {did}: it has gone on, or its plane has called it back", order.name)
        }
        (OrderEnd::Failed, Some(why)) => format!("{} was not {did}: {}", order.name, why.detail),
        (OrderEnd::Failed | OrderEnd::Unknown, _) => format!("{} was not {did}", order.name),
    }
}

#[cfg(test)]
mod tests {
    use model::VersionId;

    use super::*;

    #[test]
    fn what_is_larger_than_was_wished_for_is_not_started() {
        let order = |cpus, memory_bytes| OrderPrint {
            cpus,
            memory_bytes,
            ..OrderPrint::new("1", "web", OrderAct::Start, 0)
        };
        let version = VersionId::from_bytes([1; 32]);
        let needs = Size { version, cpus: 2, memory_bytes: 1 << 30 };
        no_larger(&order(Some(2), Some(1 << 30)), &needs).unwrap();
        no_larger(&order(Some(8), Some(8 << 30)), &needs).unwrap();
        // An older plane does not say.
        no_larger(&order(None, None), &needs).unwrap();
        for less in
            [order(Some(1), Some(1 << 30)), order(Some(2), Some(1 << 29)), order(None, Some(0))]
        {
            let failure = no_larger(&less, &needs).unwrap_err();
            assert_eq!(failure.kind, "quota");
            assert!(failure.message.starts_with("it needs 2 CPUs and 1.0 GiB, and"), "{failure}");
            assert!(failure.hint.contains("resume web"), "{failure}");
        }
    }
}
