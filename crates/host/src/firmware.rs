//! UEFI for a version: its program as a blob, and its variables as a volume.
//!
//! Both come from this host when a version is made, and belong to it from then on: every host runs
//! the same program, which a saved memory expects, and needs no package for it.
//!
//! *Invariant.* The variables are their user's: each instance has its own from the version's on,
//! and no stop or update changes them.

use std::io::Read;
use std::path::{Path, PathBuf};

use model::{BootKind, DiskBus, DiskRole, DiskSpec, Media, PAGE_BYTES, ResetPolicy};

use crate::failure::{Failure, Result};
use crate::ingest;
use crate::record::Version;
use crate::store::Session;

/// The variables' volume.
pub const VARIABLES: &str = "uefi-vars";
/// Where Debian's package ovmf puts it.
const FOLDER: &str = "/usr/share/OVMF";
/// Flash memory of a board: 8 MiB at most (QEMU's limit for one).
const FILE_BYTES_MAX: u64 = 8 << 20;

/// The files of one kind of UEFI on this host.
pub struct Files {
    program: PathBuf,
    variables: PathBuf,
}

/// Finds UEFI on this host: with secure boot the one that checks, and Microsoft's keys.
pub fn find(secure_boot: bool) -> Result<Files> {
    let (program, variables) = if secure_boot {
        ("OVMF_CODE_4M.secboot.fd", "OVMF_VARS_4M.ms.fd")
    } else {
        ("OVMF_CODE_4M.fd", "OVMF_VARS_4M.fd")
    };
    let folder = Path::new(FOLDER);
    let files = Files { program: folder.join(program), variables: folder.join(variables) };
    if files.program.is_file() && files.variables.is_file() {
        return Ok(files);
    }
    Err(Failure::new(
        "tools",
        format!("{FOLDER} does not hold {program} and {variables}"),
        "install ovmf (scripts/install-deps does it): it is needed to build or import what boots by \
         UEFI, not to run it",
    ))
}

/// Gives a version that boots by UEFI its firmware; leaves others as they are. Its variables begin with
/// this file, or else with those of this host.
pub fn equip(session: &mut Session, version: &mut Version, variables: Option<&Path>) -> Result<()> {
    if version.hardware.boot.kind != BootKind::Uefi {
        return Ok(());
    }
    let files = find(version.hardware.boot.secure_boot)?;
    version.firmware = Some(session.put_blob(&read(&files.program)?)?);
    let template = read(&files.variables)?;
    let variables = match variables {
        None => template,
        Some(own) => read_own(own, template.len())?,
    };
    version.disks.push(ingest::bytes(session, &variables)?);
    version.hardware.disks.push(DiskSpec {
        name: VARIABLES.to_owned(),
        role: DiskRole::Firmware,
        reset: ResetPolicy::Keep,
        size_bytes: variables.len() as u64,
        bus: DiskBus::Flash,
        media: Media::Disk,
    });
    Ok(())
}

/// A maker's own variables: as many bytes as the program expects, or it would not start.
fn read_own(path: &Path, bytes: usize) -> Result<Vec<u8>> {
    let wrong = |message: String| {
        let hint = "start from a copy of /usr/share/OVMF/OVMF_VARS_4M.fd, and enrol keys into that";
        Failure::new("recipe", message, hint)
    };
    let size = std::fs::metadata(path)?.len();
    if size != bytes as u64 {
        return Err(wrong(format!("`variables` has {size} bytes, UEFI's have {bytes}")));
    }
    let own = read(path)?;
    // A firmware volume says so at its byte 40 (UEFI's Platform Initialization, volume 3).
    if own.get(40..44) != Some(b"_FVH") {
        return Err(wrong("`variables` holds no variables of UEFI".to_owned()));
    }
    Ok(own)
}

fn read(path: &Path) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let file = std::fs::File::open(path)?;
    file.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes)?;
    let size = bytes.len() as u64;
    if size == 0 || size > FILE_BYTES_MAX || !size.is_multiple_of(PAGE_BYTES as u64) {
        return Err(Failure::new(
            "tools",
            format!("{} has {size} bytes: it is no UEFI firmware", path.display()),
            "install the package ovmf again",
        ));
    }
    Ok(bytes)
}
