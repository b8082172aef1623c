//! `update`, `rollback`: another version's system disk under the user's data.
//!
//! ```text
//! (running) ──checkpoint──▶ back ──stop──▶ at rest ──swap──▶ on trial ──ready, healthy──▶ settled
//!                             ▲                                  │
//!                             └────────── does not work ─────────┘   what was tried is kept as a branch
//! ```
//!
//! *Swap* is one checkpoint that has the new version's system disks and the user's data disks as they
//! are, and one advance of the head: a crash leaves the old version or the new one. While an instance
//! is on trial its head says what it goes back to, so whoever starts it next knows.
//!
//! *Invariants.* A data disk is the same manifest before and after. Nothing is swapped under a memory:
//! a suspended instance keeps its version until it has stopped.

use std::time::Duration;

use api::{StartPrint, UpdatePrint};
use model::{CheckpointId, InstanceState, Name, PortMap, VersionId};

use super::StartOptions;
use crate::failure::{Failure, Result};
use crate::makers::{self, Appliance, Maker, Release, Wanted};
use crate::record::{Checkpoint, Follow, Head, Traces, Trial, UpdatePolicy, Why};
use crate::shim::claim;
use crate::shim::order::{Order, Start};
use crate::store::{Advance, Store};
use crate::{Host, ports};

mod background;
mod dress;
mod fetch;
mod find;
mod noted;
mod rollback;

use dress::{dressed, fits};
use fetch::{PAGE, missing, wire_bytes};
use find::Found;

pub(crate) use background::begin as look_for_updates;
pub use background::updates_main;

/// How far `update` goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UpdateMode {
    /// Says what there is.
    Check,
    /// Brings it here.
    Fetch,
    /// Brings it here and applies it.
    Now,
}

/// What `update` is asked.
#[derive(Debug, Clone)]
pub struct UpdateOptions {
    pub name: Name,
    pub mode: UpdateMode,
    /// A version, instead of what its channel offers.
    pub to: Option<String>,
    /// Follow this channel from now on.
    pub channel: Option<String>,
    /// What becomes of new versions from now on.
    pub updates: Option<Following>,
    /// Bytes a second at which the new version is fetched, at most.
    pub rate: Option<u64>,
    /// Without asking the guest to power off.
    pub force: bool,
    pub start: StartOptions,
}

/// What is to become of new versions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Following {
    By(UpdatePolicy),
    /// Nothing: it stays at its version.
    Pinned,
}

impl Following {
    /// Reads `auto`, `ask` or `pinned`.
    pub fn parse(text: &str) -> Option<Self> {
        match text {
            "pinned" => Some(Self::Pinned),
            other => UpdatePolicy::parse(other).map(Self::By),
        }
    }
}

/// A guest may take so long to power itself off before an update.
const POWER_OFF: Duration = Duration::from_secs(60);
/// Its maker's programs in it may take this long, where they say nothing.
const PROGRAM: Duration = Duration::from_secs(600);
/// Most of a console that goes into a report, bytes.
const CONSOLE_BYTES_MAX: usize = 16 << 10;

/// Failures of a start that say something about the version that is started.
const SAYS_SO: [&str; 4] = ["not_ready", "hypervisor", "agent", "timeout"];

impl Host {
    /// Brings an instance to its maker's new version.
    pub fn update(
        &self,
        options: &UpdateOptions,
        progress: &mut dyn FnMut(&str),
    ) -> Result<UpdatePrint> {
        let name = &options.name;
        let store = self.writable_store()?;
        let Some((_, head)) = store.head(name)?.head else { return Err(claim::not_found(name)) };
        let Some(now) = head.follow.clone() else { return Err(no_maker(&head)) };
        let maker = self.maker_of(&head)?;
        let trusted = maker.ask_or_kept(&self.dir)?;
        let short = super::publish::short_name(&head.appliance);
        let appliance = self.published(&maker, &trusted, short)?;
        let version = store.version(head.version)?;
        let follow = options.follow(name, &now)?;
        if let Some(channel) = follow.channel.as_deref().filter(|_| options.channel.is_some())
            && !appliance.channels.contains_key(channel)
        {
            let all: Vec<&str> = appliance.channels.keys().map(String::as_str).collect();
            let why = format!("{short} has no channel {channel}: there is {}", all.join(", "));
            return Err(super::trust::not_offered(&maker, &why));
        }
        if follow != now {
            self.set_follow(&store, name, &follow)?;
        }
        let wanted = match (&options.to, follow.channel.as_deref()) {
            (Some(version), _) => Wanted::Version(version),
            (None, Some(channel)) => Wanted::Channel(channel),
            (None, None) => {
                self.note(name, |noted| noted.asked(None));
                return Ok(nothing(
                    name,
                    &version.version,
                    format!(
                        "it stays at its version: `collective update {name} --channel stable` lets it follow"
                    ),
                ));
            }
        };
        let found = self.find_update(&maker, &trusted, &appliance, &head, &follow, wanted)?;
        let fresh = trusted.freshness().asked;
        self.note(name, |noted| match &found {
            Found::New(release) if fresh => {
                noted.asked(release.version_id().ok().map(|id| (release.version.as_str(), id)));
            }
            Found::Nothing(_) if fresh => noted.asked(None),
            _ => noted.failing.clone_from(&trusted.freshness().why),
        });
        let release = match found {
            Found::Nothing(why) => return Ok(nothing(name, &version.version, why)),
            Found::New(release) => release,
        };
        if options.to.is_some() {
            maker.forgive(&self.dir, release.version_id()?)?;
        }
        let id = self.take_version(&store, &maker, &release)?;
        let new = store.version(id)?;
        let mut print = nothing(name, &version.version, String::new());
        print.to.clone_from(&release.version);
        if options.mode == UpdateMode::Check {
            let (missing, _) = missing(self, &store, &maker, &version, &new)?;
            print.fetched_bytes = 0;
            print.reused_bytes = release.content_bytes.saturating_sub(missing.len() as u64 * PAGE);
            let size = wire_bytes(&store, &missing);
            print.reason = Some(format!("{} to fetch", model::format_bytes(size)));
            return Ok(print);
        }
        let before = store.fetched_bytes();
        let here = self.fetch_ahead(&store, &maker, &version, &new, options.rate, progress)?;
        print.fetched_bytes = store.fetched_bytes() - before;
        print.reused_bytes = release.content_bytes.saturating_sub(here);
        self.note(name, |noted| {
            if let Some(offered) = &mut noted.offered {
                offered.here = true;
            }
        });
        if options.mode == UpdateMode::Fetch {
            print.reason = Some(self.when(name, follow.policy));
            return Ok(print);
        }
        self.apply(&store, &head, id, &release, options, print)
    }

    /// Applies a version that is here.
    fn apply(
        &self,
        store: &Store,
        head: &Head,
        id: VersionId,
        release: &Release,
        options: &UpdateOptions,
        mut print: UpdatePrint,
    ) -> Result<UpdatePrint> {
        let began = ambient::now();
        let name = &options.name;
        let runs = self.runs_here(name)?;
        let state = self.state_of(store, name)?;
        let mut ports = options.start.ports.clone();
        if ports.is_empty() {
            ports = self.local(name).read()?.map_or_else(Vec::new, |l| ports::read(&l.ports));
        }
        match state {
            InstanceState::Running | InstanceState::Paused if !runs => {
                let host = head.lease.as_ref().map_or("", |lease| &lease.holder_name);
                return Err(Failure::new(
                    "lease",
                    format!("{name} runs on host {host}"),
                    "update it there, or stop it there first",
                ));
            }
            InstanceState::Suspended => {
                return Err(Failure::new(
                    "state",
                    format!("{name} is suspended: its memory belongs to version {}", print.from),
                    format!(
                        "it keeps that until it stops: `collective resume {name}`, then update it"
                    ),
                ));
            }
            InstanceState::Failed => {
                return Err(Failure::new(
                    "state",
                    format!("{name} has failed"),
                    format!("`collective resume {name}` or `collective undo {name}` first"),
                ));
            }
            _ => {}
        }
        let old = store.version(head.version)?;
        fits(name, &old, &store.version(id)?)?;
        let back = if runs {
            let label = format!("before update to {}", release.version);
            let taken = self.checkpoint_for(name, Some(&label), Why::Checkpoint)?;
            ambient::step("update: point to go back to");
            self.stop(name, options.force, POWER_OFF)?;
            ambient::step("update: stopped");
            Some(parse_id(&taken.checkpoint)?)
        } else {
            head.checkpoint
        };
        print.checkpoint = back.map(|id| id.to_string());
        let follow = head.follow.as_ref().ok_or_else(|| no_maker(head))?;
        let trial = back.map(|back| Trial { back, release: follow.release });
        if let Err(failure) = self.swap(store, name, id, &release.version, trial) {
            // Nothing was changed but that it has stopped: it goes on where it was.
            if let Some(back) = back.filter(|_| runs) {
                self.go_back(store, name, back, &ports, &options.start, began)?;
            }
            return Err(failure.during(format!("{name} was not updated, and is as it was")));
        }
        print.applied = true;
        if !runs {
            print.reason = Some("it is looked at when it next starts".to_owned());
            return Ok(print);
        }
        let ports = ports::settle(&ports::free(&ports))?;
        let start = Start::Existing { take_over: false };
        let started = self.start_on_trial(store, name, start, &ports, &options.start, began)?;
        if let Some(outcome) = started.update {
            print.applied = outcome.applied;
            print.rolled_back = outcome.rolled_back;
            print.reason = outcome.reason;
            print.report = outcome.report;
        }
        Ok(print)
    }

    /// The one moment: other system disks, the same data disks. The instance is at rest.
    fn swap(
        &self,
        store: &Store,
        name: &Name,
        release: VersionId,
        number: &str,
        trial: Option<Trial>,
    ) -> Result<CheckpointId> {
        let Some((generation, head)) = store.head(name)?.head else {
            return Err(claim::not_found(name));
        };
        if head.state != InstanceState::Stopped {
            return Err(fenced(name));
        }
        let old = store.version(head.version)?;
        let new = store.version(release)?;
        fits(name, &old, &new)?;
        let now = match head.checkpoint {
            Some(id) => store.checkpoint(id)?.disks,
            None => old.first_disks(head.warm).to_vec(),
        };
        let mut session = store.session()?;
        let (version, disks) = dressed(&old, &now, new);
        let version_id = if version.disks.len() == store.version(release)?.disks.len() {
            release
        } else {
            session.put_version(&version)?
        };
        let checkpoint = Checkpoint {
            instance: head.instance,
            parent: head.explicit(),
            version: version_id,
            label: Some(format!("update to {number}")),
            why: Why::Update,
            taken_unix_ms: ambient::unix_ms(),
            memory: None,
            disks,
            dirty_bytes: 0,
            stored_bytes: 0,
            pause_us: None,
            traces: Traces::default(),
        };
        let id = session.put_checkpoint(&checkpoint)?;
        session.finish()?;
        ambient::step("update: stored");
        let next = Head {
            version: version_id,
            checkpoint: Some(id),
            state: InstanceState::Stopped,
            lease: None,
            warm: false,
            macs: claim::macs_for(store, head.macs.clone(), version_id)?,
            follow: head.follow.clone().map(|follow| Follow { release, ..follow }),
            trial,
            ..head
        };
        if store.advance(generation, &next)? == Advance::Fenced {
            return Err(fenced(name));
        }
        ambient::step("update: visible");
        Ok(id)
    }

    /// An update that was cut off while it changed the form of the data is not gone on with: nobody
    /// knows how far that is. Says whether the instance is back at its old version.
    pub(super) fn abandon_migration(&self, head: &Head) -> Result<bool> {
        let Some(trial) = head.trial else { return Ok(false) };
        let migrates =
            self.release_on_trial(head).is_some_and(|release| !release.update.migrate.is_empty());
        if migrates {
            let options = StartOptions {
                ports: Vec::new(),
                accel: super::Accelerator::Auto,
                wait: true,
                timeout: PROGRAM,
            };
            self.undo(&head.name, Some(&trial.back.to_string()), &options)?;
        }
        Ok(migrates)
    }

    /// Starts an instance that is on trial, and looks whether it works: else it goes back.
    pub(super) fn start_on_trial(
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
        let release = self.release_on_trial(&head);
        let within = release
            .as_ref()
            .map_or(makers::document::HEALTHY_WITHIN_S, |release| release.update.healthy_within_s);
        let patient =
            StartOptions { wait: true, timeout: Duration::from_secs(within), ..options.clone() };
        let (from, to) = (self.number_of(store, trial.back), store.version(head.version)?.version);
        let asked = |release: &Release| {
            !release.update.health.is_empty() || !release.update.migrate.is_empty()
        };
        let settles = !release.as_ref().is_some_and(asked);
        let order =
            Order { settles, ..super::start::order_of(store, name, start, ports, &patient) };
        let started = self
            .start_order(name, &order, &patient, began)
            .and_then(|started| self.examine(name, release.as_ref()).map(|()| started));
        let mut print = nothing(name, &from, String::new());
        print.to = to;
        print.checkpoint = Some(trial.back.to_string());
        match started {
            Ok(started) => {
                self.settle(name)?;
                print.applied = true;
                print.reason = None;
                self.note(name, |noted| (noted.offered, noted.undone) = (None, None));
                Ok(StartPrint { update: Some(print), ..started })
            }
            // That says nothing about the version: it stays on trial.
            Err(failure) if !SAYS_SO.contains(&failure.kind) => Err(failure),
            Err(failure) => {
                print.rolled_back = true;
                print.report = self.report(&head, &print, &failure);
                print.reason = Some(failure.message.clone());
                if let Ok(maker) = self.maker_of(&head)
                    && let Some(follow) = &head.follow
                {
                    maker.mark_bad(&self.dir, follow.release)?;
                }
                let undone = format!("version {} did not work ({})", print.to, failure.message);
                self.note(name, |noted| (noted.offered, noted.undone) = (None, Some(undone)));
                let started = self.go_back(store, name, trial.back, ports, options, began)?;
                Ok(StartPrint { update: Some(print), ..started })
            }
        }
    }

    /// Back to the checkpoint before the update, and on from there.
    fn go_back(
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
        let start = Start::Existing { take_over: false };
        self.start_shim(store, name, start, &ports, options, began)
    }

    /// What the maker's programs in the guest say.
    fn examine(&self, name: &Name, release: Option<&Release>) -> Result<()> {
        let Some(release) = release else { return Ok(()) };
        for (what, program) in [
            ("bringing its data to the new form", &release.update.migrate),
            ("its own check", &release.update.health),
        ] {
            if program.is_empty() {
                continue;
            }
            self.await_agent(name, Duration::from_secs(release.update.healthy_within_s))?;
            let within = PROGRAM.min(Duration::from_secs(release.update.healthy_within_s.max(1)));
            let done = self.exec(name, program, None, within)?;
            ambient::step("update: looked at");
            if done.exit_code != 0 {
                return Err(Failure::new(
                    "not_ready",
                    format!("{what} failed with code {}", done.exit_code),
                    "",
                ));
            }
        }
        Ok(())
    }

    fn await_agent(&self, name: &Name, within: Duration) -> Result<()> {
        let deadline = ambient::now() + within;
        loop {
            let asked = self.exec(name, &["/bin/true".to_owned()], None, Duration::from_secs(10));
            match asked {
                Ok(_) => return Ok(()),
                Err(failure) if ambient::now() >= deadline => return Err(failure),
                Err(_) => ambient::sleep(Duration::from_millis(200)),
            }
        }
    }

    /// It works: it no longer goes back by itself.
    fn settle(&self, name: &Name) -> Result<()> {
        let local = self.local(name);
        local.doors().ask(local.path(), &api::Request::Settle, PROGRAM)?;
        ambient::step("update: settled");
        Ok(())
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
            reused_bytes: 0,
            accel: status.as_ref().map(|status| status.accel.clone()).unwrap_or_default(),
            ports: status.map(|status| status.ports).unwrap_or_default(),
            how: "continued".to_owned(),
            cold: None,
            update: None,
        })
    }

    /// What its maker says of the version that is on trial, as believed last.
    fn release_on_trial(&self, head: &Head) -> Option<Release> {
        let maker = self.maker_of(head).ok()?;
        let trusted = maker.kept(&self.dir, None).ok()?;
        let short = super::publish::short_name(&head.appliance);
        let appliance = Appliance::read(&trusted, short).ok()??;
        let listed = appliance.with_id(head.follow.as_ref()?.release)?;
        Release::read(&trusted, short, listed).ok()
    }

    /// A stopped instance gets its maker's new version before it starts, where it is to have that by
    /// itself. Nobody is asked for news: that is done while it runs.
    pub(super) fn update_before_start(&self, store: &Store, head: &Head) -> Result<bool> {
        let Some(follow) = &head.follow else { return Ok(false) };
        let Some(channel) = follow.channel.as_deref() else { return Ok(false) };
        let rests = self.state_of(store, &head.name)? == InstanceState::Stopped;
        if follow.policy != UpdatePolicy::Auto || head.trial.is_some() || !rests {
            return Ok(false);
        }
        let Ok(maker) = self.maker_of(head) else { return Ok(false) };
        let Ok(trusted) = maker.kept(&self.dir, None) else { return Ok(false) };
        let short = super::publish::short_name(&head.appliance);
        let Ok(Some(appliance)) = Appliance::read(&trusted, short) else { return Ok(false) };
        let wanted = Wanted::Channel(channel);
        let found = self.find_update(&maker, &trusted, &appliance, head, follow, wanted);
        let Ok(Found::New(release)) = found else { return Ok(false) };
        let (Ok(id), Some(back)) = (release.version_id(), head.checkpoint) else {
            return Ok(false);
        };
        // Only what was fetched: a start does not wait for a new version.
        if !self.is_here(store, &maker, head, id) {
            return Ok(false);
        }
        let trial = Trial { back, release: follow.release };
        match self.swap(store, &head.name, id, &release.version, Some(trial)) {
            Ok(_) => Ok(true),
            // It cannot be had under this data: `update` says why.
            Err(failure) if failure.kind == "state" => Ok(false),
            Err(failure) => Err(failure),
        }
    }

    fn is_here(&self, store: &Store, maker: &Maker, head: &Head, id: VersionId) -> bool {
        let look = || -> Result<bool> {
            let (old, new) = (store.version(head.version)?, store.version(id)?);
            Ok(missing(self, store, maker, &old, &new)?.0.is_empty())
        };
        look().unwrap_or(false)
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
}

fn nothing(name: &Name, from: &str, reason: String) -> UpdatePrint {
    UpdatePrint {
        name: name.to_string(),
        from: from.to_owned(),
        to: from.to_owned(),
        fetched_bytes: 0,
        reused_bytes: 0,
        applied: false,
        rolled_back: false,
        reason: Some(reason),
        checkpoint: None,
        report: None,
    }
}

fn no_maker(head: &Head) -> Failure {
    Failure::new(
        "state",
        format!(
            "{} has no maker that publishes: {} was built or imported here",
            head.name, head.appliance
        ),
        "instances of what a trusted maker publishes are updated: `collective run MAKER/NAME:stable`",
    )
}

fn fenced(name: &Name) -> Failure {
    Failure::new(
        "fenced",
        format!("another host has moved {name} meanwhile"),
        "`collective ps` shows where it is; nothing was lost",
    )
}

fn parse_id(text: &str) -> Result<CheckpointId> {
    text.parse().map_err(|_| Failure::new("internal", "the shim named no checkpoint", ""))
}
