//! Users, projects, roles, tokens.

use api::{
    AuditPrint, CallerPrint, MemberWish, NewToken, ProjectPrint, Quota, TokenPrint, TokenWish,
    UserPrint, UserWish,
};

use super::{Route, json, nothing, route};
use crate::access::{Demand, Right};
use crate::serve::Refused;
use crate::serve::ask::Ask;
use crate::serve::state::name;

const MANAGE: Demand = Demand::Everywhere(Right::Manage);
const AUDIT: Demand = Demand::Everywhere(Right::Audit);

pub const ROUTES: &[Route] = &[
    Route {
        gives: Some(|g| g.subschema_for::<CallerPrint>()),
        ..route("GET", "/v1/whoami", Demand::Member, "Says who asks.", |plane, ask| {
            json(200, &plane.whoami(ask.caller))
        })
    },
    Route {
        gives: Some(|g| g.subschema_for::<Vec<UserPrint>>()),
        ..route("GET", "/v1/users", AUDIT, "Lists users.", |plane, _| json(200, &plane.users()?))
    },
    Route {
        gives: Some(|g| g.subschema_for::<UserPrint>()),
        ..route("GET", "/v1/users/{name}", AUDIT, "Shows a user.", |plane, ask| {
            json(200, &plane.user(&name(ask.about())?)?)
        })
    },
    Route {
        takes: Some(|g| g.subschema_for::<UserWish>()),
        ..route(
            "PUT",
            "/v1/users/{name}",
            MANAGE,
            "Adds a user, or says what one may do everywhere.",
            |plane, ask| {
                plane.put_user(ask, &name(ask.about())?, &ask.body()?)?;
                Ok(nothing())
            },
        )
    },
    route(
        "DELETE",
        "/v1/users/{name}",
        MANAGE,
        "Removes a user, with the tokens.",
        |plane, ask| {
            plane.remove_user(ask, &name(ask.about())?)?;
            Ok(nothing())
        },
    ),
    Route {
        gives: Some(|g| g.subschema_for::<Vec<ProjectPrint>>()),
        ..route("GET", "/v1/projects", Demand::Member, "Lists projects.", |plane, ask| {
            json(200, &plane.projects(ask.caller)?)
        })
    },
    Route {
        gives: Some(|g| g.subschema_for::<ProjectPrint>()),
        ..route(
            "GET",
            "/v1/projects/{project}",
            Demand::Project(Right::See),
            "Shows a project.",
            |plane, ask| json(200, &plane.project(&name(ask.about())?)?),
        )
    },
    route("PUT", "/v1/projects/{project}", MANAGE, "Adds a project.", |plane, ask| {
        plane.add_project(ask, &name(ask.about())?)?;
        Ok(nothing())
    }),
    route(
        "DELETE",
        "/v1/projects/{project}",
        MANAGE,
        "Removes a project without instances.",
        |plane, ask| {
            plane.remove_project(ask, &name(ask.about())?)?;
            Ok(nothing())
        },
    ),
    Route {
        takes: Some(|g| g.subschema_for::<Quota>()),
        ..route(
            "PUT",
            "/v1/projects/{project}/quota",
            MANAGE,
            "Says what a project's instances may take.",
            |plane, ask| {
                ask.in_project(ask.about());
                plane.put_quota(ask, &name(ask.about())?, ask.body()?)?;
                Ok(nothing())
            },
        )
    },
    Route {
        takes: Some(|g| g.subschema_for::<MemberWish>()),
        ..route(
            "PUT",
            "/v1/projects/{project}/members/{user}",
            Demand::Project(Right::Manage),
            "Gives a user a role in a project.",
            |plane, ask| {
                let wish: MemberWish = ask.body()?;
                plane.put_member(ask, &name(ask.about())?, &second(ask)?, Some(wish.role))?;
                Ok(nothing())
            },
        )
    },
    route(
        "DELETE",
        "/v1/projects/{project}/members/{user}",
        Demand::Project(Right::Manage),
        "Takes a user's role in a project away.",
        |plane, ask| {
            plane.put_member(ask, &name(ask.about())?, &second(ask)?, None)?;
            Ok(nothing())
        },
    ),
    Route {
        gives: Some(|g| g.subschema_for::<AuditPrint>()),
        ..route(
            "GET",
            "/v1/audit",
            AUDIT,
            "Reads the audit log, after the entry `after`.",
            |plane, ask| json(200, &plane.audit(ask.number("after")?.unwrap_or_default(), None)?),
        )
    },
    Route {
        gives: Some(|g| g.subschema_for::<AuditPrint>()),
        ..route(
            "GET",
            "/v1/projects/{project}/audit",
            Demand::Project(Right::Audit),
            "Reads what of the audit log is about a project, after the entry `after`.",
            |plane, ask| {
                let after = ask.number("after")?.unwrap_or_default();
                json(200, &plane.audit(after, Some(ask.about()))?)
            },
        )
    },
    Route {
        gives: Some(|g| g.subschema_for::<Vec<TokenPrint>>()),
        ..route("GET", "/v1/tokens", Demand::Member, "Lists tokens.", |plane, ask| {
            json(200, &plane.tokens(ask.caller)?)
        })
    },
    Route {
        takes: Some(|g| g.subschema_for::<TokenWish>()),
        gives: Some(|g| g.subschema_for::<NewToken>()),
        ..route("POST", "/v1/tokens", Demand::Member, "Makes a token.", |plane, ask| {
            json(200, &plane.make_token(ask, &ask.body()?)?)
        })
    },
    route("DELETE", "/v1/tokens/{id}", Demand::Member, "Takes a token back.", |plane, ask| {
        plane.revoke_token(ask, ask.about())?;
        Ok(nothing())
    }),
];

fn second(ask: &Ask<'_>) -> Result<model::Name, Refused> {
    name(ask.parts.get(1).copied().unwrap_or_default())
}
