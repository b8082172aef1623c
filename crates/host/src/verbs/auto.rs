//! `checkpoint NAME --every ...`: how checkpoints of an instance are taken by themselves.

use std::time::Duration;

use api::{AutoPrint, Reply, Request};
use model::{CheckpointId, Generation, InstanceState, Name};

use crate::Host;
use crate::auto::{Auto, Keep, Policy, Said};
use crate::failure::{Failure, Result};
use crate::record::Head;
use crate::shim::claim;
use crate::store::retain::Asked;
use crate::store::{Advance, Store};

/// One advance of the head, which a shim may do after what it is doing now.
const TIMEOUT: Duration = Duration::from_secs(600);

/// What of a policy is to be changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AutoChange {
    /// As its maker says, else the host that runs it.
    Default,
    Off,
    /// What is none stays as it was.
    Set {
        every_s: Option<u64>,
        /// 0: however much is written.
        dirtied_bytes: Option<u64>,
        keep: Option<Keep>,
    },
}

impl From<Auto> for AutoChange {
    fn from(auto: Auto) -> Self {
        match auto {
            Auto::Off => Self::Off,
            Auto::On(Policy { every_s, dirtied_bytes, keep }) => Self::Set {
                every_s: Some(every_s),
                dirtied_bytes: Some(dirtied_bytes.unwrap_or(0)),
                keep: Some(keep),
            },
        }
    }
}

impl AutoChange {
    /// What its user is to say after `now` held.
    pub(super) fn apply(self, now: Option<Auto>) -> Result<Option<Auto>> {
        let before = now.and_then(Auto::policy);
        let (every_s, dirtied_bytes, keep) = match self {
            Self::Default => return Ok(None),
            Self::Off => return Ok(Some(Auto::Off)),
            Self::Set { every_s, dirtied_bytes, keep } => (every_s, dirtied_bytes, keep),
        };
        let Some(every_s) = every_s.or(before.map(|policy| policy.every_s)) else {
            return Err(Failure::new(
                "usage",
                "no checkpoints are taken by themselves: how often is not said",
                "add for example --every 5m",
            ));
        };
        let dirtied_bytes = dirtied_bytes.or(before.and_then(|policy| policy.dirtied_bytes));
        Ok(Some(Auto::On(Policy {
            every_s,
            dirtied_bytes: dirtied_bytes.filter(|bytes| *bytes > 0),
            keep: keep.or(before.map(|policy| policy.keep)).unwrap_or_default(),
        })))
    }
}

impl Host {
    /// Changes how checkpoints of an instance are taken by themselves; gives how it is now.
    pub fn set_auto(&self, name: &Name, change: AutoChange) -> Result<AutoPrint> {
        let store = self.writable_store()?;
        let Some((generation, head)) = store.head(name)?.head else {
            return Err(claim::not_found(name));
        };
        let auto = change.apply(self.said(&store, &head)?.holds())?;
        let request = Request::SetAuto { auto: auto.map(|auto| auto.to_string()) };
        self.say(&store, generation, Head { auto, ..head }, &request)
    }

    /// Changes what a collection keeps of what somebody took on an instance's line; None: what it is told.
    pub fn set_keep_taken(&self, name: &Name, keep_taken: Option<Keep>) -> Result<AutoPrint> {
        let store = self.writable_store()?;
        let Some((generation, head)) = store.head(name)?.head else {
            return Err(claim::not_found(name));
        };
        let request = Request::SetKeepTaken { keep: keep_taken.map(|keep| keep.to_string()) };
        self.say(&store, generation, Head { keep_taken, ..head }, &request)
    }

    /// Advances a head that rests, or asks who runs it.
    fn say(
        &self,
        store: &Store,
        generation: Generation,
        head: Head,
        request: &Request,
    ) -> Result<AutoPrint> {
        let name = &head.name;
        if self.runs_here(name)? {
            self.ask_done(name, request)?;
            return self.auto_print(store, name);
        }
        if let Some(lease) = head.lease.as_ref().filter(|lease| lease.holder != self.dir.id()) {
            return Err(Failure::new(
                "lease",
                format!("{name} runs on host {}", lease.holder_name),
                "set it there, or when it is suspended",
            ));
        }
        if self.state_of(store, name)? == InstanceState::Failed {
            // Its volumes belong to the generation at which it crashed.
            return Err(Failure::new(
                "state",
                format!("{name} has failed"),
                format!("`collective resume {name}` or `collective undo {name}` first"),
            ));
        }
        if store.advance(generation, &head)? == Advance::Fenced {
            return Err(Failure::new(
                "fenced",
                format!("another host has moved {name} meanwhile"),
                "`collective ps` shows where it is; do it again",
            ));
        }
        self.auto_print(store, name)
    }

    fn ask_done(&self, name: &Name, request: &Request) -> Result<()> {
        match self.dir.doors().ask(self.local(name).path(), request, TIMEOUT) {
            Ok(Reply::Done { .. }) => Ok(()),
            Ok(other) => Err(Failure::new("internal", format!("unexpected reply {other:?}"), "")),
            Err(failure) => Err(super::ask::named(failure, name)),
        }
    }

    /// Asks who runs an instance to let checkpoints of its line go.
    pub(super) fn ask_to_forget(&self, asked: &Asked) -> Result<()> {
        let name = &asked.head.name;
        if self.runs_here(name)? {
            let checkpoints = asked.checkpoints.iter().map(CheckpointId::to_string).collect();
            let generation = asked.generation.0;
            return self.ask_done(name, &Request::Forget { generation, checkpoints });
        }
        Err(match asked.head.lease.as_ref().filter(|lease| lease.holder != self.dir.id()) {
            Some(lease) => Failure::new(
                "lease",
                format!("{name} runs on host {}", lease.holder_name),
                "do it there, or when it is suspended",
            ),
            // Its volumes belong to the generation at which it crashed.
            None => Failure::new(
                "state",
                format!("{name} has failed"),
                format!("`collective resume {name}` or `collective undo {name}` first"),
            ),
        })
    }

    fn auto_print(&self, store: &Store, name: &Name) -> Result<AutoPrint> {
        let Some((_, head)) = store.head(name)?.head else { return Err(claim::not_found(name)) };
        let status = self.status(name).and_then(|status| status.auto);
        let print = status.map_or_else(|| self.said(store, &head).map(print), Ok)?;
        Ok(AutoPrint { keep_taken: head.keep_taken.map(|keep| keep.to_string()), ..print })
    }

    /// What is said about an instance.
    pub(super) fn said(&self, store: &Store, head: &Head) -> Result<Said> {
        let maker = store.version(head.version)?.auto;
        Ok(Said { instance: head.auto, maker, host: self.dir.auto() })
    }
}

/// How it is when nothing runs that could say more.
pub(crate) fn print(said: Said) -> AutoPrint {
    let policy = said.holds().and_then(Auto::policy);
    AutoPrint {
        every_s: policy.map(|policy| policy.every_s),
        dirtied_bytes: policy.and_then(|policy| policy.dirtied_bytes),
        keep: policy.map(|policy| policy.keep.to_string()),
        keep_taken: None,
        said_by: said.by().to_owned(),
        last: None,
        next_s: None,
        failing: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What its user says alone, on top of what the maker and the host say.
    #[track_caller]
    fn check(said: [&str; 3], change: AutoChange, expected: &str) {
        let [instance, maker, host] =
            said.map(|text| Some(text).filter(|text| !text.is_empty()).map(auto));
        let said = Said { instance, maker, host };
        let next = match change.apply(said.holds()) {
            Ok(instance) => Said { instance, ..said },
            Err(failure) => return assert_eq!(failure.hint, expected),
        };
        let holds = next.holds().map_or_else(String::new, |auto| auto.to_string());
        assert_eq!(format!("{}: {holds}", next.by()), expected);
    }

    fn auto(text: &str) -> Auto {
        Auto::parse(text).unwrap()
    }

    #[test]
    fn the_user_goes_before_the_maker_and_the_maker_before_the_host() {
        let nothing = AutoChange::Set { every_s: None, dirtied_bytes: None, keep: None };
        let set = |every_s, dirtied_bytes| AutoChange::Set { every_s, dirtied_bytes, keep: None };
        let keep = AutoChange::Set {
            every_s: None,
            dirtied_bytes: None,
            keep: Some(Keep::parse("last=3").unwrap()),
        };
        let maker = "5m,dirtied=256MiB,last=2";
        check(["", "", ""], AutoChange::Default, "nobody: ");
        check(["", "", "1h,last=1"], AutoChange::Default, "host: 1h,last=1");
        check(["", maker, "1h,last=1"], AutoChange::Default, &format!("maker: {maker}"));
        check(["", maker, "off"], AutoChange::Default, &format!("maker: {maker}"));
        check(["off", maker, ""], AutoChange::Default, &format!("maker: {maker}"));
        check(["", maker, ""], AutoChange::Off, "instance: off");
        // What is not changed stays, whoever said it.
        check(["", maker, ""], keep, "instance: 5m,dirtied=256MiB,last=3");
        check(["", maker, ""], set(Some(60), None), "instance: 1m,dirtied=256MiB,last=2");
        check(["", maker, ""], set(None, Some(0)), "instance: 5m,last=2");
        check(["", "", "1h,last=1"], set(None, Some(1 << 20)), "instance: 1h,dirtied=1MiB,last=1");
        check(["2m,last=9", maker, ""], nothing, "instance: 2m,last=9");
        check(["", "", ""], keep, "add for example --every 5m");
        check(["off", maker, ""], set(None, Some(1 << 20)), "add for example --every 5m");
        check([maker, "", ""], AutoChange::from(auto("1h,last=4")), "instance: 1h,last=4");
    }
}
