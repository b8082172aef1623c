//! What a version, a checkpoint and an instance's head say, apart from the volumes they name.
//!
//! Each is the body of a record (or of a ref's payload) in the repository; the record's children
//! name the manifests and records, so that the repository can walk them without knowing what they
//! are. `docs/format/records.md` has the fields.
//!
//! *Invariants.* Decoding checks everything: a value of one of these types is consistent with its
//! children. Nothing here does I/O.

mod hardware;
mod head;
mod wire;

pub(crate) use head::GONE_MAX;
#[cfg(test)]
pub(crate) use head::tests;

use import::ovf::Property;
use model::{
    CheckpointId, ChunkId, Hardware, HostId, InstanceId, InstanceState, Lease, ManifestId, Name,
    Ready, VersionId,
};

use crate::auto::{Auto, Keep};

pub use head::{decode_head, encode_head};
pub use wire::{RecordError, decode_checkpoint, decode_version};
pub use wire::{encode_checkpoint, encode_version};

/// A file kept whole: a kernel, an initrd, a device state.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Blob {
    /// The record that names its pieces.
    pub id: ChunkId,
    /// Its length, bytes.
    pub bytes: u64,
    /// BLAKE3 of the whole file.
    pub blake3: [u8; 32],
}

/// An immutable release of an appliance.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Version {
    pub appliance: Name,
    /// As its maker numbers it, for example `1.4.0`.
    pub version: String,
    pub description: String,
    pub hardware: Hardware,
    pub ready: Ready,
    pub kernel: Option<Blob>,
    pub initrd: Option<Blob>,
    /// UEFI's program, so that every host runs the one that a saved memory expects.
    pub firmware: Option<Blob>,
    /// One for each disk of the hardware, in its order.
    pub disks: Vec<ManifestId>,
    /// Packages of the system disk and their versions.
    pub packages: Vec<(String, String)>,
    /// Whose packages they are, as a package URL begins (`deb/ubuntu`); none: Debian's.
    pub packages_of: Option<String>,
    /// The form that its user fills in, with the answers so far.
    pub properties: Vec<Property>,
    /// The maker's part of what cloud-init configures.
    pub vendor_data: Option<Blob>,
    /// What its maker says about automatic checkpoints.
    pub auto: Option<Auto>,
    /// The same computer, as it ran when its maker built it.
    pub warm: Option<Warm>,
}

/// A running computer in a version: what its instances can start from instead of booting.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Warm {
    pub memory: Memory,
    /// The disks at the memory's instant, one for each disk of the hardware.
    pub disks: Vec<ManifestId>,
    /// Whether a guest agent answers in it: through it an instance gets an identity of its own.
    pub agent: bool,
}

impl Version {
    /// What an instance without a checkpoint began with: the disks that boot, or with `warm` those
    /// of the memory.
    pub fn first_disks(&self, warm: bool) -> &[ManifestId] {
        match &self.warm {
            Some(running) if warm => &running.disks,
            _ => &self.disks,
        }
    }

    /// The memory that it began with, if it did.
    pub fn first_memory(&self, warm: bool) -> Option<&Memory> {
        self.warm.as_ref().filter(|_| warm).map(|running| &running.memory)
    }
}

/// The saved memory and devices of a running computer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Memory {
    pub ram: ManifestId,
    pub device_state: Blob,
    /// What the device state can be loaded into.
    pub machine: Machine,
}

/// The emulated machine that a device state belongs to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Machine {
    /// The pinned machine type, for example `pc-q35-10.0`.
    pub machine_type: String,
    pub cpu_model: String,
    /// `tcg` or `kvm`.
    pub accel: String,
    /// Memory, bytes: must equal the RAM volume's size.
    pub memory_bytes: u64,
}

/// How a start begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum How {
    /// From its disks.
    Booted,
    /// From its memory.
    Continued,
}

impl How {
    /// The word in `run --json` and in the names of traces.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Booted => "booted",
            Self::Continued => "continued",
        }
    }
}

/// What starts of an instance touched: chunks of [`volume::Trace`], for each kind of start.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Traces {
    pub booted: Option<ChunkId>,
    pub continued: Option<ChunkId>,
}

impl Traces {
    /// For one kind of start.
    pub fn of(self, how: How) -> Option<ChunkId> {
        match how {
            How::Booted => self.booted,
            How::Continued => self.continued,
        }
    }

    /// With another one for one kind of start.
    pub fn with(self, how: How, id: ChunkId) -> Self {
        match how {
            How::Booted => Self { booted: Some(id), ..self },
            How::Continued => Self { continued: Some(id), ..self },
        }
    }
}

/// All volumes of an instance sealed at one instant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Checkpoint {
    pub instance: InstanceId,
    /// The last one before it that somebody took: an automatic one is nobody's parent.
    pub parent: Option<CheckpointId>,
    pub version: VersionId,
    pub label: Option<String>,
    pub why: Why,
    /// When its guest stood still, milliseconds since the Unix epoch by the host's clock.
    pub taken_unix_ms: u64,
    /// None: it boots from its disks.
    pub memory: Option<Memory>,
    /// One for each disk of the hardware, in its order.
    pub disks: Vec<ManifestId>,
    /// Bytes that the guest had written since the checkpoint before it.
    pub dirty_bytes: u64,
    /// Bytes that this added to the repository, as stored.
    pub stored_bytes: u64,
    /// How long its guest stood still, microseconds; None: it did not run, or nobody noted it.
    pub pause_us: Option<u64>,
    pub traces: Traces,
    /// Of an update: from what to what.
    pub change: Option<Change>,
}

/// What an update changed, and what its maker wants to be asked of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// The maker's versions before and after it.
    pub from: VersionId,
    pub to: VersionId,
    /// What undoing it goes back to; its parent, unless it ran: then the point before it stopped.
    pub back: Option<CheckpointId>,
    /// Whether it is looked at, and undone if it does not work.
    pub tried: bool,
    /// It has to be ready this soon, and a program of its maker's to be done, seconds.
    pub within_s: u64,
    /// A program in the guest that brings the user's data to the new form, once; empty: none.
    pub migrate: Vec<String>,
    /// A program in the guest that says by its exit code whether all is well; empty: none.
    pub health: Vec<String>,
}

/// What a checkpoint was taken for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Why {
    Checkpoint,
    Suspend,
    Stop,
    Fork,
    Undo,
    /// Nobody asked: its policy says so.
    Auto,
    /// The system disk of another version, under the user's data.
    Update,
}

impl Why {
    /// The word in `history`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Checkpoint => "checkpoint",
            Self::Suspend => "suspend",
            Self::Stop => "stop",
            Self::Fork => "fork",
            Self::Undo => "undo",
            Self::Auto => "auto",
            Self::Update => "update",
        }
    }

    /// Reads the word.
    pub fn parse(text: &str) -> Option<Self> {
        use Why::{Auto, Checkpoint, Fork, Stop, Suspend, Undo, Update};
        [Checkpoint, Suspend, Stop, Fork, Undo, Auto, Update]
            .into_iter()
            .find(|why| why.as_str() == text)
    }
}

/// The head of an instance's line of checkpoints, and who may move it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Head {
    pub instance: InstanceId,
    pub name: Name,
    pub appliance: Name,
    pub version: VersionId,
    /// Running (somewhere: see the lease), suspended or stopped.
    pub state: InstanceState,
    pub lease: Option<Lease>,
    /// None until its first checkpoint: it starts from the version.
    pub checkpoint: Option<CheckpointId>,
    /// The checkpoint it was forked from.
    pub origin: Option<CheckpointId>,
    /// One for each network card.
    pub macs: Vec<[u8; 6]>,
    /// The virtual machine generation id, new for each fork.
    pub vmgenid: [u8; 16],
    /// Whether the next start must give the guest a fresh identity.
    pub fresh: bool,
    /// While there is no checkpoint: it began from its version's memory, not by booting.
    pub warm: bool,
    /// Whether and how checkpoints are taken by themselves; None: as the host that runs it says.
    pub auto: Option<Auto>,
    /// The automatic checkpoints of its line that are kept, in the order in which they were taken.
    pub autos: Vec<AutoPoint>,
    /// Automatic checkpoints that a host may hold writes on top of: not dropped.
    pub holds: Vec<Hold>,
    /// Of a branch: the checkpoint at which it left its instance's line.
    pub left: Option<CheckpointId>,
    /// Whose versions it gets, and how.
    pub follow: Option<Follow>,
    /// It has a new version that has not yet been seen to work.
    pub trial: Option<Trial>,
    /// The network that its first card is plugged into, of the host that runs it; None: as its maker
    /// says.
    pub network: Option<Name>,
    /// Checkpoints on the way to its first one of which nothing but their record is kept. What it names itself is
    /// kept all the same.
    pub gone: Vec<CheckpointId>,
    /// What a collection keeps of the checkpoints that somebody took on its line; None: all, unless it is told.
    pub keep_taken: Option<Keep>,
    /// What its host has let go and the repository does not have yet.
    pub parcel: Option<Parcel>,
}

/// A checkpoint that is on its way from one host to another, and not in the repository yet: nothing that a
/// ref keeps may lead to it. The head stays at the last one that is durable.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Parcel {
    pub checkpoint: CheckpointId,
    /// The ids of all its chunks that the checkpoint before it does not have, 32 bytes each: a file that is
    /// in the parcel too.
    pub chunks: Blob,
    /// Who has it, on its disk, until it is in the repository.
    pub host: HostId,
    pub host_name: String,
    /// What its certificate called it, and where it gives.
    pub peer: String,
    pub address: String,
}

/// Where an instance's versions come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Follow {
    /// The maker's repository: chunks come from there too.
    pub location: String,
    /// The channel, for example `stable`; None: it stays at its version.
    pub channel: Option<String>,
    pub policy: UpdatePolicy,
    /// The maker's version that it has. (Its own may have a CD more.)
    pub release: VersionId,
}

/// What becomes of a new version.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UpdatePolicy {
    /// It is applied when the instance next starts after a stop.
    Auto,
    /// It is applied when somebody says so.
    Ask,
}

impl UpdatePolicy {
    /// The word in `run --updates`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Ask => "ask",
        }
    }

    /// Reads the word.
    pub fn parse(text: &str) -> Option<Self> {
        [Self::Auto, Self::Ask].into_iter().find(|policy| policy.as_str() == text)
    }
}

/// What an instance goes back to when its new version does not work.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Trial {
    /// The checkpoint before the update, on its line.
    pub back: CheckpointId,
    /// The maker's version that it had.
    pub release: VersionId,
    /// Its guest has been started: what it changed may be half done.
    pub begun: bool,
}

/// An automatic checkpoint in the list of its head.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AutoPoint {
    pub id: CheckpointId,
    /// As in its record.
    pub taken_unix_ms: u64,
    /// As in its record: the last one before it that somebody took.
    pub parent: Option<CheckpointId>,
}

/// A host that may have writes on top of a checkpoint that no checkpoint has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Hold {
    pub host: HostId,
    pub checkpoint: CheckpointId,
}

impl Head {
    /// Whether a checkpoint of its line was thinned out.
    pub fn is_gone(&self, id: CheckpointId) -> bool {
        let back = self.trial.map(|trial| trial.back);
        let named = [self.checkpoint, self.origin, back].contains(&Some(id));
        self.gone.contains(&id) && !named && self.autos.iter().all(|auto| auto.id != id)
    }

    /// When these are gone of its line.
    pub fn without(&self, checkpoints: &[CheckpointId]) -> Self {
        let mut next = self.clone();
        next.autos.retain(|auto| !checkpoints.contains(&auto.id));
        let is_auto = |id: &&CheckpointId| self.autos.iter().any(|auto| auto.id == **id);
        next.gone.extend(checkpoints.iter().filter(|id| !is_auto(id)));
        next
    }

    /// Whether its host has let it go and nobody has taken it yet: it runs nowhere, and any host that gets
    /// what is in the parcel may go on with it.
    pub fn is_offered(&self) -> bool {
        match (&self.lease, &self.parcel) {
            (Some(lease), Some(parcel)) => lease.holder == parcel.host,
            _ => false,
        }
    }

    /// The newest checkpoint of its line that somebody took, and what the next one's parent is.
    pub fn explicit(&self) -> Option<CheckpointId> {
        match self.autos.iter().find(|auto| Some(auto.id) == self.checkpoint) {
            Some(auto) => auto.parent,
            None => self.checkpoint,
        }
    }
}
