//! Repositories that are not a folder: a whole life in S3, and what a static web server can and
//! cannot do. The servers are real, and started here.

mod support;

use s3_server::{ACCESS_KEY, S3Server, SECRET_KEY, WebServer};
use support::transcript::Transcript;
use support::{World, appliance};

#[test]
fn guest_tiny_lives_in_s3() {
    let world = World::empty("s3");
    let server = S3Server::start(&world.root().join("s3"), &["bucket"], "127.0.0.1:0").unwrap();
    let environment = [
        ("AWS_ENDPOINT_URL", &*server.endpoint()),
        ("AWS_ACCESS_KEY_ID", ACCESS_KEY),
        ("AWS_SECRET_ACCESS_KEY", SECRET_KEY),
        ("AWS_REGION", "us-east-1"),
    ];
    let world = world.at("s3://bucket/me/repository", &environment);
    world.share_tools("A");
    let made = world.run("A", &["repo", "init", &world.repository()]).ok();
    assert_eq!((&made["encrypted"], &made["key"]), (&true.into(), &"host".into()), "{made}");
    world.run("A", &["build", &appliance("tiny")]).ok();
    world.run("A", &["run", "tiny", "--name", "t1", "--accel", "tcg"]).ok();
    let boot = world.exec("A", "t1", "cat /proc/sys/kernel/random/boot_id");
    world.exec("A", "t1", "echo in memory > /tmp/note; echo on disk > /data/note; sync");
    world.run("A", &["checkpoint", "t1"]).ok();
    world.run("A", &["suspend", "t1"]).ok();

    // Another host has the credentials, and needs the key.
    assert_eq!(world.run("B", &["resume", "t1"]).error().0, "key");
    let key = world.root().join("key").to_string_lossy().into_owned();
    world.run("A", &["repo", "key", "export", "-o", &key]).ok();
    world.run("B", &["repo", "key", "import", &key]).ok();
    let resumed = world.run("B", &["resume", "t1", "--accel", "tcg"]).ok();
    assert_eq!(resumed["how"], "continued");
    assert!(resumed["fetched_bytes"].as_u64().unwrap() > 1 << 20, "{resumed}");
    assert_eq!(world.exec("B", "t1", "cat /proc/sys/kernel/random/boot_id"), boot);
    assert_eq!(world.exec("B", "t1", "cat /tmp/note /data/note"), "in memory\non disk");
    assert_eq!(world.run("A", &["resume", "t1"]).error().0, "lease");
    world.run("B", &["fork", "t1", "--name", "t2"]).ok();
    assert_eq!(world.exec("B", "t2", "cat /tmp/note"), "in memory");
    world.run("B", &["stop", "t1"]).ok();
    assert_eq!(world.run("A", &["resume", "t1", "--accel", "tcg"]).ok()["how"], "booted");
    assert_eq!(world.exec("A", "t1", "cat /data/note"), "on disk");
    for (host, name) in [("A", "t1"), ("B", "t2")] {
        world.run(host, &["rm", name, "--force"]).ok();
    }
    world.run("A", &["repo", "gc"]).ok();
    let check = world.run("B", &["repo", "check", "--read-data"]).ok();
    assert_eq!(check["ok"], true, "{check}");
    let stats = world.run("A", &["repo", "stats"]).ok();
    assert!(stats["stored_bytes"].as_u64().unwrap() > 1 << 20, "{stats}");
    // Nothing that the store has says what it is.
    let objects = std::process::Command::new("grep")
        .args(["-rlaE", "tiny|qemu-ga|in memory"])
        .arg(world.root().join("s3/bucket"))
        .output()
        .unwrap();
    assert_eq!(String::from_utf8_lossy(&objects.stdout), "");

    // A stranger is refused, and a store that is not there is waited for and then said.
    let stranger = environment
        .map(|(name, value)| (name, if name == "AWS_SECRET_ACCESS_KEY" { "wrong" } else { value }));
    let mut refused = world.command("A", &["appliances"]);
    refused.envs(stranger);
    let (kind, message, hint) = support::said(refused.output().unwrap()).error();
    assert_eq!(kind, "permission", "{message} ({hint})");
    drop(server);
    let (kind, message, hint) = world.run("A", &["appliances"]).error();
    assert_eq!(kind, "unavailable", "{message} ({hint})");
    assert!(hint.contains("try again"), "{hint}");
}

#[test]
fn guest_of_a_web_servers_appliance_runs_in_a_repository_of_ones_own() {
    let world = World::empty("web");
    let path = |name: &str| world.root().join(name).to_string_lossy().into_owned();
    // A maker's repository: public, and put on a web server as it is.
    let make = |arguments: &[&str]| {
        let mut command = world.program("maker");
        command.env("COLLECTIVE_REPO", path("published")).arg("--json").args(arguments);
        support::said(command.output().unwrap()).ok();
    };
    make(&["repo", "init", &path("published"), "--public"]);
    make(&["build", &appliance("nano")]);
    make(&["run", "nano", "--name", "sample", "--accel", "tcg"]);
    make(&["suspend", "sample"]);
    let server = WebServer::start(&world.root().join("published")).unwrap();
    let url = server.url();

    // Alone it can be looked at, and nothing can be kept in it.
    let mut seen = Transcript::of(&world);
    for arguments in [
        &["run", "nano"][..],
        &["build", &appliance("nano")],
        &["resume", "sample"],
        &["undo", "sample"],
        &["fork", "sample"],
        &["rm", "sample"],
        &["repo", "gc"],
        &["repo", "init", &url],
        &["appliances"],
        &["repo", "stats"],
        &["repo", "check"],
        &["ps"],
        &["inspect", "sample"],
        &["history", "sample"],
    ] {
        let said = seen.run("A", &[&["--repo", &url], arguments].concat());
        let looks = matches!(arguments[0], "ps" | "inspect" | "history");
        assert_eq!(said.code, i32::from(!looks), "{arguments:?}: {said:?}");
    }
    assert!(!world.host("A").join("instances").exists(), "nothing was begun");

    // With it as a source, its appliances run in a repository of one's own.
    seen.run("A", &["repo", "init", "repository"]);
    seen.run("A", &["run", "nano", "--name", "n1"]);
    seen.run("A", &["repo", "source", &url]);
    seen.run("A", &["run", "nono"]);
    let before = server.requests();
    let started = world.run("A", &["run", "nano", "--name", "n1", "--accel", "tcg"]).ok();
    assert!(server.requests() > before);
    assert!(started["fetched_bytes"].as_u64().unwrap() > 0, "{started}");
    world.type_in("A", "n1", "ab\r");
    world.run("A", &["suspend", "n1"]).ok();
    // Another host that does not know the source is told what is missing.
    seen.run("B", &["resume", "n1"]);
    seen.run("B", &["repo", "source", &url]);
    world.run("B", &["resume", "n1", "--accel", "tcg"]).ok();
    world.type_in("B", "n1", "c\r");
    world.await_console("B", "n1", "keys=3");
    seen.run("B", &["repo", "check", "--read-data"]);
    seen.run("B", &["repo", "source", &url, "--remove"]);
    seen.check("web-server");
}
