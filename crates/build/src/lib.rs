//! Build: from an `appliance.yaml` to a hardware description and image files.
//!
//! ```text
//! appliance.yaml --parse--> Recipe --build--> Built { hardware, ready, kernel, initrd, disks }
//!                  pure      |        |
//!                  errors with       programs of Debian: apt, mmdebstrap, e2fsprogs
//!                  line and column   in cages; their results cached in a tools folder
//! ```
//!
//! Invariants:
//! * The same recipe, files and package files give the same bytes of every output.
//! * Packages come from where the system's apt is configured to take them, checked by apt. No
//!   host's name stands here.
//! * A recipe names files only inside its folder; the kernel's path resolution enforces it.
//! * What a build writes lies in the work folder or the tools folder. Mounts live in namespaces
//!   that end with the programs they are for.
//! * This crate knows neither chunks nor repositories nor virtual machines.
//!
//! After a crash the work folder holds a `temp/` that the next build empties, and the tools
//! folder at most a half entry under a name that is never read.

mod apt;
mod assemble;
mod cage;
mod check;
mod cpio;
mod debian;
mod document;
mod error;
mod ext4;
#[doc(hidden)]
pub mod fuzz;
mod initrd;
mod kernel;
mod place;
mod programs;
mod recipe;
mod source;
mod tree;
mod workshop;

pub use apt::{forget_package_lists, installed};
pub use assemble::{Built, BuiltDisk, build};
pub use document::schema;
pub use error::{BuildError, RecipeError};
pub use programs::missing_programs;
pub use recipe::{RECIPE_BYTES_MAX, Recipe};
pub use workshop::{Outcome, Step};
