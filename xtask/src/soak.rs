//! `cargo xtask soak`: the soak of `crates/collective/tests/guest_soak.rs`, for as long and with
//! whichever seed one wants.

use std::path::Path;
use std::process::Command;

use anyhow::Result;

/// Hours and seed of the command line; None when it is not understood.
pub fn options(words: &[&str]) -> Option<(u64, u64)> {
    let (mut hours, mut seed) = (24, 1);
    for pair in words.chunks(2) {
        match pair {
            ["--hours", number] => hours = number.parse().ok()?,
            ["--seed", number] => seed = number.parse().ok()?,
            _ => return None,
        }
    }
    Some((hours, seed))
}

/// Runs it; what happens is printed as it goes.
pub fn run(root: &Path, hours: u64, seed: u64) -> Result<bool> {
    let status = Command::new(env!("CARGO"))
        .args(["test", "-p", "collective", "--locked", "--test", "guest_soak", "--", "--nocapture"])
        .env("COLLECTIVE_SOAK_HOURS", hours.to_string())
        .env("COLLECTIVE_SOAK_SEED", seed.to_string())
        .current_dir(root)
        .status()?;
    Ok(status.success())
}
