//! Volumes: the one idea of Collective.
//!
//! A computer is data, and all of its data are volumes: its disks and its memory alike. A volume is
//! an immutable *base*, named by its content and fetched a page at a time, under an *overlay*: what
//! this instance wrote.
//!
//! ```text
//!   read ──►  active overlay     what was written since the last freeze
//!             frozen overlays    on their way into the next base
//!             base               a manifest: page -> chunk id, holes for zeros
//!                │
//!                └─ chunk ──►  host's cache ──►  repository (behind `ChunkSource`)
//! ```
//! Writing goes to the active overlay only. *Freezing* sets it apart, in constant time; *sealing*
//! turns what is frozen into a new manifest, at a cost proportional to what was written; *adopting*
//! makes that the base. Suspend, migrate, fork, undo and back-up are all this.
//!
//! | module | is |
//! | --- | --- |
//! | `volume` | [`Volume`]: read, write, discard, flush, freeze. **Read this first** |
//! | `layers` | what a volume consists of at one moment |
//! | `overlay` | pages written, in slots; what survives a crash |
//! | `journal`, `pages`, `slots`, `ranges` | its parts: what was flushed, where pages are, which slots are free |
//! | `keeper`, `state` | which overlays there are, on disk |
//! | `base`, `local`, `readahead` | reading the base; what is local; what a sequential reader will want |
//! | `recorder`, [`trace`] | what a start touches, in order; what the starts before it did |
//! | [`prefetch()`], `spans` | pushing a trace's pages ahead, in large requests |
//! | `cache` | [`Cache`]: the host's chunks, shared by its processes |
//! | `fetch` | [`Fetcher`]: one request per chunk, urgent before background |
//! | `stride` | how much is asked for at a time in the background |
//! | `stall` | waiting for a repository that is away |
//! | `seal`, `scrub` | overlay -> manifest; repository -> cache |
//! | `view` | [`View`]: a base alone, to read |
//! | `disk` | [`Disk`]: the door to the volume's own files |
//!
//! # Invariants (absences)
//!
//! * A volume does not know whether it is memory or a disk.
//! * It does no networking and knows no repository: chunks come from a `ChunkSource`, go to a
//!   `ChunkSink`.
//! * No byte is given to a reader that was not checked: overlay pages against the checksum in the
//!   journal, chunks against their id.
//! * Nothing that was flushed is given up before the caller says that a repository has it.
//!
//! The bytes on disk are described in `docs/format/overlay.md` and `docs/format/cache.md`.

mod base;
pub mod cache;
pub mod disk;
pub mod error;
pub mod fetch;
#[doc(hidden)]
pub mod fuzz;
mod header;
mod journal;
mod keeper;
mod layers;
mod local;
mod lock;
#[doc(hidden)]
pub mod memory_disk;
pub mod overlay;
mod pages;
mod prefetch;
mod ranges;
mod readahead;
mod recorder;
mod scrub;
mod seal;
mod slots;
mod spans;
mod stall;
mod state;
mod stats;
mod stride;
pub mod trace;
mod view;
mod volume;

pub use cache::{Cache, CacheStats};
pub use disk::{Disk, DiskFile, Folder, Keeps};
pub use error::{Result, VolumeError};
pub use fetch::{Cancel, FetchStats, Fetcher};
pub use journal::OverlayId;
pub use overlay::{Overlay, OverlayStats, PageState};
pub use prefetch::prefetch;
pub use recorder::{Recorder, TraceStats};
pub use scrub::{Scrub, ScrubProgress};
pub use seal::Sealed;
pub use stall::{Stall, StallObserver};
pub use stats::{Counters, VolumeStats};
pub use stride::Stride;
pub use trace::{Recorded, Trace, TraceError};
pub use view::View;
pub use volume::{Volume, VolumeOptions, open_folder};
