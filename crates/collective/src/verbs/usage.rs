//! `usage`: what instances have used, as a plane has added it up.

use api::UsagePrint;
use host::Failure;
use model::format_bytes;

use super::planes::{client, not_answered};
use crate::cli::{By, Global, Usage};
use crate::print;

pub fn usage(global: &Global, verb: &Usage) -> Result<(), Failure> {
    let by = match verb.by {
        By::User => "user",
        By::Project => "project",
        By::Appliance => "appliance",
        By::Maker => "maker",
        By::Day => "day",
    };
    let mut path = format!("/v1/usage?by={by}");
    for (name, day) in [("since", &verb.since), ("until", &verb.until)] {
        let Some(day) = day else { continue };
        // It becomes a part of a path: what has other characters is no day.
        if day.is_empty() || !day.bytes().all(|b| b.is_ascii_digit() || b == b'-') {
            let hint = "for example 2026-11-28";
            return Err(Failure::new("usage", format!("{day:?} is no day"), hint));
        }
        path.push_str(&format!("&{name}={day}"));
    }
    let used: Vec<UsagePrint> = client(global, &verb.at)?.get(&path).map_err(not_answered)?;
    print::result(global, &used, || if verb.csv { csv(by, &used) } else { table(by, &used) });
    Ok(())
}

fn table(by: &str, used: &[UsagePrint]) -> String {
    let by = by.to_uppercase();
    let header = [by.as_str(), "RUNNING", "CPU", "MEMORY", "FETCHED", "STORED"];
    let rows = used.iter().map(|used| {
        vec![
            used.name.clone(),
            format!("{:.1} s", used.running_seconds),
            format!("{:.1} s", used.cpu_seconds),
            format!("{:.3} GiB h", used.memory_gib_hours),
            format_bytes(used.fetched_bytes),
            format_bytes(used.stored_bytes),
        ]
    });
    print::table(&header, rows)
}

/// As RFC 4180 has it; names have nothing in them that needs quotes.
fn csv(by: &str, used: &[UsagePrint]) -> String {
    let header =
        "running_seconds,cpu_seconds,memory_gib_hours,fetched_bytes,peer_bytes,stored_bytes";
    let mut lines = vec![format!("{by},{header}")];
    lines.extend(used.iter().map(|used| {
        let UsagePrint { name, running_seconds, cpu_seconds, memory_gib_hours, .. } = used;
        let (fetched, peer, stored) = (used.fetched_bytes, used.peer_bytes, used.stored_bytes);
        format!(
            "{name},{running_seconds:.3},{cpu_seconds:.3},{memory_gib_hours:.6},{fetched},{peer},{stored}"
        )
    }));
    lines.join("\n")
}
