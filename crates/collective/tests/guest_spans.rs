//! One request, followed from who asked it through plane, host and shim: by a collector that takes what is sent to
//! it, and by the logs of all four.

#[path = "support/fleet.rs"]
mod fleet;
mod support;

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use fleet::Fleet;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::{KeyValue, any_value::Value};
use prost::Message;
use support::{World, eventually};

/// A span, as a collector knows it.
#[derive(Debug, Clone)]
struct Seen {
    part: String,
    name: String,
    trace: String,
    id: String,
    above: String,
    said: BTreeMap<String, String>,
    took: Duration,
}

/// Takes spans at `/v1/traces`.
struct Collector {
    url: String,
    seen: Arc<Mutex<Vec<Seen>>>,
}

impl Collector {
    fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let seen = Arc::new(Mutex::new(Vec::new()));
        let all = seen.clone();
        std::thread::spawn(move || {
            for socket in listener.incoming() {
                let all = all.clone();
                std::thread::spawn(move || take(socket.unwrap(), &all));
            }
        });
        Self { url, seen }
    }

    /// What is known of a trace.
    fn of(&self, trace: &str) -> Vec<Seen> {
        let seen = self.seen.lock().unwrap();
        seen.iter().filter(|span| span.trace == trace).cloned().collect()
    }

    /// What a trace begins with, of which only this is known.
    #[track_caller]
    fn await_first(&self, name: &str) -> Seen {
        let mut found = None;
        eventually(Duration::from_secs(60), &format!("somebody begins with {name}"), || {
            let seen = self.seen.lock().unwrap();
            found = seen.iter().find(|span| span.name == name && span.above.is_empty()).cloned();
            found.is_some()
        });
        found.unwrap()
    }

    #[track_caller]
    fn await_span(&self, trace: &str, part: &str, name: &str) -> Seen {
        let mut found = None;
        let what = format!("{part} says {name} in {trace}");
        eventually(Duration::from_secs(60), &what, || {
            let all = self.of(trace);
            found = all.into_iter().find(|span| span.part == part && span.name == name);
            found.is_some()
        });
        found.unwrap()
    }
}

fn take(socket: TcpStream, all: &Mutex<Vec<Seen>>) {
    let mut reader = BufReader::new(socket);
    let (mut first, mut length) = (String::new(), 0);
    reader.read_line(&mut first).unwrap();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).unwrap();
        let line = line.trim().to_lowercase();
        match line.split_once(": ") {
            Some(("content-length", value)) => length = value.parse().unwrap(),
            Some(("content-type", value)) => assert_eq!(value, "application/x-protobuf"),
            Some(_) => {}
            None => break,
        }
    }
    assert_eq!(first.trim(), "POST /v1/traces HTTP/1.1");
    let mut body = vec![0; length];
    reader.read_exact(&mut body).unwrap();
    let request = ExportTraceServiceRequest::decode(&*body).unwrap();
    let mut seen = Vec::new();
    for of_part in request.resource_spans {
        let said = said(&of_part.resource.unwrap().attributes);
        for span in of_part.scope_spans.into_iter().flat_map(|scope| scope.spans) {
            seen.push(Seen {
                part: said["service.name"].clone(),
                name: span.name,
                trace: hex(&span.trace_id),
                id: hex(&span.span_id),
                above: hex(&span.parent_span_id),
                said: self::said(&span.attributes),
                took: Duration::from_nanos(
                    span.end_time_unix_nano.checked_sub(span.start_time_unix_nano).unwrap(),
                ),
            });
        }
    }
    all.lock().unwrap().extend(seen);
    let answer = "HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";
    // Whoever has ended meanwhile does not wait for it.
    let _ = reader.into_inner().write_all(answer.as_bytes());
}

fn said(attributes: &[KeyValue]) -> BTreeMap<String, String> {
    let text = |one: &KeyValue| match one.value.clone()?.value? {
        Value::StringValue(text) => Some((one.key.clone(), text)),
        _ => None,
    };
    attributes.iter().filter_map(text).collect()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The lines of a log about a trace, by what they say.
fn logged(file: &Path, trace: &str) -> Vec<String> {
    let log = std::fs::read_to_string(file).unwrap_or_default();
    let lines = log.lines().filter_map(|line| serde_json::from_str(line).ok());
    let about = lines.filter(|line: &serde_json::Value| line["trace_id"] == trace);
    about.map(|line| line["message"].as_str().unwrap().to_owned()).collect()
}

/// Short, for tests: what a host may be away.
const LEASE_S: u32 = 6;

const PUT: &str = "plane PUT /v1/instances/{name}";
const PATCH: &str = "plane PATCH /v1/instances/{name}";
const DONE: &str = "plane POST /v1/hosts/{id}/done";

#[test]
fn guest_is_followed_from_who_asks_through_plane_host_and_shim() {
    let collector = Collector::start();
    let world = World::with_tiny("spans");
    let repository = world.repository();
    let world = world.at(
        &repository,
        &[
            ("OTEL_EXPORTER_OTLP_ENDPOINT", &collector.url),
            ("OTEL_BSP_SCHEDULE_DELAY", "100"),
            ("COLLECTIVE_LOG", "info"),
            ("COLLECTIVE_LOG_FORMAT", "json"),
        ],
    );
    let (plane_log, host_log) = (world.root().join("plane.log"), world.root().join("host.log"));
    let (_plane, fleet) = Fleet::start_logged(&world, &plane_log);
    let _agent = fleet.join_logged("A", &host_log);
    fleet.await_hosts(1);
    let a = fleet.id("A");

    let run = fleet.run("P", &["--traced", "run", "tiny", "--name", "t1", "--on", &a]);
    run.ok();
    let trace = run.stderr.lines().find_map(|line| line.strip_prefix("followed as "));
    let trace = trace.unwrap_or_else(|| panic!("{run:?}"));

    let asked = collector.await_span(trace, "collective", "collective run");
    let taken = collector.await_span(trace, "collective-plane", PUT);
    let ordered = collector.await_span(trace, "collective-host", "host start");
    let started = collector.await_span(trace, "collective-shim", "shim start");
    let ready = collector.await_span(trace, "collective-shim", "shim ready");
    let powered = collector.await_span(trace, "collective-shim", "power on");
    // The host has looked for it before, for the same request.
    let mut done = None;
    eventually(Duration::from_secs(60), "the plane has heard that it is done", || {
        let all = collector.of(trace).into_iter();
        done = all.filter(|span| span.name == DONE).find(|span| span.above == ordered.id);
        done.is_some()
    });
    let done = done.unwrap();
    assert_eq!(asked.above, "", "it is the first");
    for (below, above) in [
        (&taken, &asked),
        (&ordered, &taken),
        (&started, &ordered),
        (&ready, &ordered),
        (&powered, &started),
        (&done, &ordered),
    ] {
        assert_eq!(below.above, above.id, "{below:?} {above:?}");
    }
    // What is waited for takes as long as what it waits for.
    assert!(ordered.took >= started.took && started.took >= powered.took, "{started:?}");
    for span in [&taken, &ordered, &started] {
        assert_eq!(span.said["collective.instance"], "t1", "{span:?}");
    }
    assert_eq!(ordered.said["collective.host"], a);
    assert_eq!(ordered.said["collective.status"], "done");
    // The plane's log of who did what has the same request.
    let audited = fleet.at("P", &["audit", "list"]).stdout;
    assert!(audited.contains(&taken.said["collective.request"]), "{taken:?} {audited}");

    // By the logs too.
    assert!(run.stderr.contains("collective run"), "{run:?}");
    assert_eq!(logged(&plane_log, trace), [PUT, DONE, DONE]);
    assert_eq!(logged(&host_log, trace), ["host look", "host start"]);
    let shim_log = world.instance("A", "t1").join("shim.log");
    eventually(Duration::from_secs(60), "it is ready", || logged(&shim_log, trace).len() > 1);
    assert_eq!(logged(&shim_log, trace), ["shim start", "shim ready"]);

    // Another request is followed as another one, and what begins elsewhere goes on here.
    let (elsewhere, above) = ("0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331");
    let mut suspend = fleet.command("P", &["suspend", "t1"]);
    suspend.env("TRACEPARENT", format!("00-{elsewhere}-{above}-01"));
    support::said(suspend.output().unwrap()).ok();
    assert_eq!(collector.await_span(elsewhere, "collective", "collective suspend").above, above);
    let order = collector.await_span(elsewhere, "collective-host", "host suspend");
    assert_eq!(order.above, collector.await_span(elsewhere, "collective-plane", PATCH).id);
    let shim = collector.await_span(elsewhere, "collective-shim", "shim suspend");
    assert_eq!(shim.above, order.id);
    assert_eq!(logged(&shim_log, elsewhere), ["shim suspend"]);

    // Nothing that lets anybody in has been said to anybody.
    let token = std::fs::read_to_string(world.host("P").join("plane.token")).unwrap();
    let all = format!("{:?}", collector.seen.lock().unwrap());
    let logs = [&plane_log, &host_log, &shim_log].map(|log| std::fs::read_to_string(log).unwrap());
    assert!(!all.contains(token.trim()) && logs.iter().all(|log| !log.contains(token.trim())));
}

#[test]
fn guest_is_followed_when_its_plane_decides_by_itself() {
    let collector = Collector::start();
    let world = World::with_nano("spans-itself");
    let repository = world.repository();
    let world = world.at(
        &repository,
        &[("OTEL_EXPORTER_OTLP_ENDPOINT", &collector.url), ("OTEL_BSP_SCHEDULE_DELAY", "100")],
    );
    let (_plane, fleet) = Fleet::start(&world, "127.0.0.1:0", LEASE_S);
    let (_on_a, mut on_b) = (fleet.join("A"), fleet.join("B"));
    fleet.await_hosts(2);
    let ([a, b], placed) = (["A", "B"].map(|host| fleet.id(host)), "running");
    fleet.run("P", &["run", "nano", "--name", "n1", "--on", &a, "--restart", "on-failure"]).ok();

    // What leaves a host that is drained and goes on on another one is one trace, which the plane begins.
    fleet.at("P", &["host", "drain", &a]).ok();
    fleet.await_placed("n1", Some("B"), placed);
    let began = collector.await_first("plane leave");
    let (trace, plane) = (&began.trace, "collective-plane");
    let (host, shim) = ("collective-host", "collective-shim");
    assert_eq!((&began.above[..], &began.said["collective.host"]), ("", &a));
    let left = collector.await_span(trace, host, "host leave");
    assert_eq!((&left.above, &left.said["collective.host"]), (&began.id, &a));
    assert_eq!(collector.await_span(trace, shim, "shim suspend").above, left.id);
    let goes_on = collector.await_span(trace, plane, "plane start");
    let started = collector.await_span(trace, host, "host start");
    assert_eq!((&goes_on.above, &started.above), (&began.id, &goes_on.id));
    assert_eq!(started.said["collective.host"], b);
    assert_eq!(collector.await_span(trace, shim, "shim start").above, started.id);

    // So is a failover, by itself.
    fleet.at("P", &["host", "uncordon", &a]).ok();
    on_b.kill();
    fleet.await_placed("n1", Some("A"), placed);
    let began = collector.await_first("plane take_over");
    assert!(began.above.is_empty() && began.trace != *trace, "{began:?}");
    let taken = collector.await_span(&began.trace, host, "host take_over");
    assert_eq!((&taken.above, &taken.said["collective.host"]), (&began.id, &a));
    assert_eq!(collector.await_span(&began.trace, shim, "shim start").above, taken.id);
    // Nothing of it is in what was asked.
    assert!(collector.of(trace).iter().all(|span| span.name != "host take_over"));
}

#[test]
fn guest_starts_as_well_when_its_collector_is_away() {
    // Somebody who takes a connection and never answers.
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", silent.local_addr().unwrap());
    let world = World::with_nano("spans-away");
    let repository = world.repository();
    let world = world.at(&repository, &[("OTEL_EXPORTER_OTLP_ENDPOINT", &url)]);
    assert_eq!(world.run("A", &["run", "nano", "--name", "n1"]).ok()["name"], "n1");
    assert!(world.run("A", &["suspend", "n1"]).ok()["checkpoint"].is_string());
    assert_eq!(world.state("A", "n1"), "suspended");
}
