//! A world of a test's own behind the door: its clock, its chance, its crashes.
//!
//! **Invariant:** compiled only with debug assertions. A release has no such function, so it cannot
//! be left on.
//! **Invariant:** one world at a time in a process; without one nothing differs.

use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, RwLock};

use crate::{Duration, Instant};

/// What a simulation supplies.
pub trait World: Send + Sync {
    /// See [`crate::unix_ms`].
    fn unix_ms(&self) -> u64;
    /// See [`crate::now`].
    fn now(&self) -> Instant;
    /// See [`crate::sleep`].
    fn sleep(&self, duration: Duration);
    /// See [`crate::random`].
    fn fill(&self, bytes: &mut [u8]);
    /// See [`crate::spawn`]: asked in the thread that starts another one; what is given is called
    /// there, first.
    fn born(&self) -> Box<dyn FnOnce() + Send>;
    /// See [`crate::step`].
    fn step(&self, name: &'static str);
}

static WORLD: RwLock<Option<Arc<dyn World>>> = RwLock::new(None);
static TURN: Mutex<()> = Mutex::new(());

/// The world behind the door lasts as long as this.
pub struct Simulated {
    _turn: MutexGuard<'static, ()>,
}

/// Puts a world behind the door; waits until another one has gone.
pub fn simulate(world: Arc<dyn World>) -> Simulated {
    let turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    *WORLD.write().unwrap_or_else(PoisonError::into_inner) = Some(world);
    Simulated { _turn: turn }
}

impl Drop for Simulated {
    fn drop(&mut self) {
        *WORLD.write().unwrap_or_else(PoisonError::into_inner) = None;
    }
}

/// A step, how often it is reached until then, and a file that only one who dies removes.
static DEADLY: OnceLock<(String, AtomicU32, Option<PathBuf>)> = OnceLock::new();

/// From now on this process kills itself when it reaches a step for the `occurrence`th time (from
/// 1), as the power would go: nothing is cleaned up. Once for a process; and once for all that are given
/// `file`, which is there until then.
pub fn die_at(step: &str, occurrence: u32, file: Option<PathBuf>) {
    let _ = DEADLY.set((step.to_owned(), AtomicU32::new(occurrence.max(1)), file));
}

pub(crate) fn reached(step: &str) {
    if let Some((deadly, left, file)) = DEADLY.get()
        && deadly == step
        && left.fetch_sub(1, Ordering::Relaxed) == 1
        && file.as_ref().is_none_or(|file| std::fs::remove_file(file).is_ok())
    {
        let me = rustix::process::getpid();
        let _ = rustix::process::kill_process(me, rustix::process::Signal::KILL);
    }
}

pub(crate) fn world() -> Option<Arc<dyn World>> {
    WORLD.read().unwrap_or_else(PoisonError::into_inner).clone()
}
