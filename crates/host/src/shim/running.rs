//! A running instance: what the owner does to it.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use api::CheckpointPrint;
use model::{CheckpointId, Generation, InstanceState};
use spans::Span;
use volume::Sealed;

use super::guest::Guest;
use super::landing::Landing;
use super::scrubbing::Scrubbing;
use super::seal::{self, Outcome, Plan, Stay};
use super::tracing::Tracing;
use super::volumes::Volumes;
use crate::auto::line::{self, Taken};
use crate::auto::{Auto, Keep, Policy, Said};
use crate::dir::HostDir;
use crate::failure::{Failure, Result};
use crate::local::{LocalDir, LocalInstance};
use crate::record::{Follow, Head, Machine, UpdatePolicy, Version, Why};
use crate::store::Store;

/// The device state's file in the run directory.
const DEVICE_STATE: &str = "device-state";
/// Before the pause, memory is brought to its volume this often at most, until little is left.
const PRE_SYNCS_MAX: u32 = 3;
/// A sync that took this long left little for the next.
const PRE_SYNC_SHORT: Duration = Duration::from_millis(20);

/// Everything that a running instance is.
pub struct Running {
    pub host: HostDir,
    pub store: Store,
    pub local: LocalDir,
    pub instance: LocalInstance,
    pub generation: Generation,
    pub head: Head,
    pub version: Version,
    pub machine: Machine,
    /// It runs for a build.
    pub maker: bool,
    pub volumes: Volumes,
    pub guest: Arc<Guest>,
    pub tracing: Arc<Tracing>,
    pub scrubbing: Arc<Scrubbing>,
    pub shared: Arc<super::shared::Shared>,
    /// What the volumes may be based on: not thinned out.
    pub bases: Vec<CheckpointId>,
    /// What this host says about automatic checkpoints.
    pub auto_here: Option<Auto>,
    /// What it came with and the repository does not have yet is on its way there.
    pub landing: Option<Arc<Landing>>,
}

/// All volumes at one instant.
pub(super) struct Frozen {
    device_state: PathBuf,
    pause_ms: f64,
    taken_unix_ms: u64,
}

impl Running {
    pub fn guest(&self) -> &Guest {
        &self.guest
    }

    /// A point to come back to, while the guest runs on.
    pub fn checkpoint(&mut self, label: Option<String>, why: Why) -> Result<Outcome> {
        let began = ambient::now();
        self.must_have_landed()?;
        let _still = self.scrubbing.still();
        let was_running = self.shared.state() == "running";
        let frozen = self.freeze(was_running, was_running)?;
        let part = Span::part("store");
        let plan = self.plan(label, why, &frozen);
        let written = if was_running {
            // The guest works on meanwhile, and nobody waits for this as for that.
            ambient::behind(|| self.write(&plan, began))?
        } else {
            self.write(&plan, began)?
        };
        drop(part);
        let print = CheckpointPrint {
            total_ms: began.elapsed().as_millis() as u64,
            ..written.print.clone()
        };
        match self.publish(&written, InstanceState::Running)? {
            Some((generation, head)) => {
                self.bases.push(written.id);
                self.advanced(generation, head)?;
                ambient::step("checkpoint: visible");
                self.adopt(&written.sealed)?;
                self.bases = vec![written.id];
                Ok(Outcome::Advanced(print))
            }
            None => Ok(Outcome::Branched(print)),
        }
    }

    /// To the repository; with `branch`, beside the instance's own line.
    pub fn suspend(&mut self, label: Option<String>, branch: bool) -> Result<Outcome> {
        let began = ambient::now();
        self.must_have_landed()?;
        let _still = self.scrubbing.still();
        let was_running = self.shared.state() == "running";
        let why = if branch { Why::Undo } else { Why::Suspend };
        let frozen = self.freeze(was_running, false)?;
        let part = Span::part("store");
        let result = self.write(&self.plan(label, why, &frozen), began).and_then(|written| {
            let moved = if branch {
                self.step_aside(&written)?
            } else {
                self.publish(&written, InstanceState::Suspended)?
            };
            Ok((written, moved))
        });
        drop(part);
        let (written, moved) = match result {
            Ok(done) => done,
            Err(failure) => {
                // Nothing was given up: the guest goes on where it stood.
                if was_running {
                    self.guest.unpause()?;
                }
                return Err(failure.during("not suspended, it goes on running"));
            }
        };
        let print =
            CheckpointPrint { total_ms: began.elapsed().as_millis() as u64, ..written.print };
        ambient::step("suspend: visible");
        self.guest.kill();
        // These volumes end here, but this way what they held stays in the host's cache: going on
        // here needs nothing from the repository. What fails is only fetched again.
        let _ = self.adopt(&written.sealed);
        match moved {
            Some(_) => Ok(Outcome::Advanced(print)),
            None => Ok(Outcome::Branched(print)),
        }
    }

    /// Stores everything, and counts what that took.
    fn write(&self, plan: &Plan<'_>, began: ambient::Instant) -> Result<seal::Written> {
        let written = seal::write(&self.store, plan, began)?;
        if let (_, Some((_, trace))) = &plan.traces {
            self.tracing.stored(trace);
        }
        self.shared.add_stored(written.print.stored_bytes);
        Ok(written)
    }

    /// The written checkpoint becomes a branch; the head stays where it was, free for a start.
    fn step_aside(&self, written: &seal::Written) -> Result<Option<(Generation, Head)>> {
        // Where it leaves the line, and what goes with it, is for `undo` to say: until then the head
        // has all.
        self.store.add_branch(&self.head, written.id, self.head.checkpoint, Vec::new())?;
        ambient::step("undo: set aside");
        let memory = match self.head.checkpoint {
            Some(id) => self.store.checkpoint(id)?.memory.is_some(),
            None => false,
        };
        let state = if memory { InstanceState::Suspended } else { InstanceState::Stopped };
        let next = Head { state, lease: None, ..self.head.clone() };
        match self.store.advance(self.generation, &next)? {
            crate::store::Advance::Done(generation) => Ok(Some((generation, next))),
            crate::store::Advance::Fenced => Ok(None),
        }
    }

    /// Powers the guest off, and keeps its disks.
    pub fn stop(&mut self, force: bool, timeout: Duration) -> Result<String> {
        // Before it is off: what cannot be kept is not ended, unless somebody wants just that.
        if let Err(failure) = self.must_have_landed() {
            if force {
                self.guest.kill();
            }
            return Err(failure);
        }
        if !force {
            self.ask_to_power_off(timeout)?;
        }
        self.volumes.sync_disks()?;
        self.guest.kill();
        self.stop_sealed()
    }

    /// Presses the power button, and waits until the guest has obeyed or time is over.
    fn ask_to_power_off(&self, timeout: Duration) -> Result<()> {
        if self.shared.state() == "paused" {
            self.guest.unpause()?;
        }
        // The agent's way is the surer one where there is an agent.
        let by_agent =
            self.guest.ping() && self.guest.script("poweroff", Duration::from_secs(5)).is_ok();
        // A guest may be off before its agent could say so: then there is no button any more.
        if !by_agent
            && let Err(failure) = self.guest.power_button()
            && !self.guest.has_ended()
        {
            return Err(failure);
        }
        let deadline = ambient::now() + timeout;
        while !self.guest.has_ended() && ambient::now() < deadline {
            ambient::sleep(Duration::from_millis(10));
        }
        Ok(())
    }

    /// The guest is off: its disks become a checkpoint that boots.
    pub fn stop_sealed(&mut self) -> Result<String> {
        let began = ambient::now();
        self.must_have_landed()?;
        let _still = self.scrubbing.still();
        self.volumes.sync_disks()?;
        self.volumes.freeze_disks()?;
        let plan = Plan {
            head: &self.head,
            version: &self.version,
            label: None,
            why: Why::Stop,
            taken_unix_ms: ambient::unix_ms(),
            pause_ms: 0.0,
            thorough: false,
            memory: None,
            traces: self.tracing.for_checkpoint(),
            disks: self.volumes.disks.iter().map(|disk| &**disk).collect(),
        };
        let written = self.write(&plan, began)?;
        let published = self.publish(&written, InstanceState::Stopped)?;
        ambient::step("stop: visible");
        for (disk, sealed) in self.volumes.disks.iter().zip(&written.sealed) {
            // As after a suspend: the next start finds its pages on this host.
            let _ = disk.adopt(sealed);
        }
        match published {
            Some(_) => Ok(written.id.to_string()),
            None => Err(Failure::new(
                "fenced",
                format!(
                    "it was taken over by another host; what was done here is kept as branch {}",
                    written.id.short()
                ),
                format!("`collective fork NAME --at {}` goes on with it", written.id.short()),
            )),
        }
    }

    /// Stops the guest for as short as can be, and sets apart what it has written.
    /// It goes on when it `ran` and that is wanted, or when this fails.
    pub(super) fn freeze(&self, ran: bool, go_on: bool) -> Result<Frozen> {
        let _part = Span::part("freeze");
        for _ in 0..PRE_SYNCS_MAX {
            let began = ambient::now();
            self.volumes.sync_disks()?;
            self.volumes.write_back_ram()?;
            if began.elapsed() < PRE_SYNC_SHORT {
                break;
            }
        }
        self.guest.expect_save(DEVICE_STATE)?;
        let began = ambient::now();
        self.guest.pause()?;
        let frozen = self.guest.save(DEVICE_STATE).and_then(|device_state| {
            self.volumes.write_back_ram()?;
            self.volumes.sync_disks()?;
            self.volumes.freeze()?;
            ambient::step("seal: frozen");
            Ok(device_state)
        });
        if ran && (go_on || frozen.is_err()) {
            self.guest.unpause()?;
        }
        let pause_ms = began.elapsed().as_secs_f64() * 1000.0;
        self.guest.end_save();
        Ok(Frozen { device_state: frozen?, pause_ms, taken_unix_ms: ambient::unix_ms() })
    }

    pub(super) fn plan(&self, label: Option<String>, why: Why, frozen: &Frozen) -> Plan<'_> {
        Plan {
            head: &self.head,
            version: &self.version,
            label,
            why,
            taken_unix_ms: frozen.taken_unix_ms,
            pause_ms: frozen.pause_ms,
            thorough: self.maker,
            memory: Some((&self.volumes.ram, frozen.device_state.clone(), self.machine.clone())),
            disks: self.volumes.disks.iter().map(|disk| &**disk).collect(),
            traces: self.tracing.for_checkpoint(),
        }
    }

    /// What is said about automatic checkpoints.
    pub fn said(&self) -> Said {
        Said { instance: self.head.auto, maker: self.version.auto, host: self.auto_here }
    }

    /// What of it holds.
    pub fn policy(&self) -> Option<Policy> {
        self.said().holds().and_then(Auto::policy)
    }

    /// Nothing of it is stored before the repository has what it came with: waits for that while it goes
    /// on, and says what is missing when it does not.
    fn must_have_landed(&mut self) -> Result<()> {
        match self.landing.clone() {
            Some(landing) => {
                let taken = landing.wait()?;
                self.landed(taken)
            }
            None => Ok(()),
        }
    }

    /// The repository has what it came with: that is its last checkpoint now.
    pub fn landed(&mut self, taken: Taken) -> Result<()> {
        if self.landing.is_none() {
            return Ok(());
        }
        let keep = self.policy().map_or_else(Keep::default, |policy| policy.keep);
        let advanced = line::advance(&self.head, taken, &keep, &self.bases);
        let next = Head { warm: false, ..advanced };
        let generation = match self.store.advance(self.generation, &next)? {
            crate::store::Advance::Done(generation) => generation,
            // What is stored next finds out, and becomes a branch, with this before it.
            crate::store::Advance::Fenced => {
                (self.head, self.landing) = (next, None);
                self.shared.set_lacking(None);
                return Ok(());
            }
        };
        ambient::step("landing: visible");
        self.landing = None;
        self.bases = vec![taken.id];
        self.shared.set_lacking(None);
        self.advanced(generation, next)
    }

    /// Its new version works: it no longer goes back by itself.
    pub fn settle(&mut self) -> Result<()> {
        if self.head.trial.is_none() {
            return Ok(());
        }
        let next = Head { trial: None, ..self.head.clone() };
        match self.store.advance(self.generation, &next)? {
            crate::store::Advance::Done(generation) => self.advanced(generation, next),
            crate::store::Advance::Fenced => Err(Failure::new(
                "fenced",
                "it was taken over by another host",
                "`collective ps` shows where it is",
            )),
        }
    }

    /// Advances the head to what it says already, so that nothing fits it that was decided before; no
    /// when another host has it.
    pub fn claim_again(&mut self) -> Result<bool> {
        let head = self.head.clone();
        match self.store.advance(self.generation, &head)? {
            crate::store::Advance::Done(generation) => {
                self.advanced(generation, head)?;
                Ok(true)
            }
            crate::store::Advance::Fenced => Ok(false),
        }
    }

    /// Changes what the instance says about them.
    pub fn set_auto(&mut self, auto: Option<Auto>) -> Result<()> {
        self.say(Head { auto, ..self.head.clone() })
    }

    /// Changes what a collection keeps of what somebody took.
    pub fn set_keep_taken(&mut self, keep_taken: Option<Keep>) -> Result<()> {
        self.say(Head { keep_taken, ..self.head.clone() })
    }

    /// Of these nothing but the record is kept from now on, if its head is as it was when that was decided.
    pub fn forget(&mut self, decided_at: Generation, checkpoints: &[CheckpointId]) -> Result<()> {
        self.must_have_landed()?;
        if self.generation != decided_at {
            return Err(Failure::new("fenced", "it has gone on meanwhile", "do it again"));
        }
        let bases = self.bases.iter().copied().chain(self.head.checkpoint);
        if let Some(base) = bases.into_iter().find(|id| checkpoints.contains(id)) {
            return Err(Failure::new(
                "state",
                format!("its memory and disks rest on {}", base.short()),
                "take another checkpoint first: `collective checkpoint`",
            ));
        }
        self.say(self.head.without(checkpoints))
    }

    /// Lets it follow a channel by a policy.
    pub fn set_follow(&mut self, channel: Option<String>, policy: UpdatePolicy) -> Result<()> {
        let follow = self.head.follow.clone().map(|follow| Follow { channel, policy, ..follow });
        self.say(Head { follow, ..self.head.clone() })
    }

    /// Makes what somebody said about it visible.
    fn say(&mut self, next: Head) -> Result<()> {
        match self.store.advance(self.generation, &next)? {
            crate::store::Advance::Done(generation) => self.advanced(generation, next),
            crate::store::Advance::Fenced => Err(Failure::new(
                "fenced",
                "it was taken over by another host",
                "set it there: `collective ps` shows where it is",
            )),
        }
    }

    fn publish(
        &self,
        written: &seal::Written,
        state: InstanceState,
    ) -> Result<Option<(Generation, Head)>> {
        let keep = self.policy().map_or_else(Keep::default, |policy| policy.keep);
        let stay = Stay { keep, bases: &self.bases };
        let mut head = self.head.clone();
        // Who is on trial is ready when it is well, and that may not be written down yet.
        head.trial = head.trial.filter(|_| !self.shared.is_ready());
        seal::publish(&self.store, &head, self.generation, written, state, &stay)
    }

    pub(super) fn advanced(&mut self, generation: Generation, head: Head) -> Result<()> {
        self.instance =
            LocalInstance { generation: generation.0, ..self.instance.clone() }.noting(&head);
        self.generation = generation;
        self.head = head;
        self.shared.set_generation(generation.0);
        self.local.write(&self.instance)
    }

    pub(super) fn adopt(&self, sealed: &[Sealed]) -> Result<()> {
        for (volume, sealed) in self.volumes.all().zip(sealed) {
            volume.adopt(sealed)?;
        }
        Ok(())
    }
}
