//! The serial console: a bounded log of what it said, a way to wait for a line, and the socket
//! for whoever wants to type.
//!
//! QEMU writes a copy of the console into a pipe that we record to `console.log`, and goes on
//! there from start to start. When we die, QEMU dies with us; the log keeps what was said.

use std::io::{self, PipeReader};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::descriptors;
use crate::recording::Recording;

/// The socket of the console in the run directory.
pub const CONSOLE_SOCKET: &str = "console.sock";
/// The log of the console in the run directory; what was before its last 4 MiB is in
/// `console.log.1`, and what was before that is gone.
pub const CONSOLE_LOG: &str = "console.log";

/// What the guest said on its serial console since this QEMU started.
#[derive(Clone)]
pub struct Console {
    recording: Recording,
    run_dir: PathBuf,
}

impl Console {
    /// Starts to record what comes out of `pipe`.
    pub(crate) fn record(pipe: PipeReader, run_dir: &Path) -> io::Result<Self> {
        let recording = Recording::start("console", pipe, &run_dir.join(CONSOLE_LOG))?;
        Ok(Self { recording, run_dir: run_dir.to_owned() })
    }

    /// Waits until the console has said `text`; false when the time is over or QEMU ended.
    /// Searches the last 64 KiB.
    pub fn wait_for(&self, text: &str, timeout: Duration) -> bool {
        self.recording.wait_for(text, timeout)
    }

    /// The last part of what was said, at most 128 KiB, as text.
    pub fn recent(&self) -> String {
        self.recording.recent()
    }

    /// Opens the console to read and type; one at a time, the next one waits for the first.
    pub fn attach(&self) -> io::Result<UnixStream> {
        attach(&self.run_dir)
    }
}

/// Opens the console of the instance whose run directory this is, from any process of its user.
pub fn attach(run_dir: &Path) -> io::Result<UnixStream> {
    let (_dir, path) = descriptors::short_path(run_dir, CONSOLE_SOCKET)?;
    UnixStream::connect(path)
}
