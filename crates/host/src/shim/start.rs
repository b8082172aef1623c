//! The start of an instance, in phases; each is consumed by the next, and whatever fails cleans up
//! what the phases before it made. Between two of them it may be called off, and then nothing has
//! happened; not any more when the guest may run.
//!
//! ```text
//! Claim (the lease) ──▶ Volumes (opened, mounted) ──▶ Guest (QEMU on these files) ──▶ Running
//! ```

use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{RecvTimeoutError, Sender};
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

use api::StartReport;
use model::{DiskSpec, InstanceState, Name, PortMap};
use spans::Span;
use vmm::{Accel, Readied};
use volume::{Cache, Fetcher, Stall, StallObserver};

use super::cables;
use super::claim::{self, Claim};
use super::guest::Guest;
use super::landing::Landing;
use super::order::{Order, Start};
use super::power::Powering;
use super::running::Running;
use super::server::{Door, Message};
use super::shared::Shared;
use super::volumes::{self, Origin, Volumes};
use super::{fence, identity, leftovers, machine, power};
use crate::dir::HostDir;
use crate::failure::{Failure, Result};
use crate::local::{LocalDir, LocalInstance};
use crate::peers::Chunks;
use crate::record::{Blob, How};
use crate::store::Store;

/// Threads that fetch from the repository for one instance.
const FETCH_THREADS: usize = 8;

/// Starts what `order` says. The guest runs when this returns; whether it is ready is found out
/// in the background.
pub fn start(host: &HostDir, order: &Order, local: &LocalDir, door: &Door) -> Result<Running> {
    let began = ambient::now();
    let readied = Mutex::new(host.doors().ready());
    let name = Name::new(&order.name).map_err(|e| Failure::new("usage", e.to_string(), ""))?;
    super::unmount_leftovers(local)?;
    let store = Store::open(host, &order.repository)?;
    let accel = host.doors().accel(host, &order.accel)?;
    let chunks = Chunks::of(host, &store);
    if matches!(order.start, Start::Existing { .. }) {
        leftovers::branch_if_stale(&store, &chunks, host, &name)?;
    }
    let network = match &order.network {
        Some(text) => Some(Name::new(text).map_err(|e| Failure::new("usage", e.to_string(), ""))?),
        None => None,
    };
    let attempt = |boot: bool, cold: Option<String>| {
        door.shared.goes_on().map_err(|failure| (failure, false))?;
        let part = Span::part("claim");
        let mut claim =
            claim::claim(&store, &chunks, host, &name, &order.start, boot, network.as_ref(), accel)
                .map_err(|failure| (failure, false))?;
        drop(part);
        claim.cold = claim.cold.or(cold);
        let result =
            with_claim(host, order, local, door, &store, &chunks, &claim, accel, &readied, began);
        if result.is_err() {
            // The lease goes back only when nothing of the instance is left open here.
            if let Err(failure) = claim::release(&store, &claim) {
                eprintln!("the lease could not be given back: {failure}");
            }
            if claim.before.is_none() {
                let _ = std::fs::remove_file(local.path().join("instance.json"));
            }
        }
        result.map_err(|failure| (failure, claim.warm().is_some()))
    };
    let boot = matches!(order.start, Start::New { boot: true, .. });
    attempt(boot, None).or_else(|(failure, warm)| {
        // What QEMU cannot load, or does not become somebody else, still boots.
        if warm && matches!(failure.kind, "hypervisor" | "agent") && !order.maker {
            eprintln!("not from the version's memory: {failure}");
            let cold = format!("its appliance's memory could not be used: {}", failure.message);
            return attempt(true, Some(cold)).map_err(|(failure, _)| failure);
        }
        Err(failure)
    })
}

/// The phases after the lease.
#[expect(clippy::too_many_arguments, reason = "the whole situation of a start")]
fn with_claim(
    host: &HostDir,
    order: &Order,
    local: &LocalDir,
    door: &Door,
    store: &Store,
    chunks: &Chunks,
    claim: &Claim,
    accel: Accel,
    readied: &Mutex<Option<Readied>>,
    began: ambient::Instant,
) -> Result<Running> {
    let hardware = &claim.version.hardware;
    let crashed = claim.crashed;
    let memory = claim.memory();
    if hardware.has_tpm() {
        // Said before anything is fetched.
        crate::tpm::program()?;
    }
    if let Some(memory) = memory {
        machine::check(&memory.machine, hardware, accel).map_err(|differs| {
            Failure::new(
                "hypervisor",
                format!("the checkpoint {differs}"),
                "resume it where they are equal; or `collective fork NAME --at CHECKPOINT` with one \
                 that has no memory, which boots",
            )
        })?;
    }
    let instance = LocalInstance {
        format: 1,
        id: claim.head.instance.to_string(),
        appliance: claim.head.appliance.to_string(),
        version: claim.version.version.clone(),
        generation: claim.generation.0,
        repository: order.repository.clone(),
        ports: order.ports.clone(),
        accel: accel.as_str().to_owned(),
        open: true,
        version_id: None,
        checkpoint: None,
        explicit: None,
        parcel: None,
    }
    .noting(&claim.head);
    local.write(&instance)?;
    door.shared.set_generation(claim.generation.0);

    let owner = qemu_user(&claim.head.instance);
    prepare_run(local, owner)?;
    let cache = Arc::new(Cache::open(&host.folder("cache")?, host.cache_bytes_max())?);
    let Chunks { source, peers } = chunks.clone();
    let landing = match (&claim.head.parcel, &claim.checkpoint) {
        (Some(parcel), Some(checkpoint)) => Some(Landing::new(parcel.clone(), checkpoint)),
        _ => None,
    };
    door.shared.set_lacking(landing.clone());
    let (counted, others) = (store.clone(), peers.clone());
    door.shared.set_fetched(Arc::new(move || {
        let from_others = others.as_ref().map_or(0, |peers| peers.received_bytes());
        (counted.fetched_bytes(), from_others)
    }));
    door.shared.set_size(hardware.cpus, hardware.memory_bytes);
    let fetcher = Arc::new(Fetcher::new(cache, source.clone(), FETCH_THREADS));
    let part = Span::part("open volumes");
    let volumes = open_volumes(host, local, claim, &fetcher, owner, door)?;
    drop(part);
    let how = if memory.is_some() { How::Continued } else { How::Booted };
    // The volumes tell what is shared of their stalls: held from there, they would hold themselves.
    let reader: Vec<_> = volumes.all().map(Arc::downgrade).collect();
    door.shared.set_volumes(Arc::new(move || {
        reader.iter().filter_map(Weak::upgrade).map(|volume| volumes::print(&volume)).collect()
    }));

    let powering = Powering {
        host,
        order,
        local,
        door,
        store,
        claim,
        accel,
        owner,
        fetcher: &fetcher,
        volumes: &volumes,
        peers: &peers,
        how,
        readied,
        began,
    };
    let started = patiently(&volumes, &door.shared, || {
        door.shared.goes_on()?;
        let state = memory.map(|memory| &memory.device_state);
        let part = Span::part("power on");
        // The machine takes a while to come into being.
        let (powered, brought) =
            beside(|| bring(local, &fetcher, state), || host.doors().power_on(&powering));
        drop(part);
        let powered = powered.inspect_err(|_| {
            // Nobody loads it.
            if let Ok(Some(path)) = &brought {
                let _ = std::fs::remove_file(path);
            }
        })?;
        let guest = &powered.guest;
        let part = memory.is_some().then(|| Span::part("load memory"));
        let loaded = brought.and_then(|state| load(guest, state.as_deref()));
        drop(part);
        let may = loaded
            .and_then(|()| fence::may_run(host, &claim.head.name))
            .and_then(|()| door.shared.may_run());
        let runs = may.and_then(|()| guest.unpause()).and_then(|()| {
            let on_bridge = cables::first_network(&claim.head, hardware) != network::USER;
            if powering.fresh() {
                let somebody = become_somebody(guest, claim, &powered.ports)?;
                if on_bridge && !somebody {
                    eprintln!("its card leads nowhere: there it would speak as who it was before");
                    return Ok(());
                }
                cables::open(local)?;
            }
            if on_bridge {
                // The switches between it and its peers have to learn where it is now.
                let _ = guest.announce();
            }
            Ok(())
        });
        match runs {
            Ok(()) => Ok(powered),
            Err(failure) => {
                guest.kill();
                powered.tracing.end();
                Err(failure)
            }
        }
    });
    let powered = match started {
        Ok(started) => started,
        Err(failure) => {
            let called_off = door.shared.goes_on().err();
            let failure = called_off.unwrap_or_else(|| with_stall(failure, &door.shared));
            let _ = cables::unplug(local);
            let _ = volumes.close();
            if !crashed {
                let _ = local.remove_volumes();
                let _ = local.write(&LocalInstance { open: false, ..instance });
            }
            return Err(failure);
        }
    };
    ambient::step("start: runs");
    let guest = powered.guest.clone();
    let started_ms = began.elapsed().as_millis() as u64;
    door.shared.set_machine(accel.as_str(), order.ports.clone(), guest.pid());
    door.shared.set_state(InstanceState::Running.as_str());
    *door.guest.lock().unwrap_or_else(|poisoned| poisoned.into_inner()) = Some(guest.clone());
    if crashed {
        eprintln!("went on from the disks that a crash left: as after a power cut");
    }

    let report = StartReport {
        started_ms,
        ready_ms: 0,
        fetched_bytes: store.fetched_bytes(),
        peer_bytes: powering.peers.as_ref().map_or(0, |peers| peers.received_bytes()),
        reused_bytes: 0,
        accel: accel.as_str().to_owned(),
        ports: order.ports.clone(),
        how: how.as_str().to_owned(),
        cold: claim.cold.clone(),
    };
    door.shared.set_started(report.clone());
    let tracing = powered.tracing.clone();
    let scrubbing = host.doors().attend(&powering, powered, report);

    if let Some(landing) = &landing {
        landing.begin(store, &source, &fetcher, door.owner.clone());
    }

    // What a crash left may be based on what this host held before.
    let held = claim.head.holds.iter().filter(|hold| crashed && hold.host == host.id());
    let bases = held.map(|hold| hold.checkpoint).chain(claim.head.checkpoint).collect();

    Ok(Running {
        host: host.clone(),
        landing,
        bases,
        auto_here: host.auto(),
        tracing,
        scrubbing,
        store: store.clone(),
        local: local.clone(),
        instance,
        generation: claim.generation,
        head: claim.head.clone(),
        version: claim.version.clone(),
        machine: machine::here(hardware, accel),
        maker: order.maker,
        volumes,
        guest,
        shared: door.shared.clone(),
    })
}

/// First of the users that QEMU processes run as when we are root. Far from the users of people,
/// packages and containers; nobody needs to be named so.
const QEMU_UID_FIRST: u32 = 1_900_000_000;

/// The user and group that an instance's QEMU runs as: one of its own when we are root.
fn qemu_user(instance: &model::InstanceId) -> Option<(u32, u32)> {
    rustix::process::geteuid().is_root().then(|| {
        let [a, b, c, ..] = *instance.as_bytes();
        let id = QEMU_UID_FIRST + u32::from_be_bytes([0, a, b, c]);
        (id, id)
    })
}

/// Makes the run directory, which QEMU's user owns.
fn prepare_run(local: &LocalDir, owner: Option<(u32, u32)>) -> Result<()> {
    for path in [local.run(), local.ram_mount(), local.disk_mount()] {
        crate::dir::make_private_dir(&path)?;
        if let Some((uid, gid)) = owner {
            std::os::unix::fs::chown(&path, Some(uid), Some(gid))?;
        }
    }
    for name in [vmm::CONSOLE_SOCKET, vmm::VNC_SOCKET] {
        let _ = std::fs::remove_file(local.run().join(name));
    }
    Ok(())
}

fn open_volumes(
    host: &HostDir,
    local: &LocalDir,
    claim: &Claim,
    fetcher: &Arc<Fetcher>,
    owner: Option<(u32, u32)>,
    door: &Door,
) -> Result<Volumes> {
    let hardware = &claim.version.hardware;
    let manifests = claim.disks();
    if manifests.len() != hardware.disks.len() {
        return Err(Failure::new(
            "damaged",
            "the checkpoint has not as many disks as its hardware description",
            "`collective repo check` says more",
        ));
    }
    let disks: Vec<(DiskSpec, Origin)> = hardware
        .disks
        .iter()
        .zip(manifests)
        .map(|(spec, manifest)| {
            let left = claim.crashed && volumes::disk_folder(local, spec).exists();
            let origin =
                if left { Origin::Leftover(*manifest) } else { Origin::Base(Some(*manifest)) };
            (spec.clone(), origin)
        })
        .collect();
    let observer =
        Arc::new(Observer { shared: door.shared.clone(), owner: door.owner.clone().into() });
    let trouble = observer.clone();
    let boot = power::mapped_files(host, fetcher, claim, &(observer.clone() as _))?;
    Volumes::open(
        local,
        hardware.memory_bytes,
        Origin::Base(claim.memory().map(|memory| memory.ram)),
        &disks,
        boot,
        fetcher,
        observer,
        owner,
        Arc::new(move |event| trouble.export(event)),
    )
}

/// A start waits so long for what cannot be had.
const STALLED_MAX: Duration = Duration::from_secs(20);

/// Starts and loads. What comes slowly is waited for; what does not come at all, for [`STALLED_MAX`], or
/// until the start is called off: then whoever reads it gets an error, and so does the start.
fn patiently<T>(
    volumes: &Volumes,
    shared: &Shared,
    start: impl FnOnce() -> Result<T>,
) -> Result<T> {
    let (running, ended) = std::sync::mpsc::channel::<()>();
    std::thread::scope(|scope| {
        scope.spawn(move || {
            let mut since = None;
            while ended.recv_timeout(Duration::from_millis(250)) == Err(RecvTimeoutError::Timeout) {
                if !shared.waits_for_a_page() {
                    since = None;
                } else if since.get_or_insert_with(ambient::now).elapsed() > STALLED_MAX
                    || shared.goes_on().is_err()
                {
                    return volumes.give_up();
                }
            }
        });
        let started = start();
        drop(running);
        started
    })
}

/// Tells the owner when a page cannot be had, and when it can again.
struct Observer {
    shared: Arc<Shared>,
    owner: OwnerQueue,
}

/// A queue's end that several threads may use.
struct OwnerQueue(std::sync::Mutex<Sender<Message>>);

impl From<Sender<Message>> for OwnerQueue {
    fn from(sender: Sender<Message>) -> Self {
        Self(std::sync::Mutex::new(sender))
    }
}

impl OwnerQueue {
    fn send(&self, message: Message) {
        let _ = self.0.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).send(message);
    }
}

/// Pages whose number is not known, and writes.
const NO_PAGE: u64 = u64::MAX;

impl StallObserver for Observer {
    fn stalled(&self, stall: &Stall<'_>) {
        let page = stall.page.unwrap_or(NO_PAGE);
        if stall.attempts == 1 {
            eprintln!("waiting: {}", stall.error);
        }
        let why = match self.shared.lacking().and_then(|landing| landing.lacks()) {
            Some(why) => why.during(stall.error),
            None => stall.error.into(),
        };
        self.shared.set_stall(stall.volume, page, why);
        // Not at once: what comes back within a moment is not worth a pause.
        if stall.attempts > 2 {
            self.owner.send(Message::Stalled);
        }
    }

    fn resumed(&self, volume: &str, waited: Duration) {
        eprintln!("volume {volume} goes on after {:.1} s", waited.as_secs_f64());
        self.shared.clear_stalls(volume);
        self.owner.send(Message::Recovered);
    }
}

impl Observer {
    fn export(&self, trouble: &export::Trouble<'_>) {
        match trouble {
            export::Trouble::WriteHeld { file, error } => {
                let why = io::Error::new(error.kind(), error.to_string());
                let why = Failure::from(why)
                    .during(format!("volume {file}: what the guest writes cannot be stored"));
                self.shared.set_stall(file, NO_PAGE, why);
                self.owner.send(Message::Stalled);
            }
            export::Trouble::WritesResumed => {
                self.shared.clear_writes(NO_PAGE);
                self.owner.send(Message::Recovered);
            }
            export::Trouble::ReadLost { file, offset, error, .. } => {
                eprintln!("lost: {file} at {offset}: {error}");
                self.shared.set_lost(format!("it was given an error: {error}"));
            }
        }
    }
}

/// Does the first on a thread while it does the second; in a simulation before it. Both are done.
fn beside<A: Send, B>(first: impl FnOnce() -> A + Send, second: impl FnOnce() -> B) -> (B, A) {
    if ambient::threads(2) < 2 {
        let first = first();
        return (second(), first);
    }
    std::thread::scope(|scope| {
        let first = scope.spawn(first);
        let second = second();
        match first.join() {
            Ok(first) => (second, first),
            Err(panicked) => std::panic::resume_unwind(panicked),
        }
    })
}

/// Brings the device state here.
fn bring(
    local: &LocalDir,
    fetcher: &Arc<Fetcher>,
    state: Option<&Blob>,
) -> Result<Option<PathBuf>> {
    let Some(blob) = state else { return Ok(None) };
    let path = local.run().join("device-state.in");
    crate::blob::write(&path, blob, fetcher)?;
    // QEMU's user reads it; nobody else can enter the run directory.
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644))?;
    Ok(Some(path))
}

/// Loads the device state that was brought.
fn load(guest: &Guest, state: Option<&Path>) -> Result<()> {
    let Some(path) = state else { return Ok(()) };
    let loaded = guest.load(path);
    let _ = std::fs::remove_file(path);
    loaded
}

/// Lets a guest that continues from somebody else's memory become itself, before anybody can reach
/// it. A fork does so as well as it can; of a version's memory, which many start from, an instance
/// that does not is not let in. Whether it is somebody of its own now.
fn become_somebody(guest: &Guest, claim: &Claim, ports: &[PortMap]) -> Result<bool> {
    let mut somebody = false;
    // Without an agent nothing in the guest can be changed: its maker was told so.
    if claim.warm().is_none_or(|warm| warm.agent) {
        let (name, macs) = (&claim.head.name, &claim.head.macs);
        let done = identity::refresh(guest, ambient::unix_ms(), name, macs);
        match done {
            Err(failure) if claim.warm().is_some() => return Err(failure),
            Err(failure) => eprintln!("{failure}"),
            Ok(()) => somebody = true,
        }
        if let Err(failure) = guest.announce() {
            eprintln!("the guest's new addresses were not announced: {failure}");
        }
    }
    // As at a launch: without a card there is nothing to reach.
    let ports = if claim.version.hardware.nics.is_empty() { &[] } else { ports };
    ports.iter().try_for_each(|port| guest.publish(port))?;
    Ok(somebody)
}

/// A page that cannot be had is the likelier reason than what QEMU said about it.
fn with_stall(failure: Failure, shared: &Shared) -> Failure {
    match shared.stall() {
        Some(stall) => stall.during(failure.message),
        None => failure,
    }
}
