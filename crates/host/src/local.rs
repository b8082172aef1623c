//! What this host keeps about an instance: `instance.json` and the files beside it.
//!
//! ```text
//! instances/<name>/
//!   instance.json   this file: which lineage the volumes belong to
//!   volumes/        one folder per volume that is open here (overlay and state)
//!   run/            QEMU's folder: sockets, console.log, memory/ and disks/ (the FUSE mounts)
//!   shim.sock       where the shim listens
//!   shim.log        what the shim said
//! ```
//!
//! *Invariant.* `volumes/` belongs to exactly the generation written here. When the head in the
//! repository has gone on without this host, the volumes are another line: they become a branch.

use std::path::{Path, PathBuf};

use api::PortPrint;
use model::{Generation, InstanceId, Name};
use serde::{Deserialize, Serialize};

use crate::dir::{self, HostDir};
use crate::failure::{Failure, Result};

/// The folder of one instance on this host.
#[derive(Debug, Clone)]
pub struct LocalDir {
    path: PathBuf,
}

/// The content of `instance.json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LocalInstance {
    pub format: u32,
    pub id: String,
    pub appliance: String,
    pub version: String,
    /// The generation of the head under which the volumes were opened.
    pub generation: u64,
    /// Where its head is kept.
    pub repository: String,
    /// Published ports, for the next start.
    pub ports: Vec<PortPrint>,
    /// What ran it last.
    pub accel: String,
    /// Whether `volumes/` holds writes that no checkpoint has.
    pub open: bool,
}

impl LocalDir {
    /// The folder of `name`, which need not exist.
    pub fn new(host: &HostDir, name: &Name) -> Self {
        Self { path: host.instance(name) }
    }

    /// The folder itself.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// QEMU's folder.
    pub fn run(&self) -> PathBuf {
        self.path.join("run")
    }

    /// The folder with one folder per open volume.
    pub fn volumes(&self) -> PathBuf {
        self.path.join("volumes")
    }

    /// The FUSE mount with the memory.
    pub fn ram_mount(&self) -> PathBuf {
        self.path.join("run/memory")
    }

    /// The FUSE mount with the disks.
    pub fn disk_mount(&self) -> PathBuf {
        self.path.join("run/disks")
    }

    /// The shim's log.
    pub fn shim_log(&self) -> PathBuf {
        self.path.join("shim.log")
    }

    /// The serial console's log.
    pub fn console_log(&self) -> PathBuf {
        self.path.join("run/console.log")
    }

    /// Reads `instance.json`; none when this host has nothing of the instance.
    pub fn read(&self) -> Result<Option<LocalInstance>> {
        let file = self.path.join("instance.json");
        if !file.exists() {
            return Ok(None);
        }
        dir::decode(&file).map(Some)
    }

    /// Writes `instance.json` in one step.
    pub fn write(&self, instance: &LocalInstance) -> Result<()> {
        dir::make_private_dir(&self.path)?;
        dir::replace_json(&self.path.join("instance.json"), instance)
    }

    /// Removes the volumes, after a checkpoint has made them durable elsewhere.
    pub fn remove_volumes(&self) -> Result<()> {
        remove_tree(&self.volumes())
    }

    /// Removes everything of the instance from this host.
    pub fn remove(&self) -> Result<()> {
        remove_tree(&self.path)
    }
}

impl LocalInstance {
    /// The instance's id.
    pub fn instance_id(&self) -> Result<InstanceId> {
        self.id.parse().map_err(|_| {
            Failure::new(
                "damaged",
                "instance.json does not name an instance",
                "remove the instance's folder on this host; its checkpoints are in the repository",
            )
        })
    }

    /// The generation as a number of its own kind.
    pub fn generation(&self) -> Generation {
        Generation(self.generation)
    }
}

fn remove_tree(path: &Path) -> Result<()> {
    match std::fs::remove_dir_all(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(Failure::from(error).during(format!("cannot remove {}", path.display())))
        }
        _ => Ok(()),
    }
}
