//! Files kept whole in the repository (kernels, initrds, device states) become files again.

use std::fs;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use model::ChunkId;
use volume::Fetcher;

use crate::failure::{Failure, Result};
use crate::record::Blob;

/// The blob as a file of the host's cache, verified; fetched when it is not there.
pub fn materialise(folder: &Path, blob: &Blob, fetcher: &Fetcher) -> Result<PathBuf> {
    let path = kept(folder, blob);
    if !is_kept(folder, blob) {
        keep(folder, blob, &repository::read_blob(fetcher, &blob.id)?)?;
    }
    Ok(path)
}

/// Where the blob is in the host's cache, if it is.
pub fn kept(folder: &Path, blob: &Blob) -> PathBuf {
    folder.join(ChunkId::from_bytes(blob.blake3).to_string())
}

/// Whether the host's cache has all of the blob. Reads and hashes it.
pub fn is_kept(folder: &Path, blob: &Blob) -> bool {
    is_whole(&kept(folder, blob), blob)
}

/// Puts the blob's bytes into the host's cache.
pub fn keep(folder: &Path, blob: &Blob, bytes: &[u8]) -> Result<()> {
    let tag = u64::from_le_bytes(ambient::random());
    let temporary = folder.join(format!(".{tag:016x}"));
    let written = write_bytes(&temporary, blob, bytes)
        .and_then(|()| Ok(fs::rename(&temporary, kept(folder, blob))?));
    if written.is_err() {
        let _ = fs::remove_file(&temporary);
    }
    written
}

/// Writes the blob into a new file that everyone who reaches it may read.
pub fn write(path: &Path, blob: &Blob, fetcher: &Fetcher) -> Result<()> {
    write_bytes(path, blob, &repository::read_blob(fetcher, &blob.id)?)
}

fn write_bytes(path: &Path, blob: &Blob, bytes: &[u8]) -> Result<()> {
    if bytes.len() as u64 != blob.bytes || *blake3::hash(bytes).as_bytes() != blob.blake3 {
        return Err(damaged(blob));
    }
    let _ = fs::remove_file(path);
    let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(0o444).open(path)?;
    file.write_all(bytes)?;
    Ok(())
}

/// It is not what names it says.
pub fn damaged(blob: &Blob) -> Failure {
    Failure::new(
        "damaged",
        format!("file {} is not what its record says", blob.id.short()),
        "`collective repo check --read-data` looks for what is damaged",
    )
}

/// A cached file is believed only after its bytes were hashed: a crash or a bad disk may have
/// changed it.
fn is_whole(path: &Path, blob: &Blob) -> bool {
    let hash = || -> std::io::Result<bool> {
        let file = fs::File::open(path)?;
        if file.metadata()?.len() != blob.bytes {
            return Ok(false);
        }
        let mut hasher = blake3::Hasher::new();
        hasher.update_reader(file)?;
        Ok(*hasher.finalize().as_bytes() == blob.blake3)
    };
    hash().unwrap_or(false)
}
