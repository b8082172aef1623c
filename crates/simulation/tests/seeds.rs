//! Some seeds, always the same ones: `cargo xtask simulate` runs as many as one likes.

use simulation::disk::Unsynced;

/// Enough to meet every verb and every fault, in seconds.
const SEEDS: u64 = 40;

#[test]
fn hosts_and_faults_keep_every_promise() {
    simulation::hush();
    for seed in 0..SEEDS {
        let report = simulation::run(seed);
        if let Some(text) = report.violation {
            let events = report.events.join("\n");
            panic!("{events}\nseed {seed}: {text}\nagain: cargo xtask simulate --seed {seed}");
        }
    }
}

#[test]
fn a_seed_gives_the_same_trace_twice() {
    simulation::hush();
    for seed in [1, 5] {
        let (first, second) = (simulation::run(seed), simulation::run(seed));
        assert_eq!(first.steps, second.steps, "seed {seed}");
        assert_eq!(first.trace, second.trace, "seed {seed}");
    }
}

#[test]
fn a_verb_that_is_killed_leaves_the_old_or_the_new() {
    simulation::hush();
    let mut points = 0;
    for verb in simulation::kill::VERBS {
        for at in (0..).step_by(17) {
            let unsynced = [Unsynced::Torn, Unsynced::Lost, Unsynced::Kept][at as usize % 3];
            let Some(killed) = simulation::kill::kill(verb, at, unsynced) else { break };
            points += 1;
            if let Some(text) = killed.violation {
                panic!("{}\nkilled at {}: {text}", killed.events.join("\n"), killed.point);
            }
        }
    }
    println!("{points} points of {} verbs", simulation::kill::VERBS.len());
    assert!(points > 30, "{points}");
}
