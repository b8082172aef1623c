//! Does an accelerator run guests? Opening `/dev/kvm` proves nothing: there are hosts where it
//! opens, makes a virtual machine, and then no ordinary 64-bit kernel ever starts. So a small
//! guest of our own does what a kernel does first (see `payload.S`): long mode, paging, SSE2,
//! exceptions, a timer interrupt, user mode. It says a letter at each stage, and the last thing
//! it does is to end QEMU with a code of its own.
//!
//! It has a deadline, and runs in the same jail as any guest. The same payload passes under
//! TCG, which is the test that it can.

use std::fs;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use crate::command_line::FD_FIRST;
use crate::descriptors;
use crate::jail::{Jail, Orders};
use crate::launch::{Accel, BASELINE_CPU};
use crate::listener::Listener;
use crate::process::Process;

/// Assembled from `payload.S`; a test compares.
const PAYLOAD: &[u8] = include_bytes!("probe/payload.bin");
/// What the payload's 0x2a becomes as QEMU's exit code: isa-debug-exit doubles it and adds one.
const EXIT_PROVEN: i32 = 0x55;
/// Of QEMU's own messages.
const MESSAGE_BYTES_MAX: u64 = 16 << 10;

/// The stages, by the letter that the payload says when it has passed one.
const STAGES: [(char, &str); 8] = [
    ('R', "starting in real mode"),
    ('P', "protected mode"),
    ('L', "64-bit mode"),
    ('G', "paging"),
    ('S', "SSE2 instructions"),
    ('X', "exceptions"),
    ('T', "a timer interrupt"),
    ('U', "user mode"),
];

/// Whether KVM runs guests on this host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KvmProof {
    /// It ran ours to the end.
    Proven,
    /// There is no KVM, or this user may not use it.
    NotThere {
        /// In words.
        why: String,
    },
    /// KVM is there and does not run an ordinary guest.
    False {
        /// In words: the stage that failed, and what QEMU said.
        why: String,
    },
}

/// Runs the payload under KVM. 3 s are plenty for `deadline`: where it works, it takes less than
/// a second on an overloaded host. Changes nothing; ask once and remember.
pub fn prove_kvm(qemu: &Path, jail: &Jail, deadline: Duration) -> KvmProof {
    match open_kvm() {
        Err(why) => KvmProof::NotThere { why },
        Ok(kvm) => match run(Accel::Kvm, Some(kvm.into()), qemu, jail, deadline) {
            Ok(()) => KvmProof::Proven,
            Err(why) => KvmProof::False { why },
        },
    }
}

/// Opens KVM's device; the error is the reason in words.
pub fn open_kvm() -> Result<fs::File, String> {
    let opened = fs::OpenOptions::new().read(true).write(true).open("/dev/kvm");
    opened.map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => "there is no /dev/kvm".to_owned(),
        io::ErrorKind::PermissionDenied => {
            "this user may not open /dev/kvm (on most systems: join the group kvm)".to_owned()
        }
        _ => format!("/dev/kvm does not open: {error}"),
    })
}

/// Runs the payload under TCG: whether QEMU, the jail and the payload themselves work here.
/// The error is the reason in words.
pub fn prove_tcg(qemu: &Path, jail: &Jail, deadline: Duration) -> Result<(), String> {
    run(Accel::Tcg, None, qemu, jail, deadline)
}

fn run(
    accel: Accel,
    kvm: Option<OwnedFd>,
    qemu: &Path,
    jail: &Jail,
    deadline: Duration,
) -> Result<(), String> {
    let own = |error: io::Error| format!("the probe could not be set up: {error}");
    let firmware = Firmware::create().map_err(own)?;
    let (stages, their_stages) = io::pipe().map_err(own)?;
    let (messages, their_messages) = io::pipe().map_err(own)?;
    let (handover, stdin) = std::os::unix::net::UnixStream::pair().map_err(own)?;

    let mut inherited: Vec<OwnedFd> = vec![their_stages.into()];
    inherited.extend(kvm);
    let fds: Vec<_> = inherited.iter().map(AsFd::as_fd).collect();
    descriptors::send(handover.as_fd(), &[0], &fds).map_err(own)?;
    let orders = Orders {
        parent: std::process::id(),
        identity: jail.identity.map(|id| (id.uid, id.gid)),
        readable: vec![firmware.0.clone()],
        fds: inherited.len(),
        first_fd: FD_FIRST,
        command: command(accel, qemu, &firmware.0),
        ..Orders::default()
    };
    let mut command = Command::new(&jail.launcher.program);
    command
        .args(&jail.launcher.arguments)
        .args(orders.arguments())
        .env_clear()
        .stdin(Stdio::from(OwnedFd::from(stdin)))
        .stdout(Stdio::null())
        .stderr(Stdio::from(their_messages));
    let process = Process::spawn(command).map_err(own)?;
    // Ours must be closed for the readers to see the end.
    drop(inherited);
    let stages = Listener::start(stages, MESSAGE_BYTES_MAX).map_err(own)?;
    let messages = Listener::start(messages, MESSAGE_BYTES_MAX).map_err(own)?;

    let end = ambient::now() + deadline;
    let code = loop {
        if let Some(status) = process.wait(Duration::from_millis(10)) {
            break status.code();
        }
        // After this KVM has given up and QEMU waits for somebody to look at the remains.
        if ambient::now() >= end || messages.heard().contains("KVM internal error") {
            break None;
        }
    };
    drop(process);
    judge(code, &stages.finish_text(), &messages.finish_text(), deadline)
}

fn command(accel: Accel, qemu: &Path, firmware: &Path) -> Vec<std::ffi::OsString> {
    let accel = match accel {
        Accel::Tcg => "tcg,tb-size=16".to_owned(),
        Accel::Kvm => "kvm,device=/dev/fdset/2".to_owned(),
    };
    let mut command: Vec<std::ffi::OsString> = vec![qemu.into()];
    let text = format!(
        "-nodefaults -no-user-config -no-reboot -display none -vga none -m 8M \
         -machine pc-i440fx-10.0,usb=off,hpet=off,vmport=off -cpu {BASELINE_CPU} -accel {accel} \
         -sandbox on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny \
         -add-fd fd={FD_FIRST},set=1 -chardev file,id=stages,append=on,path=/dev/fdset/1 \
         -device isa-debugcon,iobase=0xe9,chardev=stages \
         -device isa-debug-exit,iobase=0xf4,iosize=4"
    );
    command.extend(text.split_ascii_whitespace().map(Into::into));
    if accel.starts_with("kvm") {
        command.push("-add-fd".into());
        command.push(format!("fd={},set=2", FD_FIRST + 1).into());
    }
    command.push("-bios".into());
    command.push(firmware.into());
    command
}

/// Proven, or the reason why not.
fn judge(
    code: Option<i32>,
    stages: &str,
    messages: &str,
    deadline: Duration,
) -> Result<(), String> {
    const LACKS: &str = "host doesn't support requested feature: ";
    let lacks: Vec<&str> = messages
        .lines()
        // "CPUID.01H:ECX.sse4.1 [bit 19]" or "CPUID[eax=07h,ecx=00h].EBX.bmi1 [bit 3]"
        .filter_map(|line| line.split_once(LACKS)?.1.split_once("X."))
        .map(|(_, name)| name.split_once(' ').map_or(name, |(name, _)| name))
        .collect();
    let everything = STAGES.iter().all(|(letter, _)| stages.contains(*letter));
    if code == Some(EXIT_PROVEN) && everything {
        return match lacks.as_slice() {
            [] => Ok(()),
            lacks => Err(format!("it lacks what {BASELINE_CPU} has: {}", lacks.join(", "))),
        };
    }
    let Some((_, failed)) = STAGES.iter().find(|(letter, _)| !stages.contains(*letter)) else {
        return Err("its guest ran, and did not end as it should".to_owned());
    };
    let mut why = match code {
        _ if stages.is_empty() => "its guest did not start".to_owned(),
        Some(_) => format!("its guest failed at {failed}"),
        None => format!("its guest got no further than before {failed}"),
    };
    match messages.lines().find(|line| !line.contains("warning: ") && !line.trim().is_empty()) {
        Some(line) => why.push_str(&format!(" ({})", line.trim())),
        None if code.is_none() => why.push_str(&format!(" within {} s", deadline.as_secs_f32())),
        None => {}
    }
    if !lacks.is_empty() {
        why.push_str(&format!("; it also lacks {}", lacks.join(", ")));
    }
    Err(why)
}

/// The payload as a firmware image, in a file that goes away.
struct Firmware(PathBuf);

impl Firmware {
    fn create() -> io::Result<Self> {
        // A BIOS is 64 KiB; its last 16 bytes are where a processor starts.
        let mut image = vec![0; 64 << 10];
        image[..PAYLOAD.len()].copy_from_slice(PAYLOAD);
        let jump_to_start = [0xea, 0x00, 0x00, 0x00, 0xf0];
        image[0xfff0..][..jump_to_start.len()].copy_from_slice(&jump_to_start);

        let name: String = ambient::random::<8>().iter().map(|b| format!("{b:02x}")).collect();
        let path = std::env::temp_dir().join(format!("collective-probe-{name}"));
        let mut options = fs::OpenOptions::new();
        let mut file = options.write(true).create_new(true).mode(0o600).open(&path)?;
        let firmware = Self(path);
        io::Write::write_all(&mut file, &image)?;
        // For QEMU's user.
        file.set_permissions(fs::Permissions::from_mode(0o444))?;
        Ok(firmware)
    }
}

impl Drop for Firmware {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_whole_run_is_a_proof() {
        let second = Duration::from_secs(1);
        let check = |code, stages, messages| judge(code, stages, messages, second);
        assert_eq!(check(Some(EXIT_PROVEN), "RPLGSXTU", ""), Ok(()));
        let lacks =
            "qemu: warning: host doesn't support requested feature: CPUID.01H:ECX.ssse3 [bit 9]\n";
        for (code, stages, messages, want) in [
            (Some(EXIT_PROVEN), "RPLGSXTU", lacks, "has: ssse3"),
            (Some(EXIT_PROVEN), "RPLG", "", "SSE2"),
            (None, "RPLGSX", "", "timer interrupt within 1 s"),
            (
                None,
                "RPLG",
                "w: warning: x\nKVM internal error. Suberror: 1\n",
                "KVM internal error",
            ),
            (Some(3), "RPL", "", "failed at paging"),
            (Some(1), "", "qemu: no\n", "did not start (qemu: no)"),
            (Some(0), "RPLGSXTU", "", "did not end"),
        ] {
            let why = check(code, stages, messages).unwrap_err();
            assert!(why.contains(want), "{why}");
        }
    }
}
