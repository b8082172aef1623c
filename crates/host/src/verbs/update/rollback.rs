//! `rollback`: the version before, under the data as it is now.

use api::UpdatePrint;
use model::{InstanceState, Name};

use super::{POWER_OFF, nothing};
use crate::failure::{Failure, Result};
use crate::record::Why;
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
        if let Some(follow) = &head.follow {
            store.know(&follow.location);
        }
        let update = store.taken_on(&head)?.into_iter().find_map(|id| {
            let checkpoint = store.checkpoint(id).ok()?;
            (checkpoint.why == Why::Update).then_some(checkpoint)
        });
        let Some(update) = update.filter(|update| update.version == head.version) else {
            return Err(Failure::new(
                "not_found",
                format!("{name} has had no update to go back from"),
                format!("`collective history {name}` lists the points that it can go back to"),
            ));
        };
        let back = update.parent.ok_or_else(|| {
            Failure::new("not_found", format!("{name} has nothing before its update"), "")
        })?;
        if self.release_on_trial(&head).is_some_and(|release| !release.update.migrate.is_empty()) {
            return Err(Failure::new(
                "state",
                format!(
                    "the update changed the form of {name}'s data: the version before cannot read it"
                ),
                format!(
                    "`collective undo {name} --to {}` goes back with the data as it was then",
                    back.short()
                ),
            ));
        }
        let before = store.checkpoint(back)?;
        let (from, old) = (store.version(head.version)?, store.version(before.version)?);
        let mut print = nothing(name, &from.version, String::new());
        print.to.clone_from(&old.version);
        print.reason = None;
        let runs = self.runs_here(name)?;
        let mut ports = options.ports.clone();
        if runs {
            if ports.is_empty() {
                ports = self.local(name).read()?.map_or_else(Vec::new, |l| ports::read(&l.ports));
            }
            let label = format!("before rollback to {}", old.version);
            let taken = self.checkpoint_for(name, Some(&label), Why::Checkpoint)?;
            print.checkpoint = Some(taken.checkpoint);
            self.stop(name, force, POWER_OFF)?;
        } else if self.state_of(&store, name)? != InstanceState::Stopped {
            return Err(Failure::new(
                "state",
                format!("{name} is not stopped: its memory belongs to version {}", from.version),
                format!("`collective resume {name}` first"),
            ));
        }
        self.swap(&store, name, before.version, &old.version, None)?;
        // Or the next start would bring it again.
        if let (Ok(maker), Some(follow)) = (self.maker_of(&head), &head.follow) {
            maker.mark_bad(&self.dir, follow.release)?;
        }
        print.rolled_back = true;
        if runs {
            let ports = ports::settle(&ports::free(&ports))?;
            let start = Start::Existing { take_over: false };
            self.start_shim(&store, name, start, &ports, options, began)?;
        }
        Ok(print)
    }
}
