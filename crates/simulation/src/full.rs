//! A disk that is full from one step of a verb on, until its user makes room: it is said, nothing is lost,
//! and the next try comes to its end.

use host::Result;
use model::InstanceState;

use crate::chance::Chance;
use crate::disk::Unsynced;
use crate::kill::{Killed, a, act, finished, prepare};
use crate::life::Run;
use crate::world::World;

/// Which disk is full.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Full {
    /// The repository's.
    Store,
    /// The host's own.
    Host,
}

/// Updates, with a full disk from `step` on.
pub fn update(step: &'static str, full: Full) -> Killed {
    let world = World::new(7, 2);
    let _simulated = ambient::simulated::simulate(world.clone());
    world.act_for(0);
    let run = Run::new(world.clone(), 2);
    let mut chance = Chance::new(11);
    let point = format!("update, {full:?} full from {step}");
    if let Err(failure) = prepare(&run, "update", &mut chance) {
        world.violation(format!("{point}: cannot be prepared: {failure}"));
    }
    world.state().fates[0].full_at = Some((step, full));
    let done = act(&run, 0, "update");
    if world.state().fates[0].full_at.take().is_some() {
        world.violation(format!("{point}: {step} was not reached: {done:?}"));
    }
    world.event(0, &format!("{done:?}"));
    if let Err(failure) = &done
        && (failure.kind != "no_space" || failure.hint.is_empty())
    {
        world.violation(format!("{point}: {}: {failure} ({})", failure.kind, failure.hint));
    }
    {
        let mut state = world.state();
        state.store_full = false;
        state.fates[0].full = false;
    }
    if let Err(failure) = again(&run) {
        world.violation(format!("{point}: again, with room: {}: {failure}", failure.kind));
    }
    if !world.failed() {
        run.settle();
    }
    finished(point, &world)
}

/// A version with another form of the data works, and that cannot be written down before its host dies:
/// it has its version when its host has noted so, and else goes back, as nobody knows how far it came.
pub fn cut_off(noted: bool) -> Killed {
    let world = World::new(7, 2);
    let _simulated = ambient::simulated::simulate(world.clone());
    world.act_for(0);
    let run = Run::new(world.clone(), 2);
    let what = format!("a new form, {noted}");
    let done = prepare(&run, "update, to another form", &mut Chance::new(11)).and_then(|()| {
        world.state().fates[0].full_at = Some(("start: runs", Full::Store));
        let print = run.update(0, &a(), "2")?;
        let head = || run.store(0)?.head(&a());
        let Some((_, head_of)) = head()?.head else { return Ok(()) };
        let release = head_of.follow.map(|follow| follow.release.to_string()).unwrap_or_default();
        if !print.applied || head_of.trial.is_none() || print.warnings.is_empty() {
            world.violation(format!("{what}: {print:?}"));
        }
        run.crash(0, Unsynced::Torn);
        world.state().store_full = false;
        if noted {
            let file = run.dirs[0].root().join("instances/a/updates.json");
            std::fs::write(file, format!("{{\"format\": 1, \"well\": \"{release}\"}}"))?;
        }
        run.resume(0, &a(), false)?;
        let Some((_, now)) = head()?.head else { return Ok(()) };
        let version = run.store(0)?.version(now.version)?.version;
        if (version == "2") != noted || now.trial.is_some() {
            world.violation(format!("{what}: it has {version}"));
        }
        Ok(())
    });
    if let Err(failure) = done {
        world.violation(format!("{what}: {}: {failure}", failure.kind));
    }
    if !world.failed() {
        run.settle();
    }
    finished(what, &world)
}

/// There is room again: it runs, and gets its version if it has not got it.
fn again(run: &Run) -> Result<()> {
    let head = || run.store(0)?.head(&a());
    if run.hosts[0].guests().is_empty() {
        run.resume(0, &a(), false)?;
    }
    let Some((_, now)) = head()?.head else { return Ok(()) };
    let number = |version| run.store(0)?.version(version).map(|version| version.version);
    if number(now.version)? != "2" {
        act(run, 0, "update")?;
    }
    let Some((_, now)) = head()?.head else { return Ok(()) };
    let (version, trial) = (number(now.version)?, now.trial.is_some());
    if version != "2" || trial || now.state != InstanceState::Running {
        let text = format!("it has {version}, {:?}, on trial: {trial}", now.state);
        return Err(host::Failure::new("internal", text, ""));
    }
    Ok(())
}
