//! `operation`: what somebody has asked a plane to do with instances, how far it is, and calling it off.

use api::{OperationPrint, OperationState};
use host::Failure;
use model::{Name, format_bytes};
use plane::client::AnyPlane;

use super::planes::{client, not_answered};
use crate::cli::{Global, OneOperation, Operations};
use crate::print::{self, duration};

/// Between two looks at one that was called off.
const LOOK: std::time::Duration = std::time::Duration::from_millis(200);
/// How long it is waited for that; a host that stores a large part first takes longer.
const WITHIN: std::time::Duration = std::time::Duration::from_secs(10);

pub fn execute(global: &Global, verb: &Operations) -> Result<(), Failure> {
    match verb {
        Operations::List { instance, project, at } => {
            let mut query = Vec::new();
            for (key, value) in [("instance", instance), ("project", project)] {
                if let Some(value) = value {
                    query.push(format!("{key}={}", super::name(value)?));
                }
            }
            let path = format!("/v1/operations?{}", query.join("&"));
            let found: Vec<OperationPrint> =
                client(global, at)?.get(&path).map_err(not_answered)?;
            print::result(global, &found, || list(global, &found));
            Ok(())
        }
        Operations::Show(OneOperation { operation, at }) => {
            let found = find(&client(global, at)?, operation)?;
            print::result(global, &found, || show(&found));
            Ok(())
        }
        Operations::Cancel(OneOperation { operation, at }) => {
            let client = client(global, at)?;
            let found = find(&client, operation)?;
            let path = format!("/v1/operations/{}/cancel", found.id);
            client.change("POST", &path, &[], None::<&()>).map_err(not_answered)?;
            let began = ambient::now();
            let found = loop {
                let found = by_id(&client, &found.id)?;
                if found.state.is_over() || began.elapsed() > WITHIN {
                    break found;
                }
                ambient::sleep(LOOK);
            };
            print::result(global, &found, || {
                let OperationPrint { id, step, .. } = &found;
                match (found.state, step) {
                    (OperationState::Cancelled, _) => format!("{id} is cancelled"),
                    (state, Some(step)) => {
                        format!("{id} is being cancelled, and {} still: {step}", state.as_str())
                    }
                    (state, None) => {
                        format!("{id} is being cancelled, and {} still", state.as_str())
                    }
                }
            });
            Ok(())
        }
    }
}

pub fn by_id(client: &AnyPlane, id: &str) -> Result<OperationPrint, Failure> {
    client.get(&format!("/v1/operations/{id}")).map_err(not_answered)
}

/// By its id, or the last one of an instance.
fn find(client: &AnyPlane, text: &str) -> Result<OperationPrint, Failure> {
    if let Some((of, number)) = text.split_once('~') {
        let digits = number.bytes().all(|byte| byte.is_ascii_hexdigit());
        if Name::new(of).is_ok() && digits {
            return by_id(client, text);
        }
        let hint = "`collective operation list` shows ids";
        return Err(Failure::new("usage", format!("{text:?} is no operation"), hint));
    }
    let of = super::name(text)?;
    let path = format!("/v1/operations?instance={of}");
    let found: Vec<OperationPrint> = client.get(&path).map_err(not_answered)?;
    found.into_iter().next_back().ok_or_else(|| {
        let hint = "`collective operation list` shows all that you may see";
        Failure::new("not_found", format!("nothing was asked of {of} lately"), hint)
    })
}

fn list(global: &Global, found: &[OperationPrint]) -> String {
    if global.quiet {
        return found.iter().map(|found| found.id.as_str()).collect::<Vec<_>>().join("\n");
    }
    let now = ambient::unix_ms();
    let rows = found.iter().map(|found| {
        let ends = found.ended_unix_ms.unwrap_or(now);
        vec![
            found.id.clone(),
            found.kind.as_str().to_owned(),
            found.state.as_str().to_owned(),
            found.asked_by.clone(),
            duration(ends.saturating_sub(found.begun_unix_ms)),
            step(found).unwrap_or_default(),
        ]
    });
    print::table(&["ID", "KIND", "STATE", "ASKED BY", "TOOK", "STEP"], rows)
}

fn show(found: &OperationPrint) -> String {
    let ends = found.ended_unix_ms.unwrap_or_else(ambient::unix_ms);
    let took = duration(ends.saturating_sub(found.begun_unix_ms));
    let mut text = format!(
        "{}: {} {} is {}\nasked by {} (request {}), in project {}; for {took}",
        found.id,
        found.kind.as_str(),
        found.instance,
        found.state.as_str(),
        found.asked_by,
        found.request,
        found.project
    );
    if let Some(step) = step(found) {
        text.push_str(&format!("\n{step}"));
    }
    if let Some(failure) = &found.failure
        && !failure.hint.is_empty()
    {
        text.push_str(&format!("\nnext: {}", failure.hint));
    }
    text
}

/// What is done now, how far that is, or why it failed.
pub fn step(found: &OperationPrint) -> Option<String> {
    if let Some(failure) = &found.failure {
        return Some(failure.detail.clone());
    }
    let step = found.step.clone()?;
    Some(match found.done_bytes.filter(|bytes| *bytes > 0) {
        Some(done) => format!("{step}, {} so far", format_bytes(done)),
        None => step,
    })
}
