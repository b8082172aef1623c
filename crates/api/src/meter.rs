//! What instances use: as hosts say it to a plane, and as a plane says it to people.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What one start of an instance has used on its host so far. Numbers only grow.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct RunPrint {
    /// The id of the start: no two have the same.
    pub run: String,
    /// The instance.
    pub name: String,
    /// `name` or `maker/name`.
    pub appliance: String,
    /// It says nothing more.
    #[serde(default)]
    pub ended: bool,
    /// How long its CPUs ran.
    #[serde(default)]
    pub running_ms: u64,
    /// What its machine, and what serves that, had of the host's processors.
    #[serde(default)]
    pub cpu_ms: u64,
    /// Its memory, for as long as it had it.
    #[serde(default)]
    pub memory_mib_s: u64,
    /// Bytes from the repository and from makers.
    #[serde(default)]
    pub fetched_bytes: u64,
    /// Bytes from other hosts.
    #[serde(default)]
    pub peer_bytes: u64,
    /// Bytes that it has put into the repository.
    #[serde(default)]
    pub stored_bytes: u64,
}

/// The times by which a fault is sorted, milliseconds: it took no longer than that.
pub const FAULT_BOUNDS_MS: [u64; 8] = [1, 4, 16, 64, 250, 1000, 4000, 16_000];

/// What reads of one start of an instance found, for the figures of its host. Numbers only grow.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct ReadsPrint {
    /// Bytes of pages that were in the host's cache.
    pub cached_bytes: u64,
    /// Of the guest's memory.
    pub ram: FaultsPrint,
    pub disk: FaultsPrint,
    /// Of the kernel and the initial RAM disk that a guest which goes on from memory has.
    pub boot: FaultsPrint,
}

/// Reads that a host could not answer by itself.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct FaultsPrint {
    /// How many took no longer than each of [`FAULT_BOUNDS_MS`] and longer than the one before; the last:
    /// longer than all.
    pub within: Vec<u64>,
    /// How long all of them took.
    pub micros: u64,
}

/// A host says what its instances have used.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
pub struct MeterReport {
    /// What the plane's last answer said; 0: none came yet. What says something else is late, and
    /// counts nothing.
    #[serde(default)]
    pub number: u64,
    /// All starts that the plane has not said to be counted to their end.
    #[serde(default)]
    pub runs: Vec<RunPrint>,
}

/// The plane has counted it, or says how it will.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
pub struct MeterReply {
    /// What the next report says.
    #[serde(default)]
    pub number: u64,
    /// It was counted; else it is to be said again, with this number.
    #[serde(default)]
    pub counted: bool,
}

/// What was used by a user, in a project, of an appliance, of a maker, or on a day.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct UsagePrint {
    /// Whose, by what was asked for; the maker of an appliance without one is `-`.
    pub name: String,
    pub running_seconds: f64,
    pub cpu_seconds: f64,
    pub memory_gib_hours: f64,
    /// From the repository, from makers and from other hosts.
    pub fetched_bytes: u64,
    /// Of that, from other hosts.
    pub peer_bytes: u64,
    pub stored_bytes: u64,
}
