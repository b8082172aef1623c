//! OVF (DMTF's DSP0243): the description of a computer, and of the form that its user fills in.
//!
//! | module | does |
//! | --- | --- |
//! | `read` | an envelope: files, disks, one virtual system |
//! | `hardware` | its items: processors, memory, controllers, disks, network cards |
//! | [`units`](self) | quantities and their units |
//! | `property` | the form: what may be asked, and which answers are right |
//! | `environment` | the answers, as the guest reads them |
//! | `write` | an envelope of our own, for export |
//!
//! *Invariants.* No entity and no DTD is ever expanded; at most 4 MiB and 100,000 nodes are read; no
//! name in the result is anything but plain.

mod environment;
mod hardware;
mod property;
mod read;
mod units;
mod write;

use model::NicModel;

pub use environment::{ENVIRONMENT_FILE, environment};
pub use property::{Property, fill};
pub use read::{OVF_BYTES_MAX, parse};
pub use write::{Exported, ExportedDisk, write};

/// A virtual system, understood.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct System {
    /// What it calls itself, for people.
    pub name: String,
    /// How many processors.
    pub cpus: u32,
    /// Whole MiB.
    pub memory_bytes: u64,
    /// It starts by UEFI, not by BIOS.
    pub efi: bool,
    /// UEFI starts only what is signed.
    pub secure_boot: bool,
    /// It has a virtual TPM.
    pub tpm: bool,
    /// In the order of their controllers and their places there.
    pub disks: Vec<SystemDisk>,
    /// Its network cards.
    pub nics: Vec<NicModel>,
    /// The form.
    pub properties: Vec<Property>,
    /// What differs from what was asked for.
    pub notes: Vec<String>,
}

/// One disk of a system.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SystemDisk {
    /// The file with its content; none: it is empty.
    pub file: Option<FileReference>,
    /// How large it is to be, bytes; a CD is as large as its file.
    pub capacity_bytes: u64,
    /// What it is plugged into here.
    pub bus: model::DiskBus,
    /// A hard disk or a CD.
    pub media: model::Media,
}

/// A file of the package.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileReference {
    /// A plain name.
    pub name: String,
    /// How long it is to be, bytes, where that is said.
    pub bytes: Option<u64>,
}
