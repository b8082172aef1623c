//! Keeps the state file and the overlays that it names.
//!
//! The list of overlays in the state only says their order. It names the next overlay before that
//! is used, so that freezing has nothing to write: the overlay is already part of the volume,
//! empty and therefore without effect.
//!
//! Ordering: an overlay's files are durable before the state names them; the state that no longer
//! names them is durable before they are removed.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};

use model::ManifestId;

use crate::cache::Cache;
use crate::disk::Disk;
use crate::error::{Result, VolumeError};
use crate::journal::OverlayId;
use crate::lock::lock;
use crate::overlay::{Overlay, data_name, journal_name};
use crate::state::{OVERLAYS_MAX, STATE_NAME, STATE_NEW_NAME, State};

/// The overlays of a volume that was opened; empty ones made ahead of time stay with the keeper.
pub struct Overlays {
    /// Takes writes.
    pub active: Arc<Overlay>,
    /// Newest first.
    pub frozen: Vec<Arc<Overlay>>,
}

/// Keeps the state file.
pub struct Keeper {
    volume: String,
    disk: Arc<dyn Disk>,
    state: Mutex<State>,
    /// Empty overlays, in the order of the state. Never locked for long: a pause waits for it.
    spares: Mutex<VecDeque<Arc<Overlay>>>,
}

impl Keeper {
    /// Makes the files of a new volume.
    pub fn create(
        disk: Arc<dyn Disk>,
        volume: &str,
        base: Option<ManifestId>,
        size_bytes: u64,
    ) -> Result<(Self, Overlays)> {
        let names = disk.list().map_err(|e| VolumeError::io(volume, "listing its files", e))?;
        if names.iter().any(|name| name == STATE_NAME) {
            return Err(VolumeError::Exists { dir: disk.location() });
        }
        let state = State {
            volume: ambient::random(),
            size_bytes,
            base,
            next_overlay: 1,
            overlays: Vec::new(),
        };
        let keeper = Self {
            volume: volume.to_owned(),
            disk,
            state: Mutex::new(state),
            spares: Mutex::default(),
        };
        keeper.make_spares(2)?;
        let active = keeper.take_spare()?;
        Ok((keeper, Overlays { active, frozen: Vec::new() }))
    }

    /// Opens the files of a volume and removes those that belong to nothing.
    pub fn open(disk: Arc<dyn Disk>, volume: &str) -> Result<(Self, Overlays, State)> {
        let state = State::read(&*disk, volume)?;
        let mut overlays = Vec::new();
        for &number in &state.overlays {
            let id = OverlayId { volume: state.volume, number };
            overlays.push(Arc::new(Overlay::open(disk.clone(), volume, id)?));
        }
        // The last one that was used goes on taking writes; those after it are for later.
        let active = overlays.iter().rposition(|overlay| !overlay.is_unused()).unwrap_or(0);
        let spares = overlays.split_off(active + 1).into();
        let frozen: Vec<_> = overlays.drain(..active).rev().collect();
        let overlays = Overlays { active: overlays.remove(0), frozen };
        let keeper = Self {
            volume: volume.to_owned(),
            disk,
            state: Mutex::new(state.clone()),
            spares: Mutex::new(spares),
        };
        keeper.remove_strays(&state);
        Ok((keeper, overlays, state))
    }

    /// The base that the state names.
    pub fn base(&self) -> Option<ManifestId> {
        lock(&self.state).base
    }

    /// An empty overlay above all others. Without I/O as long as [`Keeper::make_spares`] was called
    /// since the last time.
    pub fn take_spare(&self) -> Result<Arc<Overlay>> {
        loop {
            if let Some(spare) = lock(&self.spares).pop_front() {
                return Ok(spare);
            }
            self.make_spares(1)?;
        }
    }

    /// Makes sure that there are `count` overlays for the next freezes.
    pub fn make_spares(&self, count: usize) -> Result<()> {
        let mut state = lock(&self.state);
        let missing = count.saturating_sub(lock(&self.spares).len());
        if missing == 0 {
            return Ok(());
        }
        let mut next = state.clone();
        let mut made = Vec::new();
        for _ in 0..missing {
            if next.overlays.len() == OVERLAYS_MAX {
                let (volume, count) = (self.volume.clone(), OVERLAYS_MAX);
                return Err(VolumeError::TooManyOverlays { volume, count });
            }
            let id = OverlayId { volume: state.volume, number: next.next_overlay };
            made.push(Arc::new(Overlay::create(self.disk.clone(), &self.volume, id)?));
            next.overlays.push(id.number);
            next.next_overlay += 1;
        }
        self.disk
            .sync_dir()
            .map_err(|error| VolumeError::io(&self.volume, "making an overlay", error))?;
        next.write(&*self.disk, &self.volume)?;
        *state = next;
        lock(&self.spares).extend(made);
        Ok(())
    }

    /// Names a new base and no longer the overlays that are part of it.
    pub fn replace_base(&self, base: ManifestId, merged: &[u64]) -> Result<()> {
        let mut state = lock(&self.state);
        let mut next = state.clone();
        next.base = Some(base);
        next.overlays.retain(|number| !merged.contains(number));
        next.write(&*self.disk, &self.volume)?;
        *state = next;
        Ok(())
    }

    /// Gives the data file of an overlay that the state no longer names to the host's cache, and
    /// removes the rest. What fails is removed when the volume is next opened.
    pub fn give_overlay(&self, overlay: &Overlay, cache: &Cache) {
        let data = data_name(overlay.number());
        let bytes = overlay.stats().file_bytes;
        cache.take_segment(overlay.segment(), bytes, |path| self.disk.give(&data, path));
        let _ = self.disk.remove(&data);
        let _ = self.disk.remove(&journal_name(overlay.number()));
    }

    fn remove_strays(&self, state: &State) {
        for name in self.disk.list().unwrap_or_default() {
            let number = name
                .strip_suffix(".data")
                .or_else(|| name.strip_suffix(".journal"))
                .and_then(|number| number.parse::<u64>().ok());
            let stray = match number {
                Some(number) => !state.overlays.contains(&number),
                None => name == STATE_NEW_NAME || name.ends_with(".journal.new"),
            };
            if stray {
                let _ = self.disk.remove(&name);
            }
        }
    }
}
