//! The hardware description's wire form.

use std::str::FromStr;

use model::{
    Boot, BootKind, DiskBus, DiskRole, DiskSpec, DisplayCard, DisplaySpec, Hardware, Media,
    NicModel, NicSpec, Profile, Ready, ResetPolicy,
};
use serde::{Deserialize, Serialize};

use super::wire::RecordError;

#[derive(Serialize, Deserialize)]
pub(super) struct HardwareWire {
    profile: String,
    cpus: u32,
    memory_bytes: u64,
    boot: String,
    cmdline: String,
    /// Format 3.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    secure_boot: bool,
    disks: Vec<DiskWire>,
    nics: Vec<NicWire>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    video_bytes: Option<u64>,
    /// Format 3; absent: a VGA card.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    display: Option<String>,
}

#[derive(Serialize, Deserialize)]
struct DiskWire {
    name: String,
    role: String,
    reset: bool,
    size_bytes: u64,
    /// Format 2; absent: virtio.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    bus: Option<String>,
    /// Format 2; absent: a hard disk.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    media: Option<String>,
}

#[derive(Serialize, Deserialize)]
struct NicWire {
    network: String,
    ports: Vec<u16>,
    /// Format 2; absent: virtio.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    model: Option<String>,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum ReadyWire {
    Started,
    Port(u16),
    Console(String),
    Agent,
}

/// Most disks or network cards of one computer.
const DEVICES_MAX: usize = 16;
/// Largest memory or disk: 64 TiB.
const BYTES_MAX: u64 = 64 << 40;

pub(super) fn encode(hardware: &Hardware) -> HardwareWire {
    HardwareWire {
        profile: match hardware.profile {
            Profile::Q35 => "q35",
            Profile::Light => "light",
        }
        .to_owned(),
        cpus: hardware.cpus,
        memory_bytes: hardware.memory_bytes,
        boot: match hardware.boot.kind {
            BootKind::Bios => "bios",
            BootKind::Uefi => "uefi",
            BootKind::Kernel => "kernel",
        }
        .to_owned(),
        cmdline: hardware.boot.cmdline.clone(),
        secure_boot: hardware.boot.secure_boot,
        disks: hardware
            .disks
            .iter()
            .map(|disk| DiskWire {
                name: disk.name.clone(),
                role: match disk.role {
                    DiskRole::System => "system",
                    DiskRole::Data => "data",
                    DiskRole::Scratch => "scratch",
                    DiskRole::Firmware => "firmware",
                }
                .to_owned(),
                reset: disk.reset == ResetPolicy::Reset,
                size_bytes: disk.size_bytes,
                bus: match disk.bus {
                    DiskBus::Virtio => None,
                    DiskBus::Sata => Some("sata".to_owned()),
                    DiskBus::Flash => Some("flash".to_owned()),
                    DiskBus::Tpm => Some("tpm".to_owned()),
                },
                media: (disk.media == Media::Cd).then(|| "cd".to_owned()),
            })
            .collect(),
        nics: hardware
            .nics
            .iter()
            .map(|nic| NicWire {
                network: nic.network.clone(),
                ports: nic.ports.clone(),
                model: (nic.model == NicModel::E1000).then(|| "e1000".to_owned()),
            })
            .collect(),
        video_bytes: hardware.display.map(|display| display.video_bytes),
        display: needs_its_driver(hardware).then(|| "virtio".to_owned()),
    }
}

/// Whether a program that knows format 1 only would run another computer.
pub(super) fn needs_format_2(hardware: &Hardware) -> bool {
    let foreign = |disk: &DiskSpec| disk.bus != DiskBus::Virtio || disk.media != Media::Disk;
    hardware.disks.iter().any(foreign)
        || hardware.nics.iter().any(|nic| nic.model != NicModel::Virtio)
}

/// Whether a program that knows format 2 only would run another computer.
pub(super) fn needs_format_3(hardware: &Hardware) -> bool {
    hardware.boot.kind == BootKind::Uefi
        || hardware.disks.iter().any(|disk| !disk.is_disk())
        || needs_its_driver(hardware)
}

fn needs_its_driver(hardware: &Hardware) -> bool {
    hardware.display.is_some_and(|display| display.card == DisplayCard::Virtio)
}

pub(super) fn decode(wire: HardwareWire) -> Result<Hardware, RecordError> {
    let page = model::PAGE_BYTES as u64;
    if !(1..=64).contains(&wire.cpus) {
        return Err(RecordError::field("cpus", wire.cpus));
    }
    let memory = wire.memory_bytes;
    if memory == 0 || !memory.is_multiple_of(1 << 20) || memory > BYTES_MAX {
        return Err(RecordError::field("memory_bytes", memory));
    }
    if wire.disks.len() > DEVICES_MAX || wire.nics.len() > DEVICES_MAX {
        return Err(RecordError::field("devices", wire.disks.len() + wire.nics.len()));
    }
    let mut disks = Vec::with_capacity(wire.disks.len());
    for disk in wire.disks {
        let size = disk.size_bytes;
        if size == 0 || !size.is_multiple_of(page) || size > BYTES_MAX {
            return Err(RecordError::field("size_bytes", size));
        }
        let name = model::Name::new(&disk.name)
            .map_err(|_| RecordError::field("disk name", &disk.name))?;
        // The memory's, which no disk may be taken for.
        if disk.name == crate::shim::volumes::RAM {
            return Err(RecordError::field("disk name", &disk.name));
        }
        if disks.iter().any(|other: &DiskSpec| other.name == disk.name) {
            return Err(RecordError::field("disk name twice", &disk.name));
        }
        disks.push(DiskSpec {
            name: name.to_string(),
            role: match disk.role.as_str() {
                "system" => DiskRole::System,
                "data" => DiskRole::Data,
                "scratch" => DiskRole::Scratch,
                "firmware" => DiskRole::Firmware,
                other => return Err(RecordError::field("role", other)),
            },
            reset: if disk.reset { ResetPolicy::Reset } else { ResetPolicy::Keep },
            size_bytes: size,
            bus: match disk.bus.as_deref() {
                None => DiskBus::Virtio,
                Some("sata") => DiskBus::Sata,
                Some("flash") => DiskBus::Flash,
                Some("tpm") => DiskBus::Tpm,
                Some(other) => return Err(RecordError::field("bus", other)),
            },
            media: match disk.media.as_deref() {
                None => Media::Disk,
                Some("cd") => Media::Cd,
                Some(other) => return Err(RecordError::field("media", other)),
            },
        });
    }
    let flash = disks.iter().filter(|disk| disk.bus == DiskBus::Flash);
    if flash.clone().any(DiskSpec::is_disk) || flash.count() != usize::from(wire.boot == "uefi") {
        return Err(RecordError::field("flash", wire.boot));
    }
    let tpm = disks.iter().filter(|disk| disk.bus == DiskBus::Tpm);
    if tpm.clone().any(|disk| *disk != DiskSpec::tpm()) || tpm.count() > 1 {
        return Err(RecordError::field("tpm", DiskSpec::TPM));
    }
    let mut nics = Vec::with_capacity(wire.nics.len());
    for nic in wire.nics {
        let model = match nic.model.as_deref() {
            None => NicModel::Virtio,
            Some("e1000") => NicModel::E1000,
            Some(other) => return Err(RecordError::field("model", other)),
        };
        nics.push(NicSpec { network: nic.network, ports: nic.ports, model });
    }
    let card = match wire.display.as_deref() {
        None => DisplayCard::Vga,
        Some("virtio") if wire.video_bytes.is_some() => DisplayCard::Virtio,
        Some(other) => return Err(RecordError::field("display", other)),
    };
    Ok(Hardware {
        profile: match wire.profile.as_str() {
            "q35" => Profile::Q35,
            "light" => Profile::Light,
            other => return Err(RecordError::field("profile", other)),
        },
        cpus: wire.cpus,
        memory_bytes: memory,
        boot: Boot {
            kind: match wire.boot.as_str() {
                "bios" => BootKind::Bios,
                "uefi" => BootKind::Uefi,
                "kernel" => BootKind::Kernel,
                other => return Err(RecordError::field("boot", other)),
            },
            cmdline: wire.cmdline,
            secure_boot: wire.secure_boot,
        },
        disks,
        nics,
        display: wire.video_bytes.map(|video_bytes| DisplaySpec { video_bytes, card }),
    })
}

/// The check, and the page that is asked for, which older programs do not know: for them, the port
/// that it is at.
pub(super) fn encode_ready(ready: &Ready) -> (ReadyWire, Option<String>) {
    let wire = match ready {
        Ready::Http { port, path } => return (ReadyWire::Port(*port), Some(path.clone())),
        Ready::Started => ReadyWire::Started,
        Ready::Port(port) => ReadyWire::Port(*port),
        Ready::Console(text) => ReadyWire::Console(text.clone()),
        Ready::Agent => ReadyWire::Agent,
    };
    (wire, None)
}

pub(super) fn decode_ready(wire: ReadyWire, path: Option<String>) -> Result<Ready, RecordError> {
    Ok(match (wire, path) {
        (ReadyWire::Port(port), Some(path)) if Ready::is_path(&path) => Ready::Http { port, path },
        (_, Some(path)) => return Err(RecordError::field("ready_path", path)),
        (ReadyWire::Started, None) => Ready::Started,
        (ReadyWire::Port(port), None) => Ready::Port(port),
        (ReadyWire::Console(text), None) => Ready::Console(text),
        (ReadyWire::Agent, None) => Ready::Agent,
    })
}

/// Reads an identifier written in hexadecimal.
pub(super) fn id<T: FromStr>(field: &'static str, text: &str) -> Result<T, RecordError> {
    text.parse().map_err(|_| RecordError::field(field, text))
}
