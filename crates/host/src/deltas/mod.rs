//! Deltas between two versions of an appliance: made when one is published, used when one is fetched.
//!
//! ```text
//! publish ──▶ make: what only the new version has, file by file, and where everything lies
//!                                                     ──▶ signed parts and a layout beside the release
//! update  ──▶ give: parts + what of the old version is here ──▶ chunks in the host's cache
//!         ──▶ rebuild: the layout + their ids ──▶ manifests, checked by the ids that the version says
//! ```
//! Where there is no layout, the manifests are fetched, and say which pages are missing; then *apply* takes these.
//!
//! *Invariants.* A delta is a shortcut: what it does not give is fetched as always. What comes out of it
//! belongs to the new version only by hashing to the ids that this says. Of disks alone: memory
//! has nothing in common, and kernels are compressed already. What a delta asks of a host is in proportion to
//! what it says that it gives ([budget]), whoever made it.

mod apply;
mod budget;
mod lay;
mod make;
mod open;

use std::sync::Arc;

use chunk::ChunkSource;
use delta::Run;
use manifest::{Manifest, NodeCache};
use model::{ChunkId, DiskRole};
use volume::Fetcher;

pub use apply::{apply, give};
pub use budget::Budget;
pub use lay::{is_here, is_needed, rebuild, says_pages};
pub use make::{Made, make};

use crate::failure::Result;
use crate::record::Version;

/// Decoded nodes that are kept of one version.
const NODES_KEPT: usize = 512;
/// A page, bytes.
const PAGE: usize = model::PAGE_BYTES;
/// A version with more pages than this gets no delta: 16 GiB.
const PAGES_MAX: usize = 4 << 20;

/// Where a page lies: the disk's number, and the page.
pub type Spot = (u16, u64);

/// The disks of a version that a delta speaks of, in the order of its hardware. A user's own are not
/// among them, and keep their number.
pub struct Sources {
    disks: Vec<Option<Manifest>>,
    nodes: NodeCache,
}

impl Sources {
    /// Opens those of a version, through the host's cache.
    pub fn open(version: &Version, fetcher: &Arc<Fetcher>) -> Result<Self> {
        Self::open_from(version, fetcher.clone())
    }

    fn open_from(version: &Version, source: Arc<dyn ChunkSource>) -> Result<Self> {
        let nodes = NodeCache::new(source.clone(), NODES_KEPT);
        let disks = version.hardware.disks.iter().zip(&version.disks);
        let disks = disks.map(|(spec, id)| match spec.role {
            DiskRole::System => Ok(Some(Manifest::open(*id, &*source)?)),
            _ => Ok(None),
        });
        Ok(Self { disks: disks.collect::<Result<_>>()?, nodes })
    }

    fn disk(&self, number: u16) -> Option<&Manifest> {
        self.disks.get(usize::from(number))?.as_ref()
    }

    fn numbered(&self) -> impl Iterator<Item = (u16, &Manifest)> {
        let numbered = self.disks.iter().zip(0_u16..);
        numbered.filter_map(|(disk, number)| Some((number, disk.as_ref()?)))
    }

    /// The pages of runs, at most `most`; none: they are not all there, or one is a hole.
    fn ids(&self, runs: &[Run], most: usize) -> Result<Option<Vec<ChunkId>>> {
        let mut ids = Vec::new();
        for run in runs {
            let Some(disk) = self.disk(run.source) else { return Ok(None) };
            let count = u64::from(run.count);
            let beyond = run.first.checked_add(count).is_none_or(|end| end > disk.pages());
            if beyond || ids.len() as u64 + count > most as u64 {
                return Ok(None);
            }
            let mut found = Vec::new();
            disk.lookup_range(&self.nodes, run.first, count, &mut found)?;
            for id in found {
                let Some(id) = id else { return Ok(None) };
                ids.push(id);
            }
        }
        Ok(Some(ids))
    }
}

#[cfg(test)]
mod tests;
