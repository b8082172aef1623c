//! The figures of this host, for who collects them: from memory, so that asking costs nothing and keeps
//! nothing waiting.
//!
//! ```text
//! shims ──meter/RUN.json──▶ the agent, every second ──▶ sums ──GET /metrics──▶
//! beats, orders, what peers were given ────────────────▶
//! ```
//!
//! **Invariant:** what counts begins at nothing with this agent, and only grows: what a start had used
//! before is not in it, and nothing is in it twice, also not when the plane has counted a start and its file
//! is gone. (It lags by what a shim writes down: some 5 s.)
//! **Invariant:** no names: neither of instances nor of people.

use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use api::{FAULT_BOUNDS_MS, FaultsPrint, HostReport, OrderEnd};
use host::{Failure, Metered};
use plane::figures::{self, Lasted, Server, seconds};

/// What a host says of its instances.
const STATES: [&str; 6] = ["starting", "running", "paused", "suspended", "stopped", "failed"];

/// See the module's documentation.
pub struct Figures {
    given: Arc<AtomicU64>,
    inner: Mutex<Inner>,
}

#[derive(Default)]
struct Inner {
    /// What each start had used when it was looked at; none: none was looked at yet.
    runs: Option<HashMap<String, Sums>>,
    sums: Sums,
    instances: BTreeMap<String, u64>,
    cache_bytes: u64,
    /// Beats that the plane has taken, and others.
    beats: (u64, u64),
    /// Orders that were done, refused, failed.
    orders: [u64; 3],
}

/// What starts have used, or one has.
#[derive(Debug, Clone, Default)]
struct Sums {
    running_ms: u64,
    cpu_ms: u64,
    memory_mib_s: u64,
    stored_bytes: u64,
    cached_bytes: u64,
    peer_bytes: u64,
    fetched_bytes: u64,
    /// Of memory, of disks, of what is booted from.
    faults: [Lasted; 3],
}

impl Sums {
    fn of(Metered { run, reads }: &Metered) -> Self {
        let lasted =
            |faults: &FaultsPrint| Lasted { within: faults.within.clone(), micros: faults.micros };
        Self {
            running_ms: run.running_ms,
            cpu_ms: run.cpu_ms,
            memory_mib_s: run.memory_mib_s,
            stored_bytes: run.stored_bytes,
            cached_bytes: reads.cached_bytes,
            peer_bytes: run.peer_bytes,
            fetched_bytes: run.fetched_bytes,
            faults: [&reads.ram, &reads.disk, &reads.boot].map(lasted),
        }
    }

    /// What is new since then.
    fn grow(&mut self, now: &Self, then: &Self) {
        let more = |sum: &mut u64, now: u64, then: u64| *sum += now.saturating_sub(then);
        more(&mut self.running_ms, now.running_ms, then.running_ms);
        more(&mut self.cpu_ms, now.cpu_ms, then.cpu_ms);
        more(&mut self.memory_mib_s, now.memory_mib_s, then.memory_mib_s);
        more(&mut self.stored_bytes, now.stored_bytes, then.stored_bytes);
        more(&mut self.cached_bytes, now.cached_bytes, then.cached_bytes);
        more(&mut self.peer_bytes, now.peer_bytes, then.peer_bytes);
        more(&mut self.fetched_bytes, now.fetched_bytes, then.fetched_bytes);
        let faults = now.faults.iter().zip(&then.faults);
        for (sum, (now, then)) in self.faults.iter_mut().zip(faults) {
            more(&mut sum.micros, now.micros, then.micros);
            sum.within.resize(FAULT_BOUNDS_MS.len() + 1, 0);
            for (at, sum) in sum.within.iter_mut().enumerate() {
                let count = |lasted: &Lasted| lasted.within.get(at).copied().unwrap_or_default();
                more(sum, count(now), count(then));
            }
        }
    }
}

impl Figures {
    /// Of an agent that has just begun and gives peers so much.
    pub fn new(given: Arc<AtomicU64>) -> Self {
        Self { given, inner: Mutex::default() }
    }

    /// Tells them there.
    pub fn serve(self: &Arc<Self>, address: SocketAddr) -> Result<Server, Failure> {
        let figures = self.clone();
        Server::start(address, move || figures.text()).map_err(|error| {
            let message = format!("cannot tell figures at {address}: {error}");
            Failure::new("plane", message, "`--metrics ADDRESS:PORT` says where else")
        })
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // Every critical section only adds and assigns.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What each start has used that the plane has not counted to its end.
    pub fn metered(&self, metered: &[Metered]) {
        let now: HashMap<_, _> =
            metered.iter().map(|metered| (metered.run.run.clone(), Sums::of(metered))).collect();
        let mut inner = self.lock();
        let inner = &mut *inner;
        if let Some(before) = &inner.runs {
            let nothing = Sums::default();
            for (run, now) in &now {
                inner.sums.grow(now, before.get(run).unwrap_or(&nothing));
            }
        }
        inner.runs = Some(now);
    }

    /// What was said to the plane, and whether it has heard it.
    pub fn beat(&self, report: &HostReport, taken: bool) {
        let mut inner = self.lock();
        inner.instances.clear();
        for seen in &report.instances {
            *inner.instances.entry(seen.state.clone()).or_default() += 1;
        }
        inner.cache_bytes = report.cache_bytes;
        match taken {
            true => inner.beats.0 += 1,
            false => inner.beats.1 += 1,
        }
    }

    /// What became of an order.
    pub fn ordered(&self, end: OrderEnd) {
        let at = match end {
            OrderEnd::Done => 0,
            OrderEnd::Refused => 1,
            OrderEnd::Failed | OrderEnd::Unknown => 2,
        };
        self.lock().orders[at] += 1;
    }

    /// All of them.
    fn text(&self) -> String {
        let given = self.given.load(Ordering::Relaxed);
        let inner = self.lock();
        let Inner { sums, instances, cache_bytes, beats, orders, .. } = &*inner;
        let mut text = figures::Figures::default();
        let label = |name: &str, value: &str| format!("{{{name}=\"{value}\"}}");
        let help = "Instances that this host holds.";
        let count = |state: &str| instances.get(state).copied().unwrap_or_default();
        let states = STATES.map(|state| (label("state", state), count(state)));
        text.gauge("collective_host_instances", help, states);
        let help = "What the cache of chunks takes of the disk.";
        text.gauge("collective_host_cache_bytes", help, [("", cache_bytes)]);
        let help = "What was fetched for instances, by where it came from: pages of the cache; of \
                    others bytes as they were sent.";
        let sources = [
            ("cache", sums.cached_bytes),
            ("peer", sums.peer_bytes),
            ("repository", sums.fetched_bytes),
        ];
        let sources = sources.map(|(source, bytes)| (label("source", source), bytes));
        text.counter("collective_chunk_fetch_bytes_total", help, sources);
        let help = "Reads of guests that this host could not answer by itself.";
        let kinds = ["ram", "disk", "boot"];
        let faults: Vec<_> = kinds.into_iter().zip(&sums.faults).collect();
        text.histogram("collective_fault_seconds", help, &FAULT_BOUNDS_MS, &faults);
        let help = "What other hosts were sent of the cache.";
        text.counter("collective_host_given_bytes_total", help, [("", given)]);
        let help = "What instances have put into the repository.";
        text.counter("collective_host_stored_bytes_total", help, [("", sums.stored_bytes)]);
        let help = "How long CPUs of instances ran.";
        let running = seconds(sums.running_ms);
        text.counter("collective_host_running_seconds_total", help, [("", running)]);
        let help = "What instances had of this host's processors.";
        text.counter("collective_host_cpu_seconds_total", help, [("", seconds(sums.cpu_ms))]);
        let help = "Memory of instances, for as long as they had it.";
        let memory = u128::from(sums.memory_mib_s) << 20;
        text.counter("collective_host_memory_byte_seconds_total", help, [("", memory)]);
        let help = "What this host said to its plane, by whether that has heard it.";
        let beats = [("taken", beats.0), ("failed", beats.1)];
        let beats = beats.map(|(end, count)| (label("outcome", end), count));
        text.counter("collective_host_beats_total", help, beats);
        let help = "Orders of the plane, by what became of them.";
        let orders = ["done", "refused", "failed"].into_iter().zip(orders);
        let orders = orders.map(|(end, count)| (label("outcome", end), count));
        text.counter("collective_host_orders_total", help, orders);
        text.end()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use api::{ReadsPrint, RunPrint};

    fn metered(run: &str, bytes: u64) -> Metered {
        let run = RunPrint {
            run: run.to_owned(),
            name: "web".to_owned(),
            appliance: "web".to_owned(),
            ended: false,
            running_ms: 0,
            cpu_ms: 0,
            memory_mib_s: 0,
            fetched_bytes: bytes,
            peer_bytes: 0,
            stored_bytes: 0,
        };
        let within = vec![bytes, 0, 0, 0, 0, 0, 0, 0, 1];
        let ram = FaultsPrint { within, micros: bytes };
        Metered { run, reads: ReadsPrint { ram, ..ReadsPrint::default() } }
    }

    fn has(figures: &Figures, line: &str) -> bool {
        figures.text().lines().any(|found| found == line)
    }

    #[test]
    fn what_is_used_while_it_runs_counts_once() {
        let figures = Figures::new(Arc::default());
        let fetched = |bytes: u64| {
            let name = "collective_chunk_fetch_bytes_total{source=\"repository\"}";
            let line = format!("{name} {bytes}");
            assert!(has(&figures, &line), "{line} in {}", figures.text());
        };
        fetched(0);
        // What was there before the agent is not its.
        figures.metered(&[metered("1", 100)]);
        fetched(0);
        figures.metered(&[metered("1", 105), metered("2", 20)]);
        fetched(25);
        // Counted by the plane and gone, the same again, and another.
        figures.metered(&[metered("1", 105)]);
        figures.metered(&[metered("1", 105), metered("3", 3)]);
        fetched(28);
        let buckets = [("0.001", 28), ("16.0", 28), ("+Inf", 30)];
        for (most, count) in buckets {
            let labels = format!("{{kind=\"ram\",le=\"{most}\"}}");
            assert!(has(&figures, &format!("collective_fault_seconds_bucket{labels} {count}")));
        }
        assert!(has(&figures, "collective_fault_seconds_sum{kind=\"ram\"} 0.000028"));
        assert!(has(&figures, "collective_fault_seconds_count{kind=\"disk\"} 0"));
    }
}
