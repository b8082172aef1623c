//! Storing what was frozen, and moving the head: written first, visible last.
//!
//! ```text
//! volumes ─seal─▶ chunks, manifests ─▶ device state ─▶ checkpoint record ─▶ (all durable) ─▶ ref
//! ```
//! *On a crash* before the ref, the old checkpoint is the head, the frozen overlays are still on
//! this host, and the next seal stores them again (most of it reused).

use api::CheckpointPrint;
use model::{CheckpointId, DiskRole, Generation, InstanceState, ManifestId, ResetPolicy};
use volume::{Sealed, Trace, Volume};

use crate::auto::Keep;
use crate::auto::line::{self, Taken};
use crate::failure::Result;
use crate::record::{Blob, Checkpoint, Head, How, Machine, Memory, Traces, Version, Why};
use crate::store::{Advance, Session, Store};

/// What became of a checkpoint.
pub enum Outcome {
    /// It is the head.
    Advanced(CheckpointPrint),
    /// The head had been moved by another host (or a branch was wanted): it is a branch.
    Branched(CheckpointPrint),
}

/// What is to be stored, and how it is told.
pub struct Plan<'a> {
    pub head: &'a Head,
    pub version: &'a Version,
    pub label: Option<String>,
    pub why: Why,
    pub taken_unix_ms: u64,
    pub pause_ms: f64,
    /// Compressed as well as can be: many will fetch it.
    pub thorough: bool,
    /// Memory and device state; none: the checkpoint boots.
    pub memory: Option<(&'a Volume, std::path::PathBuf, Machine)>,
    pub disks: Vec<&'a Volume>,
    /// What is known of earlier starts, and what has just been learned.
    pub traces: (Traces, Option<(How, Trace)>),
}

/// A checkpoint whose content is durable, but that nothing names yet.
pub struct Written {
    pub id: CheckpointId,
    pub taken: Taken,
    pub print: CheckpointPrint,
    /// What the volumes were sealed to, in the order memory, disks.
    pub sealed: Vec<Sealed>,
}

/// Stores everything; the next step makes it visible.
pub fn write(store: &Store, plan: &Plan<'_>, began: ambient::Instant) -> Result<Written> {
    let mut session = if plan.thorough { store.thorough_session()? } else { store.session()? };
    let written = put(&mut session, plan)?;
    ambient::step("seal: written");
    let stored = session.finish()?;
    ambient::step("seal: durable");
    let print = CheckpointPrint {
        stored_bytes: stored.stored_bytes,
        reused_bytes: stored.reused_bytes,
        total_ms: began.elapsed().as_millis() as u64,
        ..written.print
    };
    Ok(Written { print, ..written })
}

/// Puts everything into a session, which has to be finished before anything names it.
pub fn put(session: &mut Session, plan: &Plan<'_>) -> Result<Written> {
    let mut sealed = Vec::new();
    let mut memory = None;
    if let Some((ram, state_file, machine)) = &plan.memory {
        let ram = super::volumes::seal(ram, session)?;
        let device_state: Blob = crate::ingest::file(session, state_file)?;
        memory = Some(Memory { ram: ram.manifest, device_state, machine: machine.clone() });
        sealed.push(ram);
    }
    let mut disks = Vec::new();
    for (index, volume) in plan.disks.iter().enumerate() {
        let disk = super::volumes::seal(volume, session)?;
        disks.push(kept(plan, index, disk.manifest));
        sealed.push(disk);
    }
    let traces = match &plan.traces {
        (known, Some((how, trace))) => known.with(*how, session.put_trace(trace)?),
        (known, None) => *known,
    };
    ambient::step("seal: chunks");
    let stored_bytes = session.stored_bytes()?;
    let dirty_bytes = sealed.iter().map(|s| s.dirty_bytes).sum();
    let checkpoint = Checkpoint {
        instance: plan.head.instance,
        parent: plan.head.explicit(),
        version: plan.head.version,
        label: plan.label.clone(),
        why: plan.why,
        taken_unix_ms: plan.taken_unix_ms,
        memory,
        disks,
        dirty_bytes,
        stored_bytes,
        traces,
        pause_us: plan.memory.is_some().then_some((plan.pause_ms * 1000.0) as u64),
        change: None,
    };
    let id = session.put_checkpoint(&checkpoint)?;
    let print = CheckpointPrint {
        checkpoint: id.to_string(),
        pause_ms: plan.pause_ms,
        dirty_bytes,
        stored_bytes: 0,
        reused_bytes: 0,
        total_ms: 0,
    };
    let taken = Taken { id, why: plan.why, taken_unix_ms: plan.taken_unix_ms };
    Ok(Written { id, taken, print, sealed })
}

/// What a checkpoint that boots keeps of a disk: the maker's content where the maker resets it.
fn kept(plan: &Plan<'_>, index: usize, sealed: ManifestId) -> ManifestId {
    let spec = &plan.version.hardware.disks[index];
    let resets = spec.role == DiskRole::Scratch
        || (spec.role == DiskRole::System && spec.reset == ResetPolicy::Reset);
    if plan.memory.is_none() && plan.why == Why::Stop && resets {
        plan.version.disks[index]
    } else {
        sealed
    }
}

/// What decides which automatic checkpoints stay when a head moves.
pub struct Stay<'a> {
    pub keep: Keep,
    /// What the volumes here may be based on.
    pub bases: &'a [CheckpointId],
}

/// Makes a written checkpoint the head, or a branch when the head has moved without us.
pub fn publish(
    store: &Store,
    head: &Head,
    generation: Generation,
    written: &Written,
    state: InstanceState,
    stay: &Stay<'_>,
) -> Result<Option<(Generation, Head)>> {
    let lease = if state == InstanceState::Running { head.lease.clone() } else { None };
    let advanced = line::advance(head, written.taken, &stay.keep, stay.bases);
    let next = Head { state, lease, warm: false, ..advanced };
    match store.advance(generation, &next)? {
        Advance::Done(generation) => Ok(Some((generation, next))),
        Advance::Fenced => {
            ambient::step("publish: fenced");
            store.add_branch(head, written.id, head.checkpoint, Vec::new())?;
            Ok(None)
        }
    }
}

/// Stores what a session holds of a volume that nobody uses any more.
pub fn seal_at_rest(volume: &Volume, session: &mut Session) -> Result<Sealed> {
    volume.freeze()?;
    super::volumes::seal(volume, session)
}
