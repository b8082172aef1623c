//! The verbs that change one instance: `pause`, `unpause`, `suspend`, `checkpoint`, `stop`, `rm`.

use std::io::{IsTerminal, Write};
use std::time::Duration;

use api::{CheckpointPrint, StatePrint};
use host::{Failure, Subject};
use model::format_bytes;

use super::{name, open};
use crate::cli::{Checkpoint, Global, One, Rm, Stop, Suspend};
use crate::print::{self, duration};

pub fn pause(global: &Global, verb: &One) -> Result<(), Failure> {
    print_state(global, &open(global)?.pause(&name(&verb.name)?)?);
    Ok(())
}

pub fn unpause(global: &Global, verb: &One) -> Result<(), Failure> {
    print_state(global, &open(global)?.unpause(&name(&verb.name)?)?);
    Ok(())
}

pub fn suspend(global: &Global, verb: &Suspend) -> Result<(), Failure> {
    if super::fleet::decides() {
        return super::fleet::suspend(global, verb);
    }
    let done = open(global)?.suspend(&name(&verb.name)?, verb.label.as_deref())?;
    print::result(global, &done, || {
        format!(
            "{} is suspended: {}\ngo on with it on any host: collective resume {}",
            verb.name,
            describe(&done),
            verb.name
        )
    });
    Ok(())
}

pub fn checkpoint(global: &Global, verb: &Checkpoint) -> Result<(), Failure> {
    let taken = super::auto::keep_taken(verb.keep_taken.as_deref())?;
    let change = super::auto::change(&verb.auto)?;
    let (name, host) = (name(&verb.name)?, open(global)?);
    let mut set = taken.map(|keep| host.set_keep_taken(&name, keep)).transpose()?;
    if let Some(change) = change {
        set = Some(host.set_auto(&name, change)?);
    }
    if let Some(set) = set {
        print::result(global, &set, || format!("{}: {}", verb.name, super::auto::describe(&set)));
        return Ok(());
    }
    let done = host.checkpoint(&name, verb.label.as_deref())?;
    print::result(global, &done, || describe(&done));
    Ok(())
}

pub fn stop(global: &Global, verb: &Stop) -> Result<(), Failure> {
    if super::fleet::decides() {
        return super::fleet::stop(global, verb);
    }
    let name = name(&verb.name)?;
    let timeout = Duration::from_secs(verb.timeout);
    print_state(global, &open(global)?.stop(&name, verb.force, timeout)?);
    Ok(())
}

pub fn rm(global: &Global, verb: &Rm) -> Result<(), Failure> {
    let subject = Subject::parse(&verb.name)?;
    let host = open(global)?;
    host.find(&subject.name)?;
    let what = match subject.checkpoint {
        Some(_) => format!("{}, or the branch that ends with it", verb.name),
        None => format!("{} and its whole history", subject.name),
    };
    if !verb.yes && !verb.force && std::io::stdin().is_terminal() {
        let _ = write!(std::io::stderr(), "Remove {what}? [y/N] ");
        let mut answer = String::new();
        std::io::stdin().read_line(&mut answer)?;
        if !answer.trim().eq_ignore_ascii_case("y") {
            return Err(Failure::new("usage", "nothing was removed", "answer y, or use --yes"));
        }
    }
    let done = match subject.checkpoint {
        Some(_) => host.rm_branch(&subject, verb.force)?,
        None => host.rm(&subject.name, verb.force)?,
    };
    print_state(global, &done);
    Ok(())
}

fn describe(done: &CheckpointPrint) -> String {
    format!(
        "checkpoint {} (paused {:.0} ms, {} in all): {} written, {} stored, {} reused",
        &done.checkpoint[..12],
        done.pause_ms,
        duration(done.total_ms),
        format_bytes(done.dirty_bytes),
        format_bytes(done.stored_bytes),
        format_bytes(done.reused_bytes),
    )
}

fn print_state(global: &Global, done: &StatePrint) {
    print::result(global, done, || format!("{} is {}", done.name, done.state));
}
