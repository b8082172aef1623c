//! What the plane and its callers say to each other over HTTP. `docs/api/openapi.json` is made of
//! these.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What a host says of itself with each beat.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct HostReport {
    /// Its name, for people.
    pub name: String,
    /// Its labels; `site` says where it stands.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    pub cpus: u32,
    /// What guests may have of its memory.
    pub memory_bytes: u64,
    /// Whether KVM has been proven to run guests here.
    #[serde(default)]
    pub kvm: bool,
    /// What its cache of chunks holds.
    #[serde(default)]
    pub cache_bytes: u64,
    /// Of each version (by its id), the bytes that lie here.
    #[serde(default)]
    pub cached: BTreeMap<String, u64>,
    /// The instances that it holds.
    #[serde(default)]
    pub instances: Vec<InstanceSeen>,
}

/// An instance on the host that holds it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct InstanceSeen {
    pub name: String,
    /// `running`, `paused`, `suspended`, `stopped` or `failed`.
    pub state: String,
    /// The generation of its head that the host wrote last.
    pub generation: u64,
}

/// The answer to a beat.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct BeatReply {
    /// How long the host's lease lasts from when the beat was sent. After it the host pauses what it
    /// runs.
    pub lease_ms: u64,
    /// The host had no lease: what it runs has to be claimed again before it goes on.
    pub begun_again: bool,
    /// `ready`, `cordoned` or `draining`.
    pub state: String,
}

/// A host, as the plane sees it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct HostPrint {
    pub id: String,
    pub name: String,
    /// `ready`, `cordoned`, `draining` or `gone`.
    pub state: String,
    pub labels: BTreeMap<String, String>,
    /// How many instances it holds.
    pub instances: u64,
    pub cache_bytes: u64,
    pub cpus: u32,
    pub memory_bytes: u64,
    pub kvm: bool,
}

/// What is to become of a host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum HostWish {
    /// It takes instances.
    Ready,
    /// It keeps what it has.
    Cordoned,
    /// All leave it.
    Draining,
}

/// A change of a host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct HostChange {
    pub state: HostWish,
}

/// What somebody wants of an instance.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct InstanceWish {
    /// The id of its version.
    pub version: String,
    /// What a host must have of that to start it.
    #[serde(default)]
    pub base_bytes: u64,
    pub cpus: u32,
    pub memory_bytes: u64,
    /// What its host must have: `kvm`, or `LABEL=VALUE`.
    #[serde(default)]
    pub needs: Vec<String>,
    /// The site where its user is.
    #[serde(default)]
    pub near: Option<String>,
    /// It runs on no host that has another one of this group.
    #[serde(default)]
    pub apart: Option<String>,
}

/// An instance, as the plane sees it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct PlacedPrint {
    pub name: String,
    pub wish: InstanceWish,
    /// The id of the host that holds it, as far as hosts have said.
    pub host: Option<String>,
}

/// What the plane would do now.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct PlanPrint {
    pub choices: Vec<ChoicePrint>,
    /// Instances that stay where they are.
    pub stay: u64,
}

/// One choice of a plan, and its reasons.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ChoicePrint {
    pub instance: String,
    /// `place`, `move`, `rescue` or `nowhere`.
    pub decision: String,
    /// The name of the host that has it.
    pub source: Option<String>,
    /// The name of the host that gets it.
    pub target: Option<String>,
    pub why: Vec<String>,
}

/// An error, as RFC 9457 words it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Problem {
    /// `about:blank`: the kind says more.
    #[serde(rename = "type")]
    pub about: String,
    pub title: String,
    pub status: u16,
    pub detail: String,
    /// A stable word: see `docs/errors.md`.
    pub kind: String,
    /// What to do next; empty when there is nothing to say.
    pub hint: String,
}
