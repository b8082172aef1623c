//! An envelope of our own: what another program needs to know of a computer that leaves.

use std::fmt::Write as _;

use model::{BootKind, DiskBus, Hardware, NicModel};

use super::hardware::VTPM;

/// A computer that leaves.
pub struct Exported<'a> {
    /// What it is called.
    pub name: &'a str,
    /// What it is, for people.
    pub description: &'a str,
    /// What it is made of.
    pub hardware: &'a Hardware,
    /// Its disks, in order.
    pub disks: &'a [ExportedDisk],
}

/// One disk of it.
pub struct ExportedDisk {
    /// The file in the package and its length, bytes; none: the disk is empty.
    pub file: Option<(String, u64)>,
    /// How large the disk is, bytes.
    pub capacity_bytes: u64,
    /// How much of it is in use, bytes.
    pub populated_bytes: u64,
    /// What it is plugged into.
    pub bus: DiskBus,
}

const NAMESPACES: &str = "xmlns=\"http://schemas.dmtf.org/ovf/envelope/1\" \
     xmlns:ovf=\"http://schemas.dmtf.org/ovf/envelope/1\" \
     xmlns:rasd=\"http://schemas.dmtf.org/wbem/wscim/1/cim-schema/2/CIM_ResourceAllocationSettingData\" \
     xmlns:vssd=\"http://schemas.dmtf.org/wbem/wscim/1/cim-schema/2/CIM_VirtualSystemSettingData\" \
     xmlns:vmw=\"http://www.vmware.com/schema/ovf\"";
const VMDK: &str = "http://www.vmware.com/interfaces/specifications/vmdk.html#streamOptimized";

/// Instance ids of the items that are always there; disks and cards come after.
const CPUS: u32 = 1;
const MEMORY: u32 = 2;
const SATA: u32 = 3;
const VIRTIO: u32 = 4;
const FIRST_FREE: u32 = 10;

/// CIM's type of what has no type.
const OTHER: u32 = 1;

/// Writes the description.
pub fn write(exported: &Exported<'_>) -> String {
    let mut text = format!("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<Envelope {NAMESPACES}>\n");
    text.push_str("  <References>\n");
    for (index, disk) in exported.disks.iter().enumerate() {
        if let Some((name, bytes)) = &disk.file {
            let name = escaped(name);
            let _ = writeln!(
                text,
                "    <File ovf:id=\"file{index}\" ovf:href=\"{name}\" ovf:size=\"{bytes}\"/>"
            );
        }
    }
    text.push_str("  </References>\n  <DiskSection>\n    <Info>Disks</Info>\n");
    for (index, disk) in exported.disks.iter().enumerate() {
        let file = disk.file.as_ref().map_or_else(String::new, |_| {
            format!(" ovf:fileRef=\"file{index}\" ovf:populatedSize=\"{}\"", disk.populated_bytes)
        });
        let _ = writeln!(
            text,
            "    <Disk ovf:diskId=\"disk{index}\" ovf:capacity=\"{}\" \
             ovf:capacityAllocationUnits=\"byte\" ovf:format=\"{VMDK}\"{file}/>",
            disk.capacity_bytes
        );
    }
    text.push_str(
        "  </DiskSection>\n  <NetworkSection>\n    <Info>Networks</Info>\n\
         \x20   <Network ovf:name=\"user\"><Description>Through the host</Description></Network>\n\
         \x20 </NetworkSection>\n",
    );
    let name = escaped(exported.name);
    let description = escaped(exported.description);
    let _ = write!(
        text,
        "  <VirtualSystem ovf:id=\"{name}\">\n    <Info>{description}</Info>\n\
         \x20   <Name>{name}</Name>\n    <OperatingSystemSection ovf:id=\"1\">\n\
         \x20     <Info>Any</Info>\n    </OperatingSystemSection>\n\
         \x20   <VirtualHardwareSection>\n      <Info>Hardware</Info>\n"
    );
    items(exported, &mut text);
    if exported.hardware.boot.kind == BootKind::Uefi {
        // VMware's words, which others read too: the standard has none.
        text.push_str(
            "      <vmw:Config ovf:required=\"false\" vmw:key=\"firmware\" vmw:value=\"efi\"/>\n",
        );
        let _ = writeln!(
            text,
            "      <vmw:Config ovf:required=\"false\" vmw:key=\"bootOptions.efiSecureBootEnabled\" \
             vmw:value=\"{}\"/>",
            exported.hardware.boot.secure_boot
        );
    }
    text.push_str("    </VirtualHardwareSection>\n  </VirtualSystem>\n</Envelope>\n");
    text
}

fn items(exported: &Exported<'_>, text: &mut String) {
    let hardware = exported.hardware;
    let (cpus, memory) = (hardware.cpus, hardware.memory_bytes >> 20);
    item(text, &format!("{cpus} CPUs"), CPUS, 3, &[("VirtualQuantity", &cpus.to_string())]);
    item(
        text,
        &format!("{memory} MiB"),
        MEMORY,
        4,
        &[("AllocationUnits", "byte * 2^20"), ("VirtualQuantity", &memory.to_string())],
    );
    for (bus, id, subtype) in [(DiskBus::Sata, SATA, "AHCI"), (DiskBus::Virtio, VIRTIO, "virtio")] {
        if exported.disks.iter().any(|disk| disk.bus == bus) {
            let what = [("Address", "0"), ("ResourceSubType", subtype)];
            item(text, &format!("{subtype} controller"), id, 20, &what);
        }
    }
    let mut id = FIRST_FREE;
    for (index, disk) in exported.disks.iter().enumerate() {
        let parent = if disk.bus == DiskBus::Sata { SATA } else { VIRTIO };
        item(
            text,
            &format!("Disk {index}"),
            id,
            17,
            &[
                ("AddressOnParent", &index.to_string()),
                ("HostResource", &format!("ovf:/disk/disk{index}")),
                ("Parent", &parent.to_string()),
            ],
        );
        id += 1;
    }
    for (index, nic) in hardware.nics.iter().enumerate() {
        let subtype = match nic.model {
            NicModel::Virtio => "virtio",
            NicModel::E1000 => "E1000",
        };
        let what =
            [("AutomaticAllocation", "true"), ("Connection", "user"), ("ResourceSubType", subtype)];
        item(text, &format!("Network card {index}"), id, 10, &what);
        id += 1;
    }
    if hardware.has_tpm() {
        let what = [("AutomaticAllocation", "false"), ("ResourceSubType", VTPM)];
        item(text, "Virtual TPM", id, OTHER, &what);
    }
}

/// One item; its fields in the order of the alphabet, as the schema wants them.
fn item(text: &mut String, name: &str, id: u32, kind: u32, fields: &[(&str, &str)]) {
    let (id, number) = (id.to_string(), kind.to_string());
    let mut all: Vec<(&str, &str)> = fields.to_vec();
    all.extend([("ElementName", name), ("InstanceID", &id), ("ResourceType", &number)]);
    all.sort_unstable();
    // Who does not know what it is can do without.
    let required = if kind == OTHER { " ovf:required=\"false\"" } else { "" };
    let _ = writeln!(text, "      <Item{required}>");
    for (field, value) in all {
        let _ = writeln!(text, "        <rasd:{field}>{}</rasd:{field}>", escaped(value));
    }
    text.push_str("      </Item>\n");
}

/// Text as it may stand in an element or an attribute.
pub(super) fn escaped(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '&' => escaped.push_str("&amp;"),
            '"' => escaped.push_str("&quot;"),
            // In an attribute they would become spaces.
            '\t' | '\n' | '\r' => {
                let _ = write!(escaped, "&#{};", c as u32);
            }
            c if c.is_control() => escaped.push('\u{fffd}'),
            c => escaped.push(c),
        }
    }
    escaped
}
