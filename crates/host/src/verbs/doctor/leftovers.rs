//! What crashes left on this host, and removing what is provably nobody's.
//!
//! *Invariants.* Whatever an instance wrote and no checkpoint has stays, and is named. An instance is
//! looked at, and cleaned, only while no shim holds its lock; a folder of work only while nobody
//! holds its lock.

use std::path::Path;

use api::DoctorPrint;
use model::Name;

use super::{bad, ok, warning};
use crate::failure::Result;
use crate::local::{ASIDE, LocalDir};
use crate::store::Store;
use crate::{Host, shim, socket, work};

/// Where work is done that a killed command leaves.
const SHELVES: [&str; 3] = ["builds", "imports", "exports"];
/// A temporary file of ours is renamed within moments.
const TEMPORARY_MS_MIN: u64 = 3_600_000;

/// What was found.
#[derive(Default)]
struct Found {
    /// Nobody's: removed with `--fix`.
    nobodys: Vec<String>,
    /// The only copy of something: it stays.
    only_here: Vec<String>,
}

impl Host {
    /// Looks for them; with `fix`, removes what is nobody's.
    pub(super) fn leftovers(&self, fix: bool) -> DoctorPrint {
        let mut found = Found::default();
        if let Err(failure) = self.look_for_leftovers(fix, &mut found) {
            return bad("leftovers", failure.message, failure.hint);
        }
        let Found { nobodys, only_here } = found;
        let removed = format!("removed: {}", nobodys.join(", "));
        match (nobodys.is_empty(), only_here.is_empty()) {
            (true, true) => ok("leftovers", "none of crashes".to_owned()),
            (false, true) if fix => ok("leftovers", removed),
            (false, true) => {
                let hint = "`collective doctor --fix` removes them: nothing needs them";
                warning("leftovers", nobodys.join(", "), hint)
            }
            (_, false) => {
                let mut detail = format!("only here: {}", only_here.join(", "));
                if !nobodys.is_empty() {
                    detail =
                        format!("{detail}; {}", if fix { removed } else { nobodys.join(", ") });
                }
                let hint = "what is only here is never removed by itself: `collective resume NAME` goes \
                            on from it, `collective rm NAME` gives it up";
                warning("leftovers", detail, hint)
            }
        }
    }

    fn look_for_leftovers(&self, fix: bool, found: &mut Found) -> Result<()> {
        let store = self.store().ok();
        for name in self.dir.instances()? {
            self.look_at(&name, store.as_ref(), fix, found)?;
        }
        for shelf in SHELVES {
            let path = self.dir.root().join(shelf);
            if !path.is_dir() {
                continue;
            }
            // What a killed build runs goes with it, or its folder stays for another time.
            let mut bury = |dead: &Path| self.bury_build(dead);
            let count = work::abandoned(&path, if fix { Some(&mut bury) } else { None })?;
            if count > 0 {
                found.nobodys.push(format!("{count} folders of killed commands in {shelf}/"));
            }
        }
        let mut count = 0;
        for entry in std::fs::read_dir(self.dir.root())?.flatten() {
            if is_old_temporary(&entry) {
                count += 1;
                if fix {
                    std::fs::remove_file(entry.path())?;
                }
            }
        }
        if count > 0 {
            found.nobodys.push(format!("{count} temporary files"));
        }
        Ok(())
    }

    fn look_at(
        &self,
        name: &Name,
        store: Option<&Store>,
        fix: bool,
        found: &mut Found,
    ) -> Result<()> {
        let local = self.local(name);
        // Held until the end: no shim is born meanwhile.
        let Ok(lock) = shim::take_lock(local.path(), name) else { return Ok(()) };
        for pid in qemus_of(&local) {
            found.nobodys.push(format!("QEMU {pid} of {name}, without its shim"));
            if fix && let Some(pid) = rustix::process::Pid::from_raw(pid) {
                rustix::process::kill_process(pid, rustix::process::Signal::KILL)
                    .map_err(std::io::Error::from)?;
            }
        }
        let mounts = [local.ram_mount(), local.disk_mount()];
        let dead = mounts.iter().filter(|mount| is_mounted(mount)).count();
        let cables = shim::cables::are_left(&local);
        if cables {
            found.nobodys.push(format!("network devices of {name}"));
        }
        if dead > 0 {
            found.nobodys.push(format!("{dead} dead mounts of {name}"));
        }
        if fix && (dead > 0 || cables) {
            shim::unmount_leftovers(&local)?;
        }
        let run = local.run();
        let sockets = [
            local.path().join(socket::SOCKET),
            run.join(vmm::CONSOLE_SOCKET),
            run.join(vmm::VNC_SOCKET),
        ];
        let sockets: Vec<_> =
            sockets.iter().filter(|path| path.symlink_metadata().is_ok()).collect();
        if !sockets.is_empty() {
            found.nobodys.push(format!("{} dead sockets of {name}", sockets.len()));
            for socket in sockets.into_iter().filter(|_| fix) {
                std::fs::remove_file(socket)?;
            }
        }
        if local.path().join(ASIDE).exists() {
            let path = local.path().join(ASIDE);
            found.only_here.push(format!("disks of a removed {name} in {}", path.display()));
        }
        let instance = local.read()?;
        let gone = match store {
            Some(store) => store.head(name)?.head.is_none(),
            None => false,
        };
        match instance {
            // Of another repository, perhaps: only with its own can it be said that it is gone.
            Some(instance)
                if gone && store.is_some_and(|s| s.location() == instance.repository) =>
            {
                if instance.open && local.volumes().exists() {
                    let path = local.volumes();
                    found.only_here.push(format!(
                        "disks of {name}, which is gone from its repository, in {}",
                        path.display()
                    ));
                } else if !local.path().join(ASIDE).exists() {
                    found
                        .nobodys
                        .push(format!("files of {name}, which is gone from its repository"));
                    if fix {
                        drop(lock);
                        local.remove()?;
                    }
                }
            }
            _ => {}
        }
        Ok(())
    }
}

/// Processes that run as QEMU on files of this instance.
fn qemus_of(local: &LocalDir) -> Vec<i32> {
    let run = format!("{}/", local.run().display());
    let is_it = |pid: &i32| {
        let command = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let text = String::from_utf8_lossy(&command);
        let program = text.split('\0').next().unwrap_or_default();
        program.rsplit('/').next().is_some_and(|name| name.starts_with("qemu-system-"))
            && text.contains(&run)
    };
    let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).filter(is_it).collect()
}

/// Whether anything is mounted there, without asking what is mounted: a dead server does not answer.
fn is_mounted(path: &Path) -> bool {
    let table = std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    // A blank in a path is written as \040 (proc_pid_mountinfo(5)).
    let path = path.display().to_string().replace(' ', "\\040");
    table.lines().any(|line| line.split(' ').nth(4) == Some(path.as_str()))
}

/// A file of ours that was to be renamed, so long ago that nobody will.
fn is_old_temporary(entry: &std::fs::DirEntry) -> bool {
    let name = entry.file_name();
    let name = name.to_string_lossy();
    let ours = name.strip_prefix(".host.json.").or_else(|| name.strip_prefix("host.json."));
    let is_ours =
        ours.is_some_and(|tag| !tag.is_empty() && tag.bytes().all(|b| b.is_ascii_hexdigit()));
    let modified = entry.metadata().and_then(|meta| meta.modified()).ok();
    let modified_ms = modified
        .and_then(|time| time.duration_since(std::time::UNIX_EPOCH).ok())
        .map_or(u64::MAX, |age| age.as_millis() as u64);
    is_ours && ambient::unix_ms().saturating_sub(modified_ms) > TEMPORARY_MS_MIN
}
