//! Why, in words that a person can check.

use std::collections::BTreeMap;
use std::fmt;

use model::format_bytes;

use super::ledger::{Far, Ledger, Rank, Refusal};
use crate::fleet::{Instance, SITE};

/// The reasons of a choice.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Why {
    reasons: Vec<String>,
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.reasons.join("; "))
    }
}

impl Why {
    /// The reasons, each in words.
    pub fn reasons(&self) -> &[String] {
        &self.reasons
    }

    pub(super) fn of(reasons: impl IntoIterator<Item = String>) -> Self {
        Self { reasons: reasons.into_iter().collect() }
    }

    pub(super) fn chosen(
        ledger: &Ledger<'_>,
        instance: &Instance,
        at: usize,
        rank: Rank,
        second: Option<(Rank, usize)>,
    ) -> Self {
        let host = ledger.host(at);
        let mut reasons = vec![format!(
            "{} of {} free, {} of {} CPUs free",
            format_bytes(ledger.memory_free(at)),
            format_bytes(host.memory_bytes),
            ledger.cpus_free(at),
            host.cpus,
        )];
        if instance.base_bytes > 0 {
            reasons.push(match ledger.cached(at, instance) {
                0 => format!("it fetches {}", format_bytes(instance.base_bytes)),
                cached => format!(
                    "it holds {} of {}",
                    format_bytes(cached),
                    format_bytes(instance.base_bytes)
                ),
            });
        }
        if let Some(near) = &instance.near {
            let place = match away(ledger, at, instance, rank.far) {
                _ if rank.far == Far::Here => "in".to_owned(),
                Some(away) => format!("{away} from"),
                None => "not in".to_owned(),
            };
            reasons.push(format!("it is {place} {SITE}={near}, where its user is"));
        }
        reasons.push(match second {
            None => "no other host fits".to_owned(),
            Some((other, host)) => over(ledger, instance, rank, (other, host)),
        });
        Self { reasons }
    }

    pub(super) fn nowhere(
        ledger: &Ledger<'_>,
        instance: &Instance,
        refusals: &[(usize, Refusal)],
    ) -> Self {
        if refusals.is_empty() {
            return Self { reasons: vec!["there is no host".to_owned()] };
        }
        let mut names: BTreeMap<String, Vec<&str>> = BTreeMap::new();
        for (at, refusal) in refusals {
            let name = ledger.host(*at).name.as_str();
            names.entry(group(instance, refusal)).or_default().push(name);
        }
        let most = |of: fn(&Refusal) -> Option<u64>| refusals.iter().filter_map(|r| of(&r.1)).max();
        let memory = most(|refusal| match refusal {
            Refusal::Memory { free_bytes } => Some(*free_bytes),
            _ => None,
        });
        let mut reasons: Vec<_> =
            names.into_iter().map(|(what, names)| format!("{}: {what}", some(&names))).collect();
        if let Some(most) = memory {
            reasons.push(format!("the most that is free is {}", format_bytes(most)));
        }
        Self { reasons }
    }
}

/// Names, and how many more: a list is for people.
fn some(names: &[&str]) -> String {
    const SHOWN: usize = 3;
    match names.len().checked_sub(SHOWN) {
        None | Some(0) => names.join(", "),
        Some(more) => format!("{} and {more} more", names[..SHOWN].join(", ")),
    }
}

fn group(instance: &Instance, refusal: &Refusal) -> String {
    match refusal {
        Refusal::State(state) => state.as_str().to_owned(),
        Refusal::Needs(need) => format!("without {need}"),
        Refusal::Memory { .. } => format!("less than {} free", format_bytes(instance.memory_bytes)),
        Refusal::Cpus { .. } => format!("fewer than {} CPUs free", instance.cpus),
        Refusal::Apart { from } => format!("{from} is there, from which it is kept apart"),
    }
}

/// How long the way is from a host to where an instance's user is, if it is elsewhere and that is known.
fn away(ledger: &Ledger<'_>, at: usize, instance: &Instance, far: Far) -> Option<String> {
    let us = ledger.host(at).round_trips_us.get(instance.near.as_ref()?)?;
    (far != Far::Here).then(|| format!("{}.{} ms", us / 1000, us % 1000 / 100))
}

/// The first difference to the next best, which is what decided.
fn over(
    ledger: &Ledger<'_>,
    instance: &Instance,
    rank: Rank,
    (other, at): (Rank, usize),
) -> String {
    let name = &ledger.host(at).name;
    if rank.far != other.far {
        return match (rank.far, away(ledger, at, instance, other.far)) {
            (Far::Here, None) => format!("before {name}, which is elsewhere"),
            (_, Some(away)) => format!("before {name}, which is {away} from there"),
            (_, None) => format!("before {name}, whose way there nobody has measured"),
        };
    }
    if rank.crowded != other.crowded {
        return format!("before {name}, whose CPUs are promised already");
    }
    if rank.fetch != other.fetch {
        let more = (other.fetch - rank.fetch) * super::FETCH_STEP;
        return format!("before {name}, which would fetch {} more", format_bytes(more));
    }
    if rank.neighbours != other.neighbours {
        let group = instance.apart.as_deref().unwrap_or_default();
        return format!("before {name}, whose site has more of {group}");
    }
    if rank.used != other.used {
        return format!("before {name}, which would be fuller");
    }
    format!("before {name} by name")
}
