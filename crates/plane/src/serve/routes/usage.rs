//! What was used: by hosts' words, for those who may know.

use std::collections::BTreeMap;

use api::UsagePrint;

use super::{Route, json, route};
use crate::access::{Caller, Demand, Right};
use crate::meter::{Account, Counters};
use crate::serve::ask::Ask;
use crate::serve::state::{Used, day, parse_day};
use crate::serve::{Plane, Refused};

pub const ROUTES: &[Route] = &[Route {
    gives: Some(|g| g.subschema_for::<Vec<UsagePrint>>()),
    ..route(
        "GET",
        "/v1/usage",
        Demand::Member,
        "Says what was used, `by` user, project, appliance, maker or day, on days `since` to `until`.",
        |plane, ask| json(200, &usage(plane, ask)?),
    )
}];

/// The first day of all.
const FIRST: &str = "0000-01-01";

fn usage(plane: &Plane, ask: &Ask<'_>) -> Result<Vec<UsagePrint>, Refused> {
    let by: fn(&Used) -> &str = match ask.query("by").unwrap_or("project") {
        "user" => |used| &used.by.user,
        "project" => |used| &used.by.project,
        "appliance" => |used| &used.by.appliance,
        "maker" => |used| used.by.maker(),
        "day" => |used| &used.day,
        other => {
            let detail =
                format!("usage by {other:?}: it is by user, project, appliance, maker or day");
            return Err(Refused::wrong(detail));
        }
    };
    let given = |name: &str| ask.query(name).map(parse_day).transpose();
    let since = given("since")?.unwrap_or_else(|| FIRST.to_owned());
    let until = given("until")?.unwrap_or_else(|| day(u64::MAX));
    let mut sums: BTreeMap<String, Counters> = BTreeMap::new();
    for used in plane.used(&since, &until)? {
        if may_know(ask.caller, &used.by) {
            let sum = sums.entry(by(&used).to_owned()).or_default();
            *sum = sum.and(used.counters);
        }
    }
    Ok(sums.into_iter().map(|(name, used)| print(name, used)).collect())
}

/// Who changes or audits a project knows all that is used there; others what they use themselves.
pub(in crate::serve) fn may_know(caller: &Caller, by: &Account) -> bool {
    let all = [Right::Operate, Right::Audit].into_iter().any(|it| caller.may_in(&by.project, it));
    all || (caller.name() == by.user && caller.may_in(&by.project, Right::See))
}

fn print(name: String, used: Counters) -> UsagePrint {
    let seconds = |ms: u64| ms as f64 / 1000.0;
    UsagePrint {
        name,
        running_seconds: seconds(used.running_ms),
        cpu_seconds: seconds(used.cpu_ms),
        memory_gib_hours: used.memory_mib_s as f64 / (1024.0 * 3600.0),
        fetched_bytes: used.fetched_bytes.saturating_add(used.peer_bytes),
        peer_bytes: used.peer_bytes,
        stored_bytes: used.stored_bytes,
    }
}
