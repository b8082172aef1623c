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

use api::UpdatePrint;
use model::{CheckpointId, InstanceState, Name, VersionId};

use super::StartOptions;
use crate::failure::{Failure, Result};
use crate::makers::{Release, Wanted};
use crate::record::{Change, Head, UpdatePolicy, Why};
use crate::shim::claim;
use crate::shim::order::Start;
use crate::store::Store;
use crate::{Host, ports};

mod background;
mod dress;
mod fetch;
mod find;
mod rollback;
mod swap;
mod trial;

use dress::{can_run, fits};
use fetch::News;
pub(super) use fetch::{missing, wire_bytes};
use find::Found;
use swap::Swap;

pub use background::updates_main;
pub(crate) use background::{go_back as go_back_by_itself, look as look_for_updates};

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
/// The shim writes down that it works, or what it follows, after what it is doing now.
const SETTLE: Duration = Duration::from_secs(600);
/// Nothing that runs is stopped for an update on a disk with less room than this, bytes.
const ROOM: u64 = 8 << 20;

impl Host {
    /// Brings an instance to its maker's new version.
    pub fn update(
        &self,
        options: &UpdateOptions,
        progress: &mut dyn FnMut(&str),
    ) -> Result<UpdatePrint> {
        let name = &options.name;
        let store = self.writable_store()?;
        let before = store.fetched_bytes();
        let Some((_, head)) = store.head(name)?.head else { return Err(claim::not_found(name)) };
        let Some(now) = head.follow.clone() else { return Err(no_maker(&head)) };
        if options.mode == UpdateMode::Now && head.trial.is_some() {
            return Err(on_trial(name));
        }
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
        // Who only looks changes nothing.
        if follow != now && options.mode != UpdateMode::Check {
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
        let fetcher = self.fetcher(&store)?;
        let layout = fetch::layout_of(&store, &fetcher, &trusted, &release, now.release);
        let records = layout.as_ref().map_or(&[][..], |layout| &layout.records);
        let id = self.take_version(&store, &maker, &release, records)?;
        let new = store.version(id)?;
        let mut print = nothing(name, &version.version, String::new());
        print.to.clone_from(&release.version);
        if options.mode == UpdateMode::Check {
            let size = fetch::size(
                &store,
                &maker,
                &fetcher,
                &release,
                now.release,
                &layout,
                (&version, &new),
            )?;
            print.reused_bytes = release.content_bytes.saturating_sub(size.new);
            print.reason = Some(format!("{} to fetch", model::format_bytes(size.fetch)));
            return Ok(print);
        }
        let news = News {
            maker: &maker,
            trusted: &trusted,
            release: &release,
            from: now.release,
            old: &version,
            new: &new,
            layout: layout.as_ref(),
        };
        let fetched = self.fetch_ahead(&store, &news, options.rate, progress)?;
        print.delta_bytes = fetched.delta_bytes;
        print.warnings.extend(fetched.fallback);
        print.fetched_bytes = store.fetched_bytes() - before + trusted.fetched_bytes();
        print.reused_bytes = release.content_bytes.saturating_sub(fetched.bytes);
        self.note(name, |noted| {
            if let Some(offered) = &mut noted.offered {
                offered.here = fetched.all;
            }
        });
        if options.mode == UpdateMode::Fetch {
            print.reason = Some(if fetched.all {
                self.when(name, follow.policy)
            } else {
                "not all of it has room in this host's cache: `collective config cache-size` or a \
                 larger disk gives it"
                    .to_owned()
            });
            return Ok(print);
        }
        if options.to.is_some() {
            maker.forgive(&self.dir, id)?;
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
        let (old, new) = (store.version(head.version)?, store.version(id)?);
        fits(name, &old, &new)?;
        can_run(&new)?;
        self.has_room()?;
        let follow = head.follow.as_ref().ok_or_else(|| no_maker(head))?;
        let change = Change::of(release, follow.release, id);
        let back = if runs {
            let label = format!("before update to {}", release.version);
            let taken = self.checkpoint_for(name, Some(&label), Why::Checkpoint)?;
            ambient::step("update: point to go back to");
            self.stop(name, options.force, POWER_OFF)?;
            ambient::step("update: stopped");
            Some(parse_id(&taken.checkpoint)?)
        } else {
            None
        };
        print.checkpoint = back.or(head.checkpoint).map(|id| id.to_string());
        let swap = Swap { name, version: id, number: &release.version, change, back };
        if let Err(failure) = self.swap(store, &swap) {
            return Err(self.unswapped(store, name, back, &ports, &options.start, failure));
        }
        print.applied = true;
        if !runs {
            print.reason = Some("it is looked at when it next starts".to_owned());
            return Ok(print);
        }
        let ports = ports::settle(&ports::free(&ports))?;
        let start = Start::Existing { take_over: false, at: None };
        let started = self
            .start_on_trial(store, name, start, &ports, &options.start, began)
            .map_err(|failure| failure.during(format!("{name} was given version {}", print.to)))?;
        if let Some(outcome) = started.update {
            print.applied = outcome.applied;
            print.rolled_back = outcome.rolled_back;
            print.reason = outcome.reason;
            print.report = outcome.report;
            print.warnings.extend(outcome.warnings);
        }
        Ok(print)
    }
}

fn nothing(name: &Name, from: &str, reason: String) -> UpdatePrint {
    UpdatePrint {
        name: name.to_string(),
        from: from.to_owned(),
        to: from.to_owned(),
        fetched_bytes: 0,
        delta_bytes: 0,
        reused_bytes: 0,
        applied: false,
        rolled_back: false,
        reason: Some(reason),
        checkpoint: None,
        report: None,
        warnings: Vec::new(),
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

fn on_trial(name: &Name) -> Failure {
    Failure::new(
        "state",
        format!("{name} has a new version that has not shown yet that it works"),
        format!(
            "if it is stopped, `collective resume {name}` starts it; `collective undo {name}` goes back \
             before it"
        ),
    )
}

fn parse_id(text: &str) -> Result<CheckpointId> {
    text.parse().map_err(|_| Failure::new("internal", "the shim named no checkpoint", ""))
}
