//! What a command and a shim say to each other: one JSON document a line over the shim's socket.
//! A connection carries one request and its reply.

use serde::{Deserialize, Serialize};

use crate::{
    ArrivingPrint, AutoPrint, CheckpointPrint, ErrorBody, PortPrint, ScrubPrint, TracePrint,
    VolumePrint,
};

/// A request, and what it is done for.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Asked {
    #[serde(flatten)]
    pub request: Request,
    /// As W3C's Trace Context writes it; none: nobody follows it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub traceparent: Option<String>,
}

/// What can be asked of a shim.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(tag = "verb", rename_all = "snake_case")]
pub enum Request {
    /// What are you doing? Answered at once, whatever else goes on.
    Status,
    /// Answer when the guest is ready, or failed to become so.
    AwaitReady {
        timeout_ms: u64,
    },
    /// Answer when the guest's CPUs run.
    AwaitStarted {
        timeout_ms: u64,
    },
    Pause,
    Unpause,
    Checkpoint {
        label: Option<String>,
        why: String,
    },
    /// Checkpoint, then end. With `branch`, the instance's head stays where it is and the
    /// checkpoint becomes a branch.
    Suspend {
        label: Option<String>,
        branch: bool,
    },
    /// Let it go to another host, which gets what the repository does not have yet from this one, by this
    /// name and at this address; then end.
    Part {
        peer: String,
        address: String,
    },
    /// Power off, keep what is to be kept, end. With `force`, without asking the guest.
    Stop {
        force: bool,
        timeout_ms: u64,
    },
    /// End without keeping anything (`rm --force`).
    Discard,
    /// Do not let the guest run: end, and leave all as it was before. Answered at once.
    CallOff,
    /// How checkpoints are taken by themselves from now on; none: as the host says.
    SetAuto {
        auto: Option<String>,
    },
    /// What a collection keeps of what somebody took; none: as it is told.
    SetKeepTaken {
        keep: Option<String>,
    },
    /// These are gone of its line from now on, as was decided when its head had this generation.
    Forget {
        generation: u64,
        checkpoints: Vec<String>,
    },
    /// Which channel it follows from now on (none: it stays at its version), and by which policy.
    SetFollow {
        channel: Option<String>,
        policy: String,
    },
    /// The new version that it has works.
    Settle,
    Exec {
        argv: Vec<String>,
        stdin_base64: Option<String>,
        timeout_ms: u64,
    },
    /// Write a PNG of the screen to this file of the run directory.
    Screenshot {
        file_name: String,
    },
}

impl Request {
    /// In a word.
    pub fn verb(&self) -> &'static str {
        match self {
            Self::Status => "status",
            Self::AwaitReady { .. } => "await_ready",
            Self::AwaitStarted { .. } => "await_started",
            Self::Pause => "pause",
            Self::Unpause => "unpause",
            Self::Checkpoint { .. } => "checkpoint",
            Self::Suspend { .. } => "suspend",
            Self::Part { .. } => "part",
            Self::Stop { .. } => "stop",
            Self::Discard => "discard",
            Self::CallOff => "call_off",
            Self::SetAuto { .. } => "set_auto",
            Self::SetKeepTaken { .. } => "set_keep_taken",
            Self::Forget { .. } => "forget",
            Self::SetFollow { .. } => "set_follow",
            Self::Settle => "settle",
            Self::Exec { .. } => "exec",
            Self::Screenshot { .. } => "screenshot",
        }
    }
}

/// What a shim answers.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(tag = "reply", rename_all = "snake_case")]
pub enum Reply {
    Status(Box<Status>),
    Started(StartReport),
    Checkpoint(CheckpointPrint),
    Exec(ExecOutcome),
    Done {
        checkpoint: Option<String>,
    },
    /// Whether the guest does not run; else it may run already.
    CalledOff {
        in_time: bool,
    },
    Failed {
        error: ErrorBody,
    },
}

/// How a start went.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct StartReport {
    /// From the shim's birth until the guest's CPUs ran, milliseconds.
    pub started_ms: u64,
    /// From the shim's birth until the ready check passed, milliseconds.
    pub ready_ms: u64,
    pub fetched_bytes: u64,
    /// Of other hosts.
    #[serde(default)]
    pub peer_bytes: u64,
    pub reused_bytes: u64,
    pub accel: String,
    pub ports: Vec<PortPrint>,
    /// `booted` or `continued`.
    pub how: String,
    /// Why it booted although its version has a memory.
    #[serde(default)]
    pub cold: Option<String>,
}

/// What a shim is doing now.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Status {
    pub pid: u32,
    pub qemu_pid: Option<u32>,
    /// `starting running paused suspended stopped failed`.
    pub state: String,
    /// Of its machine; 0: it has none yet.
    #[serde(default)]
    pub cpus: u32,
    #[serde(default)]
    pub memory_bytes: u64,
    pub accel: String,
    pub ports: Vec<PortPrint>,
    pub volumes: Vec<VolumePrint>,
    pub scrub: Option<ScrubPrint>,
    /// What it came with and the repository does not have yet.
    #[serde(default)]
    pub arriving: Option<ArrivingPrint>,
    pub trace: Option<TracePrint>,
    pub auto: Option<AutoPrint>,
    /// A page that cannot be had now, and why.
    pub stalled: Option<String>,
    /// What the guest was given an error for, because it is damaged here.
    #[serde(default)]
    pub lost: Option<String>,
    pub generation: u64,
}

/// A finished guest command.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ExecOutcome {
    pub exit_code: i32,
    pub stdout_base64: String,
    pub stderr_base64: String,
}
