//! What other programs made, and what is made for them: disks and computers in foreign formats.
//!
//! ```text
//!   FILE ─▶ import::detect, guard ─▶ a private copy ─▶ qemu-img behind walls ─▶ sparse raw ─▶ volume
//!   volume ─▶ sparse raw ─▶ qemu-img behind walls ─▶ FILE
//! ```
//!
//! | module | does |
//! | --- | --- |
//! | [`open`] | opens foreign files so that nothing but a regular file is met |
//! | [`disk`] | one disk, from an open file to a sparse raw one |
//! | [`package`], [`vagrant`] | OVF packages, Vagrant boxes |
//! | [`computer`] | what was found, and what it is made of here |
//! | [`packages`] | what is installed on its disks |
//! | [`mod@write`], [`place`] | volumes as files, and files in their place |
//! | [`convert`] | private copies, and the converter in its jail |
//!
//! # Invariants
//!
//! * What was checked is what is converted: the converter sees a private copy that nobody else can
//!   change, never the file that was named.
//! * The converter never learns a path of this host, and reaches none.
//! * What a conversion may take of time, memory and disk is bounded before it starts; it is killed
//!   before the disk is full.
//!
//! When this process is killed, the converter dies with it; its folder is swept by the next.

pub mod computer;
pub mod convert;
pub mod disk;
pub mod open;
pub mod package;
pub mod packages;
pub mod place;
pub mod vagrant;
pub mod write;
