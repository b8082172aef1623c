//! Steering, tried: hosts that are late, die, come back and are drained, people who change their minds,
//! from one number each time. Hosts and the repository are of the test's own making, in memory; the
//! plane is the real one on a real state, and leases end when the test says so. So does time go by for
//! what rests: what was written down of it becomes older.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use api::{
    HeadSeen, HostChange, HostReport, HostWish, InstanceChange, InstanceLoad, InstanceSeen,
    InstanceWish, LoadSeen, OperationState, OrderAct, OrderCost, OrderEnd, OrderPrint, OrderReport,
    OrdersKnown, RestartWish, StateWish,
};
use kv::Txn;
use model::{HostId, Name};

use super::Plane;
use super::ask::{Ask, Request};
use super::state::{MoveRecord, ReliefRecord, WayRecord, json};
use crate::access::Caller;
use crate::planner::{HOST_REST_MS, INSTANCE_REST_MS};

const HOSTS: u16 = 4;
const INSTANCES: usize = 6;
const STEPS: usize = 400;
/// The one that stays, however busy its host is.
const PINNED: &str = "i5";

#[derive(Debug, Clone, PartialEq)]
struct Head {
    generation: u64,
    holder: Option<u16>,
    state: &'static str,
}

#[derive(Debug, Default)]
struct Host {
    /// By its own clock its lease lasts: what it runs runs.
    lease: bool,
    /// Cut off: it reaches nobody.
    away: bool,
    /// What runs, and the generation that it wrote last.
    runs: BTreeMap<String, u64>,
    /// Orders that it has and has not come to.
    orders: Vec<OrderPrint>,
}

struct World {
    plane: Arc<Plane>,
    chance: u64,
    heads: BTreeMap<String, Head>,
    hosts: Vec<Host>,
    /// How many there are, by number.
    instances: usize,
    taken_over: u32,
    refused: u32,
    cancelled: u32,
    /// What was asked of each first.
    first: BTreeMap<String, String>,
    /// What an instance has of processors while it runs, of one CPU.
    uses: BTreeMap<String, u32>,
    /// How long it has been, by what the test has let go by, ms.
    clock_ms: u64,
    /// What has been moved to relieve a host: when it was last seen to be decided, and what was.
    moves: BTreeMap<String, (u64, MoveRecord)>,
    /// When hosts last took part.
    took_part: BTreeMap<String, u64>,
    relieved: u32,
    began: ambient::Instant,
    _folder: tempfile::TempDir,
}

/// Whose wishes they are.
fn asked<T>(by: impl FnOnce(&Ask<'_>) -> T) -> T {
    let caller = Caller::Administrator;
    by(&Ask::new(&Request::default(), &caller, Vec::new()))
}

/// As busy as what runs there makes it.
fn load(host: &Host, uses: &BTreeMap<String, u32>) -> LoadSeen {
    let used = |name: &String| uses.get(name).copied().unwrap_or_default();
    let load = |name: &String| InstanceLoad {
        cpu_percent: Some(used(name)),
        unsaved_bytes: Some(u64::from(used(name)) << 20),
    };
    LoadSeen {
        cpu_percent: host.runs.keys().map(used).sum::<u32>() / 8,
        memory_percent: 15 + 30 * host.runs.len() as u32,
        instances: host.runs.keys().map(|name| (name.clone(), load(name))).collect(),
        round_trips_us: BTreeMap::new(),
    }
}

fn id(host: u16) -> HostId {
    let [high, low] = (host + 1).to_be_bytes();
    HostId::from_bytes(std::array::from_fn(|at| if at % 2 == 0 { high } else { low }))
}

impl World {
    fn below(&mut self, count: usize) -> usize {
        self.chance ^= self.chance << 13;
        self.chance ^= self.chance >> 7;
        self.chance ^= self.chance << 17;
        (self.chance >> 11) as usize % count
    }

    fn beat(&mut self, at: u16) {
        let host = &mut self.hosts[usize::from(at)];
        if host.away {
            return;
        }
        if !host.lease {
            // Before anything goes on, its head is advanced; what others have is a branch now.
            host.lease = true;
            for (name, generation) in std::mem::take(&mut host.runs) {
                let head = self.heads.get_mut(&name).expect("what ran has a head");
                if head.generation == generation && head.holder == Some(at) {
                    head.generation += 1;
                    host.runs.insert(name, head.generation);
                }
            }
        }
        let instances = host.runs.iter().map(|(name, generation)| InstanceSeen {
            name: name.clone(),
            state: "running".to_owned(),
            generation: *generation,
            managed: true,
            cpus: 0,
            memory_bytes: 0,
        });
        let report = HostReport {
            name: format!("h{at}"),
            labels: BTreeMap::new(),
            cpus: 8,
            memory_bytes: 8 << 30,
            kvm: false,
            cache_bytes: 0,
            cached: BTreeMap::new(),
            needed: BTreeMap::new(),
            instances: instances.collect(),
            peer: None,
            // One of them is a release older.
            load: (at > 0).then(|| load(host, &self.uses)),
        };
        self.plane.beat(id(at), report).unwrap();
        let known = OrdersKnown::default();
        for order in self.plane.orders(id(at), &known).unwrap() {
            // An order may be carried out twice, and long after it was given.
            self.hosts[usize::from(at)].orders.push(order);
        }
    }

    /// An instance has more to do, or less.
    fn work(&mut self) {
        let name = format!("i{}", self.below(self.instances));
        let uses = [0, 5, 300, 500, 700][self.below(5)];
        self.uses.insert(name, uses);
    }

    /// The host is cut off: it stops by its own clock, and only then the plane sees its lease end.
    fn cut_off(&mut self, at: u16) {
        let host = &mut self.hosts[usize::from(at)];
        (host.lease, host.away) = (false, true);
        let key = format!("alive/{}", id(at));
        self.plane.kv.commit(&Txn::new().delete(&key)).unwrap();
    }

    fn obey(&mut self, at: u16) {
        let count = self.hosts[usize::from(at)].orders.len();
        if count == 0 || !self.hosts[usize::from(at)].lease {
            return;
        }
        let which = self.below(count);
        let order = self.hosts[usize::from(at)].orders.remove(which);
        let none = Head { generation: 0, holder: None, state: "none" };
        let head = self.heads.entry(order.name.clone()).or_insert(none);
        let host = &mut self.hosts[usize::from(at)];
        let mine = host.runs.get(&order.name) == Some(&order.at);
        let free = head.holder.is_none() || order.act == OrderAct::TakeOver;
        let done = match order.act {
            OrderAct::Look => true,
            OrderAct::Start if order.called_off => false,
            OrderAct::Start | OrderAct::TakeOver if head.generation == order.at => {
                // What a crash left goes on where it is.
                let ok = free || head.holder == Some(at);
                if ok {
                    self.taken_over += u32::from(order.act == OrderAct::TakeOver);
                    *head = Head { generation: order.at + 1, holder: Some(at), state: "running" };
                    host.runs.insert(order.name.clone(), head.generation);
                }
                ok
            }
            OrderAct::Suspend | OrderAct::Leave | OrderAct::Stop if mine => {
                assert_eq!(head.generation, order.at, "what runs with a lease has its head");
                host.runs.remove(&order.name);
                let state = if order.act == OrderAct::Stop { "stopped" } else { "suspended" };
                *head = Head { generation: order.at + 1, holder: None, state };
                true
            }
            _ => false,
        };
        self.refused += u32::from(!done);
        let seen = HeadSeen {
            name: order.name.clone(),
            generation: head.generation,
            holder: head.holder.map(|host| id(host).to_string()),
            state: head.state.to_owned(),
            checkpoint_unix_ms: None,
            offered_by: None,
        };
        let end = if done { OrderEnd::Done } else { OrderEnd::Refused };
        let (act, order, name) = (order.act, order.id, order.name);
        let (head, cost) = (Some(seen), done.then(OrderCost::default));
        let report = OrderReport { order, name, act, end, trouble: None, head, cost };
        // It may be lost.
        if self.below(8) > 0 {
            self.plane.order_ended(id(at), &report).unwrap();
        }
    }

    fn wish(&mut self) {
        let name = Name::new(&format!("i{}", self.below(self.instances))).unwrap();
        let states =
            [StateWish::Running, StateWish::Running, StateWish::Suspended, StateWish::Stopped];
        let state = states[self.below(states.len())];
        let on = (self.below(3) == 0).then(|| id(self.below(self.hosts.len()) as u16).to_string());
        let change = InstanceChange { state: Some(state), on, ..Default::default() };
        asked(|ask| self.plane.rewish(ask, &name, None, &change)).unwrap();
    }

    /// What was asked of one is called off; not the first time, or there would be nothing any more.
    fn cancel(&mut self) {
        let name = Name::new(&format!("i{}", self.below(self.instances))).unwrap();
        let placed = self.plane.placed(&name).unwrap();
        let Some(operation) = placed.operation.filter(|_| self.heads.contains_key(name.as_str()))
        else {
            return;
        };
        if self.first.get(name.as_str()) == Some(&operation.id) {
            return;
        }
        match asked(|ask| self.plane.cancel_operation(ask, &operation.id, None)) {
            Ok(()) => self.cancelled += 1,
            Err(refused) => assert_eq!(refused.status, 409, "{refused:?}"),
        }
        let (_, now) = self.plane.known_operation(&operation.id).unwrap();
        assert!(now.state != OperationState::Cancelled || now.cancelled_by.is_some(), "{now:?}");
    }

    fn wish_on(&self, of: usize, host: u16) {
        let name = Name::new(&format!("i{of}")).unwrap();
        let (state, on) = (Some(StateWish::Running), Some(id(host).to_string()));
        let change = InstanceChange { state, on, ..Default::default() };
        asked(|ask| self.plane.rewish(ask, &name, None, &change)).unwrap();
    }

    fn drain(&mut self) {
        let at = self.below(self.hosts.len()) as u16;
        let wishes = [HostWish::Ready, HostWish::Ready, HostWish::Cordoned, HostWish::Draining];
        let state = wishes[self.below(wishes.len())];
        let change = HostChange { state, within_s: Some(0) };
        // One that has not been heard of yet is not known.
        let _ = asked(|ask| self.plane.wish_host(ask, id(at), None, change));
    }

    /// What is written down of reliefs becomes older.
    fn rest(&mut self) {
        let by_ms = [30_000, HOST_REST_MS / 2, INSTANCE_REST_MS / 2][self.below(3)];
        self.clock_ms += by_ms;
        for entry in self.plane.kv.list("moves/").unwrap().entries {
            let mut record: MoveRecord = serde_json::from_slice(&entry.value).unwrap();
            record.unix_ms -= by_ms;
            let known = entry.key.strip_prefix("moves/").and_then(|of| self.moves.get_mut(of));
            known.expect("it was seen").1 = record.clone();
            self.plane.kv.commit(&Txn::new().put(&entry.key, json(&record))).unwrap();
        }
        for entry in self.plane.kv.list("relief/").unwrap().entries {
            let mut record: ReliefRecord = serde_json::from_slice(&entry.value).unwrap();
            record.unix_ms = record.unix_ms.map(|at| at - by_ms);
            self.plane.kv.commit(&Txn::new().put(&entry.key, json(&record))).unwrap();
        }
        for entry in self.plane.kv.list("ways/").unwrap().entries {
            let mut way: WayRecord = serde_json::from_slice(&entry.value).unwrap();
            way.came_unix_ms = way.came_unix_ms.saturating_sub(by_ms);
            self.plane.kv.commit(&Txn::new().put(&entry.key, json(&way))).unwrap();
        }
    }

    /// Steers, and looks at what leaves a host that is overloaded: neither it nor any of both hosts may
    /// have taken part in that lately, and each host may.
    fn steer(&mut self, what: &str) {
        // What has really gone by counts too: it was decided between these two.
        let now = |world: &Self| world.clock_ms + world.began.elapsed().as_millis() as u64;
        let before = now(self);
        self.plane.steer().unwrap();
        let after = now(self) + 1000;
        let rested = |last: Option<u64>, rest| last.is_none_or(|last| after - last >= rest);
        for entry in self.plane.kv.list("moves/").unwrap().entries {
            let of = entry.key["moves/".len()..].to_owned();
            let record: MoveRecord = serde_json::from_slice(&entry.value).unwrap();
            let last = self.moves.get(&of);
            if last.is_some_and(|(_, last)| *last == record) {
                continue;
            }
            self.relieved += 1;
            let last = last.map(|(at, _)| *at);
            assert!(rested(last, INSTANCE_REST_MS), "{what}: {of} moves again: {record:?}");
            assert!(of != PINNED && record.why.len() == 3, "{what}: {of}: {record:?}");
            assert_ne!(
                record.target,
                id(0).to_string(),
                "{what}: {of}: nobody knows how busy it is"
            );
            for host in [&record.source, &record.target] {
                let last = self.took_part.insert(host.clone(), before);
                assert!(rested(last, HOST_REST_MS), "{what}: {host} again: {record:?}");
                let (_, host) = self.plane.host(host.parse().unwrap()).unwrap();
                assert_eq!(host.state, "ready", "{what}: {record:?}");
            }
            self.moves.insert(of, (before, record));
        }
    }

    /// What waits to be tried again waits no longer.
    fn time_goes_by(&self) {
        for entry in self.plane.kv.list("trouble/").unwrap().entries {
            self.plane.kv.commit(&Txn::new().delete(&entry.key)).unwrap();
        }
    }

    fn check(&self, what: &str) {
        let mut live = BTreeSet::new();
        for (at, host) in self.hosts.iter().enumerate().filter(|(_, host)| host.lease) {
            for (name, generation) in &host.runs {
                assert!(live.insert(name.clone()), "{what}: two copies of {name} run");
                let head = &self.heads[name];
                assert_eq!(
                    (head.generation, head.holder),
                    (*generation, Some(at as u16)),
                    "{what}"
                );
            }
        }
    }

    /// Everything is as it is wished, nobody works on anything, and what was counted adds up.
    fn has_ended_well(&self, what: &str) {
        for placed in self.plane.instances(&Caller::Administrator).unwrap() {
            let head = &self.heads[&placed.name];
            let says = format!("{what}: {placed:?}, {head:?}");
            match placed.wish.state {
                StateWish::Running => {
                    let on = head.holder.unwrap_or_else(|| panic!("{says}"));
                    assert!(self.hosts[usize::from(on)].runs.contains_key(&placed.name), "{says}");
                    let wished = placed.wish.on.as_ref();
                    assert!(wished.is_none_or(|wished| *wished == id(on).to_string()), "{says}");
                }
                // One that rests already is not woken to rest in another way.
                StateWish::Suspended | StateWish::Stopped => {
                    assert_eq!(head.holder, None, "{says}");
                }
            }
            assert_eq!(placed.next, None, "{says}");
        }
        assert_eq!(self.plane.counted(), self.plane.counted_anew(), "{what}");
        for over in ["orders/", "begun/", "progress/", "operations/"] {
            let left = self.plane.kv.list(over).unwrap().entries;
            assert!(left.is_empty(), "{what}: {left:?}");
        }
        let caller = Caller::Administrator;
        for operation in self.plane.operations(&caller, None, None).unwrap() {
            assert!(operation.state.is_over(), "{what}: {operation:?}");
        }
        let over = AtomicBool::new(true);
        let mut term = None;
        self.plane.steer_once(&mut term, &over).unwrap();
        assert!(term.is_some(), "nobody else steers");
    }
}

fn world(seed: u64, hosts: u16, instances: usize) -> World {
    // In memory: of a real disk the state's own tests are.
    let folder = tempfile::tempdir_in("/dev/shm").unwrap();
    let state = format!("embedded:{}", folder.path().join("state").display());
    let lease = Duration::from_secs(3600);
    let plane = Plane::open(&state, &folder.path().join("token"), lease).unwrap();
    let hosts = (0..hosts).map(|_| Host::default()).collect();
    let chance = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut world = World {
        plane,
        chance,
        heads: BTreeMap::new(),
        hosts,
        instances,
        taken_over: 0,
        refused: 0,
        cancelled: 0,
        first: BTreeMap::new(),
        uses: BTreeMap::new(),
        clock_ms: 0,
        moves: BTreeMap::new(),
        took_part: BTreeMap::new(),
        relieved: 0,
        began: ambient::now(),
        _folder: folder,
    };
    for at in 0..instances {
        let restart = if at % 3 == 0 { RestartWish::Never } else { RestartWish::OnFailure };
        let wish = InstanceWish {
            appliance: Some("tiny".to_owned()),
            restart,
            pinned: format!("i{at}") == PINNED,
            ..InstanceWish::new("ab".repeat(32), 1, 1 << 30)
        };
        let name = Name::new(&format!("i{at}")).unwrap();
        asked(|ask| world.plane.wish(ask, &name, None, &wish)).unwrap();
        let first = world.plane.placed(&name).unwrap().operation.unwrap();
        world.first.insert(name.to_string(), first.id);
    }
    world
}

fn run(seed: u64) -> [u32; 4] {
    let mut world = world(seed, HOSTS, INSTANCES);
    for step in 0..STEPS {
        let at = world.below(world.hosts.len()) as u16;
        let what = format!("seed {seed}, step {step}");
        match world.below(24) {
            0..=5 => world.beat(at),
            6..=11 => world.obey(at),
            12 => world.cut_off(at),
            13 => world.hosts[usize::from(at)].away = false,
            14 => world.wish(),
            15 if world.below(3) == 0 => world.drain(),
            16 => world.time_goes_by(),
            20 => world.work(),
            21 => world.rest(),
            22 => world.cancel(),
            _ => world.steer(&what),
        }
        world.check(&what);
    }
    // All is well again, and after a while nobody has much to do: everything ends as it is wished.
    for at in 0..HOSTS {
        world.hosts[usize::from(at)].away = false;
        world.beat(at);
        let change = HostChange { state: HostWish::Ready, within_s: None };
        asked(|ask| world.plane.wish_host(ask, id(at), None, change)).unwrap();
    }
    for round in 0..50 {
        if round == 0 || round == 10 {
            // All on one host: that is too much for it.
            (0..INSTANCES).for_each(|at| world.wish_on(at, 1 + (round / 10) as u16));
        }
        if round < 20 {
            world.work();
            world.rest();
        } else {
            world.uses.clear();
        }
        for at in 0..HOSTS {
            world.beat(at);
            while !world.hosts[usize::from(at)].orders.is_empty() {
                world.obey(at);
            }
        }
        world.time_goes_by();
        let what = format!("seed {seed}, at the end");
        world.steer(&what);
        world.check(&what);
    }
    world.has_ended_well(&format!("seed {seed}"));
    [world.taken_over, world.refused, world.relieved, world.cancelled]
}

/// How long it takes to steer a fleet, of one core.
#[derive(Debug)]
struct Took {
    /// Nobody has a place yet.
    places_all: Duration,
    /// All is as it is wished.
    rests: Duration,
    /// A host is gone: until what it ran is ordered elsewhere.
    outlives_a_host: Duration,
    /// So much ran there.
    it_ran: usize,
}

/// Hosts that are cut off, drained and come back, people who change their minds, all at once; then all is
/// well again. `figures`: only how long it takes, of a fleet that is well.
fn large(hosts: u16, instances: usize, figures: bool) -> ([u32; 4], Took) {
    let mut world = world(1, hosts, instances);
    let steer = |world: &World| {
        let begun = ambient::processor_time();
        world.plane.steer().unwrap();
        ambient::processor_time() - begun
    };
    // All are looked at first.
    let round = |world: &mut World, chances: usize| {
        for at in 0..hosts {
            match if chances == 0 { 9 } else { world.below(chances) } {
                0 => world.cut_off(at),
                1..=4 => world.hosts[usize::from(at)].away = false,
                5 => continue,
                _ => {}
            }
            world.beat(at);
            for _ in 0..world.hosts[usize::from(at)].orders.len() {
                world.obey(at);
            }
        }
        world.time_goes_by();
    };
    round(&mut world, 0);
    world.plane.steer().unwrap();
    round(&mut world, 0);
    let places_all = steer(&world);
    for count in 0..if figures { 0 } else { 8 } {
        round(&mut world, 40);
        for _ in 0..instances / 50 {
            world.wish();
            world.cancel();
            world.work();
        }
        (0..hosts / 100).for_each(|_| world.drain());
        let what = format!("{hosts} hosts, round {count}");
        world.steer(&what);
        world.check(&what);
    }
    for at in 0..hosts {
        world.hosts[usize::from(at)].away = false;
        let change = HostChange { state: HostWish::Ready, within_s: None };
        asked(|ask| world.plane.wish_host(ask, id(at), None, change)).unwrap();
    }
    world.uses.clear();
    let what = format!("{hosts} hosts, at the end");
    for _ in 0..15 {
        round(&mut world, 0);
        world.steer(&what);
        world.check(&what);
    }
    world.has_ended_well(&what);
    let rests = steer(&world);

    let most = (0..hosts).max_by_key(|at| world.hosts[usize::from(*at)].runs.len()).unwrap();
    let it_ran = world.hosts[usize::from(most)].runs.len();
    world.cut_off(most);
    let outlives_a_host = steer(&world);
    let orders = world.plane.kv.list("orders/").unwrap().entries;
    let taken_over = orders.iter().filter(|entry| {
        let order: OrderPrint = serde_json::from_slice(&entry.value).unwrap();
        order.act == OrderAct::TakeOver
    });
    let may = world.hosts[usize::from(most)].runs.keys().filter(|name| {
        let wish = world.plane.placed(&Name::new(name).unwrap()).unwrap().wish;
        wish.restart != RestartWish::Never
    });
    assert_eq!(taken_over.count(), may.count(), "each is ordered elsewhere at once");
    let sums = [world.taken_over, world.refused, world.relieved, world.cancelled];
    (sums, Took { places_all, rests, outlives_a_host, it_ran })
}

/// `COLLECTIVE_FLEET=HOSTSxINSTANCES`: how long that takes (`scripts/bench-plane`).
#[test]
fn everything_ends_as_it_is_wished_on_a_thousand_hosts() {
    let Ok(size) = std::env::var("COLLECTIVE_FLEET") else {
        let ([taken_over, refused, _, cancelled], took) = large(1000, 2000, false);
        let sums =
            format!("{taken_over} taken over, {refused} refused, {cancelled} cancelled: {took:?}");
        assert!(taken_over > 50 && refused > 100 && cancelled > 10, "{sums}");
        println!("{sums}");
        return;
    };
    let (hosts, instances) = size.split_once('x').expect("HOSTSxINSTANCES");
    let (hosts, instances): (u16, usize) = (hosts.parse().unwrap(), instances.parse().unwrap());
    let (_, took) = large(hosts, instances, true);
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let most = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    let most_mib = most.trim().trim_end_matches(" kB").parse::<u64>().unwrap() / 1024;
    println!(
        "{{\"hosts\":{hosts},\"instances\":{instances},\"place_all_ms\":{},\"rest_ms\":{},\"host_death_ms\":{},\"it_ran\":{},\"most_mib\":{most_mib}}}",
        took.places_all.as_millis(),
        took.rests.as_millis(),
        took.outlives_a_host.as_millis(),
        took.it_ran,
    );
}

/// A host that was told that it need not start anything dies before it says whether it has: somebody
/// looks, and by that it is decided.
#[test]
fn a_start_that_was_called_off_is_looked_at_when_its_host_is_gone() {
    let none = || Head { generation: 0, holder: None, state: "none" };
    for claimed in [false, true] {
        let mut world = world(1, HOSTS, INSTANCES);
        let name = Name::new("i0").unwrap();
        world.beat(0);
        world.plane.steer().unwrap();
        world.beat(0);
        // It looks, and is to start it.
        world.hosts[0].orders.retain(|order| order.name == "i0");
        world.obey(0);
        world.plane.steer().unwrap();
        world.beat(0);
        let begun: Vec<_> =
            world.hosts[0].orders.iter().filter(|order| order.name == "i0").collect();
        assert_eq!((begun.len(), begun[0].act), (1, OrderAct::Start));
        let operation = world.plane.placed(&name).unwrap().operation.unwrap();
        asked(|ask| world.plane.cancel_operation(ask, &operation.id, None)).unwrap();
        world.plane.steer().unwrap();
        let state = |world: &World| world.plane.known_operation(&operation.id).unwrap().1.state;
        assert!(!state(&world).is_over(), "its host works on it");

        let head = Head { generation: 1, holder: Some(0), state: "running" };
        world.heads.insert("i0".to_owned(), if claimed { head } else { none() });
        world.cut_off(0);
        world.beat(1);
        for _ in 0..3 {
            world.plane.steer().unwrap();
            world.beat(1);
            world.hosts[1].orders.retain(|order| order.name == "i0");
            while !world.hosts[1].orders.is_empty() {
                assert_eq!(world.hosts[1].orders[0].act, OrderAct::Look);
                world.obey(1);
            }
            world.time_goes_by();
        }
        world.plane.steer().unwrap();
        assert_eq!(state(&world), OperationState::Cancelled);
        if !claimed {
            assert_eq!(world.plane.placed(&name).unwrap_err().status, 404);
            continue;
        }
        // That host may run it: it is not forgotten, and rests when it is back.
        let placed = world.plane.placed(&name).unwrap();
        assert_eq!((placed.wish.state, placed.generation), (StateWish::Suspended, 1));
        world.hosts[0].orders.clear();
        world.hosts[0].runs.insert("i0".to_owned(), 1);
        world.hosts[0].away = false;
        world.beat(0);
        world.plane.steer().unwrap();
        world.beat(0);
        let order = world.hosts[0].orders.iter().find(|order| order.name == "i0").unwrap();
        assert_eq!(order.act, OrderAct::Suspend);
    }
}

#[test]
fn everything_ends_as_it_is_wished_and_nothing_runs_twice() {
    let seeds = std::env::var("COLLECTIVE_SEEDS").ok().and_then(|seeds| seeds.parse().ok());
    let mut sums = [0; 4];
    for seed in 1..=seeds.unwrap_or(12) {
        sums.iter_mut().zip(run(seed)).for_each(|(sum, more)| *sum += more);
    }
    let [taken_over, refused, relieved, cancelled] = sums;
    let sums = format!(
        "{taken_over} taken over, {refused} refused, {relieved} to relieve a host, {cancelled} cancelled"
    );
    assert!(taken_over > 5 && refused > 30 && relieved > 24 && cancelled > 12, "{sums}");
}
