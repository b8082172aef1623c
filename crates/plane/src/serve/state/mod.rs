//! What the plane remembers, and under which keys.
//!
//! | key | value |
//! | --- | --- |
//! | `hosts/ID` | what a host said last, and what is to become of it |
//! | `alive/ID` | nothing; it is there as long as the host's lease |
//! | `loads/ID` | how busy it says it is |
//! | `relief/ID` | whether it is overloaded, and when an instance last left it or came to it for that |
//! | `instances/NAME` | what somebody wants of an instance |
//! | `seen/NAME` | the newest head of it that a host has said |
//! | `gone/NAME` | for a day, to which project one belonged that was removed |
//! | `since/NAME` | the generation of its head that the wish counts from, where that was seen later |
//! | `places/NAME` | where it is to start, and what is done next, in words |
//! | `moves/NAME` | when and why it last left a host that was overloaded |
//! | `orders/ID/NAME` | what a host is to do with it |
//! | `begun/ID/NAME` | which of these the host has begun |
//! | `progress/NAME` | how far it is with that |
//! | `trouble/NAME` | why that failed, and when it is tried again |
//! | `operations/NAME` | what somebody has asked of it and is not over |
//! | `operated/ID` | for a day, an operation that is over |
//! | `revoked/ID` | certificates of this host from before then are worth nothing, Unix time in ms; also in a file |
//! | `users/NAME` | a user, and the roles of that one |
//! | `tokens/ID` | the hash of a token, whose it is, how far it goes and when it ends |
//! | `login-rules/ID` | who is let in by a provider, as whom, and what for |
//! | `projects/NAME` | a project |
//! | `usage/PROJECT` | what its instances take |
//! | `metered/host/ID` | what was counted of the starts of a host |
//! | `metered/day/DAY/PROJECT/USER/APPLIANCE` | what was used on a day |
//! | `metered/all/PROJECT/USER/APPLIANCE` | what was used in all |
//! | `audit/NUMBER`, `audit-head` | the audit log, and where it ends |
//! | `answers/HASH` | what a request with a key was answered |
//! | `planes/ID` | where a plane of this state is found; it is there as long as that one's lease |
//! | `steering` | which plane decides; it is there as long as that one's lease |
//!
//! Of hosts and instances all can be lost: hosts say it again, and people wish it again. Users, tokens,
//! rules, projects, usage and the audit log are nowhere else.
//!
//! **Invariant:** of two heads the one with the greater generation is kept, whoever says it and when.

mod answers;
mod begun;
mod hosts;
mod identities;
mod instances;
mod log;
mod logins;
mod metered;
mod operations;
mod orders;
mod picture;
mod plan;
mod projects;
mod relief;
mod revocations;
mod tokens;
mod usage;
mod users;

use kv::Entry;
use model::{HostId, Name};
use serde::{Deserialize, Serialize};

use super::Refused;
pub use begun::PROGRESS;
pub use metered::{METERED, Used, day, parse_day};
pub use operations::OperationRecord;
pub use picture::{Picture, Step};
pub use projects::Belongs;
pub use relief::{LOADS, MoveRecord, ReliefRecord};
pub use revocations::{Revocations, read_file as read_revocations};

/// How often something is tried again that somebody else has changed at the same time.
const TRIES: usize = 16;

type Result<T> = std::result::Result<T, Refused>;

/// `hosts/ID`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct HostRecord {
    pub report: api::HostReport,
    pub wish: api::HostWish,
    /// When a host that is drained suspends what has found no other.
    #[serde(default)]
    pub drain_by_unix_ms: u64,
}

/// `instances/NAME`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct InstanceRecord {
    pub wish: api::InstanceWish,
    /// The generation of the head that was seen when it was wished; none: none had been seen.
    pub at: Option<u64>,
    #[serde(default)]
    pub belongs: Belongs,
    /// Whoever wished it may have new ones, and not what others have in the repository.
    #[serde(default)]
    pub only_new: bool,
}

/// `gone/NAME`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GoneRecord {
    pub project: String,
    pub unix_ms: u64,
}

/// `seen/NAME`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SeenRecord {
    pub head: api::HeadSeen,
    /// The repository was looked at, after its holder said nothing of it.
    pub looked: bool,
    /// The repository had none of this name when it was looked at since it was wished for.
    #[serde(default)]
    pub was_none: bool,
}

/// `places/NAME`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct PlaceRecord {
    /// The id of a host.
    pub on: Option<String>,
    pub next: Option<String>,
    /// What follows the orders that stem from no request, while there is something to be done.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub traceparent: Option<String>,
}

/// `ways/NAME`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct WayRecord {
    /// The host that let it go last.
    pub left: Option<LeftRecord>,
    /// An order to let it go that was taken back since its head says that it was done: its host may say
    /// what that cost after all, and as late as another one says that it runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub taken_back: Option<TakenBackRecord>,
    /// Where it came to before anybody said what it cost to let it go.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub arrived: Option<LeftRecord>,
    pub came: Option<api::CamePrint>,
    /// When the plane heard of that.
    #[serde(default)]
    pub came_unix_ms: u64,
}

/// An order that was done before its host said so.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TakenBackRecord {
    pub host: String,
    /// The order's id.
    pub order: String,
    pub unix_ms: u64,
}

/// What is known of an instance that was let go, or has come.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeftRecord {
    pub host: String,
    /// The generation of its head from then on.
    pub generation: u64,
    /// When the plane heard of it.
    pub unix_ms: u64,
    pub cost: api::OrderCost,
}

/// `trouble/NAME`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TroubleRecord {
    /// None: it was refused, which may be as it should.
    pub trouble: Option<api::Trouble>,
    pub tries: u32,
    pub again_unix_ms: u64,
}

pub fn json(value: &impl Serialize) -> Vec<u8> {
    serde_json::to_vec(value).expect("types of ours are always JSON")
}

pub fn read<T: for<'de> Deserialize<'de>>(entry: &Entry) -> Result<T> {
    serde_json::from_slice(&entry.value).map_err(|error| {
        let detail = format!("{} in the state cannot be read: {error}", entry.key);
        Refused::new(500, "damaged", detail, "remove it: its host or its user says it again")
    })
}

pub fn version(text: &str) -> Result<model::VersionId> {
    text.parse().map_err(|error| Refused::wrong(format!("{text:?}: {error}")))
}

pub fn host_id(text: &str) -> Result<HostId> {
    text.parse().map_err(|error| Refused::wrong(format!("{text:?}: {error}")))
}

pub fn name(text: &str) -> Result<Name> {
    Name::new(text).map_err(|error| Refused::wrong(error.to_string()))
}
