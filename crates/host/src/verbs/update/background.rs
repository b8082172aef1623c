//! New versions come by themselves while an instance runs.
//!
//! ```text
//! its shim, now and then ──▶ a process of its own: ask, fetch ──┬─▶ stays here until it next starts
//!                                                               └─▶ in the window: apply
//! ```
//!
//! A process, so that an update outlives the shim that it stops, and that what it needs is needed only
//! while it works.
//!
//! *Invariants.* One at a time of an instance. Outside of the host's window nothing that runs is
//! touched. Trouble is noted ([`crate::noted`]) and is nobody's.

use std::fs::File;
use std::path::Path;
use std::process::{Child, ExitCode};

use model::{InstanceState, Name, Updates};

use super::{UpdateMode, UpdateOptions};
use crate::failure::{Failure, Result};
use crate::local::LocalDir;
use crate::record::{Head, UpdatePolicy};
use crate::verbs::start;
use crate::{Host, HostDir};

/// Held by who works on an instance's update in the background.
const LOCK: &str = "updates.lock";
/// What that process is to do.
const LOOK: &str = "look";
const BACK: &str = "back";
/// How much less urgent fetching is than the guests, as `nice` counts.
const NICE: i32 = 15;

/// Starts the process that looks for news of an instance that runs here.
pub(crate) fn look(
    host: &HostDir,
    local: &LocalDir,
    repository: &str,
    name: &str,
) -> Result<Child> {
    begin(host, local, repository, name, LOOK)
}

/// The same, for one whose new version does not work and that nobody else takes back.
pub(crate) fn go_back(
    host: &HostDir,
    local: &LocalDir,
    repository: &str,
    name: &str,
) -> Result<Child> {
    begin(host, local, repository, name, BACK)
}

fn begin(
    host: &HostDir,
    local: &LocalDir,
    repository: &str,
    name: &str,
    what: &str,
) -> Result<Child> {
    // It outlives the shim that it stops.
    let words = ["__updates".as_ref(), host.root().as_os_str()];
    let words = [&words[..], &[repository.as_ref(), name.as_ref(), what.as_ref()]].concat();
    start::detached(local, &words).map_err(|e| e.during("cannot look for a new version"))
}

/// That process: `__updates HOST-DIR REPOSITORY NAME WHAT`.
pub fn updates_main(arguments: &[std::ffi::OsString]) -> ExitCode {
    let _ = rustix::process::setsid();
    let _ = rustix::process::set_dumpable_behavior(rustix::process::DumpableBehavior::NotDumpable);
    let run = || -> Result<()> {
        let wrong = || Failure::new("usage", "__updates HOST-DIR REPOSITORY NAME WHAT", "");
        let [dir, repository, name, what] = arguments else { return Err(wrong()) };
        let name = name.to_str().and_then(|name| Name::new(name).ok()).ok_or_else(wrong)?;
        // It may have been removed since this was started: it is not made anew.
        if !Path::new(dir).join("host.json").exists() {
            return Ok(());
        }
        let host = Host::open(Path::new(dir), repository.to_str())?;
        if what == BACK { host.go_back_by_itself(&name) } else { host.update_by_itself(&name) }
    };
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("{failure}; it is tried again");
            ExitCode::FAILURE
        }
    }
}

impl Host {
    /// Asks for news of an instance that runs here, brings them, and in the window applies them.
    fn update_by_itself(&self, name: &Name) -> Result<()> {
        let Some(updates) = self.dir.updates() else { return Ok(()) };
        let lock = File::create(self.local(name).path().join(LOCK))?;
        if lock.try_lock().is_err() {
            return Ok(());
        }
        let done = self.look_and_apply(name, updates);
        if let Err(failure) = &done {
            self.note(name, |noted| noted.failing = Some(failure.to_string()));
        }
        done
    }

    fn look_and_apply(&self, name: &Name, updates: Updates) -> Result<()> {
        let Some((_, head)) = self.store()?.head(name)?.head else { return Ok(()) };
        if !follows(&head) {
            return Ok(());
        }
        let options = |mode| UpdateOptions {
            name: name.clone(),
            mode,
            to: None,
            channel: None,
            updates: None,
            rate: updates.rate,
            force: false,
            start: self.patiently(),
        };
        // In a thread of its own, that it is less urgent: what starts from here is a guest, and is not.
        let fetch = || {
            let _ = rustix::process::nice(NICE);
            self.update(&options(UpdateMode::Fetch), &mut |_| {})
        };
        std::thread::scope(|scope| scope.spawn(fetch).join())
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
        let due = self.noted(name).offered.is_some_and(|offered| offered.here);
        let may = head.follow.is_some_and(|follow| follow.policy == UpdatePolicy::Auto)
            && updates.window.is_some_and(|window| window.is_open(crate::time::minute_of_day()));
        // Not one that stands still: somebody looks at it.
        let runs = || {
            let status = self.status(name);
            status.is_some_and(|status| status.state == InstanceState::Running.as_str())
        };
        if due && may && runs() {
            let print = self.update(&options(UpdateMode::Now), &mut |_| {})?;
            eprintln!(
                "version {} in the window: {}",
                print.to,
                if print.rolled_back { "undone" } else { "applied" }
            );
        }
        Ok(())
    }
}

/// Whether there is anything to look for.
fn follows(head: &Head) -> bool {
    head.trial.is_none() && head.follow.as_ref().is_some_and(|follow| follow.channel.is_some())
}
