//! The items of a virtual hardware section: CIM resources by their numbers (DSP0243, 8.3).

use model::{DiskBus, Media, NicModel};
use roxmltree::Node;

use super::read::{attribute, child_text, children, malformed};
use super::units::bytes_in;
use crate::error::{ImportError, Result};

const CPUS_MAX: u64 = 64;
/// 16 TiB: far beyond any host, far below what would overflow.
const MEMORY_BYTES_MAX: u64 = 16 << 40;
const ITEMS_MAX: usize = 512;
/// A virtual TPM, in VMware's word: the standard has none.
pub(super) const VTPM: &str = "vmware.vtpm";

/// What the items say together.
pub(super) struct HardwareItems {
    pub cpus: u32,
    pub memory_bytes: u64,
    pub nics: Vec<NicModel>,
    /// It has a virtual TPM.
    pub tpm: bool,
    /// Disks and drives, in order.
    pub attached: Vec<Attached>,
    pub notes: Vec<String>,
}

/// Something at a controller.
pub(super) struct Attached {
    /// What is in it: `ovf:/disk/ID`, `ovf:/file/ID`; none: nothing.
    pub resource: Option<String>,
    pub media: Media,
    pub bus: DiskBus,
}

/// A controller that was seen.
struct Controller<'a> {
    id: &'a str,
    bus: DiskBus,
}

/// A disk that was seen, with what puts it in order.
struct Seen<'a> {
    parent: Option<&'a str>,
    address: u64,
    resource: Option<String>,
    media: Media,
}

pub(super) fn read(section: Node<'_, '_>, configuration: Option<&str>) -> Result<HardwareItems> {
    let mut hardware = HardwareItems {
        cpus: 0,
        memory_bytes: 0,
        nics: Vec::new(),
        tpm: false,
        attached: Vec::new(),
        notes: Vec::new(),
    };
    let mut cpus = 0_u64;
    let mut controllers: Vec<Controller<'_>> = Vec::new();
    let mut seen: Vec<Seen<'_>> = Vec::new();
    let mut strange = Vec::new();
    let kinds = ["Item", "StorageItem", "EthernetPortItem"];
    let items = kinds.into_iter().flat_map(|kind| children(section, kind));
    for (index, item) in items.enumerate() {
        if index == ITEMS_MAX {
            return Err(malformed("it has too many items"));
        }
        // An item of another configuration than the one that counts.
        let configurations = attribute(item, "configuration");
        if configurations
            .is_some_and(|list| !list.split_whitespace().any(|one| Some(one) == configuration))
        {
            continue;
        }
        let subtype = child_text(item, "ResourceSubType").unwrap_or_default();
        match number(item, "ResourceType")?.unwrap_or_default() {
            3 => cpus = cpus.saturating_add(quantity(item)?),
            4 => hardware.memory_bytes = memory(item)?,
            5 | 6 | 20 => controllers.push(Controller {
                id: child_text(item, "InstanceID").unwrap_or_default(),
                bus: bus(subtype),
            }),
            10 => {
                let model = nic(subtype);
                if model == NicModel::E1000 && !subtype.to_ascii_lowercase().contains("e1000") {
                    let asked = if subtype.is_empty() { "of no kind" } else { subtype };
                    let note = format!("a network card ({}) becomes an e1000", short(asked));
                    hardware.notes.push(note);
                }
                hardware.nics.push(model);
            }
            kind @ (15..=17) => seen.push(Seen {
                parent: child_text(item, "Parent"),
                address: number(item, "AddressOnParent")?.unwrap_or_default(),
                resource: child_text(item, "HostResource").map(str::to_owned),
                media: if kind == 17 { Media::Disk } else { Media::Cd },
            }),
            1 if subtype.eq_ignore_ascii_case(VTPM) => hardware.tpm = true,
            // Floppy, USB, sound, screen, keyboard ...: left out, as on most hosts.
            14 | 23 | 24 | 35 | 0 | 1 => {}
            other => {
                if attribute(item, "required") != Some("false") && !strange.contains(&other) {
                    strange.push(other);
                }
            }
        }
    }
    if !strange.is_empty() {
        hardware.notes.push(format!("devices of the types {strange:?} are left out"));
    }
    hardware.cpus = u32::try_from(cpus.max(1)).unwrap_or(u32::MAX);
    bounded("processors", cpus, CPUS_MAX)?;
    bounded("memory, bytes", hardware.memory_bytes, MEMORY_BYTES_MAX)?;
    if hardware.memory_bytes == 0 {
        return Err(malformed("its computer has no memory"));
    }
    attach(&mut hardware, &controllers, seen);
    Ok(hardware)
}

/// Brings the disks into the order of their controllers and addresses, and CDs after them.
fn attach(hardware: &mut HardwareItems, controllers: &[Controller<'_>], mut seen: Vec<Seen<'_>>) {
    let controller = |parent: Option<&str>| {
        controllers.iter().position(|one| parent == Some(one.id)).unwrap_or(usize::MAX)
    };
    // Stable: what has no address stays in the order of the document.
    seen.sort_by_key(|disk| (disk.media == Media::Cd, controller(disk.parent), disk.address));
    hardware.attached = seen
        .into_iter()
        .map(|disk| Attached {
            bus: controllers
                .get(controller(disk.parent))
                .map_or(DiskBus::Sata, |controller| controller.bus),
            resource: disk.resource,
            media: disk.media,
        })
        .collect();
}

/// Where a disk goes: systems that were made for other hardware nearly all have a driver for SATA.
fn bus(subtype: &str) -> DiskBus {
    if subtype.to_ascii_lowercase().contains("virtio") { DiskBus::Virtio } else { DiskBus::Sata }
}

fn nic(subtype: &str) -> NicModel {
    if subtype.to_ascii_lowercase().contains("virtio") { NicModel::Virtio } else { NicModel::E1000 }
}

fn memory(item: Node<'_, '_>) -> Result<u64> {
    // Whoever gives no unit means MiB: nobody's computer has 512 bytes.
    let unit = match child_text(item, "AllocationUnits") {
        Some(unit) => {
            bytes_in(unit).ok_or_else(|| malformed("its memory is counted in no unit of bytes"))?
        }
        None => 1 << 20,
    };
    let bytes = quantity(item)?.saturating_mul(unit);
    Ok(bytes.checked_next_multiple_of(1 << 20).unwrap_or(u64::MAX))
}

fn quantity(item: Node<'_, '_>) -> Result<u64> {
    number(item, "VirtualQuantity")?.ok_or_else(|| malformed("an item has no quantity"))
}

fn number(item: Node<'_, '_>, name: &'static str) -> Result<Option<u64>> {
    child_text(item, name)
        .map(|text| text.parse().map_err(|_| malformed(format!("{name} is no number"))))
        .transpose()
}

fn bounded(what: &'static str, found: u64, max: u64) -> Result<()> {
    if found <= max {
        return Ok(());
    }
    Err(ImportError::TooLarge { what, found: found.to_string(), max: max.to_string() })
}

fn short(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(40).collect()
}
