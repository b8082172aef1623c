//! The verbs that a running instance's shim does: `pause`, `unpause`, `suspend`, `checkpoint`,
//! `stop`, `exec`, `screenshot`, `console`, `logs`, and `rm`.

use std::os::unix::net::UnixStream;
use std::time::Duration;

use api::{CheckpointPrint, ExecOutcome, Reply, Request, StatePrint};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use model::{InstanceState, Name};

use crate::failure::{Failure, Result};
use crate::record::Why;
use crate::socket;
use crate::store::{Advance, Store, absolute_location};
use crate::{Host, shim};

/// Storing a checkpoint may take long on a slow line; the shim goes on if we give up.
pub(super) const STORE_TIMEOUT: Duration = Duration::from_secs(24 * 3600);
/// What needs no storing is done within this.
const QUICK: Duration = Duration::from_secs(60);
/// A process that was killed has ended after this.
const SILENT: Duration = Duration::from_secs(3);
/// Most bytes of a log that are shown: the last ones.
const LOG_BYTES_MAX: u64 = 4 << 20;

impl Host {
    /// Makes sure that an instance is known, here or in the repository.
    pub fn find(&self, name: &Name) -> Result<()> {
        if self.local(name).read()?.is_some() || self.store()?.head(name)?.head.is_some() {
            return Ok(());
        }
        Err(shim::claim::not_found(name))
    }

    /// Why an instance is not in this repository: it may be one of another that this host has used.
    pub(super) fn absent(&self, store: &Store, name: &Name) -> Failure {
        match self.repository_of(store, name) {
            Ok(Some(other)) => Failure::new(
                "not_found",
                format!("{name} is in the repository {other}, and not in {}", store.location()),
                format!("say which: `collective --repo {other} ...`"),
            ),
            _ => shim::claim::not_found(name),
        }
    }

    /// Where the instance of this name that this host knows is kept, if that is not here.
    fn repository_of(&self, store: &Store, name: &Name) -> Result<Option<String>> {
        let Some(here) = self.local(name).read()? else { return Ok(None) };
        let other = absolute_location(&here.repository)?;
        Ok(Some(other).filter(|other| other != store.location()))
    }

    /// Whether an instance runs here. A shim that is about to end is waited for.
    pub(super) fn runs_here(&self, name: &Name) -> Result<bool> {
        let local = self.local(name);
        let deadline = ambient::now() + QUICK;
        // A shim without its socket is being born, or has given it up and holds the volumes still:
        // neither takes long.
        let silent = ambient::now() + SILENT;
        let status = loop {
            let is_alive = local.doors().is_alive(local.path());
            let status = is_alive.then(|| self.status(name)).flatten();
            let is_over = ambient::now() >= deadline;
            match (is_alive, status) {
                (true, Some(status)) => break Some(status),
                // Who was killed still has its socket for a moment, and hangs up.
                (true, None) if ambient::now() >= silent => break None,
                (true, None) => {}
                (false, _) if !local.doors().is_locked(local.path()) => return Ok(false),
                (false, _) if is_over => return Err(does_not_end(name)),
                (false, _) => {}
            }
            ambient::sleep(Duration::from_millis(5));
        };
        let ending = status.is_some_and(|status| {
            matches!(status.state.as_str(), "failed" | "suspended" | "stopped")
        });
        if ending {
            self.await_end(name)?;
        }
        Ok(!ending)
    }

    /// Asks the shim of an instance that runs here; says what it is doing when it does not.
    pub(super) fn ask(&self, name: &Name, request: &Request, timeout: Duration) -> Result<Reply> {
        let local = self.local(name);
        if self.runs_here(name)? {
            return local.doors().ask(local.path(), request, timeout).map_err(|failure| {
                if failure.kind == "fenced" {
                    // Its shim ends now: the next verb finds its files in order.
                    let _ = self.await_end(name);
                }
                named(failure, name)
            });
        }
        let store = self.store()?;
        let state = self.state_of(&store, name)?;
        let (message, hint) = match state {
            InstanceState::Suspended => (
                format!("{name} is suspended"),
                format!("`collective resume {name}` goes on with it"),
            ),
            InstanceState::Stopped => {
                (format!("{name} is stopped"), format!("`collective resume {name}` starts it"))
            }
            InstanceState::Failed => (
                format!("{name} has failed: its shim or QEMU ended without being asked to"),
                format!(
                    "`collective resume {name}` starts it from its disks as they were last \
                     flushed; `collective undo {name}` goes back to its last checkpoint"
                ),
            ),
            _ => {
                let holder = store.head(name)?.head.and_then(|(_, head)| head.lease);
                let host = holder.map_or_else(String::new, |lease| lease.holder_name);
                (
                    format!("{name} runs on another host ({host})"),
                    format!("do it there, or `collective resume {name} --take-over`"),
                )
            }
        };
        Err(Failure::new("state", message, hint))
    }

    fn ask_state(&self, name: &Name, request: &Request, state: &str) -> Result<StatePrint> {
        match self.ask(name, request, QUICK)? {
            Reply::Done { checkpoint } => {
                Ok(StatePrint { name: name.to_string(), state: state.to_owned(), checkpoint })
            }
            other => Err(unexpected(&other)),
        }
    }

    /// Stops the guest's CPUs.
    pub fn pause(&self, name: &Name) -> Result<StatePrint> {
        self.ask_state(name, &Request::Pause, "paused")
    }

    /// Lets the guest's CPUs go on.
    pub fn unpause(&self, name: &Name) -> Result<StatePrint> {
        self.ask_state(name, &Request::Unpause, "running")
    }

    /// Puts it to sleep in the repository.
    pub fn suspend(&self, name: &Name, label: Option<&str>) -> Result<CheckpointPrint> {
        self.suspend_as(name, label, false)
    }

    /// As [`Host::suspend`]; with `branch`, as a branch beside the instance's own line.
    pub(super) fn suspend_as(
        &self,
        name: &Name,
        label: Option<&str>,
        branch: bool,
    ) -> Result<CheckpointPrint> {
        let request = Request::Suspend { label: label.map(str::to_owned), branch };
        match self.ask(name, &request, STORE_TIMEOUT)? {
            Reply::Checkpoint(done) => {
                self.await_end(name)?;
                Ok(done)
            }
            other => Err(unexpected(&other)),
        }
    }

    /// Takes a point to come back to.
    pub fn checkpoint(&self, name: &Name, label: Option<&str>) -> Result<CheckpointPrint> {
        self.checkpoint_for(name, label, Why::Checkpoint)
    }

    /// The same as one that is taken by itself: it is thinned out as those are.
    pub fn checkpoint_by_itself(&self, name: &Name) -> Result<CheckpointPrint> {
        self.checkpoint_for(name, None, Why::Auto)
    }

    pub(super) fn checkpoint_for(
        &self,
        name: &Name,
        label: Option<&str>,
        why: Why,
    ) -> Result<CheckpointPrint> {
        let request =
            Request::Checkpoint { label: label.map(str::to_owned), why: why.as_str().to_owned() };
        match self.ask(name, &request, STORE_TIMEOUT)? {
            Reply::Checkpoint(done) => Ok(done),
            other => Err(unexpected(&other)),
        }
    }

    /// Powers it off.
    pub fn stop(&self, name: &Name, force: bool, timeout: Duration) -> Result<StatePrint> {
        let store = self.store()?;
        if !self.runs_here(name)? && self.state_of(&store, name)? == InstanceState::Suspended {
            return Err(Failure::new(
                "state",
                format!("{name} is suspended: its memory is kept"),
                format!(
                    "`collective resume {name}` and then stop it; `collective rm {name}` would \
                     remove it and its history"
                ),
            ));
        }
        let request = Request::Stop { force, timeout_ms: timeout.as_millis() as u64 };
        match self.ask(name, &request, STORE_TIMEOUT)? {
            Reply::Done { checkpoint } => {
                self.await_end(name)?;
                let state = InstanceState::Stopped.as_str().to_owned();
                Ok(StatePrint { name: name.to_string(), state, checkpoint })
            }
            other => Err(unexpected(&other)),
        }
    }

    /// Waits until the shim that has just answered is gone, so that the next verb finds its files
    /// in order.
    pub(super) fn await_end(&self, name: &Name) -> Result<()> {
        let local = self.local(name);
        let deadline = ambient::now() + QUICK;
        while local.doors().is_alive(local.path()) || local.doors().is_locked(local.path()) {
            if ambient::now() >= deadline {
                return Err(does_not_end(name));
            }
            ambient::sleep(Duration::from_millis(5));
        }
        Ok(())
    }

    /// Removes an instance: its files here, its head and its branches in the repository.
    pub fn rm(&self, name: &Name, force: bool) -> Result<StatePrint> {
        let local = self.local(name);
        let store = self.writable_store()?;
        let current = store.head(name)?;
        if current.head.is_none() && local.read()?.is_none() && !local.path().exists() {
            return Err(shim::claim::not_found(name));
        }
        let runs = self.runs_here(name)?;
        // Its head stays there, and what was written since its last checkpoint is nowhere else.
        if current.head.is_none() && (runs || !force) && self.repository_of(&store, name)?.is_some()
        {
            return Err(self.absent(&store, name));
        }
        if runs {
            if !force {
                return Err(Failure::new(
                    "state",
                    format!("{name} is running"),
                    format!("`collective stop {name}` first, or `collective rm {name} --force`"),
                ));
            }
            local
                .doors()
                .ask(local.path(), &Request::Discard, QUICK)
                .map_err(|f| named(f, name))?;
            self.await_end(name)?;
        }
        self.retire(&store, name, force)?;
        shim::unmount_leftovers(&local)?;
        local.remove()?;
        Ok(StatePrint { name: name.to_string(), state: "removed".to_owned(), checkpoint: None })
    }

    fn retire(&self, store: &Store, name: &Name, force: bool) -> Result<()> {
        loop {
            let current = store.head(name)?;
            let Some((generation, head)) = current.head else { return Ok(()) };
            if let Some(lease) = &head.lease
                && lease.holder != self.dir.id()
                && !force
            {
                return Err(Failure::new(
                    "lease",
                    format!("{name} runs on host {}", lease.holder_name),
                    format!("`collective rm {name}` there, or `--force` to fence that host out"),
                ));
            }
            for branch in store.branches(head.instance)? {
                store.retire_branch(&branch)?;
            }
            if let Advance::Done(_) = store.retire(generation, name)? {
                return Ok(());
            }
        }
    }

    /// Runs a command in the guest.
    pub fn exec(
        &self,
        name: &Name,
        command: &[String],
        stdin: Option<&[u8]>,
        timeout: Duration,
    ) -> Result<ExecOutcome> {
        let request = Request::Exec {
            argv: command.to_vec(),
            stdin_base64: stdin.map(|bytes| STANDARD.encode(bytes)),
            timeout_ms: timeout.as_millis() as u64,
        };
        match self.ask(name, &request, timeout + Duration::from_secs(30))? {
            Reply::Exec(outcome) => Ok(outcome),
            other => Err(unexpected(&other)),
        }
    }

    /// A PNG of the screen.
    pub fn screenshot(&self, name: &Name) -> Result<Vec<u8>> {
        let tag = u64::from_le_bytes(ambient::random());
        let file_name = format!("screen-{tag:016x}.png");
        let path = self.local(name).run().join(&file_name);
        let reply = self.ask(name, &Request::Screenshot { file_name }, QUICK);
        let png = reply.and_then(|_| Ok(std::fs::read(&path)?));
        let _ = std::fs::remove_file(&path);
        png
    }

    /// The serial console of a running instance: bytes both ways.
    pub fn console(&self, name: &Name) -> Result<UnixStream> {
        // Until it runs, it may still be somebody else: the maker's, or its parent.
        if let Reply::Status(status) = self.ask(name, &Request::Status, QUICK)?
            && status.state == "starting"
        {
            let hint = "try again in a moment";
            return Err(Failure::new("state", format!("{name} is starting"), hint));
        }
        socket::connect(&self.local(name).run(), vmm::CONSOLE_SOCKET)
            .map_err(|e| Failure::from(e).during("cannot attach to the console"))
    }

    /// What the console (or with `shim`, the shim) has said: the last 4 MiB.
    pub fn logs(&self, name: &Name, shim: bool) -> Result<Vec<u8>> {
        use std::io::{Read, Seek, SeekFrom};
        let local = self.local(name);
        let path = if shim { local.shim_log() } else { local.console_log() };
        let mut file = match std::fs::File::open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                self.find(name)?;
                return Err(Failure::new(
                    "not_found",
                    format!("{name} has not run on this host: there is no log of it"),
                    "logs stay on the host that ran it",
                ));
            }
            Err(error) => return Err(error.into()),
        };
        let length = file.metadata()?.len();
        file.seek(SeekFrom::Start(length.saturating_sub(LOG_BYTES_MAX)))?;
        let mut bytes = Vec::new();
        file.take(LOG_BYTES_MAX).read_to_end(&mut bytes)?;
        Ok(bytes)
    }
}

fn does_not_end(name: &Name) -> Failure {
    let hint = format!("`collective logs {name} --shim` says what it waits for");
    Failure::new("timeout", format!("the shim of {name} does not end"), hint)
}

/// Puts the instance's name where a shim could only say "it".
pub(super) fn named(failure: Failure, name: &Name) -> Failure {
    let message = match failure.message.strip_prefix("it ") {
        Some(rest) => format!("{name} {rest}"),
        None => failure.message,
    };
    Failure { message, ..failure }.about(name)
}

pub(super) fn unexpected(reply: &Reply) -> Failure {
    Failure::new("internal", format!("unexpected reply {reply:?}"), "")
}
