//! Operations: what somebody has asked a plane to do with an instance, and how far that is.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::plane::Trouble;

/// The header of an answer that says which operation the request has begun.
pub const OPERATION_HEADER: &str = "collective-operation";

/// How far an operation is. The last three do not change any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum OperationState {
    /// No host works on it now.
    Waiting,
    /// A host works on it.
    Running,
    /// It is as it was asked.
    Done,
    /// It does not come about by itself, or has not for a number of tries.
    Failed,
    /// Somebody has cancelled it, or has asked something else.
    Cancelled,
}

impl OperationState {
    /// The word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Waiting => "waiting",
            Self::Running => "running",
            Self::Done => "done",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
        }
    }

    /// Whether it does not change any more.
    pub fn is_over(self) -> bool {
        matches!(self, Self::Done | Self::Failed | Self::Cancelled)
    }
}

/// What is to come about by an operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum OperationKind {
    /// It runs.
    Start,
    /// It runs on another host than the one that had it.
    Move,
    Suspend,
    Stop,
}

impl OperationKind {
    /// The word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Start => "start",
            Self::Move => "move",
            Self::Suspend => "suspend",
            Self::Stop => "stop",
        }
    }
}

/// One change of an instance that somebody has asked for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct OperationPrint {
    /// The instance's name, `~` and digits that grow with time.
    pub id: String,
    pub kind: OperationKind,
    pub instance: String,
    pub project: String,
    /// Whose the instance is.
    pub owner: String,
    /// Who asked.
    pub asked_by: String,
    /// The id of that request, as the audit log has it.
    pub request: String,
    /// When that was, milliseconds since the Unix epoch.
    pub begun_unix_ms: u64,
    pub state: OperationState,
    /// What is done now, or what came of it, in words.
    pub step: Option<String>,
    /// The id of the host that works on it.
    pub host: Option<String>,
    /// What the host has stored for it so far, or fetched; none: that is not known. What it will be in all nobody
    /// knows: a guest writes on, and fetches what it touches.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub done_bytes: Option<u64>,
    /// Who has cancelled it. While it is not over, a host has been told and has not ended it yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cancelled_by: Option<String>,
    /// Why the last try failed; it is tried again unless it is over.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure: Option<Trouble>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended_unix_ms: Option<u64>,
}

/// An order that a host carries out, as it asks for others.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct OrderUnderWay {
    pub order: String,
    /// Of the instance.
    pub name: String,
    /// What it does now, in words.
    #[serde(default)]
    pub step: Option<String>,
    /// Bytes that it has stored for it so far, or fetched.
    #[serde(default)]
    pub done_bytes: Option<u64>,
    /// It does not end before it is done any more.
    #[serde(default)]
    pub past: bool,
    /// The host has seen that it does not stand any more.
    #[serde(default)]
    pub called_back: bool,
}
