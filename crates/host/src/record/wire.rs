//! The wire forms: JSON with a kind and a format number in front, at most 1 MiB.

use std::fmt;

use import::ovf::Property;
use model::{BootKind, ChunkId, InstanceState, Lease, ManifestId, Name};
use serde::{Deserialize, Serialize};

use super::hardware::{self, HardwareWire, ReadyWire, id};
use super::{
    AutoPoint, Blob, Change, Checkpoint, Follow, Head, Hold, Machine, Memory, Traces, Trial,
};
use super::{UpdatePolicy, Version, Warm, Why};
use crate::auto::{Auto, Keep, Policy};

/// Why bytes are not the record they should be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RecordError {
    #[error("not a {noun}: {detail}")]
    Malformed { noun: &'static str, detail: String },
    #[error(
        "this {noun} has format {found}, made by a newer Collective; up to {known} can be read here"
    )]
    Newer { noun: &'static str, found: u32, known: u32 },
    #[error("field {field} has the value {value:?}")]
    Field { field: &'static str, value: String },
}

impl RecordError {
    pub(super) fn field(field: &'static str, value: impl fmt::Display) -> Self {
        Self::Field { field, value: value.to_string() }
    }
}

const FORMAT: u32 = 1;
/// What a version has that needs more than format 1: foreign hardware, a form, configuration.
const FORMAT_FOREIGN: u32 = 2;
/// What a version has that needs more than format 2: a memory, UEFI, automatic
/// checkpoints.
const VERSION_FORMAT: u32 = 3;
/// What a checkpoint or a head has that needs more than format 1: automatic checkpoints.
const LINE_FORMAT: u32 = 2;
/// What a head has that needs more than format 2: whose versions it gets.
const HEAD_FORMAT: u32 = 4;
/// Of heads that follow a maker.
const FOLLOW_FORMAT: u32 = 3;
/// The longest location of a maker's repository, bytes.
const LOCATION_BYTES_MAX: usize = 4096;
/// Most automatic checkpoints, and holds, of one head.
const AUTOS_MAX: usize = 512;
/// Longest body, bytes.
const BODY_BYTES_MAX: usize = 1 << 20;

/// What is read first, so that a newer format is known as such.
#[derive(Deserialize)]
struct Preface {
    kind: String,
    format: u32,
}

#[derive(Serialize, Deserialize)]
struct BlobWire {
    id: String,
    bytes: u64,
    blake3: String,
}

#[derive(Serialize, Deserialize)]
struct VersionWire {
    kind: String,
    format: u32,
    appliance: String,
    version: String,
    description: String,
    hardware: HardwareWire,
    ready: ReadyWire,
    kernel: Option<BlobWire>,
    initrd: Option<BlobWire>,
    /// Format 3: UEFI's program.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    firmware: Option<BlobWire>,
    disks: Vec<String>,
    packages: Vec<(String, String)>,
    /// Format 2.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    properties: Vec<PropertyWire>,
    /// Format 2.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    vendor_data: Option<BlobWire>,
    /// Format 3.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    auto: Option<AutoWire>,
    /// Format 3.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    warm: Option<WarmWire>,
}

#[derive(Serialize, Deserialize)]
struct WarmWire {
    memory: MemoryWire,
    disks: Vec<String>,
    agent: bool,
}

#[derive(Serialize, Deserialize)]
struct PropertyWire {
    key: String,
    kind: String,
    qualifiers: String,
    label: String,
    configurable: bool,
    password: bool,
    value: Option<String>,
}

#[derive(Serialize, Deserialize)]
struct MemoryWire {
    ram: String,
    device_state: BlobWire,
    machine_type: String,
    cpu_model: String,
    accel: String,
    memory_bytes: u64,
}

#[derive(Serialize, Deserialize)]
struct CheckpointWire {
    kind: String,
    format: u32,
    instance: String,
    parent: Option<String>,
    version: String,
    label: Option<String>,
    why: String,
    taken_unix_ms: u64,
    memory: Option<MemoryWire>,
    disks: Vec<String>,
    dirty_bytes: u64,
    stored_bytes: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    trace_booted: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    trace_continued: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pause_us: Option<u64>,
    /// With `why` update.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    change: Option<ChangeWire>,
}

#[derive(Serialize, Deserialize)]
struct ChangeWire {
    from: String,
    to: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    back: Option<String>,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    tried: bool,
    within_s: u64,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    migrate: Vec<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    health: Vec<String>,
}

#[derive(Serialize, Deserialize)]
struct HeadWire {
    kind: String,
    format: u32,
    instance: String,
    name: String,
    appliance: String,
    version: String,
    state: String,
    lease: Option<LeaseWire>,
    checkpoint: Option<String>,
    origin: Option<String>,
    macs: Vec<[u8; 6]>,
    vmgenid: [u8; 16],
    #[serde(default)]
    fresh: bool,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    warm: bool,
    /// Format 2.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    auto: Option<AutoWire>,
    /// Format 2.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    autos: Vec<AutoPointWire>,
    /// Format 2.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    holds: Vec<HoldWire>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    left: Option<String>,
    /// Format 3.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    follow: Option<FollowWire>,
    /// Format 3.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    trial: Option<TrialWire>,
    /// Format 4.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    network: Option<String>,
}

#[derive(Serialize, Deserialize)]
struct FollowWire {
    location: String,
    channel: Option<String>,
    policy: String,
    release: String,
}

#[derive(Serialize, Deserialize)]
struct TrialWire {
    back: String,
    release: String,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    begun: bool,
}

/// `every_s` 0: off.
#[derive(Serialize, Deserialize)]
struct AutoWire {
    every_s: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    dirtied_bytes: Option<u64>,
    last: u32,
    hourly: u32,
    daily: u32,
    weekly: u32,
}

#[derive(Serialize, Deserialize)]
struct AutoPointWire {
    id: String,
    taken_unix_ms: u64,
    parent: Option<String>,
}

#[derive(Serialize, Deserialize)]
struct HoldWire {
    host: String,
    checkpoint: String,
}

#[derive(Serialize, Deserialize)]
struct LeaseWire {
    holder: String,
    holder_name: String,
    granted_unix_ms: u64,
}

fn encode<T: Serialize>(wire: &T) -> Vec<u8> {
    serde_json::to_vec(wire).expect("wire types of strings and numbers always encode")
}

fn decode<T: for<'de> Deserialize<'de>>(noun: &'static str, body: &[u8]) -> Result<T, RecordError> {
    let malformed = |detail: String| RecordError::Malformed { noun, detail };
    if body.len() > BODY_BYTES_MAX {
        return Err(malformed(format!("{} bytes are too many", body.len())));
    }
    let preface: Preface = serde_json::from_slice(body).map_err(|e| malformed(e.to_string()))?;
    if preface.kind != noun {
        return Err(malformed(format!("it is a {:?}", preface.kind)));
    }
    let known = match noun {
        "version" => VERSION_FORMAT,
        "head" => HEAD_FORMAT,
        _ => LINE_FORMAT,
    };
    if preface.format > known {
        return Err(RecordError::Newer { noun, found: preface.format, known });
    }
    serde_json::from_slice(body).map_err(|e| malformed(e.to_string()))
}

fn encode_blob(blob: &Blob) -> BlobWire {
    BlobWire {
        id: blob.id.to_string(),
        bytes: blob.bytes,
        blake3: ChunkId::from_bytes(blob.blake3).to_string(),
    }
}

fn decode_blob(wire: BlobWire) -> Result<Blob, RecordError> {
    let blake3: ChunkId = id("blake3", &wire.blake3)?;
    // Kernels, initrds and device states: never more than 1 GiB.
    if wire.bytes > 1 << 30 {
        return Err(RecordError::field("bytes", wire.bytes));
    }
    Ok(Blob { id: id("id", &wire.id)?, bytes: wire.bytes, blake3: *blake3.as_bytes() })
}

fn name(text: &str) -> Result<Name, RecordError> {
    Name::new(text).map_err(|_| RecordError::field("name", text))
}

fn appliance(text: &str) -> Result<Name, RecordError> {
    Name::appliance(text).map_err(|_| RecordError::field("appliance", text))
}

fn manifests(field: &'static str, texts: &[String]) -> Result<Vec<ManifestId>, RecordError> {
    texts.iter().map(|text| id(field, text)).collect()
}

/// Writes a version's body.
pub fn encode_version(version: &Version) -> Vec<u8> {
    encode(&VersionWire {
        kind: "version".to_owned(),
        format: version_format(version),
        appliance: version.appliance.to_string(),
        version: version.version.clone(),
        description: version.description.clone(),
        hardware: hardware::encode(&version.hardware),
        ready: hardware::encode_ready(&version.ready),
        kernel: version.kernel.as_ref().map(encode_blob),
        initrd: version.initrd.as_ref().map(encode_blob),
        firmware: version.firmware.as_ref().map(encode_blob),
        disks: version.disks.iter().map(ToString::to_string).collect(),
        packages: version.packages.clone(),
        properties: version.properties.iter().map(encode_property).collect(),
        vendor_data: version.vendor_data.as_ref().map(encode_blob),
        auto: version.auto.map(encode_auto),
        warm: version.warm.as_ref().map(|warm| WarmWire {
            memory: encode_memory(&warm.memory),
            disks: warm.disks.iter().map(ToString::to_string).collect(),
            agent: warm.agent,
        }),
    })
}

/// As low as it can be, so that older programs run what they can.
fn version_format(version: &Version) -> u32 {
    if version.warm.is_some()
        || version.auto.is_some()
        || hardware::needs_format_3(&version.hardware)
    {
        VERSION_FORMAT
    } else if hardware::needs_format_2(&version.hardware)
        || !version.properties.is_empty()
        || version.vendor_data.is_some()
    {
        FORMAT_FOREIGN
    } else {
        FORMAT
    }
}

fn encode_memory(memory: &Memory) -> MemoryWire {
    MemoryWire {
        ram: memory.ram.to_string(),
        device_state: encode_blob(&memory.device_state),
        machine_type: memory.machine.machine_type.clone(),
        cpu_model: memory.machine.cpu_model.clone(),
        accel: memory.machine.accel.clone(),
        memory_bytes: memory.machine.memory_bytes,
    }
}

fn decode_memory(wire: MemoryWire) -> Result<Memory, RecordError> {
    Ok(Memory {
        ram: id("ram", &wire.ram)?,
        device_state: decode_blob(wire.device_state)?,
        machine: Machine {
            machine_type: wire.machine_type,
            cpu_model: wire.cpu_model,
            accel: wire.accel,
            memory_bytes: wire.memory_bytes,
        },
    })
}

fn decode_warm(wire: WarmWire, disks: usize) -> Result<Warm, RecordError> {
    if wire.disks.len() != disks {
        return Err(RecordError::field("warm.disks", wire.disks.len()));
    }
    Ok(Warm {
        memory: decode_memory(wire.memory)?,
        disks: manifests("warm.disks", &wire.disks)?,
        agent: wire.agent,
    })
}

fn encode_property(property: &Property) -> PropertyWire {
    let Property { key, kind, qualifiers, label, configurable, password, value } = property.clone();
    PropertyWire { key, kind, qualifiers, label, configurable, password, value }
}

fn decode_property(wire: PropertyWire) -> Property {
    let PropertyWire { key, kind, qualifiers, label, configurable, password, value } = wire;
    Property { key, kind, qualifiers, label, configurable, password, value }
}

/// Reads a version's body.
pub fn decode_version(body: &[u8]) -> Result<Version, RecordError> {
    let wire: VersionWire = decode("version", body)?;
    let hardware = hardware::decode(wire.hardware)?;
    if wire.disks.len() != hardware.disks.len() {
        return Err(RecordError::field("disks", wire.disks.len()));
    }
    let warm = wire.warm.map(|warm| decode_warm(warm, hardware.disks.len())).transpose()?;
    let firmware = wire.firmware.map(decode_blob).transpose()?;
    if firmware.is_some() != (hardware.boot.kind == BootKind::Uefi) {
        return Err(RecordError::field("firmware", firmware.is_some()));
    }
    Ok(Version {
        appliance: appliance(&wire.appliance)?,
        version: wire.version,
        description: wire.description,
        hardware,
        ready: hardware::decode_ready(wire.ready),
        kernel: wire.kernel.map(decode_blob).transpose()?,
        initrd: wire.initrd.map(decode_blob).transpose()?,
        firmware,
        disks: manifests("disks", &wire.disks)?,
        packages: wire.packages,
        properties: wire.properties.into_iter().map(decode_property).collect(),
        vendor_data: wire.vendor_data.map(decode_blob).transpose()?,
        auto: wire.auto.map(decode_auto).transpose()?,
        warm,
    })
}

/// Writes a checkpoint's body.
pub fn encode_checkpoint(checkpoint: &Checkpoint) -> Vec<u8> {
    encode(&CheckpointWire {
        kind: "checkpoint".to_owned(),
        format: if matches!(checkpoint.why, Why::Auto | Why::Update) {
            LINE_FORMAT
        } else {
            FORMAT
        },
        instance: checkpoint.instance.to_string(),
        parent: checkpoint.parent.map(|id| id.to_string()),
        version: checkpoint.version.to_string(),
        label: checkpoint.label.clone(),
        why: checkpoint.why.as_str().to_owned(),
        taken_unix_ms: checkpoint.taken_unix_ms,
        memory: checkpoint.memory.as_ref().map(encode_memory),
        disks: checkpoint.disks.iter().map(ToString::to_string).collect(),
        dirty_bytes: checkpoint.dirty_bytes,
        stored_bytes: checkpoint.stored_bytes,
        trace_booted: checkpoint.traces.booted.map(|id| id.to_string()),
        trace_continued: checkpoint.traces.continued.map(|id| id.to_string()),
        pause_us: checkpoint.pause_us,
        change: checkpoint.change.as_ref().map(encode_change),
    })
}

/// Reads a checkpoint's body.
pub fn decode_checkpoint(body: &[u8]) -> Result<Checkpoint, RecordError> {
    let wire: CheckpointWire = decode("checkpoint", body)?;
    Ok(Checkpoint {
        instance: id("instance", &wire.instance)?,
        parent: wire.parent.map(|text| id("parent", &text)).transpose()?,
        version: id("version", &wire.version)?,
        label: wire.label,
        why: Why::parse(&wire.why).ok_or_else(|| RecordError::field("why", &wire.why))?,
        taken_unix_ms: wire.taken_unix_ms,
        memory: wire.memory.map(decode_memory).transpose()?,
        disks: manifests("disks", &wire.disks)?,
        dirty_bytes: wire.dirty_bytes,
        stored_bytes: wire.stored_bytes,
        traces: Traces {
            booted: wire.trace_booted.map(|text| id("trace_booted", &text)).transpose()?,
            continued: wire.trace_continued.map(|text| id("trace_continued", &text)).transpose()?,
        },
        pause_us: wire.pause_us,
        change: wire.change.map(decode_change).transpose()?,
    })
}

fn encode_change(change: &Change) -> ChangeWire {
    let Change { from, to, back, tried, within_s, migrate, health } = change.clone();
    let (from, to) = (from.to_string(), to.to_string());
    let back = back.map(|id| id.to_string());
    ChangeWire { from, to, back, tried, within_s, migrate, health }
}

fn decode_change(wire: ChangeWire) -> Result<Change, RecordError> {
    let ChangeWire { from, to, back, tried, within_s, migrate, health } = wire;
    Ok(Change {
        from: id("change", &from)?,
        to: id("change", &to)?,
        back: back.map(|text| id("change", &text)).transpose()?,
        tried,
        within_s,
        migrate,
        health,
    })
}

/// Writes a head's body.
pub fn encode_head(head: &Head) -> Vec<u8> {
    encode(&HeadWire {
        kind: "head".to_owned(),
        // A program that does not know these would drop them when it moves the head.
        format: if head.network.is_some() {
            HEAD_FORMAT
        } else if head.follow.is_some() || head.trial.is_some() {
            FOLLOW_FORMAT
        } else if head.auto.is_some() || !head.autos.is_empty() || !head.holds.is_empty() {
            LINE_FORMAT
        } else {
            FORMAT
        },
        instance: head.instance.to_string(),
        name: head.name.to_string(),
        appliance: head.appliance.to_string(),
        version: head.version.to_string(),
        state: head.state.as_str().to_owned(),
        lease: head.lease.as_ref().map(|lease| LeaseWire {
            holder: lease.holder.to_string(),
            holder_name: lease.holder_name.clone(),
            granted_unix_ms: lease.granted_unix_ms,
        }),
        checkpoint: head.checkpoint.map(|id| id.to_string()),
        origin: head.origin.map(|id| id.to_string()),
        macs: head.macs.clone(),
        vmgenid: head.vmgenid,
        fresh: head.fresh,
        warm: head.warm,
        auto: head.auto.map(encode_auto),
        autos: head
            .autos
            .iter()
            .map(|auto| AutoPointWire {
                id: auto.id.to_string(),
                taken_unix_ms: auto.taken_unix_ms,
                parent: auto.parent.map(|id| id.to_string()),
            })
            .collect(),
        holds: head
            .holds
            .iter()
            .map(|hold| HoldWire {
                host: hold.host.to_string(),
                checkpoint: hold.checkpoint.to_string(),
            })
            .collect(),
        left: head.left.map(|id| id.to_string()),
        follow: head.follow.as_ref().map(|follow| FollowWire {
            location: follow.location.clone(),
            channel: follow.channel.clone(),
            policy: follow.policy.as_str().to_owned(),
            release: follow.release.to_string(),
        }),
        trial: head.trial.map(|trial| TrialWire {
            back: trial.back.to_string(),
            release: trial.release.to_string(),
            begun: trial.begun,
        }),
        network: head.network.as_ref().map(Name::to_string),
    })
}

fn encode_auto(auto: Auto) -> AutoWire {
    match auto {
        Auto::Off => {
            AutoWire { every_s: 0, dirtied_bytes: None, last: 0, hourly: 0, daily: 0, weekly: 0 }
        }
        Auto::On(Policy { every_s, dirtied_bytes, keep }) => {
            let Keep { last, hourly, daily, weekly } = keep;
            AutoWire { every_s, dirtied_bytes, last, hourly, daily, weekly }
        }
    }
}

fn decode_auto(wire: AutoWire) -> Result<Auto, RecordError> {
    let AutoWire { every_s, dirtied_bytes, last, hourly, daily, weekly } = wire;
    if every_s == 0 {
        return Ok(Auto::Off);
    }
    let keep = Keep { last, hourly, daily, weekly };
    let policy = Policy { every_s, dirtied_bytes, keep }.checked();
    policy.map(Auto::On).map_err(|error| RecordError::field("auto", error))
}

fn decode_follow(wire: FollowWire) -> Result<Follow, RecordError> {
    if wire.location.len() > LOCATION_BYTES_MAX {
        return Err(RecordError::field("follow", wire.location.len()));
    }
    let channel = wire.channel.map(|text| match Name::new(&text) {
        Ok(_) => Ok(text),
        Err(_) => Err(RecordError::field("channel", text)),
    });
    Ok(Follow {
        location: wire.location,
        channel: channel.transpose()?,
        policy: UpdatePolicy::parse(&wire.policy)
            .ok_or_else(|| RecordError::field("policy", &wire.policy))?,
        release: id("release", &wire.release)?,
    })
}

/// Reads a head's body.
pub fn decode_head(body: &[u8]) -> Result<Head, RecordError> {
    let wire: HeadWire = decode("head", body)?;
    let state = match wire.state.as_str() {
        "running" => InstanceState::Running,
        "suspended" => InstanceState::Suspended,
        "stopped" => InstanceState::Stopped,
        other => return Err(RecordError::field("state", other)),
    };
    let lease = match wire.lease {
        None => None,
        Some(lease) => Some(Lease {
            holder: id("holder", &lease.holder)?,
            holder_name: lease.holder_name,
            granted_unix_ms: lease.granted_unix_ms,
        }),
    };
    if (state == InstanceState::Running) != lease.is_some() {
        return Err(RecordError::field("lease", lease.is_some()));
    }
    if wire.autos.len() > AUTOS_MAX || wire.holds.len() > AUTOS_MAX {
        return Err(RecordError::field("autos", wire.autos.len()));
    }
    let autos = wire.autos.into_iter().map(|auto| {
        Ok(AutoPoint {
            id: id("autos", &auto.id)?,
            taken_unix_ms: auto.taken_unix_ms,
            parent: auto.parent.map(|text| id("autos", &text)).transpose()?,
        })
    });
    let holds = wire.holds.into_iter().map(|hold| {
        Ok(Hold { host: id("holds", &hold.host)?, checkpoint: id("holds", &hold.checkpoint)? })
    });
    Ok(Head {
        instance: id("instance", &wire.instance)?,
        name: name(&wire.name)?,
        appliance: appliance(&wire.appliance)?,
        version: id("version", &wire.version)?,
        state,
        lease,
        checkpoint: wire.checkpoint.map(|text| id("checkpoint", &text)).transpose()?,
        origin: wire.origin.map(|text| id("origin", &text)).transpose()?,
        macs: wire.macs,
        vmgenid: wire.vmgenid,
        fresh: wire.fresh,
        warm: wire.warm,
        auto: wire.auto.map(decode_auto).transpose()?,
        autos: autos.collect::<Result<_, RecordError>>()?,
        holds: holds.collect::<Result<_, RecordError>>()?,
        left: wire.left.map(|text| id("left", &text)).transpose()?,
        follow: wire.follow.map(decode_follow).transpose()?,
        trial: match wire.trial {
            None => None,
            Some(trial) => Some(Trial {
                back: id("trial", &trial.back)?,
                release: id("trial", &trial.release)?,
                begun: trial.begun,
            }),
        },
        network: wire.network.as_deref().map(name).transpose()?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::{CheckpointId, HostId, InstanceId, VersionId};

    fn head() -> Head {
        Head {
            instance: InstanceId::from_bytes([1; 16]),
            name: Name::new("t1").unwrap(),
            appliance: Name::appliance("maker/tiny").unwrap(),
            version: VersionId::from_bytes([2; 32]),
            state: InstanceState::Running,
            lease: Some(Lease {
                holder: HostId::from_bytes([3; 16]),
                holder_name: "h".to_owned(),
                granted_unix_ms: 4,
            }),
            checkpoint: Some(CheckpointId::from_bytes([5; 32])),
            origin: None,
            macs: vec![[6; 6]],
            vmgenid: [7; 16],
            fresh: true,
            warm: false,
            auto: None,
            autos: Vec::new(),
            holds: Vec::new(),
            left: None,
            follow: None,
            trial: None,
            network: None,
        }
    }

    #[test]
    fn a_head_survives_and_a_running_one_has_a_lease() {
        assert_eq!(decode_head(&encode_head(&head())), Ok(head()));
        let broken = Head { lease: None, ..head() };
        assert!(matches!(decode_head(&encode_head(&broken)), Err(RecordError::Field { .. })));
    }

    #[test]
    fn other_kinds_newer_formats_and_noise_are_told_apart() {
        let body = String::from_utf8(encode_head(&head())).unwrap();
        let newer = body.replacen("\"format\":1", "\"format\":4", 1);
        assert!(matches!(decode_head(newer.as_bytes()), Err(RecordError::Newer { .. })));
        assert!(matches!(decode_version(body.as_bytes()), Err(RecordError::Malformed { .. })));
        assert!(matches!(decode_head(b"\xff"), Err(RecordError::Malformed { .. })));
        assert!(matches!(decode_head(&vec![b' '; 2 << 20]), Err(RecordError::Malformed { .. })));
    }
}
