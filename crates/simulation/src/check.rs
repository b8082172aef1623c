//! What must hold, whatever went wrong. Reads the repository as any other host would.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use chunk::{ChunkSource, Urgency};
use host::record::{Checkpoint, Why};
use host::store::Store;
use manifest::{Manifest, NodeCache};
use model::{CheckpointId, ManifestId};

use crate::life::GRACE_MS;
use crate::truth::{PAGES, Pages, Snapshot, Truth, value};
use crate::world::World;

/// Everything that is named: by instance, its checkpoints.
pub type Named = BTreeMap<String, BTreeSet<CheckpointId>>;

/// Reads everything that is named and compares it with what the guests wrote; gives what it saw.
pub fn all(store: &Store, truth: &Truth, world: &World) -> Named {
    match look(store, truth, world) {
        Ok(named) => {
            told(&named, truth, world);
            named
        }
        Err(failure) => {
            world.violation(format!("something named cannot be read: {failure}"));
            Named::new()
        }
    }
}

fn look(store: &Store, truth: &Truth, world: &World) -> host::Result<Named> {
    let mut named = Named::new();
    let mut starts = Vec::new();
    for (_, head) in store.heads()? {
        let mut line: Vec<CheckpointId> = head.checkpoint.into_iter().chain(head.origin).collect();
        line.extend(head.autos.iter().map(|auto| auto.id));
        line.extend(head.holds.iter().map(|hold| hold.checkpoint));
        store.version(head.version)?;
        for branch in store.branches(head.instance)? {
            line.push(branch.checkpoint);
            line.extend(branch.head.autos.iter().map(|auto| auto.id));
        }
        starts.push((line, head));
    }
    let mut whole = BTreeSet::new();
    let starts = starts.iter().flat_map(|(line, head)| line.iter().map(move |id| (*id, head)));
    for (start, head) in starts {
        let mut next = Some(start);
        while let Some(id) = next {
            let checkpoint = store.checkpoint(id)?;
            named.entry(checkpoint.instance.to_string()).or_default().insert(id);
            // What one instance has thinned out, a fork of it may keep.
            if !head.is_gone(id)
                && whole.insert(id)
                && let Err(text) = one(store, truth, &checkpoint)?
            {
                world.violation(format!("checkpoint {}: {text}", id.short()));
            }
            next = checkpoint.parent;
        }
    }
    Ok(named)
}

/// Whether a checkpoint is what its guest wrote.
fn one(store: &Store, truth: &Truth, checkpoint: &Checkpoint) -> host::Result<Result<(), String>> {
    let instance = checkpoint.instance.to_string();
    let mut found = Snapshot::default();
    for (at, manifest) in checkpoint.disks.iter().enumerate() {
        match pages(&store.source(), *manifest, PAGES[at + 1]) {
            Ok(pages) => found.0[at + 1] = pages,
            Err(text) => return Ok(Err(text)),
        }
    }
    if let Some(memory) = &checkpoint.memory {
        match pages(&store.source(), memory.ram, PAGES[0]) {
            Ok(pages) => found.0[0] = pages,
            Err(text) => return Ok(Err(text)),
        }
        let state = repository_blob(store, &memory.device_state.id)?;
        let number = String::from_utf8_lossy(&state).parse().unwrap_or(usize::MAX);
        let known = truth.known();
        return Ok(match known.snapshots.get(number) {
            Some((_, snapshot)) if *snapshot == found => Ok(()),
            Some((_, snapshot)) => Err(format!("it holds {found:?}, not {snapshot:?}")),
            None => Err(format!("nobody saved device state {number}")),
        });
    }
    let version = store.version(checkpoint.version)?;
    let system = match pages(&store.source(), version.disks[0], PAGES[1]) {
        Ok(system) => system,
        Err(text) => return Ok(Err(text)),
    };
    let known = truth.known();
    let right = match checkpoint.why {
        // The system disk is its version's, the data disk is as it was.
        Why::Stop | Why::Update => {
            let offs = known.offs.iter().filter(|(of, _)| *of == instance);
            found.0[1] == system && offs.into_iter().any(|(_, off)| off.0[2] == found.0[2])
        }
        _ => known.left.iter().any(|left| left.instance == instance && left.admits(&found.0[1..])),
    };
    Ok(if right { Ok(()) } else { Err(format!("no guest wrote {found:?} ({:?})", checkpoint.why)) })
}

fn repository_blob(store: &Store, id: &model::ChunkId) -> host::Result<Vec<u8>> {
    Ok(repository::read_blob(&store.source(), id)?)
}

/// The pages of a volume that are not zero.
pub fn pages(source: &Arc<dyn ChunkSource>, id: ManifestId, count: u64) -> Result<Pages, String> {
    let nodes = NodeCache::new(source.clone(), 64);
    let manifest = Manifest::open(id, &**source).map_err(|e| e.to_string())?;
    let mut pages = Pages::new();
    for n in 0..count {
        let chunk = manifest.lookup(&nodes, n).map_err(|e| e.to_string())?;
        let Some(chunk) = chunk else { continue };
        let bytes = source.fetch(&chunk, Urgency::Urgent).map_err(|e| e.to_string())?;
        let bytes = bytes.iter().find(|bytes| bytes.id() == chunk).ok_or("another chunk came")?;
        let number = value(bytes).ok_or_else(|| format!("garbage in page {n}"))?;
        if number != 0 {
            pages.insert(n, number);
        }
    }
    Ok(pages)
}

/// What somebody was told of is named, unless its instance was removed.
fn told(named: &Named, truth: &Truth, world: &World) {
    let known = truth.known();
    let lost = known.told.iter().find(|(instance, id)| {
        !known.removed.contains(instance)
            && !named.values().flatten().any(|named| named.to_string().starts_with(id.as_str()))
    });
    let lost = lost.map(|(instance, id)| {
        format!("{instance}: checkpoint {} was acknowledged, and nothing names it", &id[..12])
    });
    drop(known);
    if let Some(text) = lost {
        world.violation(text);
    }
}

/// Nothing that a verb relies on is collected before it had the grace age to name it.
pub fn grace(world: &World, verb: &str, began_ms: u64, done: &host::Result<()>) {
    let elapsed_ms = world.state().now_ms - began_ms;
    if let Err(failure) = done
        && failure.message.contains("was collected meanwhile")
        && elapsed_ms < GRACE_MS
    {
        world.violation(format!("{verb}: after {elapsed_ms} ms: {failure}"));
    }
}

/// What only a host that crashed had is in a branch, or somebody went on from it.
pub fn left(named: &Named, store: &Store, truth: &Truth, world: &World) {
    let left: Vec<_> = truth.known().left.clone();
    for left in left.iter().filter(|left| left.precious && !left.used) {
        if truth.known().removed.contains(&left.instance) {
            continue;
        }
        let kept = named.get(&left.instance).into_iter().flatten().any(|id| {
            let Ok(checkpoint) = store.checkpoint(*id) else { return false };
            let disks: Vec<_> = checkpoint
                .disks
                .iter()
                .enumerate()
                .map(|(at, id)| pages(&store.source(), *id, PAGES[at + 1]).unwrap_or_default())
                .collect();
            match checkpoint.why {
                // Its system disk was reset, as its maker says.
                Why::Stop => left.admits_data(&disks),
                _ => left.admits(&disks),
            }
        });
        if !kept {
            world.violation(format!(
                "what {} had synced on host {} in generation {} is nowhere",
                left.instance, left.host, left.generation
            ));
        }
    }
}
