//! SSH host keys: each computer makes its own, and none comes from where the system was built.
//!
//! Installing OpenSSH's server makes keys. In a system that many start from they would be the same
//! for all, and known to whoever has the appliance; and no two builds would be the same bytes. So
//! they are removed, and made when the system starts without.
//!
//! *Invariant.* Keys that the recipe's `files` bring stay: their maker means them.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;

use crate::BuildError;
use crate::cage::Cage;
use crate::recipe::FileEntry;
use crate::workshop::{Workshop, make_dir};

const SCRIPT: &str = include_str!("host-keys.sh");
const UNIT: &str = include_str!("host-keys.service");
const NAME: &str = "collective-host-keys";

/// Removes the keys that nobody asked for, and has the system make its own.
pub(super) fn renew(shop: &Workshop, root: &Path, files: &[FileEntry]) -> Result<(), BuildError> {
    remove(root, files)?;
    if !root.join("usr/sbin/sshd").exists() {
        return Ok(());
    }
    let script = root.join("etc/init.d").join(NAME);
    write(&script, SCRIPT, 0o755)?;
    // Where there is neither, nothing starts the server either.
    if root.join("usr/sbin/insserv").exists() {
        let mut enable = Cage::new(root).command(shop, "/usr/sbin/update-rc.d");
        shop.run("update-rc.d", enable.args([NAME, "defaults"]))?;
    }
    if root.join("usr/lib/systemd/systemd").exists() {
        let units = root.join("etc/systemd/system");
        write(&units.join(format!("{NAME}.service")), UNIT, 0o644)?;
        let wants = units.join("multi-user.target.wants");
        make_dir(&wants)?;
        let link = wants.join(format!("{NAME}.service"));
        let _ = fs::remove_file(&link);
        symlink(format!("/etc/systemd/system/{NAME}.service"), &link)
            .map_err(BuildError::io("linking", link))?;
    }
    Ok(())
}

fn remove(root: &Path, files: &[FileEntry]) -> Result<(), BuildError> {
    let folder = root.join("etc/ssh");
    for entry in fs::read_dir(&folder).into_iter().flatten() {
        let entry = entry.map_err(BuildError::io("reading", &folder))?;
        let name = entry.file_name().to_string_lossy().into_owned();
        let brought = files.iter().any(|file| file.path.relative() == format!("etc/ssh/{name}"));
        if name.starts_with("ssh_host_") && !brought {
            fs::remove_file(entry.path()).map_err(BuildError::io("removing", entry.path()))?;
        }
    }
    Ok(())
}

fn write(path: &Path, text: &str, mode: u32) -> Result<(), BuildError> {
    fs::write(path, text).map_err(BuildError::io("writing", path))?;
    fs::set_permissions(path, fs::Permissions::from_mode(mode))
        .map_err(BuildError::io("writing", path))
}
