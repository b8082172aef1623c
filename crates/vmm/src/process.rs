//! A child process that cannot outlive us, and whose end is noticed at once.
//!
//! The child asks the kernel to be killed when the *thread* that started it ends. So each child
//! has a keeper thread that starts it and then does nothing but wait for it.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, ExitStatus, Stdio};
use std::sync::mpsc::channel;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

use crate::VmmError;
use crate::descriptors;
use crate::jail::{Launcher, Orders, WAIT};

/// A jail that is there before it is known what is to run in it: while that is found out, the process
/// comes into being. Dropping it ends it.
pub struct Readied {
    process: Process,
    handover: UnixStream,
    log: io::PipeReader,
}

impl Readied {
    /// Starts it.
    pub fn start(launcher: &Launcher) -> Result<Self, VmmError> {
        let (log, their_log) = io::pipe().map_err(VmmError::io("a pipe for QEMU's log"))?;
        let (process, handover) = Process::waiting(launcher, their_log)?;
        Ok(Self { process, handover, log })
    }

    /// Lets it become what `orders` say, with these descriptors; and gives what it says from now on.
    /// Where it has ended meanwhile, the process says so.
    pub(crate) fn becomes(
        self,
        orders: &Orders,
        inherited: Vec<OwnedFd>,
    ) -> Result<(Process, io::PipeReader), VmmError> {
        let text = orders.text();
        let mut message = (text.len() as u32).to_le_bytes().to_vec();
        message.extend(text);
        let fds: Vec<_> = inherited.iter().map(AsFd::as_fd).collect();
        match descriptors::send(self.handover.as_fd(), &message, &fds) {
            Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
                Err(VmmError::io("telling the jail its orders")(error))
            }
            _ => Ok((self.process, self.log)),
        }
    }
}

#[derive(Default)]
struct Ended {
    status: Mutex<Option<ExitStatus>>,
    changed: Condvar,
}

/// A running child.
pub(crate) struct Process {
    pid: u32,
    /// Signals go here: a number could have been given to somebody else by now.
    pidfd: OwnedFd,
    ended: Arc<Ended>,
}

impl Process {
    /// Starts `command` on a keeper thread.
    pub fn spawn(mut command: Command) -> io::Result<Self> {
        let ended = Arc::new(Ended::default());
        let for_keeper = Arc::clone(&ended);
        let (started, start) = channel();
        std::thread::Builder::new().name("qemu-keeper".to_owned()).spawn(move || {
            let spawned = command.spawn().and_then(|mut child| {
                let pid = Pid::from_child(&child);
                // The child is not reaped before `wait` below, so the number is still its own.
                pidfd_open(pid, PidfdFlags::empty())
                    .map(|pidfd| (pidfd, pid))
                    .map_err(|error| {
                        let _ = child.kill();
                        let _ = child.wait();
                        io::Error::from(error)
                    })
                    .map(|(pidfd, pid)| (child, pidfd, pid))
            });
            // The command holds our copies of the child's sockets; they must close with it.
            drop(command);
            match spawned {
                Err(error) => {
                    let _ = started.send(Err(error));
                }
                Ok((mut child, pidfd, pid)) => {
                    let _ = started.send(Ok((pidfd, pid.as_raw_nonzero().get() as u32)));
                    let status = child.wait().unwrap_or(ExitStatus::from_raw(-1));
                    *lock(&for_keeper.status) = Some(status);
                    for_keeper.changed.notify_all();
                }
            }
        })?;
        let (pidfd, pid) = start.recv().map_err(|_| io::Error::other("the keeper ended"))??;
        Ok(Self { pid, pidfd, ended })
    }

    /// Starts what `orders` say behind the jail's walls, with these descriptors, and what it says
    /// going to `log`.
    pub fn behind_walls(
        launcher: &Launcher,
        orders: &Orders,
        inherited: Vec<OwnedFd>,
        log: io::PipeWriter,
    ) -> Result<Self, VmmError> {
        let io_error = || VmmError::io("a socket for the jail");
        let (handover, stdin) = UnixStream::pair().map_err(io_error())?;
        let fds: Vec<_> = inherited.iter().map(AsFd::as_fd).collect();
        descriptors::send(handover.as_fd(), &[0], &fds).map_err(io_error())?;

        let mut command = Command::new(&launcher.program);
        command
            .args(&launcher.arguments)
            .args(orders.arguments())
            .env_clear()
            .stdin(Stdio::from(OwnedFd::from(stdin)))
            .stdout(Stdio::from(log.try_clone().map_err(VmmError::io("a log"))?))
            .stderr(Stdio::from(log));
        Self::spawn(command).map_err(|error| VmmError::NotInstalled {
            program: launcher.program.clone(),
            detail: error.to_string(),
        })
    }

    /// Starts the entry point of the jail, which waits for orders, and gives the end of its standard
    /// input.
    fn waiting(launcher: &Launcher, log: io::PipeWriter) -> Result<(Self, UnixStream), VmmError> {
        let io_error = || VmmError::io("a socket for the jail");
        let (handover, stdin) = UnixStream::pair().map_err(io_error())?;
        let mut command = Command::new(&launcher.program);
        command
            .args(&launcher.arguments)
            .arg(WAIT)
            .env_clear()
            .stdin(Stdio::from(OwnedFd::from(stdin)))
            .stdout(Stdio::from(log.try_clone().map_err(VmmError::io("a log"))?))
            .stderr(Stdio::from(log));
        let process = Self::spawn(command).map_err(|error| VmmError::NotInstalled {
            program: launcher.program.clone(),
            detail: error.to_string(),
        })?;
        Ok((process, handover))
    }

    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// Asks it to end.
    pub fn terminate(&self) {
        let _ = pidfd_send_signal(&self.pidfd, Signal::TERM);
    }

    pub fn kill(&self) {
        // Fails only when it has ended already.
        let _ = pidfd_send_signal(&self.pidfd, Signal::KILL);
    }

    /// How it ended, waiting at most `timeout` for that.
    pub fn wait(&self, timeout: Duration) -> Option<ExitStatus> {
        let status = lock(&self.ended.status);
        let waited = self.ended.changed.wait_timeout_while(status, timeout, |s| s.is_none());
        *waited.unwrap_or_else(PoisonError::into_inner).0
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
        self.wait(Duration::from_secs(10));
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_is_noticed() {
        let mut command = Command::new("sh");
        command.args(["-c", "exit 3"]);
        let process = Process::spawn(command).unwrap();
        assert_eq!(process.wait(Duration::from_secs(20)).unwrap().code(), Some(3));

        let mut command = Command::new("sleep");
        command.arg("1000");
        let process = Process::spawn(command).unwrap();
        assert_eq!(process.wait(Duration::from_millis(20)), None);
        process.kill();
        assert_eq!(process.wait(Duration::from_secs(20)).unwrap().signal(), Some(9));
    }

    #[test]
    fn what_cannot_start_says_so() {
        assert!(Process::spawn(Command::new("/does/not/exist")).is_err());
    }
}
