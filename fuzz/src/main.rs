//! All targets in one program, of which the environment names one.
//!
//! | `COLLECTIVE_FUZZ` | does |
//! | --- | --- |
//! | `list` | prints the names of the targets and ends |
//! | `seeds` | writes the examples into `COLLECTIVE_FUZZ_SEEDS/TARGET/` and ends |
//! | a name | runs that target, as libFuzzer's arguments say |

#![no_main]

use std::path::Path;
use std::sync::OnceLock;

use fuzz::{TARGETS, Target};

static CHOSEN: OnceLock<&'static Target> = OnceLock::new();

fn choose() {
    match std::env::var("COLLECTIVE_FUZZ").unwrap_or_default().as_str() {
        "list" => {
            TARGETS.iter().for_each(|target| println!("{}", target.name));
            std::process::exit(0);
        }
        "seeds" => {
            let folder = std::env::var("COLLECTIVE_FUZZ_SEEDS").expect("a folder for the examples");
            TARGETS.iter().for_each(|target| write_seeds(target, Path::new(&folder)));
            std::process::exit(0);
        }
        name => {
            let target = fuzz::target(name).expect("COLLECTIVE_FUZZ names a target");
            let _ = CHOSEN.set(target);
        }
    }
}

fn write_seeds(target: &Target, folder: &Path) {
    let folder = folder.join(target.name);
    std::fs::create_dir_all(&folder).expect("a folder can be made");
    for (number, bytes) in (target.seeds)().into_iter().chain(target.regressions()).enumerate() {
        std::fs::write(folder.join(format!("example-{number}")), bytes).expect("a file can be made");
    }
}

libfuzzer_sys::fuzz_target!(init: choose(), |bytes: &[u8]| {
    if let Some(target) = CHOSEN.get() {
        (target.run)(bytes);
    }
});
