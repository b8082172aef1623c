//! The nouns of Collective. No I/O, no serialization, no dependencies.
//!
//! **Invariant:** a `Name` or an id that exists is well formed: the one place that makes it checks it.
//!
//! Every crate speaks in these types; none of them is a wire or disk format. The formats in
//! `docs/format/` have dull types of their own, next to their encoders.

pub mod auto;
mod hardware;
mod id;
mod refs;
mod size;
pub mod updates;

pub use auto::{Auto, Keep, Policy};
pub use hardware::{
    Boot, BootKind, DiskBus, DiskRole, DiskSpec, DisplayCard, DisplaySpec, Hardware, Media,
    NicModel, NicSpec, PortMap, Profile, Ready, ResetPolicy,
};
pub use id::{CheckpointId, ChunkId, HostId, IdError, InstanceId, ManifestId, VersionId};
pub use refs::{Generation, InstanceState, Lease, Name, NameError};
pub use size::{Exactly, SizeError, format_bytes, parse_bytes};
pub use updates::{Updates, Window};

/// Bytes in a page: the unit in which volumes are read, written, addressed and shared.
pub const PAGE_BYTES: usize = 4096;
