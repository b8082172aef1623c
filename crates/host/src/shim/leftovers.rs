//! What a crashed shim left: volumes with writes that no checkpoint has.
//!
//! Nothing of them is ever dropped silently. When the head is still where this host left it, the
//! next start goes on from them; when another host has moved it, they become a branch.

use std::sync::Arc;

use model::{CheckpointId, DiskBus, Generation, Name};
use volume::{Cache, Fetcher};

use super::landing;
use super::seal;
use super::volumes::{self, Origin};
use crate::dir::HostDir;
use crate::failure::Result;
use crate::local::{LocalDir, LocalInstance};
use crate::parcel;
use crate::peers::Chunks;
use crate::record::{AutoPoint, Checkpoint, Head, Why};
use crate::store::Store;
use crate::verbs::is_kept;

/// Whether the volumes here are those of this head: then the instance goes on from them.
pub fn belong_to(
    local: &LocalDir,
    host: &HostDir,
    generation: Generation,
    head: &Head,
) -> Result<bool> {
    let Some(instance) = local.read()? else { return Ok(false) };
    Ok(instance.open
        && rest_on(&instance, host, generation, head)?
        && instance.instance_id()? == head.instance
        && local.volumes().exists())
}

/// Whether what this host noted of an instance is of this head, which it holds. When it died after what came
/// in a parcel was made the head's checkpoint, and before that was noted, its volumes rest on the same.
fn rest_on(
    instance: &LocalInstance,
    host: &HostDir,
    generation: Generation,
    head: &Head,
) -> Result<bool> {
    let parcel = instance.noted()?.and_then(|noted| noted.parcel);
    let landed = head.parcel.is_none()
        && instance.generation().0.checked_add(1) == Some(generation.0)
        && parcel.is_some_and(|parcel| Some(parcel.checkpoint) == head.checkpoint);
    let mine = head.lease.as_ref().is_some_and(|lease| lease.holder == host.id());
    Ok(mine && (landed || instance.generation() == generation))
}

/// Turns volumes of another line into a branch, before anything else is done with the instance.
pub fn branch_if_stale(store: &Store, chunks: &Chunks, host: &HostDir, name: &Name) -> Result<()> {
    let local = LocalDir::new(host, name);
    let (Some(instance), Some((generation, head))) = (local.read()?, store.head(name)?.head) else {
        return Ok(());
    };
    let same_line = rest_on(&instance, host, generation, &head)?;
    if instance.open && !same_line && local.volumes().exists() {
        let branch = to_branch(store, chunks, host, name)?;
        if let Some(branch) = branch {
            eprintln!("what this host had not stored is kept as branch {}", branch.short());
        }
    }
    Ok(())
}

/// Stores the disks that were left here as a branch, and removes them. None when nothing was left.
pub fn to_branch(
    store: &Store,
    chunks: &Chunks,
    host: &HostDir,
    name: &Name,
) -> Result<Option<CheckpointId>> {
    let local = LocalDir::new(host, name);
    let Some(instance) = local.read()? else { return Ok(None) };
    if !instance.open || !local.volumes().exists() {
        return Ok(None);
    }
    super::unmount_leftovers(&local)?;
    let Some(head) = left_by(store, name, &instance)? else {
        // Nothing is dropped because nobody knows what it is.
        let aside = local.set_volumes_aside()?;
        eprintln!("what a removed instance of this name left is set aside: {}", aside.display());
        local.write(&LocalInstance { open: false, ..instance })?;
        return Ok(None);
    };
    let version = store.version(head.version)?;
    let cache = Arc::new(Cache::open(&host.folder("cache")?, host.cache_bytes_max())?);
    let mut session = store.session()?;
    // They rest on what they came with, which has to be stored too.
    let rests_on = match &head.parcel {
        Some(parcel) => {
            // Who has it removes it when it is kept.
            let now = store.head(name)?.head.filter(|(_, now)| now.instance == head.instance);
            let kept = now.map(|(_, now)| is_kept(store, &now, parcel.checkpoint)).transpose()?;
            if kept != Some(true) {
                chunks.prefer(parcel);
                let all = parcel::fetch_into(parcel, &*chunks.source, session.sink());
                all.map_err(|_| landing::away(parcel, 0).about(name))?;
            }
            Some(parcel.checkpoint)
        }
        None => head.checkpoint,
    };
    let fetcher = Arc::new(Fetcher::new(cache, chunks.source.clone(), 2));
    let base = rests_on.map(|id| Store::checkpoint_of(&*chunks.source, id)).transpose()?;
    let traces = base.as_ref().map(|checkpoint| checkpoint.traces).unwrap_or_default();
    let first = || version.first_disks(head.warm).to_vec();
    let manifests = base.map_or_else(first, |checkpoint| checkpoint.disks);

    let mut disks = Vec::new();
    let mut dirty_bytes = 0;
    for (spec, manifest) in version.hardware.disks.iter().zip(manifests) {
        let folder = volumes::disk_folder(&local, spec);
        if !folder.exists() {
            disks.push(manifest);
            continue;
        }
        let volume = volumes::open_volume(
            local.doors(),
            &folder,
            &spec.name,
            spec.size_bytes,
            &Origin::Leftover(manifest),
            &fetcher,
            None,
        )?;
        if spec.bus == DiskBus::Tpm {
            crate::tpm::take_in(&local, &volume)?;
        }
        let sealed = seal::seal_at_rest(&volume, &mut session)?;
        dirty_bytes += sealed.dirty_bytes;
        disks.push(sealed.manifest);
    }
    if dirty_bytes == 0 {
        forget(&local, instance)?;
        return Ok(None);
    }
    let stored_bytes = session.stored_bytes()?;
    let id = session.put_checkpoint(&Checkpoint {
        instance: head.instance,
        parent: head.parcel.as_ref().map_or(head.explicit(), |parcel| Some(parcel.checkpoint)),
        version: head.version,
        label: Some("left by a crash".to_owned()),
        why: Why::Undo,
        taken_unix_ms: ambient::unix_ms(),
        memory: None,
        disks,
        dirty_bytes,
        stored_bytes,
        traces,
        pause_us: None,
        change: None,
    })?;
    session.finish()?;
    ambient::step("leftovers: stored");
    store.add_branch(&head, id, head.checkpoint, Vec::new())?;
    ambient::step("leftovers: a branch");
    forget(&local, instance)?;
    Ok(Some(id))
}

/// The head on which the volumes here were opened: it says which version's disks they are. None when
/// the instance that they belong to was removed.
fn left_by(store: &Store, name: &Name, instance: &LocalInstance) -> Result<Option<Head>> {
    // As it was then, or, when that generation is kept no more, as this host noted it.
    if let Some(head) = store.head_at(name, instance.generation())? {
        return Ok(Some(head));
    }
    let (Some((_, now)), Some(noted)) = (store.head(name)?.head, instance.noted()?) else {
        return Ok(None);
    };
    if now.instance != instance.instance_id()? {
        return Ok(None);
    }
    let auto = noted.checkpoint.filter(|_| noted.checkpoint != noted.explicit);
    let auto = auto.map(|id| AutoPoint { id, taken_unix_ms: 0, parent: noted.explicit });
    Ok(Some(Head {
        version: noted.version,
        checkpoint: noted.checkpoint,
        autos: auto.into_iter().collect(),
        parcel: noted.parcel,
        ..now
    }))
}

fn forget(local: &LocalDir, instance: LocalInstance) -> Result<()> {
    local.write(&LocalInstance { open: false, ..instance })?;
    local.remove_volumes()
}
