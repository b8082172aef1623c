//! `fork`: new instances from the same point, each with an identity of its own.

use api::ForkPrint;
use model::{CheckpointId, InstanceId, InstanceState, Name};

use super::ForkOptions;
use crate::failure::{Failure, Result};
use crate::record::{Head, Why};
use crate::shim::claim;
use crate::shim::order::Start;
use crate::store::{Advance, Store};
use crate::{Host, ports};

impl Host {
    /// Forks an instance: as it is now, or from a checkpoint or branch of it.
    pub fn fork(&self, options: &ForkOptions) -> Result<ForkPrint> {
        let store = self.writable_store()?;
        let name = &options.name;
        let Some((_, parent)) = store.head(name)?.head else {
            return Err(self.absent(&store, name));
        };
        let names = self.fork_names(&store, options)?;
        let (checkpoint, pause_ms) = self.fork_point(&store, options, &parent)?;
        let checkpoint_record = store.checkpoint(checkpoint)?;
        let follow = store.follow_at(&parent, checkpoint, &checkpoint_record)?;

        for new_name in &names {
            ambient::step("fork: name");
            let head = Head {
                instance: InstanceId::from_bytes(ambient::random()),
                name: new_name.clone(),
                appliance: parent.appliance.clone(),
                version: checkpoint_record.version,
                state: if checkpoint_record.memory.is_some() {
                    InstanceState::Suspended
                } else {
                    InstanceState::Stopped
                },
                lease: None,
                checkpoint: Some(checkpoint),
                origin: Some(checkpoint),
                macs: claim::fresh_macs(parent.macs.len()),
                vmgenid: ambient::random(),
                fresh: true,
                warm: false,
                auto: parent.auto,
                autos: Vec::new(),
                holds: Vec::new(),
                left: None,
                follow: follow.clone(),
                trial: Store::trial_at(&checkpoint_record)
                    .filter(|trial| !parent.gone.contains(&trial.back)),
                network: parent.network.clone(),
                gone: parent.gone.clone(),
                keep_taken: parent.keep_taken,
                parcel: None,
            };
            let current = store.head(new_name)?;
            if current.head.is_some()
                || store.advance(current.generation, &head)? == Advance::Fenced
            {
                return Err(taken(new_name));
            }
        }

        ambient::step("fork: named");
        let mut starts = Vec::new();
        if options.start_them {
            let wanted = self.fork_ports(options)?;
            for new_name in &names {
                let began = ambient::now();
                let ports = ports::settle(&wanted)?;
                let start = Start::Existing { take_over: false, at: None };
                starts.push(
                    self.start_on_trial(&store, new_name, start, &ports, &options.start, began)
                        .map_err(|failure| failure.during(format!("starting {new_name}")))?,
                );
            }
        }
        Ok(ForkPrint {
            instances: names.iter().map(ToString::to_string).collect(),
            pause_ms,
            checkpoint: checkpoint.to_string(),
            starts,
        })
    }

    /// The checkpoint to fork from, and how long the parent stood still for it.
    fn fork_point(
        &self,
        store: &Store,
        options: &ForkOptions,
        parent: &Head,
    ) -> Result<(CheckpointId, f64)> {
        let name = &options.name;
        if let Some(wanted) = &options.at {
            return Ok((store.find_checkpoint(parent, wanted)?, 0.0));
        }
        if self.runs_here(name)? {
            let taken = self.checkpoint_for(name, None, Why::Fork)?;
            let id = taken
                .checkpoint
                .parse()
                .map_err(|_| Failure::new("internal", "the shim named no checkpoint", ""))?;
            return Ok((id, taken.pause_ms));
        }
        match parent.checkpoint {
            Some(id) if parent.state != InstanceState::Running => Ok((id, 0.0)),
            _ => Err(Failure::new(
                "state",
                format!("{name} does not run on this host, and is not suspended"),
                format!(
                    "fork it where it runs; or one of its checkpoints: `collective fork {name} --at \
                     CHECKPOINT` (`collective history {name}` lists them)"
                ),
            )),
        }
    }

    /// The ports of the forks: as asked, else the parent's guest ports on free host ports.
    fn fork_ports(&self, options: &ForkOptions) -> Result<Vec<model::PortMap>> {
        if !options.start.ports.is_empty() {
            return Ok(options.start.ports.clone());
        }
        let mut ports = self
            .local(&options.name)
            .read()?
            .map_or_else(Vec::new, |local| crate::ports::read(&local.ports));
        for port in &mut ports {
            port.host_port = 0;
        }
        Ok(ports)
    }

    fn fork_names(&self, store: &Store, options: &ForkOptions) -> Result<Vec<Name>> {
        let name_of = |text: String| {
            Name::new(&text)
                .map_err(|e| Failure::new("usage", e.to_string(), "choose one with --name"))
        };
        let is_free = |name: &Name| -> Result<bool> {
            // A start that failed leaves a folder with its log: that takes no name.
            Ok(store.head(name)?.head.is_none() && self.local(name).read()?.is_none())
        };
        if let Some(new_name) = &options.new_name {
            let names = if options.count == 1 {
                vec![new_name.clone()]
            } else {
                (1..=options.count)
                    .map(|number| name_of(format!("{new_name}-{number}")))
                    .collect::<Result<_>>()?
            };
            for name in &names {
                if !is_free(name)? {
                    return Err(taken(name));
                }
            }
            return Ok(names);
        }
        let mut names = Vec::new();
        for number in 1..=10_000 {
            if names.len() as u32 == options.count {
                break;
            }
            let name = name_of(format!("{}-fork-{number}", options.name))?;
            if is_free(&name)? {
                names.push(name);
            }
        }
        Ok(names)
    }
}

fn taken(name: &Name) -> Failure {
    Failure::new(
        "exists",
        format!("there is an instance {name} already"),
        format!("choose another --name, or `collective rm {name}`"),
    )
}
