//! `doctor`: what this host can do, and what is missing, each with a next step.

mod leftovers;

use std::path::Path;
use std::process::Command;

use api::DoctorPrint;
use model::format_bytes;

use crate::Host;

/// Below this much free space a guest may fill the disk soon: 2 GiB.
const SPACE_BYTES_MIN: u64 = 2 << 30;
/// Clocks may differ by so much, and S3 says whole seconds: half a minute.
const CLOCK_MS_MAX: u64 = 30_000;
/// The oldest QEMU that is known to work.
const QEMU_MAJOR_MIN: u32 = 10;

impl Host {
    /// Looks at everything that instances need. Never fails: what cannot be looked at is a finding.
    /// With `fix`, removes what crashes left and is nobody's.
    pub fn doctor(&self, fix: bool) -> Vec<DoctorPrint> {
        vec![
            qemu(),
            self.accelerator(),
            fuse(),
            space(self.dir.root()),
            tools(),
            uefi(),
            tpm(),
            privileges(),
            qemu_img(),
            self.repository_check(),
            self.clock(),
            self.failed_instances(),
            self.leftovers(fix),
        ]
    }

    fn repository_check(&self) -> DoctorPrint {
        match self.store().and_then(|store| store.probe().map(|()| store)) {
            Ok(store) => ok("repository", format!("{} opens", store.location())),
            Err(failure) => bad("repository", failure.message, failure.hint),
        }
    }

    fn accelerator(&self) -> DoctorPrint {
        match crate::accel::proof(&self.dir) {
            Ok(vmm::KvmProof::Proven) => ok("accelerator", "KVM runs a 64-bit guest".to_owned()),
            Ok(vmm::KvmProof::NotThere { why }) => warning(
                "accelerator",
                format!("TCG: no KVM ({why})"),
                if Path::new("/dev/kvm").exists() {
                    "guests run in software, several times slower, until this user may open it: usually \
                     `usermod -aG kvm USER`, and log in again"
                } else {
                    "guests run in software, several times slower. On a machine of its own: switch \
                     virtualisation on in its firmware, `modprobe kvm_intel` or `kvm_amd`; in a virtual \
                     machine: ask for nested virtualisation"
                },
            ),
            Ok(vmm::KvmProof::False { why }) => warning(
                "accelerator",
                format!("TCG: /dev/kvm is there but runs no 64-bit guest ({why})"),
                "guests run in software; nested virtualisation is often why: ask for it",
            ),
            Err(failure) => bad("accelerator", failure.message, failure.hint),
        }
    }

    /// This host's clock against its repository's.
    fn clock(&self) -> DoctorPrint {
        let ahead_ms = match self.store().and_then(|store| store.clock_ahead_ms()) {
            Ok(Some(ahead_ms)) => ahead_ms,
            Ok(None) => {
                return ok("clock", "not compared: the repository cannot be written".to_owned());
            }
            Err(_) => return ok("clock", "not compared: the repository does not open".to_owned()),
        };
        let seconds = ahead_ms.unsigned_abs() / 1000;
        if ahead_ms.unsigned_abs() <= CLOCK_MS_MAX {
            return ok("clock", "agrees with the repository's".to_owned());
        }
        let side = if ahead_ms > 0 { "behind" } else { "ahead of" };
        warning(
            "clock",
            format!("{seconds} s {side} the repository's"),
            "set it (a time service such as systemd-timesyncd): guests are told this time, and \
             `history` shows it; or is the repository's wrong?",
        )
    }

    fn failed_instances(&self) -> DoctorPrint {
        let failed: Vec<String> = match self.ps(true) {
            Ok((rows, _)) => {
                rows.into_iter().filter(|row| row.state == "failed").map(|row| row.name).collect()
            }
            Err(failure) => return bad("instances", failure.message, failure.hint),
        };
        if failed.is_empty() {
            ok("instances", "none has failed".to_owned())
        } else {
            warning(
                "instances",
                format!("failed: {}", failed.join(", ")),
                "`collective resume NAME` starts one from its disks; `collective undo NAME` goes \
                 back to its last checkpoint",
            )
        }
    }
}

fn print(check: &str, status: &str, detail: String, hint: &str) -> DoctorPrint {
    DoctorPrint {
        check: check.to_owned(),
        status: status.to_owned(),
        detail,
        hint: hint.to_owned(),
    }
}

fn ok(check: &str, detail: String) -> DoctorPrint {
    print(check, "ok", detail, "")
}

fn warning(check: &str, detail: String, hint: &str) -> DoctorPrint {
    print(check, "warning", detail, hint)
}

fn bad(check: &str, detail: String, hint: impl AsRef<str>) -> DoctorPrint {
    print(check, "failed", detail, hint.as_ref())
}

fn qemu() -> DoctorPrint {
    let hint = "install qemu-system-x86 10 (bookworm-backports): scripts/install-deps does it";
    let output = match Command::new("qemu-system-x86_64").arg("--version").output() {
        Ok(output) => String::from_utf8_lossy(&output.stdout).into_owned(),
        Err(error) => return bad("qemu", format!("qemu-system-x86_64: {error}"), hint),
    };
    let first = output.lines().next().unwrap_or_default().to_owned();
    let major: Option<u32> = first
        .split_whitespace()
        .find(|word| word.starts_with(|c: char| c.is_ascii_digit()))
        .and_then(|version| version.split('.').next()?.parse().ok());
    match major {
        Some(major) if major >= QEMU_MAJOR_MIN => ok("qemu", first),
        _ => bad("qemu", first, hint),
    }
}

fn qemu_img() -> DoctorPrint {
    if is_in_path("qemu-img") {
        ok("qemu-img", "there".to_owned())
    } else {
        warning(
            "qemu-img",
            "not found".to_owned(),
            "only `collective import` and `export` need it: install qemu-utils; scripts/install-deps \
             does it",
        )
    }
}

/// Only makers need it: a version brings the firmware that it runs with.
fn uefi() -> DoctorPrint {
    match crate::firmware::find(false).and(crate::firmware::find(true)) {
        Ok(_) => ok("uefi", "OVMF is here, for appliances that boot by it".to_owned()),
        Err(failure) => warning("uefi", failure.message, &failure.hint),
    }
}

fn tpm() -> DoctorPrint {
    match crate::tpm::program() {
        Ok(_) => ok("tpm", "swtpm is here, for computers with a virtual TPM".to_owned()),
        Err(failure) => warning("tpm", failure.message, &failure.hint),
    }
}

fn fuse() -> DoctorPrint {
    let opened = std::fs::File::options().read(true).write(true).open("/dev/fuse");
    match opened {
        Ok(_) if !rustix::process::geteuid().is_root() && !is_in_path(FUSERMOUNT) => bad(
            "fuse",
            format!("there is no {FUSERMOUNT}, which mounts for ordinary users"),
            "install fuse3: scripts/install-deps does it",
        ),
        Ok(_) => ok("fuse", "/dev/fuse opens".to_owned()),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            bad("fuse", "there is no /dev/fuse".to_owned(), "load the kernel module: modprobe fuse")
        }
        Err(error) => bad(
            "fuse",
            format!("/dev/fuse: {error}"),
            "run as root, or let users open it: chmod 0666 /dev/fuse",
        ),
    }
}

/// Setuid root, from the package fuse3.
const FUSERMOUNT: &str = "fusermount3";

fn is_in_path(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|folder| folder.join(program).exists())
}

fn space(path: &Path) -> DoctorPrint {
    match rustix::fs::statvfs(path) {
        Ok(stat) => {
            let free = stat.f_bavail * stat.f_frsize;
            let detail = format!("{} free in {}", format_bytes(free), path.display());
            if free < SPACE_BYTES_MIN {
                warning("space", detail, "free some, or move COLLECTIVE_DIR to a larger disk")
            } else {
                ok("space", detail)
            }
        }
        Err(error) => bad("space", format!("{}: {error}", path.display()), ""),
    }
}

fn tools() -> DoctorPrint {
    let missing = build::missing_programs();
    if !missing.is_empty() {
        warning(
            "build tools",
            format!("missing: {}", missing.join(", ")),
            "only `collective build` needs them: scripts/install-deps installs them",
        )
    } else if !rustix::process::geteuid().is_root() {
        warning(
            "build tools",
            "all there, but building from packages needs root".to_owned(),
            "only `collective build` does: run it with sudo, or use a repository that somebody built",
        )
    } else {
        ok("build tools", "all there".to_owned())
    }
}

fn privileges() -> DoctorPrint {
    if rustix::process::geteuid().is_root() {
        ok("confinement", "QEMU runs as a user of its own".to_owned())
    } else {
        warning(
            "confinement",
            "QEMU runs as you, confined by seccomp and landlock".to_owned(),
            "as root each instance's QEMU gets a user of its own",
        )
    }
}
