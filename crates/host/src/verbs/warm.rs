//! `state: running`: a version that holds its computer running.
//!
//! ```text
//! cold version ──▶ an instance boots ──▶ ready ──▶ suspended ──▶ version with that memory
//!                                                                  │
//!                      the newest of its appliance ◀── it works ── an instance starts from it
//! ```
//! The second instance proves the version before anybody can see it, and leaves the trace of what
//! a start from this memory touches.
//!
//! *On a crash* the two instances, their shims included, are still there, and no version is
//! visible. Their names were written down first, in the build's folder of work: the next build (or
//! `doctor --fix`) finds that nobody works there and removes them.

use std::fs;
use std::path::Path;
use std::time::Duration;

use api::{StartPrint, WarmPrint};
use model::{CheckpointId, Name, Ready, VersionId};
use serde::{Deserialize, Serialize};
use volume::Trace;

use super::{BuildOptions, StartOptions};
use crate::failure::{Failure, Result};
use crate::record::{Checkpoint, How, Version, Warm};
use crate::shim::order::{Order, Start};
use crate::store::Store;
use crate::work::Work;
use crate::{Host, dir};

/// In a build's folder of work: the instances that it runs.
const INSTANCES: &str = "instances.json";
/// A guest that is ready goes on settling: what it frees meanwhile is not stored.
const SETTLE: Duration = Duration::from_secs(3);
/// An agent that is to come is waited for, after the guest is ready.
const AGENT_PATIENCE: Duration = Duration::from_secs(60);
/// How long one try may take.
const AGENT_TRY: Duration = Duration::from_secs(10);
/// A trace is learned soon after a start is ready, or it is done without.
const TRACE_PATIENCE: Duration = Duration::from_secs(20);
/// The package that is the agent, in Debian.
const AGENT_PACKAGE: &str = "qemu-guest-agent";

/// What a build runs.
#[derive(Serialize, Deserialize)]
struct Running {
    format: u32,
    repository: String,
    instances: Vec<String>,
}

/// The instances of one build; gone when this is dropped.
struct Maker<'a> {
    host: &'a Host,
    store: &'a Store,
    version: &'a Version,
    options: StartOptions,
    /// Booted, and from memory.
    names: [Name; 2],
}

impl Host {
    /// Makes the version that also holds `cold` running, proves it, and makes it the newest of its
    /// appliance.
    pub(super) fn warm_up(
        &self,
        store: &Store,
        id: VersionId,
        cold: &Version,
        options: &BuildOptions,
        work: &Work,
        progress: &mut dyn FnMut(&str),
    ) -> Result<(VersionId, WarmPrint)> {
        let maker = Maker::new(self, store, cold, options, work)?;
        progress("booting it, to start from its memory");
        let booted = maker.start(0, id, true)?;
        std::thread::sleep(SETTLE);
        let agent = maker.has_agent();
        progress("storing its memory");
        let stored = self.suspend(&maker.names[0], None)?;
        let taken: CheckpointId = stored
            .checkpoint
            .parse()
            .map_err(|_| Failure::new("internal", "the shim named no checkpoint", ""))?;
        let checkpoint = store.checkpoint(taken)?;
        let (id, version) = put(store, cold, &checkpoint, agent)?;

        progress("starting from its memory, to see that it can be done");
        let started = maker.start(1, id, false)?;
        if started.how != How::Continued.as_str() {
            let why = started.cold.unwrap_or_default();
            let hint = "an appliance without `state: running` boots each time";
            return Err(Failure::new("build", why, hint));
        }
        let trace = maker.traced(id)?;
        if let Some(trace) = checkpoint.traces.booted {
            let trace = Store::trace(&*store.source(), trace)?;
            store.set_version_trace(id, How::Booted, &Default::default(), &trace)?;
        }
        store.set_appliance(&version.appliance, id)?;
        maker.end()?;
        if !agent {
            progress(
                "no guest agent answers in it: every instance keeps the host name, the addresses and \
                 the keys of this one (docs/identity.md)",
            );
        }
        Ok((
            id,
            WarmPrint {
                memory_bytes: cold.hardware.memory_bytes,
                written_bytes: stored.dirty_bytes,
                stored_bytes: stored.stored_bytes,
                accel: started.accel,
                boot_ms: booted.ready_ms,
                start_ms: started.ready_ms,
                agent,
                traced_pages: trace.map_or(0, |trace| trace.pages()),
            },
        ))
    }

    /// Removes what a build that was killed ran. `dead` is its folder of work.
    pub(super) fn bury_build(&self, dead: &Path) -> Result<()> {
        let file = dead.join(INSTANCES);
        if !file.exists() {
            return Ok(());
        }
        let running: Running = dir::decode(&file)?;
        let host = Host { dir: self.dir.clone(), location: Some(running.repository) };
        for name in &running.instances {
            let name = Name::new(name).map_err(|e| Failure::new("damaged", e.to_string(), ""))?;
            remove(&host, &name)?;
        }
        Ok(())
    }
}

/// Removes an instance, if it ever came to be.
fn remove(host: &Host, name: &Name) -> Result<()> {
    match host.rm(name, true) {
        Err(failure) if failure.kind != "not_found" => Err(failure),
        _ => Ok(()),
    }
}

/// Stores the version that holds what the checkpoint has.
fn put(
    store: &Store,
    cold: &Version,
    checkpoint: &Checkpoint,
    agent: bool,
) -> Result<(VersionId, Version)> {
    let Some(memory) = checkpoint.memory.clone() else {
        return Err(Failure::new("internal", "a suspended computer has no memory", ""));
    };
    let warm = Warm { memory, disks: checkpoint.disks.clone(), agent };
    let version = Version { warm: Some(warm), ..cold.clone() };
    let mut session = store.session()?;
    let id = session.put_version(&version)?;
    session.finish()?;
    Ok((id, version))
}

impl<'a> Maker<'a> {
    fn new(
        host: &'a Host,
        store: &'a Store,
        version: &'a Version,
        options: &BuildOptions,
        work: &Work,
    ) -> Result<Self> {
        let appliance = version.appliance.as_str().rsplit('/').next().unwrap_or_default();
        let short: String = appliance.chars().take(32).collect();
        let tag = u32::from_le_bytes(ambient::random());
        let name = |what: &str| {
            Name::new(&format!("build-{short}-{tag:08x}-{what}"))
                .map_err(|e| Failure::new("internal", e.to_string(), ""))
        };
        let names = [name("boot")?, name("start")?];
        let running = Running {
            format: 1,
            repository: store.location().to_owned(),
            instances: names.iter().map(ToString::to_string).collect(),
        };
        dir::replace_json(&work.path().join(INSTANCES), &running)?;
        fs::File::open(work.path())?.sync_all()?;
        let options = StartOptions {
            ports: Vec::new(),
            network: None,
            accel: options.accel,
            wait: true,
            timeout: options.timeout,
        };
        Ok(Self { host, store, version, options, names })
    }

    /// Starts one of the two, and waits until it is ready.
    fn start(&self, which: usize, version: VersionId, boot: bool) -> Result<StartPrint> {
        let name = &self.names[which];
        let order = Order {
            repository: self.store.location().to_owned(),
            name: name.to_string(),
            start: Start::New {
                appliance: self.version.appliance.to_string(),
                version_id: version.to_string(),
                boot,
                // When it is stored is for its build to say.
                auto: Some("off".to_owned()),
                follow: None,
            },
            ports: Vec::new(),
            accel: self.options.accel.as_str().to_owned(),
            ready_timeout_ms: self.options.timeout.as_millis() as u64,
            maker: true,
            network: None,
            traceparent: spans::traceparent(),
        };
        let started = self.host.start_order(name, &order, &self.options, ambient::now());
        started.map_err(|failure| {
            let hint = match failure.kind {
                "not_ready" => {
                    "its `ready` must come true by itself; --timeout waits longer".into()
                }
                _ => failure.hint,
            };
            Failure { hint, ..failure }
        })
    }

    /// Whether the guest's agent runs programs. Where there is to be one, it is waited for.
    fn has_agent(&self) -> bool {
        let packages = &self.version.packages;
        let expected = self.version.ready == Ready::Agent
            || packages.iter().any(|(package, _)| package == AGENT_PACKAGE);
        let command = ["/bin/sh", "-c", ":"].map(str::to_owned);
        let deadline = ambient::now() + AGENT_PATIENCE;
        loop {
            let said = self.host.exec(&self.names[0], &command, None, AGENT_TRY);
            if said.is_ok_and(|said| said.exit_code == 0) {
                return true;
            }
            if !expected || ambient::now() >= deadline {
                return false;
            }
            std::thread::sleep(Duration::from_millis(200));
        }
    }

    /// What the start from memory has touched, once that is known.
    fn traced(&self, version: VersionId) -> Result<Option<Trace>> {
        let deadline = ambient::now() + TRACE_PATIENCE;
        loop {
            let read = self.store.version_trace(&*self.store.source(), version, How::Continued)?;
            if read.trace.is_some() || ambient::now() >= deadline {
                return Ok(read.trace);
            }
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    /// Removes the instances; a failure to do so is one of the build.
    fn end(&self) -> Result<()> {
        self.names.iter().try_for_each(|name| remove(self.host, name))
    }
}

impl Drop for Maker<'_> {
    fn drop(&mut self) {
        // What cannot be removed now is, by the next build.
        for name in &self.names {
            let _ = remove(self.host, name);
        }
    }
}
