//! The verbs that only look: `ps`, `inspect`, `appliances`.

use std::collections::BTreeMap;
use std::time::Duration;

use api::{AppliancePrint, InspectPrint, InstancePrint, Reply, Request, Status, VolumePrint};
use model::{Generation, InstanceState, Name};

use super::volume_print;
use crate::Host;
use crate::failure::{self, Failure, Result};
use crate::local::LocalInstance;
use crate::record::{Head, Version};
use crate::shim::cables::first_network;
use crate::store::Store;

/// A shim answers `Status` at once, or something is wrong with it.
const STATUS_TIMEOUT: Duration = Duration::from_secs(5);

impl Host {
    /// Every instance of the repository, and those that only this host knows. When the repository
    /// cannot be read, this host's, and why.
    pub fn ps(&self, local_only: bool) -> Result<(Vec<InstancePrint>, Option<String>)> {
        let mut heads: BTreeMap<Name, Option<(Generation, Head)>> =
            self.dir.instances()?.into_iter().map(|name| (name, None)).collect();
        let mut warning = None;
        let store = self.store();
        match store.as_ref().map_err(Clone::clone).and_then(Store::heads) {
            Ok(found) => {
                for (generation, head) in found {
                    if !local_only || heads.contains_key(&head.name) {
                        heads.insert(head.name.clone(), Some((generation, head)));
                    }
                }
            }
            Err(failure) => {
                warning = Some(format!("only this host's instances are shown: {failure}"));
            }
        }
        let store = store.ok();
        let mut rows = Vec::new();
        for (name, head) in heads {
            let local = self.local(&name).read()?;
            // A folder without a head and without a file is a start that never came to be.
            if head.is_none() && local.is_none() {
                continue;
            }
            rows.push(self.row(
                &name,
                store.as_ref(),
                head.as_ref().map(|(_, h)| h),
                local.as_ref(),
            ));
        }
        Ok((rows, warning))
    }

    fn row(
        &self,
        name: &Name,
        store: Option<&Store>,
        head: Option<&Head>,
        local: Option<&LocalInstance>,
    ) -> InstancePrint {
        let status = self.status(name);
        let version = store
            .zip(head)
            .and_then(|(store, head)| store.version(head.version).ok())
            .map(|version| version.version)
            .or_else(|| local.map(|local| local.version.clone()))
            .unwrap_or_default();
        let mine = head
            .and_then(|head| head.lease.as_ref())
            .is_some_and(|lease| lease.holder == self.dir.id());
        let open = local.is_some_and(|local| local.open);
        let state = match (&status, head) {
            (Some(status), _) => status.state.clone(),
            (None, Some(_)) if mine => InstanceState::Failed.as_str().to_owned(),
            (None, Some(head)) => head.state.as_str().to_owned(),
            (None, None) if open => InstanceState::Failed.as_str().to_owned(),
            (None, None) => InstanceState::Stopped.as_str().to_owned(),
        };
        let holder = head.and_then(|head| head.lease.as_ref());
        let note = match &status {
            Some(status) => status.stalled.clone().or_else(|| status.lost.clone()),
            None if state == "failed" => {
                Some("its shim or QEMU ended without being asked to".into())
            }
            None => None,
        };
        let note = note.map(|note| failure::with_name(&note, name));
        let note = note.or_else(|| self.update_note(head?));
        InstancePrint {
            name: name.to_string(),
            id: head
                .map(|head| head.instance.to_string())
                .or_else(|| local.map(|local| local.id.clone()))
                .unwrap_or_default(),
            state,
            appliance: head
                .map(|head| head.appliance.to_string())
                .or_else(|| local.map(|local| local.appliance.clone()))
                .unwrap_or_default(),
            version,
            accel: status.as_ref().map(|s| s.accel.clone()).filter(|accel| !accel.is_empty()),
            pid: status.as_ref().map(|s| s.pid),
            host: holder.map(|lease| lease.holder_name.clone()),
            ports: status.map_or_else(Vec::new, |s| s.ports),
            note,
        }
    }

    /// What the shim of an instance says, if one answers.
    pub(super) fn status(&self, name: &Name) -> Option<Status> {
        let local = self.local(name);
        match local.doors().ask(local.path(), &Request::Status, STATUS_TIMEOUT) {
            Ok(Reply::Status(status)) => Some(*status),
            _ => None,
        }
    }

    /// Calls off the start of an instance that goes on here now; whether that is in time. Then that start
    /// fails with `changed`, the guest has not run, and all is as it was before. Fails when nobody answers:
    /// it has not begun, or is over.
    pub fn call_off(&self, name: &Name) -> Result<bool> {
        let local = self.local(name);
        match local.doors().ask(local.path(), &Request::CallOff, STATUS_TIMEOUT)? {
            Reply::CalledOff { in_time } => Ok(in_time),
            other => Err(Failure::new("internal", format!("unexpected reply {other:?}"), "")),
        }
    }

    /// Everything that is known about an instance.
    pub fn inspect(&self, name: &Name) -> Result<InspectPrint> {
        let store = self.store()?;
        let local_dir = self.local(name);
        let local = local_dir.read()?;
        let Some((generation, head)) = store.head(name)?.head else {
            return Err(self.absent(&store, name));
        };
        let version = store.version(head.version)?;
        let status = self.status(name);
        let instance = self.row(name, Some(&store), Some(&head), local.as_ref());
        let volumes = match &status {
            Some(status) if !status.volumes.is_empty() => status.volumes.clone(),
            _ => volumes_at_rest(&store, &head, &version)?,
        };
        let runs = status.is_some();
        Ok(InspectPrint {
            instance,
            version_id: head.version.to_string(),
            generation: generation.0,
            head: head.checkpoint.map(|id| id.to_string()),
            origin: head.origin.map(|id| id.to_string()),
            cpus: version.hardware.cpus,
            memory_bytes: version.hardware.memory_bytes,
            profile: match version.hardware.profile {
                model::Profile::Q35 => "q35",
                model::Profile::Light => "light",
            }
            .to_owned(),
            cpu_model: vmm::BASELINE_CPU.to_owned(),
            mac: head.macs.iter().map(|mac| network::Mac(*mac).to_string()).collect(),
            network: first_network(&head, &version.hardware).to_owned(),
            volumes,
            scrub: status.as_ref().and_then(|status| status.scrub.clone()),
            arriving: status.as_ref().and_then(|status| status.arriving.clone()),
            auto: api::AutoPrint {
                keep_taken: head.keep_taken.map(|keep| keep.to_string()),
                ..match status.as_ref().and_then(|status| status.auto.clone()) {
                    Some(auto) => auto,
                    None => super::auto_print(self.said(&store, &head)?),
                }
            },
            drift: None,
            signed: self.signed(&head),
            updates: self.updates_print(&head),
            trace: status.and_then(|status| status.trace),
            vnc: (runs && version.hardware.display.is_some())
                .then(|| format!("unix:{}", local_dir.run().join(vmm::VNC_SOCKET).display())),
            directory: local.map(|_| local_dir.path().display().to_string()),
        })
    }

    /// The appliances of the repository.
    pub fn appliances(&self) -> Result<Vec<AppliancePrint>> {
        let store = self.store()?;
        let mut list = Vec::new();
        for (name, id) in store.appliances()? {
            let version = store.version(id)?;
            list.push(AppliancePrint {
                name: name.to_string(),
                version: version.version,
                version_id: id.to_string(),
                description: version.description,
            });
        }
        list.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(list)
    }
}

fn volumes_at_rest(store: &Store, head: &Head, version: &Version) -> Result<Vec<VolumePrint>> {
    let checkpoint = head.checkpoint.map(|id| store.checkpoint(id)).transpose()?;
    let memory = match &checkpoint {
        Some(checkpoint) => checkpoint.memory.as_ref(),
        None => version.first_memory(head.warm),
    };
    let ram = memory.map(|memory| memory.ram);
    let mut volumes = vec![volume_print("ram", ram, version.hardware.memory_bytes)];
    let disks = checkpoint.map_or_else(|| version.first_disks(head.warm).to_vec(), |c| c.disks);
    for (spec, manifest) in version.hardware.disks.iter().zip(disks) {
        volumes.push(volume_print(&spec.name, Some(manifest), spec.size_bytes));
    }
    Ok(volumes)
}
