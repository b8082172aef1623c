//! What a policy keeps, as a function of times and heads.

use std::collections::BTreeSet;

use host::auto::Keep;
use host::auto::line::{self, Taken};
use host::auto::thin::thin;
use host::record::{Head, Why};
use model::{CheckpointId, HostId};
use proptest::prelude::*;

use crate::*;

/// What is left of checkpoints at these times, taken one by one and thinned each time.
fn grown(times: impl IntoIterator<Item = u64>, keep: &Keep) -> Vec<u64> {
    let mut left = Vec::new();
    for time in times {
        left.push(time);
        let mut stays = thin(&left, keep).into_iter();
        left.retain(|_| stays.next() == Some(true));
    }
    left
}

#[test]
fn twenty_days_of_the_default_policy() {
    let now = 2000 * 7 * DAY_MS + 12 * HOUR_MS + 3 * MINUTE_MS;
    let times = (0..=5760).rev().map(|number| now - number * 5 * MINUTE_MS);
    let left = grown(times, &Keep::default());
    let ages: Vec<String> = left
        .iter()
        .map(|time| {
            let minutes = (now - time) / MINUTE_MS;
            format!("{}d{:02}:{:02}", minutes / 1440, minutes / 60 % 24, minutes % 60)
        })
        .collect();
    let expected = "\
        17d12:05 10d12:05 5d12:05 4d12:05 3d12:05 2d12:05 1d12:05 \
        0d22:05 0d21:05 0d20:05 0d19:05 0d18:05 0d17:05 0d16:05 0d15:05 0d14:05 0d13:05 \
        0d12:05 0d11:05 0d10:05 0d09:05 0d08:05 0d07:05 0d06:05 0d05:05 0d04:05 0d03:05 0d02:05 \
        0d01:05 0d00:25 0d00:20 0d00:15 0d00:10 0d00:05 0d00:00";
    assert_eq!(ages.join(" "), expected);
}

/// A clock that jumps back four years, and forward again, makes no more than one hour, day and week
/// look like others.
#[test]
fn a_clock_that_jumps_drops_no_more_than_its_place() {
    let keep = keep("last=3,daily=7");
    let start = 20_000 * DAY_MS;
    let week: Vec<u64> = (0..7 * 24).map(|hour| start + hour * HOUR_MS).collect();
    let before = grown(week.clone(), &keep);
    let back = (0..10).map(|minute| start - 1460 * DAY_MS + minute * MINUTE_MS);
    let during = grown(week.iter().copied().chain(back.clone()), &keep);
    // Three of the wrong time, and six of the seven days.
    let days = during.iter().filter(|time| **time >= start).count();
    assert_eq!((days, during.len()), (6, 9), "{before:?} {during:?}");
    // And when it is put right, the days that were there are still there.
    let later = (0..3).map(|hour| start + 7 * DAY_MS + hour * HOUR_MS);
    let after = grown(week.into_iter().chain(back).chain(later), &keep);
    assert_eq!(after.iter().filter(|time| (start..start + 7 * DAY_MS).contains(time)).count(), 5);
}

fn any_keep() -> impl Strategy<Value = Keep> {
    (1..8_u32, 0..8_u32, 0..8_u32, 0..8_u32).prop_map(|(last, hourly, daily, weekly)| Keep {
        last,
        hourly,
        daily,
        weekly,
    })
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..Default::default() })]

    /// Whatever the clock does: the newest stay, no more than the policy says are kept, and thinning
    /// what was thinned drops nothing.
    #[test]
    fn the_newest_stay_and_no_more_than_was_said(
        times in prop::collection::vec(0..60 * DAY_MS, 0..120), keep in any_keep(),
    ) {
        let stays = thin(&times, &keep);
        prop_assert_eq!(stays.len(), times.len());
        let newest = stays.iter().rev().take(keep.last as usize);
        prop_assert!(newest.clone().all(|stay| *stay));
        let kept: Vec<u64> =
            times.iter().zip(&stays).filter(|(_, stay)| **stay).map(|(time, _)| *time).collect();
        let most = keep.last + keep.hourly + keep.daily + keep.weekly;
        prop_assert!(kept.len() as u32 <= most);
        prop_assert!(thin(&kept, &keep).into_iter().all(|stay| stay));
    }

    /// Whatever is taken and undone: each automatic checkpoint is in exactly one list, the line's or
    /// a branch's; what a host may have writes on top of stays; and a parent is never automatic.
    #[test]
    fn going_back_loses_nothing(steps in prop::collection::vec((0..4_u8, 0..1000_usize), 1..60)) {
        let keep = keep("last=200");
        let mut head = head();
        let mut all_autos = BTreeSet::new();
        let mut parents = std::collections::BTreeMap::new();
        let mut branches: Vec<Head> = Vec::new();
        let mut reachable: Vec<CheckpointId> = Vec::new();
        for (number, (what, which)) in steps.into_iter().enumerate() {
            let id = id(number as u64 + 1);
            if what < 3 || reachable.is_empty() {
                let why = if what == 0 { Why::Checkpoint } else { Why::Auto };
                let bases: Vec<_> = head.checkpoint.into_iter().collect();
                parents.insert(id, head.explicit());
                prop_assert!(head.explicit().is_none_or(|parent| !all_autos.contains(&parent)));
                head = line::advance(
                    &head, Taken { id, why, taken_unix_ms: number as u64 }, &keep, &bases);
                if why == Why::Auto {
                    all_autos.insert(id);
                }
                reachable.push(id);
            } else {
                let target = reachable[which % reachable.len()];
                let chain = |from: &Head| {
                    std::iter::successors(from.explicit(), |id| parents[id]).collect::<Vec<_>>()
                };
                let taken = chain(&head);
                let on_line = head.autos.iter().any(|auto| auto.id == target)
                    || taken.contains(&target);
                let listed =
                    |branch: &&Head| branch.autos.iter().any(|auto| auto.id == target);
                let branch = branches.iter().find(listed).or_else(|| {
                    branches.iter().find(|branch| {
                        branch.checkpoint == Some(target) || chain(branch).contains(&target)
                    })
                });
                let parting = match branch {
                    Some(branch) if !on_line => {
                        line::go_over(&head, &taken, branch, &chain(branch), target)
                    }
                    _ => line::go_back(&head, &taken, target),
                };
                if head.checkpoint == Some(target) {
                    prop_assert!(parting.leave.is_empty(), "{head:?}");
                    continue;
                }
                let stays = parting.stay.iter().any(|auto| Some(auto.id) == head.checkpoint);
                if !(stays && parting.leave.is_empty()) {
                    let (autos, left) = (parting.leave, parting.left);
                    branches.push(Head { autos, left, ..head.clone() });
                }
                head = Head { checkpoint: Some(target), autos: parting.stay, ..head };
            }
            let listed: BTreeSet<_> = std::iter::once(&head)
                .chain(&branches)
                .flat_map(|line| line.autos.iter().map(|auto| auto.id))
                .collect();
            prop_assert_eq!(&listed, &all_autos);
            let ids: BTreeSet<_> = head.autos.iter().map(|auto| auto.id).collect();
            prop_assert_eq!(ids.len(), head.autos.len(), "one twice on a line");
        }
    }

    /// What a host may have unsaved writes on top of is not dropped, however many come after it.
    #[test]
    fn what_is_held_stays(after in 1..40_u64) {
        let keep = keep("last=1");
        let auto = |number| Taken { id: id(number), why: Why::Auto, taken_unix_ms: number };
        let mut head = line::advance(&head(), auto(1), &keep, &[]);
        // Its host dies; another one takes it over.
        line::taken_over(&mut head, HostId::from_bytes([1; 16]));
        head.lease = Some(lease(2));
        let mut base = id(1);
        for number in 2..2 + after {
            head = line::advance(&head, auto(number), &keep, &[base]);
            base = id(number);
        }
        let ids: Vec<_> = head.autos.iter().map(|auto| auto.id).collect();
        prop_assert!(ids.contains(&id(1)), "{ids:?}");
        // That, the newest, and the one that the volumes were based on when it was taken.
        prop_assert!(ids.len() <= 3, "{ids:?}");
    }
}
