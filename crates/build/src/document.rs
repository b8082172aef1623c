//! `appliance.yaml` as it is written: dull types, one per mapping of the file.
//!
//! These types are the format. Their doc comments are the descriptions in the published JSON
//! Schema. They know the shape of the file and nothing else; [`crate::Recipe`] is what remains
//! once the values make sense together.

use schemars::JsonSchema;
use serde::Deserialize;
use serde_saphyr::Spanned;

/// One virtual appliance: a computer described as data.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(title = "appliance.yaml")]
pub(crate) struct Document {
    /// The appliance's name: 1 to 63 of a-z, 0-9, '-', '_' and '.'.
    #[schemars(with = "String", regex(pattern = r"^[a-z0-9][a-z0-9._-]{0,62}$"))]
    pub name: Spanned<String>,
    /// The maker's name for this version, for example "1.2". Up to 64 characters.
    #[schemars(with = "String", length(min = 1, max = 64))]
    pub version: Spanned<String>,
    /// One or a few sentences for people.
    #[serde(default)]
    pub description: String,
    /// What the computer is made of.
    pub hardware: HardwareDoc,
    /// What takes control first.
    #[schemars(with = "BootDoc")]
    pub boot: Spanned<BootDoc>,
    /// The disks, in the order in which the guest finds them. At most 16.
    #[serde(default)]
    #[schemars(with = "Vec<DiskDoc>", length(max = 16))]
    pub disks: Vec<Spanned<DiskDoc>>,
    /// The network cards. At most 8.
    #[serde(default)]
    #[schemars(with = "Vec<NicDoc>", length(max = 8))]
    pub nics: Vec<Spanned<NicDoc>>,
    /// How to tell that the appliance is ready for its user.
    #[schemars(with = "ReadyDoc")]
    pub ready: Spanned<ReadyDoc>,
    /// What an instance starts from: `stopped`, it boots; `running`, it goes on from the memory of a
    /// computer that the build has booted and that was ready.
    #[serde(default)]
    #[schemars(with = "StateDoc")]
    pub state: Option<Spanned<StateDoc>>,
    /// A file in the recipe's folder: the maker's part of what cloud-init configures (vendor-data).
    #[serde(default)]
    #[schemars(with = "Option<String>")]
    pub vendor_data: Option<Spanned<String>>,
    /// Checkpoints that are taken by themselves while an instance runs, unless its user says
    /// otherwise. Without it the host that runs it says.
    #[serde(default)]
    pub checkpoints: Option<CheckpointsDoc>,
}

/// Checkpoints that are taken by themselves.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct CheckpointsDoc {
    /// How often one is taken, for example 30s, 5m, 2h or 1d; at most 31d.
    #[schemars(with = "String")]
    pub every: Spanned<String>,
    /// One is taken sooner when the guest has written so much since the last, for example 256MiB:
    /// whole MiB.
    #[serde(default)]
    #[schemars(with = "Option<String>")]
    pub dirtied: Option<Spanned<String>>,
    /// Which of them stay. Without it: the last 6, and the last of 24 hours, 7 days and 4 weeks.
    #[serde(default)]
    #[schemars(with = "Option<KeepDoc>")]
    pub keep: Option<Spanned<KeepDoc>>,
}

/// Which stay: the last ones, and the last of each of so many hours, days and weeks (UTC) that have
/// any. At most 200 in all.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct KeepDoc {
    /// The newest so many; at least 1.
    #[serde(default)]
    pub last: u32,
    /// Hours.
    #[serde(default)]
    pub hourly: u32,
    /// Days.
    #[serde(default)]
    pub daily: u32,
    /// Weeks.
    #[serde(default)]
    pub weekly: u32,
}

/// What an instance starts from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum StateDoc {
    /// Its disks.
    Stopped,
    /// The memory of the computer that the build has booted.
    Running,
}

/// What the computer is made of.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct HardwareDoc {
    /// The board: `q35`, a full PC with PCI Express, or `light`, the smallest PC.
    #[serde(default = "q35")]
    pub profile: ProfileDoc,
    /// Virtual CPUs, 1 to 64.
    #[serde(default = "one_cpu")]
    #[schemars(with = "u32", range(min = 1, max = 64))]
    pub cpus: Spanned<u32>,
    /// Memory, for example 512MiB: whole MiB, from 16MiB to 1TiB.
    #[schemars(with = "String")]
    pub memory: Spanned<String>,
    /// A virtual TPM 2.0, whose content belongs to each instance.
    #[serde(default)]
    #[schemars(with = "bool")]
    pub tpm: Option<Spanned<bool>>,
    /// The screen. Without it the computer has none.
    #[serde(default)]
    pub display: Option<DisplayDoc>,
}

fn q35() -> ProfileDoc {
    ProfileDoc::Q35
}

fn one_cpu() -> Spanned<u32> {
    let nowhere = serde_saphyr::Location::UNKNOWN;
    Spanned::new(1, nowhere, nowhere)
}

/// The board.
#[derive(Debug, Clone, Copy, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum ProfileDoc {
    /// Intel Q35: PCI Express, for real appliances.
    Q35,
    /// The smallest PC that still runs anything x86.
    Light,
}

/// A screen.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct DisplayDoc {
    /// Video memory, 1MiB to 256MiB.
    #[serde(default)]
    #[schemars(with = "Option<String>")]
    pub video_memory: Option<Spanned<String>>,
    /// The graphics card.
    #[serde(default)]
    pub card: CardDoc,
}

/// A graphics card.
#[derive(Debug, Clone, Copy, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum CardDoc {
    /// What every system has a driver for.
    #[default]
    Vga,
    /// One that viewers can tell the size of their window; the guest needs the driver virtio-gpu.
    Virtio,
}

/// How the computer starts.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct BootDoc {
    /// `bios`, `uefi`: the firmware starts the first disk. `kernel`: a Linux kernel is loaded
    /// directly.
    pub mode: BootModeDoc,
    /// UEFI starts only what is signed with a key that it knows: Microsoft's, with which
    /// distributions sign (mode `uefi` and profile `q35` only).
    #[serde(default)]
    #[schemars(with = "bool")]
    pub secure_boot: Option<Spanned<bool>>,
    /// What UEFI's variables begin with (mode `uefi` only): a file in the recipe's folder, as OVMF
    /// wants it, for example with keys of your own. Without it they are empty, with secure boot
    /// Microsoft's keys.
    #[serde(default)]
    #[schemars(with = "Option<String>")]
    pub variables: Option<Spanned<String>>,
    /// The kernel (mode `kernel` only, and required there).
    #[serde(default)]
    #[schemars(with = "Option<KernelDoc>")]
    pub kernel: Option<Spanned<KernelDoc>>,
    /// The initial RAM disk (mode `kernel` only).
    #[serde(default)]
    #[schemars(with = "Option<InitrdDoc>")]
    pub initrd: Option<Spanned<InitrdDoc>>,
    /// The kernel's command line (mode `kernel` only). Up to 2000 characters.
    #[serde(default)]
    #[schemars(with = "Option<String>", length(max = 2000))]
    pub cmdline: Option<Spanned<String>>,
}

/// What takes control first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum BootModeDoc {
    /// The firmware, from the first disk.
    Bios,
    /// UEFI, from what its variables name, else from the first disk.
    Uefi,
    /// A Linux kernel loaded by the virtual machine monitor.
    Kernel,
}

/// Where the kernel comes from: exactly one of `package` (with `suite`) and `file`.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct KernelDoc {
    /// A Debian package that holds, or depends on, a kernel: for example linux-image-cloud-amd64.
    #[serde(default)]
    #[schemars(with = "Option<String>")]
    pub package: Option<Spanned<String>>,
    /// The Debian suite of the package, for example bookworm.
    #[serde(default)]
    #[schemars(with = "Option<String>")]
    pub suite: Option<Spanned<String>>,
    /// The absolute path of a file in `package` that is taken as it is: for what starts as a Linux
    /// kernel does and is none.
    #[serde(default)]
    #[schemars(with = "Option<String>")]
    pub path: Option<Spanned<String>>,
    /// A kernel in the recipe's folder: bzImage, or an ELF file with a PVH entry point.
    #[serde(default)]
    #[schemars(with = "Option<String>")]
    pub file: Option<Spanned<String>>,
}

/// The initial RAM disk: either `file`, or one made from busybox and what is listed here.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct InitrdDoc {
    /// A finished initrd in the recipe's folder. Excludes every other field.
    #[serde(default)]
    #[schemars(with = "Option<String>")]
    pub file: Option<Spanned<String>>,
    /// The Debian suite of busybox and `packages`. By default the kernel's.
    #[serde(default)]
    #[schemars(with = "Option<String>")]
    pub suite: Option<Spanned<String>>,
    /// The disk that becomes the root file system. Without it the initrd is the whole system:
    /// busybox `init` runs, as `/etc/inittab` (from `files`) tells it.
    #[serde(default)]
    #[schemars(with = "Option<String>")]
    pub root: Option<Spanned<String>>,
    /// Kernel modules to load first thing, in this order; what they depend on comes along.
    #[serde(default)]
    #[schemars(with = "Vec<String>", length(max = 256))]
    pub modules: Vec<Spanned<String>>,
    /// Debian packages in which `programs` are found. They are unpacked, not configured.
    #[serde(default)]
    #[schemars(with = "Vec<String>", length(max = 256))]
    pub packages: Vec<Spanned<String>>,
    /// Absolute paths of programs to copy from `packages`, with the libraries they need.
    #[serde(default)]
    #[schemars(with = "Vec<String>", length(max = 256))]
    pub programs: Vec<Spanned<String>>,
    /// Files to put in.
    #[serde(default)]
    #[schemars(with = "Vec<FileDoc>", length(max = 1000))]
    pub files: Vec<Spanned<FileDoc>>,
}

/// One disk. Its content is one of `image`, `debian`, or nothing (`size`, with or without
/// `format`).
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct DiskDoc {
    /// The disk's name, unique within the appliance: 1 to 32 of a-z, 0-9 and '-'.
    #[schemars(with = "String", regex(pattern = r"^[a-z0-9][a-z0-9-]{0,31}$"))]
    pub name: Spanned<String>,
    /// Whose the disk is.
    pub role: RoleDoc,
    /// What a stop does to a system disk; by default `reset`.
    #[serde(default)]
    #[schemars(with = "Option<AtStopDoc>")]
    pub at_stop: Option<Spanned<AtStopDoc>>,
    /// The disk's size, for example 2GiB: a multiple of 4KiB. Required unless there is an
    /// `image`, which then is extended to this size.
    #[serde(default)]
    #[schemars(with = "Option<String>")]
    pub size: Option<Spanned<String>>,
    /// A raw disk image in the recipe's folder.
    #[serde(default)]
    #[schemars(with = "Option<String>")]
    pub image: Option<Spanned<String>>,
    /// A Debian system made from packages.
    #[serde(default)]
    #[schemars(with = "Option<DebianDoc>")]
    pub debian: Option<Spanned<DebianDoc>>,
    /// An empty file system to start with, on a disk without other content.
    #[serde(default)]
    #[schemars(with = "Option<FormatDoc>")]
    pub format: Option<Spanned<FormatDoc>>,
    /// The file system's label, up to 16 bytes; by default the disk's name.
    #[serde(default)]
    #[schemars(with = "Option<String>", length(max = 16))]
    pub label: Option<Spanned<String>>,
}

/// Whose a disk is, which decides what stop, update and checkpoint do to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum RoleDoc {
    /// The maker's: replaced by an update.
    System,
    /// The user's: never touched by an update, survives stop.
    Data,
    /// Never saved: empty again after stop.
    Scratch,
}

/// What a stop does to a system disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum AtStopDoc {
    /// Back to the maker's content.
    Reset,
    /// What the guest wrote stays until the next update.
    Keep,
}

/// A file system.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum FormatDoc {
    /// Linux's ext4, with 4 KiB blocks and a journal.
    Ext4,
}

/// A Debian system made from packages, as an ext4 file system without a partition table.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct DebianDoc {
    /// The suite, for example bookworm. Its security and update suites are included.
    #[schemars(with = "String")]
    pub suite: Spanned<String>,
    /// Packages to install, besides the essential and required ones. Recommended packages are
    /// not installed unless they are named.
    #[serde(default)]
    #[schemars(with = "Vec<String>", length(max = 512))]
    pub packages: Vec<Spanned<String>>,
    /// Also put all modules of the kernel package (`boot.kernel`) into /usr/lib/modules, for
    /// modprobe in the running system. The initrd's `modules` are loaded without it.
    #[serde(default)]
    #[schemars(with = "bool")]
    pub kernel_modules: Option<Spanned<bool>>,
    /// Files to put in, after the packages are installed.
    #[serde(default)]
    #[schemars(with = "Vec<FileDoc>", length(max = 1000))]
    pub files: Vec<Spanned<FileDoc>>,
    /// Shell commands to run inside the system, after the files are in place: as root, without
    /// network, each with `sh -e`. The first one that fails stops the build.
    #[serde(default)]
    #[schemars(with = "Vec<String>", length(max = 256))]
    pub commands: Vec<Spanned<String>>,
}

/// A file to put into a disk or an initrd: `path` and exactly one of `from` and `content`.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct FileDoc {
    /// Its absolute path in the guest. Missing folders are made, with mode 0755.
    #[schemars(with = "String")]
    pub path: Spanned<String>,
    /// A file in the recipe's folder to copy.
    #[serde(default)]
    #[schemars(with = "Option<String>")]
    pub from: Option<Spanned<String>>,
    /// The text itself.
    #[serde(default)]
    pub content: Option<String>,
    /// Its permissions in octal, for example "0755". By default 0755 when the file it is copied
    /// from is executable, else 0644.
    #[serde(default)]
    #[schemars(with = "Option<String>", regex(pattern = "^[0-7]{3,4}$"))]
    pub mode: Option<Spanned<String>>,
}

/// A network card.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct NicDoc {
    /// The network it plugs into; `user` is user-mode networking through the host.
    #[serde(default)]
    #[schemars(with = "Option<String>")]
    pub network: Option<Spanned<String>>,
    /// Guest TCP ports that the appliance offers. At most 64.
    #[serde(default)]
    #[schemars(with = "Vec<u16>", length(max = 64))]
    pub ports: Vec<Spanned<u16>>,
}

/// How to tell that the appliance is ready for its user.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum ReadyDoc {
    /// As soon as its CPUs run.
    Started,
    /// The guest agent answers.
    Agent,
    /// A TCP port in the guest accepts a connection.
    Port(u16),
    /// A web server in the guest has a page.
    Http(HttpDoc),
    /// A line on the serial console contains this text.
    Console(String),
}

/// A page that is asked for.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct HttpDoc {
    /// The TCP port in the guest.
    pub port: u16,
    /// What is asked for: a path, with a query if need be. At most 1024 bytes.
    pub path: String,
}

/// The JSON Schema of `appliance.yaml`, for editors and other programs.
pub fn schema() -> serde_json::Value {
    schemars::schema_for!(Document).to_value()
}
