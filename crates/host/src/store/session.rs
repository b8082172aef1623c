//! Sessions that write: into the repository, or into a parcel on this host.

use std::sync::Arc;

use chunk::{ChunkSink, ChunkSource, Put, SinkError, id_of};
use manifest::{Manifest, NodeCache};
use model::{CheckpointId, ChunkId, ManifestId, VersionId};
use repository::{Child, PackWriter, Repository, StoreStats, Target};

use super::Store;
use crate::dir::HostDir;
use crate::failure::{Failure, Result};
use crate::parcel;
use crate::record::{self, Blob, Checkpoint, Version};

/// Decoded manifest nodes kept while a manifest is built.
const NODES_MAX: usize = 256;

/// Where a session's chunks go.
enum Writer {
    Packs(Box<PackWriter>),
    Parcel(parcel::Writer),
}

impl Writer {
    fn sink(&mut self) -> &mut dyn ChunkSink {
        match self {
            Self::Packs(packs) => &mut **packs,
            Self::Parcel(parcel) => parcel,
        }
    }
}

impl ChunkSink for Writer {
    fn put(&mut self, id: ChunkId, bytes: &[u8]) -> Result<Put, SinkError> {
        self.sink().put(id, bytes)
    }
}

/// Writes chunks, manifests and records; nothing of it is visible before a ref names it.
pub struct Session {
    writer: Writer,
    source: Arc<dyn ChunkSource>,
}

impl Session {
    /// A session that stores in another repository what is read from a store.
    pub fn between(from: &Store, to: &Repository) -> Result<Self> {
        Ok(Self { writer: Writer::Packs(Box::new(to.thorough_writer()?)), source: from.source() })
    }

    /// A session that writes while somebody waits.
    pub(super) fn packs(writer: PackWriter, source: Arc<dyn ChunkSource>) -> Self {
        Self { writer: Writer::Packs(Box::new(writer)), source }
    }

    /// A session that writes a parcel, and nothing into the repository.
    pub fn parcel(store: &Store, host: &HostDir) -> Result<Self> {
        let writer = Writer::Parcel(parcel::Writer::create(host)?);
        Ok(Self { writer, source: store.source() })
    }

    /// Copies what these targets need and the session's repository lacks.
    pub fn copy(
        &mut self,
        from: &Repository,
        hints: &repository::CopyHints,
        roots: &[Target],
        progress: &mut dyn FnMut(&repository::Copied),
    ) -> Result<repository::Copied> {
        match &mut self.writer {
            Writer::Packs(packs) => Ok(repository::copy(from, packs, hints, roots, progress)?),
            Writer::Parcel(_) => Err(not_of_a_parcel()),
        }
    }

    /// Where chunks go.
    pub fn sink(&mut self) -> &mut dyn ChunkSink {
        &mut self.writer
    }

    /// Stores a page; gives its id.
    pub fn put_page(&mut self, page: &[u8]) -> Result<ChunkId> {
        let id = id_of(page);
        self.writer.put(id, page)?;
        Ok(id)
    }

    /// Stores the manifest of a volume with these pages, ascending.
    pub fn put_pages(
        &mut self,
        size_bytes: u64,
        pages: &mut dyn Iterator<Item = (u64, Option<ChunkId>)>,
    ) -> Result<ManifestId> {
        let nodes = NodeCache::new(self.source.clone(), NODES_MAX);
        let empty = Manifest::empty(size_bytes)?;
        Ok(empty.update(&nodes, pages, None, &mut self.writer)?.id())
    }

    /// Stores a whole file.
    pub fn put_blob(&mut self, bytes: &[u8]) -> Result<Blob> {
        let id = repository::write_blob(&mut self.writer, bytes)?;
        Ok(Blob { id, bytes: bytes.len() as u64, blake3: *blake3::hash(bytes).as_bytes() })
    }

    /// Stores a version's record.
    pub fn put_version(&mut self, version: &Version) -> Result<VersionId> {
        let mut children = Vec::new();
        for (label, blob) in [
            ("kernel", &version.kernel),
            ("initrd", &version.initrd),
            ("firmware", &version.firmware),
            ("vendor-data", &version.vendor_data),
        ] {
            if let Some(blob) = blob {
                children.push(Child::new(label, Target::Record(blob.id)));
            }
        }
        for (spec, manifest) in version.hardware.disks.iter().zip(&version.disks) {
            children.push(Child::new(&spec.name, Target::Manifest(*manifest)));
        }
        if let Some(warm) = &version.warm {
            children.push(Child::new("warm-ram", Target::Manifest(warm.memory.ram)));
            let state = Target::Record(warm.memory.device_state.id);
            children.push(Child::new("warm-device-state", state));
            for (index, manifest) in warm.disks.iter().enumerate() {
                children
                    .push(Child::new(&format!("warm-disk{index}"), Target::Manifest(*manifest)));
            }
        }
        let body = record::encode_version(version);
        Ok(repository::write_record(&mut self.writer, &children, &body)?.into())
    }

    /// Stores a checkpoint's record.
    pub fn put_checkpoint(&mut self, checkpoint: &Checkpoint) -> Result<CheckpointId> {
        let mut children = vec![Child::new("version", Target::Record(checkpoint.version.into()))];
        if let Some(parent) = checkpoint.parent {
            children.push(Child::new(repository::PARENT, Target::Record(parent.into())));
        }
        if let Some(memory) = &checkpoint.memory {
            children.push(Child::new("ram", Target::Manifest(memory.ram)));
            children.push(Child::new("device-state", Target::Record(memory.device_state.id)));
        }
        let traces = checkpoint.traces;
        for (label, trace) in
            [("trace-booted", traces.booted), ("trace-continued", traces.continued)]
        {
            children.extend(trace.map(|id| Child::new(label, Target::Chunk(id))));
        }
        for (index, manifest) in checkpoint.disks.iter().enumerate() {
            children.push(Child::new(&format!("disk{index}"), Target::Manifest(*manifest)));
        }
        let body = record::encode_checkpoint(checkpoint);
        Ok(repository::write_record(&mut self.writer, &children, &body)?.into())
    }

    /// Bytes that everything put so far adds to the repository.
    pub fn stored_bytes(&mut self) -> Result<u64> {
        match &mut self.writer {
            Writer::Packs(packs) => Ok(packs.packed_bytes()?),
            Writer::Parcel(parcel) => Ok(parcel.bytes()),
        }
    }

    /// Makes everything durable.
    pub fn finish(self) -> Result<StoreStats> {
        match self.writer {
            Writer::Packs(packs) => Ok(packs.finish()?),
            Writer::Parcel(_) => Err(not_of_a_parcel()),
        }
    }

    /// What was written for a parcel, to be closed.
    pub fn into_parcel(self) -> Result<parcel::Writer> {
        match self.writer {
            Writer::Parcel(parcel) => Ok(parcel),
            Writer::Packs(_) => Err(Failure::new("internal", "this session writes no parcel", "")),
        }
    }
}

fn not_of_a_parcel() -> Failure {
    Failure::new("internal", "nothing but a checkpoint goes into a parcel", "")
}
