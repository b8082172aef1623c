//! What becomes of an appliance's channels when a version is offered or taken back. Pure.
//!
//! *Invariants.* Whoever is not among the first of a rollout has what the channel offered to everybody
//! last. A channel never offers a version that it has not offered before unless somebody says so: a
//! stable one no beta, because something better was taken back.

use super::document::{Appliance, Channel, Listed, Offered};

/// What a channel remembers of what it offered, at most: it is signed and read with it.
const HISTORY_MAX: usize = 64;

/// Versions from which deltas lead to the next one, at most: each takes its maker's time.
const BEFORE_MAX: usize = 3;

/// Why a version cannot be offered or taken back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refused {
    /// The appliance has no such version.
    Unknown,
    /// The maker took it back, and why.
    TakenBack(String),
}

/// To whom a version is offered, and when.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rollout {
    /// To so many of a hundred instances.
    pub percent: u8,
    /// To everybody, whatever the others say.
    pub emergency: bool,
    /// Not before this instant; 0: now.
    pub from_unix_ms: u64,
}

impl Rollout {
    /// To so many of a hundred, now.
    pub fn to(percent: u8) -> Self {
        Self { percent, emergency: false, from_unix_ms: 0 }
    }
}

impl Appliance {
    /// From now on a channel offers a version, as `how` says.
    pub fn offer_in(&mut self, channel: &str, version: &str, how: Rollout) -> Result<(), Refused> {
        let listed = self.find(version).ok_or(Refused::Unknown)?;
        if let Some(why) = &listed.yanked {
            return Err(Refused::TakenBack(why.clone()));
        }
        let before = match self.channels.get(channel) {
            None => None,
            Some(now) if now.version == version => now.before.clone(),
            Some(now) if now.is_for_all(ambient::unix_ms()) => Some(now.version.clone()),
            // It reached only some, or nobody yet: the others still have what was before it.
            Some(now) => now.before.clone(),
        };
        let version = version.to_owned();
        let Rollout { percent, emergency, from_unix_ms } = how;
        let history = self.channels.get(channel).map(|now| now.history.clone());
        let history = history.unwrap_or_default();
        let mut offered = Channel { version, percent, before, emergency, from_unix_ms, history };
        offered.remember();
        self.channels.insert(channel.to_owned(), offered);
        Ok(())
    }

    /// The versions that most of those have who get the next one of a channel: what it offers, what those have
    /// whom that has not reached, and what other channels offer, as a version may be promoted to them.
    pub fn before(&self, channel: &str) -> Vec<&Listed> {
        let own = self.channels.get(channel).into_iter();
        let now = ambient::unix_ms();
        let own = own.flat_map(|own| {
            let others_have = own.before.iter().filter(|_| !own.is_for_all(now));
            std::iter::once(&own.version).chain(others_have)
        });
        let others = self.channels.iter().filter(|(name, _)| *name != channel);
        let mut before: Vec<&Listed> = Vec::new();
        for version in own.chain(others.map(|(_, other)| &other.version)) {
            let Some(listed) = self.find(version).filter(|listed| listed.yanked.is_none()) else {
                continue;
            };
            if !before.contains(&listed) {
                before.push(listed);
            }
        }
        before.truncate(BEFORE_MAX);
        before
    }

    /// Takes a version back. A channel that offers it offers again what it offered before; one that
    /// has nothing to go back to is no more: their names are given.
    pub fn take_back(&mut self, version: &str, reason: &str) -> Result<Vec<String>, Refused> {
        let listed = self.versions.iter_mut().find(|listed| listed.version == version);
        listed.ok_or(Refused::Unknown)?.yanked = Some(reason.to_owned());
        let mut gone = Vec::new();
        self.channels.retain(|name, channel| {
            if channel.before.as_deref() == Some(version) {
                channel.before = None;
            }
            if channel.version != version {
                return true;
            }
            match channel.before.take() {
                Some(before) => {
                    channel.version = before;
                    channel.percent = 100;
                    channel.from_unix_ms = 0;
                    channel.remember();
                }
                None => gone.push(name.clone()),
            }
            channel.version != version
        });
        Ok(gone)
    }
}

impl Channel {
    /// Notes what it offers now.
    fn remember(&mut self) {
        let (version, percent) = (self.version.clone(), self.percent);
        self.history.push(Offered { version, percent, at_unix_ms: ambient::unix_ms() });
        let excess = self.history.len().saturating_sub(HISTORY_MAX);
        self.history.drain(..excess);
    }

    /// What it has offered, newest first, each version once.
    pub fn offered(&self) -> Vec<&str> {
        let mut seen = Vec::new();
        for offered in self.history.iter().rev() {
            if !seen.contains(&offered.version.as_str()) {
                seen.push(&*offered.version);
            }
        }
        seen
    }

    fn is_for_all(&self, now_unix_ms: u64) -> bool {
        self.emergency || (self.percent == 100 && self.from_unix_ms <= now_unix_ms)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn appliance(versions: &[&str]) -> Appliance {
        let mut appliance = Appliance::new("web");
        for (number, version) in versions.iter().enumerate() {
            appliance.versions.push(Listed {
                version: (*version).to_owned(),
                id: model::VersionId::from_bytes([number as u8 + 1; 32]).to_string(),
                published_unix_ms: 0,
                yanked: None,
            });
        }
        appliance
    }

    fn stable(appliance: &Appliance) -> (&str, u8, Option<&str>) {
        let channel = &appliance.channels["stable"];
        (&channel.version, channel.percent, channel.before.as_deref())
    }

    #[test]
    fn a_channel_remembers_what_it_offered() {
        let mut web = appliance(&["1", "2", "3"]);
        for (version, percent) in [("1", 100), ("2", 10), ("2", 100)] {
            web.offer_in("stable", version, Rollout::to(percent)).unwrap();
        }
        web.offer_in("beta", "3", Rollout::to(100)).unwrap();
        web.take_back("2", "it hums").unwrap();
        let stable = &web.channels["stable"];
        let said: Vec<(&str, u8)> =
            stable.history.iter().map(|o| (o.version.as_str(), o.percent)).collect();
        assert_eq!(said, [("1", 100), ("2", 10), ("2", 100), ("1", 100)]);
        assert_eq!(stable.offered(), ["1", "2"]);
        for _ in 0..100 {
            web.offer_in("beta", "3", Rollout::to(100)).unwrap();
        }
        assert_eq!(web.channels["beta"].history.len(), HISTORY_MAX);
    }

    #[test]
    fn a_rollout_in_a_rollout_leaves_the_others_what_all_had() {
        let mut web = appliance(&["2", "3", "4", "5"]);
        web.offer_in("stable", "2", Rollout::to(100)).unwrap();
        web.offer_in("stable", "3", Rollout::to(10)).unwrap();
        assert_eq!(stable(&web), ("3", 10, Some("2")));
        web.offer_in("stable", "3", Rollout::to(30)).unwrap();
        assert_eq!(stable(&web), ("3", 30, Some("2")));
        web.offer_in("stable", "4", Rollout::to(10)).unwrap();
        assert_eq!(stable(&web), ("4", 10, Some("2")), "3 never reached all");
        web.offer_in("stable", "4", Rollout::to(100)).unwrap();
        web.offer_in("stable", "5", Rollout::to(10)).unwrap();
        assert_eq!(stable(&web), ("5", 10, Some("4")));
        web.offer_in("stable", "4", Rollout { emergency: true, ..Rollout::to(10) }).unwrap();
        web.offer_in("stable", "5", Rollout::to(10)).unwrap();
        assert_eq!(stable(&web), ("5", 10, Some("4")), "an emergency reached all");
    }

    #[test]
    fn a_channel_goes_back_to_what_it_offered_and_to_nothing_else() {
        let mut web = appliance(&["1", "2", "3-beta"]);
        web.offer_in("stable", "1", Rollout::to(100)).unwrap();
        web.offer_in("stable", "2", Rollout::to(100)).unwrap();
        web.offer_in("beta", "3-beta", Rollout::to(100)).unwrap();
        assert_eq!(web.take_back("2", "why"), Ok(Vec::new()));
        assert_eq!(stable(&web), ("1", 100, None));
        // The newest that is left is a beta: it is not for those who follow stable.
        assert_eq!(web.take_back("1", "why"), Ok(vec!["stable".to_owned()]));
        assert_eq!(web.channels.keys().collect::<Vec<_>>(), ["beta"]);
        // What the others have is taken back while another one is rolled out.
        let mut web = appliance(&["1", "2"]);
        web.offer_in("stable", "1", Rollout::to(100)).unwrap();
        web.offer_in("stable", "2", Rollout::to(10)).unwrap();
        web.take_back("1", "why").unwrap();
        assert_eq!(stable(&web), ("2", 10, None));
        assert_eq!(web.take_back("7", "why"), Err(Refused::Unknown));
    }

    #[test]
    fn what_was_taken_back_is_not_offered_again() {
        let mut web = appliance(&["1", "2"]);
        web.offer_in("stable", "1", Rollout::to(100)).unwrap();
        web.take_back("2", "it loses mail").unwrap();
        let refused = web.offer_in("stable", "2", Rollout::to(100));
        assert_eq!(refused, Err(Refused::TakenBack("it loses mail".to_owned())));
        assert_eq!(stable(&web), ("1", 100, None));
    }

    #[test]
    fn what_is_put_off_leaves_all_what_they_had() {
        let mut web = appliance(&["1", "2", "3"]);
        web.offer_in("stable", "1", Rollout::to(100)).unwrap();
        let later = Rollout { from_unix_ms: u64::MAX, ..Rollout::to(100) };
        web.offer_in("stable", "2", later).unwrap();
        assert_eq!(stable(&web), ("2", 100, Some("1")));
        assert_eq!(web.channels["stable"].from_unix_ms, u64::MAX);
        web.offer_in("stable", "3", Rollout::to(10)).unwrap();
        assert_eq!(stable(&web), ("3", 10, Some("1")), "2 has reached nobody");
        assert_eq!(web.channels["stable"].from_unix_ms, 0);
    }

    #[test]
    fn deltas_lead_from_what_those_have_who_get_a_version() {
        let mut web = appliance(&["1", "2", "3", "4"]);
        let numbers = |web: &Appliance, channel: &str| -> Vec<String> {
            web.before(channel).iter().map(|listed| listed.version.clone()).collect()
        };
        assert!(numbers(&web, "stable").is_empty());
        web.offer_in("stable", "1", Rollout::to(100)).unwrap();
        assert_eq!(numbers(&web, "beta"), ["1"], "it is promoted to those who have this");
        web.offer_in("beta", "2", Rollout::to(100)).unwrap();
        assert_eq!(numbers(&web, "beta"), ["2", "1"]);
        web.offer_in("beta", "3", Rollout::to(10)).unwrap();
        assert_eq!(numbers(&web, "beta"), ["3", "2", "1"]);
        assert_eq!(numbers(&web, "stable"), ["1", "3"], "2 is nobody's who follows it");
        web.offer_in("stable", "3", Rollout::to(100)).unwrap();
        assert_eq!(numbers(&web, "stable"), ["3"], "all have it");
        web.take_back("3", "it hums").unwrap();
        assert_eq!(numbers(&web, "beta"), ["2", "1"]);
    }
}
