//! Device state: everything about a computer that is neither memory nor disk.
//!
//! QEMU calls this migration. With its capability `x-ignore-shared`, memory that is a shared
//! file is left out, so that what is written is some hundred kilobytes, whatever the memory's
//! size. The memory file must then be saved by whoever owns it, in the same pause.
//!
//! The state file is opened here and handed over, so QEMU may write nowhere by itself.
//! `save_state` does not sync it: whoever makes the checkpoint durable does.

use std::fs::File;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::Duration;

use serde_json::{Value, json};

use crate::VmmError;
use crate::qemu::{Qemu, fdset, lock};
use crate::qmp::Event;

const SOON: Duration = Duration::from_secs(20);
/// How often progress is asked for when no event says that it is over.
const POLL: Duration = Duration::from_millis(2);
/// The run state in which QEMU is not done with a migration yet, and refuses `cont`: it lasts a
/// moment longer than the migration's own status says.
const FINISHING: &str = "finish-migrate";
/// The run state until a state was loaded.
const INCOMING: &str = "inmigrate";

/// What QEMU has been given to save with.
#[derive(Default)]
pub(crate) struct Saving {
    expected: Option<Expected>,
    /// Descriptors' sets that were saved with.
    used: Vec<u32>,
}

/// A save that has been prepared.
struct Expected {
    path: PathBuf,
    file: File,
    fdset: u32,
}

impl Qemu {
    /// Does all of the next [`Self::save_state`] to this `path` that can be done while the guest
    /// runs, so that it stands still for less. Whoever expects it stops the processors first.
    pub fn expect_save(&self, path: &Path) -> Result<(), VmmError> {
        self.end_save();
        let expected = self.prepare_save(path)?;
        lock(&self.saving).expected = Some(expected);
        Ok(())
    }

    /// Writes the device state to `path` and returns its size in bytes. Stops the processors if
    /// they still run; they stay stopped. `cont` then goes on as if nothing had been.
    /// On failure the guest is stopped and unharmed.
    pub fn save_state(&self, path: &Path, timeout: Duration) -> Result<u64, VmmError> {
        let expected = lock(&self.saving).expected.take_if(|expected| expected.path == path);
        let Expected { file, fdset: id, .. } = match expected {
            Some(expected) => expected,
            None => {
                self.stop()?;
                self.prepare_save(path)?
            }
        };
        lock(&self.saving).used.push(id);
        let events = self.events();
        self.call("migrate", json!({ "uri": format!("file:{}", fdset(id)) }), SOON)
            .map_err(|error| failed("save", error))?;
        let saved = self.wait_migration("save", &events, timeout, |qemu| {
            Ok(qemu.progress(SOON)? && qemu.status_word()? != FINISHING)
        });
        // After a failure too: only then can the guest go on.
        self.wait_migration("save", &events, SOON, |qemu| Ok(qemu.status_word()? != FINISHING))?;
        saved?;
        let bytes = file.metadata().map_err(VmmError::io(path.display().to_string()))?.len();
        Ok(bytes)
    }

    fn prepare_save(&self, path: &Path) -> Result<Expected, VmmError> {
        let file =
            File::create(path).map_err(VmmError::io(format!("cannot write {}", path.display())))?;
        self.set_capabilities()?;
        // No limit: the guest is stopped and waits for us.
        self.call("migrate-set-parameters", json!({ "max-bandwidth": 1u64 << 40 }), SOON)?;
        let fdset = self.add_fdset(file.as_fd())?;
        Ok(Expected { path: path.to_owned(), file, fdset })
    }

    /// Takes back what QEMU was given to save with. The next save does, too; whoever lets the guest run does
    /// it then, so that the guest does not stand still for it, nor the file of a removed state keep its room.
    pub fn end_save(&self) {
        let Saving { expected, used } = std::mem::take(&mut *lock(&self.saving));
        for id in expected.map(|expected| expected.fdset).into_iter().chain(used) {
            self.remove_fdset(id);
        }
    }

    /// Loads device state into a QEMU that was started with `incoming`. Then the guest is
    /// stopped where it was saved. After a failure this QEMU is of no further use.
    pub fn load_state(&self, path: &Path, timeout: Duration) -> Result<(), VmmError> {
        let file =
            File::open(path).map_err(VmmError::io(format!("cannot read {}", path.display())))?;
        self.set_capabilities()?;
        let events = self.events();
        self.with_fdset(file.as_fd(), |name| {
            let uri = json!({ "uri": format!("file:{name}"), "exit-on-error": false });
            // It answers nothing while it waits for a page of the guest's memory.
            self.call("migrate-incoming", uri, timeout).map_err(|error| failed("load", error))?;
            self.wait_migration("load", &events, timeout, |qemu| {
                // "completed" comes before the run state changes; both must have happened.
                Ok(qemu.progress(timeout)? && qemu.status_word_within(timeout)? != INCOMING)
            })
        })
    }

    fn set_capabilities(&self) -> Result<(), VmmError> {
        let on = |name: &str| json!({ "capability": name, "state": true });
        let capabilities = json!({ "capabilities": [on("x-ignore-shared"), on("events")] });
        self.call("migrate-set-capabilities", capabilities, SOON).map(drop)
    }

    /// Whether migration is completed; an error when it failed.
    fn progress(&self, patience: Duration) -> Result<bool, VmmError> {
        let answer = self.call("query-migrate", Value::Null, patience)?;
        match answer["status"].as_str() {
            Some("completed") => Ok(true),
            Some(status @ ("failed" | "cancelled")) => {
                let detail = answer["error-desc"].as_str().unwrap_or(status).to_owned();
                Err(VmmError::Refused { command: "migrate".to_owned(), detail })
            }
            _ => Ok(false),
        }
    }

    fn wait_migration(
        &self,
        verb: &'static str,
        events: &Receiver<Event>,
        timeout: Duration,
        done: impl Fn(&Self) -> Result<bool, VmmError>,
    ) -> Result<(), VmmError> {
        let deadline = ambient::now() + timeout;
        loop {
            if done(self).map_err(|error| failed(verb, error))? {
                return Ok(());
            }
            if ambient::now() >= deadline {
                // So that it does not complete later, behind the caller's back.
                let _ = self.call("migrate_cancel", Value::Null, SOON);
                let what = format!("to {verb} the device state");
                return Err(VmmError::Timeout { what, after: timeout });
            }
            match events.recv_timeout(POLL) {
                Ok(_) | Err(RecvTimeoutError::Timeout) => {}
                // QEMU has gone: the next question says how.
                Err(RecvTimeoutError::Disconnected) => std::thread::sleep(POLL),
            }
        }
    }
}

fn failed(verb: &'static str, error: VmmError) -> VmmError {
    match error {
        VmmError::Refused { detail, .. } => VmmError::State { verb, detail },
        other => other,
    }
}
