//! `cargo xtask simulate`: runs seeds, kills each verb at its points, or lets verbs of two hosts meet,
//! and says what came of it.

use std::collections::{BTreeMap, BTreeSet};
use std::process::ExitCode;

use simulation::disk::Unsynced;
use simulation::kill::{Killed, VERBS, kill};
use simulation::meet::{PAIRS, meet};
use simulation::{Extent, Report};

const USAGE: &str = "\
usage: cargo xtask simulate [--seeds N] [--from N]   N seeds from that one on
       cargo xtask simulate --seed S                 one of them, step by step
       cargo xtask simulate --hours H [--seed S]     one long life of random verbs, by the virtual clock
       cargo xtask simulate --kill-points N          kills at about N points, of all verbs; 0: at every one
       cargo xtask simulate --meetings N             interrupts a verb by another host's; 0: at every point
       ... --verb WORDS                              only of verbs whose name has these words";

fn main() -> ExitCode {
    let mut words = std::env::args().skip(1);
    let (mut seeds, mut from, mut one, mut hours) = (1000, 0, None, None);
    let mut every_point: Option<fn(u64, &str) -> ExitCode> = None;
    let (mut wanted, mut verb) = (0, String::new());
    while let Some(word) = words.next() {
        if word == "--verb" {
            verb = words.next().unwrap_or_default();
            continue;
        }
        let number = words.next().and_then(|text| text.parse::<u64>().ok());
        let Some(number) = number else {
            eprintln!("{USAGE}");
            return ExitCode::from(2);
        };
        match word.as_str() {
            "--seeds" => seeds = number,
            "--from" => from = number,
            "--seed" => one = Some(number),
            "--hours" => hours = Some(number),
            "--kill-points" => {
                every_point = Some(kill_points);
                wanted = number;
            }
            "--meetings" => {
                every_point = Some(meetings);
                wanted = number;
            }
            _ => {
                eprintln!("{USAGE}");
                return ExitCode::from(2);
            }
        }
    }
    simulation::hush();
    match (every_point, hours) {
        (Some(run), _) => run(wanted, &verb),
        (None, Some(hours)) => run_seeds(&[one.unwrap_or(from)], Extent::Hours(hours), false),
        (None, None) => match one {
            Some(seed) => run_seeds(&[seed], Extent::Short, true),
            None => run_seeds(&(from..from + seeds).collect::<Vec<_>>(), Extent::Short, false),
        },
    }
}

fn run_seeds(seeds: &[u64], extent: Extent, tell: bool) -> ExitCode {
    let began = ambient::now();
    let (mut ran, mut steps, mut virtual_ms) = (0u64, 0u64, 0u64);
    let (mut faults, mut verbs) = (BTreeMap::new(), BTreeMap::new());
    let mut failed: Option<Report> = None;
    for seed in seeds {
        let report = simulation::run(*seed, extent, tell);
        ran += 1;
        steps += report.steps;
        virtual_ms += report.virtual_ms;
        for (all, these) in [(&mut faults, &report.faults), (&mut verbs, &report.verbs)] {
            for (name, count) in these {
                *all.entry(name.clone()).or_insert(0u64) += count;
            }
        }
        if tell {
            report.events.iter().for_each(|event| println!("{event}"));
            println!("trace {:016x}", report.trace);
        }
        if report.violation.is_some() {
            failed = Some(report);
            break;
        }
    }
    let seconds = began.elapsed().as_secs_f64();
    println!(
        "{ran} seeds in {seconds:.1} s ({:.1} a second), {steps} steps, {} virtual hours",
        ran as f64 / seconds,
        virtual_ms / 3_600_000
    );
    for (name, count) in faults.iter().chain(&verbs) {
        println!("{count:>10}  {name}");
    }
    let Some(report) = failed else { return ExitCode::SUCCESS };
    if !tell {
        report.events.iter().for_each(|event| println!("{event}"));
    }
    println!("seed {} failed: {}", report.seed, report.violation.unwrap_or_default());
    println!("again: cargo xtask simulate --seed {}", report.seed);
    ExitCode::FAILURE
}

/// What points were tried, and what was wrong.
#[derive(Default)]
struct Tried {
    /// Without what became of what was not synced.
    points: BTreeSet<String>,
    all: u64,
    bad: u64,
}

impl Tried {
    fn count(&mut self, killed: Killed) {
        self.all += 1;
        if let Some(text) = killed.violation {
            self.bad += 1;
            killed.events.iter().for_each(|event| println!("{event}"));
            println!("{}: {text}", killed.point);
        }
        let kinds =
            [Unsynced::Torn, Unsynced::Lost, Unsynced::Kept].map(|kind| format!(", {kind:?}"));
        let point = kinds.iter().find_map(|kind| killed.point.strip_suffix(kind.as_str()));
        self.points.insert(point.unwrap_or(&killed.point).to_owned());
    }

    fn end(self, what: &str) -> ExitCode {
        // Where they are, whatever the verb: without the verb and the occurrence.
        let mut kinds: BTreeMap<&str, u64> = BTreeMap::new();
        for point in self.points.iter().filter_map(|point| point.split_once(": ")) {
            let kind = point.1.rsplit_once('#').map_or(point.1, |(kind, _)| kind);
            *kinds.entry(kind).or_insert(0) += 1;
        }
        kinds.iter().for_each(|(kind, count)| println!("{count:>6}  at {kind}"));
        println!(
            "{:>6}  {what}, at {} distinct points; {} of them with something wrong",
            self.all,
            self.points.len(),
            self.bad
        );
        if self.bad == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
    }
}

/// Points of all together, about: what a run without a limit counts.
const POINTS: u64 = 4_000;

/// Each verb, killed at its points, with what was not synced kept, lost and torn.
fn kill_points(wanted: u64, of: &str) -> ExitCode {
    let every = POINTS.checked_div(wanted).unwrap_or(1).max(1);
    let mut tried = Tried::default();
    for verb in VERBS.iter().filter(|verb| verb.contains(of)) {
        let before = tried.points.len();
        for at in (0..).step_by(every as usize) {
            let all = [Unsynced::Torn, Unsynced::Lost, Unsynced::Kept];
            let kinds = if wanted == 0 { &all[..] } else { &all[at as usize % 3..][..1] };
            let killed: Vec<_> = kinds.iter().filter_map(|kind| kill(verb, at, *kind)).collect();
            if killed.is_empty() {
                break;
            }
            killed.into_iter().for_each(|killed| tried.count(killed));
        }
        println!("{:>6}  {verb}", tried.points.len() - before);
    }
    tried.end("kills")
}

/// Each verb of a pair, interrupted at its points by the other one.
fn meetings(wanted: u64, of: &str) -> ExitCode {
    let every = POINTS.checked_div(wanted).unwrap_or(1).max(1);
    let mut tried = Tried::default();
    let concerns = |pair: &&(&str, &str)| pair.0.contains(of) || pair.1.contains(of);
    for pair in PAIRS.iter().filter(concerns) {
        let before = tried.all;
        for at in (0..).step_by(every as usize) {
            let Some(met) = meet(*pair, at) else { break };
            tried.count(met);
        }
        println!("{:>6}  {}, meanwhile {}", tried.all - before, pair.0, pair.1);
    }
    tried.end("meetings")
}
