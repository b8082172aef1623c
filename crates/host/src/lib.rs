//! One host: it builds appliances, runs instances, and keeps nothing that the repository does not
//! have for longer than its user allows.
//!
//! | module | says |
//! | --- | --- |
//! | [`shim`] | the process that owns one running instance: its states, its volumes, its QEMU |
//! | [`verbs`](self) | what a command does: mostly asking a shim, or starting one |
//! | [`auto`] | checkpoints that are taken by themselves, and which of them stay |
//! | [`inside`] | a checkpoint's disks and files, to look at |
//! | [`record`] | what versions, checkpoints and heads say |
//! | [`store`] | reading and moving heads in the repository |
//! | [`makers`] | makers that this host trusts, and what they signed |
//! | [`local`], [`dir`] | what is kept on this host |
//! | [`parcel`] | what a guest leaves behind here when it goes on elsewhere before the repository has it |
//! | [`doors`] | what is reached outside: stores, shims, machines |
//!
//! # Invariants
//!
//! * A host never chooses a placement, and never runs an instance without its lease.
//! * Whatever a verb has acknowledged is durable in the repository, or on this host where the verb
//!   says so (`pause`).
//! * No verb needs another process to be running: state is read from the repository, from
//!   `COLLECTIVE_DIR` and from whichever shims answer.

mod accel;
pub mod auto;
mod blob;
mod boot_file;
mod deltas;
pub mod dir;
pub mod doors;
mod failure;
mod firmware;
mod foreign;
#[doc(hidden)]
pub mod fuzz;
mod host_lease;
mod ingest;
mod inside;
pub mod local;
pub mod makers;
mod meter;
mod noted;
mod origin;
pub mod parcel;
mod peers;
mod ports;
pub mod record;
pub mod shim;
mod socket;
pub mod store;
mod time;
mod touched;
mod tpm;
mod verbs;
mod work;

use std::path::Path;

pub use dir::HostDir;
pub use failure::{Failure, KINDS, Result};
pub use host_lease::HostLease;
pub use inside::Subject;
pub use meter::Metered;
pub use ports::parse_port;
pub use store::KeyPlace;
pub use touched::Touched;
pub use trust;
pub use verbs::{
    Accelerator, Answer, AutoChange, BuildOptions, ExportFormat, ExportOptions, Following,
    ForkOptions, GcOptions, ImportOptions, PublishOptions, Reference, ResumeOptions, RunOptions,
    Size, StartOptions, UpdateMode, UpdateOptions, View, mount_main, updates_main, validate_recipe,
};

use model::Name;
use store::Store;

/// This host, as a verb sees it. What verbs there are: `src/verbs/`.
pub struct Host {
    dir: HostDir,
    /// The repository that `--repo` named, if it did.
    location: Option<String>,
}

impl Host {
    /// Opens the host whose state is in `dir`, which is made when it is not there.
    pub fn open(dir: &Path, repository: Option<&str>) -> Result<Self> {
        Ok(Self {
            dir: HostDir::open(dir)?,
            location: repository.map(store::absolute_location).transpose()?,
        })
    }

    /// A host whose directory is open, and its repository.
    pub fn with(dir: HostDir, location: &str) -> Self {
        Self { dir, location: Some(location.to_owned()) }
    }

    /// Opens the repository: the one that was named, else the configured one, else a folder of
    /// this host's own that is made on first use.
    fn store(&self) -> Result<Store> {
        match self.location.as_deref().or(self.dir.repository()) {
            Some(location) => Store::open(&self.dir, location),
            None => {
                let folder = self.dir.root().join("repository");
                let location = folder.to_string_lossy().into_owned();
                if !folder.join("config").exists() {
                    Store::init(&self.dir, &location, KeyPlace::Repository, None)?;
                }
                Store::open(&self.dir, &location)
            }
        }
    }

    /// The same for a verb that will store something: refused before anything is begun.
    fn writable_store(&self) -> Result<Store> {
        let store = self.store()?;
        store.must_be_writable()?;
        Ok(store)
    }

    /// The folder of an instance on this host.
    fn local(&self, name: &Name) -> local::LocalDir {
        local::LocalDir::new(&self.dir, name)
    }
}
