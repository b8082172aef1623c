//! `rollback`: the version before, under the data as it is now.

use api::UpdatePrint;
use model::{InstanceState, Name};

use super::dress::{can_run, fits};
use super::swap::Swap;
use super::{POWER_OFF, no_maker, nothing, on_trial, parse_id};
use crate::failure::{Failure, Result};
use crate::makers::document::HEALTHY_WITHIN_S;
use crate::record::{Change, Why};
use crate::shim::claim;
use crate::shim::order::Start;
use crate::verbs::StartOptions;
use crate::{Host, ports};

impl Host {
    /// Goes back to the version before, with the data as it is now.
    pub fn rollback(
        &self,
        name: &Name,
        force: bool,
        options: &StartOptions,
    ) -> Result<UpdatePrint> {
        let began = ambient::now();
        let store = self.writable_store()?;
        let Some((_, head)) = store.head(name)?.head else { return Err(claim::not_found(name)) };
        let Some(follow) = &head.follow else { return Err(no_maker(&head)) };
        store.know(&follow.location);
        if head.trial.is_some() {
            return Err(on_trial(name));
        }
        let Some((_, update, change)) = store.last_change(&head)?.filter(|(_, _, c)| c.tried)
        else {
            return Err(Failure::new(
                "not_found",
                format!("{name} has had no update to go back from"),
                format!("`collective history {name}` lists the points that it can go back to"),
            ));
        };
        let back = update.parent.ok_or_else(|| {
            Failure::new("not_found", format!("{name} has nothing before its update"), "")
        })?;
        if !change.migrate.is_empty() {
            return Err(Failure::new(
                "state",
                format!(
                    "the update changed the form of {name}'s data: the version before cannot read it"
                ),
                format!(
                    "`collective undo {name} --to {}` goes back with the data as it was then",
                    change.back.unwrap_or(back).short()
                ),
            ));
        }
        let before = store.checkpoint(back)?;
        let (from, old) = (store.version(head.version)?, store.version(before.version)?);
        let mut print = nothing(name, &from.version, String::new());
        print.to.clone_from(&old.version);
        print.reason = None;
        // Said before anything is stopped.
        fits(name, &from, &old)?;
        can_run(&old)?;
        self.has_room()?;
        let runs = self.runs_here(name)?;
        let (mut point, mut ports) = (None, options.ports.clone());
        if runs {
            if ports.is_empty() {
                ports = self.local(name).read()?.map_or_else(Vec::new, |l| ports::read(&l.ports));
            }
            let label = format!("before rollback to {}", old.version);
            let taken = self.checkpoint_for(name, Some(&label), Why::Checkpoint)?;
            self.stop(name, force, POWER_OFF)?;
            point = Some(parse_id(&taken.checkpoint)?);
            print.checkpoint = Some(taken.checkpoint);
        } else if self.state_of(&store, name)? != InstanceState::Stopped {
            return Err(Failure::new(
                "state",
                format!("{name} is not stopped: its memory belongs to version {}", from.version),
                format!("`collective resume {name}` first"),
            ));
        }
        let undoes = Change {
            from: follow.release,
            to: change.from,
            back: None,
            tried: false,
            within_s: HEALTHY_WITHIN_S,
            migrate: Vec::new(),
            health: Vec::new(),
        };
        let (version, number) = (before.version, old.version.as_str());
        let swap = Swap { name, version, number, change: undoes, back: point };
        if let Err(failure) = self.swap(&store, &swap) {
            return Err(self.unswapped(&store, name, point, &ports, options, failure));
        }
        // Or the next start would bring it again.
        if let Ok(maker) = self.maker_of(&head) {
            let _ = maker.mark_bad(&self.dir, follow.release);
        }
        print.rolled_back = true;
        if runs {
            let ports = ports::settle(&ports::free(&ports))?;
            let start = Start::Existing { take_over: false, at: None };
            self.start_shim(&store, name, start, &ports, options, began)?;
        }
        Ok(print)
    }
}
