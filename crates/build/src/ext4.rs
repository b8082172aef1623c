//! ext4 images with the same bytes for the same content.
//!
//! That needs an e2fsprogs that reads a tar archive (1.47.1) and takes every time it writes from
//! SOURCE_DATE_EPOCH (1.47.2): newer than what older Debian systems have. So a known one is
//! unpacked into the tools folder and run in a cage. UUID and hash seed derive from the
//! appliance's and the disk's names.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use crate::BuildError;
use crate::apt::Apts;
use crate::cage::Cage;
use crate::tree;
use crate::workshop::{EPOCH_SECONDS, Workshop};

/// The suite whose e2fsprogs makes file systems.
const SUITE: &str = "trixie";

/// What a file system is to be.
pub(crate) struct Plan<'a> {
    /// Names the file system's identity, for example `web/system`.
    pub seed: &'a str,
    /// The disk's name, for errors.
    pub disk: &'a str,
    pub label: &'a str,
    pub size_bytes: u64,
    /// The folder whose content it gets; without, it is empty.
    pub content: Option<&'a Path>,
}

/// Programs that make file systems.
pub(crate) struct Maker {
    root: PathBuf,
}

impl Maker {
    pub fn open(shop: &mut Workshop, apts: &mut Apts) -> Result<Self, BuildError> {
        let apt = apts.of(shop, SUITE)?;
        let names = ["usr-is-merged", "e2fsprogs", "libarchive13t64"];
        let debs = apt.resolve(shop, &names)?;
        let root = tree::unpacked(shop, &apt, "file system tools", &debs)?;
        Ok(Self { root })
    }

    /// Writes the image of a file system.
    pub fn write(&self, shop: &Workshop, plan: &Plan, image: &Path) -> Result<(), BuildError> {
        let file = File::create(image).map_err(BuildError::io("creating", image))?;
        file.set_len(plan.size_bytes).map_err(BuildError::io("sizing", image))?;
        drop(file);
        let folder = image.parent().unwrap_or(Path::new("."));
        let name = image.file_name().unwrap_or_default().to_string_lossy();
        let uuid = uuid_of(plan.seed);
        let mut mke2fs = Cage::new(&self.root).showing(folder).command(shop, "/usr/sbin/mke2fs");
        mke2fs.args(["-q", "-F", "-t", "ext4", "-b", "4096", "-m", "0", "-L", plan.label]);
        mke2fs.args(["-U", &uuid, "-O", "^orphan_file,^metadata_csum_seed"]);
        mke2fs.arg("-E");
        // The file is all holes: neither the journal nor the inode tables need to be zeroed, and
        // the guest's kernel need not do it later.
        mke2fs.arg(format!("hash_seed={uuid},root_owner=0:0,assume_storage_prezeroed=1"));
        let doing = format!("making the file system of {}", plan.disk);
        let Some(content) = plan.content else {
            mke2fs.arg(format!("/mnt/{name}"));
            return shop.run(&doing, &mut mke2fs);
        };
        mke2fs.args(["-d", "-"]).arg(format!("/mnt/{name}"));
        let mut tar = shop.command("tar");
        tar.args(["--create", "--sort=name", "--numeric-owner", "--xattrs", "--xattrs-include=*"]);
        tar.arg(format!("--mtime=@{EPOCH_SECONDS}")).arg("--clamp-mtime");
        tar.args(["--format=posix", "--pax-option"]);
        // File names are bytes: mke2fs would convert them, and fail at those that are not ASCII.
        tar.arg("exthdr.name=%d/PaxHeaders/%f,delete=atime,delete=ctime,hdrcharset:=BINARY");
        tar.arg("--directory").arg(content).arg(".");
        tar.stdin(Stdio::null());
        shop.pipe(&doing, &mut tar, &mut mke2fs).map_err(|error| match error {
            BuildError::Failed { detail, .. } if is_full(&detail) => {
                BuildError::DiskTooSmall { disk: plan.disk.to_owned(), detail }
            }
            other => other,
        })
    }
}

fn is_full(detail: &str) -> bool {
    ["Could not allocate", "No space left", "no free space", "No free"]
        .iter()
        .any(|words| detail.contains(words))
}

/// A version 8 UUID (RFC 9562: "custom") from a name.
fn uuid_of(seed: &str) -> String {
    let mut key = blake3::Hasher::new_derive_key("collective 2026 file system identity");
    key.update(seed.as_bytes());
    let mut bytes = [0; 16];
    bytes.copy_from_slice(&key.finalize().as_bytes()[..16]);
    bytes[6] = bytes[6] & 0x0f | 0x80;
    bytes[8] = bytes[8] & 0x3f | 0x80;
    let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    let parts = [&hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..]];
    parts.join("-")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn identities_follow_names() {
        assert_eq!(uuid_of("web/data"), uuid_of("web/data"));
        assert_ne!(uuid_of("web/data"), uuid_of("web/system"));
        let uuid = uuid_of("web/data");
        assert_eq!(uuid.len(), 36);
        assert_eq!(&uuid[14..15], "8");
    }
}
