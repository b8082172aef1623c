//! What the plane and its callers say to each other over HTTP. `docs/api/openapi.json` is made of
//! these.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::operations::{OperationPrint, OrderUnderWay};

/// The release of this program, as hosts and planes count: what they say to each other is understood by
/// the release before and the one after, and by no other. What a newer one adds is ignored, and what an
/// older one leaves out has a meaning.
pub const RELEASE: u64 = 1;
/// The header in which a host says its release; one that says none is of the first.
pub const RELEASE_HEADER: &str = "collective-release";
/// The header of an answer that says where the planes of the state are, between `, `.
pub const PLANES_HEADER: &str = "collective-planes";

/// What a host says of itself with each beat.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
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
    /// Of each version (by its id) that was started here lately, the bytes that lie here of what a start
    /// needs.
    #[serde(default)]
    pub cached: BTreeMap<String, u64>,
    /// Of the same versions, the bytes that a start needs.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub needed: BTreeMap<String, u64>,
    /// The instances that it holds.
    #[serde(default)]
    pub instances: Vec<InstanceSeen>,
    /// Where it gives chunks to other hosts; none: nowhere.
    #[serde(default)]
    pub peer: Option<PeerPrint>,
    /// How busy it is; none: it does not say so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub load: Option<LoadSeen>,
}

/// How busy a host is, with which instances, and how far it is from others.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct LoadSeen {
    /// Tasks that run or want to, over five minutes, of its CPUs.
    pub cpu_percent: u32,
    /// Of its memory, what is in use and cannot be given to others at once.
    pub memory_percent: u32,
    /// By name, instances that run there.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub instances: BTreeMap<String, InstanceLoad>,
    /// Of other sites, the shortest round trip to a host there that was measured lately, microseconds.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub round_trips_us: BTreeMap<String, u64>,
}

/// What an instance takes of its host, and what it would cost to move it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct InstanceLoad {
    /// What it has of processors, of one CPU; none: that is not known yet.
    pub cpu_percent: Option<u32>,
    /// What it has written since its last checkpoint.
    pub unsaved_bytes: Option<u64>,
}

/// Where a host gives chunks to other hosts of its plane.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct PeerPrint {
    /// What its certificate says that it is called.
    pub name: String,
    /// `ADDRESS:PORT`.
    pub address: String,
    /// It takes guests of which the repository does not have all yet.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub parcels: bool,
}

/// Whom a host may ask for chunks, and whom it answers.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
pub struct PeersPrint {
    /// The best first: those at its site, then the others; at most 16.
    pub peers: Vec<PeerPrint>,
    /// Hosts whose certificates were taken back: those issued until then (Unix milliseconds).
    pub revoked: BTreeMap<String, u64>,
    /// Of other sites, where a host there gives chunks: the round trip to it is measured. At most 64.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub sites: BTreeMap<String, String>,
}

/// What the repository says of an instance.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
pub struct HeadSeen {
    pub name: String,
    /// 0: it has never been there.
    pub generation: u64,
    /// The id of the host that holds it.
    #[serde(default)]
    pub holder: Option<String>,
    /// `running`, `suspended`, `stopped`, or `none` when it is not there.
    pub state: String,
    /// When its last checkpoint was taken, milliseconds since the Unix epoch.
    #[serde(default)]
    pub checkpoint_unix_ms: Option<u64>,
    /// The host that let it go and alone has what it wrote last; none: the repository has all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub offered_by: Option<String>,
}

/// An instance on the host that holds it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct InstanceSeen {
    pub name: String,
    /// `running`, `paused`, `suspended`, `stopped` or `failed`.
    pub state: String,
    /// The generation of its head that the host wrote last.
    pub generation: u64,
    /// Its host holds it when the lease ends.
    #[serde(default)]
    pub managed: bool,
    /// What its machine has; 0: nobody says so.
    #[serde(default)]
    pub cpus: u32,
    #[serde(default)]
    pub memory_bytes: u64,
}

/// The public key of a host that wants a certificate.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct HostKey {
    /// Ed25519, 32 bytes, base64.
    pub public_key: String,
}

/// A host's certificate.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct HostIdentity {
    /// PEM.
    pub certificate: String,
    /// The certificate of whom it is signed by, PEM.
    pub authority: String,
    pub ends_unix_ms: u64,
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
    /// The instances here that run by the plane's leave: they are held when the lease ends.
    #[serde(default)]
    pub managed: Vec<String>,
    /// Where the planes are that share its state, itself among them, as far as they say so: any of them
    /// takes the next beat.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub planes: Vec<String>,
}

/// What a host is to do with an instance.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum OrderAct {
    /// Start it, or go on with it.
    Start,
    /// Go on with it from its last checkpoint: the host that has it is gone.
    TakeOver,
    /// Put it to sleep in the repository.
    Suspend,
    /// The same for another host to go on with it: what can be stored before it stands still is.
    Leave,
    /// Power it off.
    Stop,
    /// Say what the repository says of it.
    Look,
    /// What only a newer program knows.
    #[serde(other)]
    Unknown,
}

impl OrderAct {
    /// The word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Start => "start",
            Self::TakeOver => "take_over",
            Self::Suspend => "suspend",
            Self::Leave => "leave",
            Self::Stop => "stop",
            Self::Look => "look",
            Self::Unknown => "unknown",
        }
    }
}

/// What the labels of a host's networks begin with: the network `lan` is `network.lan=yes`.
pub const NETWORK_LABEL: &str = "network.";

/// An order to a host. It is refused when the head has another generation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct OrderPrint {
    pub id: String,
    pub name: String,
    pub act: OrderAct,
    /// The generation that it was decided by; 0: there is none yet.
    pub at: u64,
    /// Of what it is made when there is none yet.
    #[serde(default)]
    pub appliance: Option<String>,
    /// Ports to publish, as `run -p` takes them; none: as before.
    #[serde(default)]
    pub ports: Vec<String>,
    /// What its first network card is plugged into; none: as before.
    #[serde(default)]
    pub network: Option<String>,
    /// One that needs more than this is not started; none: nobody says so.
    #[serde(default)]
    pub cpus: Option<u32>,
    #[serde(default)]
    pub memory_bytes: Option<u64>,
    /// What carries the request that it is for, as W3C's Trace Context writes it; none: nobody follows it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub traceparent: Option<String>,
    /// Of one that leaves: the host that it is to go to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<String>,
    /// Of one that starts: whoever has begun it ends it, when its guest does not run yet; nobody begins it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub called_off: bool,
}

impl OrderPrint {
    /// An order that says no more than this.
    pub fn new(id: impl Into<String>, name: impl Into<String>, act: OrderAct, at: u64) -> Self {
        Self {
            id: id.into(),
            name: name.into(),
            act,
            at,
            appliance: None,
            ports: Vec::new(),
            network: None,
            cpus: None,
            memory_bytes: None,
            traceparent: None,
            target: None,
            called_off: false,
        }
    }
}

/// Which orders a host knows already.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
pub struct OrdersKnown {
    /// Ids.
    pub known: Vec<String>,
    /// How long to wait for one that it does not know, milliseconds; 10 s at most.
    #[serde(default)]
    pub wait_ms: u64,
    /// How far it is with them. It is answered at once when one of these does not stand any more, or is
    /// called off: that one ends where nothing is lost by it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub under_way: Vec<OrderUnderWay>,
}

/// What became of an order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum OrderEnd {
    /// Done, or found done.
    Done,
    /// The head had gone on.
    Refused,
    /// It could not be done.
    Failed,
    /// What only a newer program knows.
    #[serde(other)]
    Unknown,
}

/// A host says what became of an order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct OrderReport {
    pub order: String,
    pub name: String,
    pub act: OrderAct,
    pub end: OrderEnd,
    /// Why it failed.
    #[serde(default)]
    pub trouble: Option<Trouble>,
    /// The head as it is now.
    #[serde(default)]
    pub head: Option<HeadSeen>,
    /// Of an order that was carried out and moves a guest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cost: Option<OrderCost>,
}

/// What it cost to let a guest go or to have it come, as its host counts it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
pub struct OrderCost {
    /// Milliseconds for which the guest has stood still before it was let go.
    #[serde(default)]
    pub stood_ms: u64,
    /// Bytes that the repository was given, those included that were stored while the guest ran on.
    #[serde(default)]
    pub stored_bytes: u64,
    /// Bytes that came from the repository until its CPUs ran.
    #[serde(default)]
    pub fetched_bytes: u64,
    /// Bytes that came from other hosts until then.
    #[serde(default)]
    pub peer_bytes: u64,
}

/// How an instance last came from one host to another.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct CamePrint {
    /// The id of the host that let it go.
    pub from: String,
    /// The id of the host that it came to.
    pub to: String,
    /// The generation of its head when it had come.
    pub generation: u64,
    /// For how long it stood still, milliseconds: from before its state was frozen until the plane heard that
    /// its CPUs ran again.
    pub pause_ms: u64,
    /// Bytes that the one host stored and the other fetched until then, as sent.
    pub moved_bytes: u64,
    /// Of these, the bytes that came from other hosts and not from the repository.
    pub peer_bytes: u64,
}

/// Why something does not work.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Trouble {
    /// A stable word: see `docs/errors.md`.
    pub kind: String,
    pub detail: String,
    pub hint: String,
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
    /// Of each version that was started there lately, the bytes that lie there of what a start needs.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub cached: BTreeMap<String, u64>,
    pub cpus: u32,
    pub memory_bytes: u64,
    pub kvm: bool,
    /// Where it gives chunks to other hosts.
    #[serde(default)]
    pub peer: Option<PeerPrint>,
    /// How busy it is; none: it has not said so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub load: Option<LoadSeen>,
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
    /// After so many seconds a host that is drained suspends what has found no other host; none:
    /// 600.
    #[serde(default)]
    pub within_s: Option<u64>,
}

/// In which state an instance is to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum StateWish {
    #[default]
    Running,
    Suspended,
    Stopped,
}

/// Whether an instance is started again by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum RestartWish {
    /// Only by a person.
    #[default]
    Never,
    /// When it or its host failed.
    OnFailure,
    /// Also when it powered itself off.
    Always,
}

/// What somebody wants of an instance.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct InstanceWish {
    /// The project that a new one belongs to; none: `default`, or the only one in which the caller may
    /// make any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub project: Option<String>,
    /// The id of its version.
    pub version: String,
    /// What a host must have of that to start it; 0: what hosts say that its starts need.
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
    /// The appliance that it is made of when it is not there yet.
    #[serde(default)]
    pub appliance: Option<String>,
    #[serde(default)]
    pub state: StateWish,
    #[serde(default)]
    pub restart: RestartWish,
    /// The id of the host where it is to be, as long as that is there.
    #[serde(default)]
    pub on: Option<String>,
    /// Ports to publish on its host, as `run -p` takes them.
    #[serde(default)]
    pub ports: Vec<String>,
    /// The network that its first card is plugged into: only hosts that have it are chosen.
    #[serde(default)]
    pub network: Option<String>,
    /// Go on elsewhere although its host, which is gone, may have what the repository does not: that
    /// becomes a branch. Once.
    #[serde(default)]
    pub take_over: bool,
    /// The same although that host may run it still: it has not said that it holds it. Once.
    #[serde(default)]
    pub take_over_anyway: bool,
    /// It is not moved to relieve a host that is overloaded.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub pinned: bool,
}

impl InstanceWish {
    /// One that says nothing but what runs: a version (by its id) on so many CPUs with so much memory.
    pub fn new(version: String, cpus: u32, memory_bytes: u64) -> Self {
        Self {
            project: None,
            version,
            base_bytes: 0,
            cpus,
            memory_bytes,
            needs: Vec::new(),
            near: None,
            apart: None,
            appliance: None,
            state: StateWish::Running,
            restart: RestartWish::Never,
            on: None,
            ports: Vec::new(),
            network: None,
            take_over: false,
            take_over_anyway: false,
            pinned: false,
        }
    }
}

/// A change of what somebody wants; what is not said stays.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct InstanceChange {
    #[serde(default)]
    pub state: Option<StateWish>,
    #[serde(default)]
    pub restart: Option<RestartWish>,
    #[serde(default)]
    pub on: Option<String>,
    /// What it needs by now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpus: Option<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory_bytes: Option<u64>,
    #[serde(default)]
    pub take_over: bool,
    #[serde(default)]
    pub take_over_anyway: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pinned: Option<bool>,
}

/// An instance, as the plane sees it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct PlacedPrint {
    pub name: String,
    pub project: String,
    /// The user who wished for it first.
    pub owner: String,
    pub wish: InstanceWish,
    /// The id of the host that holds it, as far as hosts have said.
    pub host: Option<String>,
    /// Whether that host was heard of within its lease.
    pub host_lives: bool,
    /// What it does there, or what the repository says of it; `unknown` when nobody has said so yet.
    pub state: String,
    /// The generation of its head.
    pub generation: u64,
    /// When its last checkpoint was taken, as far as is known, milliseconds since the Unix epoch.
    pub checkpoint_unix_ms: Option<u64>,
    /// What was decided and is not done yet, in words.
    pub next: Option<String>,
    /// Why the last try failed; it is tried again.
    pub trouble: Option<Trouble>,
    /// How it last came from one host to another, when it did so by itself and at once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub came: Option<CamePrint>,
    /// When it was last decided that it leaves a host that is overloaded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub relief: Option<ReliefPrint>,
    /// What somebody has asked and is not over.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub operation: Option<OperationPrint>,
}

/// An instance is moved to relieve its host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ReliefPrint {
    /// The id of the host that it leaves.
    pub from: String,
    /// The id of the host that has room.
    pub to: String,
    /// When that was decided, milliseconds since the Unix epoch.
    pub unix_ms: u64,
    /// In words.
    pub why: Vec<String>,
}

/// Something has changed; what is shown is as it is now.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
pub struct EventPrint {
    /// `instance`, `host`, `operation`, or `reset`: what happened before is not known any more; list again.
    pub event: String,
    /// An instance's name; a host's, or its id when it was removed; an operation's id.
    pub name: String,
    pub removed: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub instance: Option<PlacedPrint>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host: Option<HostPrint>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub operation: Option<OperationPrint>,
}

/// What the plane would do now.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct PlanPrint {
    pub choices: Vec<ChoicePrint>,
    /// Instances that stay where they are.
    pub stay: u64,
    /// Hosts that are overloaded.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub overloaded: Vec<OverloadPrint>,
}

/// A host that is overloaded.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct OverloadPrint {
    /// Its name.
    pub host: String,
    /// How, and what is done about it, or why nothing is.
    pub why: String,
}

/// One choice of a plan, and its reasons.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ChoicePrint {
    pub instance: String,
    /// `place`, `move`, `relieve`, `rescue` or `nowhere`.
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
