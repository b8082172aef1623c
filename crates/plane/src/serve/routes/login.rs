//! Logging in, and the rules of who may.

use api::{LoginPrint, LoginRulePrint, LoginRuleWish, LoginWish, NewToken};

use super::{Route, json, nothing, route};
use crate::access::{Demand, Right};

const MANAGE: Demand = Demand::Everywhere(Right::Manage);

pub const ROUTES: &[Route] = &[
    Route {
        gives: Some(|g| g.subschema_for::<LoginPrint>()),
        ..route("GET", "/v1/login", Demand::Anybody, "Says where people log in.", |plane, _| {
            json(200, &plane.login_at()?)
        })
    },
    Route {
        takes: Some(|g| g.subschema_for::<LoginWish>()),
        gives: Some(|g| g.subschema_for::<NewToken>()),
        ..route(
            "POST",
            "/v1/login",
            Demand::Anybody,
            "Makes a token for who has logged in, by `Authorization: Login CODE.VERIFIER`.",
            |plane, ask| json(200, &plane.log_in(ask, &ask.body()?)?),
        )
    },
    Route {
        gives: Some(|g| g.subschema_for::<Vec<LoginRulePrint>>()),
        ..route(
            "GET",
            "/v1/login-rules",
            Demand::Everywhere(Right::Audit),
            "Lists the rules of who may log in.",
            |plane, _| json(200, &plane.login_rules()?),
        )
    },
    Route {
        takes: Some(|g| g.subschema_for::<LoginRuleWish>()),
        gives: Some(|g| g.subschema_for::<LoginRulePrint>()),
        ..route("POST", "/v1/login-rules", MANAGE, "Adds a rule.", |plane, ask| {
            json(200, &plane.add_rule(ask, ask.body()?)?)
        })
    },
    route("DELETE", "/v1/login-rules/{id}", MANAGE, "Takes a rule away.", |plane, ask| {
        plane.remove_rule(ask, ask.about())?;
        Ok(nothing())
    }),
];
