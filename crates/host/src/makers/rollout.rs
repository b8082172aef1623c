//! What becomes of an appliance's channels when a version is offered or taken back. Pure.
//!
//! *Invariants.* Whoever is not among the first of a rollout has what the channel offered to everybody
//! last. A channel never offers a version that it has not offered before unless somebody says so: a
//! stable one no beta, because something better was taken back.

use super::document::{Appliance, Channel, Offered};

/// What a channel remembers of what it offered, at most: it is signed and read with it.
const HISTORY_MAX: usize = 64;

/// Why a version cannot be offered or taken back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refused {
    /// The appliance has no such version.
    Unknown,
    /// The maker took it back, and why.
    TakenBack(String),
}

impl Appliance {
    /// From now on a channel offers a version to so many of a hundred.
    pub fn offer_in(
        &mut self,
        channel: &str,
        version: &str,
        percent: u8,
        emergency: bool,
    ) -> Result<(), Refused> {
        let listed = self.find(version).ok_or(Refused::Unknown)?;
        if let Some(why) = &listed.yanked {
            return Err(Refused::TakenBack(why.clone()));
        }
        let before = match self.channels.get(channel) {
            None => None,
            Some(now) if now.version == version => now.before.clone(),
            Some(now) if now.is_for_all() => Some(now.version.clone()),
            // It reached only some: the others still have what was before it.
            Some(now) => now.before.clone(),
        };
        let (version, from_unix_ms) = (version.to_owned(), 0);
        let history = self.channels.get(channel).map(|now| now.history.clone());
        let history = history.unwrap_or_default();
        let mut offered = Channel { version, percent, before, emergency, from_unix_ms, history };
        offered.remember();
        self.channels.insert(channel.to_owned(), offered);
        Ok(())
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

    fn is_for_all(&self) -> bool {
        self.percent == 100 || self.emergency
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::makers::document::Listed;

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
            web.offer_in("stable", version, percent, false).unwrap();
        }
        web.offer_in("beta", "3", 100, false).unwrap();
        web.take_back("2", "it hums").unwrap();
        let stable = &web.channels["stable"];
        let said: Vec<(&str, u8)> =
            stable.history.iter().map(|o| (o.version.as_str(), o.percent)).collect();
        assert_eq!(said, [("1", 100), ("2", 10), ("2", 100), ("1", 100)]);
        assert_eq!(stable.offered(), ["1", "2"]);
        for _ in 0..100 {
            web.offer_in("beta", "3", 100, false).unwrap();
        }
        assert_eq!(web.channels["beta"].history.len(), HISTORY_MAX);
    }

    #[test]
    fn a_rollout_in_a_rollout_leaves_the_others_what_all_had() {
        let mut web = appliance(&["2", "3", "4", "5"]);
        web.offer_in("stable", "2", 100, false).unwrap();
        web.offer_in("stable", "3", 10, false).unwrap();
        assert_eq!(stable(&web), ("3", 10, Some("2")));
        web.offer_in("stable", "3", 30, false).unwrap();
        assert_eq!(stable(&web), ("3", 30, Some("2")));
        web.offer_in("stable", "4", 10, false).unwrap();
        assert_eq!(stable(&web), ("4", 10, Some("2")), "3 never reached all");
        web.offer_in("stable", "4", 100, false).unwrap();
        web.offer_in("stable", "5", 10, false).unwrap();
        assert_eq!(stable(&web), ("5", 10, Some("4")));
        web.offer_in("stable", "4", 10, true).unwrap();
        web.offer_in("stable", "5", 10, false).unwrap();
        assert_eq!(stable(&web), ("5", 10, Some("4")), "an emergency reached all");
    }

    #[test]
    fn a_channel_goes_back_to_what_it_offered_and_to_nothing_else() {
        let mut web = appliance(&["1", "2", "3-beta"]);
        web.offer_in("stable", "1", 100, false).unwrap();
        web.offer_in("stable", "2", 100, false).unwrap();
        web.offer_in("beta", "3-beta", 100, false).unwrap();
        assert_eq!(web.take_back("2", "why"), Ok(Vec::new()));
        assert_eq!(stable(&web), ("1", 100, None));
        // The newest that is left is a beta: it is not for those who follow stable.
        assert_eq!(web.take_back("1", "why"), Ok(vec!["stable".to_owned()]));
        assert_eq!(web.channels.keys().collect::<Vec<_>>(), ["beta"]);
        // What the others have is taken back while another one is rolled out.
        let mut web = appliance(&["1", "2"]);
        web.offer_in("stable", "1", 100, false).unwrap();
        web.offer_in("stable", "2", 10, false).unwrap();
        web.take_back("1", "why").unwrap();
        assert_eq!(stable(&web), ("2", 10, None));
        assert_eq!(web.take_back("7", "why"), Err(Refused::Unknown));
    }

    #[test]
    fn what_was_taken_back_is_not_offered_again() {
        let mut web = appliance(&["1", "2"]);
        web.offer_in("stable", "1", 100, false).unwrap();
        web.take_back("2", "it loses mail").unwrap();
        let refused = web.offer_in("stable", "2", 100, false);
        assert_eq!(refused, Err(Refused::TakenBack("it loses mail".to_owned())));
        assert_eq!(stable(&web), ("1", 100, None));
    }
}
