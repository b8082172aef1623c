//! What the planner looks at: hosts, and the instances that want one.

use std::collections::BTreeMap;
use std::fmt;

use model::{HostId, Name, VersionId};

/// The label that says where a host stands.
pub const SITE: &str = "site";

/// Whether a host takes instances.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HostState {
    /// It takes some, and keeps what it has.
    Ready,
    /// It keeps what it has.
    Cordoned,
    /// It is to be left by all.
    Draining,
    /// Its lease is over: what it had runs elsewhere or not at all.
    Gone,
}

impl HostState {
    /// The word that `host list` prints.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ready => "ready",
            Self::Cordoned => "cordoned",
            Self::Draining => "draining",
            Self::Gone => "gone",
        }
    }
}

/// A host, as it says it is.
#[derive(Debug, Clone)]
pub struct Host {
    pub id: HostId,
    pub name: String,
    pub state: HostState,
    pub labels: BTreeMap<String, String>,
    pub cpus: u32,
    /// What guests may have of its memory, bytes.
    pub memory_bytes: u64,
    /// Whether KVM has been proven to run guests here.
    pub kvm: bool,
    /// Of each version, the bytes that lie here.
    pub cached: BTreeMap<VersionId, u64>,
    /// How busy it is; none: it has not said so.
    pub load: Option<Load>,
    /// Of other sites, the round trip to them that it has measured, microseconds.
    pub round_trips_us: BTreeMap<String, u64>,
    /// It was overloaded when it was last looked at.
    pub overloaded: bool,
    /// When an instance last left it or came to it to relieve a host.
    pub relief_ms_ago: Option<u64>,
}

/// How busy a host is, by what runs on it, be it a guest or not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Load {
    /// Tasks that run or want to, over some minutes, of its CPUs.
    pub cpu_percent: u32,
    /// Of its memory, what is in use and cannot be given to others at once.
    pub memory_percent: u32,
}

/// What a host must have.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Need {
    /// Hardware virtualization.
    Kvm,
    /// A label with this value.
    Label { key: String, value: String },
}

impl fmt::Display for Need {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Kvm => f.write_str("KVM"),
            Self::Label { key, value } => write!(f, "{key}={value}"),
        }
    }
}

impl Need {
    pub(crate) fn is_met_by(&self, host: &Host) -> bool {
        match self {
            Self::Kvm => host.kvm,
            Self::Label { key, value } => host.labels.get(key) == Some(value),
        }
    }
}

/// An instance that is to run.
#[derive(Debug, Clone)]
pub struct Instance {
    pub name: Name,
    pub version: VersionId,
    /// What a host must have of its version to start it, bytes.
    pub base_bytes: u64,
    pub cpus: u32,
    pub memory_bytes: u64,
    pub needs: Vec<Need>,
    /// The site where its user is.
    pub near: Option<String>,
    /// It runs on no host that has another one of this group.
    pub apart: Option<String>,
    /// The host that has it.
    pub at: Option<HostId>,
    /// It is not moved to relieve its host.
    pub stays: bool,
    /// What it has of its host's processors, of one CPU; none: nobody has said so.
    pub cpu_percent: Option<u32>,
    /// What it has written since its last checkpoint; none: nobody has said so.
    pub unsaved_bytes: Option<u64>,
    /// When it last came from another host.
    pub moved_ms_ago: Option<u64>,
}

/// Hosts, and the instances that are to run.
#[derive(Debug, Clone, Default)]
pub struct Fleet {
    pub hosts: Vec<Host>,
    pub instances: Vec<Instance>,
}
