//! Some seeds, kills and meetings, always the same ones: `cargo xtask simulate` does as many as one likes.

use simulation::disk::Unsynced;
use simulation::full::{Full, cut_off, update};
use simulation::kill::{Killed, VERBS, kill};
use simulation::meet::{PAIRS, meet};
use simulation::{Extent, run};

/// Enough to meet every verb and every fault, in seconds.
const SEEDS: u64 = 40;
/// Those that found something; 2375: a checker took what a crash had left for what was there after it
/// had become a branch, and other volumes had been made in its place.
const FOUND: [u64; 2] = [1026, 2375];

#[track_caller]
fn right(killed: Killed) {
    if let Some(text) = killed.violation {
        panic!("{}\n{}: {text}", killed.events.join("\n"), killed.point);
    }
}

#[test]
fn hosts_and_faults_keep_every_promise() {
    simulation::hush();
    for seed in (0..SEEDS).chain(FOUND) {
        let report = run(seed, Extent::Short, false);
        if let Some(text) = report.violation {
            let events = report.events.join("\n");
            panic!("{events}\nseed {seed}: {text}\nagain: cargo xtask simulate --seed {seed}");
        }
    }
}

#[test]
fn a_seed_gives_the_same_trace_twice() {
    simulation::hush();
    for seed in [1, 3, 5, 7] {
        let once = || run(seed, Extent::Short, true);
        let (first, second) = (once(), once());
        let differs =
            first.events.iter().zip(&second.events).find(|(first, second)| first != second);
        assert_eq!(differs, None, "seed {seed}");
        assert_eq!((first.steps, first.trace), (second.steps, second.trace), "seed {seed}");
    }
}

/// Files and threads of this process.
fn open() -> (usize, usize) {
    let count = |folder| std::fs::read_dir(folder).unwrap().count();
    (count("/proc/self/fd"), count("/proc/self/task"))
}

#[test]
fn nothing_stays_open() {
    simulation::hush();
    let before = open();
    for seed in [2, 4, 6] {
        assert_eq!(run(seed, Extent::Short, false).violation, None);
        assert_eq!(open(), before, "after seed {seed}");
    }
}

#[test]
fn a_verb_that_is_killed_leaves_the_old_or_the_new() {
    simulation::hush();
    let mut points = 0;
    for verb in VERBS {
        let before = points;
        for at in (0..).step_by(17) {
            let unsynced = [Unsynced::Torn, Unsynced::Lost, Unsynced::Kept][at as usize % 3];
            let Some(killed) = kill(verb, at, unsynced) else { break };
            points += 1;
            right(killed);
        }
        println!("{} points of {verb}", points - before);
    }
    println!("{points} points of {} verbs", VERBS.len());
    assert!(points > 80, "{points}");
}

#[test]
fn an_update_that_meets_a_full_disk_says_so_and_is_done_when_there_is_room() {
    simulation::hush();
    let steps = [
        "update: fetched",
        "update: point to go back to",
        "update: stopped",
        "update: stored",
        "update: visible",
    ];
    for step in steps {
        for full in [Full::Store, Full::Host] {
            right(update(step, full));
        }
    }
}

#[test]
fn a_new_form_that_works_is_kept_when_that_could_not_be_written_down() {
    simulation::hush();
    right(cut_off(true));
    right(cut_off(false));
}

#[test]
fn verbs_of_two_hosts_meet_at_any_point_and_both_are_right() {
    simulation::hush();
    let mut points = 0;
    for (number, pair) in PAIRS.iter().enumerate() {
        for at in (number as u64 % 7..).step_by(17) {
            let Some(met) = meet(*pair, at) else { break };
            points += 1;
            right(met);
        }
    }
    println!("{points} meetings of {} pairs", PAIRS.len());
    assert!(points > 80, "{points}");
}

/// What a simulation found in a window of one request: two hosts that give one name to two new
/// instances.
#[test]
fn of_two_hosts_that_run_one_name_at_once_none_is_written_over() {
    simulation::hush();
    // Up to the lease: what comes after it is no longer about the name.
    for at in 0..50 {
        right(meet(("run", "run"), at).expect("a run has more points"));
    }
}
