//! A plane whose state is on etcd that is reached by TLS.

#[path = "../../kv/tests/support/certificates.rs"]
mod certificates;
#[path = "../../kv/tests/support/mod.rs"]
mod etcd;
#[path = "support/fleet.rs"]
mod fleet;
mod support;

use std::time::Duration;

use certificates::Authority;
use etcd::Cluster;
use fleet::Fleet;
use support::{World, eventually};

#[test]
fn etcd_is_the_state_of_a_plane_by_tls_and_it_says_why_not() {
    let world = World::empty("state-tls");
    let (ours, others) =
        (Authority::new(world.root(), "ours"), Authority::new(world.root(), "other"));
    let [member, member_key] = ours.sign("member", "127.0.0.1");
    let [cert, key] = ours.sign("plane", "plane");
    let (cacert, other) = (ours.file(), others.file());
    let seats = Cluster::seats(1);
    let options = ["--cert-file", &member, "--key-file", &member_key, "--client-cert-auth"];
    let wants = ["--trusted-ca-file", &cacert];
    let cluster = Cluster::of(&seats, "https", &[&options[..], &wants].concat());
    let state = format!("etcds://{}/plane", cluster.hosts());
    let shown = ["--etcd-cert", &cert, "--etcd-key", &key];
    let right = [&["--state", &state, "--etcd-cacert", &cacert], &shown[..]].concat();
    let plane = |words: &[&str]| {
        let words = [&["plane", "--listen", "127.0.0.1:0"], words].concat();
        world.run("Q", &words)
    };
    let tls = kv::Tls {
        cacert: Some(cacert.as_str().into()),
        cert: Some(cert.as_str().into()),
        key: Some(key.as_str().into()),
    };
    eventually(Duration::from_secs(60), "the member answers", || {
        kv::open(kv::Location { text: state.clone(), tls: tls.clone() }).is_ok()
    });
    let (_plane, fleet) = Fleet::start_by(&world, &right);
    fleet.at("A", &["user", "add", "anna"]).ok();
    assert_eq!(fleet.at("A", &["user", "list"]).ok()[0]["name"], "anna");
    // The key is in nothing that it says.
    let secret = std::fs::read_to_string(&key).unwrap();
    let secret = secret.lines().nth(1).unwrap();

    let refused = |words: &[&str], expected: (&str, &str, &str)| {
        let said = plane(words);
        assert!(!format!("{said:?}").contains(secret));
        assert_eq!(said.code, if expected.0 == "usage" { 2 } else { 1 }, "{said:?}");
        let error = &said.json()["error"];
        let says = |field: &str, text: &str| error[field].as_str().unwrap().contains(text);
        let (kind, message, hint) = expected;
        assert!(says("kind", kind) && says("message", message) && says("hint", hint), "{said:?}");
    };
    let by =
        |scheme: &str, host: &str| format!("{scheme}://{host}:{}/plane", seats[0].at[0].port());
    let (named, plain) = (by("etcds", "localhost"), by("etcd", "127.0.0.1"));
    let wrong = [&["--state", &state, "--etcd-cacert", &other], &shown[..]].concat();
    refused(&wrong, ("permission", "UnknownIssuer", "--etcd-cacert"));
    let alone = ["--state", &state, "--etcd-cacert", &cacert];
    refused(&alone, ("permission", "certificate", "--etcd-cert"));
    let name = [&["--state", &named, "--etcd-cacert", &cacert], &shown[..]].concat();
    refused(&name, ("permission", "localhost", "--state"));
    refused(&["--state", &plain], ("unavailable", "", "etcds://"));
    let both = ["--state", &plain, "--etcd-cacert", &cacert];
    refused(&both, ("usage", "etcds://", ""));
    let nowhere = ["--state", &state, "--etcd-cacert", "/nowhere/ca.pem"];
    refused(&nowhere, ("usage", "/nowhere/ca.pem", "PEM"));
    // One without the other, or without a state, is nothing.
    for words in
        [["--state", &state, "--etcd-cert", &cert], ["--etcd-key", &key, "--state", &state]]
    {
        assert_eq!(plane(&words).code, 2);
    }
}
