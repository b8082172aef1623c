//! The protocol of `docs/protocol/fencing.md`, explored: every order of events within the bounds of
//! [`world::World`]. What the plane decides is decided by the function that it ships,
//! `plane::reconcile::decide`.
//!
//! Each rule of the protocol is also left out, one at a time, and the check has to notice: a model
//! that cannot fail shows nothing.

mod steps;
mod world;

use stateright::{Checker, Expectation, HasDiscoveries, Model};
use world::{Protocol, Rule};

/// Explores all of it; the property that fails, if one does.
fn explore(protocol: Protocol) -> Option<&'static str> {
    let checker = protocol.checker().threads(2).finish_when(HasDiscoveries::AnyFailures);
    let checker = checker.spawn_bfs().join();
    println!("{} states, {} deep", checker.unique_state_count(), checker.max_depth());
    let (name, path) = checker.discoveries().into_iter().next()?;
    println!("{name}: {:?}", path.into_actions());
    Some(name)
}

/// Looks for a way to break a property without one rule.
#[track_caller]
fn noticed(without: Rule, property: &'static str) {
    // Where work is lost it does not matter that two also live.
    let only_one_may_live = property == "one_live_copy";
    let protocol = Protocol { without: Some(without), only_one_may_live, ..Protocol::small() };
    let losses_max = u8::from(without == Rule::LeaveUnknownHostsAlone);
    let protocol = Protocol { losses_max, wishes_max: 0, generations_max: 6, ..protocol };
    assert_eq!(explore(protocol), Some(property), "without {without:?}");
}

#[test]
fn every_order_of_events_keeps_every_promise() {
    assert_eq!(explore(Protocol::small()), None);
}

#[test]
fn all_that_is_promised_can_happen() {
    let protocol = Protocol { remembers: true, ..Protocol::small() };
    let names: Vec<_> = protocol
        .properties()
        .into_iter()
        .filter(|p| p.expectation == Expectation::Sometimes)
        .map(|p| p.name)
        .collect();
    assert_eq!(names.len(), 7);
    let checker = protocol.checker().threads(2);
    let wanted = names.iter().copied().collect();
    let checker = checker.finish_when(HasDiscoveries::AllOf(wanted)).spawn_bfs().join();
    for name in names {
        checker.assert_any_discovery(name);
    }
}

#[test]
fn with_clocks_that_are_wrong_nothing_is_lost() {
    // Two may run then: the timing that forbids it is what was taken away. The head still has one
    // line, and all work is on it or on a branch.
    let wrong = Protocol { clocks_are_wrong: true, losses_max: 0, ..Protocol::small() };
    assert_eq!(explore(Protocol { only_one_may_live: false, ..wrong }), None);
    assert_eq!(explore(wrong), Some("one_live_copy"));
}

#[test]
fn without_the_fence_it_is_noticed() {
    noticed(Rule::AdvanceOnlyFromTheNewest, "acknowledged_is_kept");
}

#[test]
fn without_any_rule_it_is_noticed() {
    noticed(Rule::PauseWhenTheLeaseEnds, "one_live_copy");
    noticed(Rule::RefuseOrdersOfOtherGenerations, "one_live_copy");
    noticed(Rule::ClaimAgainAfterAPause, "one_live_copy");
    noticed(Rule::StartOnlyWithALease, "one_live_copy");
    noticed(Rule::LookAtTheHeadFirst, "one_live_copy");
    noticed(Rule::LeaveUnknownHostsAlone, "one_live_copy");
    noticed(Rule::KeepWhatIsFencedAsABranch, "work_is_never_dropped");
    noticed(Rule::StoreOnlyWhatHasLanded, "acknowledged_is_kept");
    noticed(Rule::KeepWhatIsOnItsWay, "work_is_never_dropped");
}
