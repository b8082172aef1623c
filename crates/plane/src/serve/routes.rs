//! Every path and method, in one table: what it does, what it takes and gives. Requests are found
//! in it, and `/v1/openapi.json` is made of it, so that neither can have what the other lacks.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;

use api::{
    BeatReply, HostChange, HostIdentity, HostKey, HostPrint, HostReport, InstanceChange,
    InstanceWish, OrderPrint, OrderReport, OrdersKnown, PeersPrint, PlacedPrint, PlanPrint,
};
use kv::{Condition, Revision};
use model::HostId;
use schemars::{Schema, SchemaGenerator};
use serde::de::DeserializeOwned;

use super::state::{host_id, name};
use super::{Plane, Refused, openapi, token};
use crate::identity::Peer;

/// A request, read.
#[derive(Debug, Default)]
pub struct Request {
    pub method: String,
    pub path: String,
    /// By lower-case names.
    pub headers: BTreeMap<String, String>,
    /// The host whose certificate was shown.
    pub peer: Option<Peer>,
    pub body: Vec<u8>,
}

/// An answer.
#[derive(Debug, PartialEq, Eq)]
pub struct Reply {
    pub status: u16,
    pub kind: &'static str,
    pub etag: Option<Revision>,
    pub body: Vec<u8>,
}

type Result<T> = std::result::Result<T, Refused>;
type MakeSchema = fn(&mut SchemaGenerator) -> Schema;

pub struct Route {
    pub method: &'static str,
    /// `{id}` and `{name}` stand for one part.
    pub path: &'static str,
    pub does: &'static str,
    pub takes: Option<MakeSchema>,
    pub gives: Option<MakeSchema>,
    /// The caller may say by `If-Match` what it has seen.
    pub conditional: bool,
    /// Who may ask, beside administrators.
    pub also: Also,
    run: fn(&Plane, &Request, &str) -> Result<Reply>,
}

/// Who may ask beside administrators.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Also {
    Nobody,
    /// The host that it is about.
    Host,
    /// That host, and whoever has a join token.
    Joining,
    Anybody,
}

const JSON: &str = "application/json";

const fn route(
    method: &'static str,
    path: &'static str,
    does: &'static str,
    run: fn(&Plane, &Request, &str) -> Result<Reply>,
) -> Route {
    let (takes, gives) = (None, None);
    Route { method, path, does, takes, gives, conditional: false, also: Also::Nobody, run }
}

/// See the module's documentation.
pub const ROUTES: &[Route] = &[
    Route {
        gives: Some(|g| g.subschema_for::<Vec<HostPrint>>()),
        ..route("GET", "/v1/hosts", "Lists hosts.", |plane, _, _| json(200, &plane.hosts()?))
    },
    Route {
        gives: Some(|g| g.subschema_for::<HostPrint>()),
        ..route("GET", "/v1/hosts/{id}", "Shows a host.", |plane, _, id| {
            let (revision, host) = plane.host(host_id(id)?)?;
            Ok(Reply { etag: Some(revision), ..json(200, &host)? })
        })
    },
    Route {
        takes: Some(|g| g.subschema_for::<HostChange>()),
        conditional: true,
        ..route(
            "PATCH",
            "/v1/hosts/{id}",
            "Cordons or drains a host, or takes that back.",
            |p, r, id| {
                let change: HostChange = body(r)?;
                p.wish_host(host_id(id)?, if_match(r)?, change)?;
                Ok(nothing())
            },
        )
    },
    route("DELETE", "/v1/hosts/{id}", "Forgets a host that is gone.", |plane, _, id| {
        plane.forget_host(host_id(id)?)?;
        Ok(nothing())
    }),
    Route {
        also: Also::Joining,
        takes: Some(|g| g.subschema_for::<HostKey>()),
        gives: Some(|g| g.subschema_for::<HostIdentity>()),
        ..route("POST", "/v1/hosts/{id}/certificate", "Certifies a host.", |plane, r, id| {
            json(200, &plane.certify(host_id(id)?, who(plane, r)?, &body(r)?)?)
        })
    },
    Route {
        also: Also::Host,
        takes: Some(|g| g.subschema_for::<HostReport>()),
        gives: Some(|g| g.subschema_for::<BeatReply>()),
        ..route("PUT", "/v1/hosts/{id}/beat", "A host says that it is there.", |plane, r, id| {
            json(200, &plane.beat(host_id(id)?, body(r)?)?)
        })
    },
    Route {
        also: Also::Host,
        gives: Some(|g| g.subschema_for::<PeersPrint>()),
        ..route("GET", "/v1/hosts/{id}/peers", "A host asks who its peers are.", |plane, _, id| {
            json(200, &plane.peers(host_id(id)?)?)
        })
    },
    Route {
        also: Also::Host,
        takes: Some(|g| g.subschema_for::<OrdersKnown>()),
        gives: Some(|g| g.subschema_for::<Vec<OrderPrint>>()),
        ..route("POST", "/v1/hosts/{id}/orders", "A host asks what to do.", |plane, r, id| {
            json(200, &plane.orders(host_id(id)?, &body(r)?)?)
        })
    },
    Route {
        also: Also::Host,
        takes: Some(|g| g.subschema_for::<OrderReport>()),
        ..route("POST", "/v1/hosts/{id}/done", "A host says what it did.", |plane, r, id| {
            plane.order_ended(host_id(id)?, &body(r)?)?;
            Ok(nothing())
        })
    },
    Route {
        gives: Some(|g| g.subschema_for::<Vec<PlacedPrint>>()),
        ..route("GET", "/v1/instances", "Lists instances.", |plane, _, _| {
            json(200, &plane.instances()?)
        })
    },
    Route {
        gives: Some(|g| g.subschema_for::<PlacedPrint>()),
        ..route("GET", "/v1/instances/{name}", "Shows an instance.", |plane, _, of| {
            let (revision, instance) = plane.instance(&name(of)?)?;
            Ok(Reply { etag: Some(revision), ..json(200, &instance)? })
        })
    },
    Route {
        takes: Some(|g| g.subschema_for::<InstanceWish>()),
        conditional: true,
        ..route("PUT", "/v1/instances/{name}", "Wishes for an instance.", |plane, request, of| {
            let none = request.headers.get("if-none-match").is_some_and(|value| value == "*");
            let condition = match if_match(request)? {
                Some(revision) => Some(Condition::At(revision)),
                None => none.then_some(Condition::Absent),
            };
            let revision = plane.wish(&name(of)?, condition, &body(request)?)?;
            Ok(Reply { etag: Some(revision), ..nothing() })
        })
    },
    Route {
        takes: Some(|g| g.subschema_for::<InstanceChange>()),
        conditional: true,
        ..route("PATCH", "/v1/instances/{name}", "Wishes for a change.", |plane, r, of| {
            let revision = plane.rewish(&name(of)?, if_match(r)?, &body(r)?)?;
            Ok(Reply { etag: Some(revision), ..nothing() })
        })
    },
    Route {
        conditional: true,
        ..route("DELETE", "/v1/instances/{name}", "Wishes for it no longer.", |plane, r, of| {
            plane.forget(&name(of)?, if_match(r)?)?;
            Ok(nothing())
        })
    },
    Route {
        gives: Some(|g| g.subschema_for::<PlanPrint>()),
        ..route("GET", "/v1/plan", "Says what would be done now, and why.", |plane, _, _| {
            json(200, &plane.plan()?)
        })
    },
    Route {
        also: Also::Anybody,
        ..route("GET", "/v1/openapi.json", "This document.", |_, _, _| {
            Ok(Reply { body: openapi::document().into_bytes(), ..nothing_but(200, JSON) })
        })
    },
    Route {
        also: Also::Anybody,
        ..route("GET", "/v1/authority.pem", "The authority's certificate.", |plane, _, _| {
            let body = plane.authority.pem().as_bytes().to_vec();
            Ok(Reply { body, ..nothing_but(200, "application/x-pem-file") })
        })
    },
    route("GET", "/metrics", "Figures, for Prometheus.", |plane, _, _| {
        let text = metrics(plane)?;
        let kind = "text/plain; version=0.0.4";
        Ok(Reply { body: text.into_bytes(), ..nothing_but(200, kind) })
    }),
];

impl Plane {
    /// Answers a request.
    pub fn answer(&self, request: &Request) -> Reply {
        self.requests.fetch_add(1, Ordering::Relaxed);
        self.dispatch(request).unwrap_or_else(|refused| self.refuse(&refused))
    }

    pub(super) fn refuse(&self, refused: &Refused) -> Reply {
        self.refused.fetch_add(1, Ordering::Relaxed);
        let body = serde_json::to_vec(&refused.problem()).unwrap_or_default();
        Reply { body, ..nothing_but(refused.status, "application/problem+json") }
    }

    fn dispatch(&self, request: &Request) -> Result<Reply> {
        let path = request.path.split('?').next().unwrap_or_default();
        let here: Vec<_> =
            ROUTES.iter().filter_map(|route| Some((route, fits(route.path, path)?))).collect();
        let found = here.iter().find(|(route, _)| route.method == request.method);
        let also = found.map_or(Also::Nobody, |(route, _)| route.also);
        if also != Also::Anybody {
            let about = found.map_or("", |(_, part)| *part);
            let may = match who(self, request)? {
                Who::Administrator => true,
                Who::Host(id) => also != Also::Nobody && id.to_string() == about,
                Who::Joining => also == Also::Joining,
            };
            if !may {
                let hint = "this is for who has the plane's own token";
                return Err(Refused::new(403, "permission", "not with this identity", hint));
            }
        }
        match (found, here.is_empty()) {
            (Some((route, part)), _) => (route.run)(self, request, part),
            (None, true) => Err(Refused::not_found(path)),
            (None, false) => {
                let detail = format!("{path} does not do {}", request.method);
                Err(Refused::new(405, "usage", detail, "see /v1/openapi.json"))
            }
        }
    }
}

/// Who asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Who {
    Administrator,
    Joining,
    Host(HostId),
}

fn who(plane: &Plane, request: &Request) -> Result<Who> {
    let shown = request.headers.get("authorization");
    if let Some(shown) = shown.and_then(|value| value.strip_prefix("Bearer ")) {
        if token::is_same(shown, &plane.secret.bearer()) {
            return Ok(Who::Administrator);
        }
        if token::is_same(shown, &plane.secret.join_bearer()) {
            return Ok(Who::Joining);
        }
    } else if let Some(peer) = request.peer
        && plane.is_trusted(&peer)?
    {
        return Ok(Who::Host(peer.host));
    }
    let hint = "send `Authorization: Bearer TOKEN`; the token is in the plane's token file. A host that \
                was removed joins again with a token";
    Err(Refused::new(401, "permission", "this needs the plane's token", hint))
}

/// The part of `path` that stands for the one in braces; empty when there is none in braces.
fn fits<'p>(pattern: &str, path: &'p str) -> Option<&'p str> {
    let (mut patterns, mut parts) = (pattern.split('/'), path.split('/'));
    let mut found = "";
    loop {
        match (patterns.next(), parts.next()) {
            (None, None) => return Some(found),
            (Some(pattern), Some(part)) if pattern.starts_with('{') && !part.is_empty() => {
                found = part;
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
    Reply { status, kind, etag: None, body: Vec::new() }
}

fn body<T: DeserializeOwned>(request: &Request) -> Result<T> {
    serde_json::from_slice(&request.body).map_err(|error| Refused::wrong(error.to_string()))
}

fn if_match(request: &Request) -> Result<Option<Revision>> {
    let Some(value) = request.headers.get("if-match").filter(|value| *value != "*") else {
        return Ok(None);
    };
    let number = value.strip_prefix('"').and_then(|value| value.strip_suffix('"'));
    match number.and_then(|number| number.parse().ok()) {
        Some(number) => Ok(Some(Revision(number))),
        None => Err(Refused::changed("an entity tag that is none of ours")),
    }
}

fn metrics(plane: &Plane) -> Result<String> {
    let hosts = plane.hosts()?;
    let mut text = String::new();
    let mut figure = |name: &str, kind: &str, help: &str, values: &[(String, u64)]| {
        text.push_str(&format!("# HELP {name} {help}\n# TYPE {name} {kind}\n"));
        for (labels, value) in values {
            text.push_str(&format!("{name}{labels} {value}\n"));
        }
    };
    let states = ["ready", "cordoned", "draining", "gone"].map(|state| {
        let count = hosts.iter().filter(|host| host.state == state).count();
        (format!("{{state=\"{state}\"}}"), count as u64)
    });
    figure("collective_hosts", "gauge", "Hosts that have joined.", &states);
    let held = hosts.iter().map(|host| host.instances).sum();
    figure("collective_instances", "gauge", "Instances that hosts hold.", &[(String::new(), held)]);
    let requests = plane.requests.load(Ordering::Relaxed);
    let refused = plane.refused.load(Ordering::Relaxed);
    let help = "Requests to this plane.";
    figure("collective_plane_requests_total", "counter", help, &[(String::new(), requests)]);
    let help = "Requests that this plane refused.";
    figure("collective_plane_refused_total", "counter", help, &[(String::new(), refused)]);
    let stumbled = plane.stumbled.load(Ordering::Relaxed);
    let help = "How often this plane could not steer.";
    figure(
        "collective_plane_steering_failures_total",
        "counter",
        help,
        &[(String::new(), stumbled)],
    );
    let unreadable = plane.unreadable.load(Ordering::Relaxed);
    let help = "Keys of the state that this plane cannot read, and leaves alone.";
    figure("collective_plane_unreadable_keys", "gauge", help, &[(String::new(), unreadable)]);
    Ok(text)
}
