//! All of the state at one time, and what follows from it.

use std::collections::{BTreeMap, HashMap, HashSet};

use api::{
    HostWish, InstanceSeen, InstanceWish, LoadSeen, OrderAct, OrderPrint, RestartWish, StateWish,
};
use kv::{Entry, Revision};
use model::{Generation, HostId, InstanceState, Name};

use super::hosts::as_planned;
use super::operations::OperationRecord;
use super::{
    HostRecord, InstanceRecord, LOADS, MoveRecord, PlaceRecord, ReliefRecord, Result, SeenRecord,
    TroubleRecord, WayRecord, host_id, name, read,
};
use crate::fleet::Fleet;
use crate::planner::Plan;
use crate::reconcile::{Act, Holder, Restart, Seen, Waiting, Wanted, WantedState, decide};
use crate::serve::Plane;

/// See the module's documentation.
#[derive(Debug, Default)]
pub struct Picture {
    pub wishes: BTreeMap<Name, (Revision, InstanceRecord)>,
    pub seen: BTreeMap<Name, SeenRecord>,
    /// Where a wish counts from, when no head had been seen yet or an order has moved it.
    pub since: BTreeMap<Name, u64>,
    pub places: BTreeMap<Name, PlaceRecord>,
    pub trouble: BTreeMap<Name, TroubleRecord>,
    pub hosts: BTreeMap<HostId, HostRecord>,
    pub alive: HashSet<HostId>,
    pub orders: BTreeMap<(Name, HostId), OrderPrint>,
    /// What somebody has asked and is not over.
    pub operations: BTreeMap<Name, (Revision, OperationRecord)>,
    /// What left a host that was overloaded.
    pub moves: BTreeMap<Name, (Revision, MoveRecord)>,
    /// When instances last came from another host, however that was.
    pub came: BTreeMap<Name, u64>,
    pub loads: HashMap<HostId, LoadSeen>,
    /// None: there is no such key.
    pub relief: HashMap<HostId, (Option<Revision>, ReliefRecord)>,
    /// What hosts say that their instances do.
    says: HashMap<(HostId, String), InstanceSeen>,
    pub now_unix_ms: u64,
    /// Keys that cannot be read: a newer plane's, perhaps. They are left alone.
    pub unreadable: u64,
}

/// What is to be done with an instance now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Nothing, or nothing can be; in words where somebody may wonder.
    Rest(Option<String>),
    /// Nothing can be until a person decides, and why.
    Stays(String),
    /// A host is to do this.
    Order { to: HostId, act: OrderAct, at: u64 },
    /// It was powered off from inside: that is what is wished now.
    Stopped,
    /// It was removed.
    Removed,
}

impl Plane {
    /// Heads before leases: a holder that is thought to be gone was known before.
    pub(in crate::serve) fn picture(&self) -> Result<Picture> {
        let mut picture = Picture { now_unix_ms: ambient::unix_ms(), ..Picture::default() };
        let unreadable = &mut picture.unreadable;
        picture.seen = self.named("seen/", unreadable, read)?;
        picture.wishes =
            self.named("instances/", unreadable, |entry| Ok((entry.revision, read(entry)?)))?;
        picture.operations =
            self.named("operations/", unreadable, |entry| Ok((entry.revision, read(entry)?)))?;
        picture.since = self.named("since/", unreadable, read)?;
        picture.places = self.named("places/", unreadable, read)?;
        picture.trouble = self.named("trouble/", unreadable, read)?;
        for (of, entry) in self.below("orders/")? {
            let (host, of) = of.split_once('/').unwrap_or((&of, ""));
            match (name(of), host_id(host), read(&entry)) {
                (Ok(of), Ok(host), Ok(order)) => drop(picture.orders.insert((of, host), order)),
                _ => picture.unreadable += 1,
            }
        }
        for (of, entry) in self.below("hosts/")? {
            let (Ok(id), Ok(record)) = (host_id(&of), read::<HostRecord>(&entry)) else {
                picture.unreadable += 1;
                continue;
            };
            for seen in &record.report.instances {
                picture.says.insert((id, seen.name.clone()), seen.clone());
            }
            picture.hosts.insert(id, record);
        }
        self.draw_relief(&mut picture)?;
        picture.alive = self.alive()?;
        Ok(picture)
    }

    fn draw_relief(&self, picture: &mut Picture) -> Result<()> {
        let unreadable = &mut picture.unreadable;
        picture.moves =
            self.named("moves/", unreadable, |entry| Ok((entry.revision, read(entry)?)))?;
        let came = |entry: &Entry| Ok(read::<WayRecord>(entry)?.came_unix_ms);
        picture.came = self.named("ways/", unreadable, came)?;
        // One of which nobody has written down when it came has rested.
        picture.came.retain(|_, unix_ms| *unix_ms > 0);
        for (of, entry) in self.below(LOADS)? {
            match (host_id(&of), read(&entry)) {
                (Ok(id), Ok(load)) => drop(picture.loads.insert(id, load)),
                _ => picture.unreadable += 1,
            }
        }
        for (of, entry) in self.below("relief/")? {
            match (host_id(&of), read(&entry)) {
                (Ok(id), Ok(record)) => {
                    picture.relief.insert(id, (Some(entry.revision), record));
                }
                _ => picture.unreadable += 1,
            }
        }
        Ok(())
    }

    fn named<T, M: FromIterator<(Name, T)>>(
        &self,
        prefix: &str,
        unreadable: &mut u64,
        value: impl Fn(&Entry) -> Result<T>,
    ) -> Result<M> {
        let entries = self.below(prefix)?;
        let read = entries.iter().filter_map(|(of, entry)| match (name(of), value(entry)) {
            (Ok(of), Ok(value)) => Some((of, value)),
            _ => {
                *unreadable += 1;
                None
            }
        });
        Ok(read.collect())
    }

    fn below(&self, prefix: &str) -> Result<Vec<(String, Entry)>> {
        let entries = self.kv.list(prefix)?.entries;
        Ok(entries.into_iter().map(|e| (e.key[prefix.len()..].to_owned(), e)).collect())
    }
}

impl Picture {
    /// What the planner looks at.
    pub fn fleet(&self) -> Result<Fleet> {
        let mut fleet = Fleet::default();
        let needed = self.needed();
        for (id, record) in &self.hosts {
            let host = as_planned(*id, record, self.alive.contains(id))?;
            fleet.hosts.push(self.with_load(host));
        }
        for (of, (_, record)) in &self.wishes {
            let wish = &record.wish;
            if wish.state != StateWish::Running || self.waits_for_its_host(of, wish) {
                continue;
            }
            let at = self
                .wished_host(wish)
                .or_else(|| self.on_its_way(of).map(|(target, _)| target))
                .or_else(|| self.holder(of))
                .or_else(|| self.place(of));
            let mut instance = super::instances::as_planned(of.clone(), wish, at)?;
            if instance.base_bytes == 0 {
                instance.base_bytes =
                    needed.get(wish.version.as_str()).copied().unwrap_or_default();
            }
            fleet.instances.push(self.with_cost(instance));
        }
        Ok(fleet)
    }

    /// Of each version, the most that any host says that a start needs.
    fn needed(&self) -> HashMap<&str, u64> {
        let mut needed = HashMap::new();
        for (version, bytes) in self.hosts.values().flat_map(|host| &host.report.needed) {
            let most: &mut u64 = needed.entry(version.as_str()).or_default();
            *most = (*most).max(*bytes);
        }
        needed
    }

    /// Its host is gone, and it is not to start elsewhere by itself.
    fn waits_for_its_host(&self, of: &Name, wish: &InstanceWish) -> bool {
        let gone = self.holder(of).is_some_and(|id| !self.alive.contains(&id));
        gone && wish.restart == RestartWish::Never && !wish.take_over
    }

    pub(super) fn holder(&self, of: &Name) -> Option<HostId> {
        self.seen.get(of)?.head.holder.as_deref()?.parse().ok()
    }

    /// Of one that its host has let go and that alone has what it wrote last: that host, when it is gone.
    fn lost_on_its_way(&self, of: &Name) -> Option<HostId> {
        let by = self.seen.get(of)?.head.offered_by.as_deref()?.parse().ok()?;
        (!self.alive.contains(&by)).then_some(by)
    }

    /// Where it was to start, while it can.
    fn place(&self, of: &Name) -> Option<HostId> {
        let on = self.places.get(of)?.on.as_deref()?.parse().ok()?;
        self.takes(on).then_some(on)
    }

    /// Where somebody wants it, while it can be there.
    fn wished_host(&self, wish: &InstanceWish) -> Option<HostId> {
        let on = wish.on.as_deref()?.parse().ok()?;
        self.takes(on).then_some(on)
    }

    fn takes(&self, id: HostId) -> bool {
        let wish = self.hosts.get(&id).map(|record| record.wish);
        self.alive.contains(&id) && wish.is_some_and(|wish| wish != HostWish::Draining)
    }

    /// The name of a host, for people.
    pub fn host_name(&self, id: HostId) -> String {
        self.hosts.get(&id).map_or_else(|| id.short(), |record| record.report.name.clone())
    }

    /// What is to be done with each instance now, and where it is to start.
    pub fn steps(&self, plan: &Plan) -> Vec<(Name, Step, Option<HostId>)> {
        let mut chosen: HashMap<&Name, (Option<HostId>, String)> = HashMap::new();
        for choice in &plan.choices {
            let on = choice.decision.target();
            chosen.insert(&choice.instance, (on, choice.why.reasons().join("; ")));
        }
        let of = |name: &Name| chosen.get(name).map(|(on, why)| (*on, why.as_str()));
        self.wishes
            .iter()
            .map(|(name, (_, record))| {
                let (step, on) = self.step(name, record, of(name));
                (name.clone(), step, on)
            })
            .collect()
    }

    fn step(
        &self,
        of: &Name,
        record: &InstanceRecord,
        chosen: Option<(Option<HostId>, &str)>,
    ) -> (Step, Option<HostId>) {
        let wish = &record.wish;
        let Some(seen) = self.seen.get(of) else {
            return (self.look(of), None);
        };
        let head = &seen.head;
        if record.only_new && !seen.was_none && head.state != "none" {
            let why = "the repository has a computer of this name already, which is not this project's: \
                       choose another name, or an operator of all projects brings it under the plane";
            return (Step::Stays(why.to_owned()), None);
        }
        if let Some(called_off) = self.called_off(of)
            && head.holder.is_none()
        {
            // A shim that has not taken it yet may be there.
            let said = self
                .says
                .keys()
                .any(|(host, said)| said == of.as_str() && self.alive.contains(host));
            if !seen.looked || said {
                return (self.look(of), None);
            }
            if head.state == "none" && called_off.is_new() {
                return (Step::Removed, None);
            }
        }
        // Who alone has what it wrote last, and is gone, holds it as who ran it would.
        let holder = self.holder(of).or_else(|| self.lost_on_its_way(of));
        // Generations only grow: the later one of both.
        let counts_from = record.at.max(self.since.get(of).copied());
        let since = counts_from.is_some_and(|at| at < head.generation);
        if holder.is_none() && since {
            match head.state.as_str() {
                "none" => return (Step::Removed, None),
                "stopped"
                    if wish.state == StateWish::Running && wish.restart != RestartWish::Always =>
                {
                    return (Step::Stopped, None);
                }
                _ => {}
            }
        }
        if holder.is_none() && head.state == "none" && wish.appliance.is_none() {
            return (Step::Stays("there is no such instance in the repository".into()), None);
        }
        let on_its_way = || self.on_its_way(of).map(|(target, _)| target);
        let on = self.wished_host(wish).or_else(on_its_way).or(match (chosen, holder) {
            (Some((on, _)), _) => on,
            (None, None) => self.place(of),
            (None, Some(_)) => None,
        });
        let state = match holder {
            // Nothing else takes it, and time is over.
            Some(host) if on.is_none() && self.must_leave(host) => WantedState::Suspended,
            _ => match wish.state {
                StateWish::Running => WantedState::Running,
                StateWish::Suspended => WantedState::Suspended,
                StateWish::Stopped => WantedState::Stopped,
            },
        };
        let restart = match wish.restart {
            RestartWish::Never if !wish.take_over => Restart::Never,
            _ => Restart::OnFailure,
        };
        let says = holder.map(|host| {
            let holder = match (self.alive.contains(&host), self.hosts.contains_key(&host)) {
                (true, _) => Holder::Lives { says: self.says(host, of) },
                (false, true) => Holder::Gone,
                (false, false) => Holder::Unknown,
            };
            (host, holder)
        });
        if let Some((host, Holder::Lives { says: None })) = says
            && !seen.looked
        {
            let at = head.generation;
            return (Step::Order { to: host, act: OrderAct::Look, at }, None);
        }
        if let Some((host, Holder::Gone)) = says
            && state == WantedState::Running
            && !wish.take_over_anyway
            && head.offered_by.is_none()
            && !self.says.get(&(host, of.to_string())).is_some_and(|seen| seen.managed)
        {
            let why = "its host is gone, and has not said that it holds it: it may run there still";
            return (Step::Rest(Some(why.to_owned())), None);
        }
        let wanted = Wanted { state, on, restart };
        let now = Seen {
            generation: Generation(head.generation),
            holder: says,
            target_lives: on.is_some_and(|on| self.alive.contains(&on)),
        };
        let step = match decide(&wanted, &now) {
            Act::Nothing => Step::Rest(None),
            Act::Wait(why @ Waiting::Failed) => Step::Stays(why.to_string()),
            Act::Wait(why) => Step::Rest(Some(why.to_string())),
            Act::FindPlace => {
                let why = chosen.map_or("no host was found yet", |(_, why)| why);
                Step::Rest(Some(why.to_owned()))
            }
            Act::Start { on, at } => Step::Order { to: on, act: OrderAct::Start, at: at.0 },
            Act::TakeOver { on, at, .. } => {
                Step::Order { to: on, act: OrderAct::TakeOver, at: at.0 }
            }
            Act::Suspend { on, at } => {
                let leaves = wanted.state == WantedState::Running;
                let act = if leaves { OrderAct::Leave } else { OrderAct::Suspend };
                Step::Order { to: on, act, at: at.0 }
            }
            Act::Stop { on, at } => Step::Order { to: on, act: OrderAct::Stop, at: at.0 },
        };
        (step, on)
    }

    /// Somebody has to look whether it is there.
    fn look(&self, of: &Name) -> Step {
        let tries = self.trouble.get(of).map_or(0, |trouble| trouble.tries);
        let alive: Vec<_> = self.hosts.keys().filter(|id| self.alive.contains(id)).collect();
        // Not one host for all; and another one each time: the first may have another repository, or none.
        let number = |sum: usize, byte: u8| sum.wrapping_mul(31).wrapping_add(usize::from(byte));
        let first = of.as_str().bytes().fold(0, number);
        let eyes = alive.get(first.wrapping_add(tries as usize) % alive.len().max(1)).copied();
        match eyes {
            Some(to) => Step::Order { to: *to, act: OrderAct::Look, at: 0 },
            None => Step::Rest(Some("no host is there".to_owned())),
        }
    }

    pub(super) fn says(&self, host: HostId, of: &Name) -> Option<InstanceState> {
        match self.says.get(&(host, of.to_string()))?.state.as_str() {
            // It is on its way.
            "starting" | "running" => Some(InstanceState::Running),
            "paused" => Some(InstanceState::Paused),
            "suspended" => Some(InstanceState::Suspended),
            "stopped" => Some(InstanceState::Stopped),
            _ => Some(InstanceState::Failed),
        }
    }

    fn must_leave(&self, host: HostId) -> bool {
        self.hosts.get(&host).is_some_and(|record| {
            record.wish == HostWish::Draining && record.drain_by_unix_ms <= self.now_unix_ms
        })
    }
}
