//! The virtual TPM: a process beside QEMU (swtpm), behind walls of its own.
//!
//! QEMU has the device that the guest sees, swtpm the TPM behind it; between them is a socket pair,
//! so that nobody else can speak to either. What a TPM remembers without power is one file in its
//! folder, [`TPM_FILE`]. It replaces that file as a whole, and syncs it, before the guest hears that it
//! was written. All else (registers, sessions) is a part of QEMU's device state, which also brings the
//! file's content: what is loaded from a saved state replaces the file.
//!
//! *Invariants.* It has no network, reaches no socket of the host and no file but those of its folder,
//! and runs as another user than QEMU. It has ended when QEMU's end is told, and never outlives this
//! process.

use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::VmmError;
use crate::jail::{Identity, Launcher, Limits, Orders};
use crate::process::Process;
use crate::recording::Recording;

/// What it remembers without power, in its folder.
pub const TPM_FILE: &str = "tpm2-00.permall";
/// The largest that it may write; [`TPM_FILE`] has a few kilobytes, with all its room used some 200.
pub const TPM_FILE_BYTES_MAX: u64 = 1 << 19;
/// What it wrote to standard error, in the run directory.
pub const TPM_LOG: &str = "tpm.log";

/// Its end of the socket pair.
const FD_CONTROL: i32 = 100;
/// It has nothing to finish but a write of some kilobytes.
const END_MAX: Duration = Duration::from_secs(10);

/// How the TPM of a computer is started.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TpmLaunch {
    /// swtpm's program, see [`crate::find_swtpm`].
    pub program: PathBuf,
    /// Its folder, which it owns.
    pub dir: PathBuf,
    /// Whom it runs as; needs root. None: as the caller.
    pub identity: Option<Identity>,
}

/// A running TPM. Dropping it ends it.
pub(crate) struct Tpm {
    process: Process,
    log: Recording,
}

impl Tpm {
    /// Starts it; gives QEMU's end of its socket too.
    pub fn start(
        launch: &TpmLaunch,
        launcher: &Launcher,
        run_dir: &Path,
    ) -> Result<(Self, OwnedFd), VmmError> {
        let io = || VmmError::io("starting the virtual TPM");
        let (control, theirs) = UnixStream::pair().map_err(io())?;
        let log_path = run_dir.join(TPM_LOG);
        let _ = std::fs::remove_file(&log_path);
        let (pipe, their_log) = std::io::pipe().map_err(io())?;
        let log = Recording::start("tpm-log", pipe, &log_path).map_err(io())?;
        let words = [
            "socket".to_owned(),
            "--tpm2".to_owned(),
            "--tpmstate".to_owned(),
            // Its folder is where it works.
            "dir=.,mode=0600".to_owned(),
            "--ctrl".to_owned(),
            format!("type=unixio,clientfd={FD_CONTROL}"),
        ];
        let orders = Orders {
            parent: std::process::id(),
            identity: launch.identity.map(|id| (id.uid, id.gid)),
            own: vec![launch.dir.clone()],
            cwd: Some(launch.dir.clone()),
            limits: Limits { file_bytes: Some(TPM_FILE_BYTES_MAX), ..Limits::default() },
            fds: 1,
            first_fd: FD_CONTROL,
            command: std::iter::once(launch.program.clone().into())
                .chain(words.into_iter().map(Into::into))
                .collect(),
            ..Orders::default()
        };
        let process = Process::behind_walls(launcher, &orders, vec![theirs.into()], their_log)?;
        Ok((Self { process, log }, control.into()))
    }

    /// Waits until it has ended, at most so long; says why.
    pub fn failure(&self, timeout: Duration) -> Option<VmmError> {
        let status = self.process.wait(timeout)?;
        self.log.wait_end(Duration::from_secs(1));
        Some(VmmError::TpmDied {
            status: crate::qemu::in_words(status),
            log_tail: crate::qemu::tail(&self.log),
        })
    }

    /// Lets it finish what it writes, and waits until it is gone.
    pub fn end(&self) {
        self.process.terminate();
        if self.process.wait(END_MAX).is_none() {
            self.process.kill();
            self.process.wait(END_MAX);
        }
    }
}

impl Drop for Tpm {
    fn drop(&mut self) {
        self.end();
    }
}
