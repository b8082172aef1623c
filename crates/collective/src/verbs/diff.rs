//! `diff`, and what `inspect --drift` shows.

use api::{DiffPrint, FilePrint};
use host::Failure;
use model::format_bytes;

use super::open;
use crate::cli::{Diff, Global};
use crate::print;

pub fn diff(global: &Global, verb: &Diff) -> Result<(), Failure> {
    let mut progress = print::progress(global);
    let differ = open(global)?.diff(&verb.from, &verb.to, verb.files, &mut progress)?;
    print::result(global, &differ, || describe(&differ));
    Ok(())
}

fn describe(differ: &DiffPrint) -> String {
    let mut lines = vec![format!("{} -> {}", differ.from, differ.to)];
    for package in &differ.packages {
        lines.push(match (&package.from, &package.to) {
            (Some(from), Some(to)) => format!("  {}  {from} -> {to}", package.name),
            (None, Some(to)) => format!("+ {}  {to}", package.name),
            (Some(from), None) => format!("- {}  {from}", package.name),
            (None, None) => continue,
        });
    }
    if let Some(files) = &differ.files {
        lines.push(paths(files));
    }
    lines.push(format!(
        "{} of its system disks differ; this host would fetch {}",
        format_bytes(differ.changed_bytes),
        format_bytes(differ.fetch_bytes)
    ));
    lines.join("\n")
}

/// One line for each path.
pub fn paths(files: &[FilePrint]) -> String {
    if files.is_empty() {
        return "no file differs".to_owned();
    }
    let line = |file: &FilePrint| {
        let sign = match file.change.as_str() {
            "added" => "+",
            "removed" => "-",
            "rights" => "r",
            _ => "~",
        };
        format!("{sign} {}:{}", file.disk, file.path)
    };
    files.iter().map(line).collect::<Vec<_>>().join("\n")
}
