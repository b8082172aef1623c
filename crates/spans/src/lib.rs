//! Spans: what was done for one request, by whom and for how long, so that it can be followed from who asked
//! through the plane and the host to the shim.
//!
//! ```text
//! caller ──traceparent──▶ plane ──its operation, an order──▶ agent ──the shim's order, its socket──▶ shim
//!    │                      │                                  │                                       │
//!    └──── each says its spans in its log, and to a collector where the environment names one ─────────┘
//! ```
//!
//! A span is a piece of work. The one that a thread works on is its *current* one ([`Span::enter`]): what is begun
//! meanwhile is below it, and what is asked of somebody else carries it ([`traceparent`], as the W3C's Trace Context
//! writes it). What vendors say beside that (`tracestate`) is not carried.
//!
//! **Invariant:** what a span says of its work is one of [`Fact`]: neither tokens, keys, commands nor the content of
//! anything have a place there.
//! **Invariant:** nobody waits for a collector but at the end of a process, and there for [`LAST`] at most; where
//! none is named there is no thread, no socket and no span that somebody would have to be told of.
//! *Bounds:* those of the library: 2048 spans that wait to be sent; more are dropped.
//! *On a crash* the spans of the last seconds are lost; what was done is not.

mod collector;
#[doc(hidden)]
pub mod fuzz;

use std::collections::HashMap;
use std::fmt;
use std::sync::OnceLock;

use opentelemetry::propagation::TextMapPropagator;
use opentelemetry::trace::{
    SpanContext, SpanId, SpanKind, Status, TraceContextExt, TraceFlags, TraceId, TraceState, Tracer,
};
use opentelemetry::{Context, ContextGuard, KeyValue};
use opentelemetry_sdk::propagation::TraceContextPropagator;
use opentelemetry_sdk::trace::SdkTracer;

pub use collector::{Collector, CollectorError, LAST, is_named};

/// The header of a request, and the variable of an environment is called `TRACEPARENT`.
pub const TRACEPARENT: &str = "traceparent";

/// Where spans are made that are sent to a collector.
static TRACER: OnceLock<SdkTracer> = OnceLock::new();

/// What may be said of a piece of work.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fact {
    /// The name of the instance that it is about.
    Instance,
    /// The id of the host.
    Host,
    /// The id of the plane's order.
    Order,
    /// The id of the request, as the plane's audit log has it.
    Request,
    /// What came of it: a status of HTTP, or how an order ended.
    Status,
}

const FACTS: usize = 5;

impl Fact {
    fn key(self) -> &'static str {
        match self {
            Self::Instance => "collective.instance",
            Self::Host => "collective.host",
            Self::Order => "collective.order",
            Self::Request => "collective.request",
            Self::Status => "collective.status",
        }
    }
}

/// Whether a span is begun by somebody else's request, or is work of this process alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Asked,
    Own,
}

/// A piece of work, from when this is made until it is dropped.
pub struct Span {
    name: String,
    began: ambient::Instant,
    facts: [Option<String>; FACTS],
    failure: Option<String>,
    /// It is said in the log only where that is asked to say more.
    is_detail: bool,
    /// Where it is known by an id: with a collector its own, otherwise that of what it is below.
    context: Option<Context>,
}

impl fmt::Debug for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Span").field("name", &self.name).field("id", &self.traceparent()).finish()
    }
}

impl Span {
    /// The first one of a trace.
    pub fn first(name: impl Into<String>) -> Self {
        let name = name.into();
        let context = match TRACER.get() {
            Some(tracer) => begun(tracer, &name, Kind::Own, &Context::new()),
            // With nobody to tell, it has an id all the same: others may have one, and logs say it.
            None => Context::new().with_remote_span_context(SpanContext::new(
                TraceId::from_bytes(ambient::random()),
                SpanId::from_bytes(ambient::random()),
                TraceFlags::SAMPLED,
                true,
                TraceState::NONE,
            )),
        };
        Self::made(name, Some(context))
    }

    /// Below what somebody else does, when that says what it is; what cannot be read says nothing.
    pub fn below(name: impl Into<String>, kind: Kind, traceparent: Option<&str>) -> Self {
        let name = name.into();
        let above = traceparent.and_then(read);
        let context = above.map(|above| match TRACER.get() {
            Some(tracer) => begun(tracer, &name, kind, &above),
            None => above,
        });
        Self::made(name, context)
    }

    /// As [`Span::below`]; where spans are collected it is the first one when it is below nothing.
    pub fn asked(name: impl Into<String>, traceparent: Option<&str>) -> Self {
        let name = name.into();
        if traceparent.and_then(read).is_none()
            && let Some(tracer) = TRACER.get()
        {
            let context = begun(tracer, &name, Kind::Asked, &Context::new());
            return Self::made(name, Some(context));
        }
        Self::below(name, Kind::Asked, traceparent)
    }

    /// A part of what this thread works on.
    pub fn part(name: &str) -> Self {
        let above = Some(Context::current()).filter(|above| above.has_active_span());
        let context = above.map(|above| match TRACER.get() {
            Some(tracer) => begun(tracer, name, Kind::Own, &above),
            None => above,
        });
        let mut part = Self::made(name.to_owned(), context);
        part.is_detail = true;
        part
    }

    fn made(name: String, context: Option<Context>) -> Self {
        let (facts, failure, is_detail) = Default::default();
        Self { name, began: ambient::now(), facts, failure, is_detail, context }
    }

    /// Says what is known of it.
    pub fn say(&mut self, fact: Fact, value: impl Into<String>) {
        self.facts[fact as usize] = Some(value.into());
    }

    /// It has failed, with a failure of this kind.
    pub fn failed(&mut self, kind: &str) {
        self.failure = Some(kind.to_owned());
    }

    /// What this thread works on, until that is dropped.
    #[must_use]
    pub fn enter(&self) -> Entered {
        Entered { _guard: self.context.clone().map(Context::attach) }
    }

    /// What carries it to somebody else.
    pub fn traceparent(&self) -> Option<String> {
        self.context.as_ref().and_then(written)
    }

    /// What all that is done for the same request is known by.
    pub fn trace_id(&self) -> Option<String> {
        let context = self.context.as_ref()?;
        Some(context.span().span_context().trace_id().to_string())
    }
}

impl Drop for Span {
    fn drop(&mut self) {
        self.log();
        let Some(context) = self.context.take() else { return };
        // One that somebody else began is not ours to end: it is not recorded here, and this is nothing.
        let span = context.span();
        let facts = [Fact::Instance, Fact::Host, Fact::Order, Fact::Request, Fact::Status];
        for fact in facts {
            if let Some(value) = self.facts[fact as usize].take() {
                span.set_attribute(KeyValue::new(fact.key(), value));
            }
        }
        if let Some(kind) = self.failure.take() {
            span.set_status(Status::error(kind));
        }
        span.end();
    }
}

impl Span {
    fn log(&self) {
        let context = self.context.as_ref().map(|context| context.span().span_context().clone());
        let trace_id = context.as_ref().map(|context| context.trace_id().to_string());
        let span_id = context.as_ref().map(|context| context.span_id().to_string());
        let (trace_id, span_id) = (trace_id.as_deref(), span_id.as_deref());
        let fact = |fact: Fact| self.facts[fact as usize].as_deref();
        let [instance, host, order, request, status] =
            [Fact::Instance, Fact::Host, Fact::Order, Fact::Request, Fact::Status].map(fact);
        let failure = self.failure.as_deref();
        let ms = self.began.elapsed().as_millis() as u64;
        let name = &self.name;
        macro_rules! line {
            ($level:ident) => {
                tracing::$level!(
                    target: "collective",
                    trace_id, span_id, ms, instance, host, order, request, status, failure, "{name}"
                )
            };
        }
        match (self.is_detail, failure) {
            (true, _) => line!(debug),
            (false, None) => line!(info),
            (false, Some(_)) => line!(warn),
        }
    }
}

/// A span is what this thread works on. It stays on its thread.
pub struct Entered {
    _guard: Option<ContextGuard>,
}

impl fmt::Debug for Entered {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Entered")
    }
}

/// What carries the current span of this thread to somebody else.
pub fn traceparent() -> Option<String> {
    Context::map_current(|current| current.has_active_span().then(|| written(current)).flatten())
}

fn begun(tracer: &SdkTracer, name: &str, kind: Kind, above: &Context) -> Context {
    let kind = match kind {
        Kind::Asked => SpanKind::Server,
        Kind::Own => SpanKind::Internal,
    };
    let builder = tracer.span_builder(name.to_owned()).with_kind(kind);
    Context::new().with_span(tracer.build_with_context(builder, above))
}

fn read(traceparent: &str) -> Option<Context> {
    if !is_written_so(traceparent) {
        return None;
    }
    let carrier = HashMap::from([(TRACEPARENT.to_owned(), traceparent.to_owned())]);
    let context = TraceContextPropagator::new().extract_with_context(&Context::new(), &carrier);
    context.span().span_context().is_valid().then_some(context)
}

/// Whether it is VERSION-TRACE-SPAN-FLAGS, each with all its digits: the library would also read an id that lacks some,
/// or has a sign, as another one. A later version may say more behind it.
fn is_written_so(traceparent: &str) -> bool {
    let mut parts = traceparent.splitn(5, '-');
    let is_hex = |part: Option<&str>, digits: usize| {
        let digit = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
        part.is_some_and(|part| part.len() == digits && part.bytes().all(digit))
    };
    [2, 32, 16, 2].into_iter().all(|digits| is_hex(parts.next(), digits))
        && (parts.next().is_none() || !traceparent.starts_with("00"))
}

fn written(context: &Context) -> Option<String> {
    let mut carrier = HashMap::new();
    TraceContextPropagator::new().inject_context(context, &mut carrier);
    carrier.remove(TRACEPARENT)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOMEBODY: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

    #[test]
    fn what_somebody_else_does_is_carried_on_and_ends_with_its_guard() {
        assert_eq!(traceparent(), None);
        let span = Span::below("start", Kind::Own, Some(SOMEBODY));
        assert_eq!(span.trace_id().as_deref(), Some("0af7651916cd43dd8448eb211c80319c"));
        {
            let _on = span.enter();
            // Nobody is told of spans here: what is below is known by what it is below.
            assert_eq!(traceparent().as_deref(), Some(SOMEBODY));
            let part = Span::part("claim");
            assert_eq!(part.traceparent().as_deref(), Some(SOMEBODY));
            let elsewhere = std::thread::spawn(traceparent).join().unwrap();
            assert_eq!(elsewhere, None, "it is this thread's");
        }
        assert_eq!(traceparent(), None);
    }

    #[test]
    fn what_cannot_be_read_says_nothing() {
        let wrong = [
            "",
            "00",
            "00-00000000000000000000000000000000-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01",
            "00-0AF7651916CD43DD8448EB211C80319C-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-more",
            "00-0af7651916cd43dd8448eb211c80319-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319c-+7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-1",
            "ff-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-\u{1}\n",
        ];
        for text in wrong {
            let span = Span::below("start", Kind::Own, Some(text));
            assert_eq!(span.traceparent(), None, "{text:?}");
            assert_eq!(Span::asked("start", Some(text)).traceparent(), None, "{text:?}");
        }
        assert_eq!(Span::part("claim").traceparent(), None, "nothing is worked on");
        let first = Span::first("run");
        assert_ne!(first.traceparent(), Span::first("run").traceparent());
        assert!(first.traceparent().is_some_and(|text| read(&text).is_some()));
    }
}
