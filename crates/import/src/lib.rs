//! Foreign computers and disks: what they say about themselves, read with suspicion.
//!
//! ```text
//!   FILE ──detect──▶ Format ──guard──▶ headers are what they say, and lead nowhere else
//!                                │
//!        qemu_img: the words for a converter behind walls, and what of its answer is believed
//! ```
//!
//! | module | reads or writes |
//! | --- | --- |
//! | [`mod@format`] | which format a file has |
//! | [`mod@guard`] | the headers of disks: qcow2, vmdk, vdi, vhd, vhdx |
//! | [`qemu_img`] | what the converter is asked, and its answers |
//! | [`archive`] | tars |
//! | [`ovf`] | the description of a computer (OVF), its form and its environment |
//! | [`vagrant`] | what a Vagrant box says about itself |
//! | [`digests`] | the manifest file of an OVF package |
//! | [`seed`] | configuration for cloud-init |
//! | [`iso`] | small CDs, for configuration |
//! | [`names`] | which names of foreign files are taken |
//!
//! # Invariants
//!
//! * Pure: no file is opened here, no program started, no clock read. Callers bring readers.
//! * Everything read is bounded before it is read, and nothing panics whatever the bytes are.
//! * What would lead to a file that was not given is refused by name: backing files, external data
//!   files, parents, paths.
//!
//! There is no state, so nothing to recover after a crash.

pub mod archive;
pub mod digests;
mod error;
pub mod format;
pub mod guard;
pub mod iso;
pub mod names;
pub mod ovf;
pub mod qemu_img;
pub mod seed;
pub mod vagrant;

/// Unpacks gzip, all of its members.
pub fn gunzip(reader: impl std::io::BufRead) -> impl std::io::Read {
    flate2::bufread::MultiGzDecoder::new(reader)
}

pub use error::{ImportError, Result};
pub use format::{Format, detect};
pub use guard::{DISK_BYTES_MAX, Guarded, guard};
