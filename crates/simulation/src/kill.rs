//! Kill points: a verb is ended at each point where it meets the outside (a request to the store,
//! before it and when it is done but not answered; a change of a local file; a named step), the
//! local disk is cut there, and everything that was promised is looked for.
//!
//! A point is a verb in a situation, the step or the kind of its write, and its occurrence.

use std::sync::Arc;
use std::time::Duration;

use host::auto::Auto;
use host::{ForkOptions, GcOptions, Result, Subject};
use model::Name;

use crate::chance::Chance;
use crate::disk::Unsynced;
use crate::life::{Begin, GRACE_MS, Run, start_options};
use crate::market::Asks;
use crate::world::World;

/// The verbs, each in a situation of its own.
pub const VERBS: &[&str] = &[
    "publish",
    "run",
    "checkpoint",
    "checkpoint again",
    "suspend",
    "suspend when fenced",
    "stop",
    "resume",
    "resume after a crash",
    "resume elsewhere",
    "undo",
    "undo when suspended",
    "fork",
    "fork of a suspended one",
    "gc",
    "gc of what somebody took",
    "auto",
    "publish, running",
    "run, from memory",
    "resume, from memory, after a crash",
    "rm",
    "rm of a branch",
    "leftovers to a branch",
    "leftovers on an automatic checkpoint, to a branch",
    "update",
    "update, to another form",
    "update that does not work",
    "resume with a new version",
    "rollback",
];

/// A policy's minute is over.
const MINUTE_MS: u64 = 61_000;

/// What a kill at one point came to.
#[derive(Debug, Clone)]
pub struct Killed {
    /// `verb: point#occurrence`.
    pub point: String,
    pub violation: Option<String>,
    pub events: Vec<String>,
}

pub(crate) fn a() -> Name {
    Name::new("a").expect("a name of ours")
}

pub(crate) fn work(run: &Run, at: usize, chance: &mut Chance) {
    for (_, cpu) in run.hosts[at].guests() {
        for _ in 0..4 {
            run.work(&cpu, chance);
        }
    }
}

pub(crate) fn prepare(run: &Run, verb: &str, chance: &mut Chance) -> Result<()> {
    let host = run.host(0);
    match verb {
        "publish" | "run" | "publish, running" => return Ok(()),
        "run, from memory" => return run.publish_warm(0, "2", chance),
        "resume, from memory, after a crash" => run.publish_warm(0, "2", chance)?,
        "resume with a new version" | "rollback" => return follow(run, verb, chance),
        _ if verb.starts_with("update") => {
            let migrate = verb.ends_with("form");
            run.maker(&[("1", Asks::default()), ("2", Asks { migrate })])?;
            run.run_signed(0, &a(), "1")?;
            work(run, 0, chance);
            if verb.ends_with("not work") {
                run.world.state().unwell = Some("2");
            }
            return Ok(());
        }
        _ => {}
    }
    let auto = Auto::parse("1m,last=1").expect("a policy of ours");
    let auto = (verb == "auto" || verb.contains("automatic")).then_some(auto);
    run.run_new(0, &a(), &Begin { boot: false, auto })?;

    work(run, 0, chance);
    match verb {
        "checkpoint" | "suspend" | "stop" => return Ok(()),
        "resume, from memory, after a crash" => {
            run.crash(0, Unsynced::Torn);
            return Ok(());
        }
        _ => drop(host.checkpoint(&a(), None)?),
    }
    work(run, 0, chance);
    match verb {
        "suspend when fenced" => {
            run.world.act_for(1);
            run.resume(1, &a(), true)?;
            work(run, 1, chance);
            run.world.act_for(0);
        }
        "rm of a branch" | "back to a branch" => drop(host.undo(&a(), None, &start_options())?),
        "resume" | "undo when suspended" | "fork of a suspended one" => {
            host.suspend(&a(), None)?;
        }
        "resume after a crash" => run.crash(0, Unsynced::Torn),
        "auto" => {
            run.tick(0, MINUTE_MS)?;
            work(run, 0, chance);
        }
        "leftovers on an automatic checkpoint, to a branch" => {
            run.tick(0, MINUTE_MS)?;
            work(run, 0, chance);
            for (_, cpu) in run.hosts[0].guests() {
                cpu.files.sync(2)?;
            }
            run.crash(0, Unsynced::Kept);
            run.world.act_for(1);
            run.resume(1, &a(), true)?;
            // More than are kept of checkpoints, and of the head's generations.
            for _ in 0..12 {
                work(run, 1, chance);
                run.tick(1, MINUTE_MS)?;
            }
            for _ in 0..3 {
                run.world.wait_ms(GRACE_MS * 2);
                run.host(1).repo_gc(&GcOptions::default())?;
            }
            run.world.act_for(0);
        }
        "leftovers to a branch" => {
            run.crash(0, Unsynced::Kept);
            run.world.act_for(1);
            run.resume(1, &a(), true)?;
            work(run, 1, chance);
            run.host(1).suspend(&a(), None)?;
            run.world.act_for(0);
        }
        "resume elsewhere" => {
            run.world.act_for(1);
            run.resume(1, &a(), true)?;
            work(run, 1, chance);
            run.host(1).checkpoint(&a(), None)?;
            run.crash(1, Unsynced::Kept);
            run.crash(0, Unsynced::Kept);
            run.world.act_for(0);
        }
        "gc of what somebody took" => {
            for _ in 0..3 {
                host.checkpoint(&a(), None)?;
                work(run, 0, chance);
            }
            host.undo(&a(), None, &start_options())?;
            for _ in 0..3 {
                host.checkpoint(&a(), None)?;
                work(run, 0, chance);
            }
            host.suspend(&a(), None)?;
        }
        "gc" => {
            let options = fork_options();
            host.fork(&options)?;
            run.world.wait_ms(GRACE_MS * 2);
            host.repo_gc(&GcOptions::default())?;
            run.world.wait_ms(GRACE_MS * 2);
        }
        _ => {}
    }
    Ok(())
}

/// An instance that has a new version, or will have it when it starts.
fn follow(run: &Run, verb: &str, chance: &mut Chance) -> Result<()> {
    run.maker(&[("1", Asks::default()), ("2", Asks::default())])?;
    run.run_signed(0, &a(), "1")?;
    work(run, 0, chance);
    if verb == "rollback" {
        run.update(0, &a(), "2")?;
        work(run, 0, chance);
        return Ok(());
    }
    run.follow(0, &a())?;
    run.host(0).stop(&a(), true, Duration::from_secs(1)).map(drop)
}

fn fork_options() -> ForkOptions {
    ForkOptions {
        name: a(),
        count: 2,
        new_name: None,
        at: None,
        start_them: false,
        start: start_options(),
    }
}

pub(crate) fn act(run: &Run, at: usize, verb: &str) -> Result<()> {
    let host = run.host(at);
    match verb {
        "publish" => run.publish("2", None),
        "publish, running" => run.publish_warm(at, "2", &mut Chance::new(12)),
        "run" | "run, from memory" => run.run_new(at, &a(), &Begin::default()),
        "auto" => run.tick(at, MINUTE_MS),
        "rm" => {
            let head = run.store(at)?.head(&a())?.head;
            if let Some((_, head)) = head {
                run.truth.known().removed.insert(head.instance.to_string());
            }
            host.rm(&a(), true).map(drop)
        }
        "rm of a branch" => match branch(run, at)? {
            Some(tip) => {
                // From its beginning on it is promised no more.
                run.truth.known().told.retain(|(_, told)| *told != tip);
                host.rm_branch(&Subject { name: a(), checkpoint: Some(tip) }, false).map(drop)
            }
            None => Ok(()),
        },
        "back to a branch" => {
            let tip = branch(run, at)?;
            host.undo(&a(), tip.as_deref(), &start_options()).map(drop)
        }
        "checkpoint" | "checkpoint again" => host.checkpoint(&a(), None).map(drop),
        "suspend" | "suspend when fenced" => host.suspend(&a(), None).map(drop),
        "stop" => host.stop(&a(), true, Duration::from_secs(1)).map(drop),
        "undo" | "undo when suspended" => host.undo(&a(), None, &start_options()).map(drop),
        "fork" | "fork of a suspended one" => host.fork(&fork_options()).map(drop),
        "gc" => host.repo_gc(&GcOptions::default()).map(drop),
        // Then what it condemns, and what it removes.
        "gc of what somebody took" => {
            let taken = host::auto::Keep::parse("last=1").ok();
            host.repo_gc(&GcOptions { taken, ..GcOptions::default() })?;
            (0..2).try_for_each(|_| {
                run.world.wait_ms(GRACE_MS * 2);
                host.repo_gc(&GcOptions::default()).map(drop)
            })
        }
        "rollback" => host.rollback(&a(), true, &start_options()).map(drop),
        _ if verb.starts_with("update") => run.update(at, &a(), "2").map(drop),
        // What one condemns, the next removes, if nothing hinders it.
        "gc, gc, gc" => (0..3).try_for_each(|_| host.repo_gc(&GcOptions::default()).map(drop)),
        // What the first condemned, the second could remove; it knows what is named, and who is
        // interrupted goes on before it does.
        "gc, and gc long after" => {
            run.world.wait_ms(GRACE_MS * 2);
            host.repo_gc(&GcOptions::default())?;
            run.world.wait_ms(GRACE_MS * 2);
            run.world.state().fates[at].passes_at = Some("gc: marked");
            host.repo_gc(&GcOptions::default()).map(drop)
        }
        _ => run.resume(at, &a(), true),
    }
}

/// The last checkpoint of a branch of the one instance.
fn branch(run: &Run, at: usize) -> Result<Option<String>> {
    let store = run.store(at)?;
    let Some((_, head)) = store.head(&a())?.head else { return Ok(None) };
    Ok(store.branches(head.instance)?.pop().map(|branch| branch.checkpoint.to_string()))
}

/// Kills `verb` at its point number `at`; none when it has fewer.
pub fn kill(verb: &str, at: u64, unsynced: Unsynced) -> Option<Killed> {
    let world = World::new(7, 2);
    let _simulated = ambient::simulated::simulate(world.clone());
    world.act_for(0);
    let run = Run::new(world.clone(), 2);
    let mut chance = Chance::new(11);
    if let Err(failure) = prepare(&run, verb, &mut chance) {
        world.violation(format!("{verb} cannot be prepared: {failure}"));
    }
    {
        let mut state = world.state();
        state.fates[0].names = Some(Vec::new());
        state.fates[0].crash_in = Some(at);
    }
    let died = run.verb_until_death(0, verb, unsynced, &mut || act(&run, 0, verb));
    let names = world.state().fates[0].names.take().unwrap_or_default();
    if !died && !world.failed() {
        return None;
    }
    let last = names.last().map_or("", String::as_str);
    let kind = |name: &str| {
        let mut words = name.split(['/', ' ']).take(2);
        match (words.next(), words.next()) {
            (Some(verb), Some(key)) if name.contains('/') => format!("{verb} {key}"),
            _ => name.to_owned(),
        }
    };
    let occurrence = names.iter().filter(|name| kind(name) == kind(last)).count();
    let point = format!("{verb}: {}#{occurrence}, {unsynced:?}", kind(last));
    if !world.failed() {
        run.settle();
    }
    Some(finished(point, &world))
}

pub(crate) fn finished(point: String, world: &Arc<World>) -> Killed {
    let state = world.state();
    let events = state.events.iter().cloned().collect();
    Killed { point, violation: state.violation.clone(), events }
}
