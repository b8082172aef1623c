//! Where an instance's version comes from, who signed it, and where its updates stand: from what this
//! host has, nobody is asked.

use api::{SignedPrint, UpdatesPrint};

use crate::Host;
use crate::failure::{Failure, Result};
use crate::makers::{self, Appliance, Maker, Release};
use crate::record::{Follow, Head, UpdatePolicy};
use crate::time::rfc3339;

impl Host {
    /// Who signed what an instance has; none: it comes from no maker.
    pub(super) fn signed(&self, head: &Head) -> Option<SignedPrint> {
        let follow = head.follow.as_ref()?;
        let named = head.appliance.as_str().split('/').next().unwrap_or_default();
        let mut print = SignedPrint {
            maker: named.to_owned(),
            location: follow.location.clone(),
            version_id: follow.release.to_string(),
            ..SignedPrint::default()
        };
        let known = makers::of(&self.dir, &head.appliance);
        let seen = known.and_then(|maker| match maker {
            Some(maker) => self.seen(&maker, head, follow, &mut print),
            None => Err(Failure::new("trust", format!("this host does not trust {named}"), "")),
        });
        print.why = seen.err().map(|failure| failure.message);
        Some(print)
    }

    fn seen(
        &self,
        maker: &Maker,
        head: &Head,
        follow: &Follow,
        print: &mut SignedPrint,
    ) -> Result<()> {
        print.root_fingerprint = Some(maker.fingerprint.clone());
        let trusted = maker.kept(&self.dir, None)?;
        let freshness = trusted.freshness();
        print.asked = Some(rfc3339(freshness.asked_unix_ms));
        print.expires = Some(rfc3339(freshness.expires_unix_ms));
        let short = super::publish::short_name(&head.appliance);
        let listed = Appliance::read(&trusted, short)?
            .and_then(|appliance| appliance.with_id(follow.release).cloned())
            .ok_or_else(|| {
                Failure::new("trust", format!("{named} has not signed it", named = maker.name), "")
            })?;
        let release = Release::read(&trusted, short, &listed)?;
        print.signed = true;
        print.published = Some(rfc3339(release.published_unix_ms));
        print.taken_back = listed.yanked;
        print.built_by = Some(release.built.recipe_by.unwrap_or(release.built.by));
        print.recipe = release.built.recipe;
        print.packages = Some(release.packages);
        print.signed_by = trusted.signed_by(&Appliance::document(short));
        Ok(())
    }

    /// What of its updates is for its user to know, or to do.
    pub(super) fn update_note(&self, head: &Head) -> Option<String> {
        let updates = self.updates_print(head)?;
        if let Some(undone) = updates.undone {
            return Some(undone);
        }
        let waits = updates.here && updates.policy == UpdatePolicy::Ask.as_str();
        let version = updates.offered.filter(|_| waits)?;
        Some(format!("version {version} is here: {}", updates.when.unwrap_or_default()))
    }

    /// Where its updates stand.
    pub(super) fn updates_print(&self, head: &Head) -> Option<UpdatesPrint> {
        let follow = head.follow.as_ref()?;
        let noted = self.noted(&head.name);
        // Another host may have brought it there meanwhile.
        let offered = noted.offered.filter(|offered| offered.id != follow.release.to_string());
        let by_itself = self.dir.updates();
        let pinned = follow.channel.is_none();
        Some(UpdatesPrint {
            channel: follow.channel.clone(),
            policy: if pinned { "pinned" } else { follow.policy.as_str() }.to_owned(),
            by_itself: by_itself.map_or_else(|| "off".to_owned(), |updates| updates.to_string()),
            asked: (noted.asked_unix_ms > 0).then(|| rfc3339(noted.asked_unix_ms)),
            when: offered.as_ref().map(|offered| match offered.here {
                true => self.when(&head.name, follow.policy),
                false => format!("`collective update {}` brings it", head.name),
            }),
            here: offered.as_ref().is_some_and(|offered| offered.here),
            offered: offered.map(|offered| offered.version),
            on_trial: head.trial.is_some(),
            undone: noted.undone,
            failing: noted.failing,
        })
    }
}
