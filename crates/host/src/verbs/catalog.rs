//! `catalog`: what makers offer, what it takes to have it, and what they signed about a version.

use std::collections::BTreeSet;

use api::{CatalogPrint, CatalogVersion, ReleasePrint};
use model::{Name, VersionId};
use trust::Trusted;

use super::Reference;
use super::trust::{CHANNEL, not_offered};
use crate::Host;
use crate::failure::{Failure, Result};
use crate::makers::{self, Appliance, Listed, Maker, Release, SBOM_BYTES_MAX};
use crate::store::Store;
use crate::time::rfc3339;

impl Host {
    /// What makers offer: one of them, or all; with `search`, what has these words in its name or
    /// description. The second part says which makers did not answer.
    pub fn catalog(
        &self,
        maker: Option<&str>,
        search: Option<&str>,
    ) -> Result<(Vec<CatalogPrint>, Vec<String>)> {
        let makers = match maker {
            Some(name) => vec![self.maker(name)?],
            None => makers::all(&self.dir)?,
        };
        let (mut rows, mut notes) = (Vec::new(), Vec::new());
        // What instances have is of use, and a repository that does not answer is in nobody's way.
        let store = self.store().ok();
        for maker in makers {
            let trusted = maker.ask_or_kept(&self.dir)?;
            let freshness = trusted.freshness();
            if let Some(why) = &freshness.why {
                let age = rfc3339(freshness.asked_unix_ms);
                notes.push(format!("{}: as of {age}, because {why}", maker.name));
            }
            for document in trusted.names() {
                let Some(name) = document.strip_suffix(".appliance.json") else { continue };
                // One person's signature may have ended, and not the others'.
                let appliance = match Appliance::read(&trusted, name) {
                    Ok(Some(appliance)) => appliance,
                    Ok(None) => continue,
                    Err(failure) if trusted.signed_by(&document).is_some() => {
                        notes.push(format!("{}/{name}: {failure}", maker.name));
                        continue;
                    }
                    Err(failure) => return Err(failure),
                };
                let text = format!("{} {}", appliance.name, appliance.description).to_lowercase();
                if search.is_none_or(|words| text.contains(&words.to_lowercase())) {
                    rows.push(self.catalog_row(store.as_ref(), &maker, &trusted, &appliance));
                }
            }
        }
        Ok((rows, notes))
    }

    fn catalog_row(
        &self,
        store: Option<&Store>,
        maker: &Maker,
        trusted: &Trusted,
        appliance: &Appliance,
    ) -> CatalogPrint {
        let named = format!("{}/{}", maker.name, appliance.name);
        let have = store.map(|store| have(store, &named)).unwrap_or_default();
        let offered: BTreeSet<&String> = appliance.channels.values().map(|c| &c.version).collect();
        let version = |listed: &Listed| {
            // Of the others nothing is read for a list.
            let release = offered
                .contains(&listed.version)
                .then(|| Release::read(trusted, &appliance.name, listed).ok())
                .flatten();
            CatalogVersion {
                version: listed.version.clone(),
                id: listed.id.clone(),
                published: rfc3339(listed.published_unix_ms),
                yanked: listed.yanked.clone(),
                size_bytes: release.as_ref().map(|release| release.content_bytes),
                update_bytes: store.zip(release.as_ref()).and_then(|(store, release)| {
                    let newer = |has: &&VersionId| {
                        appliance.place(**has)
                            < release.version_id().ok().and_then(|id| appliance.place(id))
                    };
                    let sizes = have.iter().filter(newer).map(|has| {
                        self.update_size(store, maker, trusted, release, *has).ok().map(|s| s.fetch)
                    });
                    sizes.collect::<Option<Vec<u64>>>()?.into_iter().max()
                }),
            }
        };
        let versions: Vec<CatalogVersion> = appliance.versions.iter().rev().map(version).collect();
        let first = appliance.channels.get(CHANNEL).or_else(|| appliance.channels.values().next());
        let first = first.and_then(|c| versions.iter().find(|v| v.version == c.version));
        CatalogPrint {
            appliance: named,
            description: appliance.description.clone(),
            licence: appliance.licence.clone(),
            channels: appliance
                .channels
                .iter()
                .map(|(name, channel)| (name.clone(), channel.version.clone()))
                .collect(),
            rollouts: appliance
                .channels
                .iter()
                .filter(|(_, channel)| channel.percent < 100 && !channel.emergency)
                .map(|(name, channel)| (name.clone(), channel.percent))
                .collect(),
            put_off: appliance
                .channels
                .iter()
                .filter(|(_, channel)| {
                    channel.from_unix_ms > ambient::unix_ms() && !channel.emergency
                })
                .map(|(name, channel)| (name.clone(), rfc3339(channel.from_unix_ms)))
                .collect(),
            size_bytes: first.and_then(|version| version.size_bytes),
            update_bytes: first.and_then(|version| version.update_bytes),
            versions,
        }
    }

    /// What a maker signed about a version.
    pub fn release_print(&self, text: &str) -> Result<ReleasePrint> {
        let (maker, trusted, appliance, release) = self.named_release(text)?;
        let listed = appliance.find(&release.version);
        let built = release.built;
        Ok(ReleasePrint {
            appliance: format!("{}/{}", maker.name, appliance.name),
            version: release.version.clone(),
            id: release.id,
            published: rfc3339(release.published_unix_ms),
            yanked: listed.and_then(|listed| listed.yanked.clone()),
            signed_by: trusted.signed_by(&Appliance::document(&appliance.name)),
            root_fingerprint: maker.fingerprint,
            description: appliance.description,
            licence: appliance.licence,
            licence_text: release.licence_text,
            notes: release.notes,
            size_bytes: release.content_bytes,
            packages: release.packages,
            healthy_within_s: release.update.healthy_within_s,
            health: release.update.health,
            migrate: release.update.migrate,
            least: release.update.least,
            published_by: built.by,
            built_by: built.recipe_by,
            recipe: built.recipe,
            recipe_packages: built.packages,
        })
    }

    /// The document with the packages of a version's system disk, as its maker signed it.
    pub fn release_sbom(&self, text: &str) -> Result<Vec<u8>> {
        let (maker, trusted, appliance, release) = self.named_release(text)?;
        let document = release.sbom.ok_or_else(|| {
            Failure::new(
                "not_found",
                format!("{} said nothing of the packages of {text}", maker.name),
                format!(
                    "`collective catalog {}/{}` shows what it signed",
                    maker.name, appliance.name
                ),
            )
        })?;
        Ok(trusted.read(&document, SBOM_BYTES_MAX)?)
    }

    fn named_release(&self, text: &str) -> Result<(Maker, Trusted, Appliance, Release)> {
        let reference = Reference::parse(text)?;
        let named = reference.name.as_str().split('/').next().unwrap_or_default();
        let maker = self.maker(named)?;
        let trusted = maker.ask_or_kept(&self.dir)?;
        let appliance =
            self.published(&maker, &trusted, super::publish::short_name(&reference.name))?;
        let channel = reference.channel.as_deref().unwrap_or(CHANNEL);
        // What was taken back is shown too.
        let found = match &reference.version {
            Some(version) => appliance.find(version),
            None => appliance.channels.get(channel).and_then(|c| appliance.find(&c.version)),
        };
        let Some(listed) = found else {
            let what = reference.version.as_deref().unwrap_or(channel);
            return Err(not_offered(&maker, &format!("{} has no {what}", appliance.name)));
        };
        let release = Release::read(&trusted, &appliance.name, listed)?;
        Ok((maker, trusted, appliance, release))
    }
}

/// The versions of an appliance that instances in the repository have.
fn have(store: &Store, named: &str) -> BTreeSet<VersionId> {
    let Ok(named) = Name::appliance(named) else { return BTreeSet::new() };
    let heads = store.heads().unwrap_or_default().into_iter();
    let follows = heads.filter(|(_, head)| head.appliance == named);
    follows.filter_map(|(_, head)| Some(head.follow?.release)).collect()
}
