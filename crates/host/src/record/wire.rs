//! The wire forms: JSON with a kind and a format number in front, at most 1 MiB.

use std::fmt;

use import::ovf::Property;
use model::{BootKind, ChunkId, ManifestId, Name};
use serde::{Deserialize, Serialize};

use super::hardware::{self, HardwareWire, ReadyWire, id};
use super::{Blob, Change, Checkpoint, Machine, Memory, Traces};
use super::{Version, Warm, Why};
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

pub(super) const FORMAT: u32 = 1;
/// What a version has that needs more than format 1: foreign hardware, a form, configuration.
const FORMAT_FOREIGN: u32 = 2;
/// What a version has that needs more than format 2: a memory, UEFI, automatic
/// checkpoints.
const VERSION_FORMAT: u32 = 3;
/// What a checkpoint or a head has that needs more than format 1: automatic checkpoints.
pub(super) const LINE_FORMAT: u32 = 2;
/// Longest body, bytes.
const BODY_BYTES_MAX: usize = 1 << 20;

/// What is read first, so that a newer format is known as such.
#[derive(Deserialize)]
struct Preface {
    kind: String,
    format: u32,
}

#[derive(Serialize, Deserialize)]
pub(super) struct BlobWire {
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
    /// A page, where `ready` is the port that it is at; who does not know it asks the port only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    ready_path: Option<String>,
    kernel: Option<BlobWire>,
    initrd: Option<BlobWire>,
    /// Format 3: UEFI's program.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    firmware: Option<BlobWire>,
    disks: Vec<String>,
    packages: Vec<(String, String)>,
    /// Who does not know it takes them for Debian's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    packages_of: Option<String>,
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

/// `every_s` 0: off.
#[derive(Serialize, Deserialize)]
pub(super) struct AutoWire {
    every_s: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    dirtied_bytes: Option<u64>,
    last: u32,
    hourly: u32,
    daily: u32,
    weekly: u32,
}

pub(super) fn encode<T: Serialize>(wire: &T) -> Vec<u8> {
    serde_json::to_vec(wire).expect("wire types of strings and numbers always encode")
}

pub(super) fn decode<T: for<'de> Deserialize<'de>>(
    noun: &'static str,
    body: &[u8],
) -> Result<T, RecordError> {
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
        "head" => super::head::HEAD_FORMAT,
        _ => LINE_FORMAT,
    };
    if preface.format > known {
        return Err(RecordError::Newer { noun, found: preface.format, known });
    }
    serde_json::from_slice(body).map_err(|e| malformed(e.to_string()))
}

pub(super) fn encode_blob(blob: &Blob) -> BlobWire {
    BlobWire {
        id: blob.id.to_string(),
        bytes: blob.bytes,
        blake3: ChunkId::from_bytes(blob.blake3).to_string(),
    }
}

pub(super) fn decode_blob(wire: BlobWire) -> Result<Blob, RecordError> {
    let blake3: ChunkId = id("blake3", &wire.blake3)?;
    // Kernels, initrds and device states: never more than 1 GiB.
    if wire.bytes > 1 << 30 {
        return Err(RecordError::field("bytes", wire.bytes));
    }
    Ok(Blob { id: id("id", &wire.id)?, bytes: wire.bytes, blake3: *blake3.as_bytes() })
}

pub(super) fn name(text: &str) -> Result<Name, RecordError> {
    Name::new(text).map_err(|_| RecordError::field("name", text))
}

pub(super) fn appliance(text: &str) -> Result<Name, RecordError> {
    Name::appliance(text).map_err(|_| RecordError::field("appliance", text))
}

fn manifests(field: &'static str, texts: &[String]) -> Result<Vec<ManifestId>, RecordError> {
    texts.iter().map(|text| id(field, text)).collect()
}

/// Writes a version's body.
pub fn encode_version(version: &Version) -> Vec<u8> {
    let (ready, ready_path) = hardware::encode_ready(&version.ready);
    encode(&VersionWire {
        kind: "version".to_owned(),
        format: version_format(version),
        appliance: version.appliance.to_string(),
        version: version.version.clone(),
        description: version.description.clone(),
        hardware: hardware::encode(&version.hardware),
        ready,
        ready_path,
        kernel: version.kernel.as_ref().map(encode_blob),
        initrd: version.initrd.as_ref().map(encode_blob),
        firmware: version.firmware.as_ref().map(encode_blob),
        disks: version.disks.iter().map(ToString::to_string).collect(),
        packages: version.packages.clone(),
        packages_of: version.packages_of.clone(),
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

/// The beginning of a package URL: a type and a distribution.
fn packages_of(text: String) -> Result<String, RecordError> {
    let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b"-_.".contains(&b);
    let is_part = |part: &str| (1..=64).contains(&part.len()) && part.bytes().all(plain);
    match text.split_once('/') {
        Some((kind, distribution)) if is_part(kind) && is_part(distribution) => Ok(text),
        _ => Err(RecordError::field("packages_of", text)),
    }
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
        ready: hardware::decode_ready(wire.ready, wire.ready_path)?,
        kernel: wire.kernel.map(decode_blob).transpose()?,
        initrd: wire.initrd.map(decode_blob).transpose()?,
        firmware,
        disks: manifests("disks", &wire.disks)?,
        packages: wire.packages,
        packages_of: wire.packages_of.map(packages_of).transpose()?,
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

pub(super) fn encode_auto(auto: Auto) -> AutoWire {
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

pub(super) fn decode_auto(wire: AutoWire) -> Result<Auto, RecordError> {
    let AutoWire { every_s, dirtied_bytes, last, hourly, daily, weekly } = wire;
    if every_s == 0 {
        return Ok(Auto::Off);
    }
    let keep = Keep { last, hourly, daily, weekly };
    let policy = Policy { every_s, dirtied_bytes, keep }.checked();
    policy.map(Auto::On).map_err(|error| RecordError::field("auto", error))
}
