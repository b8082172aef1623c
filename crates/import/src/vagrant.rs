//! What a Vagrant box says about itself (`metadata.json`), and which of its files are its disks.

use serde::Deserialize;

use crate::error::{ImportError, Result};
use crate::format::Format;
use crate::names::plain;

const WHAT: &str = "box";
/// The file's name in a box.
pub const METADATA_FILE: &str = "metadata.json";
/// Longest description that is read, bytes.
pub const METADATA_BYTES_MAX: u64 = 1 << 20;
const DISKS_MAX: usize = 64;

/// What is in a box.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Content {
    /// Disks as files, each of this format, in order.
    Disks(Vec<(String, Format)>),
    /// An OVF package: its description.
    Package(String),
}

#[derive(Deserialize)]
struct Metadata {
    provider: Option<String>,
    format: Option<String>,
    architecture: Option<String>,
    #[serde(default)]
    disks: Vec<DiskEntry>,
}

#[derive(Deserialize)]
struct DiskEntry {
    path: Option<String>,
    format: Option<String>,
}

/// Whether a member of a box can be of use: the rest is for Vagrant itself.
pub fn is_wanted(name: &str) -> bool {
    let lower = name.to_ascii_lowercase();
    name == METADATA_FILE
        || ["img", "qcow2", "raw", "vmdk", "vdi", "vhd", "vhdx", "iso", "ovf", "mf"]
            .iter()
            .any(|end| lower.rsplit_once('.').is_some_and(|(_, own)| own == *end))
}

/// Understands a box from its description (boxes of the first kind have none) and its members.
pub fn understand(metadata: Option<&str>, members: &[&str]) -> Result<Content> {
    let metadata: Metadata = match metadata {
        Some(text) => serde_json::from_str(text)
            .map_err(|error| ImportError::malformed(WHAT, format!("{METADATA_FILE}: {error}")))?,
        // The first kind was VirtualBox's alone.
        None => Metadata {
            provider: Some("virtualbox".to_owned()),
            format: None,
            architecture: None,
            disks: Vec::new(),
        },
    };
    if let Some(architecture) = metadata.architecture.as_deref()
        && !["amd64", "x86_64", "i386", "x86", "unknown"].contains(&architecture)
    {
        return Err(ImportError::Unsupported {
            what: format!("a box for {}", shown(architecture)),
            hint: "get the same box for amd64",
        });
    }
    match metadata.provider.as_deref() {
        Some("libvirt" | "qemu" | "kvm") => disks(&metadata, members),
        Some("virtualbox") => package(members),
        other => Err(ImportError::Unsupported {
            what: format!("a box for the provider {:?}", shown(other.unwrap_or_default())),
            hint: "get the same box for libvirt, qemu or virtualbox",
        }),
    }
}

fn disks(metadata: &Metadata, members: &[&str]) -> Result<Content> {
    let word = |own: &Option<String>| {
        let word = own.as_deref().or(metadata.format.as_deref()).unwrap_or("qcow2");
        // As QEMU calls it.
        let word = if word == "vpc" { "vhd" } else { word };
        Format::parse(word).filter(|format| crate::qemu_img::driver(*format).is_some()).ok_or_else(
            || ImportError::malformed(WHAT, format!("its disks have the format {:?}", shown(word))),
        )
    };
    let mut disks = Vec::new();
    if metadata.disks.is_empty() {
        disks.push(("box.img".to_owned(), word(&None)?));
    }
    if metadata.disks.len() > DISKS_MAX {
        return Err(ImportError::malformed(WHAT, "it has too many disks"));
    }
    for disk in &metadata.disks {
        let path = disk.path.as_deref().unwrap_or_default();
        if !plain(path) {
            return Err(ImportError::Unsafe {
                what: format!("its disk {:?}", shown(path)),
                detail: "is not a plain name of a member".to_owned(),
                hint: "pack it anew: plain files, without folders",
            });
        }
        disks.push((path.to_owned(), word(&disk.format)?));
    }
    match disks.iter().find(|(name, _)| !members.contains(&name.as_str())) {
        Some((missing, _)) => {
            Err(ImportError::malformed(WHAT, format!("its disk {missing} is not in it")))
        }
        None => Ok(Content::Disks(disks)),
    }
}

fn package(members: &[&str]) -> Result<Content> {
    let mut descriptions = members.iter().filter(|name| name.ends_with(".ovf"));
    match (descriptions.next(), descriptions.next()) {
        (Some(only), None) => Ok(Content::Package((*only).to_owned())),
        _ => Err(ImportError::malformed(WHAT, "it has not one .ovf")),
    }
}

fn shown(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(60).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(metadata: &str, members: &[&str], expected: Result<Content, &str>) {
        match (understand(Some(metadata), members), expected) {
            (Ok(content), Ok(want)) => assert_eq!(content, want),
            (Err(error), Err(want)) => assert!(error.to_string().contains(want), "{error}"),
            (read, want) => panic!("{read:?}, not {want:?}"),
        }
    }

    #[test]
    fn boxes_are_understood() {
        let one = |format| Ok(Content::Disks(vec![("box.img".to_owned(), format)]));
        let box_img = &["box.img"][..];
        check(
            r#"{"provider":"libvirt","format":"qcow2","virtual_size":4}"#,
            box_img,
            one(Format::Qcow2),
        );
        check(r#"{"provider":"qemu","format":"raw"}"#, box_img, one(Format::Raw));
        check(
            r#"{"provider":"libvirt","format":"qcow2","disks":[{"path":"a.img"},{"path":"b.img","format":"raw"}]}"#,
            &["b.img", "a.img"],
            Ok(Content::Disks(vec![
                ("a.img".to_owned(), Format::Qcow2),
                ("b.img".to_owned(), Format::Raw),
            ])),
        );
        let package = || Ok(Content::Package("box.ovf".to_owned()));
        check(r#"{"provider":"virtualbox"}"#, &["box.ovf", "a.vmdk"], package());
        assert_eq!(understand(None, &["box.ovf"]).unwrap(), package().unwrap());

        check(r#"{"provider":"libvirt"}"#, &["other.img"], Err("box.img is not in it"));
        check(r#"{"provider":"libvirt","disks":[{"path":"../a"}]}"#, box_img, Err("plain name"));
        check(r#"{"provider":"libvirt","format":"ova"}"#, box_img, Err("format"));
        check(r#"{"provider":"virtualbox"}"#, &["a.ovf", "b.ovf"], Err("not one"));
        check(r#"{"provider":"docker"}"#, box_img, Err("docker"));
        check(r#"{"provider":"libvirt","architecture":"arm64"}"#, box_img, Err("arm64"));
        check("{", box_img, Err("metadata.json"));
    }
}
