//! Reading an envelope.

use model::{DiskBus, Media};
use roxmltree::{Document, Node, ParsingOptions};

use super::hardware::{self, Attached};
use super::units::bytes_in;
use super::{FileReference, Property, System, SystemDisk};
use crate::error::{ImportError, Result};
use crate::guard::bounded;
use crate::names::plain;

const WHAT: &str = "OVF";
/// Longest description that is read, bytes.
pub const OVF_BYTES_MAX: u64 = 4 << 20;
const NODES_MAX: u32 = 100_000;
const FILES_MAX: usize = 256;
const PROPERTIES_MAX: usize = 256;
/// Longest text of one property but its value, characters.
const TEXT_CHARS_MAX: usize = 1000;

/// Reads a description of one computer.
pub fn parse(text: &str) -> Result<System> {
    if text.len() as u64 > OVF_BYTES_MAX {
        return Err(malformed("it is longer than 4 MiB"));
    }
    let options =
        ParsingOptions { allow_dtd: false, nodes_limit: NODES_MAX, ..ParsingOptions::default() };
    let document = Document::parse_with_options(text, options)
        .map_err(|error| malformed(error.to_string()))?;
    let envelope = document.root_element();
    if envelope.tag_name().name() != "Envelope" {
        return Err(malformed("its root is no Envelope"));
    }
    if child(envelope, "VirtualSystemCollection").is_some() {
        return Err(ImportError::Unsupported {
            what: "a package of several computers".to_owned(),
            hint: "take them apart first: one OVA for each",
        });
    }
    let Some(system) = child(envelope, "VirtualSystem") else {
        return Err(malformed("it describes no computer"));
    };
    let files = files(envelope)?;
    let disks = Disks { envelope, files: &files };
    let configuration = default_configuration(envelope);
    let section = children(system, "VirtualHardwareSection").next();
    let Some(section) = section else {
        return Err(malformed("its computer has no hardware"));
    };
    let mut hardware = hardware::read(section, configuration)?;
    let mut system_disks = Vec::new();
    for attached in &hardware.attached {
        system_disks.extend(disks.resolve(attached)?);
    }
    let properties = properties(system, configuration)?;
    if !properties.is_empty() && attribute(section, "transport").is_some_and(|t| !t.contains("iso"))
    {
        let note = "its properties come on a CD (transport iso), which it does not ask for";
        hardware.notes.push(note.to_owned());
    }
    Ok(System {
        name: name(system),
        cpus: hardware.cpus,
        memory_bytes: hardware.memory_bytes,
        efi: starts_by_efi(system),
        secure_boot: starts_signed_alone(system),
        tpm: hardware.tpm || has_tpm(system),
        disks: system_disks,
        nics: hardware.nics,
        properties,
        notes: hardware.notes,
    })
}

/// Children of a name, whatever their namespace: several versions of the standard are about.
pub(super) fn children<'a, 'i: 'a>(
    node: Node<'a, 'i>,
    name: &'static str,
) -> impl Iterator<Item = Node<'a, 'i>> {
    node.children().filter(move |child| child.is_element() && child.tag_name().name() == name)
}

pub(super) fn child<'a, 'i>(node: Node<'a, 'i>, name: &'static str) -> Option<Node<'a, 'i>> {
    children(node, name).next()
}

pub(super) fn child_text<'a>(node: Node<'a, '_>, name: &'static str) -> Option<&'a str> {
    child(node, name).and_then(|child| child.text()).map(str::trim).filter(|t| !t.is_empty())
}

pub(super) fn attribute<'a>(node: Node<'a, '_>, name: &str) -> Option<&'a str> {
    node.attributes().find(|attribute| attribute.name() == name).map(|a| a.value())
}

pub(super) fn malformed(detail: impl Into<String>) -> ImportError {
    ImportError::malformed(WHAT, detail)
}

/// The standard has no word for it; each maker has its own.
fn starts_by_efi(system: Node<'_, '_>) -> bool {
    system.descendants().filter(Node::is_element).any(|node| match node.tag_name().name() {
        // VMware's.
        "Config" => attribute(node, "key") == Some("firmware") && value(node, "efi"),
        // VirtualBox's.
        "Firmware" => attribute(node, "type").is_some_and(|kind| kind.starts_with("EFI")),
        _ => false,
    })
}

/// VMware's words, in two of its dialects. VirtualBox has it in the firmware's variables.
fn starts_signed_alone(system: Node<'_, '_>) -> bool {
    const KEYS: [&str; 2] = ["bootOptions.efiSecureBootEnabled", "uefi.secureBoot.enabled"];
    system.descendants().filter(Node::is_element).any(|node| {
        ["Config", "ExtraConfig"].contains(&node.tag_name().name())
            && attribute(node, "key").is_some_and(|key| KEYS.contains(&key))
            && value(node, "true")
    })
}

/// VirtualBox's word; VMware's is an item of the hardware.
fn has_tpm(system: Node<'_, '_>) -> bool {
    system.descendants().filter(Node::is_element).any(|node| {
        node.tag_name().name() == "TrustedPlatformModule"
            && attribute(node, "type").is_some_and(|kind| kind.starts_with("v2"))
    })
}

fn value(node: Node<'_, '_>, word: &str) -> bool {
    attribute(node, "value").is_some_and(|value| value.eq_ignore_ascii_case(word))
}

fn files(envelope: Node<'_, '_>) -> Result<Vec<(String, FileReference)>> {
    let mut files = Vec::new();
    for node in children(envelope, "References").flat_map(|list| children(list, "File")) {
        let (Some(id), Some(href)) = (attribute(node, "id"), attribute(node, "href")) else {
            return Err(malformed("a file has no id, or no name"));
        };
        if files.len() == FILES_MAX {
            return Err(malformed("it has too many files"));
        }
        if !plain(href) {
            return Err(ImportError::Unsafe {
                what: format!("its file {:?}", href.chars().take(80).collect::<String>()),
                detail: "is not a plain name of a file beside it".to_owned(),
                hint: "put all of its files into one folder, and name them without folders",
            });
        }
        let compressed = attribute(node, "compression").is_some_and(|how| how != "identity");
        if compressed || attribute(node, "chunkSize").is_some() {
            return Err(ImportError::Unsupported {
                what: format!("the file {href}, compressed or in pieces,"),
                hint: "unpack it, and change the description accordingly",
            });
        }
        let bytes = match attribute(node, "size") {
            Some(text) => Some(text.parse().map_err(|_| malformed("a file's size is no number"))?),
            None => None,
        };
        files.push((id.to_owned(), FileReference { name: href.to_owned(), bytes }));
    }
    Ok(files)
}

/// The disks and files that items lead to.
struct Disks<'a, 'i> {
    envelope: Node<'a, 'i>,
    files: &'a [(String, FileReference)],
}

impl Disks<'_, '_> {
    /// What an item is; none: an empty drive.
    fn resolve(&self, attached: &Attached) -> Result<Option<SystemDisk>> {
        let Some(resource) = &attached.resource else {
            return Ok(None);
        };
        // `ovf:/disk/ID`, and as older writers have it.
        let path = resource.strip_prefix("ovf:").unwrap_or(resource).trim_start_matches('/');
        let (media, bus) = (attached.media, attached.bus);
        if let Some(id) = path.strip_prefix("file/") {
            let file = Some(self.file(id)?);
            let bus = if media == Media::Cd { DiskBus::Sata } else { bus };
            return Ok(Some(SystemDisk { file, capacity_bytes: 0, bus, media }));
        }
        let id = path
            .strip_prefix("disk/")
            .ok_or_else(|| malformed(format!("a disk is at {resource:?}")))?;
        let sections = children(self.envelope, "DiskSection");
        let disk = sections
            .flat_map(|section| children(section, "Disk"))
            .find(|disk| attribute(*disk, "diskId") == Some(id))
            .ok_or_else(|| malformed(format!("there is no disk {id:?}")))?;
        if attribute(disk, "parentRef").is_some() {
            return Err(ImportError::Unsafe {
                what: "its parent disk".to_owned(),
                detail: "would have to be read too".to_owned(),
                hint: "export it anew, with whole disks",
            });
        }
        let file = attribute(disk, "fileRef").map(|id| self.file(id)).transpose()?;
        let capacity_bytes = capacity(disk)?;
        bounded(capacity_bytes)?;
        Ok(Some(SystemDisk { file, capacity_bytes, bus, media }))
    }

    fn file(&self, id: &str) -> Result<FileReference> {
        let found = self.files.iter().find(|(known, _)| known == id);
        found.map(|(_, file)| file.clone()).ok_or_else(|| malformed(format!("no file {id:?}")))
    }
}

fn capacity(disk: Node<'_, '_>) -> Result<u64> {
    let bad = || malformed("a disk's capacity is no number of bytes");
    let number: u64 = attribute(disk, "capacity").and_then(|t| t.parse().ok()).ok_or_else(bad)?;
    let unit = match attribute(disk, "capacityAllocationUnits") {
        Some(unit) => bytes_in(unit).ok_or_else(bad)?,
        None => 1,
    };
    number.checked_mul(unit).ok_or_else(bad)
}

/// The configuration that counts when nobody chooses: the one marked as default, else the first.
fn default_configuration<'a>(envelope: Node<'a, '_>) -> Option<&'a str> {
    let section = child(envelope, "DeploymentOptionSection")?;
    let mut all = children(section, "Configuration");
    let first = all.next()?;
    let marked = std::iter::once(first)
        .chain(all)
        .find(|node| attribute(*node, "default") == Some("true"))
        .unwrap_or(first);
    attribute(marked, "id")
}

fn name(system: Node<'_, '_>) -> String {
    let product = child(system, "ProductSection");
    let text = |name| product.and_then(|product| child_text(product, name)).unwrap_or_default();
    let mut name = format!("{} {}", text("Product"), text("Version"));
    if name.trim().is_empty() {
        let own = child_text(system, "Name").or_else(|| attribute(system, "id"));
        name = own.unwrap_or_default().to_owned();
    }
    shown(name.trim())
}

/// Foreign text as people may see it.
fn shown(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(200).collect()
}

fn properties(system: Node<'_, '_>, configuration: Option<&str>) -> Result<Vec<Property>> {
    let mut properties: Vec<Property> = Vec::new();
    for section in children(system, "ProductSection") {
        for node in children(section, "Property") {
            let key = attribute(node, "key").ok_or_else(|| malformed("a property has no key"))?;
            let parts = [attribute(section, "class"), Some(key), attribute(section, "instance")];
            let parts: Vec<&str> =
                parts.into_iter().flatten().filter(|part| !part.is_empty()).collect();
            let configured = children(node, "Value")
                .find(|value| attribute(*value, "configuration") == configuration)
                .and_then(|node| attribute(node, "value"));
            let property = Property {
                key: parts.join("."),
                kind: attribute(node, "type").unwrap_or("string").to_owned(),
                qualifiers: attribute(node, "qualifiers").unwrap_or_default().to_owned(),
                label: shown(child_text(node, "Label").unwrap_or_default()),
                configurable: attribute(node, "userConfigurable") == Some("true"),
                password: attribute(node, "password") == Some("true"),
                value: configured.or(attribute(node, "value")).map(str::to_owned),
            };
            // What the user may not choose and the maker did not is empty.
            let fixed = (!property.configurable && property.value.is_none()).then(String::new);
            let property = Property { value: property.value.or(fixed), ..property };
            let long = [&property.key, &property.kind, &property.qualifiers]
                .into_iter()
                .any(|text| text.chars().count() > TEXT_CHARS_MAX);
            let known = properties.iter().any(|other| other.key == property.key);
            if long || known || properties.len() == PROPERTIES_MAX {
                return Err(malformed("its properties are too long, too many or there twice"));
            }
            properties.push(property);
        }
    }
    Ok(properties)
}
