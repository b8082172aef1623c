//! The plane itself.

use super::{JSON, Reply, Route, nothing_but, route};
use crate::access::{Demand, Right};
use crate::serve::{metrics, openapi};

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
    route(
        "GET",
        "/metrics",
        Demand::Everywhere(Right::See),
        "Figures, for Prometheus.",
        |plane, _| {
            let text = metrics::metrics(plane)?;
            let kind = "text/plain; version=0.0.4";
            Ok(Reply { body: text.into_bytes(), ..nothing_but(200, kind) })
        },
    ),
];
