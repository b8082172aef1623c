//! Relief: from a host that is overloaded the cheapest instance goes to one with room.
//!
//! ```text
//!                above one of HIGH, or more promised than there is
//!      well  ──────────────────────────────────────────────────▶  overloaded: one instance leaves,
//!            ◀──────────────────────────────────────────────────  it rests, and if need be the next
//!                below all of LOW, and no more promised than there is
//! ```
//!
//! A target would be below [`LOW`] with the instance that comes, so what was moved is no reason to move
//! it back. The cheapest is the one with the fewest bytes to move: what it has written since its last
//! checkpoint, and what its target lacks of its version. To relieve CPUs only those count that use some.
//!
//! **Invariant:** an instance that came from another host stays for [`INSTANCE_REST_MS`], and of a host
//! none leaves, and none comes to it, for [`HOST_REST_MS`] after the last: what it says of its load is
//! then about what it has now. So each host gives or gets one at a time.
//! **Invariant:** what is cordoned, drained or gone takes no part, no group meets, nobody is promised
//! what is not there, and no instance goes farther from its user.
//! **Invariant:** a host that does not say how busy it is gets nothing.

use std::cmp::Reverse;
use std::collections::HashMap;
use std::fmt;

use model::{HostId, format_bytes};

use super::ledger::{Ledger, Rank};
use super::words::Why;
use super::{Choice, Decision, Plan};
use crate::fleet::{Fleet, Host, HostState, Instance, Load};

/// From here on a host is overloaded.
pub const HIGH: Load = Load { cpu_percent: 150, memory_percent: 95 };
/// Until here it is relieved, and no target goes beyond.
pub const LOW: Load = Load { cpu_percent: 100, memory_percent: 85 };
/// How long an instance stays that has come from another host.
pub const INSTANCE_REST_MS: u64 = 60 * 60 * 1000;
/// How long a host neither gives nor gets after it did.
pub const HOST_REST_MS: u64 = 10 * 60 * 1000;
/// An instance that uses less of one CPU relieves none.
const WORTH_PERCENT: u32 = 10;

/// What is to be moved to relieve hosts.
#[derive(Debug, Clone, Default)]
pub struct Relief {
    /// The hosts that are overloaded, by name.
    pub overloaded: Vec<Overload>,
    /// At most one for each host.
    pub choices: Vec<Choice>,
}

/// A host that is overloaded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Overload {
    pub host: HostId,
    /// How, and why nothing leaves it now if nothing does.
    pub why: String,
}

/// Of what there is too much.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Excess {
    Promised { bytes: u64, of: u64 },
    Memory { percent: u32, bound: u32 },
    Cpus { percent: u32, bound: u32 },
}

impl fmt::Display for Excess {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Promised { bytes, of } => {
                write!(
                    f,
                    "{} of memory are promised of {}",
                    format_bytes(*bytes),
                    format_bytes(*of)
                )
            }
            Self::Memory { percent, bound } => {
                write!(f, "{percent}% of its memory is in use, more than {bound}%")
            }
            Self::Cpus { percent, bound } => {
                write!(f, "its load is {percent}% of its CPUs, more than {bound}%")
            }
        }
    }
}

fn excess(host: &Host, promised: u64) -> Option<Excess> {
    if promised > host.memory_bytes {
        return Some(Excess::Promised { bytes: promised, of: host.memory_bytes });
    }
    let (load, bound) = (host.load?, if host.overloaded { LOW } else { HIGH });
    if load.memory_percent > bound.memory_percent {
        let (percent, bound) = (load.memory_percent, bound.memory_percent);
        return Some(Excess::Memory { percent, bound });
    }
    (load.cpu_percent > bound.cpu_percent)
        .then_some(Excess::Cpus { percent: load.cpu_percent, bound: bound.cpu_percent })
}

/// One way to relieve a host.
struct Way<'f> {
    instance: &'f Instance,
    target: usize,
    /// Bytes.
    cost: u64,
    rank: Rank,
    /// Of the target, with the instance.
    then: Load,
}

/// Decides what leaves hosts that are overloaded, when all is done that the plan says.
pub fn rebalance(fleet: &Fleet, plan: &Plan) -> Relief {
    let mut ledger = Ledger::new(fleet);
    let mut on: HashMap<usize, Vec<&Instance>> = HashMap::new();
    let chosen: HashMap<_, _> =
        plan.choices.iter().map(|choice| (&choice.instance, choice.decision.target())).collect();
    for instance in &fleet.instances {
        let moves = chosen.get(&instance.name);
        let host = moves.copied().unwrap_or(instance.at).and_then(|id| ledger.find(id));
        if let Some(host) = host {
            ledger.charge(host, instance);
            if moves.is_none() {
                on.entry(host).or_default().push(instance);
            }
        }
    }
    let mut busy: Vec<_> = (0..ledger.len()).map(|at| rests(ledger.host(at))).collect();
    let mut relief = Relief::default();
    for at in 0..ledger.len() {
        let host = ledger.host(at);
        let Some(excess) = excess(host, ledger.memory_promised(at)) else { continue };
        if host.state == HostState::Gone {
            continue;
        }
        let mut said = |why: &str| {
            let why = format!("{excess}; {why}");
            relief.overloaded.push(Overload { host: host.id, why });
        };
        if host.state != HostState::Ready {
            said(&format!("it is {}", host.state.as_str()));
            continue;
        }
        if busy[at] {
            said("an instance has left it or come to it lately: what that has changed is awaited");
            continue;
        }
        let here = on.get(&at).map_or(&[][..], Vec::as_slice);
        let may: Vec<_> = here.iter().copied().filter(|one| may_leave(one, excess)).collect();
        if may.is_empty() {
            said("none of its instances may leave it and would relieve it");
            continue;
        }
        let ways = may.iter().filter_map(|one| way(&mut ledger, one, at, &busy));
        let best = ways.min_by(|a, b| {
            let key = |way: &Way<'_>| (way.cost, Reverse(way.instance.cpu_percent), way.rank);
            key(a).cmp(&key(b)).then_with(|| a.instance.name.cmp(&b.instance.name))
        });
        let Some(way) = best else {
            said("no other host has room for one of its instances");
            continue;
        };
        said(&format!("{} leaves it", way.instance.name));
        relief.choices.push(choice(&ledger, &way, at, excess, may.len()));
        (busy[at], busy[way.target]) = (true, true);
        ledger.charge(way.target, way.instance);
    }
    relief
}

fn rests(host: &Host) -> bool {
    host.relief_ms_ago.is_some_and(|ago| ago < HOST_REST_MS)
}

fn may_leave(instance: &Instance, excess: Excess) -> bool {
    let rests = instance.moved_ms_ago.is_some_and(|ago| ago < INSTANCE_REST_MS);
    let idle = matches!(excess, Excess::Cpus { .. })
        && instance.cpu_percent.is_some_and(|percent| percent < WORTH_PERCENT);
    !instance.stays && !rests && !idle
}

/// The cheapest host with room for an instance.
fn way<'f>(
    ledger: &mut Ledger<'f>,
    instance: &'f Instance,
    source: usize,
    busy: &[bool],
) -> Option<Way<'f>> {
    let kind = ledger.kind(instance);
    let unsaved = instance.unsaved_bytes.unwrap_or(instance.memory_bytes);
    let targets = (0..ledger.len()).filter(|target| *target != source && !busy[*target]);
    let ways = targets.filter_map(|target| {
        let host = ledger.host(target);
        let rank = ledger.rank(kind, target, instance).ok()?;
        let then = with(host, instance)?;
        let fits = then.cpu_percent <= LOW.cpu_percent && then.memory_percent <= LOW.memory_percent;
        let farther = rank.far > ledger.far(kind, source);
        let lacks = instance.base_bytes.saturating_sub(ledger.cached(target, instance));
        let cost = unsaved.saturating_add(lacks);
        (fits && !farther && !host.overloaded).then_some(Way { instance, target, cost, rank, then })
    });
    ways.min_by_key(|way| (way.cost, way.rank))
}

/// How busy a host would be with one more; at worst, when nobody knows what that uses.
fn with(host: &Host, instance: &Instance) -> Option<Load> {
    let load = host.load?;
    let uses = instance.cpu_percent.unwrap_or(instance.cpus.saturating_mul(100));
    let memory = instance.memory_bytes.saturating_mul(100).div_ceil(host.memory_bytes.max(1));
    let memory = u32::try_from(memory).unwrap_or(u32::MAX);
    Some(Load {
        cpu_percent: load.cpu_percent.saturating_add(uses.div_ceil(host.cpus.max(1))),
        memory_percent: load.memory_percent.saturating_add(memory),
    })
}

fn choice(ledger: &Ledger<'_>, way: &Way<'_>, at: usize, excess: Excess, of: usize) -> Choice {
    let Way { instance, target, cost, then, .. } = way;
    let (source, target) = (ledger.host(at), ledger.host(*target));
    let cheapest = match of {
        1 => "no other instance there may leave and would relieve it".to_owned(),
        of => format!("it is the cheapest to move of {of}"),
    };
    let why = Why::of([
        format!("{} is overloaded: {excess}", source.name),
        format!("{cheapest}: {}", format_bytes(*cost)),
        format!(
            "{} has room: with it at most {}% of its CPUs and {}% of its memory",
            target.name, then.cpu_percent, then.memory_percent
        ),
    ]);
    let decision = Decision::Relieve { source: source.id, on: target.id };
    Choice { instance: instance.name.clone(), decision, why }
}
