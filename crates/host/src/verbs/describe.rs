//! What this host says of itself to a plane.

use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt;

use api::{HeadSeen, HostReport, InstanceSeen};
use model::{Generation, HostId, InstanceState, Name, VersionId};
use vmm::KvmProof;

use super::Reference;
use crate::failure::{Failure, Result};
use crate::record::UpdatePolicy;
use crate::store::Store;
use crate::{Host, HostLease};

impl Host {
    /// This host, for ever.
    pub fn id(&self) -> HostId {
        self.dir.id()
    }

    /// What there is, and what runs. The repository is not asked: this is said every few seconds.
    pub fn describe(&self, labels: BTreeMap<String, String>) -> Result<HostReport> {
        let mut instances = Vec::new();
        let lease = HostLease::read(&self.dir)?;
        for name in self.dir.instances()? {
            let local = self.local(&name).read()?;
            let seen = match (self.status(&name), local) {
                (Some(status), _) => {
                    let size = (status.cpus, status.memory_bytes);
                    Some((status.state, status.generation, size))
                }
                // Nobody owns it, and it has writes that no checkpoint has.
                (None, Some(local)) if local.open => {
                    let state = InstanceState::Failed.as_str().to_owned();
                    Some((state, local.generation().0, (0, 0)))
                }
                (None, _) => None,
            };
            let seen = seen.map(|(state, generation, (cpus, memory_bytes))| InstanceSeen {
                name: name.to_string(),
                state,
                generation,
                managed: lease.as_ref().is_some_and(|lease| lease.is_about(&name)),
                cpus,
                memory_bytes,
            });
            instances.extend(seen);
        }
        // Asked anew: networks come and go while an agent runs.
        let networks = crate::HostDir::open(self.dir.root())?;
        let networks = networks.networks().keys();
        let networks =
            networks.map(|name| (format!("{}{name}", api::NETWORK_LABEL), "yes".to_owned()));
        Ok(HostReport {
            name: self.dir.name().to_owned(),
            labels: labels.into_iter().chain(networks).collect(),
            cpus: std::thread::available_parallelism().map_or(1, |n| n.get() as u32),
            memory_bytes: memory_for_guests()?,
            kvm: matches!(crate::accel::proof(&self.dir)?, KvmProof::Proven),
            cache_bytes: self.cache_bytes()?,
            cached: BTreeMap::new(),
            needed: BTreeMap::new(),
            instances,
            peer: None,
            load: None,
        })
    }

    /// What a host needs to run an appliance.
    pub fn size_of(&self, appliance: &Reference) -> Result<Size> {
        let store = self.store()?;
        let (version, _) = self.version_of(&store, appliance, UpdatePolicy::Auto)?;
        size(&store, version)
    }

    /// What a host needs to run an instance.
    pub fn size_of_instance(&self, name: &Name) -> Result<Size> {
        let store = self.store()?;
        let Some((_, head)) = store.head(name)?.head else {
            return Err(crate::shim::claim::not_found(name));
        };
        size(&store, head.version)
    }

    /// What the repository says of an instance.
    pub fn head_seen(&self, name: &Name) -> Result<HeadSeen> {
        let store = self.store()?;
        let current = store.head(name)?;
        let generation = current.generation.0;
        let Some((_, head)) = current.head else {
            let (name, state) = (name.to_string(), "none".to_owned());
            return Ok(HeadSeen { name, generation, state, ..HeadSeen::default() });
        };
        // It runs nowhere, and whoever starts it takes it from there.
        let offered = head.is_offered();
        let state = if offered { InstanceState::Suspended } else { head.state };
        let lease = head.lease.map(|lease| lease.holder.to_string());
        let (holder, offered_by) = if offered { (None, lease) } else { (lease, None) };
        let checkpoint = head.checkpoint.map(|id| store.checkpoint(id)).transpose()?;
        Ok(HeadSeen {
            name: name.to_string(),
            generation,
            holder,
            state: state.as_str().to_owned(),
            offered_by,
            checkpoint_unix_ms: checkpoint.map(|checkpoint| checkpoint.taken_unix_ms),
        })
    }

    /// The generation under which an instance runs here; none: it does not.
    pub fn generation_here(&self, name: &Name) -> Option<Generation> {
        self.status(name).map(|status| Generation(status.generation))
    }

    /// Lets the shims of this host know how long they may run what a plane has given them.
    pub fn keep_lease(&self, lease: &HostLease) -> Result<()> {
        lease.write(&self.dir)
    }

    /// What they were let know last.
    pub fn kept_lease(&self) -> Result<Option<HostLease>> {
        HostLease::read(&self.dir)
    }

    /// What the cache's files take of the disk.
    fn cache_bytes(&self) -> Result<u64> {
        let mut bytes = 0;
        for entry in std::fs::read_dir(self.dir.folder("cache")?)? {
            // One that has just gone takes nothing.
            bytes += entry?.metadata().map_or(0, |found| found.blocks() * 512);
        }
        Ok(bytes)
    }
}

/// What a host needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Size {
    pub version: VersionId,
    pub cpus: u32,
    pub memory_bytes: u64,
}

fn size(store: &Store, version: VersionId) -> Result<Size> {
    let hardware = store.version(version)?.hardware;
    Ok(Size { version, cpus: hardware.cpus, memory_bytes: hardware.memory_bytes })
}

/// Seven eighths of the memory: the rest is the host's own.
fn memory_for_guests() -> Result<u64> {
    let text = std::fs::read_to_string("/proc/meminfo")?;
    let line = text.lines().find_map(|line| line.strip_prefix("MemTotal:"));
    let kib = line.and_then(|line| line.trim().trim_end_matches("kB").trim().parse::<u64>().ok());
    let kib = kib.ok_or_else(|| {
        Failure::new("internal", "/proc/meminfo does not say how much memory there is", "")
    })?;
    Ok(kib / 8 * 7 * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_new_host_has_memory_and_nothing_that_runs() {
        let folder = tempfile::tempdir().unwrap();
        let host = Host::open(folder.path(), None).unwrap();
        std::fs::write(host.dir.folder("cache").unwrap().join("page"), [1; 10_000]).unwrap();
        let report = host.describe([("site".to_owned(), "home".to_owned())].into()).unwrap();
        assert!(report.memory_bytes > 100 << 20 && report.cpus > 0 && report.instances.is_empty());
        assert!(report.cache_bytes >= 10_000, "{}", report.cache_bytes);
        assert_eq!(host.describe(report.labels.clone()).unwrap(), report, "the same again");
    }
}
