//! What a shim is told when it is started: one JSON argument. It holds no secrets, because
//! arguments can be read by others.

use api::PortPrint;
use serde::{Deserialize, Serialize};

use crate::failure::{Failure, Result};
use crate::record::{Follow, UpdatePolicy};

/// A shim's whole task.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Order {
    /// Where the instance's head is kept.
    pub repository: String,
    /// The instance.
    pub name: String,
    /// New, or one that exists.
    pub start: Start,
    /// Ports to publish, with host ports already chosen.
    pub ports: Vec<PortPrint>,
    /// `auto`, `kvm` or `tcg`.
    pub accel: String,
    /// How long the guest may take to become ready.
    pub ready_timeout_ms: u64,
    /// It runs for a build: its memory will be that of every instance of a version.
    #[serde(default)]
    pub maker: bool,
    /// The network that its first card is plugged into from now on; none: as before.
    #[serde(default)]
    pub network: Option<String>,
    /// What it is done for; none: nobody follows it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub traceparent: Option<String>,
}

/// Which instance.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Start {
    /// A new one of this version; with `boot`, not from the version's memory; and what it says about
    /// automatic checkpoints, if anything.
    New {
        appliance: String,
        version_id: String,
        boot: bool,
        auto: Option<String>,
        #[serde(default)]
        follow: Option<FollowOrder>,
    },
    /// One whose head is in the repository; with `at`, only while that is its generation.
    Existing {
        take_over: bool,
        #[serde(default)]
        at: Option<u64>,
    },
}

/// Whose versions a new instance gets.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FollowOrder {
    location: String,
    channel: Option<String>,
    policy: String,
    release: String,
}

impl From<&Follow> for FollowOrder {
    fn from(follow: &Follow) -> Self {
        Self {
            location: follow.location.clone(),
            channel: follow.channel.clone(),
            policy: follow.policy.as_str().to_owned(),
            release: follow.release.to_string(),
        }
    }
}

impl FollowOrder {
    /// As the head says it.
    pub fn read(&self) -> Result<Follow> {
        let internal = || Failure::new("internal", "the order's maker cannot be read", "");
        Ok(Follow {
            location: self.location.clone(),
            channel: self.channel.clone(),
            policy: UpdatePolicy::parse(&self.policy).ok_or_else(internal)?,
            release: self.release.parse().map_err(|_| internal())?,
        })
    }
}
