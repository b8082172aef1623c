//! Waiting for the repository: a guest is never fed garbage, and goes on when the page can be had.

use std::sync::Arc;

use ambient::{Duration, Instant};

use crate::error::{Result, VolumeError};
use crate::volume::Volume;

/// The first wait; each next one is twice as long.
const WAIT_MIN: Duration = Duration::from_millis(20);
/// The longest wait.
const WAIT_MAX: Duration = Duration::from_secs(2);
/// How often a waiter looks whether the volume was cancelled.
const CANCEL_POLL: Duration = Duration::from_millis(50);

/// A read (or a write that needs an old page) that has to wait.
#[derive(Debug, Clone, Copy)]
pub struct Stall<'a> {
    /// The volume's name.
    pub volume: &'a str,
    /// The page, where the error knows it.
    pub page: Option<u64>,
    /// Why the last attempt failed.
    pub error: &'a VolumeError,
    /// When the first attempt failed.
    pub first_seen: Instant,
    /// How many have failed.
    pub attempts: u32,
}

/// Who is told about waiting. Called from the thread that waits: return soon.
pub trait StallObserver: Send + Sync {
    /// An attempt failed, the next one comes.
    fn stalled(&self, stall: &Stall<'_>);
    /// What had stalled went on after so long.
    fn resumed(&self, volume: &str, waited: Duration);
}

impl Volume {
    /// As [`Volume::read_at`], but what goes wrong (a repository that does not answer, a chunk that
    /// is missing or damaged there, a full disk, a page that is damaged on this host) is told to
    /// the observer and tried again until it succeeds or the volume is cancelled. Damage may be
    /// mended from elsewhere, and while it is not, a guest that waits loses less than one that is
    /// told of an I/O error. Only what the caller did wrong is an error at once.
    pub fn read_at_until(&self, offset: u64, buf: &mut [u8]) -> Result<()> {
        self.until(|| self.read_at(offset, buf))
    }

    /// As [`Volume::write_at`], waiting like [`Volume::read_at_until`].
    pub fn write_at_until(&self, offset: u64, bytes: &[u8]) -> Result<()> {
        self.until(|| self.write_at(offset, bytes))
    }

    /// As [`Volume::discard`], waiting like [`Volume::read_at_until`].
    pub fn discard_until(&self, offset: u64, len: u64) -> Result<()> {
        self.until(|| self.discard(offset, len))
    }

    fn until(&self, mut attempt: impl FnMut() -> Result<()>) -> Result<()> {
        let mut first_seen = None;
        let mut wait = WAIT_MIN;
        for attempts in 1.. {
            let error = match attempt() {
                Err(error) if !error.is_final() => error,
                done => {
                    if let (Some(observer), Some(since), Ok(())) =
                        (&self.observer, first_seen, &done)
                    {
                        observer.resumed(&self.name, ambient::now().duration_since(since));
                    }
                    return done;
                }
            };
            let first_seen = *first_seen.get_or_insert_with(ambient::now);
            if let Some(observer) = &self.observer {
                let page = error.page();
                let volume = self.name.as_str();
                observer.stalled(&Stall { volume, page, error: &error, first_seen, attempts });
            }
            self.sleep(wait)?;
            wait = (wait * 2).min(WAIT_MAX);
        }
        unreachable!("attempts do not end")
    }

    fn sleep(&self, wait: Duration) -> Result<()> {
        let mut left = wait;
        while !left.is_zero() && !self.cancel.is_cancelled() {
            let nap = left.min(CANCEL_POLL);
            ambient::sleep(nap);
            left -= nap;
        }
        if self.cancel.is_cancelled() {
            return Err(VolumeError::Cancelled { volume: self.name.clone() });
        }
        Ok(())
    }
}

impl<T: StallObserver + ?Sized> StallObserver for Arc<T> {
    fn stalled(&self, stall: &Stall<'_>) {
        (**self).stalled(stall);
    }

    fn resumed(&self, volume: &str, waited: Duration) {
        (**self).resumed(volume, waited);
    }
}
