//! `audit list`, `audit verify`: what a plane has written down of its callers.

use api::{AuditEntry, AuditHead, AuditPrint};
use host::Failure;
use plane::audit::{Expected, Verifier};
use plane::client::AnyPlane;
use serde::Serialize;

use super::planes::{client, not_answered};
use crate::cli::{Audit, Global};
use crate::print;

pub fn audit(global: &Global, verb: &Audit) -> Result<(), Failure> {
    match verb {
        Audit::List { last, all, project, at } => {
            let project = project.as_deref().map(super::name).transpose()?;
            let path = match &project {
                Some(project) => format!("/v1/projects/{project}/audit"),
                None => "/v1/audit".to_owned(),
            };
            let client = client(global, at)?;
            let from = |head: &AuditHead| if *all { 0 } else { head.number.saturating_sub(*last) };
            let (mut entries, mut page) = (Vec::new(), page(&client, &path, u64::MAX - 1)?);
            page.next = from(&page.head);
            while page.next < page.head.number {
                page = self::page(&client, &path, page.next)?;
                entries.append(&mut page.entries);
            }
            print::result(global, &entries, || {
                let rows = entries.iter().map(row);
                print::table(&["NUMBER", "AGE", "WHO", "WHAT", "STATUS", "REQUEST"], rows)
            });
            Ok(())
        }
        Audit::Verify { expect, at } => {
            let wrong = |error: String| Failure::new("usage", error, "without --expect it is said");
            let expect =
                expect.as_deref().map(str::parse::<Expected>).transpose().map_err(wrong)?;
            verify(global, &client(global, at)?, expect)
        }
    }
}

fn page(client: &AnyPlane, path: &str, after: u64) -> Result<AuditPrint, Failure> {
    client.get(&format!("{path}?after={after}")).map_err(not_answered)
}

fn row(entry: &AuditEntry) -> Vec<String> {
    vec![
        entry.number.to_string(),
        super::history::age(ambient::unix_ms().saturating_sub(entry.unix_ms) / 1000),
        entry.who.clone(),
        format!("{} {}", entry.what, entry.on),
        entry.status.to_string(),
        entry.request.clone(),
    ]
}

/// What `audit verify` prints.
#[derive(Serialize)]
struct Verified {
    entries: u64,
    /// `NUMBER:HASH`.
    head: String,
}

fn verify(global: &Global, client: &AnyPlane, expect: Option<Expected>) -> Result<(), Failure> {
    let mut verifier = Verifier::new(expect);
    let damaged = |what: String| {
        let hint =
            "somebody has changed the plane's state: compare with a copy of it (`plane backup`)";
        Failure::new("damaged", what, hint)
    };
    let mut after = 0;
    loop {
        let page = page(client, "/v1/audit", after)?;
        page.entries.iter().try_for_each(|entry| verifier.read(entry)).map_err(damaged)?;
        if page.next >= page.head.number {
            verifier.end(&page.head).map_err(damaged)?;
            break;
        }
        after = page.next;
    }
    let head = verifier.reached();
    let done = Verified { entries: head.number, head: format!("{}:{}", head.number, head.hash) };
    print::result(global, &done, || {
        format!("{} entries, one chain; its head is {}", done.entries, done.head)
    });
    Ok(())
}
