//! How what is done can be followed: lines of a log for who asks for them, and spans for a collector where the
//! environment names one.
//!
//! A service is no piece of work: it has spans of what it is asked, and none of itself.

use clap::ArgMatches;
use spans::{Collector, Kind, Span};

use crate::cli::{Global, Hosts, Verb};
use crate::print;

/// What a verb that serves is called by who collects spans; none: it is asked and ends.
fn service(verb: &Verb) -> Option<&'static str> {
    match verb {
        Verb::Plane(planes) if planes.verb.is_none() => Some("collective-plane"),
        Verb::Up(_) => Some("collective-up"),
        Verb::Host(Hosts::Join { .. }) => Some("collective-host"),
        _ => None,
    }
}

/// The log of a shim, and its spans.
pub fn shim() -> Option<Collector> {
    log(0);
    collector("collective-shim")
}

/// A verb, followed while this is there.
pub struct Followed {
    /// Ends before who is told of it.
    pub span: Option<Span>,
    _collector: Option<Collector>,
}

/// Begins to follow a verb.
pub fn verb(global: &Global, verb: &Verb, words: &ArgMatches) -> Followed {
    log(global.verbose);
    let service = service(verb);
    let collector = collector(service.unwrap_or("collective"));
    let above = variable("TRACEPARENT");
    if service.is_some() || !(global.traced || above.is_some() || collector.is_some()) {
        return Followed { span: None, _collector: collector };
    }
    let name = called(words);
    let below = Span::below(&*name, Kind::Own, above.as_deref());
    let span = if below.trace_id().is_some() { below } else { Span::first(name) };
    if global.traced
        && let Some(id) = span.trace_id()
    {
        print::note(global, &format!("followed as {id}"));
    }
    Followed { span: Some(span), _collector: collector }
}

/// Its verbs, and nothing else of what was typed.
fn called(words: &ArgMatches) -> String {
    let verbs = std::iter::successors(words.subcommand(), |(_, below)| below.subcommand());
    verbs.fold("collective".to_owned(), |name, (verb, _)| format!("{name} {verb}"))
}

fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

/// What cannot be told to a collector is done all the same.
fn collector(part: &str) -> Option<Collector> {
    if !spans::is_named(variable) {
        return None;
    }
    Collector::start(part).inspect_err(|error| eprintln!("{error}")).ok()
}

/// Diagnostics go to standard error, and only when asked for; as JSON, when that is.
fn log(verbose: u8) {
    let default = ["error", "info", "debug", "trace"][usize::from(verbose.min(3))];
    let filter = tracing_subscriber::EnvFilter::try_from_env("COLLECTIVE_LOG")
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new(default));
    let lines = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    if variable("COLLECTIVE_LOG_FORMAT").is_some_and(|format| format == "json") {
        lines.json().flatten_event(true).init();
    } else {
        lines.init();
    }
}
