//! What its maker offers an instance, and what that follows.

use api::{Reply, Request};
use model::{Name, VersionId};

use super::{Following, SETTLE, UpdateOptions, fenced};
use crate::Host;
use crate::failure::{Failure, Result};
use crate::makers::{self, Appliance, Maker, Release, Wanted};
use crate::noted::{self, Noted};
use crate::record::{Follow, Head, UpdatePolicy};
use crate::shim::claim;
use crate::store::{Advance, Store};

/// What its maker offers an instance.
pub(super) enum Found {
    /// Nothing: why.
    Nothing(String),
    New(Box<Release>),
}

impl UpdateOptions {
    /// What it is to follow.
    pub(super) fn follow(&self, name: &Name, now: &Follow) -> Result<Follow> {
        let mut follow = now.clone();
        if let Some(channel) = &self.channel {
            Name::new(channel).map_err(|e| {
                Failure::new("usage", e.to_string(), "for example --channel stable")
            })?;
            follow.channel = Some(channel.clone());
        }
        match self.updates {
            Some(Following::By(_)) if follow.channel.is_none() => {
                return Err(Failure::new(
                    "state",
                    format!("{name} stays at its version: it follows no channel"),
                    "name it: --channel stable",
                ));
            }
            Some(Following::By(policy)) => follow.policy = policy,
            Some(Following::Pinned) if self.channel.is_some() => {
                return Err(Failure::new(
                    "usage",
                    "what follows a channel does not stay at its version",
                    "either --channel or --updates pinned",
                ));
            }
            Some(Following::Pinned) => follow.channel = None,
            None => {}
        }
        Ok(follow)
    }
}

impl Host {
    pub(in crate::verbs) fn noted(&self, name: &Name) -> Noted {
        noted::read(&self.local(name))
    }

    pub(super) fn note(&self, name: &Name, change: impl FnOnce(&mut Noted)) {
        noted::note(&self.local(name), change);
    }

    /// When a version that is here is applied, in words.
    pub(in crate::verbs) fn when(&self, name: &Name, policy: UpdatePolicy) -> String {
        let window = self.dir.updates().and_then(|updates| updates.window);
        match (policy, window) {
            (UpdatePolicy::Ask, _) => format!("`collective update {name} --now` applies it"),
            (UpdatePolicy::Auto, None) => {
                "it is applied when it next starts after a stop".to_owned()
            }
            (UpdatePolicy::Auto, Some(window)) => {
                format!("it is applied between {window}, or when it next starts after a stop")
            }
        }
    }

    /// Lets it follow another channel, or by another policy.
    pub(super) fn set_follow(&self, store: &Store, name: &Name, follow: &Follow) -> Result<()> {
        if self.runs_here(name)? {
            let request = Request::SetFollow {
                channel: follow.channel.clone(),
                policy: follow.policy.as_str().to_owned(),
            };
            let local = self.local(name);
            return match local.doors().ask(local.path(), &request, SETTLE)? {
                Reply::Done { .. } => Ok(()),
                other => Err(Failure::new("internal", format!("unexpected reply {other:?}"), "")),
            };
        }
        let Some((generation, head)) = store.head(name)?.head else {
            return Err(claim::not_found(name));
        };
        let changed =
            |now: Follow| Follow { channel: follow.channel.clone(), policy: follow.policy, ..now };
        let follow = head.follow.clone().map(changed);
        match store.advance(generation, &Head { follow, ..head })? {
            Advance::Done(_) => Ok(()),
            Advance::Fenced => Err(fenced(name)),
        }
    }

    pub(super) fn maker_of(&self, head: &Head) -> Result<Maker> {
        makers::of(&self.dir, &head.appliance)?.ok_or_else(|| {
            let maker = head.appliance.as_str().split('/').next().unwrap_or_default();
            let place = head.follow.as_ref().map_or("LOCATION", |follow| &follow.location);
            Failure::new(
                "trust",
                format!("this host does not trust {maker}, whose appliance {} is", head.name),
                format!("`collective trust add {place}` begins to"),
            )
        })
    }

    pub(super) fn find_update(
        &self,
        maker: &Maker,
        trusted: &::trust::Trusted,
        appliance: &Appliance,
        head: &Head,
        follow: &Follow,
        wanted: Wanted<'_>,
    ) -> Result<Found> {
        let has = follow.release;
        let find = |wanted: Wanted<'_>| {
            makers::offer(appliance, wanted, head.instance, Some(has), ambient::unix_ms())
        };
        let offer = match find(wanted) {
            Ok(offer) => offer,
            Err(why) if matches!(wanted, Wanted::Channel(_)) => return Ok(Found::Nothing(why)),
            Err(why) => return Err(crate::verbs::trust::not_offered(maker, &why)),
        };
        if offer.listed.id == has.to_string() {
            return Ok(Found::Nothing(match (&trusted.freshness().why, &offer.listed.yanked) {
                (_, Some(why)) => format!("its version was taken back by its maker: {why}"),
                (Some(why), None) => format!("nothing newer is known here: {why}"),
                (None, None) => "it has the newest version".to_owned(),
            }));
        }
        let mut release = Release::read(trusted, &appliance.name, &offer.listed)?;
        // Over the versions that may not be left out.
        for _ in 0..appliance.versions.len() {
            let Some(least) = release.update.least.as_deref().and_then(|v| appliance.find(v))
            else {
                break;
            };
            let place = |id: &str| id.parse().ok().and_then(|id| appliance.place(id));
            // Who has a version that its maker does not list is not led over another.
            let Some(mine) = appliance.place(has) else { break };
            if place(&least.id) <= Some(mine) || least.id == release.id {
                break;
            }
            release = Release::read(trusted, &appliance.name, least)?;
        }
        if matches!(wanted, Wanted::Channel(_)) && maker.is_bad(&self.dir, release.version_id()?) {
            return Ok(Found::Nothing(format!(
                "version {} did not work on this host and was undone; --to {} tries it again",
                release.version, release.version
            )));
        }
        if let Some(form) = new_form(trusted, appliance, has, &release) {
            let why = format!(
                "{} brought the data to a new form, which version {} cannot read",
                form, release.version
            );
            return match wanted {
                Wanted::Channel(_) => {
                    Ok(Found::Nothing(format!("{why}: it waits for a newer one")))
                }
                Wanted::Version(_) => Err(Failure::new(
                    "state",
                    why,
                    format!(
                        "`collective undo {} --to CHECKPOINT` goes back with the data as it was then",
                        head.name
                    ),
                )),
            };
        }
        Ok(Found::New(Box::new(release)))
    }
}

/// What of an instance's version, or of those before it, kept its data from being read by an older
/// one that it is to get.
fn new_form(
    trusted: &::trust::Trusted,
    appliance: &Appliance,
    has: VersionId,
    to: &Release,
) -> Option<String> {
    let (mine, theirs) = (appliance.place(has)?, appliance.place(to.version_id().ok()?)?);
    let between = appliance.versions.get(theirs + 1..=mine)?;
    between.iter().find_map(|listed| match Release::read(trusted, &appliance.name, listed) {
        Ok(release) if release.update.migrate.is_empty() => None,
        // Who cannot know that must not try.
        _ => Some(format!("version {}", listed.version)),
    })
}
