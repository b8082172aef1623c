//! What the instance has used, written down for the host's agent as long as it runs, and once more
//! when it has ended.
//!
//! **Invariant:** each number only grows. Without a plane nothing is written.

use std::sync::Arc;
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::Duration;

use api::RunPrint;

use super::running::Running;
use super::shared::Shared;
use crate::dir::HostDir;
use crate::meter::{RunFile, processor_ms};

/// How often. What a shim that is killed has used since then is not counted.
const PACE: Duration = Duration::from_secs(5);

/// Writes until it is ended.
pub struct Meter {
    end: Sender<()>,
    thread: Option<JoinHandle<()>>,
}

impl Meter {
    /// Begins with a start. What cannot be written is tried again: it keeps no guest from running.
    pub fn begin(host: &HostDir, running: &Running) -> Self {
        let [a, b, c, d, e, f]: [u8; 6] = ambient::random();
        let chance = u64::from_be_bytes([0, 0, a, b, c, d, e, f]);
        let mut file = RunFile::new(RunPrint {
            // Older ones sort first.
            run: format!("{:012x}{chance:012x}", ambient::unix_ms()),
            name: running.head.name.to_string(),
            appliance: running.head.appliance.to_string(),
            ended: false,
            running_ms: 0,
            cpu_ms: 0,
            memory_mib_s: 0,
            fetched_bytes: 0,
            peer_bytes: 0,
            stored_bytes: 0,
        });
        let (host, shared) = (host.clone(), running.shared.clone());
        // They outlive the volumes and their mounts.
        let volumes: Vec<_> = running.volumes.all().map(|volume| volume.counters()).collect();
        let faults = running.volumes.faults.clone();
        let (end, ended) = channel();
        let write = move || {
            loop {
                let over = ended.recv_timeout(PACE) != Err(RecvTimeoutError::Timeout);
                read(&shared, &mut file.run);
                let cached_bytes = volumes.iter().map(|counters| counters.cached_bytes()).sum();
                file.reads = faults.print(cached_bytes);
                file.run.ended = over;
                let written = match host.has_a_plane() {
                    true => file.write(&host),
                    false => RunFile::remove(&host, &file.run.run),
                };
                if over {
                    if let Err(failure) = written {
                        eprintln!("what it has used was not written down: {failure}");
                    }
                    return;
                }
            }
        };
        let thread = std::thread::Builder::new().name("meter".to_owned()).spawn(write).ok();
        Self { end, thread }
    }

    /// Writes down the last of it.
    pub fn end(self) {
        drop(self.end);
        if let Some(thread) = self.thread {
            let _ = thread.join();
        }
    }
}

fn read(shared: &Arc<Shared>, run: &mut RunPrint) {
    let (used, qemu_pid) = shared.used();
    // Of a QEMU that has ended, the shim has waited for it: then it is among its children.
    let here = processor_ms(std::process::id()).unwrap_or_default();
    let machine = qemu_pid.and_then(processor_ms).unwrap_or_default();
    let (_, memory_bytes) = shared.size();
    run.running_ms = used.running.as_millis() as u64;
    run.cpu_ms = run.cpu_ms.max(here + machine);
    run.memory_mib_s = (u128::from(memory_bytes >> 20) * used.there.as_millis() / 1000) as u64;
    run.fetched_bytes = used.fetched_bytes;
    run.peer_bytes = used.peer_bytes;
    run.stored_bytes = used.stored_bytes;
}
