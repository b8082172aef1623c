//! `simulate [--seeds N] [--from N] | [--seed S] | [--kill-points EVERY]`: runs seeds, or kills each
//! verb at one in so many of its points, and says what came of it.

use std::collections::BTreeMap;
use std::process::ExitCode;

fn main() -> ExitCode {
    let mut words = std::env::args().skip(1);
    let (mut seeds, mut from, mut one) = (1000, 0, None);
    while let Some(word) = words.next() {
        let mut number = || words.next().and_then(|text| text.parse::<u64>().ok());
        match (word.as_str(), number()) {
            ("--seeds", Some(number)) => seeds = number,
            ("--from", Some(number)) => from = number,
            ("--seed", Some(number)) => one = Some(number),
            ("--kill-points", Some(number)) => return kill_points(number.max(1)),
            _ => {
                eprintln!(
                    "usage: cargo xtask simulate [--seeds N] [--from N] | [--seed S] | \
                     [--kill-points EVERY]"
                );
                return ExitCode::from(2);
            }
        }
    }
    simulation::hush();
    let range = one.map_or(from..from + seeds, |seed| seed..seed + 1);
    let began = ambient::now();
    let (mut ran, mut steps, mut faults) = (0u64, 0u64, BTreeMap::new());
    let mut failed = None;
    for seed in range {
        let report = simulation::run_telling(seed, one.is_some());
        ran += 1;
        steps += report.steps;
        for (name, count) in &report.faults {
            *faults.entry(*name).or_insert(0u64) += count;
        }
        if one.is_some() {
            report.events.iter().for_each(|event| println!("{event}"));
            println!("trace {:016x}", report.trace);
        }
        if report.violation.is_some() {
            failed = Some(report);
            break;
        }
    }
    let seconds = began.elapsed().as_secs_f64();
    println!("{ran} seeds in {seconds:.1} s ({:.1} a second), {steps} steps", ran as f64 / seconds);
    for (name, count) in &faults {
        println!("{count:>10}  {name}");
    }
    match failed {
        None => ExitCode::SUCCESS,
        Some(report) => {
            if one.is_none() {
                let events = report.events.iter().rev().take(60).collect::<Vec<_>>();
                events.iter().rev().for_each(|event| println!("{event}"));
            }
            println!("seed {} failed: {}", report.seed, report.violation.unwrap_or_default());
            println!("again: cargo xtask simulate --seed {}", report.seed);
            ExitCode::FAILURE
        }
    }
}

/// Each verb, killed at one in `every` of its points.
fn kill_points(every: u64) -> ExitCode {
    use simulation::disk::Unsynced;
    simulation::hush();
    let (mut all, mut bad) = (0, 0);
    for verb in simulation::kill::VERBS {
        let mut killed = 0;
        for at in (0..).step_by(every as usize) {
            let unsynced = match at % 3 {
                0 => Unsynced::Torn,
                1 => Unsynced::Lost,
                _ => Unsynced::Kept,
            };
            let Some(outcome) = simulation::kill::kill(verb, at, unsynced) else { break };
            killed += 1;
            if let Some(text) = outcome.violation {
                bad += 1;
                let events = outcome.events.iter().rev().take(25).collect::<Vec<_>>();
                events.iter().rev().for_each(|event| println!("{event}"));
                println!("killed at {}: {text}", outcome.point);
            }
        }
        println!("{killed:>6}  {verb}");
        all += killed;
    }
    println!("{all:>6}  points, {bad} of them with something wrong");
    if bad == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
