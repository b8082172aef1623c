//! Makers publish, users follow: from a static web server, with real guests.

#[path = "support/market.rs"]
mod market;
mod support;

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use market::{Market, broken, files_below, larger, noise, same};
use serde_json::Value;
use support::{Small, appliance, copy_tree, eventually};

#[test]
fn guest_gets_its_makers_version_keeps_its_data_and_goes_back_when_it_does_not_work() {
    let market = Market::new("update");
    let world = &market.world;
    let published = market.publish("1.0", same, &[]);
    assert_eq!(published["appliance"], "acme/nano");
    assert!(published["uploaded_bytes"].as_u64().unwrap() > 0, "{published}");
    // Nobody is trusted unseen, and nothing is run that nobody signed.
    let unseen = world.run("A", &["trust", "add", &market.server.url()]).error();
    assert_eq!(unseen.0, "trust", "{unseen:?}");
    assert!(unseen.2.contains("--root-fingerprint"), "{unseen:?}");
    assert_eq!(world.run("A", &["run", "acme/nano:stable"]).error().0, "not_found");
    market.trusts("A");
    let catalog = world.run("A", &["catalog"]).ok();
    assert_eq!(catalog[0]["channels"]["stable"], "1.0", "{catalog}");
    world.run("A", &["run", "acme/nano:stable", "--name", "n1"]).ok();
    world.type_in("A", "n1", "abc\r");
    world.await_console("A", "n1", "keys=3");
    let newest = world.run("A", &["update", "n1"]).ok();
    assert_eq!((&newest["applied"], &newest["to"]), (&false.into(), &"1.0".into()), "{newest}");

    // Publishing the same again uploads nothing of it.
    let again = market.publish("1.0", same, &[]);
    assert_eq!(
        (&again["uploaded_bytes"], &again["version_id"]),
        (&0.into(), &published["version_id"])
    );

    // A new one.
    market.publish("1.1", larger, &["--notes", "more memory"]);
    let check = world.run("A", &["update", "n1", "--check"]).ok();
    assert_eq!((&check["from"], &check["to"]), (&"1.0".into(), &"1.1".into()), "{check}");
    // The catalogue says what it takes, from what is here.
    let row = world.run("A", &["catalog"]).ok()[0].clone();
    let says = row["update_bytes"].as_u64().expect("an instance has 1.0");
    let size = row["size_bytes"].as_u64().unwrap();
    assert!(says < size && size >= 4096, "{row}");
    assert!(check["reason"].as_str().unwrap().starts_with(&model::format_bytes(says)), "{check}");
    assert_eq!(market.version("A", "n1"), "1.0", "only looked");
    let updated = world.run("A", &["update", "n1", "--now", "--force"]).ok();
    assert_eq!(updated["applied"], true, "{updated}");
    world.await_console("A", "n1", "boots=2");
    assert_eq!(market.version("A", "n1"), "1.1");
    assert!(world.run("A", &["catalog"]).ok()[0]["update_bytes"].is_null(), "it has the newest");
    assert_eq!(world.run("A", &["inspect", "n1"]).ok()["memory_bytes"], 24 << 20);

    // One that does not work undoes itself, and the session goes on as it was.
    world.type_in("A", "n1", "xy\r");
    world.await_console("A", "n1", "keys=2");
    market.publish("1.2", broken, &["--healthy-within", "3"]);
    let undone = world.run("A", &["update", "n1", "--force"]);
    assert_eq!(undone.code, 1, "{undone:?}");
    let undone = undone.json();
    assert_eq!(
        (&undone["applied"], &undone["rolled_back"]),
        (&false.into(), &true.into()),
        "{undone}"
    );
    assert!(undone["reason"].as_str().unwrap().contains("not ready within 3 s"), "{undone}");
    let report = fs::read_to_string(undone["report"].as_str().unwrap()).unwrap();
    assert!(report.contains("\"to\": \"1.2\"") && report.contains("nano: boots=3"), "{report}");
    world.type_in("A", "n1", "z\r");
    world.await_console("A", "n1", "keys=3");
    assert_eq!(market.version("A", "n1"), "1.1");
    // It is not tried again by itself.
    let again = world.run("A", &["update", "n1"]).ok();
    assert!(again["reason"].as_str().unwrap().contains("did not work on this host"), "{again}");

    // A host that does not trust the maker goes on with it all the same, and updates nothing.
    world.run("A", &["suspend", "n1"]).ok();
    world.run("B", &["resume", "n1"]).ok();
    world.type_in("B", "n1", "w\r");
    world.await_console("B", "n1", "keys=4");
    let strange = world.run("B", &["update", "n1"]).error();
    assert!(strange.0 == "trust" && strange.2.contains("trust add http"), "{strange:?}");
    world.run("B", &["suspend", "n1"]).ok();
    world.run("A", &["resume", "n1"]).ok();

    // Back to the version before, with the data of now.
    let rolled = world.run("A", &["rollback", "n1", "--force"]).ok();
    assert_eq!((&rolled["to"], &rolled["rolled_back"]), (&"1.0".into(), &true.into()), "{rolled}");
    assert_eq!(market.version("A", "n1"), "1.0");
    // What was tried counted its boot on a disk that was undone with it.
    world.await_console("A", "n1", "boots=3");
    let again = world.run("A", &["update", "n1", "--to", "1.1", "--force"]).ok();
    assert_eq!(again["applied"], true, "{again}");
}

#[test]
fn guest_that_stops_has_its_new_version_when_it_starts_and_one_that_sleeps_has_not() {
    let market = Market::new("update-stop");
    let world = &market.world;
    market.publish("1", same, &[]);
    market.trusts("A");
    for (name, updates) in [("auto", "auto"), ("ask", "ask")] {
        world.run("A", &["run", "acme/nano", "--name", name, "--updates", updates]).ok();
    }
    world.run("A", &["run", "acme/nano@1", "--name", "stays"]).ok();
    market.publish("2", larger, &["--channel", "beta"]);
    let key = market.path("acme.key");
    let to = market.path("www");
    let promote = ["promote", "nano", "beta", "stable", "--to", &to, "--key", &key];
    // Put off, it is nobody's yet.
    market.make(&[&promote[..], &["--after", "1h"]].concat()).ok();
    let none = world.run("A", &["update", "auto", "--check"]).ok();
    assert_eq!(none["to"], "1", "{none}");
    assert!(world.run("A", &["catalog"]).ok()[0]["put_off"]["stable"].is_string());
    assert_eq!(market.make(&promote).ok()["channels"]["stable"], "2");
    for name in ["auto", "ask"] {
        let fetched = world.run("A", &["update", name, "--fetch"]).ok();
        assert_eq!(
            (&fetched["to"], &fetched["applied"]),
            (&"2".into(), &false.into()),
            "{fetched}"
        );
    }
    // Asleep, it keeps what its memory belongs to.
    world.run("A", &["suspend", "auto"]).ok();
    let asleep = world.run("A", &["update", "auto"]).error();
    assert!(
        asleep.0 == "state" && asleep.1.contains("its memory belongs to version 1"),
        "{asleep:?}"
    );
    world.run("A", &["resume", "auto"]).ok();
    assert_eq!(market.version("A", "auto"), "1");
    for (name, has) in [("auto", "2"), ("ask", "1"), ("stays", "1")] {
        world.run("A", &["stop", name, "--force"]).ok();
        let before = market.manifest(name, "data");
        let started = world.run("A", &["resume", name]).ok();
        assert_eq!(started["update"].is_null(), has == "1", "{started}");
        assert_eq!(market.version("A", name), has, "{name}");
        world.await_console("A", name, "boots=2");
        world.run("A", &["stop", name, "--force"]).ok();
        assert_ne!(market.manifest(name, "data"), before, "it counts its boots there");
    }
    let stays = world.run("A", &["update", "stays"]).ok();
    assert!(stays["reason"].as_str().unwrap().contains("--channel stable"), "{stays}");
    // At rest: the data disk is the very same.
    let before = market.manifest("ask", "data");
    let applied = world.run("A", &["update", "ask"]).ok();
    assert_eq!(applied["applied"], true, "{applied}");
    assert_eq!(market.manifest("ask", "data"), before);

    // Taken back: who has it is led away from it.
    let yank = ["yank", "nano", "2", "--reason", "it hums", "--to", &to, "--key", &key];
    assert_eq!(market.make(&yank).ok()["channels"]["stable"], "1");
    let away = world.run("A", &["update", "auto"]).ok();
    assert_eq!((&away["applied"], &away["to"]), (&true.into(), &"1".into()), "{away}");
    let refused = world.run("A", &["run", "acme/nano@2"]).error();
    assert!(refused.1.contains("it hums"), "{refused:?}");
}

#[test]
fn guest_cannot_get_a_version_that_has_no_place_for_its_data() {
    let market = Market::new("update-data");
    let world = &market.world;
    market.publish("1", same, &[]);
    market.trusts("A");
    world.run("A", &["run", "acme/nano", "--name", "n1"]).ok();
    market.publish("2", |text| text.replace("size: 1MiB", "size: 2MiB"), &[]);
    let (kind, message, hint) = world.run("A", &["update", "n1"]).error();
    assert!(kind == "state" && message.contains("data disk data"), "{kind}: {message}");
    assert!(hint.contains("nothing was changed"), "{hint}");
    market.publish("3", |text| text.replace("{name: data,", "{name: other,"), &[]);
    let (kind, message, _) = world.run("A", &["update", "n1"]).error();
    assert!(kind == "state" && message.contains("no data disk data"), "{kind}: {message}");
    assert_eq!(world.state("A", "n1"), "running");
    // Another name for another content only.
    market.build("other", larger);
    let (to, key) = (market.path("www"), market.path("acme.key"));
    let words = ["publish", "nano", "--version", "1", "--to", &to, "--key", &key];
    let (kind, message, _) = market.make(&words).error();
    assert!(kind == "exists" && message.contains("is another"), "{kind}: {message}");
}

/// A maker's programs in the guest: one brings the data to the new form, one says whether all is well.
#[test]
fn guest_is_brought_to_its_makers_new_form_and_asked_whether_it_is_well() {
    let market = Market::new("update-form");
    let world = &market.world;
    world.share_tools("maker");
    let publish = |version: &str, more: &[&str]| market.publish_tiny(version, more);
    market.make(&["build", &appliance("tiny")]).ok();
    publish("1", &[]);
    market.trusts("A");
    world.run("A", &["run", "acme/tiny", "--name", "t1"]).ok();
    world.exec("A", "t1", "echo mine > /data/mine; echo here > /tmp/session; sync");
    let build_larger = |memory: &str| {
        let folder = world.root().join(memory);
        copy_tree(Path::new(&appliance("tiny")), &folder);
        let file = folder.join("appliance.yaml");
        let text = fs::read_to_string(&file).unwrap();
        fs::write(&file, text.replace("memory: 128MiB", &format!("memory: {memory}"))).unwrap();
        market.make(&["build", folder.to_str().unwrap()]).ok();
    };
    let publish_larger = |version: &str, memory: &str| {
        build_larger(memory);
        let asks = ["--migrate", "/bin/touch /data/newer", "--health", "/bin/ls /data/form"];
        publish(version, &asks);
    };
    build_larger("136MiB");
    publish("2", &["--migrate", "/bin/touch /nowhere/migrated"]);
    publish("3", &["--health", "/bin/sleep 1000", "--healthy-within", "15"]);
    let well = ["--migrate", "/bin/touch /data/form", "--health", "/bin/ls /data/form /data/mine"];
    publish("4", &well);
    for (version, why) in
        [("2", "bringing its data to the new form failed"), ("3", "its own check came to no end")]
    {
        let undone = world.run("A", &["update", "t1", "--to", version]);
        assert_eq!(undone.code, 1, "{undone:?}");
        assert!(undone.json()["reason"].as_str().unwrap().starts_with(why), "{undone:?}");
        let kept = world.exec("A", "t1", "cat /data/mine /tmp/session; test ! -e /data/form");
        assert_eq!(kept.trim(), "mine\nhere", "with its session, and nothing of what was tried");
    }
    // Its shim is killed before all was asked: it goes back, however far the change was.
    let mut update = world.command("A", &["update", "t1", "--to", "4"]);
    let died =
        support::said(update.env("COLLECTIVE_DIE_AT", "update: looked at").output().unwrap());
    assert!(died.json()["rolled_back"] == true && died.code == 1, "{died:?}");
    assert_eq!(market.version("A", "t1"), "1");
    let kept = world.exec("A", "t1", "cat /data/mine /tmp/session; test ! -e /data/form");
    assert_eq!(kept.trim(), "mine\nhere");
    let updated = world.run("A", &["update", "t1", "--to", "4"]).ok();
    assert_eq!(updated["applied"], true, "{updated}");
    assert_eq!(world.exec("A", "t1", "cat /data/mine; ls /data/form"), "mine\n/data/form");

    // News come by themselves, and in the window they are applied.
    let minute = Duration::from_secs(60);
    let shown = |what: &str| world.run("A", &["inspect", "t1"]).ok()["updates"][what].clone();
    world.run("A", &["update", "t1", "--updates", "ask"]).ok();
    world.run("A", &["suspend", "t1"]).ok();
    world.run("A", &["config", "updates", "1s,window=00:00-24:00"]).ok();
    world.run("A", &["resume", "t1"]).ok();
    publish_larger("5", "144MiB");
    eventually(minute, "version 5 is here", || shown("here") == true);
    assert_eq!((shown("offered"), shown("policy")), ("5".into(), "ask".into()));
    assert_eq!(market.version("A", "t1"), "4", "somebody has to say so");
    let row = world.row("A", "t1");
    assert!(row["note"].as_str().unwrap().contains("collective update t1 --now"), "{row}");
    world.run("A", &["update", "t1", "--updates", "auto", "--fetch"]).ok();
    eventually(minute, "version 5 runs", || {
        market.version("A", "t1") == "5" && world.state("A", "t1") == "running"
    });
    // Nor is it less urgent than others, as what fetched it was.
    let nice = |pid: &str| {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
        stat.rsplit(')').next().unwrap().split_whitespace().nth(16).unwrap().to_owned()
    };
    assert_eq!(nice(&world.row("A", "t1")["pid"].to_string()), nice("self"));
    eventually(minute, "nothing is offered", || {
        shown("offered").is_null() && shown("on_trial") == false
    });
    assert_eq!(world.exec("A", "t1", "cat /data/mine; ls /data/form"), "mine\n/data/form");
    let signed = world.run("A", &["inspect", "t1"]).ok()["signed"].clone();
    assert_eq!((&signed["maker"], &signed["signed"]), (&"acme".into(), &true.into()), "{signed}");
    assert_eq!(signed["recipe"].as_str().map(str::len), Some(64), "{signed}");
    // Pinned, it stays.
    world.run("A", &["update", "t1", "--updates", "pinned"]).ok();
    let pinned = world.run("A", &["update", "t1", "--updates", "auto"]).error();
    assert!(pinned.2.contains("--channel"), "{pinned:?}");
    assert_eq!(shown("policy"), "pinned");
    assert_eq!(world.run("A", &["update", "t1"]).ok()["applied"], false);
    // The version before cannot read that any more.
    let (kind, message, hint) = world.run("A", &["rollback", "t1"]).error();
    assert!(kind == "state" && message.contains("the form of"), "{kind}: {message}");
    assert!(hint.contains("collective undo t1 --to"), "{hint}");
}

/// Whoever started a new version may die, and any host goes on with it: what its maker asks for is
/// asked.
#[test]
fn guest_on_trial_is_examined_whoever_is_there() {
    let market = Market::new("update-trial");
    let world = &market.world;
    world.share_tools("maker");
    let (to, key) = (market.path("www"), market.path("acme.key"));
    let publish = |version: &str, more: &[&str]| market.publish_tiny(version, more);
    market.make(&["build", &appliance("tiny")]).ok();
    publish("1", &[]);
    publish("2", &["--migrate", "/bin/sleep 4", "--health", "/bin/false"]);
    publish("3", &["--migrate", "/bin/touch /data/form", "--health", "/bin/sleep 4"]);
    market.trusts("A");
    world.run("A", &["run", "acme/tiny@1", "--name", "t1"]).ok();
    world.exec("A", "t1", "echo mine > /data/mine; echo here > /tmp/session; sync");
    let minute = Duration::from_secs(90);
    let on_trial = |host: &str| {
        let updates = world.run(host, &["inspect", "t1"]).ok()["updates"].clone();
        updates["on_trial"] == true
    };
    let dies_with = |version: &str| {
        let mut update = world.command("A", &["update", "t1", "--to", version]).spawn().unwrap();
        eventually(minute, "it is looked at", || {
            market.version("A", "t1") == version && world.state("A", "t1") == "running"
        });
        update.kill().unwrap();
        update.wait().unwrap();
        assert!(on_trial("A"), "{version}");
    };
    // It does not work, and nobody is there to go back.
    dies_with("2");
    eventually(minute, "it goes back", || {
        market.version("A", "t1") == "1" && world.state("A", "t1") == "running"
    });
    let kept = world.exec("A", "t1", "cat /data/mine /tmp/session; test ! -e /data/form");
    assert_eq!(kept.trim(), "mine\nhere");
    let row = world.row("A", "t1");
    assert!(row["note"].as_str().unwrap().contains("version 2 did not work"), "{row}");
    // It works, and nobody is there to say so.
    dies_with("3");
    eventually(minute, "it is well", || !on_trial("A"));
    assert_eq!(world.exec("A", "t1", "cat /data/mine; ls /data/form"), "mine\n/data/form");
    // Undoing an update is to be before it.
    world.run("A", &["undo", "t1"]).ok();
    assert_eq!(market.version("A", "t1"), "1");
    let kept = world.exec("A", "t1", "cat /data/mine /tmp/session; test ! -e /data/form");
    assert_eq!(kept.trim(), "mine\nhere");
    // At rest, it is changed when it next starts, on a host that trusts nobody too.
    world.run("A", &["stop", "t1"]).ok();
    assert_eq!(world.run("A", &["update", "t1", "--to", "3"]).ok()["applied"], true);
    let twice = world.run("A", &["update", "t1", "--to", "2"]).error();
    assert!(twice.0 == "state" && twice.1.contains("not shown yet"), "{twice:?}");
    let started = world.run("B", &["resume", "t1"]).ok();
    assert_eq!(started["update"]["applied"], true, "{started}");
    assert!(!on_trial("B"));
    assert_eq!(world.exec("B", "t1", "cat /data/mine; ls /data/form"), "mine\n/data/form");
    // Taken back, its maker does not lead the new form back under the old version.
    world.run("B", &["stop", "t1"]).ok();
    let yank = ["yank", "tiny", "3", "--reason", "it hums", "--to", &to, "--key", &key];
    market.make(&yank).ok();
    let (kind, message, hint) = world.run("A", &["update", "t1", "--to", "1"]).error();
    assert!(kind == "state" && message.contains("cannot read"), "{kind}: {message}");
    assert!(hint.contains("collective undo t1"), "{hint}");
}

/// An instance that was given a CD has a version of its own; whose it is and where it is on its maker's
/// list is known all the same, also after it went back.
#[test]
fn guest_with_a_cd_of_its_own_keeps_its_place_in_its_makers_list() {
    let market = Market::new("update-cd");
    let world = &market.world;
    let first = market.publish("1", same, &[])["version_id"].clone();
    market.trusts("A");
    let seed = market.path("seed");
    fs::write(&seed, "#cloud-config\n{}\n").unwrap();
    world.run("A", &["run", "acme/nano", "--name", "n1", "--user-data", &seed]).ok();
    let signed = |what: &str| world.run("A", &["inspect", "n1"]).ok()["signed"][what].clone();
    assert_eq!((signed("version_id"), signed("signed")), (first.clone(), true.into()));
    let second = market.publish("2", larger, &["--least", "1"])["version_id"].clone();
    assert_eq!(world.run("A", &["update", "n1", "--force"]).ok()["applied"], true);
    assert_eq!((signed("version_id"), signed("signed")), (second.clone(), true.into()));
    world.run("A", &["undo", "n1"]).ok();
    assert_eq!((market.version("A", "n1"), signed("version_id")), ("1".to_owned(), first.clone()));
    let again = world.run("A", &["update", "n1", "--force"]).ok();
    assert_eq!((&again["applied"], &again["to"]), (&true.into(), &"2".into()), "{again}");
    assert_eq!(world.run("A", &["rollback", "n1", "--force"]).ok()["to"], "1");
    assert_eq!(signed("version_id"), first);
    // Nor is it offered again what was gone back from.
    let nothing = world.run("A", &["update", "n1"]).ok();
    assert_eq!(nothing["applied"], false, "{nothing}");
    let row = world.run("A", &["history", "n1"]).ok();
    assert!(!row.as_array().unwrap().is_empty());
}

/// What an instance wrote on its system disk is not as its maker shipped it.
#[test]
fn guest_that_writes_on_its_system_disk_is_said_to_drift() {
    let market = Market::new("update-drift");
    let world = &market.world;
    let shipped = |text: String| text.replace("role: data", "role: system");
    market.publish("1", shipped, &[]);
    market.trusts("A");
    world.run("A", &["run", "acme/nano", "--name", "n1"]).ok();
    let drift = || world.run("A", &["inspect", "n1", "--drift"]).ok()["drift"].clone();
    assert_eq!(drift(), serde_json::json!([]), "nothing was kept of what it wrote");
    world.run("A", &["checkpoint", "n1"]).ok();
    assert_eq!(drift()[0]["disk"], "data", "it counts its boots there");
    world.run("A", &["rm", "n1", "--force"]).ok();
}

/// A disk that is full is said before anything is stopped, and nothing that was fetched is lost.
#[test]
fn guest_on_a_full_disk_keeps_its_version_until_there_is_room() {
    let market = Market::new("update-full");
    let world = &market.world;
    let folder = world.host("A");
    fs::create_dir_all(&folder).unwrap();
    let small = Small::mount(&folder, 96 << 20);
    market.publish("1", same, &[]);
    market.trusts("A");
    world.run("A", &["run", "acme/nano", "--name", "n1"]).ok();
    world.type_in("A", "n1", "abc\r");
    world.await_console("A", "n1", "keys=3");
    market.publish("2", larger, &[]);
    small.fill(1 << 20);
    let (kind, message, hint) = world.run("A", &["update", "n1", "--force"]).error();
    assert!(kind == "no_space" && message.contains("are free in"), "{kind}: {message}");
    assert!(hint.contains("free some space"), "{hint}");
    // As it was, in its session.
    assert_eq!((market.version("A", "n1"), world.state("A", "n1")), ("1".into(), "running".into()));
    world.type_in("A", "n1", "d\r");
    world.await_console("A", "n1", "keys=4");
    small.empty();
    let updated = world.run("A", &["update", "n1", "--force"]).ok();
    assert_eq!(updated["applied"], true, "{updated}");
    world.await_console("A", "n1", "boots=2");
    world.run("A", &["rm", "n1", "--force"]).ok();
}

/// What changed a little is fetched as what changed; whatever a delta does not give is fetched as always.
#[test]
fn guest_gets_what_differs_and_not_what_changed_with_it() {
    let market = Market::new("update-delta");
    let world = &market.world;
    let (to, key) = (market.path("www"), market.path("acme.key"));
    let publish = |version: &str, text: &[u8]| {
        let folder = world.root().join("files");
        fs::create_dir_all(&folder).unwrap();
        // Names with numbers in them, as packages have them.
        let _ = fs::remove_dir_all(folder.join("lib"));
        fs::create_dir_all(folder.join("lib")).unwrap();
        fs::write(folder.join(format!("lib/libwork.so.{version}")), text).unwrap();
        // To some first: the delta is for those who have what it is promoted to, too.
        let published = market.publish_disk(version, &folder, &["--channel", "beta"]);
        market.make(&["promote", "work", "beta", "stable", "--to", &to, "--key", &key]).ok();
        published
    };
    let mut text = noise(3 << 20, 1);
    publish("1", &text);
    market.trusts("A");
    world.run("A", &["run", "acme/work", "--name", "d1", "--no-wait"]).ok();
    world.run("A", &["stop", "d1", "--force"]).ok();
    // Everything moves by a few bytes, so that no page is what it was.
    text.splice(100..100, *b"a few bytes more");
    let published = publish("2", &text);
    let all = published["uploaded_bytes"].as_u64().unwrap();
    let delta = published["delta_bytes"].as_u64().unwrap();
    assert!(all > 3 << 20 && 0 < delta && delta < 100 << 10, "{published}");
    // What it is made of has to be here: the host goes through the old version once.
    world.run("A", &["cp", "d1:/lib/libwork.so.1", &market.path("old")]).ok();
    // The delta names all that is new: nothing else is asked for, no manifest and no index.
    let (packs, index) = (world.root().join("www/packs"), world.root().join("www/index"));
    let aside = |path: &Path| path.with_extension("aside");
    for path in [&packs, &index] {
        fs::rename(path, aside(path)).unwrap();
    }
    let checked = world.run("A", &["update", "d1", "--check"]).ok();
    assert_eq!(checked["to"], "2", "{checked}");
    let fetched = world.run("A", &["update", "d1", "--fetch"]).ok();
    for path in [&packs, &index] {
        fs::rename(aside(path), path).unwrap();
    }
    let wire = fetched["fetched_bytes"].as_u64().unwrap();
    assert_eq!(fetched["delta_bytes"], delta, "{fetched}");
    assert!(
        wire < 200 << 10 && fetched["warnings"].as_array().is_none_or(Vec::is_empty),
        "{fetched}"
    );
    let differ = world.run("A", &["diff", "acme/work@1", "acme/work@2", "--files"]).ok();
    let files = differ["files"].to_string();
    assert!(files.contains("libwork.so.1") && files.contains("libwork.so.2"), "{differ}");
    assert_eq!(differ["files"].as_array().unwrap().len(), 2, "{differ}");
    let differ = world.run("A", &["diff", "d1", "acme/work:stable"]).ok();
    assert_eq!((&differ["files"], &differ["fetch_bytes"]), (&Value::Null, &0.into()), "{differ}");
    assert_eq!(world.run("A", &["diff", "d1", "nobody"]).error().0, "not_found");
    let drift = world.run("A", &["inspect", "d1", "--drift"]).ok()["drift"].clone();
    assert_eq!(drift.as_array().unwrap().len(), 0, "{drift}");
    world.run("A", &["resume", "d1"]).ok();
    world.run("A", &["stop", "d1", "--force"]).ok();

    // One of its parts is damaged on the server: what the other one gives is taken, the rest fetched as
    // always, and that is said.
    text = [noise(3 << 20, 2), text].concat();
    let published = publish("3", &text);
    let delta = published["delta_bytes"].as_u64().unwrap();
    let signed = world.root().join("www/signed/targets");
    let parts: Vec<PathBuf> = files_below(&signed)
        .into_iter()
        .filter(|path| {
            let id = published["version_id"].as_str().unwrap();
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            name.ends_with(".delta") && name.contains(&format!(".{id}."))
        })
        .collect();
    let damaged = parts.iter().find(|path| path.to_string_lossy().ends_with(".0.delta")).unwrap();
    let mut bytes = fs::read(damaged).unwrap();
    assert!(parts.len() > 1 && (bytes.len() as u64) < delta, "{parts:?}");
    let at = bytes.len() / 2;
    bytes[at] ^= 1;
    fs::write(damaged, &bytes).unwrap();
    let fetched = world.run("A", &["update", "d1", "--fetch"]).ok();
    assert_eq!(fetched["delta_bytes"], delta - bytes.len() as u64, "{fetched}");
    let said = fetched["warnings"][0].as_str().unwrap_or_default();
    assert!(said.contains("not what was signed"), "{fetched}");
    // It is here: its maker is needed no more.
    let new = market.path("new");
    drop(market.server);
    let started = world.run("A", &["resume", "d1"]).ok();
    assert_eq!(started["update"]["to"], "3", "{started}");
    world.run("A", &["stop", "d1", "--force"]).ok();
    world.run("A", &["cp", "d1:/lib/libwork.so.3", &new]).ok();
    assert!(fs::read(new).unwrap() == text, "another content");
}

/// Whoever is killed at any step of an update leaves the old version or the new one, with the data.
#[test]
fn guest_killed_while_it_is_updated_has_the_old_version_or_the_new() {
    let market = Market::new("update-killed");
    let world = &market.world;
    market.publish("1", same, &[]);
    market.publish("2", larger, &["--channel", "beta"]);
    market.publish("3", broken, &["--channel", "bad", "--healthy-within", "2"]);
    market.trusts("A");
    let steps = [
        ("2", "update: fetched"),
        ("2", "update: point to go back to"),
        ("2", "update: stopped"),
        ("2", "update: stored"),
        ("2", "ref: visible"),
        ("2", "update: visible"),
        ("2", "update: settled"),
        ("3", "update: visible"),
        ("3", "undo: branch kept"),
        ("3", "undo: moved"),
        ("3", "update: gone back"),
    ];
    let mut boots = 1;
    for (number, (to, step)) in steps.iter().enumerate() {
        let name = format!("n{number}");
        world.run("A", &["run", "acme/nano@1", "--name", &name]).ok();
        world.type_in("A", &name, "abc\r");
        world.await_console("A", &name, "keys=3");
        let mut update = world.command("A", &["update", &name, "--to", to, "--force"]);
        let died = support::said(update.env("COLLECTIVE_DIE_AT", step).output().unwrap());
        assert!(died.code != 0 && died.stdout.is_empty(), "{to} {step}: {died:?}");
        if world.state("A", &name) == "failed" {
            world.run("A", &["undo", &name]).ok();
        }
        if world.state("A", &name) != "running" {
            let resumed = world.run("A", &["resume", &name]);
            assert_eq!(resumed.code, 0, "{to} {step}: {resumed:?}");
        }
        let has = market.version("A", &name);
        assert!(has == "1" || (has == "2" && *to == "2"), "{to} {step}: it has {has}");
        // Its data: the count of its boots goes on, in memory or on the disk.
        world.type_in("A", &name, "d\r");
        eventually(std::time::Duration::from_secs(60), &format!("{to} {step}"), || {
            let console = world.console("A", &name);
            console.contains("keys=4") || console.contains("boots=2")
        });
        boots += 1;
        world.run("A", &["rm", &name, "--force"]).ok();
    }
    println!("{} kills of an update", boots - 1);
    let check = world.run("A", &["repo", "check", "--read-data"]).ok();
    assert_eq!(check["ok"], true, "{check}");
}
