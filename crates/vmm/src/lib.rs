//! Stock QEMU behind a small interface of our own.
//!
//! ```text
//!   Launch ──► Qemu::spawn ──► jail (a re-executed binary of ours) ──exec──► qemu-system-x86_64
//!                   │                                                          │
//!                   ├── monitor (QMP): a socket pair ──────────────────────────┤
//!                   ├── guest agent's channel: a socket pair ──────────────────┤
//!                   ├── console: console.sock, a copy through a pipe to console.log
//!                   ├── screen: vnc.sock
//!                   └── virtual TPM: swtpm, behind walls of its own, at QEMU's side of a socket pair
//! ```
//!
//! Invariants: no volume, chunk or checkpoint is known here, only files and device state; QEMU
//! is not trusted (see [`jail`]); nothing waits without a deadline; everything read from
//! QEMU or the guest is bounded.
//!
//! On a crash of this process the kernel kills QEMU. What the guest had written is in the volume
//! files; device state is lost unless it was saved.

mod agent;
mod base64;
mod command_line;
mod confined;
mod console;
mod descriptors;
mod error;
#[doc(hidden)]
pub mod fuzz;
pub mod jail;
mod launch;
mod listener;
mod probe;
mod process;
mod qemu;
mod qmp;
mod recording;
mod state;
mod tpm;

pub use agent::{Agent, AgentError, Exec, ExecOutput, SOON as AGENT_SOON, STDIN_BYTES_MAX};
pub use command_line::machine_type;
pub use confined::{Confined, Ended};
pub use console::{CONSOLE_LOG, CONSOLE_SOCKET, Console, attach};
pub use error::VmmError;
pub use jail::{Identity, Jail, Launcher, Limits, close_inherited, jail_main};
pub use launch::{
    Accel, BASELINE_CPU, DISKS_MAX, DiskFile, Launch, NICS_MAX, NicLaunch, SATA_DISKS_MAX,
    find_qemu, find_qemu_img, find_swtpm,
};
pub use probe::{KvmProof, open_kvm, prove_kvm, prove_tcg};
pub use process::Readied;
pub use qemu::{BlockDevice, Exit, QEMU_LOG, Qemu, RunState, VNC_SOCKET};
pub use qmp::{Event, Qmp, QmpError};
pub use tpm::{TPM_FILE, TPM_FILE_BYTES_MAX, TPM_LOG, TpmLaunch};
