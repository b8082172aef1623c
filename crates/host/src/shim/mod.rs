//! The shim: one small process for each running instance. It owns the instance's lease, its
//! volumes and their mounts, and the QEMU child; it outlives the command that started it.
//!
//! | module | says |
//! | --- | --- |
//! | [`claim`] | taking and giving back the lease |
//! | [`start`] | lease, volumes, machine: each phase is consumed by the next, and cleans up after itself |
//! | [`owner`] | the one thread that changes what the instance does, with the drawing of its states |
//! | [`by_itself`], [`timer`] | checkpoints that nobody asks for: how, and when |
//! | [`fence`] | what it does when the host has lost its plane |
//! | [`tracing`], [`scrubbing`] | what comes ahead of the guest, and in the background once it is ready |
//! | [`running`], [`seal`] | checkpoint, suspend, stop: freeze, store, publish |
//! | [`server`], [`shared`] | the socket, and what can be asked while the owner is busy |
//! | [`identity`], [`machine`] | who a guest that continues is now; what its memory fits |
//! | [`part`], [`landing`] | going to another host before the repository has all: the source's half, and the target's |
//! | [`leftovers`] | what a crashed shim left behind |
//! | [`meter`], [`faults`] | what the instance has used, and what it waited for |
//!
//! # Invariants
//!
//! * At most one shim of an instance runs on a host (a file lock), and at most one in the world
//!   runs the guest (the lease).
//! * The shim never gives a page to the guest that has not been verified.
//! * Keys are only in this process: it cannot be dumped or traced, and QEMU inherits nothing.
//!
//! # When it is killed
//!
//! QEMU dies with it. What the guest had flushed is in the volumes' overlays on this host, what was
//! checkpointed is in the repository; `resume` boots from the former, `undo` goes back to the
//! latter.

pub mod by_itself;
pub mod cables;
pub mod claim;
pub mod exports;
pub mod faults;
mod fence;
pub mod guest;
mod identity;
mod landing;
pub mod leftovers;
mod machine;
mod meter;
pub mod order;
pub mod owner;
mod part;
pub mod power;
mod ready;
pub mod running;
pub mod scrubbing;
mod seal;
pub mod server;
pub mod shared;
pub mod start;
mod timer;
pub mod tracing;
pub(crate) mod trial;
mod updating;
pub mod vm;
pub mod volumes;

use std::ffi::OsString;
use std::fs::File;
use std::path::Path;
use std::process::ExitCode;
use std::sync::mpsc::channel;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use model::Name;
use rustix::fs::FlockOperation;
use spans::{Fact, Kind, Span};

use crate::dir::HostDir;
use crate::failure::{Failure, Result};
use crate::local::LocalDir;
use crate::socket;
use meter::Meter;
use order::Order;
use owner::End;
use server::Door;
use shared::Shared;

/// How long a shim that failed to start waits for somebody to ask why.
const LAST_WORDS: Duration = Duration::from_secs(3);
/// The lock's file in the instance's folder.
const LOCK: &str = "lock";

/// The process's entry: `__shim HOST-DIR ORDER`.
pub fn main(arguments: &[OsString]) -> ExitCode {
    match prepare(arguments) {
        Ok((host, order, local, lock)) => {
            let code = serve(&host, &order, &local);
            // The kernel lets it go with everything else of this process: a thread that still ends
            // may have a volume open until then, and who finds this lock free opens them.
            std::mem::forget(lock);
            code
        }
        Err(failure) => {
            eprintln!("{failure}");
            ExitCode::FAILURE
        }
    }
}

/// Whether a shim (or what is left of one) still holds the instance's folder.
pub fn is_locked(folder: &Path) -> bool {
    let Ok(file) = File::open(folder.join(LOCK)) else { return false };
    rustix::fs::flock(&file, FlockOperation::NonBlockingLockShared).is_err()
}

fn prepare(arguments: &[OsString]) -> Result<(HostDir, Order, LocalDir, File)> {
    let [dir, order] = arguments else {
        return Err(Failure::new("usage", "__shim HOST-DIR ORDER", ""));
    };
    // A session of its own: a closed terminal is not for the guest. (Fails when it has one.)
    let _ = rustix::process::setsid();
    // Keys must not reach a core file or another process's debugger; and a core dump would hang
    // on this process's own mounts.
    rustix::process::set_dumpable_behavior(rustix::process::DumpableBehavior::NotDumpable)
        .map_err(std::io::Error::from)?;
    let host = HostDir::open(Path::new(dir))?;
    let order: Order = order
        .to_str()
        .and_then(|text| serde_json::from_str(text).ok())
        .ok_or_else(|| Failure::new("usage", "the order cannot be read", ""))?;
    let name = Name::new(&order.name).map_err(|e| Failure::new("usage", e.to_string(), ""))?;
    let local = LocalDir::new(&host, &name);
    crate::dir::make_private_dir(local.path())?;
    let lock = take_lock(local.path(), &name)?;
    Ok((host, order, local, lock))
}

/// Tries to take the lock so often; a command that looks whether it is held holds it for a moment.
const LOCK_TRIES: u32 = 50;

/// Takes the lock of an instance's folder: while it is held, no shim of it is born.
pub fn take_lock(folder: &Path, name: &Name) -> Result<File> {
    let lock = File::create(folder.join(LOCK))?;
    for _ in 0..LOCK_TRIES {
        if rustix::fs::flock(&lock, FlockOperation::NonBlockingLockExclusive).is_ok() {
            return Ok(lock);
        }
        std::thread::sleep(Duration::from_millis(2));
    }
    let message = format!("{name} is being started or ended by another shim");
    Err(Failure::new("state", message, "`collective ps` shows what it does"))
}

fn serve(host: &HostDir, order: &Order, local: &LocalDir) -> ExitCode {
    let shared = Arc::new(Shared::default());
    let (queue_in, queue) = channel();
    let door = Door {
        name: order.name.as_str().into(),
        shared: shared.clone(),
        owner: queue_in,
        guest: Arc::new(Mutex::new(None)),
    };
    match socket::listen(local.path()) {
        Ok(listener) => {
            let door = door.clone();
            std::thread::spawn(move || server::serve(listener, door));
        }
        Err(error) => {
            eprintln!("cannot listen: {error}");
            return ExitCode::FAILURE;
        }
    }
    let end = match begin(host, order, local, &door) {
        Ok(mut running) => {
            let meter = Meter::begin(host, &running);
            let end = owner::serve(host, &mut running, &queue, &shared);
            let finished = finish(running, end);
            meter.end();
            finished
        }
        Err(failure) => {
            eprintln!("not started: {failure}");
            shared.set_state("failed");
            shared.set_ready(Err(failure));
            shared.await_told(LAST_WORDS);
            Err(Failure::new("internal", "it did not start", ""))
        }
    };
    let _ = std::fs::remove_file(local.path().join(socket::SOCKET));
    match end {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("{failure}");
            ExitCode::FAILURE
        }
    }
}

fn begin(host: &HostDir, order: &Order, local: &LocalDir, door: &Door) -> Result<running::Running> {
    let mut span = Span::below("shim start", Kind::Asked, order.traceparent.as_deref());
    span.say(Fact::Instance, &order.name);
    let _on = span.enter();
    let started = start::start(host, order, local, door);
    if let Err(failure) = &started {
        span.failed(failure.kind);
    }
    started
}

/// Unmounts, and removes what is no longer needed.
pub fn finish(running: running::Running, end: End) -> Result<()> {
    running.guest.kill();
    if let Err(failure) = cables::unplug(&running.local) {
        eprintln!("{failure}");
    }
    running.landing.iter().for_each(|landing| landing.end());
    running.scrubbing.end();
    running.tracing.end();
    let (local, mut instance) = (running.local, running.instance);
    running.volumes.close()?;
    ambient::step("end: closed");
    match end {
        End::Kept | End::Discarded => {
            instance.open = false;
            local.write(&instance)?;
            local.remove_volumes()?;
        }
        End::Failed => {}
    }
    // Sockets of a QEMU that is gone; the console's log stays.
    for name in [vmm::CONSOLE_SOCKET, vmm::VNC_SOCKET] {
        let _ = std::fs::remove_file(local.run().join(name));
    }
    Ok(())
}

/// Unmounts what a killed shim left mounted, and removes the devices of its network cards.
pub fn unmount_leftovers(local: &LocalDir) -> Result<()> {
    for mount in [local.ram_mount(), local.disk_mount()] {
        local.doors().unmount_leftovers(&mount)?;
    }
    cables::unplug(local)
}
