//! `trust`: makers, and the versions that they signed.

use api::{DelegatePrint, MakerPrint};
use model::InstanceId;
use trust::Trusted;

use super::Reference;
use crate::Host;
use crate::failure::{Failure, Result};
use crate::makers::{self, Appliance, Maker, Release, Wanted, document};
use crate::record::{Follow, How, UpdatePolicy};
use crate::store::{self, Store};
use crate::time::rfc3339;
use model::VersionId;

/// The channel that is meant when none is named.
pub const CHANNEL: &str = "stable";

impl Host {
    /// The fingerprint of whoever signed at `location`: for a person to compare. Nothing is believed.
    pub fn fingerprint_at(&self, location: &str) -> Result<String> {
        let location = store::absolute_location(location)?;
        let objects = self.dir.doors().objects(&location)?;
        Ok(trust::fingerprints(&*objects)?.pop().unwrap_or_default())
    }

    /// Begins to trust a maker.
    pub fn trust_add(&self, location: &str, fingerprint: &str) -> Result<MakerPrint> {
        let location = store::absolute_location(location)?;
        let (maker, trusted) = makers::add(&self.dir, &location, fingerprint)?;
        print(&maker, &trusted)
    }

    /// The makers that are trusted.
    pub fn trust_list(&self) -> Result<Vec<MakerPrint>> {
        let makers = makers::all(&self.dir)?;
        let row = |maker: &Maker| match maker.kept(&self.dir, None) {
            Ok(trusted) => print(maker, &trusted),
            // One whose signatures have ended is shown too.
            Err(failure) => Ok(MakerPrint {
                name: maker.name.clone(),
                location: maker.location.clone(),
                mirrors: maker.mirrors.clone(),
                root_fingerprint: maker.fingerprint.clone(),
                root_version: 0,
                asked: String::new(),
                fresh: false,
                why: Some(failure.message),
                expires: String::new(),
                appliances: 0,
                delegates: Vec::new(),
            }),
        };
        makers.iter().map(row).collect()
    }

    /// Asks a maker for news.
    pub fn trust_refresh(&self, name: &str, clock_is_right: bool) -> Result<MakerPrint> {
        let maker = self.maker(name)?;
        if clock_is_right {
            maker.accept_clock(&self.dir)?;
        }
        print(&maker, &maker.ask(&self.dir)?)
    }

    /// Ends trusting a maker.
    pub fn trust_remove(&self, name: &str) -> Result<()> {
        self.maker(name)?.remove(&self.dir)
    }

    pub(super) fn maker(&self, name: &str) -> Result<Maker> {
        makers::find(&self.dir, name)?.ok_or_else(|| {
            Failure::new(
                "not_found",
                format!("this host trusts no maker {name}"),
                "`collective trust list` lists those it trusts; `collective trust add LOCATION` adds one",
            )
        })
    }

    /// The version that a new instance is to have, of a maker that is trusted. What the record says
    /// comes into this host's repository: later verbs find it without the maker.
    pub(super) fn signed_version(
        &self,
        store: &Store,
        maker: &Maker,
        reference: &Reference,
        policy: UpdatePolicy,
    ) -> Result<(VersionId, Follow)> {
        let release = self.signed_release(maker, reference)?;
        let id = self.take_version(store, maker, &release, &[])?;
        let channel = reference.channel.as_deref().unwrap_or(CHANNEL);
        let channel = match &reference.version {
            Some(_) => None,
            None => Some(channel.to_owned()),
        };
        let location = maker.location.clone();
        Ok((id, Follow { location, channel, policy, release: id }))
    }

    /// What a maker that is trusted signed under this name.
    pub(super) fn signed_release(&self, maker: &Maker, reference: &Reference) -> Result<Release> {
        let trusted = maker.ask_or_kept(&self.dir)?;
        let short = super::publish::short_name(&reference.name);
        let appliance = self.published(maker, &trusted, short)?;
        let channel = reference.channel.as_deref().unwrap_or(CHANNEL);
        let wanted = match &reference.version {
            Some(version) => Wanted::Version(version),
            None => Wanted::Channel(channel),
        };
        // Until it has an id of its own, its host's decides whether it is among the first.
        let host = InstanceId::from_bytes(*self.dir.id().as_bytes());
        let offer = makers::offer(&appliance, wanted, host, None, ambient::unix_ms())
            .map_err(|why| not_offered(maker, &why))?;
        Release::read(&trusted, short, &offer.listed)
    }

    pub(super) fn published(
        &self,
        maker: &Maker,
        trusted: &Trusted,
        short: &str,
    ) -> Result<Appliance> {
        Appliance::read(trusted, short)?.ok_or_else(|| {
            Failure::new(
                "not_found",
                format!("{} publishes no {short}", maker.name),
                format!("`collective catalog {}` lists what it has", maker.name),
            )
        })
    }

    /// Brings a version's record here, and looks whether it is what was signed.
    pub(super) fn take_version(
        &self,
        store: &Store,
        maker: &Maker,
        release: &Release,
        records: &[Vec<u8>],
    ) -> Result<VersionId> {
        store.know(&maker.location);
        let id = release.version_id()?;
        let named = records.iter().find(|record| chunk::id_of(record) == id.into());
        if let Some(record) = named.filter(|_| !store.repository().contains(&id.into())) {
            let mut session = store.session()?;
            session.sink().put(id.into(), record)?;
            session.finish()?;
        }
        let version = store.version(id).map_err(|failure| {
            failure.during(format!("{} {} of {}", release.appliance, release.version, maker.name))
        })?;
        let named = format!("{}/{}", maker.name, release.appliance);
        if version.appliance.as_str() != named || version.version != release.version {
            return Err(Failure::new(
                "trust",
                format!(
                    "{named} {} is a record of {} {}",
                    release.version, version.appliance, version.version
                ),
                "nothing of it was used; tell the maker",
            ));
        }
        // As it is: it may say more than this program knows.
        let record = store.source().fetch(&id.into(), chunk::Urgency::Urgent)?;
        let mut session = store.session()?;
        if let Some(record) = record.first() {
            session.sink().put(id.into(), record)?;
        }
        session.finish()?;
        let traces =
            [(How::Booted, &release.trace_booted), (How::Continued, &release.trace_continued)];
        for (how, trace) in traces {
            // A hint: without it, a start is slower.
            if let Some(trace) = trace.as_deref().and_then(|text| text.parse().ok()) {
                let _ = store.take_trace(id, how, trace);
            }
        }
        Ok(id)
    }
}

pub(super) fn not_offered(maker: &Maker, why: &str) -> Failure {
    Failure::new("not_found", why, format!("`collective catalog {}` lists what it has", maker.name))
}

pub(super) fn print(maker: &Maker, trusted: &Trusted) -> Result<MakerPrint> {
    let freshness = trusted.freshness();
    document::maker(trusted)?;
    Ok(MakerPrint {
        name: maker.name.clone(),
        location: maker.location.clone(),
        mirrors: maker.mirrors.clone(),
        root_fingerprint: maker.fingerprint.clone(),
        root_version: trusted.root_version(),
        asked: rfc3339(freshness.asked_unix_ms),
        fresh: freshness.asked,
        why: freshness.why.clone(),
        expires: rfc3339(freshness.expires_unix_ms),
        delegates: trusted
            .delegates()
            .into_iter()
            .map(|who| DelegatePrint {
                name: who.name,
                part: who.part,
                keys: who.keys.0.iter().map(|key| crate::store::hex(key)).collect(),
                threshold: who.keys.1,
            })
            .collect(),
        appliances: trusted.names().iter().filter(|n| n.ends_with(".appliance.json")).count()
            as u64,
    })
}
