//! The machine of a start: QEMU on the instance's volumes, and what is done for its guest in the
//! background.
//!
//! *Invariants.* Nothing here is decided: what is started was claimed before. What is begun here ends
//! with the guest, or when [`Tracing::end`] and [`Scrubbing::end`] are called.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::mpsc::{Receiver, Sender};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use api::StartReport;
use model::{DiskBus, Media, PortMap, Ready};
use spans::{Kind, Span};
use vmm::{Accel, DiskFile, Launch, Qemu, Readied};
use volume::{Fetcher, StallObserver};

use super::cables;
use super::claim::Claim;
use super::fence;
use super::guest::Guest;
use super::order::Order;
use super::ready::ReadyCheck;
use super::scrubbing::Scrubbing;
use super::server::{Door, Message};
use super::shared::Shared;
use super::tracing::Tracing;
use super::trial::Examination;
use super::volumes::Volumes;
use crate::boot_file::BootFile;
use crate::dir::HostDir;
use crate::failure::{Failure, Result};
use crate::local::LocalDir;
use crate::ports;
use crate::record::{Blob, How};
use crate::store::Store;
use crate::tpm;

/// How long a guest may take to set its clock.
const CLOCK_TIMEOUT: Duration = Duration::from_secs(20);

/// Everything that a machine is started from.
pub struct Powering<'a> {
    pub host: &'a HostDir,
    pub order: &'a Order,
    pub local: &'a LocalDir,
    pub door: &'a Door,
    pub store: &'a Store,
    pub claim: &'a Claim,
    pub accel: Accel,
    /// Whom QEMU runs as, when not as us.
    pub owner: Option<(u32, u32)>,
    pub fetcher: &'a Arc<Fetcher>,
    pub volumes: &'a Volumes,
    /// Other hosts that chunks come from.
    pub peers: &'a Option<Arc<peer::Peers>>,
    pub how: How,
    /// What was begun of the machine before it was known which; the first one takes it.
    pub readied: &'a Mutex<Option<Readied>>,
    pub began: ambient::Instant,
}

/// A machine whose CPUs do not run yet.
pub struct Powered {
    pub guest: Arc<Guest>,
    pub tracing: Arc<Tracing>,
    /// Ends when what this start touched is learned, and what earlier ones did is fetched.
    pub settled: Receiver<()>,
    /// What its first network card is reached through.
    pub ports: Vec<PortMap>,
    /// Where the guest's port of a port check is published.
    pub ready_port: Option<SocketAddr>,
    /// How long the console's log was before this start.
    pub console_offset: u64,
}

impl Powering<'_> {
    /// Whether the guest continues from somebody else's memory.
    pub fn fresh(&self) -> bool {
        self.claim.memory().is_some() && self.claim.fresh()
    }
}

/// Starts QEMU on the volumes, while what earlier starts touched is fetched.
pub fn power_on(powering: &Powering<'_>) -> Result<Powered> {
    let Powering { host, order, door, store, claim, fetcher, volumes, how, .. } = *powering;
    let all: Vec<_> = volumes.all().cloned().collect();
    let (tracing, settled) =
        Tracing::start(host, store, claim, how, order.maker, &all, fetcher, &door.shared);
    let started = std::thread::scope(|scope| {
        scope.spawn(|| tracing.place(volumes));
        let mut ports = ports::read(&order.ports);
        let user = cables::first_network(&claim.head, &claim.version.hardware) == network::USER;
        let ready_port =
            if user { add_ready_port(&claim.version.ready, &mut ports)? } else { None };
        let files = BootFiles::prepare(powering)?;
        let guest = start_guest(powering, &files, &ports)?;
        Ok((guest, ports, ready_port, files.console_offset))
    });
    match started {
        Ok((guest, ports, ready_port, console_offset)) => {
            fence::watch(host.clone(), powering.claim.head.name.clone(), guest.clone())?;
            Ok(Powered { guest, tracing, settled, ports, ready_port, console_offset })
        }
        Err(failure) => {
            tracing.end();
            Err(failure)
        }
    }
}

/// Watches over the guest, waits until it is ready, and brings what this host lacks.
pub fn attend(powering: &Powering<'_>, powered: Powered, report: StartReport) -> Arc<Scrubbing> {
    let Powering { host, order, local, door, store, claim, volumes, began, .. } = *powering;
    let continued = claim.memory().is_some();
    watch(&powered.guest, door.owner.clone(), &door.shared);
    await_ready(AwaitReady {
        check: ReadyCheck {
            ready: claim.version.ready.clone(),
            port: powered.ready_port,
            console: local.console_log(),
            console_offset: powered.console_offset,
            // A guest that continues has said its line before.
            continued,
            guest: powered.guest,
            shared: door.shared.clone(),
        },
        timeout: Duration::from_millis(order.ready_timeout_ms),
        // Who has become somebody else has been told the time too.
        set_clock: continued && !powering.fresh(),
        shared: door.shared.clone(),
        store: store.clone(),
        volumes: volumes.all().cloned().collect(),
        report,
        peers: powering.peers.clone(),
        began,
        traceparent: order.traceparent.clone(),
        examination: claim.change.clone().map(|change| Examination {
            change,
            host: host.clone(),
            local: local.clone(),
            repository: order.repository.clone(),
            name: order.name.clone(),
            door: door.clone(),
        }),
    });
    if !order.maker && claim.head.follow.is_some() {
        super::updating::start(host, local, &order.repository, &order.name, claim.head.instance);
    }
    let all = volumes.all().cloned().collect();
    let boot = volumes.boot.iter().map(|(_, file)| file.clone()).collect();
    Scrubbing::start(host, store, all, boot, powered.settled, &door.shared)
}

fn start_guest(
    powering: &Powering<'_>,
    files: &BootFiles,
    published: &[PortMap],
) -> Result<Arc<Guest>> {
    let Powering { host, order, local, claim, accel, owner, volumes, .. } = *powering;
    let uuid = if order.maker { [0; 16] } else { *claim.head.instance.as_bytes() };
    let mut hardware = claim.version.hardware.clone();
    // QEMU has the TPM, and not what that remembers.
    hardware.disks.retain(|disk| disk.bus != DiskBus::Tpm);
    let tpm = volumes.tpm.as_ref().map(|tpm| tpm.launch(tpm::user(owner))).transpose()?;
    let mut disks = Vec::new();
    for spec in &hardware.disks {
        let path = volumes.disk_path(&spec.name)?;
        let read_only = spec.media == Media::Cd;
        disks.push(DiskFile { name: spec.name.clone(), path, read_only });
    }
    let uid = owner.map(|(uid, _)| uid);
    let closed = powering.fresh();
    let nics = cables::plug(host, local, &claim.head, &hardware, published, closed, uid)?;
    let launch = Launch {
        qemu: vmm::find_qemu()?,
        hardware,
        cpu_model: vmm::BASELINE_CPU.to_owned(),
        accel,
        ram_path: volumes.ram_path()?,
        disks,
        kernel: files.kernel.clone(),
        initrd: files.initrd.clone(),
        firmware: files.firmware.clone(),
        tpm,
        cmdline_extra: String::new(),
        nics,
        vmgenid: claim.head.vmgenid,
        uuid,
        run_dir: local.run(),
        incoming: claim.memory().is_some(),
        jail: vmm::Jail::new(
            vmm::Launcher::this_binary(),
            owner.map(|(uid, gid)| vmm::Identity { uid, gid }),
        ),
    };
    let readied = powering.readied.lock().unwrap_or_else(PoisonError::into_inner).take();
    let qemu = match readied {
        Some(readied) => Qemu::spawn_in(readied, &launch)?,
        None => Qemu::spawn(&launch)?,
    };
    Ok(Arc::new(Guest::new(Box::new(qemu), local.run())))
}

/// Kernel and initrd as files, and how long the console's log was.
struct BootFiles {
    kernel: Option<PathBuf>,
    initrd: Option<PathBuf>,
    firmware: Option<PathBuf>,
    console_offset: u64,
}

impl BootFiles {
    fn prepare(powering: &Powering<'_>) -> Result<Self> {
        let Powering { host, local, claim, fetcher, volumes, .. } = *powering;
        let blobs = host.folder(BLOBS)?;
        let file = |blob: &Option<Blob>, name: &str| -> Result<Option<PathBuf>> {
            let Some(blob) = blob else { return Ok(None) };
            if let Some(mapped) = volumes.boot_path(name)? {
                return Ok(Some(mapped));
            }
            let cached = crate::blob::materialise(&blobs, blob, fetcher)?;
            let path = local.run().join(name.trim_start_matches('.'));
            let _ = std::fs::remove_file(&path);
            std::fs::hard_link(&cached, &path)?;
            Ok(Some(path))
        };
        Ok(Self {
            kernel: file(&claim.version.kernel, KERNEL)?,
            initrd: file(&claim.version.initrd, INITRD)?,
            firmware: file(&claim.version.firmware, "firmware")?,
            console_offset: std::fs::metadata(local.console_log()).map_or(0, |log| log.len()),
        })
    }
}

/// The host's whole blobs.
const BLOBS: &str = "cache/blobs";
/// No disk has such a name.
const KERNEL: &str = ".kernel";
const INITRD: &str = ".initrd";

/// What QEMU only maps, as files that are read where they are touched: the kernel and the initial RAM
/// disk of a guest that goes on from memory. One that boots reads all of them at once.
pub fn mapped_files(
    host: &HostDir,
    fetcher: &Arc<Fetcher>,
    claim: &Claim,
    observer: &Arc<dyn StallObserver>,
) -> Result<Vec<(&'static str, Arc<BootFile>)>> {
    if claim.memory().is_none() {
        return Ok(Vec::new());
    }
    let blobs = host.folder(BLOBS)?;
    let files = [(KERNEL, &claim.version.kernel), (INITRD, &claim.version.initrd)];
    let files = files.into_iter().filter_map(|(name, blob)| Some((name, blob.as_ref()?)));
    let open = |name, blob| BootFile::open(name, &blobs, blob, fetcher, observer.clone());
    files.map(|(name, blob)| Ok((name, Arc::new(open(name, blob)?)))).collect()
}

/// With a port check, the port has to be reachable from here: published, or by a port of its own
/// on loopback.
fn add_ready_port(ready: &Ready, ports: &mut Vec<PortMap>) -> Result<Option<SocketAddr>> {
    let (Ready::Port(guest_port) | Ready::Http { port: guest_port, .. }) = ready else {
        return Ok(None);
    };
    if let Some(port) = ports.iter().find(|port| port.guest_port == *guest_port) {
        let address = if port.address.is_unspecified() {
            std::net::Ipv4Addr::LOCALHOST.into()
        } else {
            port.address
        };
        return Ok(Some(SocketAddr::new(address, port.host_port)));
    }
    let own = ports::settle(&[PortMap {
        address: std::net::Ipv4Addr::LOCALHOST.into(),
        host_port: 0,
        guest_port: *guest_port,
    }])?;
    let address = SocketAddr::new(own[0].address, own[0].host_port);
    ports.extend(own);
    Ok(Some(address))
}

/// Tells the owner when QEMU ends or the guest powers itself off, and users when its TPM has ended.
fn watch(guest: &Arc<Guest>, owner: Sender<Message>, shared: &Arc<Shared>) {
    let (of_part, shared) = (guest.clone(), shared.clone());
    std::thread::spawn(move || {
        if let Some(failure) = of_part.await_part_end() {
            // The guest has errors of its TPM, and goes on: what it has in memory is for its user to
            // save. It cannot be sealed any more: a computer is whole or it is none.
            eprintln!("{failure}: it cannot be checkpointed until it was stopped and resumed");
            let what = failure.message.lines().next().unwrap_or_default();
            shared.set_lost(format!("{what}; {}", failure.hint));
        }
    });
    let guest = guest.clone();
    std::thread::spawn(move || {
        let end = guest.await_end();
        let _ = owner.send(Message::Ended(end));
    });
}

/// What the ready check's thread needs.
struct AwaitReady {
    check: ReadyCheck,
    timeout: Duration,
    set_clock: bool,
    shared: Arc<Shared>,
    store: Store,
    volumes: Vec<Arc<volume::Volume>>,
    report: StartReport,
    peers: Option<Arc<peer::Peers>>,
    began: ambient::Instant,
    /// Of a new version on trial.
    examination: Option<Examination>,
    /// What it is done for.
    traceparent: Option<String>,
}

fn await_ready(wait: AwaitReady) {
    std::thread::spawn(move || {
        let mut span = Span::below("shim ready", Kind::Own, wait.traceparent.as_deref());
        let guest = wait.check.guest.clone();
        if wait.set_clock
            && let Err(failure) = guest.set_time(ambient::unix_ms(), CLOCK_TIMEOUT)
        {
            eprintln!("the guest's clock was not set: {failure}");
        }
        let ready = wait.check.wait(wait.timeout);
        let well = ready.and_then(|()| match &wait.examination {
            Some(examination) => examination.hold(&guest),
            None => Ok(()),
        });
        let is_well = well.is_ok();
        if let Err(failure) = &well {
            span.failed(failure.kind);
        }
        drop(span);
        let result = well.map(|()| StartReport {
            ready_ms: wait.began.elapsed().as_millis() as u64,
            fetched_bytes: wait.store.fetched_bytes(),
            peer_bytes: wait.peers.map_or(0, |peers| peers.received_bytes()),
            reused_bytes: wait
                .volumes
                .iter()
                .map(|volume| volume.stats().cache_hits * model::PAGE_BYTES as u64)
                .sum(),
            ..wait.report
        });
        let result = result.map_err(|failure| match wait.shared.lost() {
            Some(lost) => Failure { message: format!("{}; {lost}", failure.message), ..failure },
            None => failure,
        });
        wait.shared.set_ready(result);
        if let Some(examination) = wait.examination {
            examination.conclude(is_well);
        }
    });
}
