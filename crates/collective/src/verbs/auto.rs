//! What is typed and shown about checkpoints that are taken by themselves.

use api::AutoPrint;
use host::auto::policy::{Every, parse_every};
use host::auto::{Keep, PolicyError};
use host::{AutoChange, Failure};

use crate::cli::Auto;

/// What `--every` and `--keep` ask for; none when neither is there.
pub fn change(typed: &Auto) -> Result<Option<AutoChange>, Failure> {
    let wrong = |error: PolicyError| Failure::new("usage", error.to_string(), error.hint());
    let keep = typed.keep.as_deref().map(Keep::parse).transpose().map_err(wrong)?;
    Ok(match (typed.every.as_deref(), keep) {
        (None, None) => None,
        (None, Some(keep)) => Some(AutoChange::Keep(keep)),
        (Some("off"), None) => Some(AutoChange::Off),
        (Some("default"), None) => Some(AutoChange::Default),
        (Some(word @ ("off" | "default")), Some(_)) => {
            return Err(Failure::new(
                "usage",
                format!("--keep says nothing together with --every {word}"),
                "write one of them",
            ));
        }
        (Some(every), keep) => {
            let every_s = parse_every(every).map_err(wrong)?;
            Some(keep.map_or(AutoChange::Every(every_s), |keep| AutoChange::Both(every_s, keep)))
        }
    })
}

/// One line about them.
pub fn describe(auto: &AutoPrint) -> String {
    let Some(every_s) = auto.every_s else {
        return match auto.said_by.as_str() {
            "nobody" => "no checkpoint is taken by itself".to_owned(),
            "host" => {
                "no checkpoint is taken by itself (as this host's `config auto` says)".to_owned()
            }
            _ => "no checkpoint is taken by itself any more; those that were stay".to_owned(),
        };
    };
    let mut text = format!(
        "a checkpoint every {}, keeping {}",
        Every(every_s),
        auto.keep.as_deref().unwrap_or("-")
    );
    if auto.said_by == "host" {
        text.push_str(" (as this host's `config auto` says)");
    }
    match (&auto.failing, auto.next_s) {
        (Some(why), Some(next)) => {
            text.push_str(&format!("; the last try failed: {why} (again in {next} s)"));
        }
        (None, Some(next)) => text.push_str(&format!("; the next in {next} s")),
        _ => {}
    }
    text
}
