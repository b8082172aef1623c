//! Where instances run.
//!
//! An instance that has a place keeps it. One that has none, or whose host is drained or gone, gets
//! the first host of those that fit, by this order:
//!
//! 1. in the site where its user is; elsewhere with the shortest way there that was measured, in doublings;
//! 2. with CPUs that nobody else has been promised;
//! 3. with the fewest bytes to fetch, in steps of [`FETCH_STEP`];
//! 4. in the site with the fewest others of its group;
//! 5. with the most memory left;
//! 6. by name.
//!
//! The largest are placed first: what is left over takes the small ones. Memory is never promised
//! twice, a CPU at most [`OVERCOMMIT`] times.
//!
//! What is moved to relieve hosts that are overloaded is decided after that ([`rebalance`]).
//!
//! **Invariant:** every choice says why, in words: which of these decided, and over whom.
//! **Invariant:** looks at each host at most once for each instance that it places.

mod balance;
mod ledger;
mod words;

use model::{HostId, Name};

use crate::fleet::{Fleet, HostState, Instance};
pub use balance::{HIGH, HOST_REST_MS, INSTANCE_REST_MS, LOW, Overload, Relief, rebalance};
use ledger::{Ledger, Refusal};
pub use words::Why;

/// How many guests' CPUs share one of a host's.
pub const OVERCOMMIT: u32 = 4;
/// Differences below this many bytes to fetch do not decide.
pub const FETCH_STEP: u64 = 64 << 20;

/// What is to become of an instance.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decision {
    /// It starts there.
    Place { on: HostId },
    /// It leaves a host that works.
    Move { source: HostId, on: HostId },
    /// It leaves a host that is overloaded.
    Relieve { source: HostId, on: HostId },
    /// Its host is gone; it goes on elsewhere from its last checkpoint.
    Rescue { source: HostId, on: HostId },
    /// No host fits. One that runs on a host that is drained has to be suspended.
    Nowhere { source: Option<HostId> },
}

impl Decision {
    /// The host that it is decided for.
    pub fn target(&self) -> Option<HostId> {
        match *self {
            Self::Place { on }
            | Self::Move { on, .. }
            | Self::Relieve { on, .. }
            | Self::Rescue { on, .. } => Some(on),
            Self::Nowhere { .. } => None,
        }
    }
}

/// A decision, and the reasons.
#[derive(Debug, Clone)]
pub struct Choice {
    pub instance: Name,
    pub decision: Decision,
    pub why: Why,
}

/// What is to be done, and what it took to find out.
#[derive(Debug, Clone, Default)]
pub struct Plan {
    /// In the order in which they were made. An instance that stays is not among them.
    pub choices: Vec<Choice>,
    /// Instances that stay where they are.
    pub stay: usize,
    /// Those of them whose host nobody here knows: it may well run them, so they are left alone.
    pub elsewhere: usize,
    /// How often a host was looked at for an instance.
    pub looks: u64,
}

/// Decides where every instance goes.
pub fn plan(fleet: &Fleet) -> Plan {
    let mut ledger = Ledger::new(fleet);
    let mut plan = Plan::default();
    let mut homeless = Vec::new();
    for instance in &fleet.instances {
        match instance.at.map(|id| ledger.find(id)) {
            Some(Some(host)) if ledger.keeps(host) => {
                ledger.charge(host, instance);
                plan.stay += 1;
            }
            Some(None) => {
                plan.stay += 1;
                plan.elsewhere += 1;
            }
            _ => homeless.push(instance),
        }
    }
    homeless.sort_by(|a, b| b.memory_bytes.cmp(&a.memory_bytes).then_with(|| a.name.cmp(&b.name)));
    for instance in homeless {
        let choice = choose(&mut ledger, instance, &mut plan.looks);
        plan.choices.push(choice);
    }
    plan
}

fn choose<'f>(ledger: &mut Ledger<'f>, instance: &'f Instance, looks: &mut u64) -> Choice {
    let (mut best, mut second) = (None, None);
    let mut refusals = Vec::new();
    let kind = ledger.kind(instance);
    for host in 0..ledger.len() {
        *looks += 1;
        match ledger.rank(kind, host, instance) {
            Ok(rank) => {
                if best.as_ref().is_none_or(|(lowest, _)| rank < *lowest) {
                    second = best.replace((rank, host));
                } else if second.as_ref().is_none_or(|(lowest, _)| rank < *lowest) {
                    second = Some((rank, host));
                }
            }
            Err(refusal) => refusals.push((host, refusal)),
        }
    }
    let source = instance.at;
    let (decision, why) = match best {
        Some((rank, host)) => {
            let why = Why::chosen(ledger, instance, host, rank, second);
            ledger.charge(host, instance);
            let on = ledger.host(host).id;
            let decision = match source {
                None => Decision::Place { on },
                Some(source) if ledger.is_gone(source) => Decision::Rescue { source, on },
                Some(source) => Decision::Move { source, on },
            };
            (decision, why)
        }
        None => {
            // A host that is gone has nothing that could be suspended.
            let source = source.filter(|source| !ledger.is_gone(*source));
            // Until somebody suspends it, it takes what it takes.
            if let Some(host) = source.and_then(|id| ledger.find(id)) {
                ledger.charge(host, instance);
            }
            (Decision::Nowhere { source }, Why::nowhere(ledger, instance, &refusals))
        }
    };
    Choice { instance: instance.name.clone(), decision, why }
}

/// Why a host takes no new instance, whatever it is.
fn closed(state: HostState) -> Option<Refusal> {
    (state != HostState::Ready).then_some(Refusal::State(state))
}
