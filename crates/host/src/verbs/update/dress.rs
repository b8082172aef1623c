//! Another version's system under the user's data.

use std::collections::BTreeMap;

use model::{DiskRole, Media, Name};

use crate::failure::{Failure, Result};
use crate::record::Version;
use crate::verbs::outfit;

/// Whether a version can go under the data of an instance.
pub(super) fn fits(name: &Name, old: &Version, new: &Version) -> Result<()> {
    let refuse = |why: String| {
        Err(Failure::new(
            "state",
            format!("{name} cannot get version {}: {why}", new.version),
            "nothing was changed; its maker has to publish one that keeps the data disks as they are",
        ))
    };
    for disk in old.hardware.disks.iter().filter(|disk| disk.role == DiskRole::Data) {
        let same = new.hardware.disks.iter().find(|other| other.name == disk.name);
        match same {
            Some(other) if other.role != DiskRole::Data => {
                return refuse(format!("there its data disk {} is no data disk", disk.name));
            }
            Some(other) if other.size_bytes != disk.size_bytes => {
                return refuse(format!(
                    "its data disk {} has {}, and there it has {}",
                    disk.name,
                    model::format_bytes(disk.size_bytes),
                    model::format_bytes(other.size_bytes)
                ));
            }
            Some(_) => {}
            None => return refuse(format!("there is no data disk {} in it", disk.name)),
        }
    }
    Ok(())
}

/// Whether this host has what a version needs.
pub(super) fn can_run(new: &Version) -> Result<()> {
    if new.hardware.has_tpm() {
        crate::tpm::program()?;
    }
    Ok(())
}

/// The version as this instance has it, and its disks: the maker's system, the user's data, what the
/// firmware keeps, and the CDs that the instance was given.
pub(super) fn dressed(
    old: &Version,
    now: &[model::ManifestId],
    mut new: Version,
) -> (Version, Vec<model::ManifestId>) {
    let had: BTreeMap<&str, (&model::DiskSpec, model::ManifestId)> = old
        .hardware
        .disks
        .iter()
        .zip(now)
        .map(|(spec, manifest)| (spec.name.as_str(), (spec, *manifest)))
        .collect();
    let mut disks = Vec::new();
    for (spec, theirs) in new.hardware.disks.iter().zip(&new.disks) {
        let mine = had.get(spec.name.as_str()).filter(|(mine, _)| {
            let stays = matches!(spec.role, DiskRole::Data | DiskRole::Firmware);
            stays && mine.role == spec.role && mine.size_bytes == spec.size_bytes
        });
        disks.push(mine.map_or(*theirs, |(_, manifest)| *manifest));
    }
    let given = old.hardware.disks.iter().zip(now).filter(|(spec, _)| {
        spec.media == Media::Cd
            && matches!(spec.name.as_str(), outfit::FORM | outfit::CONFIGURATION)
            && new.hardware.disks.iter().all(|disk| disk.name != spec.name)
    });
    let given: Vec<_> = given.map(|(spec, manifest)| (spec.clone(), *manifest)).collect();
    if !given.is_empty() {
        new.warm = None;
    }
    for (spec, manifest) in given {
        new.hardware.disks.push(spec);
        new.disks.push(manifest);
        disks.push(manifest);
    }
    (new, disks)
}
