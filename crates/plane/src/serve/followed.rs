//! What follows an order that stems from no request: a drain, a relief, a host that has died, a guest that is to go on.
//!
//! The first such order of an instance begins a trace; the others are in it until the instance is as it should be
//! (`places/NAME`), so that what leaves one host and goes on on another one is one trace.
//! *On a crash,* or where an older plane steers meanwhile, the next order begins another trace.

use api::{OrderAct, OrderPrint};
use model::HostId;
use spans::{Fact, Kind, Span};

/// The order, as it is given: below `trace`, or the first one. To look at something begins none.
pub fn followed(order: OrderPrint, to: HostId, trace: &mut Option<String>) -> OrderPrint {
    if trace.is_none() && order.act == OrderAct::Look {
        return order;
    }
    let name = format!("plane {}", order.act.as_str());
    let mut span = match trace {
        Some(above) => Span::below(name, Kind::Own, Some(above)),
        None => Span::first(name),
    };
    span.say(Fact::Instance, &order.name);
    span.say(Fact::Host, to.to_string());
    span.say(Fact::Order, &order.id);
    let traceparent = span.traceparent();
    if trace.is_none() {
        trace.clone_from(&traceparent);
    }
    OrderPrint { traceparent, ..order }
}
