//! A tool of QEMU's (`qemu-img`) behind the same walls as QEMU: it reads what strangers made.
//!
//! It sees the files that it is given and nothing else, has no network, may use so much memory, time
//! and disk, and is killed at its deadline, when its caller says so, or when its caller ends.
//!
//! *Invariant.* When [`Confined::run`] returns, the program has ended.

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::{Command, ExitStatus, Stdio};
use std::time::Duration;

use crate::VmmError;
use crate::jail::{Identity, Launcher, Limits, Orders};
use crate::listener::Listener;
use crate::process::Process;

/// Of what it says on standard error.
const MESSAGE_BYTES_MAX: u64 = 16 << 10;
/// How often its caller is asked whether it may go on.
const ASK_EVERY: Duration = Duration::from_millis(200);

/// One run of a program.
#[derive(Debug, Clone)]
pub struct Confined {
    /// How to reach the entry point of the jail.
    pub launcher: Launcher,
    /// Whom it runs as; needs root. None: as the caller.
    pub identity: Option<Identity>,
    /// The program, an absolute path.
    pub program: PathBuf,
    /// Its arguments.
    pub arguments: Vec<OsString>,
    /// Where it works; its user must be able to enter it.
    pub cwd: PathBuf,
    /// Files that it may read.
    pub readable: Vec<PathBuf>,
    /// Files that it may write; they must be there.
    pub writable: Vec<PathBuf>,
    /// What it may use.
    pub limits: Limits,
    /// How long it may take.
    pub deadline: Duration,
    /// The most that is read of what it prints, bytes.
    pub output_bytes_max: u64,
}

/// How it ended.
#[derive(Debug)]
pub struct Ended {
    /// Its exit code or signal.
    pub status: ExitStatus,
    /// What it printed, at most as much as was asked for.
    pub output: Vec<u8>,
    /// The beginning of what it wrote to standard error.
    pub messages: String,
}

impl Confined {
    /// Runs it to its end. `go_on` is asked several times a second: an error of its kills the
    /// program and is returned inside.
    pub fn run<E>(
        &self,
        mut go_on: impl FnMut() -> Result<(), E>,
    ) -> Result<Result<Ended, E>, VmmError> {
        let name = self.program.display();
        let io = || VmmError::io(format!("starting {name}"));
        let orders = Orders {
            parent: std::process::id(),
            identity: self.identity.map(|id| (id.uid, id.gid)),
            readable: self.readable.clone(),
            writable: self.writable.clone(),
            cwd: Some(self.cwd.clone()),
            limits: self.limits,
            command: std::iter::once(self.program.clone().into())
                .chain(self.arguments.iter().cloned())
                .collect(),
            ..Orders::default()
        };
        let (output, their_output) = std::io::pipe().map_err(io())?;
        let (messages, their_messages) = std::io::pipe().map_err(io())?;
        let mut command = Command::new(&self.launcher.program);
        command
            .args(&self.launcher.arguments)
            .args(orders.arguments())
            .env_clear()
            .stdin(Stdio::null())
            .stdout(Stdio::from(their_output))
            .stderr(Stdio::from(their_messages));
        let process = Process::spawn(command).map_err(io())?;
        let output = Listener::start(output, self.output_bytes_max).map_err(io())?;
        let messages = Listener::start(messages, MESSAGE_BYTES_MAX).map_err(io())?;

        let end = ambient::now() + self.deadline;
        let status = loop {
            if let Some(status) = process.wait(ASK_EVERY) {
                break status;
            }
            if let Err(refusal) = go_on() {
                return Ok(Err(refusal));
            }
            if ambient::now() >= end {
                let what = format!(
                    "{name} {}",
                    self.arguments.first().map_or("".into(), |word| word.to_string_lossy())
                );
                return Err(VmmError::Timeout { what, after: self.deadline });
            }
        };
        drop(process);
        Ok(Ok(Ended { status, output: output.finish(), messages: messages.finish_text() }))
    }
}
