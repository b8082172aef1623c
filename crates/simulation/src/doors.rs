//! One host's doors: its shims live in its own thread, its volumes in memory, its machine is the
//! model. All that decides is the real host's.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use api::{Reply, Request, StartReport};
use chunk::ChunkSource;
use host::dir::HostDir;
use host::doors::Doors;
use host::local::LocalDir;
use host::shim::by_itself::ByItself;
use host::shim::exports::{Mounted, Mounting};
use host::shim::guest::Guest;
use host::shim::order::{Order, Start};
use host::shim::owner::{self, End};
use host::shim::power::{Powered, Powering};
use host::shim::running::Running;
use host::shim::scrubbing::Scrubbing;
use host::shim::server::{Door as ShimDoor, Message};
use host::shim::shared::Shared;
use host::shim::start;
use host::shim::tracing::Tracing;
use host::{Failure, Result};
use objects::Objects;
use vmm::Accel;
use volume::Disk;

use crate::chance::Chance;
use crate::check::pages;
use crate::disk::{Folder, Opened, Unsynced};
use crate::machine::{Board, Cpu, Files, Mount};
use crate::store::Reached;
use crate::truth::{Left, PAGES, Truth, VOLUMES};
use crate::world::World;

/// An instance that runs here.
struct Shim {
    running: Running,
    by_itself: ByItself,
    shared: Arc<Shared>,
    cpu: Arc<Cpu>,
    _queue: Receiver<Message>,
}

#[derive(Default)]
struct Inner {
    shims: BTreeMap<PathBuf, Shim>,
    /// Guests whose shim has begun to end, or whose start has not ended.
    guests: BTreeMap<PathBuf, (Arc<Cpu>, u64)>,
    mounted: Option<Arc<Files>>,
    disks: BTreeMap<u64, Folder>,
    disk_count: u64,
}

/// See the module's documentation.
pub struct Simulated {
    pub world: Arc<World>,
    pub truth: Arc<Truth>,
    pub host: usize,
    inner: Mutex<Inner>,
}

impl fmt::Debug for Simulated {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "host {}", self.host)
    }
}

/// The file by which a folder of the real file system knows its disk.
const MARK: &str = "disk";

impl Simulated {
    pub fn new(world: &Arc<World>, truth: &Arc<Truth>, host: usize) -> Arc<Self> {
        let (world, truth) = (world.clone(), truth.clone());
        let this = Arc::new(Self { world, truth, host, inner: Mutex::default() });
        let at_step = Arc::downgrade(&this);
        this.world.at_steps(
            host,
            Arc::new(move |step| {
                if let Some(this) = at_step.upgrade() {
                    this.guests_go_on(step);
                }
            }),
        );
        this
    }

    /// Guests write while what they wrote before is stored.
    fn guests_go_on(&self, step: &str) {
        if !["seal:", "session:", "ref:", "checkpoint:"].iter().any(|verb| step.starts_with(verb)) {
            return;
        }
        let cpus: Vec<_> = self.inner().guests.values().map(|(cpu, _)| cpu.clone()).collect();
        for cpu in cpus.iter().filter(|cpu| cpu.is_running()) {
            let mut chance = Chance::new(self.world.state().chance.next());
            let at = chance.below(VOLUMES as u64) as usize;
            cpu.files.write(at, chance.below(PAGES[at]), self.truth.fresh());
        }
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn life(&self) -> u64 {
        self.world.state().fates[self.host].life
    }

    /// The folders of the instances that run here, and their guests.
    pub fn guests(&self) -> Vec<(PathBuf, Arc<Cpu>)> {
        self.inner().shims.iter().map(|(path, shim)| (path.clone(), shim.cpu.clone())).collect()
    }

    /// The power goes: what was in memory is gone, what was on disk is as a power cut leaves it.
    pub fn crash(&self, unsynced: Unsynced) {
        let (shims, guests) = {
            let mut inner = self.inner();
            inner.mounted = None;
            (std::mem::take(&mut inner.shims), std::mem::take(&mut inner.guests))
        };
        for (folder, (cpu, generation)) in &guests {
            self.leave(folder, cpu, *generation);
        }
        drop(shims);
        {
            let mut state = self.world.state();
            let mut chance = state.chance.clone();
            for folder in self.inner().disks.values() {
                folder.cut(unsynced, &mut chance);
            }
            state.chance = chance;
        }
        self.truth.known().running.retain(|(_, host), _| *host != self.host);
        self.world.revive(self.host);
    }

    /// Notes what a guest that ends without a checkpoint leaves on this host's disks.
    fn leave(&self, folder: &Path, cpu: &Cpu, generation: u64) {
        if !cpu.files.has_begun() {
            return;
        }
        let left = Left {
            instance: cpu.instance.clone(),
            host: self.host,
            disk: data_disk(folder),
            generation,
            may: cpu.files.may(),
            precious: cpu.files.is_precious(),
            used: false,
        };
        self.truth.known().left.push(left);
    }

    /// QEMU ends by itself: the guest powered itself off, or it crashed.
    pub fn guest_ends(&self, folder: &Path, by_itself: bool) -> Option<End> {
        let mut shim = self.inner().shims.remove(folder)?;
        match by_itself {
            true => shim.cpu.power_off(),
            false => shim.cpu.ended.store(true, Ordering::SeqCst),
        }
        let end = owner::ended(&mut shim.running, "simulated", &shim.shared);
        let _ = self.finish(folder, shim, end);
        Some(end)
    }

    /// What the owners here do while nobody asks them for anything: a checkpoint that is due.
    pub fn tick(&self, folder: &Path) -> Result<()> {
        let Some(mut shim) = self.inner().shims.remove(folder) else { return Ok(()) };
        let before = shim.running.generation;
        let end = shim.by_itself.step(&mut shim.running, &shim.shared);
        let generation = shim.running.generation;
        if generation != before {
            shim.cpu.files.stored();
        }
        self.inner().guests.insert(folder.to_owned(), (shim.cpu.clone(), generation.0));
        match end {
            Some(end) => self.finish(folder, shim, end),
            None => {
                let key = (shim.cpu.instance.clone(), self.host);
                self.truth.known().running.insert(key, generation.0);
                self.inner().shims.insert(folder.to_owned(), shim);
                Ok(())
            }
        }
    }

    fn finish(&self, folder: &Path, shim: Shim, end: End) -> Result<()> {
        if end == End::Failed {
            self.leave(folder, &shim.cpu, shim.running.generation.0);
            // It is noted once, also when the host dies now.
            self.inner().guests.remove(folder);
        }
        let key = (shim.cpu.instance.clone(), self.host);
        self.truth.known().running.remove(&key);
        let finished = host::shim::finish(shim.running, end);
        self.inner().guests.remove(folder);
        finished
    }

    fn request(&self, folder: &Path, request: &Request) -> Result<Reply> {
        if let Request::Status = request {
            let inner = self.inner();
            let shim = inner.shims.get(folder).ok_or_else(not_here)?;
            return Ok(Reply::Status(Box::new(shim.shared.status())));
        }
        let mut shim = self.inner().shims.remove(folder).ok_or_else(not_here)?;
        if let Request::AwaitReady { .. } | Request::AwaitStarted { .. } = request {
            let report = match request {
                Request::AwaitReady { .. } => shim.shared.await_ready(Duration::ZERO),
                _ => shim.shared.await_started(Duration::ZERO),
            };
            self.inner().shims.insert(folder.to_owned(), shim);
            return report.map(Reply::Started);
        }
        let (reply, answer) = channel();
        let Shim { running, by_itself, shared, .. } = &mut shim;
        let end = owner::request_step(running, request.clone(), &reply, shared, by_itself);
        let answer = answer.try_recv().unwrap_or(Reply::Done { checkpoint: None });
        // From here on somebody may know.
        self.told(&shim.cpu, &answer);
        let generation = shim.running.generation.0;
        self.inner().guests.insert(folder.to_owned(), (shim.cpu.clone(), generation));
        match end {
            Some(end) => self.finish(folder, shim, end)?,
            None => {
                let key = (shim.cpu.instance.clone(), self.host);
                self.truth.known().running.insert(key, generation);
                self.inner().shims.insert(folder.to_owned(), shim);
            }
        }
        match answer {
            Reply::Failed { error } => Err(Failure::from_body(error)),
            reply => Ok(reply),
        }
    }

    fn told(&self, cpu: &Cpu, reply: &Reply) {
        let id = match reply {
            Reply::Checkpoint(print) => Some(print.checkpoint.clone()),
            Reply::Done { checkpoint } => checkpoint.clone(),
            Reply::Failed { error } if error.kind == "fenced" => {
                error.message.rsplit(" branch ").next().filter(|id| is_id(id)).map(str::to_owned)
            }
            _ => None,
        };
        if let Some(id) = id {
            cpu.files.stored();
            self.world.event(self.host, &format!("  told: {} {}", cpu.instance, &id[..12]));
            self.truth.known().told.push((cpu.instance.clone(), id));
        }
    }

    /// What a guest finds when it boots must be what its checkpoint (or its version) says, or, when
    /// no other host has run it since, what a crash left here.
    fn boot(&self, powering: &Powering<'_>, files: &Files) -> Result<()> {
        let found = files.read()?;
        let claim = powering.claim;
        let instance = claim.head.instance.to_string();
        if !found.0[0].is_empty() {
            self.world.violation(format!("{instance} boots, but its memory is not empty"));
        }
        let mut known = self.truth.known();
        let by_others = |since: u64| {
            known.ran.iter().any(|((of, generation), host)| {
                *of == instance && *generation > since && *host != self.host
            })
        };
        let disk = data_disk(powering.local.path());
        let left = known.left.iter().rposition(|left| {
            // It may have become a branch, and what is here now have been made anew since.
            let here = left.host == self.host && left.instance == instance && left.disk == disk;
            here && !left.used && claim.crashed && !by_others(left.generation)
        });
        let wrong = match left {
            Some(at) => {
                known.left[at].used = true;
                let left = known.left[at].clone();
                let wrong = !left.admits(&found.0[1..]);
                wrong.then(|| format!("boots from {found:?}, but left {:?}", left.may))
            }
            None => {
                drop(known);
                let source: Arc<dyn ChunkSource> = powering.fetcher.clone();
                let says = claim.disks().iter().zip(&PAGES[1..]);
                let says: Vec<_> = says.map(|(id, count)| pages(&source, *id, *count)).collect();
                let differs = says.iter().zip(&found.0[1..]).any(|(says, found)| match says {
                    Ok(says) => says != found,
                    // A request went wrong: what was found is looked at again later.
                    Err(_) => false,
                });
                differs.then(|| format!("boots from {found:?}, and not from {says:?}"))
            }
        };
        match wrong {
            Some(text) => self.world.violation(format!("{instance} {text}")),
            None => files.begin(found),
        }
        Ok(())
    }
}

/// Which of this host's disks an instance's data lies on.
fn data_disk(folder: &Path) -> Option<String> {
    std::fs::read_to_string(folder.join("volumes/disk-data").join(MARK)).ok()
}

fn is_id(text: &str) -> bool {
    text.len() >= 12 && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

fn not_here() -> Failure {
    Failure::new("state", "it is not running on this host", "")
}

impl Doors for Simulated {
    fn objects(&self, _: &str) -> Result<Arc<dyn Objects>> {
        let (world, host, life) = (self.world.clone(), self.host, self.life());
        Ok(Arc::new(Reached { world, host, life }))
    }

    fn disk(&self, folder: &Path, _: &str) -> volume::Result<Arc<dyn Disk>> {
        // The folder is the real file system's, so that removing it removes the disk.
        let mark = folder.join(MARK);
        let known = std::fs::read_to_string(&mark).ok().and_then(|text| text.parse().ok());
        let number = match known {
            Some(number) => number,
            None => {
                let mut inner = self.inner();
                inner.disk_count += 1;
                let _ = std::fs::create_dir_all(folder);
                let _ = std::fs::write(&mark, inner.disk_count.to_string());
                inner.disk_count
            }
        };
        let folder = self.inner().disks.entry(number).or_default().clone();
        let (world, host, life) = (self.world.clone(), self.host, self.life());
        let bytes = folder.bytes.clone();
        let gate = Arc::new(Opened { folder, world, host, life });
        Ok(Arc::new(volume::memory_disk::MemoryDisk { bytes, gate }))
    }

    fn is_alive(&self, folder: &Path) -> bool {
        self.inner().shims.contains_key(folder)
    }

    fn is_locked(&self, _: &Path) -> bool {
        false
    }

    fn ask(&self, folder: &Path, request: &Request, _: Duration) -> Result<Reply> {
        self.request(folder, request)
    }

    fn bear(&self, host: &HostDir, local: &LocalDir, order: &Order) -> Result<()> {
        host_private_dir(local)?;
        let shared = Arc::new(Shared::default());
        let (owner, queue) = channel();
        let (name, guest) = (order.name.as_str().into(), Arc::default());
        let door = ShimDoor { name, shared: shared.clone(), owner, guest };
        let running = start::start(host, order, local, &door);
        let guest = self.inner().guests.get(local.path()).map(|(cpu, _)| cpu.clone());
        match (running, guest) {
            (Ok(running), Some(cpu)) => {
                let (instance, generation) = (cpu.instance.clone(), running.generation.0);
                let mut known = self.truth.known();
                let twice = known.running.iter().find(|((of, host), at)| {
                    *of == instance && *host != self.host && **at == generation
                });
                let twice = twice.map(|((_, host), _)| *host);
                known.running.insert((instance.clone(), self.host), generation);
                drop(known);
                if let Some(host) = twice {
                    let text =
                        format!("{instance} runs twice in generation {generation}: here, {host}");
                    self.world.violation(text);
                }
                let by_itself = ByItself::new(&running, &shared);
                let shim = Shim { running, by_itself, shared, cpu, _queue: queue };
                self.inner().shims.insert(local.path().to_owned(), shim);
                Ok(())
            }
            (Ok(_), None) => Err(Failure::new("internal", "it runs without a machine", "")),
            (Err(failure), guest) => {
                if guest.is_some() {
                    self.inner().guests.remove(local.path());
                }
                Err(failure)
            }
        }
    }

    fn accel(&self, _: &HostDir, _: &str) -> Result<Accel> {
        Ok(Accel::Tcg)
    }

    fn unmount_leftovers(&self, _: &Path) -> Result<()> {
        Ok(())
    }

    fn mount(&self, mounting: Mounting<'_>) -> Result<Box<dyn Mounted>> {
        let disks: Vec<_> = mounting.disks.iter().map(|(_, volume)| *volume).collect();
        let files = Arc::new(Files::new(mounting.ram, &disks));
        self.inner().mounted = Some(files.clone());
        Ok(Box::new(Mount(files)))
    }

    fn ready(&self) -> Option<vmm::Readied> {
        None
    }

    fn power_on(&self, powering: &Powering<'_>) -> Result<Powered> {
        let files = self.inner().mounted.take();
        let files = files.ok_or_else(|| Failure::new("internal", "nothing is mounted", ""))?;
        let ran = (powering.claim.head.instance.to_string(), powering.claim.generation.0);
        self.truth.known().ran.insert(ran, self.host);
        let before = powering.claim.before.as_ref().and_then(|(_, head)| head.lease.as_ref());
        let is_others = before.is_some_and(|lease| lease.holder != powering.host.id());
        if is_others && powering.order.start == (Start::Existing { take_over: false, at: None }) {
            let text = format!("{} is taken from another host, unasked", powering.order.name);
            self.world.violation(text);
        }
        // One that continues begins when its memory is loaded.
        if powering.claim.memory().is_none() {
            self.boot(powering, &files)?;
        }
        let cpu = Arc::new(Cpu {
            world: self.world.clone(),
            truth: self.truth.clone(),
            files,
            instance: powering.claim.head.instance.to_string(),
            runs: false.into(),
            ended: false.into(),
            off: false.into(),
        });
        let volumes: Vec<_> = powering.volumes.all().cloned().collect();
        debug_assert_eq!(volumes.len(), VOLUMES);
        let tracing =
            Tracing::record(powering.claim, powering.how, &volumes, powering.fetcher.cache());
        let generation = powering.claim.generation.0;
        let path = powering.local.path().to_owned();
        self.inner().guests.insert(path, (cpu.clone(), generation));
        let guest = Arc::new(Guest::new(Box::new(Board(cpu)), powering.local.run()));
        // Nobody sends: it is settled.
        let settled = channel().1;
        let ports = Vec::new();
        Ok(Powered { guest, tracing, settled, ports, ready_port: None, console_offset: 0 })
    }

    fn attend(&self, powering: &Powering<'_>, _: Powered, report: StartReport) -> Arc<Scrubbing> {
        let well = self.world.state().unwell != Some(powering.claim.version.version.as_str());
        let not_ready = || Failure::new("not_ready", "simulated", "");
        powering.door.shared.set_ready(if well { Ok(report) } else { Err(not_ready()) });
        Arc::new(Scrubbing::default())
    }
}

fn host_private_dir(local: &LocalDir) -> Result<()> {
    Ok(std::fs::create_dir_all(local.path())?)
}
