//! `run` and `resume`: start a shim, and wait for what it says.

use std::ffi::OsStr;
use std::fs::File;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use api::{Reply, Request, StartPrint, StartReport};
use model::{InstanceState, Name, PortMap, VersionId};

use super::ask::named;
use super::{Reference, ResumeOptions, RunOptions, StartOptions};
use crate::dir::HostDir;
use crate::failure::{Failure, Result};
use crate::ports;
use crate::record::{Follow, UpdatePolicy};
use crate::shim::order::{FollowOrder, Order, Start};
use crate::socket;
use crate::store::Store;
use crate::{Host, dir, local::LocalDir, makers, shim};

/// A shim's socket is there this soon, or its birth has failed.
const BIRTH: Duration = Duration::from_secs(30);
/// What is added to the guest's own deadline, for what comes before its start.
const MARGIN: Duration = Duration::from_secs(60);

impl Host {
    /// Starts a new instance of an appliance.
    pub fn run(&self, options: &RunOptions) -> Result<StartPrint> {
        let began = ambient::now();
        let store = self.writable_store()?;
        let (version_id, follow) = self.version_of(&store, &options.appliance, options.updates)?;
        let name = match &options.name {
            Some(name) => name.clone(),
            None => self.free_name(&store, &options.appliance.name)?,
        };
        if self.runs_here(&name)? {
            return Err(Failure::new(
                "exists",
                format!("there is an instance {name} already (running)"),
                format!("`collective rm {name}` removes it, or choose another --name"),
            ));
        }
        // Only of a free name: what is wrong with it is said before anything is stored.
        if let Some((_, head)) = store.head(&name)?.head {
            return Err(shim::claim::exists(&name, &head));
        }
        let outfit = super::outfit::outfit(&store, version_id, &name, options)?;
        let auto = match options.auto {
            Some(change) => change.apply(outfit.auto.or(self.dir.auto()))?,
            None => None,
        };
        let start = Start::New {
            appliance: options.appliance.name.to_string(),
            version_id: outfit.version.to_string(),
            boot: options.boot,
            follow: follow.as_ref().map(FollowOrder::from),
            auto: auto.map(|auto| auto.to_string()),
        };
        let ports = ports::settle(&options.start.ports)?;
        let started = self.start_shim(&store, &name, start, &ports, &options.start, began)?;
        Ok(StartPrint { cold: started.cold.or(outfit.cold.filter(|_| !options.boot)), ..started })
    }

    /// The version that a reference means, and whose versions the instance gets from then on.
    pub(super) fn version_of(
        &self,
        store: &Store,
        appliance: &Reference,
        updates: UpdatePolicy,
    ) -> Result<(VersionId, Option<Follow>)> {
        let Reference { name, channel, version } = appliance;
        if let Some(maker) = makers::of(&self.dir, name)? {
            let (id, follow) = self.signed_version(store, &maker, appliance, updates)?;
            return Ok((id, Some(follow)));
        }
        if channel.is_some() || version.is_some() {
            let maker = name.as_str().split_once('/').map_or(name.as_str(), |(maker, _)| maker);
            return Err(Failure::new(
                "not_found",
                format!("this host trusts no maker {maker}: channels and versions are a maker's"),
                "`collective trust add LOCATION` begins to; without :CHANNEL or @VERSION the newest \
                 in the repository is meant",
            ));
        }
        let Some(id) = store.appliance(name)? else {
            return Err(Failure::new(
                "not_found",
                format!("there is no appliance {name} in {}", store.places()),
                "`collective appliances` lists them; `collective build FOLDER` adds one; what a maker \
                 publishes is there after `collective trust add LOCATION`",
            ));
        };
        Ok((id, None))
    }

    /// Goes on with a suspended instance, or starts a stopped (or failed) one. A stopped one gets its
    /// maker's new version before, where it is to have that by itself.
    pub fn resume(&self, options: &ResumeOptions) -> Result<StartPrint> {
        let began = ambient::now();
        let name = &options.name;
        let store = self.writable_store()?;
        let local = self.local(name);
        if self.runs_here(name)? {
            let paused = matches!(
                local.doors().ask(local.path(), &Request::Status, Duration::from_secs(5)),
                Ok(Reply::Status(status)) if status.state == "paused"
            );
            return Err(Failure::new(
                "state",
                format!("{name} runs on this host already"),
                if paused {
                    format!("it is paused: `collective unpause {name}` lets it go on")
                } else {
                    format!("`collective inspect {name}` shows it")
                },
            ));
        }
        // Asked before a shim is: it would leave a folder and a log for a name that nobody has.
        let Some((generation, head)) = store.head(name)?.head else {
            return Err(self.absent(&store, name));
        };
        if options.at.is_some_and(|at| at != generation) {
            return Err(shim::claim::moved(name));
        }
        let abandoned = self.abandon_migration(&store, &head, options.take_over)?;
        if abandoned.is_none() {
            self.update_before_start(&store, &head)?;
        }
        let network = options.start.network.as_ref().or(head.network.as_ref());
        let wanted = if network.is_some_and(|network| network.as_str() != network::USER) {
            // Its ports are its own there; what is published all the same is refused.
            options.start.ports.clone()
        } else if options.start.ports.is_empty() {
            self.remembered_ports(name)?
        } else {
            options.start.ports.clone()
        };
        let ports = ports::settle(&wanted)?;
        // Nobody but its holder could have moved it in between; one that is taken over has another.
        let at = options.at.filter(|_| options.take_over).map(|at| at.0);
        let start = Start::Existing { take_over: options.take_over, at };
        let started = self.start_on_trial(&store, name, start, &ports, &options.start, began)?;
        Ok(StartPrint { update: started.update.or(abandoned), ..started })
    }

    /// The ports that were published when this host ran it last; a port that somebody else has
    /// taken meanwhile gives way to a free one.
    pub(super) fn remembered_ports(&self, name: &Name) -> Result<Vec<PortMap>> {
        let remembered = self.local(name).read()?.map(|local| ports::read(&local.ports));
        Ok(ports::free(&remembered.unwrap_or_default()))
    }

    /// Starts a shim and waits for it.
    pub(super) fn start_shim(
        &self,
        store: &Store,
        name: &Name,
        start: Start,
        ports: &[PortMap],
        options: &StartOptions,
        began: ambient::Instant,
    ) -> Result<StartPrint> {
        let order = order_of(store, name, start, ports, options);
        self.start_order(name, &order, options, began)
    }

    /// Gives a shim its order, and waits for it.
    pub(super) fn start_order(
        &self,
        name: &Name,
        order: &Order,
        options: &StartOptions,
        began: ambient::Instant,
    ) -> Result<StartPrint> {
        let local = self.local(name);
        local.doors().bear(&self.dir, &local, order)?;
        let before_ms = began.elapsed().as_millis() as u64;
        let timeout = options.timeout + MARGIN;
        let request = if options.wait {
            Request::AwaitReady { timeout_ms: timeout.as_millis() as u64 }
        } else {
            Request::AwaitStarted { timeout_ms: timeout.as_millis() as u64 }
        };
        let reply = local.doors().ask(local.path(), &request, timeout + Duration::from_secs(5));
        let report = match reply {
            Ok(Reply::Started(report)) => report,
            Ok(other) => {
                return Err(Failure::new("internal", format!("unexpected reply {other:?}"), ""));
            }
            Err(failure) => {
                // A shim that could not start its guest ends: the next verb must not meet it.
                if failure.kind != "not_ready" && failure.kind != "timeout" {
                    let _ = self.await_end(name);
                }
                return Err(named(with_log(failure, &local), name));
            }
        };
        Ok(print(name, report, before_ms))
    }

    fn free_name(&self, store: &Store, appliance: &Name) -> Result<Name> {
        let base = appliance.as_str().rsplit('/').next().unwrap_or("instance");
        (1..=10_000)
            .filter_map(|number| Name::new(&format!("{base}-{number}")).ok())
            .find_map(|name| match store.head(&name) {
                Ok(current) if current.head.is_none() => match self.local(&name).read() {
                    Ok(None) => Some(Ok(name)),
                    _ => None,
                },
                Ok(_) => None,
                Err(failure) => Some(Err(failure)),
            })
            .unwrap_or_else(|| Err(Failure::new("usage", "no free name", "choose one with --name")))
    }

    /// The state that the repository and this host know together.
    pub(super) fn state_of(&self, store: &Store, name: &Name) -> Result<InstanceState> {
        let Some((_, head)) = store.head(name)?.head else {
            return Err(shim::claim::not_found(name));
        };
        let mine = head.lease.as_ref().is_some_and(|lease| lease.holder == self.dir.id());
        Ok(if mine && !self.dir.doors().is_alive(self.local(name).path()) {
            InstanceState::Failed
        } else {
            head.state
        })
    }
}

/// What a shim is told.
pub(super) fn order_of(
    store: &Store,
    name: &Name,
    start: Start,
    ports: &[PortMap],
    options: &StartOptions,
) -> Order {
    Order {
        repository: store.location().to_owned(),
        name: name.to_string(),
        start,
        ports: ports::print(ports),
        accel: options.accel.as_str().to_owned(),
        ready_timeout_ms: options.timeout.as_millis() as u64,
        maker: false,
        network: options.network.as_ref().map(Name::to_string),
        traceparent: spans::traceparent(),
    }
}

fn print(name: &Name, report: StartReport, before_ms: u64) -> StartPrint {
    StartPrint {
        name: name.to_string(),
        started_ms: before_ms + report.started_ms,
        ready_ms: before_ms + report.ready_ms,
        fetched_bytes: report.fetched_bytes,
        peer_bytes: report.peer_bytes,
        reused_bytes: report.reused_bytes,
        accel: report.accel,
        ports: report.ports,
        how: report.how,
        cold: report.cold,
        update: None,
    }
}

/// The program that is started as a shim: this one.
pub(super) fn program() -> Result<PathBuf> {
    let named = std::env::current_exe()
        .map_err(|e| Failure::from(e).during("cannot find the collective program itself"))?;
    // When a newer one took its place while it runs it has no name any more, but is still there.
    Ok(if named.exists() { named } else { PathBuf::from("/proc/self/exe") })
}

/// Starts a shim; it listens when this returns.
pub(crate) fn bear(host: &HostDir, local: &LocalDir, order: &Order) -> Result<()> {
    let mut child = spawn(host, local, order)?;
    await_birth(local, &mut child)
}

/// Starts the shim as a process that outlives this one.
fn spawn(host: &HostDir, local: &LocalDir, order: &Order) -> Result<Child> {
    dir::make_private_dir(local.path())?;
    let order =
        serde_json::to_string(order).map_err(|e| Failure::new("internal", e.to_string(), ""))?;
    let words = ["__shim".as_ref(), host.root().as_os_str(), order.as_ref()];
    detached(local, &words).map_err(|e| e.during("cannot start the instance's shim"))
}

/// Starts this program as a process that outlives this one and writes to the instance's log.
pub(super) fn detached(local: &LocalDir, words: &[&OsStr]) -> Result<Child> {
    let log = File::options().create(true).append(true).open(local.shim_log())?;
    let child = Command::new(program()?)
        .args(words)
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log)
        // A group of its own: Ctrl-C of the command is not for the guest.
        .process_group(0)
        .spawn()?;
    Ok(child)
}

/// Waits until the shim listens.
fn await_birth(local: &LocalDir, child: &mut Child) -> Result<()> {
    let deadline = ambient::now() + BIRTH;
    loop {
        if socket::is_alive(local.path()) {
            return Ok(());
        }
        if let Some(status) = child.try_wait()? {
            let failure = Failure::new("internal", format!("its shim ended: {status}"), "");
            return Err(with_log(failure, local));
        }
        if ambient::now() >= deadline {
            return Err(with_log(Failure::new("timeout", "its shim does not answer", ""), local));
        }
        ambient::sleep(Duration::from_millis(2));
    }
}

/// Adds where to look when there is no better hint.
fn with_log(failure: Failure, local: &LocalDir) -> Failure {
    if failure.hint.is_empty() {
        let hint = format!("see {}", local.shim_log().display());
        Failure { hint, ..failure }
    } else {
        failure
    }
}
