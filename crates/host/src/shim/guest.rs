//! The guest as every thread of the shim may reach it: its QEMU, its agent, its screen.
//!
//! *Invariant.* Only the owner pauses, saves or ends it; connections only talk to its agent.

use std::path::PathBuf;
use std::time::Duration;

use api::ExecOutcome;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use vmm::{Exec, Qemu};

use crate::failure::{Failure, Result};

/// How long an agent may take to say that it is there.
const PING_TIMEOUT: Duration = Duration::from_millis(500);
/// Device state is small: what takes longer than this will not end.
const STATE_TIMEOUT: Duration = Duration::from_secs(60);

/// A QEMU process and the channel to the agent inside.
pub struct Guest {
    qemu: Qemu,
    run: PathBuf,
}

impl Guest {
    /// Takes over a started QEMU.
    pub fn new(qemu: Qemu, run: PathBuf) -> Self {
        Self { qemu, run }
    }

    pub fn pid(&self) -> u32 {
        self.qemu.pid()
    }

    /// Loads device state into a machine that waits for it.
    pub fn load(&self, state: &std::path::Path) -> Result<()> {
        Ok(self.qemu.load_state(state, STATE_TIMEOUT)?)
    }

    /// Lets the CPUs run.
    pub fn unpause(&self) -> Result<()> {
        Ok(self.qemu.cont()?)
    }

    /// Stops the CPUs.
    pub fn pause(&self) -> Result<()> {
        Ok(self.qemu.stop()?)
    }

    /// Writes the device state of a paused machine into a file of the run directory.
    pub fn save(&self, file_name: &str) -> Result<PathBuf> {
        let path = self.run.join(file_name);
        self.qemu.save_state(&path, STATE_TIMEOUT)?;
        Ok(path)
    }

    /// Lets the guest tell its networks what its addresses are now: whoever remembers others
    /// (user-mode networking does) would not reach it.
    pub fn announce(&self) -> Result<()> {
        let rounds = serde_json::json!({ "initial": 50, "max": 550, "rounds": 3, "step": 100 });
        self.qemu.call("announce-self", rounds, Duration::from_secs(5))?;
        Ok(())
    }

    /// Publishes a port of its first network card.
    pub fn publish(&self, port: &model::PortMap) -> Result<()> {
        self.qemu.publish(0, port).map_err(|error| {
            let hint = "another program took it meanwhile: try again, or another one with -p";
            let (address, host) = (port.address, port.host_port);
            Failure::new("network", format!("port {host} of {address}: {error}"), hint)
        })
    }

    /// Writes a PNG of the screen into the run directory.
    pub fn screenshot(&self, file_name: &str) -> Result<()> {
        Ok(self.qemu.screendump(&self.run.join(file_name))?)
    }

    /// Presses the power button.
    pub fn power_button(&self) -> Result<()> {
        Ok(self.qemu.power_down()?)
    }

    /// Whether QEMU has ended.
    pub fn has_ended(&self) -> bool {
        self.qemu.wait_exit(Duration::ZERO).is_some()
    }

    /// Whether QEMU has ended because the guest powered itself off.
    pub fn powered_off(&self) -> bool {
        let exit = self.qemu.wait_exit(Duration::ZERO);
        exit.is_some_and(|exit| exit.reason.as_deref() == Some("guest-shutdown"))
    }

    /// Waits until QEMU has ended; says how.
    pub fn await_end(&self) -> String {
        loop {
            if let Some(exit) = self.qemu.wait_exit(Duration::from_secs(3600)) {
                let why = exit.reason.map(|reason| format!(" ({reason})")).unwrap_or_default();
                return format!("{}{why}", exit.status);
            }
        }
    }

    /// Ends QEMU at once, and waits until it is gone.
    pub fn kill(&self) {
        self.qemu.kill();
    }

    /// Whether the agent answers.
    pub fn ping(&self) -> bool {
        self.qemu.agent().ping(PING_TIMEOUT).is_ok()
    }

    /// Runs a shell script in the guest, without caring much what comes of it.
    pub fn script(&self, script: &str, timeout: Duration) -> Result<()> {
        let argv = ["/bin/sh", "-c", script].map(str::to_owned);
        self.exec(&argv, None, timeout).map(drop)
    }

    /// Runs a command in the guest.
    pub fn exec(
        &self,
        argv: &[String],
        stdin_base64: Option<&str>,
        timeout: Duration,
    ) -> Result<ExecOutcome> {
        let (program, arguments) = argv
            .split_first()
            .ok_or_else(|| Failure::new("usage", "there is no command", "name one after --"))?;
        let stdin = stdin_base64
            .map(|text| STANDARD.decode(text))
            .transpose()
            .map_err(|e| Failure::new("internal", e.to_string(), ""))?
            .unwrap_or_default();
        let done = self.qemu.agent().exec(&Exec {
            program,
            arguments,
            environment: &[],
            stdin: &stdin,
            timeout,
        })?;
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
