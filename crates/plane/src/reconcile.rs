//! What has to be done for one instance, next.
//!
//! ```text
//!                      holder none       holder lives            holder's lease is over
//! wanted running       start             nothing; suspend when   take over, elsewhere
//!                      (or find a place) it is to be elsewhere;
//!                                        start when it failed
//! wanted suspended     nothing           suspend                 wait
//! wanted stopped       nothing           stop                    wait
//! ```
//!
//! An act names the generation of the head that it was decided by. Who carries it out refuses when
//! the head has another one: an act that comes late, twice, or from a plane that sees the past does
//! nothing.
//!
//! **Invariant:** an instance is taken over only from a host that was known here and whose lease has
//! ended since. One that is not known may be alive: after the state was lost, nobody is taken over
//! from.
//! **Invariant:** the head is looked at before the lease of its holder. The other way round the
//! holder may have come back in between.
//!
//! The protocol is in `docs/protocol/fencing.md`; `tests/fencing.rs` checks it with this function.

use std::fmt;

use model::{Generation, HostId, InstanceState};

/// What somebody wants of an instance.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Wanted {
    pub state: WantedState,
    /// Where the plan has it; none: nowhere yet.
    pub on: Option<HostId>,
    pub restart: Restart,
}

/// In which state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WantedState {
    Running,
    Suspended,
    Stopped,
}

/// Whether it is started again by itself, here or elsewhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Restart {
    /// Only by a person.
    Never,
    /// When it or its host failed.
    OnFailure,
}

/// What is seen of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Seen {
    /// Its head in the repository.
    pub generation: Generation,
    /// Who holds it, and what is known of that host.
    pub holder: Option<(HostId, Holder)>,
    /// Whether the host where it is wanted lives.
    pub target_lives: bool,
}

/// What is known of the host that holds an instance.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Holder {
    /// Its lease lasts, and it says this of the instance; none: it has not started it.
    Lives { says: Option<InstanceState> },
    /// It was known here, and its lease is over.
    Gone,
    /// It never was known here.
    Unknown,
}

/// What to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Act {
    /// All is as it should be.
    Nothing,
    /// Only time, or a person, can help.
    Wait(Waiting),
    /// The planner has to find a host.
    FindPlace,
    /// There, from its head; on the host that held it, from what a crash left.
    Start { on: HostId, at: Generation },
    /// There, from its last checkpoint: the host that had it is gone.
    TakeOver { on: HostId, at: Generation, from: HostId },
    /// Into the repository.
    Suspend { on: HostId, at: Generation },
    /// Power off.
    Stop { on: HostId, at: Generation },
}

/// What is waited for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Waiting {
    /// Its host is gone; it is not to be started elsewhere by itself.
    HostGone,
    /// Its host has never been seen here.
    HostUnknown,
    /// It has failed, and is not to be started again by itself.
    Failed,
}

impl fmt::Display for Waiting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::HostGone => "its host is gone, and it does not start elsewhere by itself",
            Self::HostUnknown => {
                "the host that holds it has not joined here: it may be running there"
            }
            Self::Failed => "it has failed, and does not start again by itself",
        })
    }
}

/// See the module's documentation.
pub fn decide(wanted: &Wanted, seen: &Seen) -> Act {
    let at = seen.generation;
    let Some((host, holder)) = seen.holder else {
        return match (wanted.state, wanted.on) {
            (WantedState::Running, Some(on)) if seen.target_lives => Act::Start { on, at },
            (WantedState::Running, _) => Act::FindPlace,
            (WantedState::Suspended | WantedState::Stopped, _) => Act::Nothing,
        };
    };
    match holder {
        Holder::Unknown => Act::Wait(Waiting::HostUnknown),
        Holder::Gone => match wanted.state {
            WantedState::Running if wanted.restart == Restart::Never => {
                Act::Wait(Waiting::HostGone)
            }
            WantedState::Running => match wanted.on {
                Some(on) if on != host && seen.target_lives => Act::TakeOver { on, at, from: host },
                _ => Act::FindPlace,
            },
            WantedState::Suspended | WantedState::Stopped => Act::Wait(Waiting::HostGone),
        },
        Holder::Lives { says } => {
            let works = matches!(says, Some(InstanceState::Running | InstanceState::Paused));
            match wanted.state {
                // What it had not stored is on that host: it goes on there first.
                _ if !works && wanted.restart == Restart::Never => Act::Wait(Waiting::Failed),
                _ if !works => Act::Start { on: host, at },
                WantedState::Running if wanted.on.is_none_or(|on| on == host) => Act::Nothing,
                WantedState::Running | WantedState::Suspended => Act::Suspend { on: host, at },
                WantedState::Stopped => Act::Stop { on: host, at },
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: HostId = HostId::from_bytes([1; 16]);
    const B: HostId = HostId::from_bytes([2; 16]);

    fn every_case() -> Vec<(Wanted, Seen)> {
        let mut cases = Vec::new();
        let says = [
            None,
            Some(InstanceState::Running),
            Some(InstanceState::Paused),
            Some(InstanceState::Suspended),
            Some(InstanceState::Stopped),
            Some(InstanceState::Failed),
        ];
        let lives = says.map(|says| Holder::Lives { says });
        let holders = lives.into_iter().chain([Holder::Gone, Holder::Unknown]);
        let holders: Vec<_> =
            holders.map(|holder| Some((A, holder))).chain(std::iter::once(None)).collect();
        for state in [WantedState::Running, WantedState::Suspended, WantedState::Stopped] {
            for on in [None, Some(A), Some(B)] {
                for restart in [Restart::Never, Restart::OnFailure] {
                    for holder in &holders {
                        for target_lives in [false, true] {
                            let wanted = Wanted { state, on, restart };
                            let generation = Generation(7);
                            cases
                                .push((wanted, Seen { generation, holder: *holder, target_lives }));
                        }
                    }
                }
            }
        }
        cases
    }

    #[test]
    fn only_a_host_that_is_gone_is_taken_over_from() {
        let mut taken = 0;
        for (wanted, seen) in every_case() {
            match decide(&wanted, &seen) {
                Act::TakeOver { on, at, from } => {
                    assert_eq!(seen.holder, Some((from, Holder::Gone)));
                    assert!(on != from && seen.target_lives && at == seen.generation);
                    assert_eq!(wanted.restart, Restart::OnFailure);
                    taken += 1;
                }
                Act::Start { on, .. } => match seen.holder {
                    Some((holder, state)) => {
                        assert_eq!(on, holder);
                        assert!(matches!(state, Holder::Lives { .. }));
                    }
                    None => assert!(seen.target_lives && wanted.on == Some(on)),
                },
                Act::Suspend { on, .. } | Act::Stop { on, .. } => {
                    assert!(matches!(seen.holder, Some((h, Holder::Lives { .. })) if h == on));
                }
                Act::FindPlace => assert_eq!(wanted.state, WantedState::Running),
                Act::Nothing | Act::Wait(_) => {}
            }
        }
        assert!(taken > 0);
    }

    /// Does what was decided, as hosts would, until there is nothing to do.
    #[test]
    fn every_case_ends_as_it_is_wanted_or_says_why_not() {
        for (mut wanted, mut seen) in every_case() {
            let begun = (wanted, seen);
            for step in 0.. {
                assert!(step < 6, "{begun:?} goes round and round");
                match decide(&wanted, &seen) {
                    Act::Nothing => {
                        let runs = matches!(seen.holder, Some((_, Holder::Lives { .. })));
                        assert_eq!(runs, wanted.state == WantedState::Running, "{begun:?}");
                        break;
                    }
                    Act::Wait(why) => {
                        assert!(!why.to_string().is_empty());
                        break;
                    }
                    Act::FindPlace => {
                        wanted.on = Some(B);
                        seen.target_lives = true;
                    }
                    Act::Start { on, .. } | Act::TakeOver { on, .. } => {
                        let says = Some(InstanceState::Running);
                        seen.holder = Some((on, Holder::Lives { says }));
                        seen.generation = seen.generation.next();
                    }
                    Act::Suspend { .. } | Act::Stop { .. } => {
                        seen.holder = None;
                        seen.generation = seen.generation.next();
                    }
                }
            }
        }
    }
}
