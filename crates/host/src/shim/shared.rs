//! What a shim's threads know together: the state that `Status` answers from at once, whether
//! the guest has become ready, and whether it may run at all.
//!
//! *Invariant.* Only the owner (`owner.rs`) changes the state; connections only read it.
//! *Invariant.* A start that was called off never runs the guest: whoever lets it run asks first
//! ([`Shared::may_run`]), and after that it cannot be called off.

use std::collections::BTreeMap;
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::time::Duration;

use api::{AutoPrint, PortPrint, ScrubPrint, StartReport, Status, TracePrint, VolumePrint};

use super::landing::Landing;
use crate::failure::{Failure, Result};

/// Shared by every thread of a shim.
pub struct Shared {
    inner: Mutex<Inner>,
    changed: Condvar,
}

/// A function that reads the volumes' counters.
pub type VolumeReader = Arc<dyn Fn() -> Vec<VolumePrint> + Send + Sync>;

/// A function that says how many bytes came from repositories, and how many from other hosts.
pub type FetchedReader = Arc<dyn Fn() -> (u64, u64) + Send + Sync>;

/// What an instance has used since its shim was born.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Used {
    /// How long its CPUs ran.
    pub running: Duration,
    /// How long it had its memory.
    pub there: Duration,
    pub fetched_bytes: u64,
    pub peer_bytes: u64,
    pub stored_bytes: u64,
}

impl Used {
    fn and(self, state: &str, lasted: Duration) -> Self {
        let (running, there) = match state {
            "running" => (lasted, lasted),
            "paused" => (Duration::ZERO, lasted),
            _ => (Duration::ZERO, Duration::ZERO),
        };
        Self { running: self.running + running, there: self.there + there, ..self }
    }
}

/// A function that says how far the scrub is.
pub type ScrubReader = Arc<dyn Fn() -> ScrubPrint + Send + Sync>;

/// A function that says how well the trace fits.
pub type TraceReader = Arc<dyn Fn() -> TracePrint + Send + Sync>;

struct Inner {
    state: &'static str,
    /// Since when it is in that state.
    since: ambient::Instant,
    /// What it had used by then.
    used: Used,
    fetched: Option<FetchedReader>,
    /// CPUs, and bytes of memory.
    size: (u32, u64),
    accel: String,
    ports: Vec<PortPrint>,
    qemu_pid: Option<u32>,
    generation: u64,
    /// By volume and page.
    stalls: BTreeMap<(String, u64), Failure>,
    /// What it came with that the repository does not have yet.
    lacking: Option<Arc<Landing>>,
    /// The first thing that the guest was given an error for.
    lost: Option<String>,
    volumes: Option<VolumeReader>,
    scrub: Option<ScrubReader>,
    trace: Option<TraceReader>,
    /// What is said of automatic checkpoints, and when the next is due.
    auto: Option<(AutoPrint, Option<ambient::Instant>)>,
    started: Option<StartReport>,
    ready: Option<Result<StartReport>>,
    /// Nobody wants it to run any more.
    called_off: bool,
    /// Its guest may run: it is too late to call that off.
    runs: bool,
    /// Somebody has been told how the start went.
    told: bool,
}

impl Default for Shared {
    fn default() -> Self {
        Self {
            inner: Mutex::new(Inner {
                state: "starting",
                since: ambient::now(),
                used: Used::default(),
                fetched: None,
                size: (0, 0),
                accel: String::new(),
                ports: Vec::new(),
                qemu_pid: None,
                generation: 0,
                stalls: BTreeMap::new(),
                lacking: None,
                lost: None,
                volumes: None,
                scrub: None,
                trace: None,
                auto: None,
                started: None,
                ready: None,
                called_off: false,
                runs: false,
                told: false,
            }),
            changed: Condvar::new(),
        }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        // Every critical section only assigns: a panic elsewhere leaves it whole.
        self.inner.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    /// The guest's machine is there.
    pub fn set_machine(&self, accel: &str, ports: Vec<PortPrint>, qemu_pid: u32) {
        let mut inner = self.lock();
        inner.accel = accel.to_owned();
        inner.ports = ports;
        inner.qemu_pid = Some(qemu_pid);
    }

    /// The volumes are open.
    pub fn set_volumes(&self, volumes: VolumeReader) {
        self.lock().volumes = Some(volumes);
    }

    /// What it fetches is counted.
    pub fn set_fetched(&self, fetched: FetchedReader) {
        self.lock().fetched = Some(fetched);
    }

    /// How large its machine is.
    pub fn set_size(&self, cpus: u32, memory_bytes: u64) {
        self.lock().size = (cpus, memory_bytes);
    }

    /// How large its machine is: CPUs, and bytes of memory.
    pub fn size(&self) -> (u32, u64) {
        self.lock().size
    }

    /// So much was put into the repository.
    pub fn add_stored(&self, bytes: u64) {
        self.lock().used.stored_bytes += bytes;
    }

    /// What it has used so far, and the process of its machine.
    pub fn used(&self) -> (Used, Option<u32>) {
        let (used, qemu_pid, fetched) = {
            let inner = self.lock();
            let used = inner.used.and(inner.state, inner.since.elapsed());
            (used, inner.qemu_pid, inner.fetched.clone())
        };
        let (fetched_bytes, peer_bytes) = fetched.map_or((0, 0), |read| read());
        (Used { fetched_bytes, peer_bytes, ..used }, qemu_pid)
    }

    /// There is a scrub, or it is known that there is none.
    pub fn set_scrub(&self, scrub: ScrubReader) {
        self.lock().scrub = Some(scrub);
    }

    /// What is touched is recorded.
    pub fn set_trace(&self, trace: TraceReader) {
        self.lock().trace = Some(trace);
    }

    /// How checkpoints are taken by themselves, and when the next is due.
    pub fn set_auto(&self, auto: AutoPrint, due: Option<ambient::Instant>) {
        self.lock().auto = Some((auto, due));
    }

    /// Whether the start has come to its end: the guest is ready, or it is known that it is not.
    pub fn has_settled(&self) -> bool {
        self.lock().ready.is_some()
    }

    /// What the guest does now.
    pub fn set_state(&self, state: &'static str) {
        let mut inner = self.lock();
        inner.used = inner.used.and(inner.state, inner.since.elapsed());
        inner.since = ambient::now();
        inner.state = state;
        drop(inner);
        self.changed.notify_all();
    }

    /// What the guest did when last told.
    pub fn state(&self) -> &'static str {
        self.lock().state
    }

    /// The generation under which this shim holds the lease.
    pub fn set_generation(&self, generation: u64) {
        self.lock().generation = generation;
    }

    /// Something of a volume cannot be had or stored now.
    pub fn set_stall(&self, volume: &str, page: u64, why: Failure) {
        let mut inner = self.lock();
        // Enough to say what is wrong; the guest waits for all of them anyway.
        if inner.stalls.len() < 64 {
            inner.stalls.insert((volume.to_owned(), page), why);
        }
    }

    /// A volume goes on. What else of it still stalls says so again at its next try.
    pub fn clear_stalls(&self, volume: &str) {
        self.lock().stalls.retain(|(stalled, _), _| stalled != volume);
    }

    /// Writes go on: forgets the stalls that were noted under `page`.
    pub fn clear_writes(&self, page: u64) {
        self.lock().stalls.retain(|(_, stalled), _| *stalled != page);
    }

    /// What it came with is on its way to the repository; none: that has it.
    pub fn set_lacking(&self, landing: Option<Arc<Landing>>) {
        self.lock().lacking = landing;
    }

    /// What it came with and the repository does not have yet.
    pub fn lacking(&self) -> Option<Arc<Landing>> {
        self.lock().lacking.clone()
    }

    /// Whether any page cannot be had now.
    pub fn is_stalled(&self) -> bool {
        !self.lock().stalls.is_empty()
    }

    /// Whether a page cannot be had now; not that something cannot be stored.
    pub fn waits_for_a_page(&self) -> bool {
        self.lock().stalls.keys().any(|(_, page)| *page != u64::MAX)
    }

    /// Why something cannot be had or stored now, if that is so.
    pub fn stall(&self) -> Option<Failure> {
        self.lock().stalls.values().next().cloned()
    }

    /// The guest was given an error in place of bytes that are gone; the first is what is told.
    pub fn set_lost(&self, why: String) {
        self.lock().lost.get_or_insert(why);
    }

    /// What the guest was first given an error for.
    pub fn lost(&self) -> Option<String> {
        self.lock().lost.clone()
    }

    /// Calls the start off, unless the guest may run already; whether it is.
    pub fn call_off(&self) -> bool {
        let mut inner = self.lock();
        inner.called_off |= !inner.runs;
        inner.called_off
    }

    /// Whether the start goes on; not, when it was called off.
    pub fn goes_on(&self) -> Result<()> {
        if self.lock().called_off { Err(called_off()) } else { Ok(()) }
    }

    /// Lets the guest run; not, when its start was called off.
    pub fn may_run(&self) -> Result<()> {
        let mut inner = self.lock();
        if inner.called_off {
            return Err(called_off());
        }
        inner.runs = true;
        Ok(())
    }

    /// The guest's CPUs run.
    pub fn set_started(&self, report: StartReport) {
        self.lock().started = Some(report);
        self.changed.notify_all();
    }

    /// Waits until the guest's CPUs run, or the start has failed.
    pub fn await_started(&self, timeout: Duration) -> Result<StartReport> {
        let inner = self.lock();
        let (inner, _) = self
            .changed
            .wait_timeout_while(inner, timeout, |inner| {
                inner.started.is_none() && !matches!(inner.ready, Some(Err(_)))
            })
            .unwrap_or_else(|poisoned| poisoned.into_inner());
        match (&inner.started, &inner.ready) {
            (Some(report), _) => Ok(report.clone()),
            (None, Some(Err(failure))) => Err(failure.clone()),
            _ => Err(Failure::new(
                "timeout",
                format!("it did not start within {} s", timeout.as_secs()),
                "`collective logs NAME --shim` says what it waits for",
            )),
        }
    }

    /// The start has succeeded or failed. The first word counts.
    pub fn set_ready(&self, ready: Result<StartReport>) {
        self.lock().ready.get_or_insert(ready);
        self.changed.notify_all();
    }

    /// Whether the start has succeeded.
    pub fn is_ready(&self) -> bool {
        matches!(self.lock().ready, Some(Ok(_)))
    }

    /// Waits until the start has succeeded or failed.
    pub fn await_ready(&self, timeout: Duration) -> Result<StartReport> {
        let inner = self.lock();
        let (inner, _) = self
            .changed
            .wait_timeout_while(inner, timeout, |inner| inner.ready.is_none())
            .unwrap_or_else(|poisoned| poisoned.into_inner());
        inner.ready.clone().unwrap_or_else(|| {
            Err(Failure::new(
                "not_ready",
                format!("it was not ready within {} s", timeout.as_secs()),
                "`collective logs NAME` shows its console; it goes on starting",
            ))
        })
    }

    /// Notes that somebody was told how the start went.
    pub fn set_told(&self) {
        self.lock().told = true;
        self.changed.notify_all();
    }

    /// Waits until somebody was told how the start went; says whether that is so.
    pub fn await_told(&self, timeout: Duration) -> bool {
        let inner = self.lock();
        let waited = self.changed.wait_timeout_while(inner, timeout, |inner| !inner.told);
        waited.unwrap_or_else(|poisoned| poisoned.into_inner()).0.told
    }

    /// Everything, for `Status`.
    pub fn status(&self) -> Status {
        let (status, volumes, scrub, trace) = {
            let inner = self.lock();
            let stalled = inner.stalls.values().next().map(|why| format!("it waits: {why}"));
            let state =
                if stalled.is_some() && inner.state == "running" { "paused" } else { inner.state };
            let status = Status {
                pid: std::process::id(),
                qemu_pid: inner.qemu_pid,
                cpus: inner.size.0,
                memory_bytes: inner.size.1,
                state: state.to_owned(),
                accel: inner.accel.clone(),
                ports: inner.ports.clone(),
                volumes: Vec::new(),
                scrub: None,
                arriving: None,
                trace: None,
                auto: inner.auto.clone().map(|(auto, due)| {
                    let next = due.map(|due| due.saturating_duration_since(ambient::now()));
                    AutoPrint { next_s: next.map(|next| next.as_secs()), ..auto }
                }),
                stalled,
                lost: inner.lost.clone(),
                generation: inner.generation,
            };
            let lacking = inner.lacking.clone();
            let status = Status { arriving: lacking.map(|landing| landing.print()), ..status };
            (status, inner.volumes.clone(), inner.scrub.clone(), inner.trace.clone())
        };
        // The counters are read without the lock: a volume may be busy.
        Status {
            volumes: volumes.map_or_else(Vec::new, |read| read()),
            scrub: scrub.map(|read| read()),
            trace: trace.map(|read| read()),
            ..status
        }
    }
}

/// A guest that has not run.
fn called_off() -> Failure {
    let what = "its start was called off before it ran";
    Failure::new("changed", what, "`collective resume NAME` starts it, when it is there")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_start_is_called_off_before_the_guest_runs_or_not_at_all() {
        let shared = Shared::default();
        shared.goes_on().unwrap();
        assert!(shared.call_off() && shared.call_off());
        assert_eq!(shared.goes_on().unwrap_err().kind, "changed");
        assert_eq!(shared.may_run().unwrap_err().kind, "changed");

        let shared = Shared::default();
        shared.may_run().unwrap();
        assert!(!shared.call_off());
        shared.goes_on().unwrap();
        // It may be let run again, from its disks.
        shared.may_run().unwrap();
    }

    #[test]
    fn what_is_used_is_counted_by_what_it_does() {
        let shared = Shared::default();
        let wait = || std::thread::sleep(Duration::from_millis(20));
        wait();
        assert_eq!(shared.used(), (Used::default(), None), "it only starts");
        shared.set_fetched(Arc::new(|| (5, 3)));
        shared.set_state("running");
        wait();
        let (first, _) = shared.used();
        assert!(first.running.as_millis() >= 20 && first.there == first.running, "{first:?}");
        shared.set_state("paused");
        let (paused, _) = shared.used();
        wait();
        shared.add_stored(7);
        let (later, _) = shared.used();
        assert_eq!((later.running, later.stored_bytes), (paused.running, 7));
        assert!(later.there >= paused.there + Duration::from_millis(20), "{later:?}");
        assert_eq!((later.fetched_bytes, later.peer_bytes), (5, 3));
        shared.set_state("suspended");
        let (ended, _) = shared.used();
        wait();
        assert_eq!(shared.used().0, ended);
    }
}
