//! A plane whose state is on etcd: by TLS, and from and to a copy.

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

/// Short, for tests: what a host may be away.
const LEASE_S: u32 = 6;

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

#[test]
fn etcd_lets_a_host_go_on_with_the_plane_that_is_left() {
    let world = World::empty("state-planes");
    let cluster = Cluster::start();
    let state = cluster.location("plane");
    let plane = |host| Fleet::start_on(&world, host, "127.0.0.1:0", LEASE_S, &["--state", &state]);
    let ((mut first, one), (second, two)) = (plane("P"), plane("Q"));
    let mut agent = one.join("A");
    one.await_hosts(1);
    let file = |name: &str| {
        let said = std::fs::read(world.host("A").join("plane").join(name)).unwrap_or_default();
        serde_json::from_slice::<serde_json::Value>(&said).unwrap_or_default()
    };
    let knows = |urls: &[&str]| {
        let mut urls = urls.to_vec();
        urls.sort();
        eventually(Duration::from_secs(60), "it knows where they are", || {
            file("planes.json")["named"] == serde_json::json!(urls)
        });
    };
    knows(&[&one.url, &two.url]);
    let lease = || file("lease.json")["ends_ms"].as_u64().unwrap();
    let goes_on = |than: u64| {
        eventually(Duration::from_secs(60), "its lease goes on", || lease() > than);
    };

    // What is answered after its plane was killed another one has answered.
    first.kill();
    goes_on(lease() + u64::from(LEASE_S) * 1000);
    assert_eq!(two.host("A")["state"], "ready");
    // It takes orders of that one too.
    two.at("B", &["host", "cordon", &two.id("A")]).ok();
    eventually(Duration::from_secs(60), "it is told", || two.host("A")["state"] == "cordoned");
    knows(&[&two.url]);

    // An agent that begins anew, by the address of one that is gone, finds it as well.
    agent.kill();
    let before = lease();
    let _agent = one.join_by("A", &[]);
    goes_on(before + 1);

    // One that is stopped and says nothing is as good as gone.
    let address = one.url.strip_prefix("https://").unwrap();
    let words = ["--state", &state];
    let (_third, three) = Fleet::start_on(&world, "P", address, LEASE_S, &words);
    knows(&[&three.url, &two.url]);
    second.stop();
    goes_on(lease() + u64::from(LEASE_S) * 1000);
    assert_eq!(three.host("A")["state"], "cordoned");
}

#[test]
fn etcd_lets_who_asks_go_on_with_the_plane_that_is_left() {
    let world = World::empty("state-asked");
    let cluster = Cluster::start();
    let state = cluster.location("plane");
    let plane = |host| Fleet::start_on(&world, host, "127.0.0.1:0", LEASE_S, &["--state", &state]);
    let ((mut first, one), (second, two)) = (plane("P"), plane("Q"));
    one.at("B", &["user", "add", "anna", "--role", "admin"]).ok();
    let token = |name: &str| {
        let file = world.root().join(name).display().to_string();
        two.at("B", &["token", "create", "--user", "anna", "-o", &file]).ok();
        file
    };
    let (file, new) = (token("anna.token"), token("new.token"));
    let ask = |planes: &str, file: &str, words: &[&str]| {
        world.run("B", &[words, &["--plane", planes, "--token-file", file]].concat())
    };
    let instead = |said: &support::Said, from: &Fleet<'_>, to: &Fleet<'_>| {
        let told = format!("the plane at {} is asked instead", to.url);
        assert!(said.stderr.contains(&told) && said.stderr.contains(&from.url), "{said:?}");
    };

    // The one that is asked says where all are, and that is kept beside the token.
    let kept = std::path::PathBuf::from(format!("{file}.planes"));
    let mut both = [one.url.as_str(), two.url.as_str()];
    both.sort_unstable();
    let all = serde_json::json!({"format": 1, "named": both});
    eventually(Duration::from_secs(60), "it is said where all are", || {
        ask(&one.url, &file, &["whoami"]).ok();
        std::fs::read(&kept)
            .is_ok_and(|text| serde_json::from_slice(&text).ok() == Some(all.clone()))
    });

    let secret = world.root().join("strange.token").display().to_string();
    let (_strange, strange) = Fleet::start_by(&world, &["--token-file", &secret]);

    first.kill();
    let caller = ask(&one.url, &file, &["whoami"]);
    assert_eq!(caller.ok()["user"], "anna");
    instead(&caller, &one, &two);
    let made = ask(&one.url, &file, &["project", "add", "blue"]);
    assert_eq!(made.ok()["name"], "blue");
    instead(&made, &one, &two);
    // Who knows of no other is told that it is gone, unless the other one is named.
    assert_eq!(ask(&one.url, &new, &["whoami"]).error().0, "unavailable");
    let named = ask(&format!("{},{}", one.url, two.url), &new, &["whoami"]);
    assert_eq!(named.ok()["user"], "anna");
    instead(&named, &one, &two);
    assert_eq!(ask(&format!("{},x", one.url), &new, &["whoami"]).code, 2);

    // Nothing is shown to who is there by now, and is another's plane.
    std::fs::write(
        &kept,
        serde_json::json!({"format": 1, "named": [strange.url, two.url]}).to_string(),
    )
    .unwrap();
    let caller = ask(&one.url, &file, &["whoami"]);
    assert_eq!(caller.ok()["user"], "anna");
    instead(&caller, &one, &two);

    // One that is stopped and says nothing is as good as gone, and when all are that is said.
    let address = one.url.strip_prefix("https://").unwrap();
    let (mut third, three) = Fleet::start_on(&world, "P", address, LEASE_S, &["--state", &state]);
    second.stop();
    let caller = ask(&two.url, &new, &["whoami"]);
    assert_eq!(caller.ok()["user"], "anna");
    instead(&caller, &two, &three);
    third.kill();
    let (kind, message, _) = ask(&two.url, &new, &["whoami"]).error();
    assert!(kind == "unavailable" && message.contains(&three.url), "{message}");
}

#[test]
fn etcd_takes_a_copy_of_a_state_and_gives_it_back() {
    let world = World::empty("state-copy");
    let (mut first, fleet) = Fleet::start(&world, "127.0.0.1:0", 15);
    let at = |words: &[&str]| fleet.at("A", words);
    at(&["user", "add", "anna", "--role", "operator"]).ok();
    let token = world.root().join("anna.token").display().to_string();
    at(&["token", "create", "--user", "anna", "-o", &token]).ok();
    for n in 0..30 {
        at(&["project", "add", &format!("project-{n}")]).ok();
    }
    let head = at(&["audit", "verify"]).ok()["head"].as_str().unwrap().to_owned();
    let file = |name: &str| world.root().join(name).display().to_string();
    let (copy, back) = (file("copy"), file("back"));
    at(&["plane", "backup", &copy]).ok();
    first.kill();

    let cluster = Cluster::start();
    let (state, other) = (cluster.location("plane"), cluster.location("other"));
    let restore =
        |copy: &str, state: &str| world.run("P", &["plane", "restore", copy, "--state", state]);
    let restored = restore(&copy, &state).ok();
    // Not over what is there, be it the same.
    assert_eq!(restore(&copy, &state).error().0, "state");
    let (_again, again) = Fleet::start_by(&world, &["--state", &state]);
    let by_token = ["whoami", "--plane", &again.url, "--token-file", &token];
    assert_eq!(world.run("B", &by_token).ok()["user"], "anna");
    again.at("A", &["audit", "verify", "--expect", &head]).ok();
    // And back into a file of one plane's.
    again.at("A", &["user", "add", "berta"]).ok();
    again.at("A", &["plane", "backup", &back]).ok();
    let embedded = format!("embedded:{}", file("embedded"));
    let entries = restore(&back, &embedded).ok()["entries"].as_u64().unwrap();
    assert!(entries > restored["entries"].as_u64().unwrap());
    let (_last, last) = Fleet::start_by(&world, &["--state", &embedded]);
    let users = last.at("A", &["user", "list"]).ok();
    assert_eq!((&users[0]["name"], &users[1]["name"]), (&"anna".into(), &"berta".into()));
    last.at("A", &["audit", "verify", "--expect", &head]).ok();

    // Two who restore at once: one of them does, whole, and only what was asked for is there.
    let both =
        [&copy, &back].map(|copy| world.spawn("P", &["plane", "restore", copy, "--state", &other]));
    let both = both.map(|child| support::said(child.wait_with_output().unwrap()));
    let done: Vec<_> = both.iter().filter(|said| said.code == 0).collect();
    assert_eq!(done.len(), 1, "{both:?}");
    let (_other, other) = Fleet::start_by(&world, &["--state", &other]);
    let users = other.at("A", &["user", "list"]).ok();
    let berta = users.as_array().unwrap().iter().any(|user| user["name"] == "berta");
    assert_eq!(berta, both[1].code == 0, "{users}");
}

#[test]
fn etcd_takes_copies_of_any_size_and_only_whole_ones() {
    let world = World::empty("state-large");
    let cluster = Cluster::start();
    // What many large hosts say they have: far more than etcd takes at once.
    let value = |n: usize| vec![b'a' + (n % 26) as u8; n * 4000];
    let entries: Vec<_> = (0..90).map(|n| (format!("hosts/{n:032x}"), value(n))).collect();
    let large = entries.iter().map(|(key, value)| (key.as_str(), value.as_slice()));
    let (copy, small) = (world.root().join("copy"), world.root().join("small"));
    std::fs::write(&copy, plane::backup::write(large)).unwrap();
    std::fs::write(&small, plane::backup::write([("users/anna", &b"{}"[..])])).unwrap();
    let there = |state: &str| {
        let entries = kv::open(state).unwrap().list("").unwrap().entries.into_iter();
        entries.map(|entry| (entry.key, entry.value)).collect::<Vec<_>>()
    };

    // Whoever is killed while restoring leaves what no plane begins on, and the same copy makes whole.
    for (round, step) in ["restore: marked", "restore: some written#3"].iter().enumerate() {
        let state = cluster.location(&format!("state-{round}"));
        let restore = [&copy, &small]
            .map(|file| ["plane", "restore", file.to_str().unwrap(), "--state", &state]);
        let mut dies = world.command("P", &restore[0]);
        let died = dies.env("COLLECTIVE_DIE_AT", step).output().unwrap();
        assert!(!died.status.success(), "{died:?}");
        let half = there(&state);
        assert!(half.iter().any(|(key, _)| key == "restoring") && half.len() < entries.len());
        let begun = world.run("P", &["plane", "--listen", "127.0.0.1:0", "--state", &state]);
        assert!(begun.error().1.contains("not restored to its end"), "{begun:?}");
        let (kind, message, _) = world.run("P", &restore[1]).error();
        assert!(kind == "state" && message.contains("another backup"), "{kind} {message}");
        assert_eq!(there(&state), half);
        assert_eq!(world.run("P", &restore[0]).ok()["entries"], 90);
        assert_eq!(there(&state), entries);
    }
}
