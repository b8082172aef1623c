//! Time, chance, and whose turn it is.
//!
//! Every host is a thread, and one of them has the turn. It may lose it to another one wherever it
//! meets the outside: at a request to the store, a write to a local file, a named step, a sleep. So
//! verbs of several hosts go on inside one another, in an order drawn from the seed, and blocking
//! code needs no change.
//!
//! A host dies at such a point: its thread unwinds (or, when it is a helper's point, the request
//! fails and the thread unwinds at its next one), and nothing that it still does has an effect.
//!
//! **Invariant:** whatever is drawn is drawn by who has the turn: the same seed gives the same trace.

use std::cell::RefCell;
use std::collections::{BTreeMap, VecDeque};
use std::panic::panic_any;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::ThreadId;

use ambient::{Duration, Instant};
use bytes::Bytes;
use objects::Objects;

use crate::chance::Chance;
use crate::full::Full;

thread_local! {
    /// Of a thread that a host's own thread has started: whose it is, and what it draws from.
    static HELPER: RefCell<Option<(usize, Chance)>> = const { RefCell::new(None) };
}

/// What a dying host's thread unwinds with.
pub struct Crashed;

/// Last events that are kept where nobody asked for all.
const EVENTS_MAX: usize = 100;
/// A clock that no real instant comes near.
const BASE: Duration = Duration::from_secs(1000 * 86_400);

/// Called with the name of a step.
pub type AtStep = Arc<dyn Fn(&str) + Send + Sync>;

/// A write that comes after its writer has given up.
pub enum Late {
    Create(String, Bytes),
    Put(String, Bytes),
    Delete(String),
}

/// One host's fate.
#[derive(Default)]
pub struct Fate {
    main: Option<ThreadId>,
    /// Handles of earlier lives have no effect any more.
    pub life: u64,
    pub dead: bool,
    done: bool,
    /// Points until it dies.
    pub crash_in: Option<u64>,
    /// Points until another host has the turn, until that one is done.
    pub passes_in: Option<u64>,
    /// The same at a step with this name.
    pub passes_at: Option<&'static str>,
    /// From the step with this name on, a disk is full.
    pub full_at: Option<(&'static str, Full)>,
    pub skew_ms: i64,
    /// Its disk is full.
    pub full: bool,
    /// Points passed in the verb that goes on.
    pub points: u64,
    /// Their names, when they are wanted.
    pub names: Option<Vec<String>>,
}

pub struct State {
    pub chance: Chance,
    pub now_ms: u64,
    current: usize,
    pub fates: Vec<Fate>,
    pub events: VecDeque<String>,
    /// All events are kept.
    pub keeps_all: bool,
    pub hash: u64,
    pub steps: u64,
    pub faults: BTreeMap<&'static str, u64>,
    /// Verbs that were begun.
    pub verbs: BTreeMap<String, u64>,
    /// Requests that go wrong, of a thousand.
    pub faulty: u64,
    /// Turns that are lost at a point, of a thousand.
    pub switching: u64,
    pub store_full: bool,
    /// A version whose guests are never ready.
    pub unwell: Option<&'static str>,
    pub late: Vec<Late>,
    pub violation: Option<String>,
}

/// See the module's documentation.
pub struct World {
    state: Mutex<State>,
    /// What goes on at the steps of each host's verbs.
    at_steps: Mutex<Vec<Option<AtStep>>>,
    turn: Condvar,
    base: Instant,
    pub objects: Arc<objects::Memory>,
}

impl World {
    pub fn new(seed: u64, hosts: usize) -> Arc<Self> {
        let state = State {
            chance: Chance::new(seed),
            now_ms: 0,
            current: 0,
            fates: (0..hosts).map(|_| Fate { done: true, ..Fate::default() }).collect(),
            events: VecDeque::new(),
            keeps_all: false,
            hash: seed,
            steps: 0,
            faults: BTreeMap::new(),
            verbs: BTreeMap::new(),
            faulty: 0,
            switching: 0,
            store_full: false,
            unwell: None,
            late: Vec::new(),
            violation: None,
        };
        Arc::new(Self {
            state: Mutex::new(state),
            at_steps: Mutex::new(vec![None; hosts]),
            turn: Condvar::new(),
            base: ambient::now() + BASE,
            objects: Arc::new(objects::Memory::new()),
        })
    }

    pub fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The host that has the turn.
    pub fn current(&self) -> usize {
        self.state().current
    }

    /// This thread acts for `host` alone, until it says otherwise.
    pub fn act_for(&self, host: usize) {
        let mut state = self.state();
        state.current = host;
        state.fates[host].main = Some(std::thread::current().id());
    }

    /// From now on this is called at each step of `host`.
    pub fn at_steps(&self, host: usize, at_step: AtStep) {
        self.at_steps.lock().unwrap_or_else(PoisonError::into_inner)[host] = Some(at_step);
    }

    /// All of these hosts are about to be threads.
    pub fn begin(&self, hosts: usize) {
        let mut state = self.state();
        state.fates.iter_mut().take(hosts).for_each(|fate| fate.done = false);
        state.current = 0;
    }

    /// This thread is `host`'s; waits for its first turn.
    pub fn enter(&self, host: usize) {
        let mut state = self.state();
        state.fates[host].main = Some(std::thread::current().id());
        drop(self.await_turn(state, host));
    }

    /// `host` has nothing more to do.
    pub fn leave(&self, host: usize) {
        let mut state = self.state();
        state.fates[host].done = true;
        self.pass(&mut state, host);
    }

    fn await_turn<'a>(
        &self,
        mut state: MutexGuard<'a, State>,
        host: usize,
    ) -> MutexGuard<'a, State> {
        while state.current != host {
            state = self.turn.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        state
    }

    fn pass(&self, state: &mut State, host: usize) {
        let others: Vec<usize> = (0..state.fates.len())
            .filter(|other| *other != host && !state.fates[*other].done)
            .collect();
        if !others.is_empty() {
            let at = state.chance.below(others.len() as u64) as usize;
            state.current = others[at];
            self.turn.notify_all();
        }
    }

    /// `host` (in one of its lives) is about to do `what` outside of itself. False: it is dead, and
    /// must not.
    pub fn point(&self, host: usize, life: u64, what: &str) -> bool {
        let helps = HELPER.with_borrow(Option::is_some);
        let mut state = self.state();
        if state.fates[host].life != life {
            return false;
        }
        if state.fates[host].dead {
            return self.die(state, host);
        }
        state.steps += 1;
        state.note(host, what);
        let passed = state.chance.below(20);
        self.let_pass(&mut state, passed);
        if state.fates[host].crash_in.is_some() {
            let left = state.fates[host].crash_in.unwrap_or(0);
            if left == 0 {
                state.fates[host].crash_in = None;
                state.fates[host].dead = true;
                *state.faults.entry("crash").or_default() += 1;
                state.event(host, &format!("dies before {what}"));
                return self.die(state, host);
            }
            state.fates[host].crash_in = Some(left - 1);
        }
        if !state.late.is_empty() && state.chance.is(120) {
            self.land(&mut state);
        }
        if let Some(left) = state.fates[host].passes_in.filter(|_| !helps) {
            state.fates[host].passes_in = left.checked_sub(1);
            if left == 0 {
                state.event(host, "    (another host has the turn)");
                self.pass(&mut state, host);
                state = self.await_turn(state, host);
            }
        }
        // The host's own thread waits for its helpers, or goes on beside them: it has the turn.
        if state.switching > 0 && !helps {
            let switching = state.switching;
            if state.chance.is(switching) {
                self.pass(&mut state, host);
                drop(self.await_turn(state, host));
            }
        }
        true
    }

    fn die(&self, state: MutexGuard<'_, State>, host: usize) -> bool {
        let is_main = state.fates[host].main == Some(std::thread::current().id());
        drop(state);
        if is_main && !std::thread::panicking() {
            panic_any(Crashed);
        }
        false
    }

    fn let_pass(&self, state: &mut State, ms: u64) {
        state.now_ms += ms;
        self.objects.advance_ms(ms);
    }

    /// Time goes by for everybody.
    pub fn wait_ms(&self, ms: u64) {
        let mut state = self.state();
        self.let_pass(&mut state, ms);
    }

    /// One write that came too late comes now.
    fn land(&self, state: &mut State) {
        let at = state.chance.below(state.late.len() as u64) as usize;
        let late = state.late.swap_remove(at);
        *state.faults.entry("landed late").or_default() += 1;
        let (key, _) = match late {
            Late::Create(key, bytes) => (key.clone(), self.objects.put_new(&key, bytes)),
            Late::Put(key, bytes) => (key.clone(), self.objects.put(&key, bytes)),
            Late::Delete(key) => (key.clone(), self.objects.delete(&key)),
        };
        let host = state.current;
        state.event(host, &format!("    (late: {key})"));
    }

    /// Everything that is late comes.
    pub fn land_all(&self) {
        let mut state = self.state();
        while !state.late.is_empty() {
            self.land(&mut state);
        }
    }

    /// Something that must never be was seen. The first one counts.
    pub fn violation(&self, text: impl Into<String>) {
        let text = text.into();
        let mut state = self.state();
        let host = state.current;
        state.event(host, &format!("VIOLATION: {text}"));
        state.violation.get_or_insert(text);
    }

    pub fn failed(&self) -> bool {
        self.state().violation.is_some()
    }

    pub fn event(&self, host: usize, text: &str) {
        self.state().event(host, text);
    }

    /// A new life: what the old one still holds has no effect.
    pub fn revive(&self, host: usize) {
        let mut state = self.state();
        let fate = &mut state.fates[host];
        fate.life += 1;
        fate.dead = false;
        fate.crash_in = None;
    }
}

impl State {
    fn note(&mut self, host: usize, what: &str) {
        let mut hash = self.hash ^ (host as u64 + 1);
        for byte in what.bytes() {
            hash = (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        }
        self.hash = hash;
        self.fates[host].points += 1;
        if let Some(names) = &mut self.fates[host].names {
            names.push(what.to_owned());
        }
        self.event(host, &format!("  {what}"));
    }

    pub fn event(&mut self, host: usize, text: &str) {
        if self.events.len() == EVENTS_MAX && !self.keeps_all {
            self.events.pop_front();
        }
        let now = self.now_ms;
        self.events.push_back(format!("{now:>9} ms  host {host}  {text}"));
    }
}

impl ambient::simulated::World for World {
    fn unix_ms(&self) -> u64 {
        let state = self.state();
        let helper = HELPER.with_borrow(|helper| helper.as_ref().map(|(host, _)| *host));
        let host = helper.unwrap_or(state.current);
        (1_800_000_000_000 + state.now_ms).saturating_add_signed(state.fates[host].skew_ms)
    }

    fn now(&self) -> Instant {
        self.base + Duration::from_millis(self.state().now_ms)
    }

    fn sleep(&self, duration: Duration) {
        let (host, life) = {
            let state = self.state();
            (state.current, state.fates[state.current].life)
        };
        self.wait_ms(duration.as_millis() as u64);
        self.point(host, life, "sleep");
    }

    fn fill(&self, bytes: &mut [u8]) {
        HELPER.with_borrow_mut(|helper| match helper {
            Some((_, chance)) => chance.fill(bytes),
            None => self.state().chance.fill(bytes),
        });
    }

    fn born(&self) -> Box<dyn FnOnce() + Send> {
        let host = HELPER.with_borrow(|helper| helper.as_ref().map(|(host, _)| *host));
        let mut state = self.state();
        let (host, seed) = (host.unwrap_or(state.current), state.chance.next());
        Box::new(move || HELPER.set(Some((host, Chance::new(seed)))))
    }

    fn step(&self, name: &'static str) {
        let (host, life) = {
            let mut state = self.state();
            let host = state.current;
            let fate = &mut state.fates[host];
            if fate.passes_at.take_if(|at| *at == name).is_some() {
                fate.passes_in = Some(0);
            }
            let (full, life) = (fate.full_at.take_if(|(at, _)| *at == name), fate.life);
            match full {
                Some((_, Full::Store)) => state.store_full = true,
                Some((_, Full::Host)) => state.fates[host].full = true,
                None => {}
            }
            (host, life)
        };
        let at_steps = self.at_steps.lock().unwrap_or_else(PoisonError::into_inner);
        let at_step = at_steps[host].clone();
        drop(at_steps);
        if self.point(host, life, name)
            && let Some(at_step) = at_step
        {
            at_step(name);
        }
    }
}
