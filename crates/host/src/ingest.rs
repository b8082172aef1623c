//! Files become volumes: read a page at a time, holes skipped without reading.

use std::fs::File;
use std::io::{ErrorKind, Read, Seek, SeekFrom};
use std::path::Path;

use model::{ChunkId, ManifestId, PAGE_BYTES};
use rustix::fs::SeekFrom as DataSeek;

use crate::failure::{Failure, Result};
use crate::record::Blob;
use crate::store::Session;

/// Bytes read at once.
const READ_BYTES: usize = 1 << 20;

/// Largest file that is kept whole, bytes: kernels, initrds, device states.
const BLOB_BYTES_MAX: u64 = 1 << 30;

/// Stores a whole file.
pub fn file(session: &mut Session, path: &Path) -> Result<Blob> {
    let input = File::open(path).map_err(|e| during(e.into(), path))?;
    let mut bytes = Vec::new();
    input.take(BLOB_BYTES_MAX + 1).read_to_end(&mut bytes).map_err(|e| during(e.into(), path))?;
    if bytes.len() as u64 > BLOB_BYTES_MAX {
        return Err(Failure::new("build", format!("{} is larger than 1 GiB", path.display()), ""));
    }
    session.put_blob(&bytes).map_err(|f| during(f, path))
}

/// Stores a disk image as a volume of `size_bytes`; without an image it is empty.
pub fn disk(session: &mut Session, image: Option<&Path>, size_bytes: u64) -> Result<ManifestId> {
    let Some(path) = image else {
        return session.put_pages(size_bytes, &mut std::iter::empty());
    };
    let input = File::open(path).map_err(|e| during(e.into(), path))?;
    content(session, input, size_bytes).map_err(|f| during(f, path))
}

/// Stores what an open file holds as a volume of `size_bytes`.
pub fn content(session: &mut Session, input: File, size_bytes: u64) -> Result<ManifestId> {
    let bytes = input.metadata()?.len();
    if bytes > size_bytes {
        return Err(Failure::new(
            "build",
            format!("the file has {bytes} bytes, its disk only {size_bytes}"),
            "give the disk a larger size",
        ));
    }
    pages(session, input, size_bytes)
}

/// Stores some bytes as a volume of whole pages.
pub fn bytes(session: &mut Session, content: &[u8]) -> Result<ManifestId> {
    let mut changes = Vec::new();
    for (number, piece) in content.chunks(PAGE_BYTES).enumerate() {
        let mut page = piece.to_vec();
        page.resize(PAGE_BYTES, 0);
        if !chunk::is_zero(&page) {
            changes.push((number as u64, Some(session.put_page(&page)?)));
        }
    }
    let size_bytes = (content.len() as u64).next_multiple_of(PAGE_BYTES as u64);
    session.put_pages(size_bytes, &mut changes.into_iter())
}

fn during(failure: Failure, path: &Path) -> Failure {
    failure.during(format!("storing {}", path.display()))
}

fn pages(session: &mut Session, mut input: File, size_bytes: u64) -> Result<ManifestId> {
    let mut changes: Vec<(u64, Option<ChunkId>)> = Vec::new();
    let mut buffer = vec![0; READ_BYTES];
    let mut offset = 0;
    while let Some(data) = next_data(&input, offset)? {
        offset = data / PAGE_BYTES as u64 * PAGE_BYTES as u64;
        input.seek(SeekFrom::Start(offset))?;
        let filled = read_full(&mut input, &mut buffer)?;
        if filled == 0 {
            break;
        }
        buffer[filled..].fill(0);
        for page in buffer[..filled.next_multiple_of(PAGE_BYTES)].chunks_exact(PAGE_BYTES) {
            if !chunk::is_zero(page) {
                changes.push((offset / PAGE_BYTES as u64, Some(session.put_page(page)?)));
            }
            offset += PAGE_BYTES as u64;
        }
    }
    session.put_pages(size_bytes, &mut changes.into_iter())
}

/// Where data begins at or after `offset`; none when there is none.
pub(crate) fn next_data(file: &File, offset: u64) -> Result<Option<u64>> {
    match rustix::fs::seek(file, DataSeek::Data(offset)) {
        Ok(position) => Ok(Some(position)),
        Err(rustix::io::Errno::NXIO) => Ok(None),
        // A file system that knows no holes: everything is data.
        Err(rustix::io::Errno::INVAL | rustix::io::Errno::OPNOTSUPP) => {
            Ok((offset < file.metadata()?.len()).then_some(offset))
        }
        Err(error) => Err(std::io::Error::from(error).into()),
    }
}

fn read_full(input: &mut File, buffer: &mut [u8]) -> std::io::Result<usize> {
    let mut filled = 0;
    while filled < buffer.len() {
        match input.read(&mut buffer[filled..]) {
            Ok(0) => break,
            Ok(count) => filled += count,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}
