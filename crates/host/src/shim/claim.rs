//! Taking the lease: the first thing a shim does, and the only thing that lets it run a guest.
//!
//! ```text
//! absent ──new──▶ running(me)
//! suspended, stopped ──▶ running(me)
//! running(me), no shim here ──▶ running(me)      after a crash: the disks' flushed pages go on
//! running(other) ──take over──▶ running(me)      the other host is fenced by the new generation
//! running(other) ──▶ refused
//! offered(other) ──its parcel's record comes──▶ running(me), with the parcel still to be stored
//! offered(me) ──the parcel is stored──▶ running(me)
//! ```
//! *Offered* is a head that its holder has let go, with a parcel that the repository does not have
//! ([`super::part`]). Who is to take an instance over goes without the parcel when nobody gives it.
//!
//! With the lease it is settled what the instance starts from: its checkpoint; while it has none,
//! what a crash left on this host; else its version, from the memory or by booting.
//!
//! *Invariant.* The lease is one create-if-absent of the head's next generation: of two hosts that
//! try at once, one gets it and the other is told.

use model::{Generation, InstanceId, InstanceState, Lease, ManifestId, Name, VersionId};
use vmm::Accel;

use super::landing::away;
use super::order::{FollowOrder, Start};
use super::{leftovers, machine};
use crate::auto::{Auto, line};
use crate::dir::HostDir;
use crate::failure::{Failure, Result};
use crate::local::LocalDir;
use crate::peers::Chunks;
use crate::record::{Change, Checkpoint, Follow, Head, Memory, Trial, Version, Warm};
use crate::store::{Advance, Store};

/// A held lease, and what is to be run.
pub struct Claim {
    pub generation: Generation,
    /// The head before this host took the lease; the generation below.
    pub before: Option<(Generation, Head)>,
    /// The head as this host wrote it.
    pub head: Head,
    pub version: Version,
    /// What the head's checkpoint says, if it has one.
    pub checkpoint: Option<Checkpoint>,
    /// The volumes on this host are this head's: it goes on from them, as after a power cut.
    pub crashed: bool,
    /// Why it boots although its version has a memory to start from; none when that was wished.
    pub cold: Option<String>,
    /// What it is on trial with.
    pub change: Option<Change>,
}

impl Claim {
    /// The version's memory, when the instance begins with it.
    pub fn warm(&self) -> Option<&Warm> {
        let begins = self.checkpoint.is_none() && self.head.warm && !self.crashed;
        self.version.warm.as_ref().filter(|_| begins)
    }

    /// What it continues from; none: it boots.
    pub fn memory(&self) -> Option<&Memory> {
        match &self.checkpoint {
            _ if self.crashed => None,
            Some(checkpoint) => checkpoint.memory.as_ref(),
            None => self.warm().map(|warm| &warm.memory),
        }
    }

    /// The disks that belong to it.
    pub fn disks(&self) -> &[ManifestId] {
        match &self.checkpoint {
            Some(checkpoint) => &checkpoint.disks,
            None => self.version.first_disks(self.head.warm),
        }
    }

    /// Whether the guest has to be told that it is somebody else now. One that comes with a parcel was told
    /// where it comes from.
    pub fn fresh(&self) -> bool {
        (self.head.fresh || self.warm().is_some()) && self.head.parcel.is_none()
    }
}

/// Takes the lease of `name`, as `start` says. With `boot`, it does not begin with its version's
/// memory. With `network`, its first card is plugged into that one from now on. What the repository does
/// not have comes from `chunks`.
#[expect(clippy::too_many_arguments, reason = "the whole situation of a start")]
pub fn claim(
    store: &Store,
    chunks: &Chunks,
    host: &HostDir,
    name: &Name,
    start: &Start,
    boot: bool,
    network: Option<&Name>,
    accel: Accel,
) -> Result<Claim> {
    let current = store.head(name)?;
    let (generation, head) = match start {
        Start::New { appliance, version_id, auto, follow, .. } => {
            if let Some((_, head)) = &current.head {
                return Err(exists(name, head));
            }
            let version: VersionId = version_id
                .parse()
                .map_err(|_| Failure::new("internal", "the order names no version", ""))?;
            let appliance = Name::appliance(appliance)
                .map_err(|_| Failure::new("internal", "the order names no appliance", ""))?;
            let auto = match auto {
                Some(text) => Some(Auto::parse(text).map_err(|_| {
                    Failure::new("internal", "the order's policy cannot be read", "")
                })?),
                None => None,
            };
            let follow = follow.as_ref().map(FollowOrder::read).transpose()?;
            let new = new_head(store, name, appliance, version, follow)?;
            (current.generation, Head { auto, ..new })
        }
        Start::Existing { take_over, at } => {
            let Some((generation, head)) = current.head.clone() else {
                return Err(not_found(name));
            };
            if at.is_some_and(|at| at != generation.0) {
                return Err(moved(name));
            }
            if let Some(lease) = &head.lease
                && lease.holder != host.id()
                && !head.is_offered()
                && !take_over
            {
                return Err(held(name, lease));
            }
            (generation, head)
        }
    };
    // After a crash or a take-over a memory may go on that has gone on before.
    let offered = head.is_offered();
    let again = head.state == InstanceState::Running && !offered;
    let vmgenid = if again { ambient::random() } else { head.vmgenid };
    let version = store.version(head.version)?;
    let local = LocalDir::new(host, name);
    let mut crashed = match &current.head {
        Some((generation, before)) => leftovers::belong_to(&local, host, *generation, before)?,
        None => false,
    };
    let take_over = matches!(start, Start::Existing { take_over: true, .. });
    let (mut head, checkpoint) = match arrive(store, chunks, host, &head)? {
        Err(failure) if take_over => {
            eprintln!("it goes back to its last checkpoint: {failure}");
            if std::mem::take(&mut crashed) {
                let aside = local.set_volumes_aside()?;
                eprintln!("what was written here since is set aside: {}", aside.display());
            }
            let checkpoint = head.checkpoint.map(|id| store.checkpoint(id)).transpose()?;
            (line::without_parcel(head), checkpoint)
        }
        arrived => arrived?,
    };
    if let Some(lease) = head.lease.take_if(|lease| lease.holder != host.id())
        && !offered
    {
        line::taken_over(&mut head, lease.holder);
    }
    let mut cold = None;
    let warm = if crashed || checkpoint.is_some() {
        head.warm
    } else {
        match &version.warm {
            Some(warm) if head.warm && !boot => {
                let fits = machine::check(&warm.memory.machine, &version.hardware, accel);
                cold = fits.err().map(|differs| format!("its appliance's memory {differs}"));
                cold.is_none()
            }
            _ => false,
        }
    };
    let change = match head.trial {
        Some(_) => store.last_change(&head)?.map(|(_, _, change)| {
            // It has shown that it works, and this host could not write that down.
            match crate::noted::is_well(&LocalDir::new(host, name), change.to) {
                true => Change { migrate: Vec::new(), health: Vec::new(), ..change },
                false => change,
            }
        }),
        None => None,
    };
    let trial = head.trial.map(|trial| Trial { begun: true, ..trial });
    let state = InstanceState::Running;
    let network = match network {
        Some(network) if network.as_str() == network::USER => None,
        Some(network) => Some(network.clone()),
        None => head.network.clone(),
    };
    let head = Head { trial, state, lease: Some(lease(host)), vmgenid, warm, network, ..head };
    ambient::step("claim: read");
    match store.advance(generation, &head)? {
        Advance::Done(generation) => {
            ambient::step("claim: held");
            let before = current.head;
            Ok(Claim { generation, before, head, version, checkpoint, crashed, cold, change })
        }
        Advance::Fenced => match store.head(name)?.head {
            Some((_, Head { lease: Some(lease), .. })) => Err(held(name, &lease)),
            Some((_, head)) => Err(exists(name, &head)),
            None => Err(not_found(name)),
        },
    }
}

/// What it goes on from, and its head as that is then: what is in a parcel that lies here goes into the
/// repository first; of one that lies elsewhere the checkpoint's record is here when this returns. Within: why
/// nobody gives it.
fn arrive(
    store: &Store,
    chunks: &Chunks,
    host: &HostDir,
    head: &Head,
) -> Result<Result<(Head, Option<Checkpoint>)>> {
    let Some(parcel) = &head.parcel else {
        let checkpoint = head.checkpoint.map(|id| store.checkpoint(id)).transpose()?;
        return Ok(Ok((head.clone(), checkpoint)));
    };
    if parcel.host == host.id() {
        let mut lying = crate::parcel::lie(host)?.into_iter();
        let Some(lying) = lying.find(|lying| lying.parcel == *parcel) else {
            return Ok(Err(away(parcel, 0).about(&head.name)));
        };
        let mut session = store.session()?;
        lying.put_into(session.sink())?;
        session.finish()?;
        ambient::step("claim: the parcel is durable");
        let checkpoint = store.checkpoint(parcel.checkpoint)?;
        return Ok(Ok((crate::verbs::arrived(head, &lying), Some(checkpoint))));
    }
    chunks.prefer(parcel);
    match Store::checkpoint_of(&*chunks.source, parcel.checkpoint) {
        Ok(checkpoint) => Ok(Ok((head.clone(), Some(checkpoint)))),
        // The repository, which would have to say that it is not there.
        Err(failure) if failure.kind == "unavailable" => Err(failure),
        Err(failure) => {
            let Failure { kind, message, hint } = away(parcel, 0).about(&head.name);
            Ok(Err(Failure::new(kind, format!("{message} ({})", failure.message), hint)))
        }
    }
}

/// Gives the lease back after a start that never ran the guest, so that the next try finds what
/// this one found.
pub fn release(store: &Store, claim: &Claim) -> Result<()> {
    let advanced = match &claim.before {
        Some((_, before)) if before.state != InstanceState::Running => {
            store.advance(claim.generation, before)?
        }
        // Offered again; or, when the parcel was stored, as if it had been at once.
        Some((_, before)) if before.is_offered() && claim.head.parcel == before.parcel => {
            store.advance(claim.generation, before)?
        }
        Some((_, before)) if before.is_offered() && claim.head.checkpoint != before.checkpoint => {
            let state = InstanceState::Suspended;
            store.advance(claim.generation, &Head { state, lease: None, ..claim.head.clone() })?
        }
        // It was this host's (or taken over) before: it still is.
        Some(_) => return Ok(()),
        None => store.retire(claim.generation, &claim.head.name)?,
    };
    ambient::step("claim: given back");
    match advanced {
        Advance::Done(_) | Advance::Fenced => Ok(()),
    }
}

/// The lease of this host.
fn lease(host: &HostDir) -> Lease {
    Lease {
        holder: host.id(),
        holder_name: host.name().to_owned(),
        granted_unix_ms: ambient::unix_ms(),
    }
}

fn new_head(
    store: &Store,
    name: &Name,
    appliance: Name,
    version: VersionId,
    follow: Option<Follow>,
) -> Result<Head> {
    let nics = store.version(version)?.hardware.nics.len();
    Ok(Head {
        instance: InstanceId::from_bytes(ambient::random()),
        name: name.clone(),
        appliance,
        version,
        state: InstanceState::Stopped,
        lease: None,
        checkpoint: None,
        origin: None,
        macs: fresh_macs(nics),
        vmgenid: ambient::random(),
        fresh: false,
        warm: true,
        auto: None,
        autos: Vec::new(),
        holds: Vec::new(),
        left: None,
        follow,
        trial: None,
        network: None,
        gone: Vec::new(),
        keep_taken: None,
        parcel: None,
    })
}

/// New addresses for `count` network cards.
pub fn fresh_macs(count: usize) -> Vec<[u8; 6]> {
    (0..count).map(|_| network::random_mac(ambient::random()).0).collect()
}

/// The addresses of an instance that gets another version: the cards it had keep theirs.
pub fn macs_for(store: &Store, mut macs: Vec<[u8; 6]>, version: VersionId) -> Result<Vec<[u8; 6]>> {
    let nics = store.version(version)?.hardware.nics.len();
    if macs.len() < nics {
        macs.extend(fresh_macs(nics - macs.len()));
    }
    Ok(macs)
}

/// The name is taken.
pub fn exists(name: &Name, head: &Head) -> Failure {
    Failure::new(
        "exists",
        format!("there is an instance {name} already ({})", head.state.as_str()),
        format!("`collective resume {name}` goes on with it, `collective rm {name}` removes it"),
    )
}

/// Whoever gave the order has seen an older head.
pub fn moved(name: &Name) -> Failure {
    Failure::new(
        "changed",
        format!("{name} has gone on since this was decided"),
        "look at it again: `collective ps` shows it as it is",
    )
}

/// Nobody knows this name.
pub fn not_found(name: &Name) -> Failure {
    Failure::new(
        "not_found",
        format!("there is no instance {name} in this repository"),
        "`collective ps` lists instances",
    )
}

fn held(name: &Name, lease: &Lease) -> Failure {
    let minutes = ambient::unix_ms().saturating_sub(lease.granted_unix_ms) / 60_000;
    Failure::new(
        "lease",
        format!("{name} runs on host {} (since {minutes} min)", lease.holder_name),
        format!(
            "`collective suspend {name}` there, or take it over with `collective resume {name} \
             --take-over`: that host's unsaved work is then kept as a branch"
        ),
    )
}
