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
        let mut asked = ambient::now();
        let mut next = first(updates, instance);
        let mut was_open = true;
        loop {
            ambient::sleep(next.saturating_sub(asked.elapsed()).min(LOOK));
            let open = updates.window.is_some_and(|w| w.is_open(crate::time::minute_of_day()));
            // Once when its window opens, too.
            if asked.elapsed() < next && (was_open || !open) {
                was_open = open;
                continue;
            }
            was_open = open;
            (asked, next) = (ambient::now(), between(updates, instance));
            match look_for_updates(&host, &local, &repository, &name) {
                Ok(mut child) => drop(child.wait()),
                Err(failure) => eprintln!("{failure}"),
            }
        }
    });
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
