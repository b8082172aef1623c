//! The workshop: the two folders that a build may write to, its log, and its progress.
//!
//! * `work` is this build's: outputs, a log, and `temp/`, which is emptied at the start and
//!   removed at the end, also after an error.
//! * `tools` is shared by all builds of a machine and only ever a cache: deleting it costs time,
//!   nothing else. A lock file in it lets one build at a time use it. Entries are made beside
//!   their place and renamed into it, so that a crash leaves no half entry under a final name.
//!
//! Programs run with an environment of their own, so that the user's cannot change the bytes.

use std::fs::{self, File, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::BuildError;
use crate::programs;

/// The time that every file and file system claims at the latest: 2026-01-01T00:00:00Z.
///
/// Package files keep their own, older times. Changing it changes the bytes of every appliance.
pub(crate) const EPOCH_SECONDS: u64 = 1_767_225_600;

/// The most output that is taken from a program.
const CAPTURE_BYTES_MAX: u64 = 8 << 20;
/// How much of a failed program's output an error repeats.
const TAIL_BYTES: u64 = 1200;

/// One step of a build, as it begins or ends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    /// What is being done, for people: `kernel linux-image-cloud-amd64`.
    pub what: String,
    /// How far it is.
    pub outcome: Outcome,
}

/// How far a step is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// It has begun.
    Begun,
    /// It is done.
    Done,
    /// Nothing had to be done: an earlier build's result was reused.
    Reused,
}

/// See the module's documentation.
pub(crate) struct Workshop<'a> {
    pub work: PathBuf,
    pub temp: PathBuf,
    pub tools: PathBuf,
    log: PathBuf,
    progress: &'a mut dyn FnMut(Step),
    _lock: File,
}

impl<'a> Workshop<'a> {
    /// Makes the folders, takes the lock, waiting for another build if need be, and empties `temp`.
    pub fn open(
        work: &Path,
        tools: &Path,
        progress: &'a mut dyn FnMut(Step),
    ) -> Result<Self, BuildError> {
        make_dir(work)?;
        make_dir(tools)?;
        // Programs get these paths after a chdir or chroot, so they must be absolute.
        let absolute =
            |path: &Path| fs::canonicalize(path).map_err(BuildError::io("finding", path));
        let (work, tools) = (absolute(work)?, absolute(tools)?);
        let lock_path = tools.join("lock");
        let lock = File::create(&lock_path).map_err(BuildError::io("creating", &lock_path))?;
        if lock.try_lock().is_err() {
            progress(Step { what: "waiting for another build".into(), outcome: Outcome::Begun });
            lock.lock().map_err(BuildError::io("locking", &lock_path))?;
        }
        let temp = work.join("temp");
        if temp.exists() {
            fs::remove_dir_all(&temp).map_err(BuildError::io("emptying", &temp))?;
        }
        make_dir(&temp)?;
        let log = work.join("build.log");
        File::create(&log).map_err(BuildError::io("creating", &log))?;
        Ok(Self { work, temp, tools, log, progress, _lock: lock })
    }

    pub fn step(&mut self, what: impl Into<String>, outcome: Outcome) {
        (self.progress)(Step { what: what.into(), outcome });
    }

    /// A command with an empty environment, but for what programs need and how the user reaches
    /// the network. It is killed when the thread that started it ends, as when this process is
    /// killed: nothing may go on writing where the next build will.
    pub fn command(&self, program: &str) -> Command {
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL", "--", program]);
        command.env_clear().current_dir(&self.temp).stdin(Stdio::null());
        command
            .env("PATH", programs::FOLDERS.join(":"))
            .env("HOME", &self.temp)
            .env("TMPDIR", &self.temp)
            .env("LC_ALL", "C.UTF-8")
            .env("TZ", "UTC")
            .env("DEBIAN_FRONTEND", "noninteractive")
            .env("SOURCE_DATE_EPOCH", EPOCH_SECONDS.to_string());
        for name in ["http_proxy", "https_proxy", "no_proxy", "APT_CONFIG"] {
            if let Some(value) = std::env::var_os(name) {
                command.env(name, value);
            }
        }
        command
    }

    /// Runs to the end; its output goes to the log.
    pub fn run(&self, doing: &str, command: &mut Command) -> Result<(), BuildError> {
        let (log, start) = self.log_for(doing)?;
        let stdout = log.try_clone().map_err(BuildError::io("opening", &self.log))?;
        let status = command.stdout(stdout).stderr(log).status();
        self.judge(doing, command, status, start)
    }

    /// Runs to the end a command whose standard output already goes where it should.
    pub fn run_to_file(&self, doing: &str, command: &mut Command) -> Result<(), BuildError> {
        let (log, start) = self.log_for(doing)?;
        let status = command.stderr(log).status();
        self.judge(doing, command, status, start)
    }

    /// Runs to the end and gives what it printed; its errors go to the log.
    pub fn capture(&self, doing: &str, command: &mut Command) -> Result<String, BuildError> {
        let (log, start) = self.log_for(doing)?;
        let mut child = match command.stdout(Stdio::piped()).stderr(log).spawn() {
            Ok(child) => child,
            Err(error) => {
                self.judge(doing, command, Err(error), start)?;
                return Ok(String::new());
            }
        };
        let mut output = Vec::new();
        if let Some(stdout) = child.stdout.take() {
            stdout
                .take(CAPTURE_BYTES_MAX)
                .read_to_end(&mut output)
                .map_err(BuildError::io("reading from", command.get_program()))?;
        }
        self.judge(doing, command, child.wait(), start)?;
        Ok(String::from_utf8_lossy(&output).into_owned())
    }

    /// Runs `left | right`; errors of both go to the log.
    pub fn pipe(
        &self,
        doing: &str,
        left: &mut Command,
        right: &mut Command,
    ) -> Result<(), BuildError> {
        let (log, start) = self.log_for(doing)?;
        let clone = || log.try_clone().map_err(BuildError::io("opening", &self.log));
        let mut feeder = left
            .stdout(Stdio::piped())
            .stderr(clone()?)
            .spawn()
            .map_err(BuildError::io("starting", left.get_program()))?;
        if let Some(stdout) = feeder.stdout.take() {
            right.stdin(stdout);
        }
        let taken = right.stdout(clone()?).stderr(clone()?).status();
        // `right` holds the pipe's end: without it the feeder sees the pipe closed, and ends.
        right.stdin(Stdio::null());
        let fed = feeder.wait();
        self.judge(doing, right, taken, start)?;
        self.judge(doing, left, fed, start)
    }

    fn log_for(&self, doing: &str) -> Result<(File, u64), BuildError> {
        let io = |doing| BuildError::io(doing, &self.log);
        let mut log = OpenOptions::new().append(true).open(&self.log).map_err(io("opening"))?;
        writeln!(log, "== {doing}").map_err(io("writing"))?;
        let start = log.seek(SeekFrom::End(0)).map_err(io("reading"))?;
        Ok((log, start))
    }

    fn judge(
        &self,
        doing: &str,
        command: &Command,
        ended: std::io::Result<std::process::ExitStatus>,
        log_start: u64,
    ) -> Result<(), BuildError> {
        let status = ended.map_err(BuildError::io("starting", command.get_program()))?;
        if status.success() {
            return Ok(());
        }
        let detail = self.tail(log_start).unwrap_or_default();
        Err(BuildError::Failed { doing: doing.to_owned(), status: status.to_string(), detail })
    }

    fn tail(&self, start: u64) -> std::io::Result<String> {
        let mut log = File::open(&self.log)?;
        let end = log.seek(SeekFrom::End(0))?;
        log.seek(SeekFrom::Start(start.max(end.saturating_sub(TAIL_BYTES))))?;
        let mut bytes = Vec::new();
        log.take(TAIL_BYTES).read_to_end(&mut bytes)?;
        Ok(String::from_utf8_lossy(&bytes).trim().to_owned())
    }
}

impl Drop for Workshop<'_> {
    fn drop(&mut self) {
        // A leftover is emptied by the next build; nothing else can be done here.
        let _ = fs::remove_dir_all(&self.temp);
    }
}

/// A name in a folder of the tools for an entry that is being made, to be renamed when it is
/// whole. What earlier builds left unfinished there is removed.
pub(crate) fn growing(folder: &Path) -> Result<PathBuf, BuildError> {
    make_dir(folder)?;
    for entry in fs::read_dir(folder).map_err(BuildError::io("reading", folder))? {
        let path = entry.map_err(BuildError::io("reading", folder))?.path();
        if path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("growing-")) {
            let removed =
                if path.is_dir() { fs::remove_dir_all(&path) } else { fs::remove_file(&path) };
            removed.map_err(BuildError::io("removing", path))?;
        }
    }
    let random = u64::from_le_bytes(ambient::random());
    Ok(folder.join(format!("growing-{random:016x}")))
}

/// Makes a folder and its parents.
pub(crate) fn make_dir(path: &Path) -> Result<(), BuildError> {
    fs::create_dir_all(path).map_err(BuildError::io("creating", path))
}
