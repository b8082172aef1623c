//! The machine that a guest runs on, as its shim needs it.

use std::path::Path;
use std::time::Duration;

use model::PortMap;
use vmm::{Exec, ExecOutput, Exit, Qemu};

use crate::failure::{Failure, Result};

/// How long an agent may take to say that it is there.
const PING_TIMEOUT: Duration = Duration::from_millis(500);
/// Device state is small: what takes longer than this will not end.
const STATE_TIMEOUT: Duration = Duration::from_secs(60);
/// Of loading: pages that it touches may come over a slow line.
const LOAD_TIMEOUT: Duration = Duration::from_secs(600);

/// How often the end of a machine is looked for while its TPM is waited for.
const PART_LOOK: Duration = Duration::from_secs(10);

/// CPUs and devices; memory and disks are files to it.
pub trait Vm: Send + Sync {
    fn pid(&self) -> u32;
    /// Loads device state into a machine that waits for it.
    fn load(&self, state: &Path) -> Result<()>;
    /// Lets the CPUs run.
    fn unpause(&self) -> Result<()>;
    /// Stops the CPUs.
    fn pause(&self) -> Result<()>;
    /// Prepares for a save to this file: the machine, which still runs, is paused for less then.
    fn expect_save(&self, _path: &Path) -> Result<()> {
        Ok(())
    }
    /// Writes the device state of a paused machine into a file.
    fn save(&self, path: &Path) -> Result<()>;
    /// Lets go of that file: when the machine runs again, so that it does not wait for this.
    fn end_save(&self) {}
    /// Lets the guest tell its networks what its addresses are now.
    fn announce(&self) -> Result<()>;
    /// Publishes a port of its first network card.
    fn publish(&self, port: &PortMap) -> Result<()>;
    /// Writes a PNG of the screen.
    fn screenshot(&self, path: &Path) -> Result<()>;
    /// Presses the power button.
    fn power_button(&self) -> Result<()>;
    /// Waits until it has ended, at most so long; says how.
    fn wait_exit(&self, timeout: Duration) -> Option<Exit>;
    /// Waits until a part beside it has ended without which it is not whole; says why. None: it has
    /// no such part, or has ended itself.
    fn await_part_end(&self) -> Option<Failure> {
        None
    }
    /// Ends it at once, and waits until it is gone.
    fn kill(&self);
    /// Whether the agent inside answers.
    fn ping(&self) -> bool;
    /// Sets the clock inside.
    fn set_time(&self, unix_ms: u64, timeout: Duration) -> Result<()>;
    /// Runs a program inside.
    fn exec(&self, exec: &Exec<'_>) -> Result<ExecOutput>;
}

impl Vm for Qemu {
    fn pid(&self) -> u32 {
        Qemu::pid(self)
    }
    fn load(&self, state: &Path) -> Result<()> {
        Ok(self.load_state(state, LOAD_TIMEOUT)?)
    }
    fn unpause(&self) -> Result<()> {
        Ok(self.cont()?)
    }
    fn pause(&self) -> Result<()> {
        Ok(self.stop()?)
    }
    fn expect_save(&self, path: &Path) -> Result<()> {
        Ok(Qemu::expect_save(self, path)?)
    }
    fn save(&self, path: &Path) -> Result<()> {
        let saved = self.save_state(path, STATE_TIMEOUT);
        saved.map_err(|error| self.wait_tpm_failure(Duration::ZERO).unwrap_or(error))?;
        Ok(())
    }
    fn end_save(&self) {
        Qemu::end_save(self);
    }
    fn announce(&self) -> Result<()> {
        let rounds = serde_json::json!({ "initial": 50, "max": 550, "rounds": 3, "step": 100 });
        self.call("announce-self", rounds, Duration::from_secs(5))?;
        Ok(())
    }
    fn publish(&self, port: &PortMap) -> Result<()> {
        Qemu::publish(self, 0, port).map_err(|error| {
            let hint = "another program took it meanwhile: try again, or another one with -p";
            let (address, host) = (port.address, port.host_port);
            Failure::new("network", format!("port {host} of {address}: {error}"), hint)
        })
    }
    fn screenshot(&self, path: &Path) -> Result<()> {
        Ok(self.screendump(path)?)
    }
    fn power_button(&self) -> Result<()> {
        Ok(self.power_down()?)
    }
    fn wait_exit(&self, timeout: Duration) -> Option<Exit> {
        Qemu::wait_exit(self, timeout)
    }
    fn await_part_end(&self) -> Option<Failure> {
        while self.has_tpm() && Qemu::wait_exit(self, Duration::ZERO).is_none() {
            if let Some(error) = self.wait_tpm_failure(PART_LOOK) {
                return Some(error.into());
            }
        }
        None
    }
    fn kill(&self) {
        Qemu::kill(self);
    }
    fn ping(&self) -> bool {
        self.agent().ping(PING_TIMEOUT).is_ok()
    }
    fn set_time(&self, unix_ms: u64, timeout: Duration) -> Result<()> {
        Ok(self.agent().set_time(unix_ms, timeout)?)
    }
    fn exec(&self, exec: &Exec<'_>) -> Result<ExecOutput> {
        Ok(self.agent().exec(exec)?)
    }
}
