//! What a virtual TPM remembers without power, as a volume.
//!
//! While the instance is open here, swtpm keeps it as a file in a folder beside the volumes: it replaces
//! that file as a whole, which no volume can be told. Each freeze takes the file into the volume, in
//! the same pause as memory and disks, and a start lays it out again.
//!
//! ```text
//! volume ──lay out──▶ folder/tpm2-00.permall ◀─▶ swtpm ◀─▶ QEMU
//!   ▲                          │
//!   └──────── take in ─────────┘      docs/format/tpm.md: the volume's bytes
//! ```
//! *Invariant.* Every checkpoint has the TPM of its instant: registers and sessions in the device state,
//! the rest here. A volume of zeros is a TPM that was never switched on: it makes its own secrets.
//!
//! *On a crash* the folder stays beside the volumes, and the next start goes on from it: swtpm has
//! synced what a guest was told is written.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{OpenOptionsExt, chown};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use chunk::header::{Format, HEADER_BYTES, Intent};
use model::{DiskSpec, PAGE_BYTES};
use vmm::{Identity, TPM_FILE, TPM_FILE_BYTES_MAX, TpmLaunch};
use volume::Volume;

use crate::failure::{Failure, Result};
use crate::local::LocalDir;

const FORMAT: Format = Format {
    name: "state of a virtual TPM",
    magic: *b"cltvvtpm",
    version: 1,
    read_only_compatible: 0,
    incompatible: 0,
};
/// Before the file's bytes: the header and their number.
pub(crate) const BEFORE_BYTES: usize = HEADER_BYTES + 8;
const _: () = assert!(BEFORE_BYTES as u64 + TPM_FILE_BYTES_MAX <= DiskSpec::TPM_BYTES);

/// Finds the program.
pub fn program() -> Result<PathBuf> {
    vmm::find_swtpm().map_err(|error| {
        Failure::new(
            "tools",
            error.to_string(),
            "install swtpm (scripts/install-deps does it): it is the TPM of computers that have one",
        )
    })
}

/// The user that it runs as: another one than its QEMU's, which has 24 bits of the instance's id.
pub fn user(qemu: Option<(u32, u32)>) -> Option<Identity> {
    qemu.map(|(uid, _)| Identity { uid: uid + (1 << 24), gid: uid + (1 << 24) })
}

/// The TPM of an instance that is open here.
pub struct Tpm {
    folder: PathBuf,
    volume: Arc<Volume>,
    /// What the volume has: no pause waits for the repository to know it.
    has: Mutex<Vec<u8>>,
}

/// Where swtpm works.
pub fn folder(local: &LocalDir) -> PathBuf {
    local.volumes().join("tpm-files")
}

impl Tpm {
    /// Makes swtpm's folder of the volume; goes on with the one that a crash left.
    pub fn lay_out(
        local: &LocalDir,
        volume: Arc<Volume>,
        left: bool,
        owner: Option<Identity>,
    ) -> Result<Self> {
        let folder = folder(local);
        let has = read(&volume)?;
        if !(left && folder.join(TPM_FILE).exists()) {
            make(&folder, has.as_deref(), owner)?;
        }
        Ok(Self { folder, volume, has: Mutex::new(has.unwrap_or_default()) })
    }

    /// Whether this is its volume.
    pub fn is_in(&self, volume: &Volume) -> bool {
        std::ptr::eq(&*self.volume, volume)
    }

    /// How QEMU gets it.
    pub fn launch(&self, identity: Option<Identity>) -> Result<TpmLaunch> {
        Ok(TpmLaunch { program: program()?, dir: self.folder.clone(), identity })
    }

    /// Takes what the TPM remembers into its volume. It stands still.
    pub fn take_in(&self) -> Result<()> {
        let mut has = self.has.lock().unwrap_or_else(PoisonError::into_inner);
        let bytes = remembered(&self.folder)?;
        // What is the same costs a checkpoint nothing.
        if *has != bytes && !bytes.is_empty() {
            write(&self.volume, &bytes)?;
            *has = bytes;
        }
        Ok(())
    }
}

/// The same for what a crash left.
pub fn take_in(local: &LocalDir, volume: &Volume) -> Result<()> {
    let bytes = remembered(&folder(local))?;
    if !bytes.is_empty() && read(volume)?.unwrap_or_default() != bytes {
        write(volume, &bytes)?;
    }
    Ok(())
}

/// Makes the folder, whole or not at all: what is half made would look like a TPM that is new.
fn make(folder: &Path, bytes: Option<&[u8]>, owner: Option<Identity>) -> Result<()> {
    let half = folder.with_extension("new");
    for old in [folder, &half] {
        match fs::remove_dir_all(old) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error.into()),
            _ => {}
        }
    }
    crate::dir::make_private_dir(&half)?;
    if let Some(bytes) = bytes {
        let path = half.join(TPM_FILE);
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        give(&path, owner)?;
    }
    give(&half, owner)?;
    Ok(fs::rename(&half, folder)?)
}

fn give(path: &Path, owner: Option<Identity>) -> Result<()> {
    if let Some(Identity { uid, gid }) = owner {
        chown(path, Some(uid), Some(gid))?;
    }
    Ok(())
}

/// The file's bytes; none when the TPM was never switched on.
fn remembered(folder: &Path) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    match File::open(folder.join(TPM_FILE)) {
        Ok(file) => file.take(TPM_FILE_BYTES_MAX + 1).read_to_end(&mut bytes)?,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(bytes),
        Err(error) => return Err(error.into()),
    };
    if bytes.len() as u64 > TPM_FILE_BYTES_MAX {
        let message = "the virtual TPM keeps more than its volume has room for";
        return Err(Failure::new("internal", message, ""));
    }
    Ok(bytes)
}

fn write(volume: &Volume, bytes: &[u8]) -> Result<()> {
    let image = image(bytes);
    volume.write_at(0, &image)?;
    let end = image.len() as u64;
    Ok(volume.discard(end, volume.size_bytes() - end)?)
}

/// The pages that hold the file.
fn image(bytes: &[u8]) -> Vec<u8> {
    let mut image = FORMAT.header().encode().to_vec();
    image.extend_from_slice(&(bytes.len() as u64).to_le_bytes());
    image.extend_from_slice(bytes);
    image.resize(image.len().next_multiple_of(PAGE_BYTES), 0);
    image
}

/// The file that a volume holds; none when the TPM was never switched on.
fn read(volume: &Volume) -> Result<Option<Vec<u8>>> {
    let mut before = [0; BEFORE_BYTES];
    volume.read_at(0, &mut before)?;
    let Some(length) = length(&before)? else { return Ok(None) };
    let mut bytes = vec![0; length];
    volume.read_at(BEFORE_BYTES as u64, &mut bytes)?;
    Ok(Some(bytes))
}

/// How long the file is that these bytes announce.
pub(crate) fn length(before: &[u8; BEFORE_BYTES]) -> Result<Option<usize>> {
    if before.iter().all(|&byte| byte == 0) {
        return Ok(None);
    }
    let damaged = |detail: String| {
        Failure::new(
            "damaged",
            format!("the virtual TPM's volume: {detail}"),
            "`collective undo NAME` goes back to an earlier checkpoint",
        )
    };
    FORMAT.read(before, Intent::Write).map_err(|error| damaged(error.to_string()))?;
    let mut number = [0; 8];
    number.copy_from_slice(&before[HEADER_BYTES..]);
    match u64::from_le_bytes(number) {
        length @ 1..=TPM_FILE_BYTES_MAX => Ok(Some(length as usize)),
        length => Err(damaged(format!("{length} bytes are no state of one"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(change: impl FnOnce(&mut [u8; BEFORE_BYTES]), expected: &str) {
        let mut before = [0; BEFORE_BYTES];
        before[..HEADER_BYTES].copy_from_slice(&FORMAT.header().encode());
        before[HEADER_BYTES] = 7;
        change(&mut before);
        let found = match length(&before) {
            Ok(found) => format!("{found:?}"),
            Err(failure) => failure.message,
        };
        assert!(found.contains(expected), "{found}");
    }

    /// Once written, read for ever.
    #[test]
    fn the_bytes_are_those_that_were_agreed_on() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/tpm.bin");
        let image = image(b"what a TPM remembers");
        if !path.exists() && std::env::var_os("COLLECTIVE_BLESS").is_some() {
            fs::write(&path, &image).unwrap();
        }
        let golden = fs::read(&path).unwrap();
        assert_eq!(golden, image);
        let before = golden.first_chunk().unwrap();
        assert_eq!(length(before).unwrap(), Some(20));
    }

    #[test]
    fn what_a_volume_announces_is_bounded() {
        check(|_| (), "Some(7)");
        check(|before| before.fill(0), "None");
        check(|before| before[0] = b'x', "not a state of a virtual TPM");
        check(|before| before[8] = 2, "newer Collective");
        check(|before| before[HEADER_BYTES] = 0, "0 bytes are no state of one");
        check(|before| before[HEADER_BYTES + 7] = 1, "are no state of one");
    }
}
