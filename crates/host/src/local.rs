//! What this host keeps about an instance: `instance.json` and the files beside it.
//!
//! ```text
//! instances/<name>/
//!   instance.json   this file: which lineage the volumes belong to
//!   volumes/        one folder per volume that is open here (overlay and state)
//!   run/            QEMU's folder: sockets, console.log, memory/ and disks/ (the FUSE mounts)
//!   shim.sock       where the shim listens
//!   shim.log        what the shim said
//!   aside/          volumes of a removed instance of the same name; nothing reads them
//! ```
//!
//! *Invariant.* `volumes/` belongs to exactly the generation written here. When the head in the
//! repository has gone on without this host, the volumes are another line: they become a branch.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use api::PortPrint;
use model::{CheckpointId, ChunkId, Generation, InstanceId, Name, VersionId};
use serde::{Deserialize, Serialize};

use crate::dir::{self, HostDir};
use crate::doors::Doors;
use crate::failure::{Failure, Result};
use crate::record::{Blob, Head, Parcel};

/// Where volumes are that belong to no instance any more.
pub const ASIDE: &str = "aside";
/// What to do when `instance.json` is damaged and volumes lie beside it.
const SAVE_THE_FOLDER: &str =
    "keep a copy of the instance's folder on this host; its checkpoints are in the repository";

/// The folder of one instance on this host.
#[derive(Debug, Clone)]
pub struct LocalDir {
    path: PathBuf,
    doors: Arc<dyn Doors>,
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
    /// What the head said of that generation, which the repository does not keep for ever.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version_id: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub checkpoint: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub explicit: Option<String>,
    /// The head's parcel, when the volumes rest on what is in it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parcel: Option<ParcelNoted>,
}

/// A parcel, as it is noted here.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ParcelNoted {
    checkpoint: String,
    chunks: String,
    chunks_bytes: u64,
    chunks_blake3: String,
    host: String,
    host_name: String,
    peer: String,
    address: String,
}

/// What a host noted of the head under which it opened its volumes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Noted {
    pub version: VersionId,
    pub checkpoint: Option<CheckpointId>,
    /// The newest one that somebody took.
    pub explicit: Option<CheckpointId>,
    pub parcel: Option<Parcel>,
}

impl LocalDir {
    /// The folder of `name`, which need not exist.
    pub fn new(host: &HostDir, name: &Name) -> Self {
        Self { path: host.instance(name), doors: host.doors().clone() }
    }

    /// The folder itself.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What is reached from here.
    pub fn doors(&self) -> &dyn Doors {
        &*self.doors
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
        ambient::step("local: instance.json");
        dir::replace_json(&self.path.join("instance.json"), instance)?;
        ambient::step("local: instance.json written");
        Ok(())
    }

    /// Removes the volumes, after a checkpoint has made them durable elsewhere.
    pub fn remove_volumes(&self) -> Result<()> {
        ambient::step("local: volumes");
        remove_tree(&self.volumes())?;
        ambient::step("local: volumes removed");
        Ok(())
    }

    /// Moves the volumes out of the way, where no start looks for them; gives the place.
    pub fn set_volumes_aside(&self) -> Result<PathBuf> {
        let folder = self.path.join(ASIDE);
        dir::make_private_dir(&folder)?;
        let tag = u64::from_le_bytes(ambient::random());
        let aside = folder.join(format!("{tag:016x}"));
        std::fs::rename(self.volumes(), &aside)?;
        Ok(aside)
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

    /// Notes what a head says, so that it is known when the repository keeps it no more.
    pub fn noting(self, head: &Head) -> Self {
        Self {
            version_id: Some(head.version.to_string()),
            checkpoint: head.checkpoint.map(|id| id.to_string()),
            explicit: head.explicit().map(|id| id.to_string()),
            parcel: head.parcel.as_ref().map(|parcel| ParcelNoted {
                checkpoint: parcel.checkpoint.to_string(),
                chunks: parcel.chunks.id.to_string(),
                chunks_bytes: parcel.chunks.bytes,
                chunks_blake3: ChunkId::from_bytes(parcel.chunks.blake3).to_string(),
                host: parcel.host.to_string(),
                host_name: parcel.host_name.clone(),
                peer: parcel.peer.clone(),
                address: parcel.address.clone(),
            }),
            ..self
        }
    }

    /// What was noted; none by a program that did not.
    pub fn noted(&self) -> Result<Option<Noted>> {
        fn id<T: std::str::FromStr>(text: &str) -> Result<T> {
            text.parse().map_err(|_| {
                Failure::new("damaged", "instance.json names no checkpoint", SAVE_THE_FOLDER)
            })
        }
        let Some(version) = &self.version_id else { return Ok(None) };
        Ok(Some(Noted {
            version: id(version)?,
            checkpoint: self.checkpoint.as_deref().map(id).transpose()?,
            explicit: self.explicit.as_deref().map(id).transpose()?,
            parcel: match &self.parcel {
                None => None,
                Some(noted) => Some(Parcel {
                    checkpoint: id(&noted.checkpoint)?,
                    chunks: Blob {
                        id: id(&noted.chunks)?,
                        bytes: noted.chunks_bytes,
                        blake3: *id::<ChunkId>(&noted.chunks_blake3)?.as_bytes(),
                    },
                    host: id(&noted.host)?,
                    host_name: noted.host_name.clone(),
                    peer: noted.peer.clone(),
                    address: noted.address.clone(),
                }),
            },
        }))
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
