//! Instances, and where they would run.

use api::{InstanceChange, InstanceWish, PlacedPrint, PlanPrint};
use kv::Condition;

use super::{Reply, Route, json, nothing, route};
use crate::access::{Demand, Right};
use crate::serve::state::name;

pub const ROUTES: &[Route] = &[
    Route {
        gives: Some(|g| g.subschema_for::<Vec<PlacedPrint>>()),
        ..route("GET", "/v1/instances", Demand::Member, "Lists instances.", |plane, ask| {
            json(200, &plane.instances(ask.caller)?)
        })
    },
    Route {
        gives: Some(|g| g.subschema_for::<PlacedPrint>()),
        ..route(
            "GET",
            "/v1/instances/{name}",
            Demand::Instance(Right::See),
            "Shows an instance.",
            |plane, ask| {
                let (revision, instance) = plane.instance(ask, &name(ask.about())?)?;
                Ok(Reply { etag: Some(revision), ..json(200, &instance)? })
            },
        )
    },
    Route {
        takes: Some(|g| g.subschema_for::<InstanceWish>()),
        conditional: true,
        ..route(
            "PUT",
            "/v1/instances/{name}",
            Demand::Instance(Right::Own),
            "Wishes for an instance.",
            |plane, ask| {
                let none = ask.header("if-none-match") == Some("*");
                let condition = match ask.if_match()? {
                    Some(revision) => Some(Condition::At(revision)),
                    None => none.then_some(Condition::Absent),
                };
                let revision = plane.wish(ask, &name(ask.about())?, condition, &ask.body()?)?;
                Ok(Reply { etag: Some(revision), ..nothing() })
            },
        )
    },
    Route {
        takes: Some(|g| g.subschema_for::<InstanceChange>()),
        conditional: true,
        ..route(
            "PATCH",
            "/v1/instances/{name}",
            Demand::Instance(Right::Own),
            "Wishes for a change.",
            |plane, ask| {
                let at = ask.if_match()?;
                let revision = plane.rewish(ask, &name(ask.about())?, at, &ask.body()?)?;
                Ok(Reply { etag: Some(revision), ..nothing() })
            },
        )
    },
    Route {
        conditional: true,
        ..route(
            "DELETE",
            "/v1/instances/{name}",
            Demand::Instance(Right::Own),
            "Wishes for it no longer.",
            |plane, ask| {
                plane.forget(ask, &name(ask.about())?, ask.if_match()?)?;
                Ok(nothing())
            },
        )
    },
    Route {
        gives: Some(|g| g.subschema_for::<PlanPrint>()),
        ..route(
            "GET",
            "/v1/plan",
            Demand::Everywhere(Right::See),
            "Says what would be done now, and why.",
            |plane, _| json(200, &plane.plan()?),
        )
    },
];
