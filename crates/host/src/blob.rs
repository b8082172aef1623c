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
    let path = folder.join(ChunkId::from_bytes(blob.blake3).to_string());
    if is_whole(&path, blob) {
        return Ok(path);
    }
    let tag = u64::from_le_bytes(ambient::random());
    let temporary = folder.join(format!(".{tag:016x}"));
    let written =
        write(&temporary, blob, fetcher).and_then(|()| Ok(fs::rename(&temporary, &path)?));
    if written.is_err() {
        let _ = fs::remove_file(&temporary);
    }
    written.map(|()| path)
}

/// Writes the blob into a new file that everyone who reaches it may read.
pub fn write(path: &Path, blob: &Blob, fetcher: &Fetcher) -> Result<()> {
    let bytes = repository::read_blob(fetcher, &blob.id)?;
    if bytes.len() as u64 != blob.bytes || *blake3::hash(&bytes).as_bytes() != blob.blake3 {
        return Err(Failure::new(
            "damaged",
            format!("file {} is not what its record says", blob.id.short()),
            "`collective repo check --read-data` looks for what is damaged",
        ));
    }
    let _ = fs::remove_file(path);
    let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(0o444).open(path)?;
    file.write_all(&bytes)?;
    Ok(())
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
