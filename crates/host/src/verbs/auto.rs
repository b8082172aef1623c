//! `checkpoint NAME --every ...`: how checkpoints of an instance are taken by themselves.

use std::time::Duration;

use api::{AutoPrint, Reply, Request};
use model::{InstanceState, Name};

use crate::Host;
use crate::auto::{Auto, Keep, Policy};
use crate::failure::{Failure, Result};
use crate::record::Head;
use crate::shim::claim;
use crate::store::{Advance, Store};

/// One advance of the head, which a shim may do after what it is doing now.
const TIMEOUT: Duration = Duration::from_secs(600);

/// What of a policy is to be changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AutoChange {
    /// As the host that runs it says.
    Default,
    Off,
    /// So often; what is kept stays as it was.
    Every(u64),
    /// What is kept; how often stays as it was.
    Keep(Keep),
    Both(u64, Keep),
}

impl AutoChange {
    /// What is to be said after `now` was said (by the instance, else by this host).
    fn apply(self, now: Option<Auto>) -> Result<Option<Auto>> {
        let before = now.and_then(Auto::policy);
        let on = |every_s, keep| Ok(Some(Auto::On(Policy { every_s, keep })));
        match self {
            Self::Default => Ok(None),
            Self::Off => Ok(Some(Auto::Off)),
            Self::Both(every_s, keep) => on(every_s, keep),
            Self::Every(every_s) => on(every_s, before.map_or_else(Keep::default, |p| p.keep)),
            Self::Keep(keep) => match before {
                Some(policy) => on(policy.every_s, keep),
                None => Err(Failure::new(
                    "usage",
                    "no checkpoints are taken by themselves: how often is not said",
                    "add for example --every 5m",
                )),
            },
        }
    }

    /// The same for an instance that is to be.
    pub fn for_new(self, host: &Host) -> Result<Option<Auto>> {
        self.apply(host.dir.auto())
    }
}

impl Host {
    /// Changes how checkpoints of an instance are taken by themselves; gives how it is now.
    pub fn set_auto(&self, name: &Name, change: AutoChange) -> Result<AutoPrint> {
        let store = self.writable_store()?;
        let Some((generation, head)) = store.head(name)?.head else {
            return Err(claim::not_found(name));
        };
        let auto = change.apply(head.auto.or(self.dir.auto()))?;
        if self.runs_here(name)? {
            let request = Request::SetAuto { auto: auto.map(|auto| auto.to_string()) };
            return match self.dir.doors().ask(self.local(name).path(), &request, TIMEOUT) {
                Ok(Reply::Done { .. }) => self.auto_print(&store, name),
                Ok(other) => {
                    Err(Failure::new("internal", format!("unexpected reply {other:?}"), ""))
                }
                Err(failure) => Err(super::ask::named(failure, name)),
            };
        }
        if let Some(lease) = head.lease.as_ref().filter(|lease| lease.holder != self.dir.id()) {
            return Err(Failure::new(
                "lease",
                format!("{name} runs on host {}", lease.holder_name),
                "set it there, or when it is suspended",
            ));
        }
        if self.state_of(&store, name)? == InstanceState::Failed {
            // Its volumes belong to the generation at which it crashed.
            return Err(Failure::new(
                "state",
                format!("{name} has failed"),
                format!("`collective resume {name}` or `collective undo {name}` first"),
            ));
        }
        if store.advance(generation, &Head { auto, ..head })? == Advance::Fenced {
            return Err(Failure::new(
                "fenced",
                format!("another host has moved {name} meanwhile"),
                "`collective ps` shows where it is; do it again",
            ));
        }
        self.auto_print(&store, name)
    }

    fn auto_print(&self, store: &Store, name: &Name) -> Result<AutoPrint> {
        let Some((_, head)) = store.head(name)?.head else { return Err(claim::not_found(name)) };
        let status = self.status(name).and_then(|status| status.auto);
        Ok(status.unwrap_or_else(|| self.auto_at_rest(&head)))
    }

    /// How it is when nothing runs that could say more.
    pub(super) fn auto_at_rest(&self, head: &Head) -> AutoPrint {
        print(head.auto, self.dir.auto())
    }
}

/// What is said about automatic checkpoints, and by whom.
pub(crate) fn print(instance: Option<Auto>, host: Option<Auto>) -> AutoPrint {
    let policy = instance.or(host).and_then(Auto::policy);
    AutoPrint {
        every_s: policy.map(|policy| policy.every_s),
        keep: policy.map(|policy| policy.keep.to_string()),
        said_by: match (instance, host) {
            (Some(_), _) => "instance",
            (None, Some(_)) => "host",
            (None, None) => "nobody",
        }
        .to_owned(),
        last: None,
        next_s: None,
        failing: None,
    }
}
