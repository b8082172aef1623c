//! The targets as CI runs them: see the crate's first page.

use std::panic::{AssertUnwindSafe, catch_unwind};

use fuzz::{Mutations, TARGETS, Target};

/// The same inputs every time; another number is another set.
const SEED: u64 = 2026;

/// Whether it survives; what it does not is kept.
fn survives(target: &Target, bytes: &[u8], from: &str) -> bool {
    if catch_unwind(AssertUnwindSafe(|| (target.run)(bytes))).is_ok() {
        return true;
    }
    let kept = std::env::temp_dir().join(format!("fuzz-{}-{}", target.name, std::process::id()));
    let _ = std::fs::write(&kept, bytes);
    eprintln!("`{}` does not survive {from}: the input is in {}", target.name, kept.display());
    false
}

/// Examples, regressions and mutations of all targets whose number leaves this rest. A target ends
/// with the first input that it does not survive; the others go on.
fn check(rest: usize) {
    let mut failed = Vec::new();
    for (_, target) in TARGETS.iter().enumerate().filter(|(at, _)| at % 4 == rest) {
        let began = ambient::now();
        let seeds = (target.seeds)();
        let mut mutations = Mutations::new(SEED);
        let good = seeds.iter().all(|bytes| survives(target, bytes, "an example"))
            && target.regressions().iter().all(|bytes| survives(target, bytes, "a regression"))
            && (0..target.runs).all(|number| {
                survives(target, &mutations.of(&seeds), &format!("mutation {number}"))
            });
        if !good {
            failed.push(target.name);
        }
        let (examples, ms) = (seeds.len(), began.elapsed().as_millis());
        println!(
            "{:<12} {examples:>3} examples {:>6} mutations {ms:>6} ms",
            target.name, target.runs
        );
    }
    assert!(failed.is_empty(), "{failed:?}");
}

#[test]
fn every_parser_survives_noise_1() {
    check(0);
}

#[test]
fn every_parser_survives_noise_2() {
    check(1);
}

#[test]
fn every_parser_survives_noise_3() {
    check(2);
}

#[test]
fn every_parser_survives_noise_4() {
    check(3);
}

#[test]
fn the_same_seed_makes_the_same_inputs() {
    let seeds = vec![b"one".to_vec(), b"another".to_vec()];
    let inputs = |seed| {
        let mut mutations = Mutations::new(seed);
        (0..100).map(|_| mutations.of(&seeds)).collect::<Vec<_>>()
    };
    assert_eq!(inputs(1), inputs(1));
    assert_ne!(inputs(1), inputs(2));
}

#[test]
fn every_target_stands_in_the_document() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/RELIABILITY.md");
    let document = std::fs::read_to_string(path).unwrap();
    let row = |name: &str| document.lines().any(|line| line.ends_with(&format!("| `{name}` |")));
    let missing: Vec<_> = TARGETS.iter().map(|t| t.name).filter(|name| !row(name)).collect();
    assert!(missing.is_empty(), "no row in docs/RELIABILITY.md ends with {missing:?}");
    assert!(TARGETS.iter().all(|t| !(t.seeds)().is_empty()), "a target has no examples");
}
