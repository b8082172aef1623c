//! What each verb prints with `--json`: one document on standard output.

use serde::{Deserialize, Serialize};

use crate::makers::{FilePrint, SignedPrint, UpdatePrint, UpdatesPrint};

/// An error, as `{"error": {...}}`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ErrorPrint {
    pub error: ErrorBody,
}

/// What went wrong and what to do next.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ErrorBody {
    /// A stable word to branch on, for example `not_found`.
    pub kind: String,
    /// What happened, for a person.
    pub message: String,
    /// The next step.
    pub hint: String,
}

/// One row of `ps`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct InstancePrint {
    pub name: String,
    pub id: String,
    /// `running paused suspended stopped failed`.
    pub state: String,
    pub appliance: String,
    pub version: String,
    /// `tcg` or `kvm` while it runs here.
    pub accel: Option<String>,
    /// The shim's process id while it runs here.
    pub pid: Option<u32>,
    /// The host that runs it, when one does.
    pub host: Option<String>,
    pub ports: Vec<PortPrint>,
    /// Why it is not answering as it should, when that is known (a stalled page, a lost shim).
    pub note: Option<String>,
}

/// A published port.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PortPrint {
    pub address: String,
    pub host_port: u16,
    pub guest_port: u16,
}

/// `run` and `resume`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StartPrint {
    pub name: String,
    /// From the command to the moment the guest's CPUs run, milliseconds.
    pub started_ms: u64,
    /// From the command until the ready check passed, milliseconds.
    pub ready_ms: u64,
    /// Bytes that came from the repository until it was ready, as stored (compressed).
    pub fetched_bytes: u64,
    /// Bytes that came from other hosts of the same plane until then, as sent.
    #[serde(default)]
    pub peer_bytes: u64,
    /// Bytes of pages that were already on this host until it was ready.
    pub reused_bytes: u64,
    pub accel: String,
    pub ports: Vec<PortPrint>,
    /// `booted` or `continued`.
    pub how: String,
    /// Why it booted although its appliance has a memory to start from.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub cold: Option<String>,
    /// The new version that it has got on this occasion, or has not.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub update: Option<UpdatePrint>,
}

/// `suspend` and `checkpoint`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CheckpointPrint {
    pub checkpoint: String,
    /// How long the guest's CPUs stood still, milliseconds (for `suspend`: until its state was
    /// frozen).
    pub pause_ms: f64,
    /// Bytes the guest had written since the last checkpoint.
    pub dirty_bytes: u64,
    /// Bytes that this added to the repository, as stored.
    pub stored_bytes: u64,
    /// Of the dirty bytes, those that the repository already had.
    pub reused_bytes: u64,
    /// Whole time until it was durable, milliseconds.
    pub total_ms: u64,
}

/// `fork`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ForkPrint {
    pub instances: Vec<String>,
    pub pause_ms: f64,
    pub checkpoint: String,
    pub starts: Vec<StartPrint>,
}

/// `undo`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct UndoPrint {
    pub name: String,
    /// The checkpoint that is the head now.
    pub checkpoint: String,
    /// Where the state that was undone is kept, if there was any.
    pub branch: Option<String>,
    /// Automatic checkpoints that went with it, and stay.
    pub autos: u64,
    pub state: String,
}

/// One line of `history`, newest first; a branch stands before the checkpoint at which it left.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct HistoryPrint {
    pub id: String,
    pub label: Option<String>,
    /// When it was taken, RFC 3339, UTC.
    pub time: String,
    /// How long ago that was, seconds; 0 when the clocks disagree.
    pub age_s: u64,
    /// What the guest had written since the checkpoint before it, bytes.
    pub written_bytes: u64,
    /// What it added to the repository, bytes as stored.
    pub size_bytes: u64,
    /// How long the guest stood still, milliseconds, where that is known.
    pub pause_ms: Option<f64>,
    /// `suspend`, `checkpoint`, `stop`, `fork`, `undo`, `auto`.
    pub why: String,
    /// Taken by itself: its policy decides how long it is kept.
    pub auto: bool,
    /// Where the instance is, or was when it started.
    pub head: bool,
    /// Thinned out: that it was there is all that is kept.
    #[serde(default)]
    pub gone: bool,
    /// Whether it holds memory, so that it continues; else it boots.
    pub memory: bool,
    /// The branch it belongs to; none for the instance's own line.
    pub branch: Option<String>,
    /// Of a branch: the checkpoint of the line at which it left, where that is known.
    pub left: Option<String>,
}

/// `cp`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CopyPrint {
    /// None: the instance had no checkpoint yet, and it came from its version.
    pub checkpoint: Option<String>,
    /// The disk that it was on.
    pub disk: String,
    /// Where it is now.
    pub path: String,
    pub files: u64,
    /// Bytes in those files, holes included.
    pub bytes: u64,
    /// Devices, pipes and sockets, which are not copied.
    pub left_out: u64,
}

/// `mount`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MountPrint {
    pub checkpoint: Option<String>,
    /// When it was taken, RFC 3339, UTC.
    pub taken: Option<String>,
    pub dir: String,
    pub disks: Vec<String>,
}

/// A verb that only changes the state: `pause`, `unpause`, `stop`, `rm`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StatePrint {
    pub name: String,
    pub state: String,
    pub checkpoint: Option<String>,
}

/// `exec` with `--json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExecPrint {
    pub exit_code: i32,
    pub stdout: String,
    pub stderr: String,
}

/// `build`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BuildPrint {
    pub appliance: String,
    pub version: String,
    pub version_id: String,
    pub logical_bytes: u64,
    pub stored_bytes: u64,
    pub reused_bytes: u64,
    pub total_ms: u64,
    pub volumes: Vec<VolumePrint>,
    /// What its instances start from, with `state: running`.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub warm: Option<WarmPrint>,
}

/// The running computer in a version.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WarmPrint {
    /// Memory, bytes.
    pub memory_bytes: u64,
    /// What of its memory and disks the start had written, bytes.
    pub written_bytes: u64,
    /// What that added to the repository, bytes as stored.
    pub stored_bytes: u64,
    /// What it can be loaded on: `tcg` or `kvm`.
    pub accel: String,
    /// How long it took to boot until it was ready, milliseconds.
    pub boot_ms: u64,
    /// How long an instance that started from its memory took until it was ready, milliseconds.
    pub start_ms: u64,
    /// Whether its agent gives each instance an identity of its own in the guest.
    pub agent: bool,
    /// Pages that an instance that started from its memory touched: the next one fetches them
    /// ahead.
    pub traced_pages: u64,
}

/// `import`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImportPrint {
    pub appliance: String,
    pub version: String,
    pub version_id: String,
    /// What the file was: `qcow2`, `ova` ...
    pub format: String,
    pub cpus: u32,
    pub memory_bytes: u64,
    pub logical_bytes: u64,
    pub stored_bytes: u64,
    pub reused_bytes: u64,
    pub total_ms: u64,
    pub volumes: Vec<VolumePrint>,
    /// The form of an OVA.
    pub properties: Vec<PropertyPrint>,
    /// What differs from what the file asked for, and what could not be checked.
    pub notes: Vec<String>,
}

/// One field of an OVA's form.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PropertyPrint {
    pub key: String,
    /// OVF's word: `string`, `boolean`, `uint16` ...
    pub kind: String,
    pub label: String,
    pub configurable: bool,
    /// None: there is none yet, or it is a password.
    pub value: Option<String>,
    /// `run` has to give it.
    pub required: bool,
}

/// `export`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExportPrint {
    pub name: String,
    /// `instance` or `appliance`.
    pub what: String,
    pub version: String,
    /// None: as its maker made it.
    pub checkpoint: Option<String>,
    pub file: String,
    /// `raw`, `qcow2` or `ova`.
    pub format: String,
    /// The file's length.
    pub file_bytes: u64,
    pub disks: Vec<ExportDiskPrint>,
    pub total_ms: u64,
    /// What the file does not hold.
    pub notes: Vec<String>,
}

/// One disk of an export.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExportDiskPrint {
    pub name: String,
    pub manifest: String,
    pub size_bytes: u64,
    /// What of it was not a hole.
    pub data_bytes: u64,
}

/// One volume, as `build` and `inspect` show it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VolumePrint {
    pub name: String,
    pub manifest: Option<String>,
    pub size_bytes: u64,
    /// Bytes written since the last checkpoint, while it runs here.
    pub dirty_bytes: Option<u64>,
    /// Bytes that the guest has given back since the last checkpoint (trimmed, or free memory), while
    /// it runs here.
    pub freed_bytes: Option<u64>,
    /// Bytes read from the repository since it started, as pages.
    pub fetched_bytes: Option<u64>,
    /// Bytes found in the host's cache since it started.
    pub cached_bytes: Option<u64>,
}

/// What a running instance came with from another host before the repository had it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ArrivingPrint {
    /// The host that it came from, which keeps it until the repository has it.
    pub from: String,
    /// The checkpoint that it will be.
    pub checkpoint: String,
    /// Chunks that are not on this host yet; none: that is not known yet.
    pub left_chunks: Option<u64>,
    /// Why they do not come, or cannot be stored, now.
    pub missing: Option<String>,
}

/// The scrub of a running instance: what this host lacks of its volumes comes in the background.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ScrubPrint {
    /// `off`, `waiting` (for the guest to be ready, or to try again what could not be had),
    /// `running`, `done` (the guest can go on without the repository) or `full` (this host's cache
    /// is, of what is in use).
    pub state: String,
    /// How much of the volumes was looked at.
    pub percent: u64,
    /// Bytes of pages that it has fetched.
    pub fetched_bytes: u64,
    /// Bytes of pages that could not be had when it last tried.
    pub missing_bytes: u64,
}

/// What the start of a running instance touched, in pages.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TracePrint {
    /// Pages that were touched, each counted once: what the next start will fetch ahead.
    pub recorded: u64,
    /// Of these, pages that were on this host and, because earlier starts had touched them, put into
    /// memory before the guest ran. Whether it touched them is not seen.
    pub placed: u64,
    /// Pages that were fetched ahead, because earlier starts had touched them.
    pub prefetched: u64,
    /// Touched pages that had been fetched ahead by then.
    pub hits: u64,
    /// Touched pages that had not come to this host yet, so that the guest had to wait.
    pub misses: u64,
}

/// How checkpoints of an instance are taken by themselves: `checkpoint --every`, and in `inspect`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AutoPrint {
    /// Seconds between two; none: they are off.
    pub every_s: Option<u64>,
    /// One is taken sooner when the guest has written so much since the last.
    #[serde(default)]
    pub dirtied_bytes: Option<u64>,
    /// Which stay, for example `last=6,hourly=24`.
    pub keep: Option<String>,
    /// What a collection keeps of what somebody took; none: all, or as it is told.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub keep_taken: Option<String>,
    /// Who says so: `instance` (its user), `maker` (its version), `host` (its default) or `nobody`.
    pub said_by: String,
    /// When the last checkpoint of any kind was taken, RFC 3339, while it runs here.
    pub last: Option<String>,
    /// Seconds until the next is due, while it runs here.
    pub next_s: Option<u64>,
    /// Why the last try failed, when it did.
    pub failing: Option<String>,
}

/// `config`: what this host was told.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConfigPrint {
    pub repository: Option<String>,
    pub sources: Vec<String>,
    /// Most bytes that the host's cache may take.
    pub cache_bytes_max: u64,
    /// `on` or `off`.
    pub scrub: String,
    /// Automatic checkpoints of instances that say nothing of their own: `off`, or for example
    /// `5m,last=6,hourly=24`.
    pub auto: String,
    /// What `repo gc` keeps of instances' histories: `all`, or for example `last=20,daily=14`.
    pub keep: String,
    /// What is done about makers' new versions by itself: `off`, or for example
    /// `6h,rate=1MiB,window=02:00-05:00`.
    pub updates: String,
}

/// One line of `network`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NetworkPrint {
    pub name: String,
    /// The device; none: user-mode networking.
    pub bridge: Option<String>,
    /// `ready`, or `absent`: its bridge is not there.
    pub state: String,
}

/// `inspect`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct InspectPrint {
    #[serde(flatten)]
    pub instance: InstancePrint,
    pub version_id: String,
    pub generation: u64,
    pub head: Option<String>,
    pub origin: Option<String>,
    pub cpus: u32,
    pub memory_bytes: u64,
    pub profile: String,
    pub cpu_model: String,
    pub mac: Vec<String>,
    /// What its first network card is plugged into.
    pub network: String,
    pub volumes: Vec<VolumePrint>,
    /// While it runs here.
    pub scrub: Option<ScrubPrint>,
    /// What it came with and the repository does not have yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub arriving: Option<ArrivingPrint>,
    /// While it runs here.
    pub trace: Option<TracePrint>,
    pub auto: AutoPrint,
    /// What its maker signed of it; none: it was built or imported here.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub signed: Option<SignedPrint>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub updates: Option<UpdatesPrint>,
    /// With `--drift`: what on its system disks is not as its maker shipped it, at its last checkpoint.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub drift: Option<Vec<FilePrint>>,
    pub vnc: Option<String>,
    pub directory: Option<String>,
}

/// One appliance of the repository.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AppliancePrint {
    pub name: String,
    pub version: String,
    pub version_id: String,
    pub description: String,
}

/// `repo init`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RepoInitPrint {
    pub location: String,
    pub id: String,
    pub encrypted: bool,
    /// Where its key is: `repository`, `host` or none.
    pub key: Option<String>,
}

/// `repo stats`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RepoStatsPrint {
    pub logical_bytes: u64,
    pub stored_bytes: u64,
    pub chunks: u64,
    pub objects: u64,
}

/// `repo check`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CheckPrint {
    pub ok: bool,
    pub chunks: u64,
    pub objects: u64,
    pub read_bytes: u64,
    /// What is damaged or missing; with `--repair`, and nobody had it.
    pub problems: Vec<String>,
    /// With `--repair`: what was mended, and from where.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub mended: Vec<String>,
    /// Bytes that were fetched for that.
    #[serde(default, skip_serializing_if = "is_none")]
    pub fetched_bytes: u64,
}

fn is_none(bytes: &u64) -> bool {
    *bytes == 0
}

/// `repo repair`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RepairPrint {
    /// Nothing damaged is left.
    pub ok: bool,
    /// Objects that were read and judged.
    pub objects: u64,
    pub read_bytes: u64,
    /// Objects that were put back.
    pub repaired: Vec<String>,
    /// What could not be.
    pub problems: Vec<String>,
}

/// `repo mirror`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct MirrorPrint {
    pub from: String,
    pub to: String,
    /// Whose repository it is.
    pub maker: String,
    /// Versions that the mirror has.
    pub versions: u64,
    /// Bytes of content and of signed documents that the mirror lacked, and that it had.
    pub copied_bytes: u64,
    pub reused_bytes: u64,
    /// What was read from the maker's place for that.
    pub fetched_bytes: u64,
    /// Objects that were written.
    pub objects: u64,
    /// Versions that the maker does not list any more, and what was freed.
    pub dropped_versions: u64,
    pub freed_bytes: u64,
    pub total_ms: u64,
}

/// `repo gc`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct GcPrint {
    /// Nothing was done: this is what would go.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub dry_run: bool,
    /// What retention drops, in words; and what that frees, in time.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub dropped: Vec<String>,
    #[serde(default, skip_serializing_if = "is_none")]
    pub dropped_bytes: u64,
    pub live_chunks: u64,
    /// Packs that nothing needs; deleted by a later gc, after the grace age.
    pub condemned_packs: u64,
    pub condemned_bytes: u64,
    pub deleted_packs: u64,
    pub repacked_packs: u64,
    pub freed_bytes: u64,
    /// The repository's grace age, seconds.
    pub grace_s: u64,
}

/// One line of `doctor`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DoctorPrint {
    pub check: String,
    /// `ok`, `warning` or `failed`.
    pub status: String,
    pub detail: String,
    pub hint: String,
}
