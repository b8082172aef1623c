//! `publish`, `promote`, `yank`: a maker's side. Chunks go to the maker's repository, which anybody
//! may read; then what was signed says that they are there.
//!
//! *Order.* Chunks, the ref that keeps them, signed documents, the timestamp. So whoever sees a version
//! finds all of it, and whoever dies before has published nothing.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::Arc;

use api::PublishPrint;
use chunk::{ChunkSource, Urgency};
use model::{ChunkId, Name, VersionId};
use objects::Objects;
use repository::{Child, CopyHints, Init, KeyPlace, Repository, Target};
use trust::key::Key;
use trust::{Change, Delegate, Roles, Trusted, Validity};

use crate::Host;
use crate::deltas::{self, Made};
use crate::failure::{Failure, Result};
use crate::makers::document::{self, Appliance, Built, DeltaSays, LayoutSays, Listed, Release};
use crate::makers::{MAKER, Refused, Rollout, document::HEALTHY_WITHIN_S};
use crate::record::{How, Version};
use crate::store::{self, Store};

/// What `publish` is asked.
pub struct PublishOptions {
    /// The appliance in the maker's own repository.
    pub appliance: Name,
    /// The version's number.
    pub version: String,
    pub channel: String,
    /// The maker's public repository.
    pub to: String,
    /// The maker's name, when nothing was published there yet.
    pub maker: Option<Name>,
    pub keys: Vec<Key>,
    pub notes: String,
    pub licence: Option<String>,
    pub licence_text: String,
    /// To whom, and when.
    pub rollout: Rollout,
    pub healthy_within_s: Option<u64>,
    pub health: Vec<String>,
    pub migrate: Vec<String>,
    pub least: Option<String>,
    /// Whether differences to the version before are published too.
    pub deltas: bool,
}

/// Makers number versions so, in file names and on command lines.
fn is_number(version: &str) -> bool {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"-_.+~".contains(&b);
    !version.is_empty()
        && version.len() <= 64
        && version.as_bytes()[0].is_ascii_alphanumeric()
        && version.bytes().all(plain)
}

/// A maker's repository, open for publishing.
pub(super) struct Shop {
    pub(super) objects: Arc<dyn Objects>,
    pub(super) repository: Repository,
    pub(super) trusted: Trusted,
    maker: Name,
    /// This is what its users compare.
    fingerprint: String,
    /// No version was published there yet.
    is_new: bool,
}

impl Host {
    /// Publishes the newest version of an appliance of this host's repository.
    pub fn publish(
        &self,
        options: &PublishOptions,
        progress: &mut dyn FnMut(&str),
    ) -> Result<PublishPrint> {
        let began = ambient::now();
        if !is_number(&options.version) {
            return Err(Failure::new(
                "usage",
                format!("{:?} is not a version's number", options.version),
                "for example 1.4.0: letters, digits and . - _ + ~",
            ));
        }
        Name::new(&options.channel)
            .map_err(|e| Failure::new("usage", e.to_string(), "for example --channel stable"))?;
        let store = self.store()?;
        let id = store.appliance(&options.appliance)?.ok_or_else(|| no_appliance(self, options))?;
        let version = store.version(id)?;
        let shop = self.shop(&options.to, options.maker.as_ref(), &options.keys)?;
        let short = short_name(&options.appliance);
        let qualified = Name::appliance(&format!("{}/{short}", shop.maker))
            .map_err(|e| Failure::new("usage", e.to_string(), "choose a shorter name"))?;
        let published =
            Version { appliance: qualified.clone(), version: options.version.clone(), ..version };

        progress("comparing with what is published");
        let said = |copied: &repository::Copied| {
            format!(
                "{} there already, {} new",
                model::format_bytes(copied.reused_bytes),
                model::format_bytes(copied.new_bytes)
            )
        };
        let traces: [Option<ChunkId>; 2] =
            [store.trace_id(id, How::Booted)?, store.trace_id(id, How::Continued)?];
        let mut session = store::Session::between(&store, &shop.repository)?;
        let published_id = session.put_version(&published)?;
        let mut roots: Vec<Target> = store.children(id)?.into_iter().map(|c| c.target).collect();
        roots.extend(traces.iter().flatten().map(|id| Target::Chunk(*id)));
        let mut appliance =
            Appliance::read(&shop.trusted, short)?.unwrap_or_else(|| Appliance::new(short));
        let hints = CopyHints {
            first: store::touched(&self.fetcher(&store)?, &published, traces),
            whole: shop.whole(&appliance, &options.version)?,
        };
        let mut says = |copied: &repository::Copied| progress(&said(copied));
        let copied = session.copy(store.repository(), &hints, &roots, &mut says)?;
        ambient::step("publish: copied");
        let stored = session.finish()?;
        ambient::step("publish: durable");

        let id_text = published_id.to_string();
        if let Some(known) = appliance.find(&options.version)
            && known.id != id_text
        {
            return Err(Failure::new(
                "exists",
                format!("{qualified} {} is published already, and is another", options.version),
                "a version never changes: give this one a new number",
            ));
        }
        if let Some(why) = appliance.find(&options.version).and_then(|known| known.yanked.clone()) {
            return Err(refused(short, &options.version, &Refused::TakenBack(why)));
        }
        let mut kept = vec![Target::Record(published_id.into())];
        kept.extend(traces.iter().flatten().map(|id| Target::Chunk(*id)));
        shop.keep(short, &options.version, kept)?;
        ambient::step("publish: kept");

        let (mut changes, mut delta_bytes) = (BTreeMap::new(), 0);
        if appliance.find(&options.version).is_none() {
            let mut release =
                self.release(options, short, published_id, id, &version_of(&store, id)?);
            if let Some(origin) = store.origin(&options.appliance, id)? {
                release.built.recipe = origin.recipe;
                release.built.packages = origin.packages;
                release.built.recipe_by = Some(origin.by);
            }
            release.trace_booted = traces[0].map(|id| id.to_string());
            release.trace_continued = traces[1].map(|id| id.to_string());
            let sbom = super::sbom::spdx(&published, &id_text)?;
            let by = shop.trusted.list_for(&Appliance::document(short), &options.keys)?.0;
            let named = |document: String| match by {
                Some(_) => Release::delegated(short, &document),
                None => document,
            };
            release.sbom = Some(named(Release::sbom_document(&id_text)));
            release.content_bytes = copied.reused_bytes + copied.new_bytes;
            release.packages = published.packages.len() as u64;
            let before = appliance.before(&options.channel);
            for before in before.iter().filter(|_| options.deltas) {
                let to = (published_id, &published);
                let mut parts = BTreeMap::new();
                let says = self.deltas(&store, &options.to, before, to, &mut parts, progress)?;
                changes.extend(parts.into_iter().map(|(name, part)| (named(name), part)));
                delta_bytes += says.as_ref().map_or(0, DeltaSays::all_bytes);
                release.deltas.extend(says);
            }
            changes.insert(named(Release::sbom_document(&id_text)), Change::Put(sbom));
            let put = Change::Put(document::encode(&release)?);
            changes.insert(named(Release::document(&id_text)), put);
            appliance.versions.push(Listed {
                version: options.version.clone(),
                id: id_text.clone(),
                published_unix_ms: release.published_unix_ms,
                yanked: None,
            });
        }
        appliance.description.clone_from(&published.description);
        if let Some(licence) = &options.licence {
            appliance.licence.clone_from(licence);
        }
        appliance
            .offer_in(&options.channel, &options.version, options.rollout)
            .map_err(|why| refused(short, &options.version, &why))?;
        changes.insert(Appliance::document(short), Change::Put(document::encode(&appliance)?));
        shop.change(&changes, &options.keys)?;
        Ok(PublishPrint {
            appliance: qualified.to_string(),
            version: options.version.clone(),
            version_id: id_text,
            channel: options.channel.clone(),
            location: options.to.clone(),
            uploaded_bytes: stored.stored_bytes,
            reused_bytes: stored.reused_bytes,
            delta_bytes,
            root_fingerprint: shop.fingerprint,
            new_maker: shop.is_new,
            total_ms: began.elapsed().as_millis() as u64,
        })
    }

    /// What is new in a version, for who has the one before: documents to sign.
    fn deltas(
        &self,
        store: &Store,
        location: &str,
        before: &Listed,
        to: (VersionId, &Version),
        changes: &mut BTreeMap<String, Change>,
        progress: &mut dyn FnMut(&str),
    ) -> Result<Option<DeltaSays>> {
        store.know(&store::absolute_location(location)?);
        let Ok(from) = before.id.parse::<VersionId>() else { return Ok(None) };
        let old = store.version(from)?;
        let record = store.source().fetch(&to.0.into(), Urgency::Background)?;
        let record = record.iter().find(|chunk| chunk.id() == to.0.into());
        let records = record.iter().map(|chunk| chunk.bytes().to_vec()).collect();
        let made = deltas::make((from, &old), to, records, &self.fetcher(store)?, progress)?;
        let Some(Made { parts, layout, pages }) = made else { return Ok(None) };
        let bytes = parts.iter().map(|part| part.len() as u64).sum();
        let Ok(count) = u32::try_from(parts.len()) else { return Ok(None) };
        let id = to.0.to_string();
        let says = layout.as_ref().map(|layout| LayoutSays {
            bytes: layout.len() as u64,
            new_bytes: (pages * model::PAGE_BYTES) as u64,
        });
        let put = layout.map(|layout| (Release::layout_document(&before.id, &id), layout));
        changes.extend(put.map(|(name, layout)| (name, Change::Put(layout))));
        for (part, number) in parts.into_iter().zip(0..) {
            let name = Release::delta_document(&before.id, &id, number);
            changes.insert(name, Change::Put(part));
        }
        let says = DeltaSays { from: before.id.clone(), bytes, parts: count, layout: says };
        Ok(Some(says).filter(|says| says.parts > 0))
    }

    fn release(
        &self,
        options: &PublishOptions,
        short: &str,
        id: VersionId,
        from: VersionId,
        from_version: &str,
    ) -> Release {
        let built = Built {
            by: format!("collective {}", env!("CARGO_PKG_VERSION")),
            from: from.to_string(),
            from_version: from_version.to_owned(),
            recipe: None,
            packages: None,
            recipe_by: None,
        };
        let mut release = Release::new(short, &options.version, id, built);
        release.notes.clone_from(&options.notes);
        release.licence_text.clone_from(&options.licence_text);
        release.update.healthy_within_s = options.healthy_within_s.unwrap_or(HEALTHY_WITHIN_S);
        release.update.health.clone_from(&options.health);
        release.update.migrate.clone_from(&options.migrate);
        release.update.least.clone_from(&options.least);
        release
    }

    /// Opens a maker's repository; makes it when there is none and a name for the maker.
    pub(super) fn shop(&self, to: &str, maker: Option<&Name>, keys: &[Key]) -> Result<Shop> {
        if keys.is_empty() {
            return Err(Failure::new(
                "key",
                "no key was named: what is published is signed",
                "`collective key new FILE` makes one; name it with --key FILE",
            ));
        }
        let location = store::absolute_location(to)?;
        let objects = objects::create(&location)?;
        let repository = match Repository::open(objects.clone(), self.open_options()?) {
            Err(repository::RepositoryError::NotARepository { .. }) => {
                let local_dir = Some(self.dir.folder("index")?);
                let init =
                    Init { key: None, key_place: KeyPlace::Host, local_dir, ..Init::default() };
                Repository::init(objects.clone(), &init)?
            }
            other => other?,
        };
        if repository.is_private() {
            return Err(Failure::new(
                "usage",
                format!("the repository at {to} is private: nobody could read what is published"),
                "publish to a place of its own: it is made public when it is new",
            ));
        }
        let named = || {
            maker.ok_or_else(|| {
                Failure::new(
                    "usage",
                    format!("nothing was published to {to} yet: who publishes there?"),
                    "say your name as a maker once: --maker NAME",
                )
            })
        };
        // Each step of beginning is looked for and, where somebody was interrupted, done now.
        if !trust::is_begun(&*objects)? {
            named()?;
            let roles = Roles::single(keys[0].public()?);
            trust::start(&objects, &roles, keys, Validity::default()).map_err(signing)?;
            ambient::step("publish: begun");
        }
        let mut trusted = self.own_view(&objects, &repository)?;
        let names = trusted.names();
        let is_new = !names.iter().any(|name| name.ends_with(".appliance.json"));
        if !names.iter().any(|name| name == MAKER) {
            let says = document::encode(&document::maker_says(named()?))?;
            let changes = BTreeMap::from([(MAKER.to_owned(), Change::Put(says))]);
            trust::change(&objects, &trusted, &changes, keys, Validity::default())
                .map_err(signing)?;
            trusted = self.own_view(&objects, &repository)?;
        }
        let says = document::maker(&trusted)?;
        if let Some(name) = maker.filter(|name| **name != says) {
            return Err(Failure::new(
                "usage",
                format!("{to} is the repository of {says}, not of {name}"),
                "leave out --maker, or publish to a place of its own",
            ));
        }
        let fingerprint = trust::fingerprints(&*objects)?.pop().unwrap_or_default();
        Ok(Shop { objects, repository, trusted, maker: says, fingerprint, is_new })
    }

    /// What this host, as a publisher, has seen there: it publishes on nothing older.
    fn own_view(&self, objects: &Arc<dyn Objects>, repository: &Repository) -> Result<Trusted> {
        let folder = self.dir.folder("publishing")?.join(store::hex(&repository.id()));
        Trusted::to_publish(objects, &folder).map_err(|error| match error {
            trust::TrustError::Damaged { .. } => Failure::new(
                "damaged",
                error.to_string(),
                format!(
                    "look whether what `collective catalog` shows is what you published; then remove {}",
                    folder.display()
                ),
            ),
            error => error.into(),
        })
    }

    fn open_options(&self) -> Result<repository::Open> {
        let local_dir = Some(self.dir.folder("index")?);
        Ok(repository::Open { local_dir, ..Default::default() })
    }

    /// Lets a channel offer what another one offers.
    pub fn promote(
        &self,
        to: &str,
        appliance: &Name,
        from: &str,
        channel: &str,
        rollout: Rollout,
        keys: &[Key],
    ) -> Result<api::ChannelPrint> {
        self.edit(to, appliance, keys, |appliance| {
            let source = appliance.channels.get(from).cloned().ok_or_else(|| {
                let all: Vec<_> = appliance.channels.keys().cloned().collect();
                Failure::new(
                    "not_found",
                    format!("{} has no channel {from}", appliance.name),
                    format!("it has {}", all.join(", ")),
                )
            })?;
            let version = source.version;
            appliance
                .offer_in(channel, &version, rollout)
                .map_err(|why| refused(&appliance.name, &version, &why))?;
            Ok((channel.to_owned(), version))
        })
    }

    /// Takes a version back: nobody gets it any more, and who has it is led on.
    pub fn yank(
        &self,
        to: &str,
        appliance: &Name,
        version: &str,
        reason: &str,
        keys: &[Key],
    ) -> Result<api::ChannelPrint> {
        let mut ended = Vec::new();
        let done = self.edit(to, appliance, keys, |appliance| {
            ended = appliance
                .take_back(version, reason)
                .map_err(|why| refused(&appliance.name, version, &why))?;
            Ok((String::new(), version.to_owned()))
        })?;
        Ok(api::ChannelPrint { ended, ..done })
    }

    /// Signs again what is there, so that it stays valid: without the keys of those who sign versions
    /// only what says that it is current. Gives whether it was all.
    pub fn sign_again(&self, to: &str, keys: &[Key]) -> Result<bool> {
        let shop = self.shop(to, None, keys)?;
        trust::sign_again(&shop.objects, &shop.trusted, keys, Validity::default()).map_err(signing)
    }

    /// Replaces the keys of a maker. Gives the new root's fingerprint.
    pub fn rotate(&self, to: &str, roles: &Roles, keys: &[Key]) -> Result<String> {
        let shop = self.shop(to, None, keys)?;
        trust::rotate(&shop.objects, &shop.trusted, roles, keys, Validity::default())
            .map_err(signing)
    }

    /// Lets somebody sign a part of a maker's names.
    pub fn delegate(&self, to: &str, who: &Delegate, keys: &[Key]) -> Result<()> {
        let shop = self.shop(to, None, keys)?;
        trust::delegate(&shop.objects, &shop.trusted, who, keys, Validity::default())
            .map_err(signing)
    }

    /// Lets somebody sign nothing any more. What they signed is signed by the maker, or offered no more.
    pub fn revoke(&self, to: &str, name: &str, keep: bool, keys: &[Key]) -> Result<()> {
        let shop = self.shop(to, None, keys)?;
        trust::revoke(&shop.objects, &shop.trusted, name, keep, keys, Validity::default())
            .map_err(signing)
    }

    fn edit(
        &self,
        to: &str,
        name: &Name,
        keys: &[Key],
        change: impl FnOnce(&mut Appliance) -> Result<(String, String)>,
    ) -> Result<api::ChannelPrint> {
        let shop = self.shop(to, None, keys)?;
        let short = short_name(name);
        let mut appliance = Appliance::read(&shop.trusted, short)?.ok_or_else(|| {
            Failure::new(
                "not_found",
                format!("{} has published no {short}", shop.maker),
                format!("`collective catalog {to}` lists what it has"),
            )
        })?;
        let (channel, version) = change(&mut appliance)?;
        let put = Change::Put(document::encode(&appliance)?);
        let changes = BTreeMap::from([(Appliance::document(short), put)]);
        shop.change(&changes, keys)?;
        Ok(api::ChannelPrint {
            appliance: format!("{}/{short}", shop.maker),
            version,
            channel: Some(channel).filter(|channel| !channel.is_empty()),
            channels: appliance
                .channels
                .iter()
                .map(|(name, channel)| (name.clone(), channel.version.clone()))
                .collect(),
            ended: Vec::new(),
        })
    }
}

impl Shop {
    fn change(&self, changes: &BTreeMap<String, Change>, keys: &[Key]) -> Result<()> {
        trust::change(&self.objects, &self.trusted, changes, keys, Validity::default())
            .map_err(signing)
    }

    /// The manifests of what its channels offer, and of a version that may be published again: refs keep all of them.
    fn whole(&self, appliance: &Appliance, version: &str) -> Result<HashSet<ChunkId>> {
        let offered = appliance.channels.values().map(|channel| channel.version.as_str());
        let versions: BTreeSet<&str> = offered.chain([version]).collect();
        let mut whole = HashSet::new();
        for version in versions {
            let name = format!("{}/{version}", appliance.name);
            let Some(kept) = self.repository.refs().read("release", &name)? else { continue };
            let records = kept.roots.iter().filter(|root| matches!(root, Target::Record(_)));
            for record in records {
                // One that cannot be read is looked into when it is copied.
                let Ok(record) = repository::read_record(&self.repository, &record.chunk()) else {
                    continue;
                };
                let manifests = record.children.into_iter().map(|child| child.target);
                let manifests = manifests.filter(|target| matches!(target, Target::Manifest(_)));
                whole.extend(manifests.map(|target| target.chunk()));
            }
        }
        Ok(whole)
    }

    /// Keeps a version's chunks: nothing else in the repository names them.
    fn keep(&self, name: &str, version: &str, roots: Vec<Target>) -> Result<()> {
        let refs = self.repository.refs();
        let name = format!("{name}/{version}");
        if let Some(value) = refs.read("release", &name)?
            && value.roots == roots
        {
            return Ok(());
        }
        let from = refs.current("release", &name)?.unwrap_or_default();
        let payload = repository::RefPayload { roots, body: Vec::new() };
        refs.advance("release", &name, from, &payload)?;
        Ok(())
    }
}

/// Why something could not be signed: what a user would have to ask the maker for, a maker does.
fn signing(error: trust::TrustError) -> Failure {
    match &error {
        trust::TrustError::Expired { role, .. } if role == "root" => Failure::new(
            "key",
            error.to_string(),
            "`collective key rotate` signs a new root; it may name the keys that it has now",
        ),
        trust::TrustError::Expired { .. } => Failure::new(
            "key",
            error.to_string(),
            "name the keys of those who sign versions, too: --key",
        ),
        _ => error.into(),
    }
}

fn refused(name: &str, version: &str, why: &Refused) -> Failure {
    match why {
        Refused::Unknown => Failure::new(
            "not_found",
            format!("{name} has no version {version}"),
            "`collective catalog LOCATION` lists them",
        ),
        Refused::TakenBack(why) => Failure::new(
            "exists",
            format!("{name} {version} was taken back: {why}"),
            "a version that was taken back stays so: give what you publish a new number",
        ),
    }
}

fn version_of(store: &Store, id: VersionId) -> Result<String> {
    Ok(store.version(id)?.version)
}

/// Without its maker's name.
pub(super) fn short_name(name: &Name) -> &str {
    name.as_str().rsplit('/').next().unwrap_or_default()
}

fn no_appliance(host: &Host, options: &PublishOptions) -> Failure {
    let place = host.location.clone().or_else(|| host.dir.repository().map(str::to_owned));
    Failure::new(
        "not_found",
        format!(
            "there is no appliance {} in {}",
            options.appliance,
            place.unwrap_or_else(|| "this host's repository".to_owned())
        ),
        "`collective appliances` lists them; `collective build` or `collective import` makes one",
    )
}

/// What a version's record names, for who copies it.
impl Store {
    pub(super) fn children(&self, id: VersionId) -> Result<Vec<Child>> {
        Ok(repository::read_record(self.repository(), &id.into())?.children)
    }
}
