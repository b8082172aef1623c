//! Hosts: what people ask of them, and what they say.

use api::{
    BeatReply, HostChange, HostIdentity, HostKey, HostPrint, HostReport, MeterReply, MeterReport,
    OrderPrint, OrderReport, OrdersKnown, PeersPrint,
};

use super::{Reply, Route, json, nothing, route};
use crate::access::{Demand, Right};
use crate::serve::state::host_id;

pub const ROUTES: &[Route] = &[
    Route {
        gives: Some(|g| g.subschema_for::<Vec<HostPrint>>()),
        ..route("GET", "/v1/hosts", Demand::Member, "Lists hosts.", |plane, _| {
            json(200, &plane.hosts()?)
        })
    },
    Route {
        gives: Some(|g| g.subschema_for::<HostPrint>()),
        ..route("GET", "/v1/hosts/{id}", Demand::Member, "Shows a host.", |plane, ask| {
            let (revision, host) = plane.host(host_id(ask.about())?)?;
            Ok(Reply { etag: Some(revision), ..json(200, &host)? })
        })
    },
    Route {
        takes: Some(|g| g.subschema_for::<HostChange>()),
        conditional: true,
        ..route(
            "PATCH",
            "/v1/hosts/{id}",
            Demand::Everywhere(Right::Operate),
            "Cordons or drains a host, or takes that back.",
            |plane, ask| {
                plane.wish_host(ask, host_id(ask.about())?, ask.if_match()?, ask.body()?)?;
                Ok(nothing())
            },
        )
    },
    route(
        "DELETE",
        "/v1/hosts/{id}",
        Demand::Everywhere(Right::Manage),
        "Forgets a host that is gone.",
        |plane, ask| {
            plane.forget_host(ask, host_id(ask.about())?)?;
            Ok(nothing())
        },
    ),
    Route {
        takes: Some(|g| g.subschema_for::<HostKey>()),
        gives: Some(|g| g.subschema_for::<HostIdentity>()),
        ..route(
            "POST",
            "/v1/hosts/{id}/certificate",
            Demand::Joining,
            "Certifies a host.",
            |plane, ask| {
                json(200, &plane.certify(host_id(ask.about())?, ask.caller, &ask.body()?)?)
            },
        )
    },
    Route {
        takes: Some(|g| g.subschema_for::<HostReport>()),
        gives: Some(|g| g.subschema_for::<BeatReply>()),
        ..route(
            "PUT",
            "/v1/hosts/{id}/beat",
            Demand::Host,
            "A host says that it is there.",
            |plane, ask| json(200, &plane.beat(host_id(ask.about())?, ask.body()?)?),
        )
    },
    Route {
        takes: Some(|g| g.subschema_for::<MeterReport>()),
        gives: Some(|g| g.subschema_for::<MeterReply>()),
        ..route(
            "POST",
            "/v1/hosts/{id}/usage",
            Demand::Host,
            "A host says what its instances have used.",
            |plane, ask| json(200, &plane.meter(host_id(ask.about())?, &ask.body()?)?),
        )
    },
    Route {
        gives: Some(|g| g.subschema_for::<PeersPrint>()),
        ..route(
            "GET",
            "/v1/hosts/{id}/peers",
            Demand::Host,
            "A host asks who its peers are.",
            |plane, ask| json(200, &plane.peers(host_id(ask.about())?)?),
        )
    },
    Route {
        takes: Some(|g| g.subschema_for::<OrdersKnown>()),
        gives: Some(|g| g.subschema_for::<Vec<OrderPrint>>()),
        ..route(
            "POST",
            "/v1/hosts/{id}/orders",
            Demand::Host,
            "A host asks what to do.",
            |plane, ask| json(200, &plane.orders(host_id(ask.about())?, &ask.body()?)?),
        )
    },
    Route {
        takes: Some(|g| g.subschema_for::<OrderReport>()),
        ..route(
            "POST",
            "/v1/hosts/{id}/done",
            Demand::Host,
            "A host says what it did.",
            |plane, ask| {
                plane.order_ended(host_id(ask.about())?, &ask.body()?)?;
                Ok(nothing())
            },
        )
    },
];
