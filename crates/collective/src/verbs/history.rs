//! `history`: a line of time, the newest first; branches stand where they left it.

use api::HistoryPrint;
use host::Failure;
use model::format_bytes;

use super::{name, open};
use crate::cli::{Global, One};
use crate::print;

pub fn history(global: &Global, verb: &One) -> Result<(), Failure> {
    let lines = open(global)?.history(&name(&verb.name)?)?;
    print::result(global, &lines, || {
        if global.quiet {
            return lines.iter().map(|line| line.id.as_str()).collect::<Vec<_>>().join("\n");
        }
        print::table(
            &["CHECKPOINT", "TAKEN (UTC)", "AGE", "WHY", "WRITTEN", "STORED", "PAUSE", "LABEL"],
            lines.iter().map(row),
        )
    });
    Ok(())
}

fn row(line: &HistoryPrint) -> Vec<String> {
    let mark = match (line.head, line.auto) {
        _ if line.gone => "-",
        (true, _) => "@",
        (false, true) => ".",
        (false, false) => "o",
    };
    let side = if line.branch.is_some() { "| " } else { "" };
    let why = match (line.why.as_str(), line.memory) {
        (why, _) if line.gone => format!("{why}, thinned out"),
        // What a person asked for boots or continues; that it boots is worth a word.
        (why, false) if why != "stop" => format!("{why}, boots"),
        (why, _) => why.to_owned(),
    };
    vec![
        format!("{side}{mark} {}", &line.id[..12]),
        line.time.replace('T', " ").trim_end_matches('Z').to_owned(),
        age(line.age_s),
        why,
        format_bytes(line.written_bytes),
        format_bytes(line.size_bytes),
        line.pause_ms.map_or_else(String::new, |ms| format!("{ms:.0} ms")),
        line.label.clone().unwrap_or_default(),
    ]
}

/// Seconds for people, in the largest unit that says something.
pub fn age(seconds: u64) -> String {
    match seconds {
        0..60 => format!("{seconds} s"),
        60..3600 => format!("{} min", seconds / 60),
        3600..172_800 => format!("{} h", seconds / 3600),
        _ => format!("{} d", seconds / 86_400),
    }
}
