//! Operations: what was asked, how far it is, and calling it off.

use api::OperationPrint;

use super::{Reply, Route, json, nothing, route};
use crate::access::{Demand, Right};

pub const ROUTES: &[Route] = &[
    Route {
        gives: Some(|g| g.subschema_for::<Vec<OperationPrint>>()),
        ..route(
            "GET",
            "/v1/operations",
            Demand::Member,
            "Lists operations, of the project `project` or of the instance `instance`.",
            |plane, ask| {
                let (project, instance) = (ask.query("project"), ask.query("instance"));
                json(200, &plane.operations(ask.caller, project, instance)?)
            },
        )
    },
    Route {
        gives: Some(|g| g.subschema_for::<OperationPrint>()),
        ..route(
            "GET",
            "/v1/operations/{id}",
            Demand::Instance(Right::See),
            "Shows an operation.",
            |plane, ask| {
                let (revision, operation) = plane.operation(ask, ask.about())?;
                Ok(Reply { etag: Some(revision), ..json(200, &operation)? })
            },
        )
    },
    Route {
        conditional: true,
        ..route(
            "POST",
            "/v1/operations/{id}/cancel",
            Demand::Instance(Right::Own),
            "Calls an operation off. When a host works on it, it is over when that has ended.",
            |plane, ask| {
                plane.cancel_operation(ask, ask.about(), ask.if_match()?)?;
                Ok(nothing())
            },
        )
    },
];
