//! A volume as a file.

use std::io;
use std::sync::Arc;

use ::volume::{Volume, VolumeError};

use crate::{ExportFile, PAGE};

/// A volume behind a file of an export.
///
/// Waits where a guest has to wait (a repository that is away) and nowhere else: a full disk is an
/// error, which the export holds or passes on as its client needs. [`Volume::cancel`] ends all
/// waiting with an error.
#[derive(Clone)]
pub struct VolumeFile(Arc<Volume>);

impl VolumeFile {
    pub fn new(volume: Arc<Volume>) -> VolumeFile {
        VolumeFile(volume)
    }
}

impl ExportFile for VolumeFile {
    fn size_bytes(&self) -> u64 {
        self.0.size_bytes()
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        self.0.read_at_until(offset, buf).map_err(io_error)
    }

    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        loop {
            match self.0.write_at(offset, bytes) {
                // Part of a page was written and the rest of it is not on this host: wait until it
                // is, then write again.
                Err(VolumeError::Fetch { page, .. } | VolumeError::Index { page, .. }) => {
                    let mut old = vec![0; PAGE as usize];
                    self.0.read_at_until(page * PAGE, &mut old).map_err(io_error)?;
                }
                result => return result.map_err(io_error),
            }
        }
    }

    fn flush(&self) -> io::Result<()> {
        self.0.flush().map_err(io_error)
    }

    fn discard(&self, offset: u64, len: u64) -> io::Result<()> {
        self.0.discard_until(offset, len).map_err(io_error)
    }

    fn is_local(&self, offset: u64, len: u64) -> bool {
        self.0.is_local(offset, len)
    }

    fn try_read_local(&self, offset: u64, buf: &mut [u8]) -> io::Result<bool> {
        self.0.try_read_local(offset, buf).map_err(io_error)
    }
}

fn io_error(error: VolumeError) -> io::Error {
    let kind = match &error {
        VolumeError::NoSpace { .. } => io::ErrorKind::StorageFull,
        VolumeError::Cancelled { .. } => io::ErrorKind::Interrupted,
        _ => io::ErrorKind::Other,
    };
    io::Error::new(kind, error)
}
