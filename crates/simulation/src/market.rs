//! A maker: what it signs lies in the one store too, and hosts that trust it follow it.
//!
//! A version's system disk has one page that is not zero, with a number of its own, so that a mix of two
//! versions is seen.

use std::collections::BTreeMap;
use std::sync::Arc;

use api::UpdatePrint;
use host::makers::document::{self, Appliance, Built, Listed, Release};
use host::makers::{self, MAKER};
use host::record::UpdatePolicy;
use host::trust::key::Key;
use host::trust::{self, Change, Roles, Trusted, Validity};
use host::{Following, Reference, Result, UpdateMode, UpdateOptions};
use model::Name;
use objects::Objects;

use crate::life::{Begin, LOCATION, Run, run_options, start_options};

/// What a maker asks of a version.
#[derive(Default)]
pub struct Asks {
    /// A program that brings the data to its form.
    pub migrate: bool,
}

/// The maker's appliance, as it calls it and as its users do.
const SHORT: &str = "tiny";
pub const QUALIFIED: &str = "acme/tiny";

impl Run {
    /// The maker publishes these versions, of which the last is what its channel offers, and every host
    /// trusts it.
    pub fn maker(&self, versions: &[(&str, Asks)]) -> Result<()> {
        let objects: Arc<dyn Objects> = self.world.objects.clone();
        let key = Key::generate()?;
        let keys = [key.clone()];
        let roles = Roles::single(key.public()?);
        let print = trust::start(&objects, &roles, &keys, Validity::default())?;
        let mut appliance = Appliance::new(SHORT);
        let put = Change::Put;
        let says = document::maker_says(&Name::new("acme").expect("a name of ours"));
        let mut changes = BTreeMap::from([(MAKER.to_owned(), put(document::encode(&says)?))]);
        for (version, asks) in versions {
            let id = self.publish_of(QUALIFIED, version, None, Some(self.truth.fresh()))?;
            let built = Built::default();
            let mut release = Release::new(SHORT, version, id, built);
            if asks.migrate {
                release.update.migrate = vec!["/migrate".to_owned()];
            }
            let text = id.to_string();
            changes.insert(Release::document(&text), put(document::encode(&release)?));
            let version = (*version).to_owned();
            appliance.versions.push(Listed {
                version,
                id: text,
                published_unix_ms: 0,
                yanked: None,
            });
        }
        let offered = versions.last().map_or("", |(version, _)| version);
        appliance
            .offer_in("stable", offered, host::makers::Rollout::to(100))
            .expect("a version of ours");
        changes.insert(Appliance::document(SHORT), put(document::encode(&appliance)?));
        let own = self.folder.path().join("own");
        let seen = Trusted::to_publish(&objects, &own)?;
        trust::change(&objects, &seen, &changes, &keys, Validity::default())?;
        for at in 0..self.hosts.len() {
            self.world.act_for(at);
            makers::add(&self.dirs[at], LOCATION, &print)?;
        }
        self.world.act_for(0);
        Ok(())
    }

    /// Runs the maker's version.
    pub fn run_signed(&self, at: usize, new: &Name, version: &str) -> Result<()> {
        let name = Name::appliance(QUALIFIED).expect("a name of ours");
        let appliance = Reference { name, channel: None, version: Some(version.to_owned()) };
        let options = run_options(appliance, new, &Begin::default());
        self.host(at).run(&options).map(drop)
    }

    /// Brings a version to an instance, and applies it.
    pub fn update(&self, at: usize, of: &Name, to: &str) -> Result<UpdatePrint> {
        let options = UpdateOptions {
            name: of.clone(),
            mode: UpdateMode::Now,
            to: Some(to.to_owned()),
            channel: None,
            updates: None,
            rate: None,
            force: true,
            start: start_options(),
        };
        self.host(at).update(&options, &mut |_| ())
    }

    /// Lets it follow its maker's channel, and brings what that offers.
    pub fn follow(&self, at: usize, of: &Name) -> Result<()> {
        let options = UpdateOptions {
            name: of.clone(),
            mode: UpdateMode::Fetch,
            to: None,
            channel: Some("stable".to_owned()),
            updates: Some(Following::By(UpdatePolicy::Auto)),
            rate: None,
            force: true,
            start: start_options(),
        };
        self.host(at).update(&options, &mut |_| ()).map(drop)
    }
}
