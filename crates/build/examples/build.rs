//! Builds one appliance without a repository: `build RECIPE_FOLDER WORK_FOLDER TOOLS_FOLDER`.
//!
//! Prints the steps with their times, then each file with its size and BLAKE3.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

fn main() -> ExitCode {
    let args: Vec<PathBuf> = std::env::args_os().skip(1).map(PathBuf::from).collect();
    let [recipe_dir, work, tools] = &args[..] else {
        eprintln!("usage: build RECIPE_FOLDER WORK_FOLDER TOOLS_FOLDER");
        return ExitCode::from(2);
    };
    match run(recipe_dir, work, tools) {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            eprintln!("{message}");
            ExitCode::FAILURE
        }
    }
}

fn run(recipe_dir: &Path, work: &Path, tools: &Path) -> Result<(), String> {
    let recipe =
        build::Recipe::load(recipe_dir).map_err(|e| format!("{e}\n  hint: {}", e.hint()))?;
    let start = ambient::now();
    let mut print = |step: build::Step| {
        eprintln!("{:6.2}s {:?} {}", start.elapsed().as_secs_f64(), step.outcome, step.what);
    };
    let built = build::build(&recipe, recipe_dir, work, tools, &mut print)
        .map_err(|e| format!("{e}\n  hint: {}", e.hint()))?;
    eprintln!("{:6.2}s all done", start.elapsed().as_secs_f64());
    println!("{} {} cmdline: {}", built.name, built.version, built.hardware.boot.cmdline);
    let disks = built.disks.iter().filter_map(|disk| disk.image.clone());
    for path in built.kernel.into_iter().chain(built.initrd).chain(disks) {
        let bytes = std::fs::read(&path).map_err(|e| format!("{}: {e}", path.display()))?;
        println!("{} {:>11} {}", blake3::hash(&bytes).to_hex(), bytes.len(), path.display());
    }
    println!("{} packages", built.packages.len());
    Ok(())
}
