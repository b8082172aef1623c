//! An instance that has a new version and has not shown yet that it works.
//!
//! Its shim examines it (`shim/trial.rs`); what is here is whoever started it: it waits for what comes
//! of that, and goes back.
//!
//! *Invariants.* What was tried is kept as a branch. What is asked of a version is written in the
//! checkpoint of its update, so that every host knows it, whomever it trusts. A change of the data's
//! form that was cut off is not gone on with: nobody knows how far it is.

use std::time::Duration;

use api::{Reply, Request, StartPrint, UpdatePrint};
use model::{CheckpointId, InstanceState, Name, PortMap};

use super::swap::Swap;
use super::{Found, SETTLE, missing, nothing};
use crate::failure::{Failure, Result};
use crate::makers::document::HEALTHY_WITHIN_S;
use crate::makers::{Appliance, Wanted};
use crate::record::{Change, Head, UpdatePolicy};
use crate::shim::order::{Order, Start};
use crate::shim::{claim, trial};
use crate::store::Store;
use crate::verbs::{Accelerator, StartOptions, publish, start};
use crate::{Host, dir, noted, ports};

/// Most of a console that goes into a report, bytes.
const CONSOLE_BYTES_MAX: usize = 16 << 10;

/// Failures of a start that say something about the version that is started.
const SAYS_SO: [&str; 5] = ["not_ready", "hypervisor", "agent", "timeout", "tools"];
/// Failures to write down that a version works which may be over a moment later.
const LATER: [&str; 5] = ["unavailable", "repository", "no_space", "permission", "io"];
/// Failures of a start that come before anything of the new version was tried.
const NOT_TRIED: [&str; 8] =
    ["lease", "fenced", "usage", "network", "repository", "unavailable", "no_space", "changed"];

impl Host {
    /// Starts an instance; one that is on trial goes back when it does not work.
    pub(in crate::verbs) fn start_on_trial(
        &self,
        store: &Store,
        name: &Name,
        start: Start,
        ports: &[PortMap],
        options: &StartOptions,
        began: ambient::Instant,
    ) -> Result<StartPrint> {
        let Some((_, head)) = store.head(name)?.head else { return Err(claim::not_found(name)) };
        let Some(trial) = head.trial else {
            return self.start_shim(store, name, start, ports, options, began);
        };
        // Until it is over, nobody else goes back.
        dir::make_private_dir(self.local(name).path())?;
        let _alone = trial::alone(&self.local(name))?;
        let change = store.last_change(&head)?.map(|(_, _, change)| change);
        let within = change.as_ref().map_or(HEALTHY_WITHIN_S, |change| change.within_s);
        let programs = change.as_ref().map_or(0, |change| {
            2 * u64::from(!change.migrate.is_empty()) + 2 * u64::from(!change.health.is_empty())
        });
        // Each may take so long, and so may the agent that runs it.
        let patient = StartOptions {
            wait: true,
            timeout: Duration::from_secs(within * (1 + programs)),
            ..options.clone()
        };
        let order = Order {
            ready_timeout_ms: within * 1000,
            ..start::order_of(store, name, start, ports, &patient)
        };
        let (from, to) = (self.number_of(store, trial.back), store.version(head.version)?.version);
        let mut print = nothing(name, &from, String::new());
        print.to = to;
        print.checkpoint = Some(trial.back.to_string());
        match self.start_order(name, &order, &patient, began) {
            Ok(started) => {
                print.warnings.extend(self.settle(name)?);
                print.applied = true;
                print.reason = None;
                self.note(name, |noted| (noted.offered, noted.undone) = (None, None));
                Ok(StartPrint { update: Some(print), ..started })
            }
            // It was not even tried: it stays on trial.
            Err(failure) if NOT_TRIED.contains(&failure.kind) => Err(failure
                .during("it does not run yet")
                .and(&format!("`collective resume {name}` starts it"))),
            Err(failure) => {
                self.undone(&head, &mut print, &failure);
                let gone = self.go_back(store, name, trial.back, ports, options, began);
                let started = gone.map_err(|also| {
                    also.during(format!("that does not work ({failure}), and it is not back yet"))
                        .and(&format!("`collective resume {name}` goes on"))
                })?;
                Ok(StartPrint { update: Some(print), ..started })
            }
        }
    }

    /// Says that a version did not work. That this cannot be written down hinders nothing.
    pub(super) fn undone(&self, head: &Head, print: &mut UpdatePrint, failure: &Failure) {
        print.rolled_back = true;
        print.report = self.report(head, print, failure);
        print.reason = Some(failure.message.clone());
        if !SAYS_SO.contains(&failure.kind) {
            let why = &failure.message;
            let undone = format!("version {} was undone, and is tried again: {why}", print.to);
            return self.note(&head.name, |noted| noted.undone = Some(undone));
        }
        if let (Ok(maker), Some(follow)) = (self.maker_of(head), &head.follow) {
            let _ = maker.mark_bad(&self.dir, follow.release);
        }
        let undone = format!("version {} did not work ({})", print.to, failure.message);
        self.note(&head.name, |noted| (noted.offered, noted.undone) = (None, Some(undone)));
    }

    /// Back to the checkpoint before the update, and on from there.
    pub(super) fn go_back(
        &self,
        store: &Store,
        name: &Name,
        back: CheckpointId,
        wanted: &[PortMap],
        options: &StartOptions,
        began: ambient::Instant,
    ) -> Result<StartPrint> {
        let undo = StartOptions { ports: wanted.to_vec(), ..options.clone() };
        let undone = self.undo(name, Some(&back.to_string()), &undo)?;
        ambient::step("update: gone back");
        if undone.state == InstanceState::Running.as_str() {
            return self.report_of_running(name, began);
        }
        let ports = ports::settle(&ports::free(wanted))?;
        let start = Start::Existing { take_over: false, at: None };
        self.start_shim(store, name, start, &ports, options, began)
    }

    /// It works: it no longer goes back by itself. Where that cannot be written down now, its shim goes on
    /// trying; gives what to say of it.
    fn settle(&self, name: &Name) -> Result<Option<String>> {
        let local = self.local(name);
        match local.doors().ask(local.path(), &Request::Settle, SETTLE) {
            Ok(_) => {
                ambient::step("update: settled");
                Ok(None)
            }
            Err(failure) if LATER.contains(&failure.kind) => Ok(Some(format!(
                "that it works is not written down yet, which is tried again: {}",
                failure.message
            ))),
            Err(failure) => Err(failure),
        }
    }

    /// How an instance that was started by another verb runs.
    fn report_of_running(&self, name: &Name, began: ambient::Instant) -> Result<StartPrint> {
        let status = self.status(name);
        let ms = began.elapsed().as_millis() as u64;
        Ok(StartPrint {
            name: name.to_string(),
            started_ms: ms,
            ready_ms: ms,
            fetched_bytes: 0,
            peer_bytes: 0,
            reused_bytes: 0,
            accel: status.as_ref().map(|status| status.accel.clone()).unwrap_or_default(),
            ports: status.map(|status| status.ports).unwrap_or_default(),
            how: "continued".to_owned(),
            cold: None,
            update: None,
        })
    }

    fn number_of(&self, store: &Store, checkpoint: CheckpointId) -> String {
        let version = store.checkpoint(checkpoint).and_then(|c| store.version(c.version));
        version.map(|version| version.version).unwrap_or_default()
    }

    /// Writes why an update did not work. That it cannot be written changes nothing.
    fn report(&self, head: &Head, print: &UpdatePrint, failure: &Failure) -> Option<String> {
        let maker = self.maker_of(head).ok()?;
        let console = self.logs(&head.name, false).unwrap_or_default();
        let tail = &console[console.len().saturating_sub(CONSOLE_BYTES_MAX)..];
        let report = serde_json::json!({
            "appliance": head.appliance.as_str(),
            "from": print.from,
            "to": print.to,
            "version_id": head.follow.as_ref().map(|follow| follow.release.to_string()),
            "kind": failure.kind,
            "reason": failure.message,
            "host": format!("collective {}", env!("CARGO_PKG_VERSION")),
            "console": String::from_utf8_lossy(tail),
        });
        let path = maker.report(&self.dir, head.name.as_str(), &report).ok()?;
        Some(path.to_string_lossy().into_owned())
    }

    /// An update that was cut off while it changed the form of the data is not gone on with. Says what
    /// was done about it, if it was so.
    pub(in crate::verbs) fn abandon_migration(
        &self,
        store: &Store,
        head: &Head,
        take_over: bool,
    ) -> Result<Option<UpdatePrint>> {
        let Some(trial) = head.trial.filter(|trial| trial.begun) else { return Ok(None) };
        // Its own start says where it runs.
        let elsewhere = head.lease.as_ref().is_some_and(|lease| lease.holder != self.dir.id());
        if elsewhere && !take_over {
            return Ok(None);
        }
        let change = store.last_change(head)?.map(|(_, _, change)| change);
        let is_well = head
            .follow
            .as_ref()
            .is_some_and(|follow| noted::is_well(&self.local(&head.name), follow.release));
        if is_well || change.is_none_or(|change| change.migrate.is_empty()) {
            return Ok(None);
        }
        let mut print = nothing(&head.name, &self.number_of(store, trial.back), String::new());
        print.to = store.version(head.version)?.version;
        print.rolled_back = true;
        print.checkpoint = Some(trial.back.to_string());
        let why = "it was cut off while it brought the data to its new form";
        print.reason = Some(why.to_owned());
        self.undo_as(&head.name, Some(&trial.back.to_string()), &self.patiently(), take_over)?;
        let undone = format!("version {} was undone: {why}", print.to);
        self.note(&head.name, |noted| noted.undone = Some(undone));
        Ok(Some(print))
    }

    /// As somebody would start it who is not there to say.
    pub(super) fn patiently(&self) -> StartOptions {
        StartOptions {
            ports: Vec::new(),
            network: None,
            accel: Accelerator::Auto,
            wait: true,
            timeout: Duration::from_secs(HEALTHY_WITHIN_S),
        }
    }

    /// Goes back with an instance whose new version does not work, when whoever started it is gone.
    pub(super) fn go_back_by_itself(&self, name: &Name) -> Result<()> {
        let began = ambient::now();
        let local = self.local(name);
        let _alone = trial::alone(&local)?;
        let store = self.writable_store()?;
        let Some((_, head)) = store.head(name)?.head else { return Ok(()) };
        let (Some(trial), true) = (head.trial, self.runs_here(name)?) else { return Ok(()) };
        let request = Request::AwaitReady { timeout_ms: 1000 };
        let failure = match local.doors().ask(local.path(), &request, Duration::from_secs(10)) {
            Err(failure) if failure.kind == "not_ready" => failure,
            Ok(Reply::Started(_)) | Ok(_) => return Ok(()),
            Err(failure) => return Err(failure),
        };
        let mut print = nothing(name, &self.number_of(&store, trial.back), String::new());
        print.to = store.version(head.version)?.version;
        self.undone(&head, &mut print, &failure);
        let ports = local.read()?.map_or_else(Vec::new, |local| ports::read(&local.ports));
        self.go_back(&store, name, trial.back, &ports, &self.patiently(), began).map(drop)
    }

    /// A stopped instance gets its maker's new version before it starts, where it is to have that by
    /// itself. Nobody is asked for news: that is done while it runs.
    pub(in crate::verbs) fn update_before_start(&self, store: &Store, head: &Head) -> Result<()> {
        let Some(follow) = &head.follow else { return Ok(()) };
        let Some(channel) = follow.channel.as_deref() else { return Ok(()) };
        let rests = self.state_of(store, &head.name)? == InstanceState::Stopped;
        if follow.policy != UpdatePolicy::Auto || head.trial.is_some() || !rests {
            return Ok(());
        }
        let Ok(maker) = self.maker_of(head) else { return Ok(()) };
        let Ok(trusted) = maker.kept(&self.dir, None) else { return Ok(()) };
        let short = publish::short_name(&head.appliance);
        let Ok(Some(appliance)) = Appliance::read(&trusted, short) else { return Ok(()) };
        let wanted = Wanted::Channel(channel);
        let found = self.find_update(&maker, &trusted, &appliance, head, follow, wanted);
        let Ok(Found::New(release)) = found else { return Ok(()) };
        let Ok(id) = release.version_id() else { return Ok(()) };
        // Only what was fetched: a start does not wait for a new version.
        let is_here = || -> Result<bool> {
            let (old, new) = (store.version(head.version)?, store.version(id)?);
            Ok(missing(&self.fetcher(store)?, &old, &new)?.is_empty())
        };
        if !is_here().unwrap_or(false) {
            return Ok(());
        }
        let change = Change::of(&release, follow.release, id);
        let (version, number) = (id, release.version.as_str());
        match self.swap(store, &Swap { name: &head.name, version, number, change, back: None }) {
            // It cannot be had under this data: `update` says why.
            Err(failure) if failure.kind != "state" => Err(failure),
            _ => Ok(()),
        }
    }
}
