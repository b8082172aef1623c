//! The guest as every thread of the shim may reach it: its QEMU, its agent, its screen.
//!
//! *Invariant.* Only the owner pauses, saves or ends it; connections only talk to its agent. The one
//! exception is the fence, which may hold it at any time: then nothing but the fence lets it run.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use api::ExecOutcome;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use vmm::Exec;

use super::vm::Vm;
use crate::failure::{Failure, Result};

/// A machine and the channel to the agent inside.
pub struct Guest {
    vm: Box<dyn Vm>,
    run: PathBuf,
    /// Known at once: a machine whose CPU waits for a page takes long to stop.
    held: AtomicBool,
    /// Whoever stops it for the fence, or lets it run, does it alone.
    turn: Mutex<()>,
}

impl Guest {
    /// Takes over a started machine.
    pub fn new(vm: Box<dyn Vm>, run: PathBuf) -> Self {
        Self { vm, run, held: AtomicBool::new(false), turn: Mutex::new(()) }
    }

    pub fn pid(&self) -> u32 {
        self.vm.pid()
    }

    /// Loads device state into a machine that waits for it.
    pub fn load(&self, state: &std::path::Path) -> Result<()> {
        self.vm.load(state)
    }

    /// Lets the CPUs run, unless they are held.
    pub fn unpause(&self) -> Result<()> {
        let _turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        if self.is_held() { Ok(()) } else { self.vm.unpause() }
    }

    /// Stops the CPUs, whatever anybody else wants, until [`Guest::release`].
    pub fn hold(&self) -> Result<()> {
        // First: who has its turn before us is followed by our stop, and who comes after us does nothing.
        self.held.store(true, Ordering::SeqCst);
        let _turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        self.vm.pause()
    }

    /// Whether it is held.
    pub fn is_held(&self) -> bool {
        self.held.load(Ordering::SeqCst)
    }

    /// Lets it be run again; it stays paused.
    pub fn release(&self) {
        self.held.store(false, Ordering::SeqCst);
    }

    /// Stops the CPUs.
    pub fn pause(&self) -> Result<()> {
        self.vm.pause()
    }

    /// Prepares what can be before the machine is paused and [`Self::save`]d.
    pub fn expect_save(&self, file_name: &str) -> Result<()> {
        self.vm.expect_save(&self.run.join(file_name))
    }

    /// Writes the device state of a paused machine into a file of the run directory.
    pub fn save(&self, file_name: &str) -> Result<PathBuf> {
        let path = self.run.join(file_name);
        self.vm.save(&path)?;
        Ok(path)
    }

    /// Lets go of the file that was last [`Self::save`]d to: when the machine runs again.
    pub fn end_save(&self) {
        self.vm.end_save();
    }

    /// Lets the guest tell its networks what its addresses are now: whoever remembers others
    /// (user-mode networking does) would not reach it.
    pub fn announce(&self) -> Result<()> {
        self.vm.announce()
    }

    /// Publishes a port of its first network card.
    pub fn publish(&self, port: &model::PortMap) -> Result<()> {
        self.vm.publish(port)
    }

    /// Writes a PNG of the screen into the run directory.
    pub fn screenshot(&self, file_name: &str) -> Result<()> {
        self.vm.screenshot(&self.run.join(file_name))
    }

    /// Presses the power button.
    pub fn power_button(&self) -> Result<()> {
        self.vm.power_button()
    }

    /// Whether QEMU has ended.
    pub fn has_ended(&self) -> bool {
        self.vm.wait_exit(Duration::ZERO).is_some()
    }

    /// Whether QEMU has ended because the guest powered itself off.
    pub fn powered_off(&self) -> bool {
        let exit = self.vm.wait_exit(Duration::ZERO);
        exit.is_some_and(|exit| exit.reason.as_deref() == Some("guest-shutdown"))
    }

    /// Waits until QEMU has ended; says how.
    pub fn await_end(&self) -> String {
        loop {
            if let Some(exit) = self.vm.wait_exit(Duration::from_secs(3600)) {
                let why = exit.reason.map(|reason| format!(" ({reason})")).unwrap_or_default();
                return format!("{}{why}", exit.status);
            }
        }
    }

    /// Waits until something has ended without which QEMU is not whole; says what. None: QEMU has ended.
    pub fn await_part_end(&self) -> Option<Failure> {
        self.vm.await_part_end()
    }

    /// Ends QEMU at once, and waits until it is gone.
    pub fn kill(&self) {
        self.vm.kill();
    }

    /// Whether the agent answers.
    pub fn ping(&self) -> bool {
        self.vm.ping()
    }

    /// Whether something in it listens on a TCP port, as its Linux says.
    pub fn listens(&self, port: u16) -> bool {
        let script = format!("grep -qE ': [0-9A-F]+:{port:04X} [0-9A-F]+:0000 0A' /proc/net/tcp*");
        let argv = ["/bin/sh", "-c", &script].map(str::to_owned);
        self.exec(&argv, None, Duration::from_secs(2)).is_ok_and(|done| done.exit_code == 0)
    }

    /// Runs a shell script in the guest, without caring much what comes of it.
    pub fn script(&self, script: &str, timeout: Duration) -> Result<()> {
        let argv = ["/bin/sh", "-c", script].map(str::to_owned);
        self.exec(&argv, None, timeout).map(drop)
    }

    /// Sets the guest's clock.
    pub fn set_time(&self, unix_ms: u64, timeout: Duration) -> Result<()> {
        self.vm.set_time(unix_ms, timeout)
    }

    /// Runs a command in the guest.
    pub fn exec(
        &self,
        argv: &[String],
        stdin_base64: Option<&str>,
        timeout: Duration,
    ) -> Result<ExecOutcome> {
        self.exec_patiently(argv, stdin_base64, timeout, vmm::AGENT_SOON)
    }

    /// As [`Self::exec`], of an agent that may take so long for each answer.
    pub fn exec_patiently(
        &self,
        argv: &[String],
        stdin_base64: Option<&str>,
        timeout: Duration,
        patience: Duration,
    ) -> Result<ExecOutcome> {
        let (program, arguments) = argv
            .split_first()
            .ok_or_else(|| Failure::new("usage", "there is no command", "name one after --"))?;
        let stdin = stdin_base64
            .map(|text| STANDARD.decode(text))
            .transpose()
            .map_err(|e| Failure::new("internal", e.to_string(), ""))?
            .unwrap_or_default();
        let environment = &[];
        let stdin = &stdin;
        let exec = Exec { program, arguments, environment, stdin, output: true, timeout, patience };
        let done = self.vm.exec(&exec)?;
        if done.truncated {
            eprintln!("the guest agent dropped output of {program}: there was too much");
        }
        Ok(ExecOutcome {
            exit_code: done.code,
            stdout_base64: STANDARD.encode(&done.stdout),
            stderr_base64: STANDARD.encode(&done.stderr),
        })
    }
}
