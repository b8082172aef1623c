//! Every path and method, in one table of five parts: what it does, whom it lets, what it takes and
//! gives. Requests are found in it, and `/v1/openapi.json` is made of it, so that neither can have what
//! the other lacks.
//!
//! **Invariant:** there is no route that does not say whom it lets ([`Demand`]).

mod about;
mod access;
mod hosts;
mod instances;
mod login;
mod operations;
pub(super) mod usage;
#[cfg(test)]
mod walked;

use std::sync::Arc;
use std::sync::atomic::Ordering;

use kv::Revision;
use schemars::{Schema, SchemaGenerator};
use spans::{Fact, Span};

use super::ask::{Ask, Request, forbidden, of_a_release_that_fits};
use super::events::Stream;
use super::{Plane, Refused};
use crate::access::{Caller, Demand};

/// An answer.
#[derive(Debug)]
pub struct Reply {
    pub status: u16,
    pub kind: &'static str,
    pub etag: Option<Revision>,
    /// The id of the operation that was begun.
    pub operation: Option<String>,
    /// The caller has shown who it is.
    pub known: bool,
    /// Where the planes of the state are, for who goes on with another one.
    pub planes: Arc<Vec<String>>,
    pub body: Vec<u8>,
    /// What follows, for as long as somebody reads it.
    pub stream: Option<Stream>,
}

type Result<T> = std::result::Result<T, Refused>;
type MakeSchema = fn(&mut SchemaGenerator) -> Schema;
type Run = fn(&Plane, &Ask<'_>) -> Result<Reply>;

pub struct Route {
    pub method: &'static str,
    /// What is in braces stands for one part.
    pub path: &'static str,
    pub demand: Demand,
    pub does: &'static str,
    pub takes: Option<MakeSchema>,
    pub gives: Option<MakeSchema>,
    /// The caller may say by `If-Match` what it has seen.
    pub conditional: bool,
    run: Run,
}

impl Route {
    /// What a request by it does, or does not, is written down. What hosts say all the time is not;
    /// what strangers ask says itself when it is.
    pub fn is_logged(&self) -> bool {
        self.method != "GET" && !matches!(self.demand, Demand::Host | Demand::Anybody)
    }
}

const JSON: &str = "application/json";

const fn route(
    method: &'static str,
    path: &'static str,
    demand: Demand,
    does: &'static str,
    run: Run,
) -> Route {
    let (takes, gives) = (None, None);
    Route { method, path, demand, does, takes, gives, conditional: false, run }
}

/// See the module's documentation.
pub fn all() -> impl Iterator<Item = &'static Route> {
    let of_instances = [hosts::ROUTES, instances::ROUTES, operations::ROUTES];
    let of_people = [access::ROUTES, login::ROUTES, usage::ROUTES, about::ROUTES];
    of_instances.into_iter().chain(of_people).flatten()
}

impl Plane {
    /// Answers a request.
    pub fn answer(&self, request: &Request) -> Reply {
        self.requests.fetch_add(1, Ordering::Relaxed);
        let mut known = false;
        let mut followed = followed(request);
        let on = followed.as_ref().map(Span::enter);
        let answer = self.dispatch(request, &mut known);
        drop(on);
        if let Some(span) = &mut followed {
            let status = answer.as_ref().map_or_else(|no| no.status, |yes| yes.status);
            span.say(Fact::Status, status.to_string());
            if let Err(refused) = &answer {
                span.failed(refused.kind);
            }
        }
        // A host hears it with its beats.
        let told = known && answer.is_ok() && request.peer.is_none();
        let planes = if told { self.planes_lately() } else { Arc::default() };
        let reply = answer.unwrap_or_else(|refused| self.refuse(&refused));
        Reply { known, planes, ..reply }
    }

    pub(super) fn refuse(&self, refused: &Refused) -> Reply {
        self.refused.fetch_add(1, Ordering::Relaxed);
        let body = serde_json::to_vec(&refused.problem()).unwrap_or_default();
        Reply { body, ..nothing_but(refused.status, "application/problem+json") }
    }

    fn dispatch(&self, request: &Request, known: &mut bool) -> Result<Reply> {
        let path = request.path.as_str();
        let here: Vec<_> =
            all().filter_map(|route| Some((route, fits(route.path, path)?))).collect();
        let found = here.iter().find(|(route, _)| route.method == request.method);
        if let Some((route, parts)) = found
            && route.demand == Demand::Anybody
        {
            return (route.run)(self, &Ask::new(request, &Caller::Stranger, parts.clone()));
        }
        // Who is nobody learns nothing of what there is.
        let caller = self.caller(request)?;
        *known = true;
        match (found, here.is_empty()) {
            (Some((route, parts)), _) => {
                let about = parts.first().copied().unwrap_or_default();
                let ask = Ask::new(request, &caller, parts.clone());
                if matches!(route.demand, Demand::Project(_)) {
                    ask.in_project(about);
                }
                if matches!(route.demand, Demand::Host | Demand::Joining) {
                    of_a_release_that_fits(request)?;
                }
                let reply = if !caller.meets(route.demand, about) {
                    Err(forbidden(route.demand))
                } else if route.is_logged() {
                    match self.answered(&ask)? {
                        Some(reply) => return Ok(reply),
                        None => (route.run)(self, &ask),
                    }
                } else {
                    (route.run)(self, &ask)
                };
                let operation = ask.operation.borrow().clone();
                let reply = reply.map(|reply| Reply { operation, ..reply });
                if route.is_logged()
                    && reply.is_err()
                    && let Some(reply) = self.answered(&ask)?
                {
                    // The same request was done meanwhile.
                    return Ok(reply);
                }
                if route.is_logged() && !ask.noted.get() {
                    // What has changed is in the log already. When this cannot be written, the
                    // answer says so: nothing is done unseen.
                    self.note(&ask, reply.as_ref().map_or_else(|no| no.status, |yes| yes.status))?;
                }
                reply
            }
            _ if !caller.is_member() => Err(forbidden(Demand::Member)),
            (None, true) => Err(Refused::not_found(path)),
            (None, false) => {
                let detail = format!("{path} does not do {}", request.method);
                Err(Refused::new(405, "usage", detail, "see /v1/openapi.json"))
            }
        }
    }
}

/// What a request is followed by: one that is logged, or that says whom it is for. What only looks is not.
fn followed(request: &Request) -> Option<Span> {
    let asked_for = request.headers.get(spans::TRACEPARENT).map(String::as_str);
    let mut here = all().filter(|route| route.method == request.method && route.method != "GET");
    let (route, parts) =
        here.find_map(|route| Some((route, fits(route.path, request.path.as_str())?)))?;
    if !route.is_logged() && asked_for.is_none() {
        return None;
    }
    // As the table has it: what stands in the path itself may be anything.
    let mut span = Span::asked(format!("plane {} {}", route.method, route.path), asked_for);
    span.say(Fact::Request, &request.id);
    match (route.path.split('/').nth(2), parts.first()) {
        (Some("instances"), Some(name)) => span.say(Fact::Instance, *name),
        (Some("hosts"), Some(id)) => span.say(Fact::Host, *id),
        _ => {}
    }
    Some(span)
}

/// The parts of `path` that stand for those in braces.
fn fits<'p>(pattern: &str, path: &'p str) -> Option<Vec<&'p str>> {
    let (mut patterns, mut parts) = (pattern.split('/'), path.split('/'));
    let mut found = Vec::new();
    loop {
        match (patterns.next(), parts.next()) {
            (None, None) => return Some(found),
            (Some(pattern), Some(part)) if pattern.starts_with('{') && !part.is_empty() => {
                found.push(part);
            }
            (Some(pattern), Some(part)) if pattern == part => {}
            _ => return None,
        }
    }
}

fn json(status: u16, value: &impl serde::Serialize) -> Result<Reply> {
    let body = serde_json::to_vec(value)
        .map_err(|error| Refused::new(500, "internal", error.to_string(), ""))?;
    Ok(Reply { body, ..nothing_but(status, JSON) })
}

fn nothing() -> Reply {
    nothing_but(204, "")
}

fn nothing_but(status: u16, kind: &'static str) -> Reply {
    let (etag, operation, planes, body, stream) = Default::default();
    Reply { status, kind, etag, operation, known: false, planes, body, stream }
}
