//! The plane behind its socket.

#[path = "../../kv/tests/support/mod.rs"]
mod etcd;

use std::path::Path;
use std::sync::Arc;
use std::thread::sleep;
use std::time::{Duration, Instant};

use api::{
    AuditPrint, BeatReply, HostChange, HostIdentity, HostKey, HostPrint, HostReport, HostWish,
    InstanceSeen, InstanceWish, PeerPrint, PeersPrint, PlacedPrint, PlanPrint,
};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use plane::audit::Verifier;
use plane::client::{Client, ClientError};
use plane::identity::{Authority, Credentials, Secret, new_key};
use plane::serve::{Plane, Server, document};
use serde::Serialize;

/// The shortest that any store grants.
const LEASE: Duration = Duration::from_secs(2);

struct Serving {
    server: Server,
    client: Client,
}

fn serve(state: &str, folder: &Path) -> Serving {
    let file = folder.join("token");
    let plane = Plane::open(state, &file, LEASE).unwrap();
    let server = Server::start(plane, "127.0.0.1:0".parse().unwrap()).unwrap();
    let client = Client::new(&url(&server), admin(folder)).unwrap();
    Serving { server, client }
}

fn url(server: &Server) -> String {
    format!("https://{}", server.address())
}

fn secret(folder: &Path) -> Secret {
    Secret::parse(std::fs::read_to_string(folder.join("token")).unwrap().trim()).unwrap()
}

fn admin(folder: &Path) -> Credentials {
    Credentials::Admin(secret(folder))
}

fn embedded(folder: &Path) -> String {
    format!("embedded:{}", folder.join("state").display())
}

fn id(n: u8) -> String {
    format!("{n:02x}").repeat(16)
}

fn report(name: &str) -> HostReport {
    HostReport {
        name: name.to_owned(),
        labels: [("site".to_owned(), "home".to_owned())].into(),
        cpus: 4,
        memory_bytes: 8 << 30,
        kvm: false,
        cache_bytes: 123,
        cached: [("ab".repeat(32), 1 << 30)].into(),
        needed: Default::default(),
        instances: Vec::new(),
        peer: None,
        load: None,
    }
}

fn wish() -> InstanceWish {
    InstanceWish { base_bytes: 1 << 30, ..InstanceWish::new("ab".repeat(32), 1, 1 << 30) }
}

fn beat(client: &Client, n: u8, report: &HostReport) -> BeatReply {
    client.put(&format!("/v1/hosts/{}/beat", id(n)), report).unwrap()
}

#[track_caller]
fn refused(
    client: &Client,
    (method, path): (&str, &str),
    headers: &[(&str, &str)],
    body: Option<&impl Serialize>,
    expected: (u16, &str),
) {
    match client.send(method, path, headers, body) {
        Err(ClientError::Refused(problem)) => {
            assert_eq!((problem.status, problem.kind.as_str()), expected, "{problem:?}");
            assert!(!problem.hint.is_empty(), "{problem:?}");
        }
        other => panic!("{other:?}"),
    }
}

const NONE: Option<&()> = None;

#[test]
fn nobody_is_served_without_the_token() {
    let folder = tempfile::tempdir().unwrap();
    let Serving { server, client } = serve(&embedded(folder.path()), folder.path());
    let fingerprint = Authority::of(&secret(folder.path())).unwrap().fingerprint();
    let guess = Credentials::Join { bearer: "guess".to_owned(), fingerprint: fingerprint.clone() };
    let stranger = Client::new(&url(&server), guess).unwrap();
    for path in ["/v1/hosts", "/v1/plan", "/metrics", "/nothing"] {
        refused(&stranger, ("GET", path), &[], NONE, (401, "permission"));
    }
    refused(&stranger, ("DELETE", "/v1/openapi.json"), &[], NONE, (401, "permission"));
    assert_eq!(stranger.send("GET", "/v1/openapi.json", &[], NONE).unwrap().status, 200);
    refused(&client, ("GET", "/nothing"), &[], NONE, (404, "not_found"));
    refused(&client, ("POST", "/v1/hosts"), &[], NONE, (405, "usage"));
    refused(&client, ("GET", "/v1/hosts/x"), &[], NONE, (400, "usage"));
    let large = "x".repeat(600_000);
    refused(&client, ("PUT", "/v1/instances/a"), &[], Some(&large), (413, "usage"));
    let text = client.send("GET", "/metrics", &[], NONE).unwrap().body;
    let text = String::from_utf8(text).unwrap();
    assert!(text.contains("\ncollective_plane_refused_total 9\n"), "{text}");
    assert!(text.contains("\ncollective_hosts{state=\"ready\"} 0\n"), "{text}");
    // OpenMetrics: families by their names, and an end, so that nothing is cut off unseen.
    assert!(text.contains("\n# TYPE collective_plane_requests counter\n"), "{text}");
    assert!(text.ends_with("\n# EOF\n") && !text.contains("\n\n"), "{text}");

    // Who takes the plane's place hears nothing: neither by another secret nor by no encryption.
    let other = Credentials::Admin(Secret::parse(&"ab".repeat(32)).unwrap());
    let deceived = Client::new(&url(&server), other).unwrap();
    let got = deceived.get::<Vec<HostPrint>>("/v1/hosts");
    assert!(matches!(got, Err(ClientError::Unreachable { .. })), "{got:?}");
    let other = Credentials::Join { bearer: "guess".to_owned(), fingerprint: "ab".repeat(32) };
    let got = Client::new(&url(&server), other);
    assert!(matches!(got, Err(ClientError::Url { .. })), "{got:?}");
    let before = client.send("GET", "/metrics", &[], NONE).unwrap().body;
    let before = String::from_utf8(before).unwrap();
    assert!(before.contains("\ncollective_plane_refused_total 9\n"), "{before}");
}

#[test]
fn a_host_is_told_of_its_peers_the_nearest_first_and_of_none_that_are_gone() {
    let folder = tempfile::tempdir().unwrap();
    let Serving { client, server: _server } = serve(&embedded(folder.path()), folder.path());
    let peer = |n: u8| PeerPrint {
        parcels: false,
        name: format!("i1.h{}.host.collective.internal", id(n)),
        address: format!("10.0.0.{n}:7071"),
    };
    let at = |n: u8, site: &str| HostReport {
        labels: [("site".to_owned(), site.to_owned())].into(),
        peer: Some(peer(n)),
        ..report(&format!("h{n}"))
    };
    for (n, site) in [(1, "home"), (2, "away"), (3, "home"), (4, "home")] {
        beat(&client, n, &at(n, site));
    }
    // One that gives nothing, and one that would send the others to somebody else.
    beat(&client, 4, &HostReport { peer: None, ..at(4, "home") });
    let lies = HostReport { peer: Some(peer(1)), ..at(5, "home") };
    let path = format!("/v1/hosts/{}/beat", id(5));
    refused(&client, ("PUT", &path), &[], Some(&lies), (400, "usage"));
    let told = |n: u8| -> PeersPrint { client.get(&format!("/v1/hosts/{}/peers", id(n))).unwrap() };
    assert_eq!(told(1).peers, [peer(3), peer(2)]);
    // One that has not been heard of for its lease is nobody's peer.
    sleep(LEASE + Duration::from_secs(1));
    beat(&client, 1, &at(1, "home"));
    beat(&client, 2, &at(2, "away"));
    assert_eq!(told(1).peers, [peer(2)]);
}

#[test]
fn a_host_is_who_its_certificate_says_and_nobody_else() {
    let folder = tempfile::tempdir().unwrap();
    let Serving { server, client } = serve(&embedded(folder.path()), folder.path());
    let url = url(&server);
    let secret = secret(folder.path());
    let token = secret.join_token(&Authority::of(&secret).unwrap());
    let joining = Client::new(&url, Credentials::parse(&token).unwrap()).unwrap();
    let certificate = |n: u8| format!("/v1/hosts/{}/certificate", id(n));
    let (key, public) = new_key().unwrap();
    let public_key = HostKey { public_key: STANDARD.encode(&public) };
    let as_host = |given: HostIdentity, key: &str| {
        let (certificate, authority) = (given.certificate, given.authority);
        Client::new(&url, Credentials::Host { certificate, key: key.to_owned(), authority })
            .unwrap()
    };

    // A join token gets a certificate, and nothing else.
    let given: HostIdentity = joining.post(&certificate(1), &public_key).unwrap();
    let first = as_host(given, &key);
    refused(&joining, ("GET", "/v1/hosts"), &[], NONE, (403, "permission"));
    let beats = |n: u8| format!("/v1/hosts/{}/beat", id(n));
    refused(&joining, ("PUT", &beats(1)), &[], Some(&report("a")), (403, "permission"));
    let nothing = HostKey { public_key: STANDARD.encode("short") };
    refused(&joining, ("POST", &certificate(2)), &[], Some(&nothing), (400, "usage"));

    // The host speaks for itself only.
    beat(&first, 1, &report("a"));
    refused(&first, ("PUT", &beats(2)), &[], Some(&report("b")), (403, "permission"));
    for path in ["/v1/hosts", "/v1/instances", "/v1/plan", "/metrics"] {
        refused(&first, ("GET", path), &[], NONE, (403, "permission"));
    }
    let here = format!("/v1/hosts/{}", id(1));
    refused(&first, ("DELETE", &here), &[], NONE, (403, "permission"));
    // Nobody becomes a host that has joined by a join token; the host itself renews.
    refused(&joining, ("POST", &certificate(1)), &[], Some(&public_key), (409, "state"));
    let renewed: HostIdentity = first.post(&certificate(1), &public_key).unwrap();
    let kept = renewed.clone();
    let renewed = as_host(renewed, &key);
    assert!(!beat(&renewed, 1, &report("a")).begun_again);

    // One of another plane's hosts is nobody here.
    let other = Authority::of(&Secret::parse(&"ab".repeat(32)).unwrap()).unwrap();
    let host = other.host(id(1).parse().unwrap(), &public, unix_ms()).unwrap();
    let authority = Authority::of(&secret).unwrap().pem().to_owned();
    let forged = HostIdentity { certificate: host.certificate, authority, ends_unix_ms: 0 };
    let forged = as_host(forged, &key);
    let got = forged.put::<BeatReply>(&beats(1), &report("a"));
    assert!(matches!(got, Err(ClientError::Unreachable { .. })), "{got:?}");

    // Taken back, it is worth nothing, until somebody lets it join again.
    let cordon = HostChange { state: HostWish::Cordoned, within_s: None };
    client.send("PATCH", &here, &[], Some(&cordon)).unwrap();
    client.send("DELETE", &here, &[], NONE).unwrap();
    refused(&renewed, ("PUT", &beats(1)), &[], Some(&report("a")), (401, "permission"));
    refused(&renewed, ("POST", &certificate(1)), &[], Some(&public_key), (401, "permission"));
    // Also by a plane that has lost its state.
    drop((server, client));
    let state = folder.path().join("state");
    eventually_removed(&state);
    let Serving { server, client: _client } = serve(&embedded(folder.path()), folder.path());
    let url = self::url(&server);
    let joining = Client::new(&url, Credentials::parse(&token).unwrap()).unwrap();
    let as_host = |given: HostIdentity, key: &str| {
        let (certificate, authority) = (given.certificate, given.authority);
        Client::new(&url, Credentials::Host { certificate, key: key.to_owned(), authority })
            .unwrap()
    };
    let removed = as_host(kept, &key);
    refused(&removed, ("PUT", &beats(1)), &[], Some(&report("a")), (401, "permission"));
    let given: HostIdentity = joining.post(&certificate(1), &public_key).unwrap();
    beat(&as_host(given, &key), 1, &report("a"));
}

fn eventually_removed(state: &Path) {
    // Its server lets the file go a moment after it has ended.
    sleep(Duration::from_millis(300));
    std::fs::remove_dir_all(state).unwrap();
}

fn unix_ms() -> u64 {
    std::time::UNIX_EPOCH.elapsed().unwrap().as_millis() as u64
}

#[test]
fn hosts_come_are_wished_for_and_go() {
    let folder = tempfile::tempdir().unwrap();
    let state = embedded(folder.path());
    let Serving { server, client } = serve(&state, folder.path());
    let first = beat(&client, 1, &report("a"));
    let expected = BeatReply {
        lease_ms: 2000,
        begun_again: true,
        state: "ready".to_owned(),
        managed: Vec::new(),
        planes: first.planes.clone(),
    };
    assert_eq!(first, expected);
    let ends = Instant::now() + Duration::from_secs(10);
    while beat(&client, 1, &report("a")).planes != [client.url()] {
        assert!(Instant::now() < ends, "it never says where it is");
        sleep(Duration::from_millis(20));
    }
    assert!(!beat(&client, 1, &report("a")).begun_again);
    beat(&client, 2, &report("b"));
    let hosts: Vec<HostPrint> = client.get("/v1/hosts").unwrap();
    let names: Vec<_> = hosts.iter().map(|h| (h.name.as_str(), h.state.as_str())).collect();
    assert_eq!(names, [("a", "ready"), ("b", "ready")]);
    assert_eq!((hosts[0].cache_bytes, hosts[0].cpus), (123, 4));

    // A change by who has seen what is there; another one is refused.
    let path = format!("/v1/hosts/{}", id(1));
    let etag = client.send("GET", &path, &[], NONE).unwrap().etag.unwrap();
    refused(&client, ("DELETE", &path), &[], NONE, (409, "state"));
    let cordon = HostChange { state: HostWish::Cordoned, within_s: None };
    let seen = [("If-Match", etag.as_str())];
    client.send("PATCH", &path, &seen, Some(&cordon)).unwrap();
    let drain = HostChange { state: HostWish::Draining, within_s: None };
    refused(&client, ("PATCH", &path), &seen, Some(&drain), (412, "changed"));
    assert_eq!(beat(&client, 1, &report("a")).state, "cordoned", "and the host is told");

    // It ends with its lease, keeps what was wished of it, and comes back.
    let ends = Instant::now() + Duration::from_secs(10);
    loop {
        beat(&client, 2, &report("b"));
        let host: HostPrint = client.get(&path).unwrap();
        if host.state == "gone" {
            break;
        }
        assert!(Instant::now() < ends, "its lease never ended");
        sleep(Duration::from_millis(200));
    }
    let back = beat(&client, 1, &report("a"));
    assert!(back.begun_again && back.state == "cordoned");

    // Another plane on the same state knows it all; what nobody keeps alive goes.
    drop(server);
    let Serving { client, server: _server } = reopened(&state, folder.path());
    let hosts: Vec<HostPrint> = client.get("/v1/hosts").unwrap();
    assert_eq!((hosts.len(), hosts[0].state.as_str()), (2, "cordoned"));
    sleep(LEASE + Duration::from_millis(500));
    client.send("DELETE", &path, &[], NONE).unwrap();
    refused(&client, ("GET", &path), &[], NONE, (404, "not_found"));
}

/// The state's file is let go a moment after its server has ended.
fn reopened(state: &str, folder: &Path) -> Serving {
    let ends = Instant::now() + Duration::from_secs(10);
    while let Err(error) = Plane::open(state, &folder.join("token"), LEASE) {
        assert!(Instant::now() < ends, "{error}");
        sleep(Duration::from_millis(20));
    }
    serve(state, folder)
}

#[test]
fn a_plan_says_what_would_be_done_and_why() {
    let folder = tempfile::tempdir().unwrap();
    let Serving { client, server: _server } = serve(&embedded(folder.path()), folder.path());
    beat(&client, 1, &HostReport { cached: Default::default(), ..report("a") });
    beat(&client, 2, &report("b"));
    let path = "/v1/instances/web";
    let new = [("If-None-Match", "*")];
    client.send("PUT", path, &new, Some(&wish())).unwrap();
    refused(&client, ("PUT", path), &new, Some(&wish()), (412, "changed"));
    let wrong = InstanceWish { needs: vec!["magic".to_owned()], ..wish() };
    refused(&client, ("PUT", path), &[], Some(&wrong), (400, "usage"));
    refused(&client, ("PUT", "/v1/instances/No"), &[], Some(&wish()), (400, "usage"));
    refused(&client, ("PUT", path), &[], Some(&"text"), (400, "usage"));

    let plan: PlanPrint = client.get("/v1/plan").unwrap();
    let choice = &plan.choices[0];
    assert_eq!((choice.decision.as_str(), choice.target.as_deref()), ("place", Some("b")));
    let why = choice.why.join("; ");
    assert!(why.contains("holds 1.0 GiB of 1.0 GiB") && why.contains("before a"), "{why}");
    // A wish that does not say what it needs: hosts do, those that are new enough.
    let silent = InstanceWish { base_bytes: 0, ..wish() };
    client.send("PUT", path, &[], Some(&silent)).unwrap();
    let plan = |needed: u64| {
        let needed = [("ab".repeat(32), needed)].into();
        beat(&client, 2, &HostReport { needed, ..report("b") });
        let plan: PlanPrint = client.get("/v1/plan").unwrap();
        (plan.choices[0].target.clone(), plan.choices[0].why.join("; "))
    };
    let (target, why) = plan(2 << 30);
    assert_eq!(target.as_deref(), Some("b"));
    assert!(
        why.contains("holds 1.0 GiB of 2.0 GiB") && why.contains("would fetch 1.0 GiB"),
        "{why}"
    );
    let (target, why) = plan(0);
    assert!(target.as_deref() == Some("a") && !why.contains("holds"), "{why}");
    let put = client.send("PUT", path, &[], Some(&wish())).unwrap();

    // It runs on a now, by what a says; then it stays.
    let seen = InstanceSeen {
        name: "web".to_owned(),
        state: "running".to_owned(),
        generation: 3,
        managed: true,
        cpus: 0,
        memory_bytes: 0,
    };
    beat(&client, 1, &HostReport { instances: vec![seen], ..report("a") });
    let placed: PlacedPrint = client.get(path).unwrap();
    assert_eq!(placed.host, Some(id(1)));
    let plan: PlanPrint = client.get("/v1/plan").unwrap();
    assert_eq!((plan.choices.len(), plan.stay), (0, 1));
    // A drained host is left.
    let drain = HostChange { state: HostWish::Draining, within_s: None };
    client.send("PATCH", &format!("/v1/hosts/{}", id(1)), &[], Some(&drain)).unwrap();
    let plan: PlanPrint = client.get("/v1/plan").unwrap();
    let choice = &plan.choices[0];
    assert_eq!((choice.decision.as_str(), choice.source.as_deref()), ("move", Some("a")));

    // What the plane itself has noted meanwhile has not changed what its user has seen.
    sleep(Duration::from_millis(300));
    let etag = put.etag.unwrap();
    let seen = [("If-Match", etag.as_str())];
    client.send("PUT", path, &seen, Some(&wish())).unwrap();
    refused(&client, ("DELETE", path), &seen, NONE, (412, "changed"));
    client.send("DELETE", path, &[], NONE).unwrap();
    refused(&client, ("DELETE", path), &[], NONE, (404, "not_found"));
}

#[test]
fn the_published_document_is_that_of_the_code() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/api/openapi.json");
    let document = document();
    if std::env::var_os("COLLECTIVE_BLESS").is_some() {
        std::fs::write(&file, &document).unwrap();
    }
    // Not compared by assert_eq: it would print both.
    let published = std::fs::read_to_string(&file).unwrap();
    assert!(published == document, "COLLECTIVE_BLESS=1 writes it");
    // Each schema that it points at is in it.
    let value: serde_json::Value = serde_json::from_str(&document).unwrap();
    let mut pointers = 0;
    for part in document.split("\"$ref\": \"#").skip(1) {
        let pointer = part.split('"').next().unwrap();
        assert!(value.pointer(pointer).is_some(), "{pointer}");
        pointers += 1;
    }
    assert!(pointers > 20);
}

#[test]
fn etcd_lets_two_planes_be_one_and_either_be_killed() {
    let mut cluster = etcd::Cluster::start();
    let folder = tempfile::tempdir().unwrap();
    let state = cluster.location("plane");
    let one = serve(&state, folder.path());
    let two = serve(&state, folder.path());
    assert!(beat(&one.client, 1, &report("a")).begun_again);
    assert!(!beat(&two.client, 1, &report("a")).begun_again, "one lease, whoever is asked");
    // Both change one thing at once, each by what it has seen: one of them wins.
    let path = "/v1/instances/web";
    one.client.send("PUT", path, &[], Some(&wish())).unwrap();
    let etag = two.client.send("GET", path, &[], NONE).unwrap().etag.unwrap();
    let seen = [("If-Match", etag.as_str())];
    let change = |client: &Client| client.send("PUT", path, &seen, Some(&wish())).is_ok();
    assert_eq!([change(&one.client), change(&two.client)], [true, false]);
    // What they write down is one chain.
    std::thread::scope(|scope| {
        for client in [&one.client, &two.client] {
            scope.spawn(|| {
                for _ in 0..10 {
                    client.send("PUT", path, &[], Some(&wish())).unwrap();
                }
            });
        }
    });
    let log: AuditPrint = two.client.get("/v1/audit?after=0").unwrap();
    let mut verifier = Verifier::new(None);
    log.entries.iter().for_each(|entry| verifier.read(entry).unwrap());
    assert_eq!((verifier.end(&log.head), log.head.number), (Ok(()), 23));
    drop(one);
    let leader = cluster.leader().unwrap();
    cluster.kill(leader);
    beat(&two.client, 1, &report("a"));
    let plan: PlanPrint = two.client.get("/v1/plan").unwrap();
    assert_eq!(plan.choices.len(), 1);
    assert_eq!(plan.choices[0].target.as_deref(), Some("a"));
}

#[test]
fn many_callers_at_once_are_all_answered() {
    let folder = tempfile::tempdir().unwrap();
    let serving = serve(&embedded(folder.path()), folder.path());
    let url = Arc::new(url(&serving.server));
    let admin = admin(folder.path());
    std::thread::scope(|scope| {
        for n in 0..16u8 {
            let (url, admin) = (url.clone(), admin.clone());
            scope.spawn(move || {
                let client = Client::new(&url, admin).unwrap();
                for round in 0..10 {
                    let report = HostReport { cache_bytes: round, ..report(&format!("h{n:02}")) };
                    beat(&client, n, &report);
                }
            });
        }
    });
    let hosts: Vec<HostPrint> = serving.client.get("/v1/hosts").unwrap();
    assert_eq!(hosts.len(), 16);
    assert!(hosts.iter().all(|host| host.cache_bytes == 9 && host.state == "ready"));
}
