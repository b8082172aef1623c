//! One running QEMU: how it is started, what can be asked of it, and how its end is seen.
//!
//! ```text
//!   spawn ──► booting/running ◄──cont── stopped ──save_state──► stopped (saved)
//!      └─incoming──► waiting ──load_state──► stopped            │cont: goes on
//!   any state ──quit, kill, the guest's own power-off, a crash──► ended (wait_exit)
//! ```
//!
//! Invariants: QEMU opens nothing but its volumes and boot files: sockets, logs and state files
//! are opened here and handed over as descriptors. The monitor is a socket pair, so nobody
//! else can ever speak to it. It never outlives this process.
//!
//! Every request has a deadline. When QEMU ends, requests under way fail at once with
//! [`VmmError::Died`] and the last lines of its log.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::sync::mpsc::Receiver;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use model::PortMap;
use network::Netdev;
use serde_json::{Value, json};

use crate::VmmError;
use crate::agent::Channel;
use crate::command_line::{self, FD_FIRST, FDSET_FIRST};
use crate::console::{CONSOLE_SOCKET, Console};
use crate::descriptors;
use crate::jail::{Limits, Orders};
use crate::launch::{Accel, Launch};
use crate::process::{Process, Readied};
use crate::qmp::{Event, Qmp, QmpError};
use crate::recording::Recording;
use crate::state::Saving;
use crate::tpm::Tpm;

/// The screen's socket (VNC) in the run directory.
pub const VNC_SOCKET: &str = "vnc.sock";
/// What QEMU and the jail around it wrote, in the run directory.
pub const QEMU_LOG: &str = "qemu.log";

/// For commands that only look or flip a switch; generous, for overloaded hosts.
const SOON: Duration = Duration::from_secs(20);
/// From `exec` to the monitor's greeting: what it reads meanwhile may come over a slow line.
const START_MAX: Duration = Duration::from_secs(600);
/// Lines of the log that an error shows.
const LOG_TAIL_LINES: usize = 5;
const LOG_TAIL_CHARS: usize = 2048;

/// What the guest's processors are doing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RunState {
    /// They run.
    Running,
    /// They were stopped, or not started yet.
    Stopped,
    /// They were stopped because a disk could not be read or written.
    IoError,
    /// Device state is being waited for or loaded.
    Incoming,
    /// The guest switched its power off.
    PoweredOff,
    /// Something else, in QEMU's words.
    Other(String),
}

/// How QEMU ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Exit {
    /// `exit code 0`, `signal 9`.
    pub status: String,
    /// It ended by itself and without error.
    pub clean: bool,
    /// Why, in QEMU's words when it had time to say: `guest-shutdown`, `host-qmp-quit`.
    pub reason: Option<String>,
}

/// What a guest's disk is doing, as QEMU sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BlockDevice {
    /// The disk's index in the hardware description.
    pub index: usize,
    /// The file behind it.
    pub path: PathBuf,
    /// False: the last request failed and the guest waits.
    pub healthy: bool,
    /// QEMU may write to it (not so while saved state waits for `cont`).
    pub active: bool,
}

/// Within this, QEMU's end follows that of a TPM which ended because QEMU did.
const TOGETHER_MAX: Duration = Duration::from_secs(1);

/// A running QEMU. Dropping it kills it.
pub struct Qemu {
    process: Process,
    // After QEMU, which is dropped first.
    tpm: Option<Tpm>,
    qmp: Qmp,
    console: Console,
    log: Recording,
    agent: Channel,
    run_dir: PathBuf,
    shutdown_reason: Arc<Mutex<Option<String>>>,
    next_fdset: Mutex<u32>,
    pub(crate) saving: Mutex<Saving>,
}

impl Qemu {
    /// Starts QEMU and returns when it answers. On failure nothing is left running.
    pub fn spawn(launch: &Launch) -> Result<Self, VmmError> {
        Self::spawn_in(Readied::start(&launch.jail.launcher)?, launch)
    }

    /// The same in a jail that was started before.
    pub fn spawn_in(readied: Readied, launch: &Launch) -> Result<Self, VmmError> {
        launch.check()?;
        let run_dir = &launch.run_dir;
        let io_error = |what: &str| VmmError::io(format!("{what} in {}", run_dir.display()));

        let (qmp, their_qmp) = UnixStream::pair().map_err(io_error("a monitor socket"))?;
        let (agent, their_agent) = UnixStream::pair().map_err(io_error("an agent socket"))?;
        let their_console = descriptors::listen(run_dir, CONSOLE_SOCKET)
            .map_err(io_error("the console's socket"))?;
        let (pipe, their_pipe) = std::io::pipe().map_err(io_error("the console's pipe"))?;
        // In the order of the numbers in `command_line`.
        let mut inherited: Vec<OwnedFd> =
            vec![their_qmp.into(), their_console.into(), their_pipe.into(), their_agent.into()];
        if launch.accel == Accel::Kvm {
            let kvm = OpenOptions::new().read(true).write(true).open("/dev/kvm");
            inherited.push(kvm.map_err(VmmError::io("cannot open /dev/kvm"))?.into());
        }
        let console = Console::record(pipe, run_dir).map_err(io_error("the console's log"))?;
        // What an earlier QEMU said would mislead.
        let log_path = run_dir.join(QEMU_LOG);
        match std::fs::remove_file(&log_path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(io_error("QEMU's old log")(error));
            }
            _ => {}
        }
        let tpm = match &launch.tpm {
            None => None,
            Some(launched) => {
                let (tpm, socket) = Tpm::start(launched, &launch.jail.launcher, run_dir)?;
                inherited.push(socket);
                Some(tpm)
            }
        };
        let orders = orders(launch, inherited.len());
        let (process, log_pipe) = readied.becomes(&orders, inherited)?;
        let log =
            Recording::start("qemu-log", log_pipe, &log_path).map_err(io_error("QEMU's log"))?;
        let shutdown_reason = Arc::new(Mutex::new(None));
        let for_events = Arc::clone(&shutdown_reason);
        let on_event = move |event: &Event| {
            if event.name == "SHUTDOWN" {
                *lock(&for_events) = event.data["reason"].as_str().map(str::to_owned);
            }
        };
        let qmp = match Qmp::connect(qmp, START_MAX, on_event) {
            Ok(qmp) => qmp,
            Err(QmpError::Timeout(after)) => {
                return Err(VmmError::Timeout { what: "starting QEMU".to_owned(), after });
            }
            Err(_) => {
                // QEMU does not start without its TPM, and knows less about why.
                let tpm = tpm.as_ref().and_then(|tpm| tpm.failure(Duration::ZERO));
                return Err(tpm.unwrap_or_else(|| died(&process, &log)));
            }
        };
        let qemu = Self {
            process,
            tpm,
            qmp,
            console,
            log,
            agent: Channel::new(agent),
            run_dir: run_dir.clone(),
            shutdown_reason,
            next_fdset: Mutex::new(FDSET_FIRST),
            saving: Mutex::default(),
        };
        qemu.show_screen()?;
        Ok(qemu)
    }

    /// QEMU's process id.
    pub fn pid(&self) -> u32 {
        self.process.pid()
    }

    /// The serial console.
    pub fn console(&self) -> &Console {
        &self.console
    }

    /// Our end of the guest agent's channel.
    pub(crate) fn agent_channel(&self) -> &Channel {
        &self.agent
    }

    /// What happens in QEMU from now on, for example `STOP`, `RESET`, `BLOCK_IO_ERROR`. At most
    /// 1024 events wait; the queue ends when QEMU does.
    pub fn events(&self) -> Receiver<Event> {
        self.qmp.subscribe()
    }

    /// Lets the processors run. After `save_state` this takes the disks back into use.
    pub fn cont(&self) -> Result<(), VmmError> {
        self.call("cont", Value::Null, SOON).map(drop)
    }

    /// Stops the processors; when it returns, everything the guest wrote to its disks has been
    /// written and flushed to their files.
    pub fn stop(&self) -> Result<(), VmmError> {
        self.call("stop", Value::Null, SOON).map(drop)
    }

    /// What the processors are doing.
    pub fn status(&self) -> Result<RunState, VmmError> {
        Ok(match self.status_word()?.as_str() {
            "running" => RunState::Running,
            "paused" | "postmigrate" | "prelaunch" | "finish-migrate" | "save-vm" | "debug" => {
                RunState::Stopped
            }
            "io-error" => RunState::IoError,
            "inmigrate" => RunState::Incoming,
            "shutdown" => RunState::PoweredOff,
            other => RunState::Other(other.to_owned()),
        })
    }

    /// The run state in QEMU's words.
    pub(crate) fn status_word(&self) -> Result<String, VmmError> {
        self.status_word_within(SOON)
    }

    pub(crate) fn status_word_within(&self, patience: Duration) -> Result<String, VmmError> {
        let answer = self.call("query-status", Value::Null, patience)?;
        answer["status"].as_str().map(str::to_owned).ok_or_else(|| VmmError::Unexpected {
            command: "query-status".to_owned(),
            detail: answer.to_string(),
        })
    }

    /// Presses the power button: what happens then is the guest's affair.
    pub fn power_down(&self) -> Result<(), VmmError> {
        self.call("system_powerdown", Value::Null, SOON).map(drop)
    }

    /// Asks QEMU to end (not the guest), and kills it after `timeout`.
    pub fn quit(&self, timeout: Duration) -> Exit {
        // An error means that it has ended already or hangs; both are dealt with below.
        let _ = self.qmp.call("quit", Value::Null, timeout);
        if let Some(exit) = self.wait_exit(timeout) {
            return exit;
        }
        self.kill()
    }

    /// Kills QEMU at once. What the guest had written to memory and disk files stays there.
    pub fn kill(&self) -> Exit {
        self.process.kill();
        self.wait_exit(SOON).unwrap_or(Exit {
            status: "killed, not yet gone".to_owned(),
            clean: false,
            reason: None,
        })
    }

    /// How QEMU ended, waiting at most `timeout` for that; `None` while it runs.
    pub fn wait_exit(&self, timeout: Duration) -> Option<Exit> {
        let status = self.process.wait(timeout)?;
        if let Some(tpm) = &self.tpm {
            tpm.end();
        }
        let reason = lock(&self.shutdown_reason).clone();
        Some(Exit { status: in_words(status), clean: status.success(), reason })
    }

    /// Whether it has a virtual TPM.
    pub fn has_tpm(&self) -> bool {
        self.tpm.is_some()
    }

    /// Waits until its virtual TPM has ended though QEMU has not, at most so long; says why. Both end
    /// together, so a moment decides which was first.
    pub fn wait_tpm_failure(&self, timeout: Duration) -> Option<VmmError> {
        let failure = self.tpm.as_ref()?.failure(timeout)?;
        self.process.wait(TOGETHER_MAX).is_none().then_some(failure)
    }

    /// Plugs or pulls the cable of one network card.
    pub fn set_link(&self, nic: usize, up: bool) -> Result<(), VmmError> {
        self.call("set_link", json!({ "name": format!("nic{nic}"), "up": up }), SOON).map(drop)
    }

    /// Writes what the screen shows to `path` as PNG. Refused by QEMU when there is no screen.
    pub fn screendump(&self, path: &Path) -> Result<(), VmmError> {
        let file =
            File::create(path).map_err(VmmError::io(format!("cannot write {}", path.display())))?;
        self.with_fdset(file.as_fd(), |name| {
            self.call("screendump", json!({ "filename": name, "format": "png" }), SOON).map(drop)
        })
    }

    /// Publishes a port of network card `nic`, which is on user-mode networking. (What the launch
    /// publishes is reached from the guest's first instruction on.)
    pub fn publish(&self, nic: usize, map: &PortMap) -> Result<(), VmmError> {
        // The monitor for people is the only one that can.
        let line = format!("hostfwd_add net{nic} {}", command_line::forward(map));
        let command = "human-monitor-command";
        let said = self.call(command, json!({ "command-line": line }), SOON)?;
        match said.as_str().map(str::trim) {
            Some("") => Ok(()),
            _ => Err(VmmError::Refused {
                command: "hostfwd_add".to_owned(),
                detail: said.as_str().unwrap_or_default().trim().chars().take(200).collect(),
            }),
        }
    }

    /// Asks the guest to make do with `bytes` of memory; it gives back what it can, over time.
    pub fn balloon(&self, bytes: u64) -> Result<(), VmmError> {
        self.call("balloon", json!({ "value": bytes }), SOON).map(drop)
    }

    /// The guest's disks.
    pub fn block_devices(&self) -> Result<Vec<BlockDevice>, VmmError> {
        let answer = self.call("query-block", Value::Null, SOON)?;
        let devices = answer.as_array().map(Vec::as_slice).unwrap_or_default();
        let device = |value: &Value| {
            let inserted = &value["inserted"];
            let index = inserted["node-name"].as_str()?.strip_prefix("disk")?.parse().ok()?;
            Some(BlockDevice {
                index,
                path: inserted["image"]["filename"].as_str()?.into(),
                healthy: value["io-status"].as_str().is_none_or(|status| status == "ok"),
                active: inserted["active"].as_bool().unwrap_or(true),
            })
        };
        Ok(devices.iter().filter_map(device).collect())
    }

    /// Any other monitor command; QEMU's answer as it is.
    pub fn call(
        &self,
        command: &str,
        arguments: Value,
        timeout: Duration,
    ) -> Result<Value, VmmError> {
        let answer = self.qmp.call(command, arguments, timeout);
        answer.map_err(|error| self.explain(command, error))
    }

    /// Runs `act` with a name by which QEMU can open `fd`.
    pub(crate) fn with_fdset<T>(
        &self,
        fd: BorrowedFd<'_>,
        act: impl FnOnce(&str) -> Result<T, VmmError>,
    ) -> Result<T, VmmError> {
        let id = self.add_fdset(fd)?;
        let result = act(&fdset(id));
        self.remove_fdset(id);
        result
    }

    /// Gives QEMU a descriptor, which it opens by the name of [`fdset`].
    pub(crate) fn add_fdset(&self, fd: BorrowedFd<'_>) -> Result<u32, VmmError> {
        let id = {
            let mut next = lock(&self.next_fdset);
            *next += 1;
            *next
        };
        self.qmp
            .call_with("add-fd", json!({ "fdset-id": id }), Some(fd), SOON)
            .map_err(|error| self.explain("add-fd", error))?;
        Ok(id)
    }

    /// QEMU keeps its own copy for as long as it uses it.
    pub(crate) fn remove_fdset(&self, id: u32) {
        let _ = self.qmp.call("remove-fd", json!({ "fdset-id": id }), SOON);
    }

    /// Gives QEMU the socket on which its VNC server listens.
    fn show_screen(&self) -> Result<(), VmmError> {
        let listener = descriptors::listen(&self.run_dir, VNC_SOCKET)
            .map_err(VmmError::io(format!("the screen's socket in {}", self.run_dir.display())))?;
        let name = json!({ "fdname": "vnc" });
        self.qmp
            .call_with("getfd", name, Some(listener.as_fd()), SOON)
            .map_err(|error| self.explain("getfd", error))?;
        let addresses = json!([{ "type": "fd", "str": "vnc" }]);
        self.call("display-update", json!({ "type": "vnc", "addresses": addresses }), SOON)
            .map(drop)
    }

    fn explain(&self, command: &str, error: QmpError) -> VmmError {
        let command = command.to_owned();
        match error {
            QmpError::Refused { description, .. } => {
                VmmError::Refused { command, detail: description }
            }
            QmpError::Timeout(after) => {
                VmmError::Timeout { what: format!("QEMU's answer to {command}"), after }
            }
            QmpError::Closed => died(&self.process, &self.log),
            QmpError::Malformed(detail) => VmmError::Unexpected { command, detail },
        }
    }
}

fn orders(launch: &Launch, fds: usize) -> Orders {
    let jail = &launch.jail;
    let users: Vec<_> = launch
        .nics
        .iter()
        .filter_map(|nic| match &nic.netdev {
            Netdev::User(user) => Some(user),
            Netdev::Unplugged | Netdev::Tap(_) => None,
        })
        .collect();
    let mut readable = jail.readable.clone();
    readable.extend(launch.kernel.iter().chain(&launch.initrd).chain(&launch.firmware).cloned());
    let mut writable = jail.writable.clone();
    writable.push(launch.ram_path.clone());
    let taps = launch.nics.iter().any(|nic| matches!(nic.netdev, Netdev::Tap(_)));
    for disk in &launch.disks {
        if disk.read_only { &mut readable } else { &mut writable }.push(disk.path.clone());
    }
    let mut command = vec![launch.qemu.clone().into_os_string()];
    command.extend(command_line::arguments(launch));
    Orders {
        parent: std::process::id(),
        identity: jail.identity.map(|id| (id.uid, id.gid)),
        readable,
        writable,
        devices: taps.then(|| "/dev/net/tun".into()).into_iter().collect(),
        own: Vec::new(),
        cwd: Some(launch.run_dir.clone()),
        network: !users.is_empty(),
        connect: users.iter().any(|user| user.outbound),
        ports: users.iter().flat_map(|u| &u.forwards).map(|map| map.host_port).collect(),
        limits: Limits::default(),
        fds,
        first_fd: FD_FIRST,
        command,
    }
}

fn died(process: &Process, log: &Recording) -> VmmError {
    // The sockets close a moment before the process can be waited for.
    let status = match process.wait(Duration::from_secs(5)) {
        Some(status) => in_words(status),
        None => "it closed its monitor but still runs".to_owned(),
    };
    log.wait_end(Duration::from_secs(1));
    VmmError::Died { status, log_tail: tail(log) }
}

/// The last lines of a log.
pub(crate) fn tail(log: &Recording) -> String {
    let said = log.recent();
    let lines: Vec<&str> = said.lines().filter(|line| !line.trim().is_empty()).collect();
    let tail = lines[lines.len().saturating_sub(LOG_TAIL_LINES)..].join("; ");
    tail.chars().take(LOG_TAIL_CHARS).collect()
}

pub(crate) fn in_words(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("exit code {code}"),
        (None, Some(signal)) => format!("signal {signal}"),
        (None, None) => status.to_string(),
    }
}

/// The name by which QEMU opens a descriptor that it was given.
pub(crate) fn fdset(id: u32) -> String {
    format!("/dev/fdset/{id}")
}

pub(crate) fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
