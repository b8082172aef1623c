//! `events`: what changes of instances and hosts, as a plane says it, until Ctrl-C.

use std::time::Duration;

use api::{EventPrint, OperationPrint};
use host::Failure;
use plane::client::ClientError;
use serde::Serialize;

use super::operations::step;
use super::planes::{client, not_answered};
use crate::cli::{Events, Global};
use crate::print;

/// Between two tries to reach a plane that is away.
const AGAIN: Duration = Duration::from_secs(1);

#[derive(Serialize)]
struct Line {
    /// What `--after` takes.
    id: u64,
    #[serde(flatten)]
    event: EventPrint,
}

pub fn events(global: &Global, verb: &Events) -> Result<(), Failure> {
    let client = client(global, &verb.at)?;
    let (mut after, mut away) = (verb.after, false);
    loop {
        let ended = client.events(after, |id, document| {
            (after, away) = (Some(id), false);
            let event = document.and_then(|document| serde_json::from_str(document).ok());
            if let Some(event) = event {
                let line = Line { id, event };
                print::result(&quiet(global), &line, || text(&line));
            }
            true
        });
        match ended {
            // Who has never been answered is told why; who has goes on when the plane is back.
            Err(error @ ClientError::Refused(_)) => return Err(not_answered(error)),
            Err(error) if after.is_none() => return Err(not_answered(error)),
            Err(error) if !away => {
                print::note(global, &format!("{error}; what happens meanwhile comes later"));
                away = true;
            }
            Ok(()) | Err(_) => {}
        }
        ambient::sleep(AGAIN);
    }
}

/// With `--json` a line is all there is.
fn quiet(global: &Global) -> Global {
    Global { quiet: global.quiet || global.json, ..global.clone() }
}

fn said(operation: &OperationPrint) -> String {
    let (kind, state) = (operation.kind.as_str(), operation.state.as_str());
    match step(operation) {
        Some(step) => format!("{kind} {state}, {step}"),
        None => format!("{kind} {state}"),
    }
}

fn text(line: &Line) -> String {
    let Line { id, event } = line;
    let what = match (&event.instance, &event.host) {
        (Some(placed), _) => match &placed.next {
            Some(next) => format!("{}, {next}", placed.state),
            None => placed.state.clone(),
        },
        (None, Some(host)) => format!("{}, {} instances", host.state, host.instances),
        (None, None) if event.operation.is_some() => {
            event.operation.as_ref().map(said).unwrap_or_default()
        }
        (None, None) if event.removed => "removed".to_owned(),
        (None, None) => "what happened before is not known any more".to_owned(),
    };
    format!("{id}  {}  {}  {what}", event.event, event.name)
}
