//! `diff A B`, `inspect NAME --drift`: what two computers at rest differ in, seen from outside.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use api::{DiffPrint, FilePrint, PackagePrint};
use files::{FileKind, FileStat, FileSystem};
use manifest::{Manifest, NodeCache};
use model::{CheckpointId, DiskRole, ManifestId, Name};
use volume::{Fetcher, View};

use super::Reference;
use super::update::{missing, wire_bytes};
use crate::Host;
use crate::failure::{Failure, Result};
use crate::inside::{self, Bytes, Subject};
use crate::makers;
use crate::record::{Head, Version};
use crate::store::Store;

/// Entries that are compared on one disk, at most, and how deep.
const ENTRIES_MAX: usize = 1 << 20;
const DEPTH_MAX: usize = 64;
/// Bytes that are compared at once.
const READ: usize = 1 << 20;
/// Nodes that are kept while two manifests are compared.
const NODES_KEPT: usize = 512;

/// A computer at rest.
struct Side {
    /// As it was named.
    name: String,
    version: Version,
    disks: Vec<ManifestId>,
}

impl Host {
    /// What differs between two appliances, versions, instances or checkpoints. With `files`, also which
    /// files on their system disks: that reads the disks.
    pub fn diff(
        &self,
        from: &str,
        to: &str,
        files: bool,
        progress: &mut dyn FnMut(&str),
    ) -> Result<DiffPrint> {
        let store = self.store()?;
        let (from, to) = (self.side(&store, from)?, self.side(&store, to)?);
        let fetcher = self.fetcher(&store)?;
        let lacks = missing(&fetcher, &from.version, &to.version)?;
        let mut print = DiffPrint {
            from: format!("{} {}", from.name, from.version.version),
            to: format!("{} {}", to.name, to.version.version),
            packages: packages(&from.version.packages, &to.version.packages),
            files: None,
            changed_bytes: changed_bytes(&fetcher, &from, &to)?,
            fetch_bytes: wire_bytes(&store, &lacks),
        };
        if files {
            print.files = Some(changed_files(&fetcher, &from, &to, progress)?);
        }
        Ok(print)
    }

    /// What on the system disks of an instance is not as its maker shipped it, at its last checkpoint.
    pub fn drift(&self, name: &Name, progress: &mut dyn FnMut(&str)) -> Result<Vec<FilePrint>> {
        let store = self.store()?;
        let Some((_, head)) = store.head(name)?.head else {
            return Err(crate::shim::claim::not_found(name));
        };
        let is = side_of(&store, name.as_str(), &head, head.checkpoint)?;
        let shipped = Side {
            name: name.to_string(),
            disks: is.version.disks.clone(),
            version: is.version.clone(),
        };
        changed_files(&self.fetcher(&store)?, &shipped, &is, progress)
    }

    /// What a person named: an instance, a checkpoint of one, or an appliance.
    fn side(&self, store: &Store, text: &str) -> Result<Side> {
        if let Ok(subject) = Subject::parse(text)
            && let Some((_, head)) = store.head(&subject.name)?.head
        {
            let checkpoint = match &subject.checkpoint {
                Some(wanted) => Some(store.find_checkpoint(&head, wanted)?),
                None => head.checkpoint,
            };
            return side_of(store, text, &head, checkpoint);
        }
        let reference = Reference::parse(text)?;
        let id = match makers::of(&self.dir, &reference.name)? {
            Some(maker) => {
                store.know(&maker.location);
                self.signed_release(&maker, &reference)?.version_id()?
            }
            None => store.appliance(&reference.name)?.ok_or_else(|| {
                Failure::new(
                    "not_found",
                    format!("there is no instance and no appliance {text}"),
                    "`collective ps`, `appliances` and `catalog` list them; for example: collective \
                     diff acme/web@1.0 acme/web:stable",
                )
            })?,
        };
        let version = store.version(id)?;
        Ok(Side { name: text.to_owned(), disks: version.disks.clone(), version })
    }
}

fn side_of(
    store: &Store,
    name: &str,
    head: &Head,
    checkpoint: Option<CheckpointId>,
) -> Result<Side> {
    let checkpoint = checkpoint.map(|id| store.checkpoint(id)).transpose()?;
    let version = store.version(checkpoint.as_ref().map_or(head.version, |c| c.version))?;
    let disks = match checkpoint {
        Some(checkpoint) => checkpoint.disks,
        None => version.first_disks(head.warm).to_vec(),
    };
    Ok(Side { name: name.to_owned(), version, disks })
}

/// Packages that are not in both with the same version, by name.
fn packages(from: &[(String, String)], to: &[(String, String)]) -> Vec<PackagePrint> {
    let listed = |all: &[(String, String)]| all.iter().cloned().collect::<BTreeMap<_, _>>();
    let (from, to) = (listed(from), listed(to));
    let names: BTreeSet<&String> = from.keys().chain(to.keys()).collect();
    let differ = names.into_iter().filter(|name| from.get(*name) != to.get(*name));
    differ
        .map(|name| PackagePrint {
            name: name.clone(),
            from: from.get(name).cloned(),
            to: to.get(name).cloned(),
        })
        .collect()
}

/// The disks that are the maker's in both, by name.
fn system_disks<'a>(from: &'a Side, to: &'a Side) -> Vec<(&'a str, ManifestId, ManifestId)> {
    let of = |side: &'a Side| {
        let disks = side.version.hardware.disks.iter().zip(&side.disks);
        disks.filter(|(spec, _)| spec.role == DiskRole::System && spec.is_disk())
    };
    let pairs = of(to).filter_map(|(spec, theirs)| {
        let (_, mine) = of(from).find(|(other, _)| other.name == spec.name)?;
        Some((spec.name.as_str(), *mine, *theirs))
    });
    pairs.collect()
}

fn changed_bytes(fetcher: &Arc<Fetcher>, from: &Side, to: &Side) -> Result<u64> {
    let nodes = NodeCache::new(fetcher.clone(), NODES_KEPT);
    let mut pages = 0;
    for (_, mine, theirs) in system_disks(from, to) {
        let (mine, theirs) = (Manifest::open(mine, fetcher)?, Manifest::open(theirs, fetcher)?);
        Manifest::diff(&mine, &theirs, &nodes, &mut |_, _, _| pages += 1)?;
    }
    Ok(pages * model::PAGE_BYTES as u64)
}

fn changed_files(
    fetcher: &Arc<Fetcher>,
    from: &Side,
    to: &Side,
    progress: &mut dyn FnMut(&str),
) -> Result<Vec<FilePrint>> {
    let mut changes = Vec::new();
    for (disk, mine, theirs) in system_disks(from, to) {
        if mine == theirs {
            continue;
        }
        progress(&format!("reading disk {disk}"));
        let (mine, theirs) = (systems(disk, mine, fetcher)?, systems(disk, theirs, fetcher)?);
        let parts: BTreeSet<&String> = mine.keys().chain(theirs.keys()).collect();
        if parts.is_empty() {
            let change = "changed: no file system on it that is known".to_owned();
            changes.push(FilePrint { disk: disk.to_owned(), path: String::new(), change });
        }
        for part in parts {
            compare(disk, mine.get(part), theirs.get(part), &mut changes, progress)?;
        }
    }
    Ok(changes)
}

/// The file systems of a disk, by the name of their part.
fn systems(
    disk: &str,
    manifest: ManifestId,
    fetcher: &Arc<Fetcher>,
) -> Result<BTreeMap<String, FileSystem>> {
    let view = Arc::new(View::open(disk, manifest, fetcher.clone())?);
    let bytes: Arc<dyn files::Disk> = Arc::new(Bytes(view));
    let mut systems = BTreeMap::new();
    for part in files::parts(&*bytes).map_err(|error| inside::failure(disk, error))? {
        match FileSystem::open(bytes.clone(), &part) {
            Ok(system) => drop(systems.insert(part.name(), system)),
            Err(files::FilesError::Unknown { .. }) => {}
            Err(error) => return Err(inside::failure(disk, error)),
        }
    }
    Ok(systems)
}

fn compare(
    disk: &str,
    mine: Option<&FileSystem>,
    theirs: Option<&FileSystem>,
    changes: &mut Vec<FilePrint>,
    progress: &mut dyn FnMut(&str),
) -> Result<()> {
    let mut lost = None;
    let mut list = |system: Option<&FileSystem>| -> BTreeMap<Vec<u8>, FileStat> {
        let Some(system) = system else { return BTreeMap::new() };
        inside::walk(system, ENTRIES_MAX, DEPTH_MAX, &mut |error| {
            lost.get_or_insert_with(|| error.to_string());
        })
        .into_iter()
        .collect()
    };
    let (before, now) = (list(mine), list(theirs));
    if let Some(lost) = lost {
        let hint = "checkpoint it again when it is quiet, or `collective mount` it and use fsck";
        return Err(Failure::new("damaged", format!("disk {disk}: {lost}"), hint));
    }
    let paths: BTreeSet<&Vec<u8>> = before.keys().chain(now.keys()).collect();
    for (number, path) in paths.iter().enumerate() {
        if number % 1024 == 0 {
            progress(&format!("comparing disk {disk}: {number} of {} paths", paths.len()));
        }
        let change = match (before.get(*path), now.get(*path)) {
            (None, _) => "added",
            (_, None) => "removed",
            (Some(before), Some(now)) if before.kind != now.kind => "changed",
            (Some(before), Some(now)) => {
                let rights = |stat: &FileStat| (stat.mode, stat.uid, stat.gid);
                let other_size =
                    before.kind == FileKind::File && before.size_bytes != now.size_bytes;
                let same = || same_content(path, now, mine, theirs);
                if other_size || !same().map_err(|error| inside::failure(disk, error))? {
                    "changed"
                } else if rights(before) != rights(now) {
                    "rights"
                } else {
                    continue;
                }
            }
        };
        changes.push(FilePrint {
            disk: disk.to_owned(),
            path: String::from_utf8_lossy(path).into_owned(),
            change: change.to_owned(),
        });
    }
    Ok(())
}

fn same_content(
    path: &[u8],
    stat: &FileStat,
    mine: Option<&FileSystem>,
    theirs: Option<&FileSystem>,
) -> files::Result<bool> {
    let (Some(mine), Some(theirs)) = (mine, theirs) else { return Ok(true) };
    match stat.kind {
        FileKind::Link => Ok(mine.link(path)? == theirs.link(path)?),
        FileKind::File => {
            let mut offset = 0;
            while offset < stat.size_bytes {
                if mine.read(path, offset, READ)? != theirs.read(path, offset, READ)? {
                    return Ok(false);
                }
                offset += READ as u64;
            }
            Ok(true)
        }
        FileKind::Directory | FileKind::Special => Ok(true),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packages_that_came_went_or_changed_are_named() {
        let of = |all: &[(&str, &str)]| -> Vec<(String, String)> {
            all.iter().map(|(name, number)| ((*name).to_owned(), (*number).to_owned())).collect()
        };
        let from = of(&[("bash", "5.2"), ("less", "590"), ("vim", "9.0")]);
        let to = of(&[("bash", "5.3"), ("less", "590"), ("nano", "7.2")]);
        let said: Vec<_> =
            packages(&from, &to).into_iter().map(|p| (p.name, p.from, p.to)).collect();
        let some = |text: &str| Some(text.to_owned());
        assert_eq!(
            said,
            [
                ("bash".to_owned(), some("5.2"), some("5.3")),
                ("nano".to_owned(), None, some("7.2")),
                ("vim".to_owned(), some("9.0"), None),
            ]
        );
    }
}
