//! Which version an instance should have, by what its maker signed. Pure.

use model::{InstanceId, VersionId};

use super::document::{Appliance, Listed};

/// What is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wanted<'a> {
    /// The newest of a channel.
    Channel(&'a str),
    /// One version, by its number or the digits that its id begins with.
    Version(&'a str),
}

/// What is offered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Offer {
    pub listed: Listed,
    pub emergency: bool,
}

/// Fewest digits of an id that name a version.
const DIGITS_MIN: usize = 6;

/// The version for an instance, or why there is none. `instance` decides whether it is among the
/// first of a staged rollout; `has` is what it has now. `now` is milliseconds since the Unix epoch.
///
/// A channel never leads back to a version that was published before the one it has, except away
/// from one that was yanked.
pub fn offer(
    appliance: &Appliance,
    wanted: Wanted<'_>,
    instance: InstanceId,
    has: Option<VersionId>,
    now: u64,
) -> Result<Offer, String> {
    let name = &appliance.name;
    let listed = |version: &str| {
        appliance.find(version).ok_or_else(|| format!("{name} has no version {version}"))
    };
    let channel = match wanted {
        Wanted::Version(version) => {
            let by_id =
                |listed: &&Listed| version.len() >= DIGITS_MIN && listed.id.starts_with(version);
            let found = match appliance.find(version) {
                Some(found) => found,
                None => appliance
                    .versions
                    .iter()
                    .find(by_id)
                    .ok_or_else(|| format!("{name} has no version {version}"))?,
            };
            return match &found.yanked {
                Some(why) if Some(&found.id) != has.map(|id| id.to_string()).as_ref() => {
                    Err(format!("{name} {version} was taken back by its maker: {why}"))
                }
                _ => Ok(Offer { listed: found.clone(), emergency: false }),
            };
        }
        Wanted::Channel(channel) => appliance.channels.get(channel).ok_or_else(|| {
            let all: Vec<&str> = appliance.channels.keys().map(String::as_str).collect();
            format!("{name} has no channel {channel}: there is {}", all.join(", "))
        })?,
    };
    let first = channel.emergency || is_first(&channel.version, instance, channel.percent);
    let version = match &channel.before {
        Some(before) if !first || (now < channel.from_unix_ms && !channel.emergency) => before,
        _ => &channel.version,
    };
    let found = listed(version)?;
    if let Some(why) = &found.yanked {
        return Err(format!("{name} {version} was taken back by its maker: {why}"));
    }
    let has = has.and_then(|id| Some((appliance.place(id)?, appliance.with_id(id)?)));
    if let (Some((place, mine)), Some(theirs)) = (has, found.id.parse().ok()) {
        let back = appliance.place(theirs).is_some_and(|theirs| theirs < place);
        if back && mine.yanked.is_none() {
            return Ok(Offer { listed: mine.clone(), emergency: false });
        }
    }
    Ok(Offer { listed: found.clone(), emergency: channel.emergency })
}

/// Whether an instance is among the first `percent` of a hundred that get a version. Another version
/// has others first.
fn is_first(version: &str, instance: InstanceId, percent: u8) -> bool {
    let mut hasher = blake3::Hasher::new_derive_key("collective 2026 staged rollout");
    hasher.update(instance.as_bytes()).update(version.as_bytes());
    let hash = hasher.finalize();
    let bytes: [u8; 8] = std::array::from_fn(|i| hash.as_bytes()[i]);
    u64::from_le_bytes(bytes) % 100 < u64::from(percent)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::makers::document::Channel;

    fn appliance() -> Appliance {
        let mut appliance = Appliance::new("web");
        for (number, version) in ["1", "2", "3"].into_iter().enumerate() {
            appliance.versions.push(Listed {
                version: version.to_owned(),
                id: VersionId::from_bytes([number as u8 + 1; 32]).to_string(),
                published_unix_ms: 0,
                yanked: None,
            });
        }
        let channel = Channel {
            version: "3".to_owned(),
            percent: 100,
            before: Some("2".to_owned()),
            emergency: false,
            from_unix_ms: 0,
            history: Vec::new(),
        };
        appliance.channels.insert("stable".to_owned(), channel);
        appliance
    }

    fn id(byte: u8) -> InstanceId {
        InstanceId::from_bytes([byte; 16])
    }

    fn has(number: u8) -> Option<VersionId> {
        Some(VersionId::from_bytes([number; 32]))
    }

    fn offered(appliance: &Appliance, has: Option<VersionId>) -> Result<String, String> {
        let wanted = Wanted::Channel("stable");
        offer(appliance, wanted, id(1), has, 10).map(|offer| offer.listed.version)
    }

    #[test]
    fn a_channel_leads_forward() {
        let mut appliance = appliance();
        assert_eq!(offered(&appliance, has(1)).unwrap(), "3");
        assert_eq!(offered(&appliance, None).unwrap(), "3");
        appliance.channels.get_mut("stable").unwrap().version = "1".to_owned();
        assert_eq!(offered(&appliance, has(3)).unwrap(), "3", "not back");
        appliance.versions[2].yanked = Some("it loses mail".to_owned());
        assert_eq!(offered(&appliance, has(3)).unwrap(), "1", "away from what was taken back");
        appliance.versions[0].yanked = Some("it is worse".to_owned());
        assert!(offered(&appliance, has(3)).unwrap_err().contains("it is worse"));
    }

    #[test]
    fn a_rollout_reaches_so_many_and_the_same_again() {
        let mut appliance = appliance();
        let channel = appliance.channels.get_mut("stable").unwrap();
        channel.percent = 30;
        let channel = channel.clone();
        let new = |id: InstanceId, appliance: &Appliance| {
            let wanted = Wanted::Channel("stable");
            offer(appliance, wanted, id, has(2), 10).unwrap().listed.version == "3"
        };
        let ids = (0..1000u16).map(|n| {
            let mut bytes = [0; 16];
            bytes[..2].copy_from_slice(&n.to_le_bytes());
            InstanceId::from_bytes(bytes)
        });
        let first: Vec<InstanceId> = ids.filter(|id| new(*id, &appliance)).collect();
        assert!((250..350).contains(&first.len()), "{}", first.len());
        let wider = Channel { percent: 60, ..channel.clone() };
        appliance.channels.insert("stable".to_owned(), wider);
        assert!(first.iter().all(|id| new(*id, &appliance)), "who had it keeps it");
        let emergency = Channel { percent: 0, emergency: true, ..channel.clone() };
        appliance.channels.insert("stable".to_owned(), emergency);
        assert!(new(id(9), &appliance));
        let later = Channel { percent: 100, from_unix_ms: 11, ..channel };
        appliance.channels.insert("stable".to_owned(), later);
        assert!(!new(id(9), &appliance), "not yet");
    }

    #[test]
    fn a_version_is_named_by_number_or_digits() {
        let mut appliance = appliance();
        let find = |appliance: &Appliance, text: &str, has| {
            offer(appliance, Wanted::Version(text), id(1), has, 0).map(|offer| offer.listed.version)
        };
        assert_eq!(find(&appliance, "2", None).unwrap(), "2");
        assert_eq!(find(&appliance, "020202", None).unwrap(), "2");
        assert!(find(&appliance, "0202", None).is_err());
        appliance.versions[1].yanked = Some("why".to_owned());
        assert!(find(&appliance, "2", None).is_err());
        assert_eq!(find(&appliance, "2", has(2)).unwrap(), "2", "who has it may name it");
        let wanted = Wanted::Channel("beta");
        assert!(offer(&appliance, wanted, id(1), None, 0).unwrap_err().contains("stable"));
    }
}
