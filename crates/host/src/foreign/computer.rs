//! A foreign computer, understood: what becomes a version.

use import::ovf::Property;
use model::{
    Boot, BootKind, DiskBus, DiskRole, DiskSpec, DisplayCard, DisplaySpec, Hardware, Media,
    NicModel, NicSpec, Profile, ResetPolicy,
};

use super::disk::Content;

/// Memory where neither the file nor the user says how much: enough for an installer.
pub const MEMORY_BYTES_DEFAULT: u64 = 1 << 30;
/// Video memory: enough for 1920 x 1080.
const VIDEO_BYTES: u64 = 16 << 20;

/// What a file held.
pub struct Computer {
    pub cpus: u32,
    pub memory_bytes: u64,
    pub disks: Vec<Disk>,
    pub nics: Vec<NicModel>,
    /// BIOS or UEFI.
    pub boot: BootKind,
    pub secure_boot: bool,
    pub tpm: bool,
    pub description: String,
    /// The form that its user fills in.
    pub properties: Vec<Property>,
    /// What differs from what the file asked for, and what could not be checked.
    pub notes: Vec<String>,
}

/// One disk of it.
pub struct Disk {
    pub name: String,
    pub bus: DiskBus,
    pub media: Media,
    pub content: Content,
}

impl Computer {
    /// A computer around these disks, of which nothing else is known.
    pub fn around(disks: Vec<Disk>, description: String) -> Self {
        Self {
            cpus: 1,
            memory_bytes: MEMORY_BYTES_DEFAULT,
            disks,
            nics: vec![NicModel::Virtio],
            boot: BootKind::Bios,
            secure_boot: false,
            tpm: false,
            description,
            properties: Vec::new(),
            notes: Vec::new(),
        }
    }

    /// What it is made of here: a whole PC that boots from its first disk.
    ///
    /// Its disks are its user's: what is on them was never told apart into the maker's and the
    /// user's, so no update may ever replace one.
    pub fn hardware(&self) -> Hardware {
        let disks = self.disks.iter().map(|disk| DiskSpec {
            name: disk.name.clone(),
            role: match disk.media {
                Media::Disk => DiskRole::Data,
                Media::Cd => DiskRole::System,
            },
            reset: match disk.media {
                Media::Disk => ResetPolicy::Keep,
                Media::Cd => ResetPolicy::Reset,
            },
            size_bytes: disk.content.size_bytes,
            bus: disk.bus,
            media: disk.media,
        });
        let nics = self.nics.iter().map(|model| NicSpec {
            network: "user".to_owned(),
            ports: Vec::new(),
            model: *model,
        });
        Hardware {
            profile: Profile::Q35,
            cpus: self.cpus,
            memory_bytes: self.memory_bytes,
            boot: Boot { kind: self.boot, cmdline: String::new(), secure_boot: self.secure_boot },
            disks: disks.chain(self.tpm.then(DiskSpec::tpm)).collect(),
            nics: nics.collect(),
            display: Some(DisplaySpec { video_bytes: VIDEO_BYTES, card: DisplayCard::Vga }),
        }
    }
}
