//! What is typed and shown about checkpoints that are taken by themselves.

use api::AutoPrint;
use host::auto::{Keep, PolicyError};
use host::{AutoChange, Failure};
use model::Exactly;
use model::auto::{Every, parse_dirtied, parse_every};

use crate::cli::Auto;

/// What `--every` and `--keep` ask for; none when neither is there.
pub fn change(typed: &Auto) -> Result<Option<AutoChange>, Failure> {
    let wrong = |error: PolicyError| Failure::new("usage", error.to_string(), error.hint());
    let keep = typed.keep.as_deref().map(Keep::parse).transpose().map_err(wrong)?;
    let dirtied_bytes = match typed.dirtied.as_deref() {
        Some("off") => Some(0),
        Some(text) => Some(parse_dirtied(text).map_err(wrong)?),
        None => None,
    };
    let alone = keep.is_none() && dirtied_bytes.is_none();
    let every_s = match typed.every.as_deref() {
        None if alone => return Ok(None),
        None => None,
        Some("off") if alone => return Ok(Some(AutoChange::Off)),
        Some("default") if alone => return Ok(Some(AutoChange::Default)),
        Some(word @ ("off" | "default")) => {
            let other = if keep.is_some() { "--keep" } else { "--dirtied" };
            return Err(Failure::new(
                "usage",
                format!("{other} says nothing together with --every {word}"),
                "write one of them",
            ));
        }
        Some(every) => Some(parse_every(every).map_err(wrong)?),
    };
    Ok(Some(AutoChange::Set { every_s, dirtied_bytes, keep }))
}

/// What `--keep-taken` asks for; all: nothing of its own.
pub fn keep_taken(typed: Option<&str>) -> Result<Option<Option<Keep>>, Failure> {
    match typed {
        None => Ok(None),
        Some("all") => Ok(Some(None)),
        Some(text) => match Keep::parse(text) {
            Ok(keep) => Ok(Some(Some(keep))),
            Err(error) => Err(Failure::new("usage", error.to_string(), error.hint())),
        },
    }
}

/// One line about them.
pub fn describe(auto: &AutoPrint) -> String {
    let mut text = by_themselves(auto);
    if let Some(keep) = &auto.keep_taken {
        text.push_str(&format!("; of what somebody took, `repo gc` keeps {keep}"));
    }
    text
}

fn by_themselves(auto: &AutoPrint) -> String {
    let Some(every_s) = auto.every_s else {
        return match auto.said_by.as_str() {
            "nobody" => "no checkpoint is taken by itself".to_owned(),
            "host" => {
                "no checkpoint is taken by itself (as this host's `config auto` says)".to_owned()
            }
            "maker" => "no checkpoint is taken by itself (as its maker says)".to_owned(),
            _ => "no checkpoint is taken by itself any more; those that were stay".to_owned(),
        };
    };
    let mut text = format!(
        "a checkpoint every {}{}, keeping {}",
        Every(every_s),
        auto.dirtied_bytes.map_or_else(String::new, |b| format!(" or {} written", Exactly(b))),
        auto.keep.as_deref().unwrap_or("-")
    );
    match auto.said_by.as_str() {
        "host" => text.push_str(" (as this host's `config auto` says)"),
        "maker" => text.push_str(" (as its maker says)"),
        _ => {}
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
