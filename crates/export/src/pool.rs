//! Threads for what must not run on a loop thread.
//!
//! Threads start when they are needed, up to a bound, and stay. The queue needs no bound of its
//! own: every job answers one FUSE request, and the kernel has at most `max_background` of them
//! under way, and one for each client thread that waits in a system call or a fault.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

type Job = Box<dyn FnOnce() + Send>;

#[derive(Clone)]
pub(crate) struct Pool(Arc<Shared>);

struct Shared {
    name: &'static str,
    threads_max: usize,
    state: Mutex<State>,
    wake: Condvar,
}

#[derive(Default)]
struct State {
    queue: VecDeque<Job>,
    /// Jobs that nobody waits for yet: after all others, and never on more than half the threads.
    background: VecDeque<Job>,
    background_running: usize,
    threads: usize,
    idle: usize,
    closed: bool,
}

impl Pool {
    pub fn new(name: &'static str, threads_max: usize) -> Pool {
        let state = Mutex::new(State::default());
        Pool(Arc::new(Shared { name, threads_max, state, wake: Condvar::new() }))
    }

    /// Runs a job on some thread of the pool, later. After [`close`](Self::close) the job is
    /// dropped unrun; what it owns answers for itself.
    pub fn run(&self, job: impl FnOnce() + Send + 'static) {
        self.push(Box::new(job), |state| &mut state.queue);
    }

    /// As [`run`](Self::run), when there is nothing else to do.
    pub fn run_in_background(&self, job: impl FnOnce() + Send + 'static) {
        self.push(Box::new(job), |state| &mut state.background);
    }

    fn push(&self, job: Job, queue: impl Fn(&mut State) -> &mut VecDeque<Job>) {
        let mut state = self.0.lock();
        if state.closed {
            return;
        }
        queue(&mut state).push_back(job);
        if state.idle > 0 {
            self.0.wake.notify_one();
        }
        if state.idle >= state.queue.len() + state.background.len() {
            return;
        }
        if state.threads < self.0.threads_max {
            let shared = Arc::clone(&self.0);
            let thread = std::thread::Builder::new().name(self.0.name.to_owned());
            if thread.stack_size(512 * 1024).spawn(move || shared.work()).is_ok() {
                state.threads += 1;
                return;
            }
        }
        if state.threads == 0 {
            // No thread can be had at all: better slow on this one than never.
            let job = queue(&mut state).pop_back();
            drop(state);
            if let Some(job) = job {
                run(job);
            }
        }
    }

    /// Ends the threads when they are done with what they do now.
    pub fn close(&self) {
        let mut state = self.0.lock();
        state.closed = true;
        let unrun = (std::mem::take(&mut state.queue), std::mem::take(&mut state.background));
        drop(state);
        self.0.wake.notify_all();
        drop(unrun);
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn work(&self) {
        let mut state = self.lock();
        loop {
            if let Some(job) = state.queue.pop_front() {
                drop(state);
                run(job);
                state = self.lock();
            } else if let Some(job) = self.pop_background(&mut state) {
                drop(state);
                run(job);
                state = self.lock();
                state.background_running -= 1;
            } else if state.closed {
                return;
            } else {
                state.idle += 1;
                state = self.wake.wait(state).unwrap_or_else(PoisonError::into_inner);
                state.idle -= 1;
            }
        }
    }

    fn pop_background(&self, state: &mut State) -> Option<Job> {
        let most = self.threads_max.div_ceil(2);
        let job = (state.background_running < most).then(|| state.background.pop_front())??;
        state.background_running += 1;
        Some(job)
    }
}

/// A job that panics must not take its thread along; its reply, dropped, says `EIO`.
fn run(job: Job) {
    let _ = catch_unwind(AssertUnwindSafe(job));
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Barrier;
    use std::sync::mpsc::channel;
    use std::time::Duration;

    #[test]
    fn jobs_run_side_by_side_and_panics_do_not_end_threads() {
        let pool = Pool::new("test", 4);
        let barrier = Arc::new(Barrier::new(4));
        let (done, all) = channel();
        for _ in 0..4 {
            pool.run(|| panic!("a job's own trouble"));
        }
        for _ in 0..4 {
            let (barrier, done) = (Arc::clone(&barrier), done.clone());
            pool.run(move || {
                barrier.wait();
                done.send(()).unwrap();
            });
        }
        for _ in 0..4 {
            all.recv_timeout(Duration::from_secs(20)).unwrap();
        }
        pool.close();
        let (late, never) = channel::<()>();
        pool.run(move || late.send(()).unwrap());
        assert!(never.recv_timeout(Duration::from_secs(1)).is_err());
    }

    #[test]
    fn background_leaves_half_the_threads_free() {
        let pool = Pool::new("test", 4);
        let gate = Arc::new(Barrier::new(3));
        let (done, all) = channel();
        for n in 0..10 {
            let (gate, done) = (Arc::clone(&gate), done.clone());
            pool.run_in_background(move || {
                // The first two wait for the test.
                if n < 2 {
                    gate.wait();
                }
                done.send("background").unwrap();
            });
        }
        // Until all threads are there and two of them have found that they may not help.
        std::thread::sleep(Duration::from_millis(200));
        let urgent = done.clone();
        pool.run(move || urgent.send("urgent").unwrap());
        assert_eq!(all.recv_timeout(Duration::from_secs(20)).unwrap(), "urgent");
        assert!(all.recv_timeout(Duration::from_millis(100)).is_err());
        gate.wait();
        for _ in 0..10 {
            assert_eq!(all.recv_timeout(Duration::from_secs(20)).unwrap(), "background");
        }
        pool.close();
    }

    #[test]
    fn a_queue_longer_than_the_threads_is_worked_off() {
        let pool = Pool::new("test", 2);
        let (done, all) = channel();
        for n in 0..1000 {
            let done = done.clone();
            pool.run(move || done.send(n).unwrap());
        }
        let mut seen: Vec<i32> = (0..1000).map(|_| all.recv().unwrap()).collect();
        seen.sort_unstable();
        assert_eq!(seen, (0..1000).collect::<Vec<_>>());
        pool.close();
    }
}
