//! What has been promised of each host so far.

use std::collections::{BTreeSet, HashMap};

use model::{HostId, Name, VersionId};

use super::{FETCH_STEP, OVERCOMMIT, closed};
use crate::fleet::{Fleet, Host, HostState, Instance, Need, SITE};

/// Why a host does not fit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refusal {
    State(HostState),
    Needs(Need),
    Memory { free_bytes: u64 },
    Cpus { free: u32 },
    Apart { from: Name },
}

/// How far a host is from an instance's user; the lowest is the nearest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Far {
    /// At the user's site, or nobody has said where that is.
    Here,
    /// Elsewhere: the round trip to that site, in doublings of a millisecond. Less does not decide.
    Within(u32),
    /// Elsewhere, and nobody has measured how far.
    Unknown,
}

impl Far {
    fn of(host: &Host, near: Option<&String>) -> Self {
        let Some(near) = near.filter(|near| host.labels.get(SITE) != Some(near)) else {
            return Self::Here;
        };
        match host.round_trips_us.get(near) {
            Some(us) => Self::Within(u64::BITS - (us / 1000).leading_zeros()),
            None => Self::Unknown,
        }
    }
}

/// What a choice goes by; the lowest wins. The order of the fields is the order of the reasons.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Rank {
    pub far: Far,
    pub crowded: bool,
    /// In steps of [`FETCH_STEP`].
    pub fetch: u64,
    pub neighbours: u32,
    /// Memory promised, per mille.
    pub used: u64,
    /// The place in the order of names.
    pub place: usize,
}

/// Instances that ask the same of a host.
type Kind = usize;

pub struct Ledger<'f> {
    /// In the order of their names.
    hosts: Vec<&'f Host>,
    by_id: HashMap<HostId, usize>,
    memory_used: Vec<u64>,
    cpus_used: Vec<u32>,
    /// Of each version, what lies on each host.
    cached: HashMap<VersionId, Vec<u64>>,
    kinds: HashMap<(BTreeSet<Need>, Option<String>), Kind>,
    /// Of each kind, what each host lacks, and how far it is.
    lacks: Vec<Vec<(Option<Need>, Far)>>,
    /// Of each group, who of it is where.
    groups: HashMap<&'f str, Vec<(usize, &'f Name)>>,
}

impl<'f> Ledger<'f> {
    pub fn new(fleet: &'f Fleet) -> Self {
        let mut hosts: Vec<_> = fleet.hosts.iter().collect();
        hosts.sort_by(|a, b| (&a.name, a.id).cmp(&(&b.name, b.id)));
        let mut cached: HashMap<VersionId, Vec<u64>> = HashMap::new();
        for (at, host) in hosts.iter().enumerate() {
            for (version, bytes) in &host.cached {
                cached.entry(*version).or_insert_with(|| vec![0; hosts.len()])[at] = *bytes;
            }
        }
        Self {
            by_id: hosts.iter().enumerate().map(|(at, host)| (host.id, at)).collect(),
            memory_used: vec![0; hosts.len()],
            cpus_used: vec![0; hosts.len()],
            cached,
            kinds: HashMap::new(),
            lacks: Vec::new(),
            groups: HashMap::new(),
            hosts,
        }
    }

    pub fn len(&self) -> usize {
        self.hosts.len()
    }

    pub fn host(&self, at: usize) -> &'f Host {
        self.hosts[at]
    }

    pub fn find(&self, id: HostId) -> Option<usize> {
        self.by_id.get(&id).copied()
    }

    pub fn is_gone(&self, id: HostId) -> bool {
        self.find(id).is_some_and(|at| self.hosts[at].state == HostState::Gone)
    }

    /// Whether it keeps what it has.
    pub fn keeps(&self, at: usize) -> bool {
        matches!(self.hosts[at].state, HostState::Ready | HostState::Cordoned)
    }

    pub fn charge(&mut self, at: usize, instance: &'f Instance) {
        self.memory_used[at] += instance.memory_bytes;
        self.cpus_used[at] += instance.cpus;
        if let Some(group) = &instance.apart {
            self.groups.entry(group).or_default().push((at, &instance.name));
        }
    }

    pub fn kind(&mut self, instance: &Instance) -> Kind {
        let key = (instance.needs.iter().cloned().collect(), instance.near.clone());
        if let Some(kind) = self.kinds.get(&key) {
            return *kind;
        }
        let lacks = self.hosts.iter().map(|host| {
            let lacks = key.0.iter().find(|need| !need.is_met_by(host)).cloned();
            (lacks, Far::of(host, instance.near.as_ref()))
        });
        self.lacks.push(lacks.collect());
        self.kinds.insert(key, self.lacks.len() - 1);
        self.lacks.len() - 1
    }

    pub fn memory_free(&self, at: usize) -> u64 {
        self.hosts[at].memory_bytes.saturating_sub(self.memory_used[at])
    }

    /// What guests were promised of its memory.
    pub fn memory_promised(&self, at: usize) -> u64 {
        self.memory_used[at]
    }

    /// How far a host is from the instance's user.
    pub fn far(&self, kind: Kind, at: usize) -> Far {
        self.lacks[kind][at].1
    }

    /// CPUs that may still be promised; a guest never has more than its host.
    pub fn cpus_free(&self, at: usize) -> u32 {
        let cpus = self.hosts[at].cpus;
        cpus.saturating_mul(OVERCOMMIT).saturating_sub(self.cpus_used[at]).min(cpus)
    }

    /// Bytes of the instance's version that lie on a host.
    pub fn cached(&self, at: usize, instance: &Instance) -> u64 {
        let cached = self.cached.get(&instance.version).map_or(0, |bytes| bytes[at]);
        cached.min(instance.base_bytes)
    }

    /// How good a host is for an instance.
    pub fn rank(&self, kind: Kind, at: usize, instance: &Instance) -> Result<Rank, Refusal> {
        let host = self.hosts[at];
        if let Some(refusal) = closed(host.state) {
            return Err(refusal);
        }
        let (lacks, far) = &self.lacks[kind][at];
        if let Some(need) = lacks {
            return Err(Refusal::Needs(need.clone()));
        }
        let free_bytes = self.memory_free(at);
        if free_bytes < instance.memory_bytes {
            return Err(Refusal::Memory { free_bytes });
        }
        let free = self.cpus_free(at);
        if free < instance.cpus {
            return Err(Refusal::Cpus { free });
        }
        let mut neighbours = 0;
        let group = instance.apart.as_deref().and_then(|group| self.groups.get(group));
        for (other, name) in group.into_iter().flatten() {
            if *other == at {
                return Err(Refusal::Apart { from: (*name).clone() });
            }
            let site = |at: usize| self.hosts[at].labels.get(SITE);
            neighbours += u32::from(site(*other) == site(at));
        }
        let used = self.memory_used[at] + instance.memory_bytes;
        Ok(Rank {
            far: *far,
            crowded: self.cpus_used[at] + instance.cpus > host.cpus,
            fetch: (instance.base_bytes - self.cached(at, instance)) / FETCH_STEP,
            neighbours,
            used: used.saturating_mul(1000) / host.memory_bytes.max(1),
            place: at,
        })
    }
}
