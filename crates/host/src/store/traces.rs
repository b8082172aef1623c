//! Traces in the repository: what starts of a version touched, under a ref of kind `trace`. (What
//! an instance touched is in its checkpoints.)
//!
//! *Invariants.* A trace is a hint: whoever cannot read one starts without it, and whoever cannot
//! store one does not. Two that store at once: one is fenced, and its start is not learned from.

use std::sync::Arc;

use chunk::{ChunkSource, Urgency, id_of};
use model::{ChunkId, Generation, ManifestId, VersionId};
use repository::{RefPayload, RefValue, Repository, Target};
use volume::{Fetcher, Trace, View};

use super::{Advance, Session, Store, damaged};
use crate::failure::Result;
use crate::record::{How, Version};
use crate::shim::volumes::RAM;

const TRACE: &str = "trace";

/// A version's trace, and the generation of its ref.
#[derive(Default)]
pub struct VersionTrace {
    generation: Generation,
    pub trace: Option<Trace>,
}

impl Store {
    /// Reads a trace through `source`, which may be the host's cache.
    pub fn trace(source: &dyn ChunkSource, id: ChunkId) -> Result<Trace> {
        let chunks = source.fetch(&id, Urgency::Background).map_err(|e| damaged("trace", e))?;
        let chunk = chunks.first().ok_or_else(|| damaged("trace", "no answer"))?;
        Trace::decode(chunk).map_err(|e| damaged("trace", e))
    }

    /// What starts of a version touched.
    pub fn version_trace(
        &self,
        source: &dyn ChunkSource,
        version: VersionId,
        how: How,
    ) -> Result<VersionTrace> {
        let refs = self.repository.refs();
        let name = trace_name(version, how);
        // One that cannot be read is as good as none, and is replaced.
        let read = |value: &RefValue| {
            let root = value.roots.first().map(Target::chunk);
            root.and_then(|id| Self::trace(source, id).ok())
        };
        if let Some(value) = refs.read(TRACE, &name)? {
            return Ok(VersionTrace { generation: value.generation, trace: read(&value) });
        }
        let generation = refs.current(TRACE, &name)?.unwrap_or_default();
        // Until starts have been seen here, what is known where the version comes from.
        let of_source = |source: &Repository| source.refs().read(TRACE, &name).ok().flatten();
        let trace = self.sources.iter().find_map(of_source).and_then(|value| read(&value));
        Ok(VersionTrace { generation, trace })
    }

    /// The chunk with what starts of a version touched, as this repository has it.
    pub fn trace_id(&self, version: VersionId, how: How) -> Result<Option<ChunkId>> {
        let value = self.repository.refs().read(TRACE, &trace_name(version, how))?;
        Ok(value.and_then(|value| value.roots.first().map(Target::chunk)))
    }

    /// Takes a trace that came with a version, where nothing was learned here yet.
    pub fn take_trace(&self, version: VersionId, how: How, id: ChunkId) -> Result<()> {
        let name = trace_name(version, how);
        if self.repository.refs().current(TRACE, &name)?.is_some() {
            return Ok(());
        }
        let trace = Self::trace(&*self.source(), id)?;
        let none = VersionTrace::default();
        self.set_version_trace(version, how, &none, &trace).map(drop)
    }

    /// Replaces what was read.
    pub fn set_version_trace(
        &self,
        version: VersionId,
        how: How,
        read: &VersionTrace,
        trace: &Trace,
    ) -> Result<Advance> {
        let mut session = self.session()?;
        let id = session.put_trace(trace)?;
        session.finish()?;
        let payload = RefPayload { roots: vec![Target::Chunk(id)], body: Vec::new() };
        self.advance_ref(TRACE, &trace_name(version, how), read.generation, payload)
    }

    /// Removes the traces of versions that nothing can be started from any more.
    pub fn drop_traces(&self) -> Result<u64> {
        let refs = self.repository.refs();
        // Traces first: what a trace is of was named before, and if it still is, it is listed now.
        let traces = refs.list(TRACE)?;
        let mut versions: Vec<VersionId> =
            self.appliances()?.into_iter().map(|(_, version)| version).collect();
        versions.extend(self.heads()?.into_iter().map(|(_, head)| head.version));
        versions.extend(self.branch_versions()?);
        let mut dropped = 0;
        for entry in traces {
            let of = entry.name.split_once('.').and_then(|(version, _)| version.parse().ok());
            if !of.is_some_and(|version| versions.contains(&version)) {
                // Fenced: somebody has just learned something; the next gc will see.
                dropped +=
                    u64::from(refs.remove(TRACE, &entry.name, entry.value.generation).is_ok());
            }
        }
        Ok(dropped)
    }
}

/// The pages that starts of a version touch, in their order: from its memory, then booted. What
/// cannot be read is left out.
pub fn touched(
    fetcher: &Arc<Fetcher>,
    version: &Version,
    traces: [Option<ChunkId>; 2],
) -> Vec<ChunkId> {
    let [booted, continued] = traces;
    let disks = |manifests: &[ManifestId]| {
        let names = version.hardware.disks.iter().map(|disk| disk.name.clone());
        std::iter::zip(names, manifests.to_vec()).collect::<Vec<_>>()
    };
    let of_memory = version.warm.as_ref().map(|warm| {
        let mut volumes = disks(&warm.disks);
        volumes.push((RAM.to_owned(), warm.memory.ram));
        volumes
    });
    let starts = [(continued, of_memory.unwrap_or_default()), (booted, disks(&version.disks))];
    let mut pages = Vec::new();
    for (trace, volumes) in starts {
        let Some(trace) = trace.and_then(|id| Store::trace(&**fetcher, id).ok()) else { continue };
        let open = |(name, manifest)| View::open(name, manifest, fetcher.clone()).ok();
        let of = |name: &String| volumes.iter().find(|(known, _)| known == name);
        let views = trace
            .volumes()
            .iter()
            .map(|name| of(name).and_then(|(name, manifest)| open((name.as_str(), *manifest))));
        let views: Vec<_> = views.collect();
        for run in trace.runs() {
            let Some(view) = &views[usize::from(run.volume)] else { continue };
            pages.extend(view.ids(run.first, run.count).unwrap_or_default().into_iter().flatten());
        }
    }
    pages
}

impl Session {
    /// Stores a trace.
    pub fn put_trace(&mut self, trace: &Trace) -> Result<ChunkId> {
        let bytes = trace.encode();
        let id = id_of(&bytes);
        self.sink().put(id, &bytes)?;
        Ok(id)
    }
}

fn trace_name(version: VersionId, how: How) -> String {
    format!("{version}.{}", how.as_str())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::HostDir;
    use crate::record::Version;
    use crate::store::KeyPlace;
    use model::{Boot, BootKind, Hardware, Name, Profile, Ready};
    use std::time::Duration;

    fn version(number: &str) -> Version {
        Version {
            appliance: Name::appliance("tiny").unwrap(),
            version: number.to_owned(),
            description: String::new(),
            hardware: Hardware {
                profile: Profile::Light,
                cpus: 1,
                memory_bytes: 128 << 20,
                boot: Boot { kind: BootKind::Bios, cmdline: String::new(), secure_boot: false },
                disks: Vec::new(),
                nics: Vec::new(),
                display: None,
            },
            ready: Ready::Started,
            kernel: None,
            initrd: None,
            firmware: None,
            disks: Vec::new(),
            packages: Vec::new(),
            packages_of: None,
            properties: Vec::new(),
            vendor_data: None,
            auto: None,
            warm: None,
        }
    }

    fn put(store: &Store, number: &str) -> VersionId {
        let mut session = store.session().unwrap();
        let id = session.put_version(&version(number)).unwrap();
        session.finish().unwrap();
        store.set_appliance(&Name::appliance("tiny").unwrap(), id).unwrap();
        id
    }

    fn trace(pages: std::ops::Range<u64>) -> Trace {
        Trace::of(vec!["ram".to_owned()], pages.map(|page| (0, page)))
    }

    /// A repository with a grace age of a millisecond, opened by two hosts.
    fn two_hosts(folder: &std::path::Path) -> (Store, Store) {
        let host = HostDir::open(&folder.join("host")).unwrap();
        let location = folder.join("repository").to_string_lossy().into_owned();
        let grace = Some(Duration::from_millis(1));
        Store::init(&host, &location, KeyPlace::Repository, grace).unwrap();
        (Store::open(&host, &location).unwrap(), Store::open(&host, &location).unwrap())
    }

    #[test]
    fn of_two_hosts_that_learn_at_once_one_is_heard() {
        let folder = tempfile::tempdir().unwrap();
        let (one, other) = two_hosts(folder.path());
        let id = put(&one, "1");
        let read = |store: &Store, how| store.version_trace(&*store.source(), id, how).unwrap();
        let (first, second) = (read(&one, How::Booted), read(&other, How::Booted));
        assert!(first.trace.is_none() && second.trace.is_none());
        let set = |store: &Store, read, pages| {
            store.set_version_trace(id, How::Booted, read, &trace(pages)).unwrap()
        };
        assert!(matches!(set(&one, &first, 0..9), Advance::Done(_)));
        assert_eq!(set(&other, &second, 5..7), Advance::Fenced);
        let again = read(&other, How::Booted);
        assert_eq!(again.trace, Some(trace(0..9)));
        assert!(matches!(set(&other, &again, 2..4), Advance::Done(_)));
        assert_eq!(read(&one, How::Booted).trace, Some(trace(2..4)));
        assert!(read(&one, How::Continued).trace.is_none(), "of another kind of start");
    }

    #[test]
    fn a_collection_keeps_the_traces_of_what_can_be_started() {
        let folder = tempfile::tempdir().unwrap();
        let (store, _) = two_hosts(folder.path());
        let learn = |id, how, pages| {
            let read = store.version_trace(&*store.source(), id, how).unwrap();
            store.set_version_trace(id, how, &read, &trace(pages)).unwrap();
        };
        let read = |id, how| {
            Store::open(&HostDir::open(&folder.path().join("host")).unwrap(), store.location())
                .and_then(|store| store.version_trace(&*store.source(), id, how))
                .unwrap()
                .trace
        };
        let (old, new) = (put(&store, "1"), put(&store, "2"));
        learn(old, How::Booted, 0..1000);
        learn(new, How::Booted, 0..10);
        learn(new, How::Continued, 5..10);
        // Nothing but the appliance's newest version can be started.
        for _ in 0..3 {
            store.gc().unwrap();
        }
        assert_eq!(read(old, How::Booted), None);
        assert_eq!(read(new, How::Booted), Some(trace(0..10)));
        assert_eq!(read(new, How::Continued), Some(trace(5..10)));
        assert_eq!(store.drop_traces().unwrap(), 0);
        assert!(store.check(true, &mut |_| ()).unwrap().ok);
        // It may be the newest again.
        put(&store, "1");
        learn(old, How::Booted, 3..4);
        assert_eq!(read(old, How::Booted), Some(trace(3..4)));
        assert_eq!(store.drop_traces().unwrap(), 2);
        assert_eq!(read(new, How::Booted), None);
    }

    #[test]
    fn a_trace_that_cannot_be_read_is_as_good_as_none() {
        let folder = tempfile::tempdir().unwrap();
        let (store, _) = two_hosts(folder.path());
        let id = put(&store, "1");
        let mut session = store.session().unwrap();
        let noise = id_of(b"no trace");
        session.sink().put(noise, b"no trace").unwrap();
        session.finish().unwrap();
        assert_eq!(Store::trace(&*store.source(), noise).unwrap_err().kind, "damaged");
        let payload = RefPayload { roots: vec![Target::Chunk(noise)], body: Vec::new() };
        let name = trace_name(id, How::Booted);
        store.advance_ref(TRACE, &name, Generation(0), payload).unwrap();
        let read = store.version_trace(&*store.source(), id, How::Booted).unwrap();
        assert!(read.trace.is_none());
        store.set_version_trace(id, How::Booted, &read, &trace(0..3)).unwrap();
        let read = store.version_trace(&*store.source(), id, How::Booted).unwrap();
        assert_eq!(read.trace, Some(trace(0..3)));
    }
}
