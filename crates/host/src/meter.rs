//! What instances here have used, for a plane: `meter/RUN.json`, one for each start.
//!
//! ```text
//! the start's shim writes ──▶ meter/RUN.json ──▶ the agent says it ──▶ the plane counts it ──▶ the agent
//!                                                                      removes it, if it has ended
//! ```
//!
//! Without a plane there are none. **Invariant:** one that its shim still writes is not taken for ended,
//! and one that has ended is there until the plane has counted it. *After a crash* of the shim it says
//! what was so some seconds before; what came later is not counted.

use std::collections::HashSet;
use std::path::PathBuf;

use api::{ReadsPrint, RunPrint};
use serde::{Deserialize, Serialize};

use crate::Host;
use crate::dir::{self, HostDir};
use crate::failure::Result;
use crate::host_lease;

const FOLDER: &str = "meter";
const FORMAT: u32 = 1;

/// One start's file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct RunFile {
    format: u32,
    /// Which start of the machine, and which process of it.
    boot: String,
    pid: u32,
    born_ticks: u64,
    #[serde(flatten)]
    pub run: RunPrint,
    /// For the figures of this host alone. An older shim writes none.
    #[serde(default)]
    pub reads: ReadsPrint,
}

/// What a start has used, and what its reads found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Metered {
    pub run: RunPrint,
    pub reads: ReadsPrint,
}

impl RunFile {
    /// Of a start whose shim is this process.
    pub fn new(run: RunPrint) -> Self {
        let pid = std::process::id();
        let born_ticks = born_ticks(pid).unwrap_or_default();
        let reads = ReadsPrint::default();
        Self { format: FORMAT, boot: host_lease::boot(), pid, born_ticks, run, reads }
    }

    fn lives(&self) -> bool {
        self.boot == host_lease::boot() && born_ticks(self.pid) == Some(self.born_ticks)
    }

    fn place(host: &HostDir, run: &str) -> Result<PathBuf> {
        Ok(host.folder(FOLDER)?.join(format!("{run}.json")))
    }

    /// Writes it for the agent; the last time so that it is there after a crash of the machine too.
    pub fn write(&self, host: &HostDir) -> Result<()> {
        let place = Self::place(host, &self.run.run)?;
        if self.run.ended {
            dir::replace_json(&place, self)
        } else {
            dir::replace_passing(&place, self)
        }
    }

    /// Nobody will ask for it.
    pub fn remove(host: &HostDir, run: &str) -> Result<()> {
        match std::fs::remove_file(Self::place(host, run)?) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error.into()),
            _ => Ok(()),
        }
    }
}

/// When a process was born, in ticks since the machine was; none: there is no such process.
fn born_ticks(pid: u32) -> Option<u64> {
    stat(pid)?.get(19)?.parse().ok()
}

/// What a process and those of its children that it has waited for have had of processors; none: there
/// is no such process.
pub(crate) fn processor_ms(pid: u32) -> Option<u64> {
    // `/proc` counts in hundredths of a second, whatever the kernel's own tick is (proc(5): USER_HZ).
    const TICK_MS: u64 = 10;
    let fields = stat(pid)?;
    let ticks = fields.get(11..15)?.iter().map(|field| field.parse::<u64>().unwrap_or_default());
    Some(ticks.sum::<u64>() * TICK_MS)
}

/// The fields of a process after its name, which may have anything in it.
fn stat(pid: u32) -> Option<Vec<String>> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (_, rest) = text.rsplit_once(')')?;
    Some(rest.split_whitespace().map(str::to_owned).collect())
}

impl Host {
    /// What each start of an instance here has used that the plane has not been said to the end; the
    /// oldest first.
    pub fn metered(&self) -> Result<Vec<Metered>> {
        let folder = self.dir.root().join(FOLDER);
        let entries = match std::fs::read_dir(&folder) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
            entries => entries?,
        };
        let mut files = Vec::new();
        for entry in entries {
            let path = entry?.path();
            if path.extension().is_some_and(|extension| extension == "json") {
                files.push(path);
            }
        }
        files.sort();
        let mut runs = Vec::new();
        for path in files {
            // One that a power cut has cut short says nothing, and keeps nobody from the others.
            let read = || match dir::decode::<RunFile>(&path) {
                Err(failure) if failure.kind == "damaged" => Ok(None),
                other => other.map(Some),
            };
            let Some(before) = read()? else { continue };
            let lived = before.lives();
            // What its shim wrote last is only certain to be there once that is gone.
            let Some(now) = read()? else { continue };
            let run = RunPrint { ended: now.run.ended || !lived, ..now.run };
            runs.push(Metered { run, reads: now.reads });
        }
        Ok(runs)
    }

    /// These have ended, and are counted.
    pub fn forget_metered(&self, runs: &HashSet<String>) -> Result<()> {
        runs.iter().try_for_each(|run| RunFile::remove(&self.dir, run))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(id: &str, ended: bool) -> RunPrint {
        RunPrint {
            run: id.to_owned(),
            name: "web".to_owned(),
            appliance: "acme/web".to_owned(),
            ended,
            running_ms: 5,
            cpu_ms: 4,
            memory_mib_s: 3,
            fetched_bytes: 2,
            peer_bytes: 1,
            stored_bytes: 0,
        }
    }

    #[test]
    fn what_a_start_has_used_is_there_until_it_is_counted() {
        let folder = tempfile::tempdir().unwrap();
        let host = Host::open(folder.path(), None).unwrap();
        assert_eq!(host.metered().unwrap(), []);
        let mut lives = RunFile::new(run("2", false));
        lives.write(&host.dir).unwrap();
        RunFile::new(run("1", true)).write(&host.dir).unwrap();
        // Of a shim that is gone: another process may have its number by now.
        RunFile { born_ticks: 1, ..RunFile::new(run("3", false)) }.write(&host.dir).unwrap();
        RunFile { boot: "x".to_owned(), ..RunFile::new(run("4", false)) }.write(&host.dir).unwrap();
        std::fs::write(host.dir.folder(FOLDER).unwrap().join("5.json"), "").unwrap();
        // One of a shim that is older than this program.
        let older = serde_json::json!({"format": 1, "boot": "x", "pid": 1, "born_ticks": 1,
            "run": "6", "name": "web", "appliance": "acme/web", "ended": true, "running_ms": 5,
            "cpu_ms": 4, "memory_mib_s": 3, "fetched_bytes": 2, "peer_bytes": 1, "stored_bytes": 0});
        std::fs::write(host.dir.folder(FOLDER).unwrap().join("6.json"), older.to_string()).unwrap();
        let expected =
            [run("1", true), run("2", false), run("3", true), run("4", true), run("6", true)];
        let metered = host.metered().unwrap();
        assert!(metered.iter().all(|metered| metered.reads == ReadsPrint::default()));
        assert!(metered.into_iter().map(|metered| metered.run).eq(expected));
        host.forget_metered(&["1", "3", "6", "7"].map(str::to_owned).into()).unwrap();
        lives.run.running_ms = 9;
        lives.reads.ram.micros = 7;
        lives.write(&host.dir).unwrap();
        let runs = host.metered().unwrap();
        let (first, reads) = (&runs[0].run, &runs[0].reads);
        assert_eq!((runs.len(), first.running_ms, first.ended), (2, 9, false));
        assert_eq!(reads.ram.micros, 7);
    }

    #[test]
    fn a_process_has_had_what_the_kernel_says() {
        let before = processor_ms(std::process::id()).unwrap();
        let began = ambient::processor_time();
        while (ambient::processor_time() - began).as_millis() < 60 {}
        assert!(processor_ms(std::process::id()).unwrap() >= before + 40);
        assert_eq!(processor_ms(u32::MAX), None);
    }
}
