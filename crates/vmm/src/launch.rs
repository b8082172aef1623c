//! Everything that starting one QEMU needs to know.

use std::path::{Path, PathBuf};

use model::{DiskBus, Hardware, Profile};
use network::{Mac, Netdev};

use crate::VmmError;
use crate::jail::Jail;
use crate::tpm::TpmLaunch;

/// The CPU that guests get unless their maker says otherwise: the x86-64-v2 level (SSE4.2,
/// POPCNT, CMPXCHG16B), which every 64-bit host since 2009 and TCG have, so that a checkpoint
/// goes on elsewhere. It is pinned to a version of the model for the same reason.
pub const BASELINE_CPU: &str = "Nehalem-v1";

/// Disks and network cards that one guest may have: the PCI slots that are set aside.
pub const DISKS_MAX: usize = 8;
/// Network cards that one guest may have.
pub const NICS_MAX: usize = 6;
/// Disks of those that may be plugged into SATA: the ports that the board has.
pub const SATA_DISKS_MAX: usize = 6;

/// What executes the guest's instructions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Accel {
    /// QEMU's own translator: everywhere, and slower.
    Tcg,
    /// The processor itself, through `/dev/kvm`.
    Kvm,
}

impl Accel {
    /// `tcg` or `kvm`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Tcg => "tcg",
            Self::Kvm => "kvm",
        }
    }
}

/// A disk's file on this host, raw.
#[derive(Debug, Clone)]
pub struct DiskFile {
    /// Its name in the hardware description; the guest sees it as the disk's serial number.
    pub name: String,
    /// The raw file, as large as the disk.
    pub path: PathBuf,
    /// The guest cannot write to it.
    pub read_only: bool,
}

/// One network card and what it plugs into.
#[derive(Debug, Clone)]
pub struct NicLaunch {
    /// The card's address.
    pub mac: Mac,
    /// The host's end of its cable.
    pub netdev: Netdev,
}

/// One start of one computer.
#[derive(Debug, Clone)]
pub struct Launch {
    /// QEMU's program, see [`find_qemu`].
    pub qemu: PathBuf,
    /// What the computer is made of.
    pub hardware: Hardware,
    /// The CPU model in QEMU's words; [`BASELINE_CPU`] unless the maker says otherwise.
    pub cpu_model: String,
    /// What executes it.
    pub accel: Accel,
    /// The file that is the guest's memory, exactly `hardware.memory_bytes` long.
    pub ram_path: PathBuf,
    /// One file per disk of the hardware description, in its order.
    pub disks: Vec<DiskFile>,
    /// With kernel boot: the kernel (a bzImage, or an ELF with a PVH entry).
    pub kernel: Option<PathBuf>,
    /// With kernel boot: the initial RAM disk.
    pub initrd: Option<PathBuf>,
    /// With UEFI: its program. Its variables are the disk whose bus is the board's flash memory.
    pub firmware: Option<PathBuf>,
    /// A virtual TPM, if it has one; its volume is not among `disks`, nor in the description's.
    pub tpm: Option<TpmLaunch>,
    /// Appended to the maker's kernel command line.
    pub cmdline_extra: String,
    /// One per card of the hardware description, in its order.
    pub nics: Vec<NicLaunch>,
    /// Tells the guest that it became another computer when it changes (a fork).
    pub vmgenid: [u8; 16],
    /// The machine's SMBIOS UUID.
    pub uuid: [u8; 16],
    /// An existing directory of this instance alone: sockets and logs appear there.
    pub run_dir: PathBuf,
    /// True: wait for [`crate::Qemu::load_state`] instead of booting.
    pub incoming: bool,
    /// The walls around QEMU.
    pub jail: Jail,
}

/// The host's `qemu-system-x86_64`: where distributions put it, then along `PATH`.
pub fn find_qemu() -> Result<PathBuf, VmmError> {
    find("qemu-system-x86_64")
}

/// The host's `qemu-img`, likewise.
pub fn find_qemu_img() -> Result<PathBuf, VmmError> {
    find("qemu-img")
}

/// The host's `swtpm`, likewise.
pub fn find_swtpm() -> Result<PathBuf, VmmError> {
    find("swtpm")
}

fn find(name: &str) -> Result<PathBuf, VmmError> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let dirs = [PathBuf::from("/usr/bin"), PathBuf::from("/usr/local/bin")];
    let found = dirs.into_iter().chain(std::env::split_paths(&path)).map(|dir| dir.join(name));
    found
        .filter(|candidate| candidate.is_absolute())
        .find_map(|candidate| candidate.canonicalize().ok().filter(|file| file.is_file()))
        .ok_or_else(|| VmmError::NotInstalled {
            program: name.into(),
            detail: "not found in /usr/bin, /usr/local/bin or PATH".to_owned(),
        })
}

impl Launch {
    /// What must be equal for saved device state to load: machine type, CPU model, accelerator.
    pub fn compatibility(&self) -> String {
        let machine = crate::command_line::machine_type(self.hardware.profile);
        format!("{machine}/{}/{}", self.cpu_model, self.accel.as_str())
    }

    /// Refuses what could only fail later or stranger.
    pub(crate) fn check(&self) -> Result<(), VmmError> {
        let invalid = |what: String| Err(VmmError::Invalid { what });
        let hardware = &self.hardware;
        if !(1..=64).contains(&hardware.cpus) {
            return invalid(format!("{} CPUs; 1 to 64 are possible", hardware.cpus));
        }
        if hardware.memory_bytes == 0 || !hardware.memory_bytes.is_multiple_of(1 << 20) {
            return invalid("memory must be a multiple of 1 MiB".to_owned());
        }
        let disks = hardware.disks.iter().filter(|disk| disk.is_disk()).count();
        if self.disks.len() != hardware.disks.len() || disks > DISKS_MAX {
            return invalid(format!(
                "{} disk files for {} disks; at most {DISKS_MAX}",
                self.disks.len(),
                hardware.disks.len()
            ));
        }
        let sata = hardware.disks.iter().filter(|disk| disk.bus == DiskBus::Sata).count();
        if sata > SATA_DISKS_MAX || (sata > 0 && hardware.profile != Profile::Q35) {
            return invalid(format!(
                "{sata} SATA disks; the board q35 has {SATA_DISKS_MAX} ports, the light one none"
            ));
        }
        if self.nics.len() != hardware.nics.len() || self.nics.len() > NICS_MAX {
            return invalid(format!(
                "{} network cards plugged in of {}; at most {NICS_MAX}",
                self.nics.len(),
                hardware.nics.len()
            ));
        }
        if (hardware.boot.kind == model::BootKind::Kernel) != self.kernel.is_some() {
            return invalid("kernel boot needs a kernel, and others take none".to_owned());
        }
        let uefi = hardware.boot.kind == model::BootKind::Uefi;
        let flash = hardware.disks.iter().filter(|disk| disk.bus == DiskBus::Flash).count();
        if uefi != self.firmware.is_some() || flash != usize::from(uefi) {
            return invalid("UEFI needs its program and a volume for its variables".to_owned());
        }
        if hardware.has_tpm() {
            return invalid("the TPM's volume is no disk of QEMU's".to_owned());
        }
        if self.tpm.is_some() && self.initrd.is_some() {
            // QEMU 10 places it as if the ACPI tables and what they name never took more than 160 KiB;
            // a TPM's log takes 64 KiB more.
            return invalid("with a TPM the initial RAM disk would lie over the tables".to_owned());
        }
        if hardware.boot.secure_boot && hardware.profile != Profile::Q35 {
            return invalid("secure boot needs the board q35".to_owned());
        }
        for path in self.files() {
            if !path.is_absolute() {
                return invalid(format!("{} is not an absolute path", path.display()));
            }
        }
        self.check_size(&self.ram_path, hardware.memory_bytes, "memory")?;
        for (file, spec) in self.disks.iter().zip(&hardware.disks) {
            self.check_size(&file.path, spec.size_bytes, &spec.name)?;
        }
        Ok(())
    }

    /// Every path that QEMU will open by name.
    fn files(&self) -> impl Iterator<Item = &Path> {
        let disks = self.disks.iter().map(|disk| disk.path.as_path());
        let boot =
            self.kernel.iter().chain(&self.initrd).chain(&self.firmware).map(PathBuf::as_path);
        let tpm = self.tpm.iter().flat_map(|tpm| [tpm.program.as_path(), tpm.dir.as_path()]);
        disks.chain(boot).chain(tpm).chain([
            self.qemu.as_path(),
            self.ram_path.as_path(),
            self.run_dir.as_path(),
        ])
    }

    fn check_size(&self, path: &Path, want: u64, noun: &str) -> Result<(), VmmError> {
        let found = std::fs::metadata(path)
            .map_err(VmmError::io(format!("cannot look at {}", path.display())))?
            .len();
        if found == want {
            return Ok(());
        }
        Err(VmmError::Invalid {
            what: format!("{noun} is {want} bytes but {} has {found}", path.display()),
        })
    }
}
