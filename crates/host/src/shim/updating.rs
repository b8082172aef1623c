//! When an instance's shim lets somebody look for new versions of it.
//!
//! *Invariants.* Nothing waits for it. It is never sooner than a moment after the start, and many
//! instances of one host do not ask at once.

use std::time::Duration;

use model::{InstanceId, Updates};

use crate::dir::HostDir;
use crate::local::LocalDir;
use crate::verbs::look_for_updates;

/// After a start at most so long, unless less lies between two questions.
const FIRST: Duration = Duration::from_secs(120);
/// The time of day is looked at this often.
const LOOK: Duration = Duration::from_secs(60);

/// Begins to look after an instance that runs here.
pub fn start(host: &HostDir, local: &LocalDir, repository: &str, name: &str, instance: InstanceId) {
    let Some(updates) = host.updates() else { return };
    let (host, local) = (host.clone(), local.clone());
    let (repository, name) = (repository.to_owned(), name.to_owned());
    std::thread::spawn(move || {
        let mut asking = Asking::new(updates, instance, ambient::now());
        loop {
            ambient::sleep(asking.rest(ambient::now()).min(LOOK));
            if !asking.is_due(ambient::now(), crate::time::minute_of_day()) {
                continue;
            }
            match look_for_updates(&host, &local, &repository, &name) {
                Ok(mut child) => drop(child.wait()),
                Err(failure) => eprintln!("{failure}"),
            }
        }
    });
}

/// When it is asked next.
struct Asking {
    updates: Updates,
    instance: InstanceId,
    asked: ambient::Instant,
    next: Duration,
    was_open: bool,
}

impl Asking {
    fn new(updates: Updates, instance: InstanceId, now: ambient::Instant) -> Self {
        // One that starts in the window asks soon, and not at once.
        let next = first(updates, instance);
        Self { updates, instance, asked: now, next, was_open: true }
    }

    /// How long until then, if no window opens before.
    fn rest(&self, now: ambient::Instant) -> Duration {
        self.next.saturating_sub(now.duration_since(self.asked))
    }

    /// Whether it is now: its time has come, or its window opens, by minutes of the day.
    fn is_due(&mut self, now: ambient::Instant, minute: u16) -> bool {
        let open = self.updates.window.is_some_and(|window| window.is_open(minute));
        let opens = !std::mem::replace(&mut self.was_open, open) && open;
        if !opens && !self.rest(now).is_zero() {
            return false;
        }
        (self.asked, self.next) = (now, between(self.updates, self.instance));
        true
    }
}

/// A part of a hundred, other ones of other instances.
fn part(instance: InstanceId) -> u32 {
    u32::from(instance.as_bytes()[0]) * 100 / 256
}

fn first(updates: Updates, instance: InstanceId) -> Duration {
    let most = FIRST.min(Duration::from_secs(updates.every_s));
    most / 2 + most / 2 * part(instance) / 100
}

/// A tenth more or less.
fn between(updates: Updates, instance: InstanceId) -> Duration {
    Duration::from_secs(updates.every_s) * (90 + part(instance) / 5) / 100
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_window_that_opens_while_it_runs_is_noticed_within_a_minute_and_once() {
        let daily = Updates::parse("1d,window=02:00-05:00").unwrap().unwrap();
        let began = ambient::now();
        let mut asking = Asking::new(daily, InstanceId::from_bytes([0; 16]), began);
        let mut asked = Vec::new();
        // It starts at one in the night, and its thread looks once a minute.
        for minutes in 1..=2 * 24 * 60 {
            let minute = (60 + minutes) % (24 * 60);
            let now = began + Duration::from_secs(minutes * 60);
            if asking.is_due(now, minute as u16) {
                asked.push((minute / 60, minute % 60));
            }
        }
        // A minute after its start; when the window opens; about a day later, in which a window opened.
        assert_eq!(asked, [(1, 1), (2, 0), (23, 36), (2, 0), (23, 36)], "of {:?}", asking.next);
    }

    #[test]
    fn instances_ask_at_other_times_and_about_as_often_as_was_said() {
        let daily = Updates { every_s: 86_400, ..Updates::default() };
        let at = |first_byte: u8, of: fn(Updates, InstanceId) -> Duration| {
            let mut id = [0; 16];
            id[0] = first_byte;
            of(daily, InstanceId::from_bytes(id)).as_secs()
        };
        assert_eq!((at(0, first), at(128, first), at(255, first)), (60, 90, 119));
        assert_eq!((at(0, between), at(128, between), at(255, between)), (77_760, 86_400, 94_176));
    }
}
