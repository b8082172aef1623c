//! What a host reaches outside of its own code, behind one trait: object stores, the folders of
//! volumes, shims, and the machine that runs a guest.
//!
//! Everything that decides (who may run an instance, what is kept, what becomes visible when) is
//! on this side and knows only the trait. `simulation` has doors of its own, so that the same
//! decisions meet faults by the thousand.
//!
//! **Invariant:** nothing here decides anything.

use std::fmt::Debug;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use api::{Reply, Request, StartReport};
use objects::Objects;
use vmm::{Accel, Readied};
use volume::{Disk, Keeps};

use crate::dir::HostDir;
use crate::failure::Result;
use crate::local::LocalDir;
use crate::shim::exports::{Exports, Mounted, Mounting};
use crate::shim::order::Order;
use crate::shim::power::{self, Powered, Powering};
use crate::shim::scrubbing::Scrubbing;
use crate::shim::volumes::RAM;
use crate::{shim, socket, verbs};

/// See the module's documentation.
pub trait Doors: Debug + Send + Sync {
    /// The store at a location, which exists.
    fn objects(&self, location: &str) -> Result<Arc<dyn Objects>>;
    /// The folder of one volume, held by this process alone.
    fn disk(&self, folder: &Path, volume: &str) -> volume::Result<Arc<dyn Disk>>;

    /// Whether a shim answers in an instance's folder.
    fn is_alive(&self, folder: &Path) -> bool;
    /// Whether a shim (or what is left of one) still holds it.
    fn is_locked(&self, folder: &Path) -> bool;
    /// Asks the shim there, and waits at most `timeout` for its reply.
    fn ask(&self, folder: &Path, request: &Request, timeout: Duration) -> Result<Reply>;
    /// Starts a shim; it answers when this returns.
    fn bear(&self, host: &HostDir, local: &LocalDir, order: &Order) -> Result<()>;

    /// What will run a guest's CPUs.
    fn accel(&self, host: &HostDir, wanted: &str) -> Result<Accel>;
    /// Removes the mounts that a killed shim left.
    fn unmount_leftovers(&self, mount: &Path) -> Result<()>;
    /// Makes volumes into files.
    fn mount(&self, mounting: Mounting<'_>) -> Result<Box<dyn Mounted>>;
    /// What a machine's start needs whatever it is, begun while that is found out.
    fn ready(&self) -> Option<Readied>;
    /// A machine on these files, its CPUs not yet running.
    fn power_on(&self, powering: &Powering<'_>) -> Result<Powered>;
    /// What is done for a guest in the background, now that it runs.
    fn attend(
        &self,
        powering: &Powering<'_>,
        powered: Powered,
        report: StartReport,
    ) -> Arc<Scrubbing>;
}

/// The real ones: sockets, FUSE and QEMU.
#[derive(Debug)]
pub struct Real;

impl Doors for Real {
    fn objects(&self, location: &str) -> Result<Arc<dyn Objects>> {
        Ok(objects::open(location)?)
    }
    fn disk(&self, folder: &Path, volume: &str) -> volume::Result<Arc<dyn Disk>> {
        // After a crash a guest boots: its memory is kept by checkpoints, and nowhere else.
        let keeps = if volume == RAM { Keeps::WhileRunning } else { Keeps::Always };
        volume::open_folder(folder, volume, keeps)
    }
    fn is_alive(&self, folder: &Path) -> bool {
        socket::is_alive(folder)
    }
    fn is_locked(&self, folder: &Path) -> bool {
        shim::is_locked(folder)
    }
    fn ask(&self, folder: &Path, request: &Request, timeout: Duration) -> Result<Reply> {
        socket::ask(folder, request, timeout)
    }
    fn bear(&self, host: &HostDir, local: &LocalDir, order: &Order) -> Result<()> {
        verbs::bear(host, local, order)
    }
    fn accel(&self, host: &HostDir, wanted: &str) -> Result<Accel> {
        crate::accel::choose(host, wanted)
    }
    fn unmount_leftovers(&self, mount: &Path) -> Result<()> {
        if mount.symlink_metadata().is_ok() || mount.parent().is_some_and(Path::exists) {
            export::cleanup_stale(mount)?;
        }
        Ok(())
    }
    fn mount(&self, mounting: Mounting<'_>) -> Result<Box<dyn Mounted>> {
        Ok(Box::new(Exports::mount(mounting)?))
    }
    fn ready(&self) -> Option<Readied> {
        // What is wrong is said where it is needed.
        Readied::start(&vmm::Launcher::this_binary()).ok()
    }
    fn power_on(&self, powering: &Powering<'_>) -> Result<Powered> {
        power::power_on(powering)
    }
    fn attend(
        &self,
        powering: &Powering<'_>,
        powered: Powered,
        report: StartReport,
    ) -> Arc<Scrubbing> {
        power::attend(powering, powered, report)
    }
}
