//! `repo gc --keep`, `--keep-taken`, `--keep-versions`: what is kept of instances' histories, and of published versions.
//!
//! *Versions.* For each channel as many as were asked for: the one that it offers and those that were
//! published before it. What a channel offers to those who are not yet reached, what older versions have
//! to go over first (`least`), and what was published after all that stay too. First what is signed no
//! longer lists the others; then nothing keeps their chunks; a collection takes them after the grace age.
//!
//! *Crash.* Versions that nothing signed names and whose refs are old go with the next run.

use std::collections::{BTreeMap, BTreeSet};

use api::GcPrint;
use trust::key::Key;
use trust::{Change, Validity};

use crate::Host;
use crate::auto::Keep;
use crate::failure::{Failure, Result};
use crate::makers::document::{self, Appliance, Listed, Release};
use crate::store::Store;

/// What `repo gc` is asked.
#[derive(Default)]
pub struct GcOptions {
    /// Of instances' histories; none: as `config keep` says.
    pub keep: Option<Keep>,
    /// Of what somebody took on instances' lines; none: all of it.
    pub taken: Option<Keep>,
    /// Of published versions, for each channel.
    pub versions: Option<u32>,
    pub keys: Vec<Key>,
    /// Only say what would go.
    pub dry_run: bool,
}

/// A ref of a version that nothing lists is somebody's who is about to publish, until it is this old.
const UNLISTED_AGE_MS: u64 = 24 * 3_600_000;

impl Host {
    /// Deletes what nothing names, after thinning out what instances keep and makers list.
    pub fn repo_gc(&self, options: &GcOptions) -> Result<GcPrint> {
        let store = if options.dry_run { self.store()? } else { self.writable_store()? };
        let (mut words, mut bytes) = (Vec::new(), 0);
        if let Some(versions) = options.versions {
            let dropped = self.drop_versions(&store, versions, options)?;
            words.extend(dropped.0);
            bytes += dropped.1;
        }
        let keep = options.keep.or(self.dir.keep());
        let mut plan = store.plan_thinning(keep.as_ref(), options.taken.as_ref())?;
        words.append(&mut plan.words);
        bytes += store.thinning_frees(&plan)?;
        if !options.dry_run {
            for asked in std::mem::take(&mut plan.running) {
                if let Err(failure) = self.ask_to_forget(&asked) {
                    words.push(format!("{}: not now: {}", asked.head.name, failure.message));
                    plan.leave(asked.head.instance);
                }
            }
            store.thin_out(plan)?;
        }
        let mut print = match options.dry_run {
            true => GcPrint { dry_run: true, ..GcPrint::default() },
            false => store.gc()?,
        };
        print.dropped = words;
        print.dropped_bytes = bytes;
        Ok(print)
    }

    /// Gives what is dropped, in words and bytes.
    fn drop_versions(
        &self,
        store: &Store,
        keep: u32,
        options: &GcOptions,
    ) -> Result<(Vec<String>, u64)> {
        if keep == 0 {
            let hint = "`collective yank` takes a version back";
            return Err(Failure::new("usage", "at least one version of a channel stays", hint));
        }
        let shop = self.shop(store.location(), None, &options.keys)?;
        let (mut words, mut changes, mut refs) = (Vec::new(), BTreeMap::new(), Vec::new());
        let mut listed = BTreeSet::new();
        for name in shop.trusted.names() {
            let Some(short) = name.strip_suffix(".appliance.json") else { continue };
            let Some(mut appliance) = Appliance::read(&shop.trusted, short)? else { continue };
            let least = |version: &Listed| -> Result<Option<String>> {
                Ok(Release::read(&shop.trusted, short, version)?.update.least)
            };
            // What a delegate signs is dropped by who has the delegate's key.
            let may = shop.trusted.list_for(&name, &options.keys)?.1;
            let stays = match may {
                true => kept(&appliance, keep as usize, least)?,
                false => appliance.versions.iter().map(|v| v.version.clone()).collect(),
            };
            let (stay, go): (Vec<Listed>, Vec<Listed>) =
                appliance.versions.drain(..).partition(|v| stays.contains(&v.version));
            listed.extend(stay.iter().map(|version| format!("{short}/{}", version.version)));
            for version in &go {
                words.push(format!("{short} {}", version.version));
                refs.push(format!("{short}/{}", version.version));
                // Its own documents. What leads from it to another one stays useful.
                let own_id = format!("{}.", version.id);
                let hers = Release::delegated(short, &own_id);
                let own = shop.trusted.names().into_iter();
                let own = own.filter(|name| name.starts_with(&own_id) || name.starts_with(&hers));
                changes.extend(own.map(|name| (name, Change::Remove)));
            }
            appliance.versions = stay;
            if !go.is_empty() {
                let put = Change::Put(document::encode(&appliance)?);
                changes.insert(Appliance::document(short), put);
            }
        }
        let ahead = objects::clock_ahead_ms(&*shop.objects)?.unwrap_or(0);
        let now = ambient::unix_ms().saturating_add_signed(ahead);
        for entry in shop.repository.refs().list("release")? {
            let old = entry.value.modified_unix_ms.saturating_add(UNLISTED_AGE_MS) < now;
            if old && !listed.contains(&entry.name) && !refs.contains(&entry.name) {
                words.push(format!("{}, which nothing lists", entry.name));
                refs.push(entry.name);
            }
        }
        let without: Vec<_> =
            refs.iter().map(|name| ("release", name.clone(), Vec::new())).collect();
        let bytes = shop.repository.would_free(&without)?;
        if options.dry_run || refs.is_empty() {
            return Ok((words, bytes));
        }
        if !changes.is_empty() {
            trust::change(
                &shop.objects,
                &shop.trusted,
                &changes,
                &options.keys,
                Validity::default(),
            )?;
        }
        ambient::step("retain: signed");
        for name in refs {
            let refs = shop.repository.refs();
            if let Some(value) = refs.read("release", &name)? {
                refs.remove("release", &name, value.generation)?;
            }
        }
        ambient::step("retain: versions dropped");
        Ok((words, bytes))
    }
}

/// The numbers of the versions that stay.
fn kept(
    appliance: &Appliance,
    keep: usize,
    least: impl Fn(&Listed) -> Result<Option<String>>,
) -> Result<BTreeSet<String>> {
    let versions = &appliance.versions;
    let at = |number: &str| versions.iter().position(|version| version.version == number);
    let mut stays = BTreeSet::new();
    let mut newest = None;
    for channel in appliance.channels.values() {
        stays.extend(channel.before.clone());
        let Some(offered) = at(&channel.version) else { continue };
        newest = newest.max(Some(offered));
        let good =
            |version: &&Listed| version.yanked.is_none() || version.version == channel.version;
        // What it has offered, as far as it remembers; before that, what was published before.
        let remembered = channel.offered();
        let known = remembered.iter().filter_map(|number| at(number)).map(|at| &versions[at]);
        let oldest = remembered.iter().filter_map(|number| at(number)).min().unwrap_or(offered + 1);
        let older = versions[..oldest.min(offered + 1)].iter().rev();
        let upto = known.chain(older).filter(good);
        stays.extend(upto.take(keep).map(|version| version.version.clone()));
    }
    // What no channel offers yet; everything, where there is no channel.
    let later = newest.map_or(0, |newest| newest + 1);
    stays.extend(versions[later..].iter().map(|version| version.version.clone()));
    let mut pending: Vec<String> = stays.iter().cloned().collect();
    while let Some(number) = pending.pop() {
        let Some(version) = at(&number).map(|at| &versions[at]) else { continue };
        if let Some(before) = least(version)?.filter(|before| stays.insert(before.clone())) {
            pending.push(before);
        }
    }
    Ok(stays)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::makers::document::Channel;

    #[test]
    fn what_channels_offer_and_what_leads_to_it_stays() {
        let mut web = Appliance::new("web");
        for number in 1..=9_u8 {
            web.versions.push(Listed {
                version: number.to_string(),
                id: model::VersionId::from_bytes([number; 32]).to_string(),
                published_unix_ms: 0,
                yanked: (number == 5).then(|| "it hums".to_owned()),
            });
        }
        let least = |version: &Listed| {
            Ok(match version.version.as_str() {
                "8" => Some("3".to_owned()),
                "3" => Some("2".to_owned()),
                _ => None,
            })
        };
        let check = |web: &Appliance, keep, expected: &str| {
            let stays: Vec<String> = kept(web, keep, least).unwrap().into_iter().collect();
            assert_eq!(stays.join(" "), expected, "keep {keep}");
        };
        check(&web, 1, "1 2 3 4 5 6 7 8 9");
        let channel = |version: &str, before: Option<&str>| Channel {
            version: version.to_owned(),
            percent: 10,
            before: before.map(str::to_owned),
            emergency: false,
            from_unix_ms: 0,
            history: Vec::new(),
        };
        web.channels.insert("stable".to_owned(), channel("6", Some("4")));
        check(&web, 1, "2 3 4 6 7 8 9");
        check(&web, 3, "2 3 4 6 7 8 9");
        web.channels.insert("beta".to_owned(), channel("9", None));
        check(&web, 1, "4 6 9");
        check(&web, 2, "2 3 4 6 8 9");
        check(&web, 9, "1 2 3 4 6 7 8 9");
        // One that remembers what it offered keeps that, and not what another one had in between.
        web.channels.remove("beta");
        web.channels.remove("stable");
        for (channel, version) in [("beta", "4"), ("stable", "6"), ("beta", "8"), ("stable", "9")] {
            web.offer_in(channel, version, crate::makers::Rollout::to(100)).unwrap();
        }
        web.channels.get_mut("stable").unwrap().before = None;
        web.channels.remove("beta");
        check(&web, 1, "9");
        check(&web, 2, "6 9");
        check(&web, 4, "2 3 4 6 9");
    }
}
