//! A volume's folder in memory ([`volume::memory_disk`]), as a host of the simulation reaches it: it
//! survives the host, and a power cut leaves of it what was synced.

use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

pub use volume::memory_disk::Unsynced;
use volume::memory_disk::{Act, Bytes, Durable, Gate};

use crate::chance::Chance;
use crate::world::World;

/// A folder. Clones are the same one.
#[derive(Clone, Default)]
pub struct Folder {
    pub bytes: Bytes,
    durable: Arc<Mutex<Durable>>,
}

impl Folder {
    fn durable(&self) -> MutexGuard<'_, Durable> {
        self.durable.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The power goes.
    pub fn cut(&self, unsynced: Unsynced, chance: &mut Chance) {
        let image = std::mem::take(&mut *self.durable()).cut(unsynced, &mut || chance.is(500));
        *self.durable() = Durable::of(image.clone());
        self.bytes.change(|now| *now = image);
    }
}

/// One life of a host, which reaches the folder until it is dead.
pub struct Opened {
    pub folder: Folder,
    pub world: Arc<World>,
    pub host: usize,
    pub life: u64,
}

impl Gate for Opened {
    fn pass(&self, act: &Act) -> io::Result<()> {
        let what = match act {
            Act::Create { .. } => "disk: create",
            Act::Rename { .. } => "disk: rename",
            Act::Remove { .. } => "disk: remove",
            Act::Give { .. } => "disk: give",
            Act::Write { .. } => "disk: write",
            Act::SetLen { .. } => "disk: length",
            Act::Punch { .. } => "disk: punch",
            Act::Sync { .. } => "disk: sync",
            Act::SyncDir => "disk: sync folder",
        };
        if !self.world.point(self.host, self.life, what) {
            return Err(io::Error::other("the host is dead"));
        }
        let grows = matches!(act, Act::Create { .. } | Act::Write { .. });
        if grows && self.world.state().fates[self.host].full {
            *self.world.state().faults.entry("disk full").or_default() += 1;
            return Err(io::ErrorKind::StorageFull.into());
        }
        Ok(())
    }

    fn done(&self, act: Act) {
        self.folder.durable().add(act);
    }
}
