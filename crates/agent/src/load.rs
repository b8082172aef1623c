//! How busy this host is, for the plane: the machine by its own figures, its instances by what they have
//! had of processors since it was last looked.

use std::collections::HashMap;
use std::time::Duration;

use api::{LoadSeen, RunPrint};
use host::{Failure, Host, Metered};

/// How often it is looked; between, beats say what was seen last.
const PACE: Duration = Duration::from_secs(30);

/// What was seen last.
#[derive(Debug, Default)]
pub struct Loads {
    seen: Option<(ambient::Instant, LoadSeen)>,
    /// Of each start, its instance and what it had had of processors.
    runs: HashMap<String, (String, u64)>,
}

impl Loads {
    /// How busy a host is now, or was a moment ago.
    pub fn of(&mut self, host: &Host) -> Result<LoadSeen, Failure> {
        let past = self.seen.as_ref().map(|(at, _)| at.elapsed());
        if let Some((_, load)) = &self.seen
            && past.is_some_and(|past| past < PACE)
        {
            return Ok(load.clone());
        }
        let mut load = host.busy()?;
        let runs: Vec<_> = host.metered()?.into_iter().map(|Metered { run, .. }| run).collect();
        let used = self.used(&runs, past);
        for (name, instance) in &mut load.instances {
            instance.cpu_percent = used.get(name).copied();
        }
        self.seen = Some((ambient::now(), load.clone()));
        Ok(load)
    }

    /// What instances have had of one CPU since they were last looked at, percent.
    fn used(&mut self, now: &[RunPrint], past: Option<Duration>) -> HashMap<String, u32> {
        let now = now.iter().filter(|run| !run.ended);
        let now = now.map(|run| (run.run.clone(), (run.name.clone(), run.cpu_ms)));
        let before = std::mem::replace(&mut self.runs, now.collect());
        let past_ms = past.map_or(0, |past| past.as_millis().max(1));
        let since = self.runs.iter().filter_map(|(run, (name, cpu_ms))| {
            let (_, then_ms) = before.get(run)?;
            let percent = u128::from(cpu_ms.saturating_sub(*then_ms)) * 100 / past_ms.max(1);
            Some((name.clone(), u32::try_from(percent).unwrap_or(u32::MAX)))
        });
        since.collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(id: &str, name: &str, cpu_ms: u64, ended: bool) -> RunPrint {
        RunPrint {
            run: id.to_owned(),
            name: name.to_owned(),
            appliance: "web".to_owned(),
            ended,
            running_ms: 0,
            cpu_ms,
            memory_mib_s: 0,
            fetched_bytes: 0,
            peer_bytes: 0,
            stored_bytes: 0,
        }
    }

    #[test]
    fn what_a_start_has_had_since_counts_and_nothing_else() {
        let mut loads = Loads::default();
        assert!(loads.used(&[run("1", "web", 90_000, false)], None).is_empty(), "since when?");
        let past = Some(Duration::from_secs(30));
        let now =
            [run("1", "web", 135_000, false), run("2", "db", 9, false), run("0", "old", 9, true)];
        assert_eq!(loads.used(&now, past), HashMap::from([("web".to_owned(), 150)]));
        // Started anew it begins at nothing.
        let now = [run("3", "web", 5, false), run("2", "db", 3009, false)];
        assert_eq!(loads.used(&now, past), HashMap::from([("db".to_owned(), 10)]));
    }
}
