//! What a run of tests left behind: mounts, processes, files.
//!
//! The tests get a folder for temporary files of their own and a mark in their environment, which
//! every process they start inherits. What still bears the mark or lies in the folder afterwards is
//! a leak. It is named, then removed, so that one failure does not spoil the next run.
//!
//! **Invariant:** what neither bears the mark nor names the folder is not stopped, and what lies
//! outside the folder is not removed.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread::sleep;
use std::time::Duration;

use anyhow::{Context, Result};

/// The variable that bears the mark.
const MARK: &str = "COLLECTIVE_TEST_RUN";

/// How long a process may take to end after its test.
const GRACE: Duration = Duration::from_secs(5);

/// Where a test that forgets its own `COLLECTIVE_DIR` would leave state.
const STATE: &[&str] = &["/var/lib/collective", "/var/cache/collective", "/run/collective"];

pub struct Watch {
    run: String,
    folder: PathBuf,
    root: PathBuf,
    grace: Duration,
    /// On a machine that nobody else uses, everything new counts, marked or not.
    alone: bool,
    before: Surroundings,
}

#[derive(Default)]
struct Surroundings {
    mounts: BTreeSet<String>,
    state: BTreeSet<String>,
    checkout: BTreeSet<String>,
}

impl Watch {
    /// Starts watching; `alone` when no other work goes on in this checkout and on this machine.
    pub fn start(root: &Path, alone: bool) -> Result<Self> {
        let run = ambient::random::<4>().iter().map(|b| format!("{b:02x}")).collect::<String>();
        // Short: sockets live in it, and their paths may have 107 bytes.
        let folder = std::env::temp_dir().join(format!("ct-{run}"));
        fs::create_dir(&folder).with_context(|| folder.display().to_string())?;
        let before = Surroundings::see(root);
        Ok(Self { run, folder, root: root.to_owned(), grace: GRACE, alone, before })
    }

    /// Makes `command` one of the watched.
    pub fn mark(&self, command: &mut Command) {
        command.env(MARK, &self.run).env("TMPDIR", &self.folder);
    }

    /// Names what is left, after a moment of grace, and removes what is certainly ours.
    pub fn finish(self) -> Vec<String> {
        let mut waited = Duration::ZERO;
        let mut processes = self.processes();
        while !processes.is_empty() && waited < self.grace {
            sleep(Duration::from_millis(100));
            waited += Duration::from_millis(100);
            processes = self.processes();
        }
        let after = Surroundings::see(&self.root);
        let inside = format!("{}/", self.folder.display());
        let mut left = Vec::new();
        for (pid, command) in &processes {
            left.push(format!("process {pid}: {command}"));
            let _ = Command::new("kill").args(["-KILL", &pid.to_string()]).status();
        }
        // The innermost first.
        let new: Vec<_> = after.mounts.difference(&self.before.mounts).collect();
        for mount in new.into_iter().rev() {
            let ours = mount.starts_with(&inside);
            if ours || self.alone {
                left.push(format!("mount {mount}"));
            }
            if ours {
                let _ = Command::new("umount").args(["--lazy", mount]).status();
            }
        }
        for entry in fs::read_dir(&self.folder).into_iter().flatten().flatten() {
            left.push(format!("file {}", entry.path().display()));
        }
        if self.alone {
            left.extend(after.state.difference(&self.before.state).map(|p| format!("file {p}")));
            let changed = after.checkout.difference(&self.before.checkout);
            left.extend(changed.map(|line| format!("in the checkout: {line}")));
        }
        if let Err(error) = fs::remove_dir_all(&self.folder) {
            left.push(format!("{}: cannot be removed: {error}", self.folder.display()));
        }
        left
    }

    fn processes(&self) -> Vec<(u32, String)> {
        let mark = format!("{MARK}={}", self.run);
        let mut found = Vec::new();
        for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
            let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else {
                continue;
            };
            // Gone in the meantime, or another user's: not ours to judge.
            let Ok(environment) = fs::read(entry.path().join("environ")) else { continue };
            let Ok(command) = fs::read(entry.path().join("cmdline")) else { continue };
            let command = String::from_utf8_lossy(&command).replace('\0', " ");
            let marked = environment.split(|b| *b == 0).any(|v| v == mark.as_bytes());
            // One that cleared its environment still names its files.
            if marked || command.contains(&*self.folder.to_string_lossy()) {
                found.push((pid, command.trim_end().chars().take(200).collect()));
            }
        }
        found
    }
}

impl Surroundings {
    fn see(root: &Path) -> Self {
        let mounts = mounts(&fs::read_to_string("/proc/self/mountinfo").unwrap_or_default());
        let home = |sub: &str| Some(PathBuf::from(std::env::var_os("HOME")?).join(sub));
        let state = STATE
            .iter()
            .map(PathBuf::from)
            .chain(home(".local/share/collective"))
            .chain(home(".cache/collective"))
            .filter(|path| path.exists())
            .map(|path| path.display().to_string())
            .collect();
        let status = Command::new("git").args(["status", "--porcelain"]).current_dir(root).output();
        let checkout = status
            .map(|o| String::from_utf8_lossy(&o.stdout).lines().map(str::to_owned).collect())
            .unwrap_or_default();
        Self { mounts, state, checkout }
    }
}

/// The mount points in the text of `/proc/self/mountinfo` (proc(5)).
fn mounts(mountinfo: &str) -> BTreeSet<String> {
    mountinfo
        .lines()
        .filter_map(|line| line.split(' ').nth(4))
        .map(|point| point.replace("\\040", " "))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn watch() -> Watch {
        let watch = Watch::start(Path::new("."), false).expect("a folder for temporary files");
        Watch { grace: Duration::from_millis(100), ..watch }
    }

    #[test]
    fn nothing_left_is_nothing_found() {
        let watch = watch();
        let folder = watch.folder.clone();
        assert_eq!(watch.finish(), [""; 0]);
        assert!(!folder.exists());
    }

    #[test]
    fn a_file_left_is_found_and_removed() {
        let watch = watch();
        let file = watch.folder.join("left");
        fs::write(&file, "").expect("a file");
        assert_eq!(watch.finish(), [format!("file {}", file.display())]);
        assert!(!file.exists());
    }

    #[test]
    fn a_process_left_is_found_and_stopped() {
        let watch = watch();
        let mut command = Command::new("sleep");
        command.arg("60");
        watch.mark(&mut command);
        let mut child = command.spawn().expect("sleep");
        // For a moment after its exec the kernel shows neither arguments nor environment.
        let shown =
            || fs::read(format!("/proc/{}/environ", child.id())).is_ok_and(|b| !b.is_empty());
        while !shown() {
            sleep(Duration::from_millis(1));
        }
        let left = watch.finish();
        assert_eq!(left, [format!("process {}: sleep 60", child.id())]);
        assert!(!child.wait().expect("a status").success());
    }

    #[test]
    fn mounts_are_read() {
        let text = "1 2 0:3 / /a\\040b rw - fuse.x y rw\n4 5 0:6 / /c rw shared:1 - tmpfs z rw\n";
        assert_eq!(mounts(text).into_iter().collect::<Vec<_>>(), ["/a b", "/c"]);
    }
}
