//! The guest: it writes numbered pages to its memory and disks, asks for them to be durable, and
//! remembers both. Between it and the volumes lies what the kernel's cache is for a real one.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use host::shim::exports::Mounted;
use host::shim::vm::Vm;
use host::{Failure, Result};
use model::{PAGE_BYTES, PortMap};
use vmm::{Exec, ExecOutput, Exit};
use volume::Volume;

use crate::truth::{PAGES, Pages, Snapshot, Truth, VOLUMES, page, value};
use crate::world::World;

const PAGE: u64 = PAGE_BYTES as u64;

#[derive(Default)]
struct Held {
    /// What the guest sees.
    sees: Snapshot,
    /// Written, and not yet in the volume.
    dirty: Snapshot,
    /// On this host's disk for certain.
    flushed: Snapshot,
    /// Written since.
    since: [BTreeMap<u64, BTreeSet<u64>>; VOLUMES],
    begun: bool,
    /// The guest was told that something is durable that no checkpoint has.
    precious: bool,
}

/// An instance's volumes as its guest uses them.
pub struct Files {
    volumes: Vec<Arc<Volume>>,
    held: Mutex<Held>,
}

impl Files {
    pub fn new(ram: &Arc<Volume>, disks: &[&Arc<Volume>]) -> Self {
        let volumes = std::iter::once(ram).chain(disks.iter().copied()).cloned().collect();
        Self { volumes, held: Mutex::default() }
    }

    fn held(&self) -> MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What the volumes hold, page by page, as a start finds it.
    pub fn read(&self) -> Result<Snapshot> {
        let mut found = Snapshot::default();
        for (at, volume) in self.volumes.iter().enumerate() {
            for n in 0..PAGES[at] {
                let mut bytes = vec![0xa5; PAGE_BYTES];
                volume.read_at(n * PAGE, &mut bytes)?;
                match value(&bytes) {
                    Some(0) => {}
                    Some(number) => drop(found.0[at].insert(n, number)),
                    None => {
                        let text = format!("garbage in page {n} of {}", volume.name());
                        return Err(Failure::new("internal", text, ""));
                    }
                }
            }
        }
        Ok(found)
    }

    /// The guest begins with this.
    pub fn begin(&self, sees: Snapshot) {
        let flushed = sees.clone();
        *self.held() = Held { sees, flushed, begun: true, ..Held::default() };
    }

    /// Whether a guest has begun with them.
    pub fn has_begun(&self) -> bool {
        self.held().begun
    }

    /// The guest writes.
    pub fn write(&self, at: usize, n: u64, number: u64) {
        let mut held = self.held();
        held.sees.0[at].insert(n, number);
        held.dirty.0[at].insert(n, number);
        held.since[at].entry(n).or_default().insert(number);
    }

    /// What the guest sees now.
    pub fn sees(&self) -> Snapshot {
        self.held().sees.clone()
    }

    /// What is only here is in a checkpoint now.
    pub fn stored(&self) {
        self.held().precious = false;
    }

    pub fn is_precious(&self) -> bool {
        self.held().precious
    }

    /// What a power cut may leave, for each page.
    pub fn may(&self) -> [BTreeMap<u64, BTreeSet<u64>>; VOLUMES] {
        let held = self.held();
        let mut may: [BTreeMap<u64, BTreeSet<u64>>; VOLUMES] = held.since.clone();
        for (at, count) in PAGES.iter().enumerate() {
            for n in 0..*count {
                let before = held.flushed.0[at].get(&n).copied().unwrap_or(0);
                may[at].entry(n).or_default().insert(before);
            }
        }
        may
    }

    fn write_back(&self, at: usize) -> Result<()> {
        let dirty: Pages = self.held().dirty.0[at].clone();
        for (n, number) in dirty {
            self.volumes[at].write_at(n * PAGE, &page(number))?;
            let mut held = self.held();
            if held.dirty.0[at].get(&n) == Some(&number) {
                held.dirty.0[at].remove(&n);
            }
        }
        Ok(())
    }

    /// The guest's own sync of a disk: it may rely on it.
    pub fn sync(&self, at: usize) -> Result<()> {
        let written = {
            let held = self.held();
            (held.sees.0[at].clone(), held.since[at].clone())
        };
        self.write_back(at)?;
        self.volumes[at].flush()?;
        let mut held = self.held();
        held.precious |= held.flushed.0[at] != written.0;
        held.flushed.0[at] = written.0;
        held.since[at].clear();
        Ok(())
    }

    fn place(&self, name: &str) -> usize {
        self.volumes.iter().position(|volume| volume.name() == name).unwrap_or(0)
    }
}

/// What is mounted: nothing, really.
pub struct Mount(pub Arc<Files>);

impl Mounted for Mount {
    fn path(&self, name: &str) -> Result<PathBuf> {
        Ok(PathBuf::from(name))
    }
    fn place(&self, _: &str, _: u64, _: &[u8]) -> bool {
        false
    }
    fn write_back_ram(&self) -> Result<()> {
        self.0.write_back(0)
    }
    fn sync(&self, disk: &str) -> Result<()> {
        self.0.sync(self.0.place(disk))
    }
    fn give_up(&self) {}
    fn close(self: Box<Self>) -> Result<()> {
        Ok(())
    }
}

/// The CPU: paused or not, and what it remembers.
pub struct Cpu {
    pub world: Arc<World>,
    pub truth: Arc<Truth>,
    pub files: Arc<Files>,
    pub instance: String,
    pub runs: AtomicBool,
    pub ended: AtomicBool,
    /// It powered itself off.
    pub off: AtomicBool,
}

impl Cpu {
    pub fn is_running(&self) -> bool {
        self.runs.load(Ordering::SeqCst) && !self.ended.load(Ordering::SeqCst)
    }

    /// The guest powers itself off: what it wrote is synced by itself.
    pub fn power_off(&self) {
        if self.ended.swap(true, Ordering::SeqCst) {
            return;
        }
        self.off.store(true, Ordering::SeqCst);
        self.note_off();
    }

    fn note_off(&self) {
        let sees = self.files.sees();
        self.truth.known().offs.push((self.instance.clone(), sees));
    }
}

/// A shared CPU is a machine.
pub struct Board(pub Arc<Cpu>);

impl Vm for Board {
    fn pid(&self) -> u32 {
        1
    }

    fn load(&self, state: &Path) -> Result<()> {
        let number: usize = std::fs::read_to_string(state)?.trim().parse().unwrap_or(usize::MAX);
        let cpu = &self.0;
        let found = cpu.files.read()?;
        let known = cpu.truth.known().snapshots.get(number).cloned();
        match known {
            Some((_, snapshot)) if snapshot == found => cpu.files.begin(found),
            Some((of, snapshot)) => cpu.world.violation(format!(
                "{} continues from state {number} of {of}: {found:?} instead of {snapshot:?}",
                cpu.instance
            )),
            None => cpu.world.violation(format!("there is no device state {number}")),
        }
        Ok(())
    }

    fn unpause(&self) -> Result<()> {
        self.0.runs.store(true, Ordering::SeqCst);
        Ok(())
    }

    fn pause(&self) -> Result<()> {
        self.0.runs.store(false, Ordering::SeqCst);
        Ok(())
    }

    fn save(&self, path: &Path) -> Result<()> {
        let number = {
            let mut known = self.0.truth.known();
            known.snapshots.push((self.0.instance.clone(), self.0.files.sees()));
            known.snapshots.len() - 1
        };
        Ok(std::fs::write(path, number.to_string())?)
    }

    fn announce(&self) -> Result<()> {
        Ok(())
    }

    fn publish(&self, _: &PortMap) -> Result<()> {
        Ok(())
    }

    fn screenshot(&self, _: &Path) -> Result<()> {
        Ok(())
    }

    fn power_button(&self) -> Result<()> {
        self.0.power_off();
        Ok(())
    }

    fn wait_exit(&self, _: Duration) -> Option<Exit> {
        let reason = self.0.off.load(Ordering::SeqCst).then(|| "guest-shutdown".to_owned());
        let ended = self.0.ended.load(Ordering::SeqCst);
        ended.then(|| Exit { status: "exit code 0".to_owned(), clean: true, reason })
    }

    fn kill(&self) {
        if !self.0.ended.swap(true, Ordering::SeqCst) {
            self.0.note_off();
        }
    }

    fn ping(&self) -> bool {
        false
    }

    fn set_time(&self, _: u64, _: Duration) -> Result<()> {
        Ok(())
    }

    /// Whatever it is told to be, it becomes.
    fn exec(&self, _: &Exec<'_>) -> Result<ExecOutput> {
        Ok(ExecOutput { code: 0, stdout: Vec::new(), stderr: Vec::new(), truncated: false })
    }
}
