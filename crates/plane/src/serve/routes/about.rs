//! The plane itself.

use api::EventPrint;

use super::{JSON, Reply, Route, nothing_but, route};
use crate::access::{Demand, Right};
use crate::figures;
use crate::serve::{metrics, openapi};

const BACKUP: &str = "application/jsonl";
const EVENTS: &str = "text/event-stream";

pub const ROUTES: &[Route] = &[
    route("GET", "/v1/openapi.json", Demand::Anybody, "This document.", |_, _| {
        Ok(Reply { body: openapi::document().into_bytes(), ..nothing_but(200, JSON) })
    }),
    route(
        "GET",
        "/v1/authority.pem",
        Demand::Anybody,
        "The authority's certificate.",
        |plane, _| {
            let body = plane.authority.pem().as_bytes().to_vec();
            Ok(Reply { body, ..nothing_but(200, "application/x-pem-file") })
        },
    ),
    Route {
        gives: Some(|g| g.subschema_for::<EventPrint>()),
        ..route(
            "GET",
            "/v1/events",
            Demand::Member,
            "Says what changes, as server-sent events, after the id `after` or from now on.",
            |plane, ask| {
                let stream = plane.stream(ask, ask.request.clone())?;
                Ok(Reply { stream: Some(stream), ..nothing_but(200, EVENTS) })
            },
        )
    },
    route(
        "GET",
        "/v1/backup",
        Demand::Everywhere(Right::Manage),
        "A copy of the state, to be restored.",
        |plane, _| {
            let entries = plane.kv.list("")?.entries;
            let all = entries.iter().map(|entry| (entry.key.as_str(), entry.value.as_slice()));
            Ok(Reply { body: crate::backup::write(all), ..nothing_but(200, BACKUP) })
        },
    ),
    route(
        "GET",
        "/metrics",
        Demand::Everywhere(Right::See),
        "Figures, as OpenMetrics.",
        |plane, ask| {
            let text = metrics::metrics(plane, ask.caller)?;
            let kind = figures::KIND;
            Ok(Reply { body: text.into_bytes(), ..nothing_but(200, kind) })
        },
    ),
];
