//! Two verbs of two hosts that meet: one is interrupted at each point where it meets the outside, the
//! other is done there from its beginning to its end, and the first one goes on.
//!
//! Random turns find what goes wrong in a window of several requests; here no window is too small.

use crate::chance::Chance;
use crate::check;
use crate::kill::{Killed, act, finished, prepare};
use crate::life::Run;
use crate::world::World;

/// What host 0 does in which situation, and what host 1 does meanwhile.
pub const PAIRS: &[(&str, &str)] = &[
    ("run", "run"),
    ("resume", "resume"),
    ("resume", "undo when suspended"),
    ("checkpoint", "resume elsewhere"),
    ("suspend", "resume elsewhere"),
    ("stop", "resume elsewhere"),
    ("undo", "resume elsewhere"),
    ("auto", "resume elsewhere"),
    ("resume after a crash", "resume elsewhere"),
    ("leftovers to a branch", "gc"),
    ("undo when suspended", "resume"),
    ("fork of a suspended one", "rm"),
    ("back to a branch", "rm of a branch"),
    ("gc", "publish"),
    ("gc", "run"),
    ("gc", "gc"),
    ("gc", "fork"),
    ("checkpoint again", "gc"),
    ("suspend", "gc"),
    ("publish", "gc"),
    ("publish", "publish"),
    ("run, from memory", "gc"),
    ("checkpoint again", "gc, gc, gc"),
    ("suspend", "gc, gc, gc"),
    ("publish", "gc, gc, gc"),
    ("checkpoint again", "gc, and gc long after"),
    ("suspend", "gc, and gc long after"),
    ("publish", "gc, and gc long after"),
];

/// Interrupts the first verb of a pair at its point number `at`; none when it has fewer.
pub fn meet(pair: (&str, &str), at: u64) -> Option<Killed> {
    let world = World::new(7, 2);
    let _simulated = ambient::simulated::simulate(world.clone());
    world.act_for(0);
    let run = Run::new(world.clone(), 2);
    let mut chance = Chance::new(11);
    if let Err(failure) = prepare(&run, pair.0, &mut chance) {
        world.violation(format!("{} cannot be prepared: {failure}", pair.0));
    }
    // Whoever collects finds something that is old enough.
    if pair.1.starts_with("gc") {
        world.wait_ms(crate::life::GRACE_MS * 2);
    }
    world.begin(2);
    world.state().fates[0].passes_in = Some(at);
    std::thread::scope(|scope| {
        for (host, verb) in [(0, pair.0), (1, pair.1)] {
            let (run, world) = (&run, &world);
            scope.spawn(move || {
                world.enter(host);
                run.verb(host, verb, &mut || {
                    let began_ms = world.state().now_ms;
                    let done = act(run, host, verb);
                    check::grace(world, verb, began_ms, &done);
                    done
                });
                world.leave(host);
            });
        }
    });
    let interrupted = world.state().fates[0].passes_in.is_none();
    if !interrupted && !world.failed() {
        return None;
    }
    if !world.failed() {
        run.settle();
    }
    Some(finished(format!("{} at {at}, meanwhile {}", pair.0, pair.1), &world))
}
