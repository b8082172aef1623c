//! The hardware description: what a computer is made of, without saying how it is emulated.

/// A computer's hardware, as its maker describes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hardware {
    /// The board.
    pub profile: Profile,
    /// Number of virtual CPUs, 1 to 64.
    pub cpus: u32,
    /// Memory, bytes; a multiple of 1 MiB.
    pub memory_bytes: u64,
    /// How it starts.
    pub boot: Boot,
    /// Its disks, in the order in which the guest finds them.
    pub disks: Vec<DiskSpec>,
    /// Its network cards.
    pub nics: Vec<NicSpec>,
    /// Its screen, if it has one.
    pub display: Option<DisplaySpec>,
}

/// The board: a full PC, or a light one with few devices for small guests.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Profile {
    /// Intel Q35: PCI Express, the board for real appliances.
    Q35,
    /// The smallest PC that still runs anything x86 (i440FX with few devices).
    Light,
}

/// How a computer starts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Boot {
    /// Firmware or direct kernel.
    pub kind: BootKind,
    /// The kernel's command line; empty when firmware starts a disk.
    pub cmdline: String,
    /// UEFI starts only what is signed with a key that its variables know.
    pub secure_boot: bool,
}

/// What takes control first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum BootKind {
    /// BIOS, from the first disk.
    Bios,
    /// UEFI, from what its variables name, else from the first disk.
    Uefi,
    /// A Linux kernel (and usually an initrd) loaded by the virtual machine monitor.
    Kernel,
}

/// One disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DiskSpec {
    /// Its name in the description: `system`, `data` ... Unique within a computer.
    pub name: String,
    /// Whose it is.
    pub role: DiskRole,
    /// What a stop does to a system disk.
    pub reset: ResetPolicy,
    /// Size, bytes; a multiple of the page size.
    pub size_bytes: u64,
    /// What it is plugged into.
    pub bus: DiskBus,
    /// What it is to its guest.
    pub media: Media,
}

impl Hardware {
    /// Whether it has a virtual TPM.
    pub fn has_tpm(&self) -> bool {
        self.disks.iter().any(|disk| disk.bus == DiskBus::Tpm)
    }
}

impl DiskSpec {
    /// The volume of a virtual TPM, bytes: more than one can fill.
    pub const TPM_BYTES: u64 = 1 << 20;
    /// Its name.
    pub const TPM: &'static str = "tpm";

    /// What gives a computer a virtual TPM: the volume with what that remembers.
    pub fn tpm() -> Self {
        Self {
            name: Self::TPM.to_owned(),
            role: DiskRole::Firmware,
            reset: ResetPolicy::Keep,
            size_bytes: Self::TPM_BYTES,
            bus: DiskBus::Tpm,
            media: Media::Disk,
        }
    }

    /// Whether the guest sees a disk: all but what the computer itself remembers.
    pub fn is_disk(&self) -> bool {
        self.role != DiskRole::Firmware
    }
}

/// What a disk is plugged into: which driver its guest needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum DiskBus {
    /// A paravirtual disk: the quickest, for guests that have the driver.
    #[default]
    Virtio,
    /// A SATA port: for guests that were made for other hardware. [`Profile::Q35`] has six.
    Sata,
    /// The flash memory of the board, where UEFI keeps its variables: a volume that the guest does
    /// not see as a disk.
    Flash,
    /// The virtual TPM (2.0): its volume has what it remembers without power. The guest sees no disk.
    Tpm,
}

/// What a disk is to its guest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Media {
    /// A hard disk.
    #[default]
    Disk,
    /// A CD: nobody writes to it.
    Cd,
}

/// Whose a disk is, which decides what stop, update and checkpoint do to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum DiskRole {
    /// The maker's: replaced by an update; at stop reset or kept as the maker says.
    System,
    /// The user's: never touched by an update, survives stop.
    Data,
    /// Never saved: empty again after stop.
    Scratch,
    /// What the computer itself remembers (UEFI's variables, its TPM): its user's, like data, and no
    /// disk to the guest.
    Firmware,
}

/// What `stop` does to a system disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ResetPolicy {
    /// Back to the maker's content.
    Reset,
    /// What the guest wrote stays until the next update.
    Keep,
}

/// One network card.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NicSpec {
    /// The network it plugs into; `user` is user-mode networking through the host.
    pub network: String,
    /// Guest TCP ports that the appliance offers, for example 80.
    pub ports: Vec<u16>,
    /// What it is to its guest.
    pub model: NicModel,
}

/// Which driver a network card needs in its guest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum NicModel {
    /// A paravirtual card: the quickest.
    #[default]
    Virtio,
    /// An Intel 82540EM, which nearly every system has a driver for.
    E1000,
}

/// A published port: host `address:host_port` -> guest TCP `guest_port`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PortMap {
    /// The host's address to listen on, for example 127.0.0.1.
    pub address: std::net::IpAddr,
    /// The port on the host.
    pub host_port: u16,
    /// The TCP port in the guest.
    pub guest_port: u16,
}

/// A screen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DisplaySpec {
    /// Video memory, bytes.
    pub video_bytes: u64,
    /// What the guest drives.
    pub card: DisplayCard,
}

/// A graphics card.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum DisplayCard {
    /// What every system has a driver for.
    #[default]
    Vga,
    /// One that a viewer can tell the size of its window; its guest needs the driver virtio-gpu.
    Virtio,
}

/// How to tell that an appliance is ready for its user.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ready {
    /// As soon as its CPUs run.
    Started,
    /// A TCP port in the guest accepts a connection.
    Port(u16),
    /// A web server at this TCP port in the guest has this page: it is sent, or is elsewhere (status
    /// 200 to 399). The path begins with a slash and is of printable ASCII.
    Http { port: u16, path: String },
    /// A line on the serial console contains this text.
    Console(String),
    /// The guest agent answers a ping.
    Agent,
}

impl Ready {
    /// Whether a page can be asked for by this path: up to 1024 bytes that cannot end a request's line.
    pub fn is_path(path: &str) -> bool {
        path.starts_with('/')
            && path.len() <= 1024
            && path.bytes().all(|byte| byte.is_ascii_graphic())
    }
}
