//! `undo`: back to a checkpoint. What is undone is kept as a branch.

use api::UndoPrint;
use model::{InstanceState, Name};

use super::StartOptions;
use crate::failure::{Failure, Result};
use crate::record::Head;
use crate::shim::claim;
use crate::shim::order::Start;
use crate::store::{Advance, Store};
use crate::{Host, ports};

impl Host {
    /// Goes back to checkpoint `to` (default: the last one; when nothing has happened since, the
    /// one before). A running instance runs on from there.
    pub fn undo(&self, name: &Name, to: Option<&str>, options: &StartOptions) -> Result<UndoPrint> {
        let began = ambient::now();
        let store = self.writable_store()?;
        let Some((_, head)) = store.head(name)?.head else {
            return Err(claim::not_found(name));
        };
        let runs_here = self.runs_here(name)?;
        let state = self.state_of(&store, name)?;
        if state == InstanceState::Running && !runs_here {
            let host = head.lease.map_or_else(String::new, |lease| lease.holder_name);
            return Err(Failure::new(
                "lease",
                format!("{name} runs on host {host}"),
                "undo it there, or suspend it there first",
            ));
        }
        let target = match (to, head.checkpoint) {
            (Some(wanted), _) => store.find_checkpoint(&head, wanted)?,
            (None, Some(last)) if runs_here || state == InstanceState::Failed => last,
            (None, Some(last)) => store.checkpoint(last)?.parent.ok_or_else(|| nothing(name))?,
            (None, None) => return Err(nothing(name)),
        };
        // Only what can be reached is ever given up: the target is read first.
        let target_record = store.checkpoint(target)?;

        let mut ports = options.ports.clone();
        if ports.is_empty() {
            ports = self.remembered_ports_of_running(name, runs_here)?;
        }
        let branch = if runs_here {
            Some(self.suspend_as(name, Some("undone"), true)?.checkpoint)
        } else if state == InstanceState::Failed {
            self.leftovers_to_branch(&store, name)?
        } else {
            head.checkpoint.filter(|last| *last != target).map(|id| id.to_string())
        };

        let (generation, current) = match store.head(name)?.head {
            Some(found) => found,
            None => return Err(claim::not_found(name)),
        };
        if !runs_here
            && let Some(last) = current.checkpoint
            && last != target
        {
            // The line after the target would be unreachable: it becomes a branch.
            store.add_branch(&current, last)?;
        }
        let resumed = if target_record.memory.is_some() {
            InstanceState::Suspended
        } else {
            InstanceState::Stopped
        };
        let moved = Head {
            checkpoint: Some(target),
            state: resumed,
            lease: None,
            // Its memory goes on a second time from there: it must not draw the same randomness.
            vmgenid: ambient::random(),
            ..current
        };
        if store.advance(generation, &moved)? == Advance::Fenced {
            return Err(Failure::new(
                "fenced",
                format!("another host has moved {name} meanwhile"),
                "`collective ps` shows where it is; nothing was lost",
            ));
        }
        let mut state = moved.state;
        if runs_here {
            for port in &mut ports {
                if ports::settle(std::slice::from_ref(port)).is_err() {
                    port.host_port = 0;
                }
            }
            let ports = ports::settle(&ports)?;
            let start = Start::Existing { take_over: false };
            self.start_shim(&store, name, start, &ports, options, began)?;
            state = InstanceState::Running;
        }
        Ok(UndoPrint {
            name: name.to_string(),
            checkpoint: target.to_string(),
            branch,
            state: state.as_str().to_owned(),
        })
    }

    fn remembered_ports_of_running(&self, name: &Name, runs: bool) -> Result<Vec<model::PortMap>> {
        // While it runs its ports are taken, by itself: they are free when it is started again.
        if runs {
            Ok(self.local(name).read()?.map_or_else(Vec::new, |local| ports::read(&local.ports)))
        } else {
            self.remembered_ports(name)
        }
    }

    /// What a crashed instance had written since its last checkpoint becomes a branch.
    pub(super) fn leftovers_to_branch(&self, store: &Store, name: &Name) -> Result<Option<String>> {
        crate::shim::leftovers::to_branch(store, &self.dir, name)
            .map(|id| id.map(|id| id.to_string()))
    }
}

fn nothing(name: &Name) -> Failure {
    Failure::new(
        "not_found",
        format!("{name} has no checkpoint to go back to"),
        format!("`collective checkpoint {name}` takes one; `collective history {name}` lists them"),
    )
}
