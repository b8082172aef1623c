//! What can go wrong, with what a user can do about it.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

/// Why the virtual machine monitor did not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum VmmError {
    /// The program is not on this host.
    #[error("{} is not installed: {detail}", .program.display())]
    NotInstalled {
        /// The program looked for.
        program: PathBuf,
        /// What the operating system said.
        detail: String,
    },
    /// The launch asks for something that cannot be.
    #[error("cannot start this computer: {what}")]
    Invalid {
        /// What is wrong with it.
        what: String,
    },
    /// A file or socket of ours failed.
    #[error("{what}: {source}")]
    Io {
        /// What was being done, with the path.
        what: String,
        /// The operating system's error.
        source: io::Error,
    },
    /// QEMU ended.
    #[error("QEMU ended ({status}){}", tail(.log_tail))]
    Died {
        /// How: exit code or signal.
        status: String,
        /// The last lines that it (or the jail around it) wrote.
        log_tail: String,
    },
    /// The virtual TPM's process ended, and with it what makes the computer whole.
    #[error("the virtual TPM (swtpm) has ended ({status}){}", tail(.log_tail))]
    TpmDied {
        /// How: exit code or signal.
        status: String,
        /// The last lines that it wrote.
        log_tail: String,
    },
    /// QEMU refused a command.
    #[error("QEMU refused {command}: {detail}")]
    Refused {
        /// The QMP command.
        command: String,
        /// QEMU's own words.
        detail: String,
    },
    /// QEMU said something that is not QMP.
    #[error("QEMU answered {command} with something unexpected: {detail}")]
    Unexpected {
        /// The QMP command.
        command: String,
        /// What was wrong with the answer.
        detail: String,
    },
    /// No answer in time.
    #[error("{what} took longer than {} s", .after.as_secs_f32())]
    Timeout {
        /// What was waited for.
        what: String,
        /// The deadline.
        after: Duration,
    },
    /// Saving or loading device state failed.
    #[error("cannot {verb} the device state: {detail}")]
    State {
        /// `save` or `load`.
        verb: &'static str,
        /// QEMU's own words.
        detail: String,
    },
}

impl VmmError {
    /// What to do next, where there is something to do.
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            Self::NotInstalled { program, .. } if program.ends_with("qemu-img") => {
                Some("install it, on Debian: apt install qemu-utils (bookworm: from backports)")
            }
            Self::NotInstalled { program, .. } if program.ends_with("swtpm") => {
                Some("install it, on Debian: apt install swtpm")
            }
            Self::NotInstalled { .. } => Some(
                "install QEMU 10, on Debian: apt install qemu-system-x86 (bookworm: from backports)",
            ),
            Self::Died { log_tail, .. } if log_tail.contains("hostfwd") => {
                Some("another program took the published port: choose another one with -p")
            }
            Self::Died { log_tail, .. } if log_tail.contains("Permission denied") => {
                Some("QEMU's user must be able to reach the volume files: see `collective doctor`")
            }
            Self::Died { .. } => Some("the whole log is qemu.log in the instance's run directory"),
            Self::TpmDied { .. } => Some(
                "the guest goes on without it until it is stopped: `collective stop NAME` keeps its disks \
                 and what the TPM remembers, `collective resume NAME` starts it with a TPM again",
            ),
            Self::State { verb: "load", .. } => Some(
                "a checkpoint loads only on the same hardware description, accelerator and QEMU series",
            ),
            Self::Timeout { .. } => {
                Some("the host may be overloaded: try again, or look at qemu.log")
            }
            _ => None,
        }
    }

    pub(crate) fn io(what: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        let what = what.into();
        move |source| Self::Io { what, source }
    }
}

fn tail(log: &str) -> String {
    if log.is_empty() { String::new() } else { format!(": {log}") }
}
