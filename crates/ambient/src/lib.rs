//! The one door through which time and chance enter.
//!
//! Everything else takes them as values, so that a simulation or a test can supply its own.
//! `cargo xtask tidy` and clippy refuse the banned calls elsewhere.
//!
//! Where debug assertions are compiled (tests, and never a release), `simulated` can put a world
//! of its own behind this door; the rest of the program does not notice.
//!
//! **Invariant:** nothing here decides anything: no policy, no formatting, no state.

// The door itself is the one place that may make the banned calls.
#![allow(clippy::disallowed_methods)]

#[cfg(debug_assertions)]
pub mod simulated;

use std::time::{SystemTime, UNIX_EPOCH};

pub use std::time::{Duration, Instant};

/// Asks the world that was put behind the door, if there is one. Compiles to nothing in a release.
macro_rules! simulated {
    ($world:ident => $answer:expr) => {
        #[cfg(debug_assertions)]
        if let Some($world) = simulated::world() {
            return $answer;
        }
    };
}

/// Milliseconds since the Unix epoch by this machine's clock: for people and for ages, never to
/// order two hosts' acts.
pub fn unix_ms() -> u64 {
    simulated!(world => world.unix_ms());
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_millis() as u64)
}

/// A point of the monotonic clock, for durations and deadlines.
pub fn now() -> Instant {
    simulated!(world => world.now());
    Instant::now()
}

/// Time since this machine was started, with the time that it slept: the same for all its processes.
pub fn since_boot() -> Duration {
    simulated!(world => Duration::from_millis(world.unix_ms()));
    let time = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    Duration::new(time.tv_sec.max(0) as u64, time.tv_nsec.clamp(0, 999_999_999) as u32)
}

/// Lets the time go by.
pub fn sleep(duration: Duration) {
    simulated!(world => world.sleep(duration));
    std::thread::sleep(duration);
}

/// How many threads to start where `wanted` are best: as many. In a simulation one, so that what
/// they do has one order.
pub fn threads(wanted: usize) -> usize {
    simulated!(_world => wanted.min(1));
    wanted
}

/// Starts a thread. In a simulation it belongs to whoever starts it, and has its own chance.
pub fn spawn<T: Send + 'static>(
    name: String,
    run: impl FnOnce() -> T + Send + 'static,
) -> std::io::Result<std::thread::JoinHandle<T>> {
    let builder = std::thread::Builder::new().name(name);
    simulated!(world => {
        let begin = world.born();
        builder.spawn(move || {
            begin();
            run()
        })
    });
    builder.spawn(run)
}

/// Does `work` behind the guests of this machine: on a thread which, like every thread that it
/// starts, gets a third of a processor that another one wants too. In a simulation, where it is.
pub fn behind<T: Send>(work: impl FnOnce() -> T + Send) -> T {
    /// Of the scheduler's 20 steps down; each is a quarter less.
    const NICE: i32 = 5;
    simulated!(_world => work());
    let behind = || {
        // To the kernel, a thread. Where it is refused, the work is only not as modest.
        let _ = rustix::process::setpriority_process(None, NICE);
        work()
    };
    std::thread::scope(|scope| match scope.spawn(behind).join() {
        Ok(done) => done,
        Err(panicked) => std::panic::resume_unwind(panicked),
    })
}

/// A named step of a verb has been reached: where tests of crashes end the process, or a simulated
/// host. In a release this is nothing.
pub fn step(name: &'static str) {
    simulated!(world => world.step(name));
    #[cfg(debug_assertions)]
    simulated::reached(name);
    let _ = name;
}

/// What this process has used of processors so far, all its threads together.
pub fn processor_time() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    Duration::new(time.tv_sec.max(0) as u64, time.tv_nsec.clamp(0, 999_999_999) as u32)
}

/// Bytes from the operating system's cryptographic generator.
///
/// # Panics
/// When the operating system has no randomness to give: nothing safe can go on without it.
pub fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    simulated!(world => { world.fill(&mut bytes); bytes });
    getrandom::fill(&mut bytes).expect("the operating system gives random bytes");
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn work_behind_is_nice_with_all_its_threads_and_its_caller_is_not() {
        let nice = || rustix::process::getpriority_process(None).unwrap();
        let before = nice();
        let (own, its) = behind(|| (nice(), std::thread::scope(|s| s.spawn(nice).join().unwrap())));
        assert_eq!((own, its), (5, 5));
        assert_eq!(nice(), before);
    }

    #[test]
    fn chance_differs_and_time_goes_on() {
        assert_ne!(random::<16>(), random::<16>());
        assert!(unix_ms() > 1_700_000_000_000);
        assert!(now() <= now());
        assert!(!processor_time().is_zero() && processor_time() <= processor_time());
    }
}
