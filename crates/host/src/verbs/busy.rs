//! How busy this host is, for a plane.

use std::collections::BTreeMap;

use api::{InstanceLoad, LoadSeen};
use model::Name;

use crate::Host;
use crate::failure::{Failure, Result};

impl Host {
    /// How busy this machine is, by whatever runs on it, and what its instances have not stored. What they
    /// have of processors is not asked: [`Host::metered`] says what they have had.
    pub fn busy(&self) -> Result<LoadSeen> {
        let cpus = std::thread::available_parallelism().map_or(1, usize::from);
        let mut instances = BTreeMap::new();
        for name in self.dir.instances()? {
            let Some(status) = self.status(&name) else { continue };
            let unsaved = status.volumes.iter().filter_map(|volume| volume.dirty_bytes);
            let unsaved_bytes = unsaved.reduce(u64::saturating_add);
            let load = InstanceLoad { cpu_percent: None, unsaved_bytes };
            instances.insert(name.to_string(), load);
        }
        Ok(LoadSeen {
            cpu_percent: said("/proc/loadavg", |text| cpu_percent(text, cpus))?,
            memory_percent: said("/proc/meminfo", memory_percent)?,
            instances,
            round_trips_us: BTreeMap::new(),
        })
    }

    /// What was fetched for an instance since it began to start here, as its volumes have it; none: it has
    /// none here.
    pub fn fetched_bytes(&self, name: &Name) -> Option<u64> {
        let fetched = self.status(name)?.volumes;
        fetched.iter().filter_map(|volume| volume.fetched_bytes).reduce(u64::saturating_add)
    }
}

fn said(file: &str, read: impl FnOnce(&str) -> Option<u32>) -> Result<u32> {
    let text = std::fs::read_to_string(file)?;
    read(&text).ok_or_else(|| {
        Failure::new("internal", format!("{file} does not say how busy this machine is"), "")
    })
}

/// The second figure is over five minutes (proc(5)): what is over in a moment moves nothing.
fn cpu_percent(loadavg: &str, cpus: usize) -> Option<u32> {
    let tasks: f64 = loadavg.split_whitespace().nth(1)?.parse().ok()?;
    Some((tasks * 100.0 / cpus.max(1) as f64).round() as u32)
}

fn memory_percent(meminfo: &str) -> Option<u32> {
    let kib = |field: &str| {
        let rest = meminfo.lines().find_map(|line| line.strip_prefix(field))?;
        rest.trim().trim_end_matches("kB").trim().parse::<u64>().ok()
    };
    let (all, free) = (kib("MemTotal:")?, kib("MemAvailable:")?);
    u32::try_from(all.saturating_sub(free).saturating_mul(100) / all.max(1)).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_figures_are_read_as_they_are_meant() {
        assert_eq!(cpu_percent("9.00 6.50 1.25 3/512 4242\n", 4), Some(163));
        assert_eq!(cpu_percent("0.00 0.00 0.00 1/99 7\n", 64), Some(0));
        assert_eq!(cpu_percent("much\n", 4), None);
        let meminfo = "MemTotal:  8000 kB\nMemFree:  10 kB\nMemAvailable:   2000 kB\n";
        assert_eq!(memory_percent(meminfo), Some(75));
        assert_eq!(memory_percent("MemTotal:  8000 kB\n"), None);
        let folder = tempfile::tempdir().unwrap();
        let busy = Host::open(folder.path(), None).unwrap().busy().unwrap();
        assert!(busy.memory_percent > 0 && busy.memory_percent <= 100 && busy.instances.is_empty());
    }
}
