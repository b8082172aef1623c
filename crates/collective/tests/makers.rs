//! What makers do, and what becomes of it when they are killed or somebody else has their web server.

#[path = "support/market.rs"]
mod market;
mod support;

use std::fs;
use std::path::Path;
use std::time::Duration;

use market::{Market, files_below, larger, same};
use support::copy_tree;

/// Whoever is killed while it publishes has published the version or has not, and does it again.
#[test]
fn publishing_that_is_killed_is_done_again() {
    let market = Market::new("publish-killed");
    market.publish("1", same, &[]);
    market.trusts("A");
    let (to, key) = (market.path("www"), market.path("acme.key"));
    for (number, step) in
        ["publish: copied", "publish: durable", "publish: kept", "sign: visible"].iter().enumerate()
    {
        let version = format!("2.{number}");
        market.build(&version, |text| {
            text.replace("memory: 16MiB", &format!("memory: {}MiB", 17 + number))
        });
        let words =
            ["--json", "publish", "nano", "--version", &version, "--to", &to, "--key", &key];
        let mut command = market.world.program("maker");
        command.env("COLLECTIVE_REPO", market.path("own")).args(words);
        let died = command.env("COLLECTIVE_DIE_AT", step).output().unwrap();
        assert!(!died.status.success(), "{step}");
        let seen = market.world.run("A", &["catalog"]).ok();
        let offered = seen[0]["channels"]["stable"].as_str().unwrap();
        assert_eq!(offered == version, *step == "sign: visible", "{step}: {seen}");
        let again = market.make(&words[1..]).ok();
        assert_eq!(
            again["uploaded_bytes"].as_u64().unwrap() == 0,
            *step != "publish: copied",
            "{step}: {again}"
        );
        let seen = market.world.run("A", &["catalog"]).ok();
        assert_eq!(seen[0]["channels"]["stable"], version.as_str(), "{step}");
    }
}

/// A maker who is killed while it begins, and while it replaces its keys, gives the same command again.
#[test]
fn a_maker_that_is_killed_while_it_begins_or_rotates_goes_on() {
    let market = Market::new("maker-killed");
    market.build("1", same);
    let (to, key, new) = (market.path("www"), market.path("acme.key"), market.path("new.key"));
    market.make(&["key", "new", &new, "--plain"]).ok();
    let killed = |step: &str, words: &[&str]| {
        let mut command = market.world.program("maker");
        command.env("COLLECTIVE_REPO", market.path("own")).args(words);
        let died = command.env("COLLECTIVE_DIE_AT", step).output().unwrap();
        assert!(!died.status.success(), "{step} was not reached");
        // Long ago: its numbers are nobody's any more.
        for file in files_below(&Path::new(&to).join("signed")) {
            let long_ago =
                fs::metadata(&file).unwrap().modified().unwrap() - Duration::from_secs(1000);
            fs::File::options().append(true).open(file).unwrap().set_modified(long_ago).unwrap();
        }
    };
    let begin =
        ["publish", "nano", "--version", "1", "--to", &to, "--key", &key, "--maker", "acme"];
    for step in ["sign: snapshot", "rotate: root", "publish: begun", "publish: kept"] {
        killed(step, &begin);
    }
    let begun = market.make(&begin).ok();
    assert_eq!(begun["new_maker"], true, "{begun}");
    market.trusts("A");
    let said = |version: &str| {
        let seen = market.world.run("A", &["catalog"]).ok();
        assert_eq!(seen[0]["channels"]["stable"], version, "{seen}");
    };
    said("1");
    let both = ["--root", &new, "--targets", &new, "--online", &new, "--key", &key, "--key", &new];
    let rotate = [&["key", "rotate", "--to", &to][..], &both[..]].concat();
    for step in ["sign: snapshot", "sign: targets"] {
        killed(step, &rotate);
        said("1");
    }
    killed("rotate: root", &rotate);
    assert_eq!(market.world.run("A", &["trust", "refresh", "acme"]).error().0, "trust");
    market.make(&rotate).ok();
    said("1");
    let listed = market.world.run("A", &["trust", "refresh", "acme"]).ok();
    assert_eq!(listed["root_version"], 2, "{listed}");
    // By the new key, and by it alone.
    let next = |key: &str| {
        market.build("2", larger);
        market.make(&["publish", "nano", "--version", "2", "--to", &to, "--key", key])
    };
    assert_eq!(next(&key).error().0, "key");
    next(&new).ok();
    said("2");
    assert_eq!(
        market.make(&["publish", "--again", "--to", &to, "--key", &new]).ok()["versions"],
        true
    );
    // Taken back twice: there is nothing to go back to, and it stays taken back.
    let yank = |version: &str| {
        let words = ["yank", "nano", version, "--reason", "it hums", "--to", &to, "--key", &new];
        market.make(&words).ok()
    };
    assert_eq!(yank("2")["channels"]["stable"], "1");
    assert_eq!(yank("1")["ended"], serde_json::json!(["stable"]));
    let again = next(&new).error();
    assert!(again.0 == "exists" && again.1.contains("it hums"), "{again:?}");
}

/// What a maker's web server shows is believed when it was signed, and as far as it is whole.
#[test]
fn what_was_not_signed_is_not_used() {
    let market = Market::new("forged");
    let world = &market.world;
    market.publish("1", same, &[]);
    market.trusts("A");
    let www = world.root().join("www");
    let honest = world.root().join("honest");
    copy_tree(&www, &honest);
    market.publish("2", larger, &[]);
    let newer = world.root().join("newer");
    copy_tree(&www, &newer);
    assert_eq!(world.run("A", &["catalog"]).ok()[0]["channels"]["stable"], "2");
    let show = |what: &Path| {
        fs::remove_dir_all(&www).unwrap();
        copy_tree(what, &www);
    };
    // An old copy.
    show(&honest);
    let old = world.run("A", &["catalog"]).error();
    assert!(old.0 == "trust" && old.1.contains("older than what this host has seen"), "{old:?}");
    // A document that was changed after it was signed.
    show(&newer);
    let documents = fs::read_dir(www.join("signed/targets")).unwrap().flatten();
    for document in documents {
        let text = fs::read_to_string(document.path()).unwrap();
        fs::write(document.path(), text.replace("acme", "evil").replace("stable", "stables"))
            .unwrap();
    }
    let fresh = market.world.run("B", &["trust", "add", &market.server.url(), "--yes"]).error();
    assert_eq!(fresh.0, "trust", "{fresh:?}");
    // A disk that was changed after the version was signed: a pack that says something else.
    show(&newer);
    market.trusts("B");
    let packs = files_below(&www.join("packs"));
    for pack in &packs {
        let mut bytes = fs::read(pack).unwrap();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        fs::write(pack, bytes).unwrap();
    }
    let started = world.run("B", &["run", "acme/nano", "--name", "n1"]);
    assert_eq!(started.code, 1, "{started:?}");
    assert!(!world.console("B", "n1").contains("boots="), "a guest was shown it");
    // Another maker's signatures, under the same address.
    show(&newer);
    let evil = Market::new("forged-evil");
    evil.publish("9", larger, &[]);
    show(&evil.world.root().join("www"));
    let forged = world.run("A", &["update", "n2"]);
    assert_eq!(forged.code, 1, "{forged:?}");
    let forged = world.run("A", &["trust", "refresh", "acme"]).error();
    assert_eq!(forged.0, "trust", "{forged:?}");
    // The maker is away: what was believed is still known, and its age is said.
    drop(market.server);
    let seen = world.run("A", &["catalog"]);
    assert_eq!(seen.ok()[0]["channels"]["stable"], "2");
    assert!(seen.stderr.contains("as of "), "{seen:?}");
}

/// Before anybody has it: what a version is, by what its maker signed.
#[test]
fn what_a_maker_signed_about_a_version_can_be_read() {
    let market = Market::new("about");
    let licence = market.path("LICENCE");
    fs::write(&licence, "do as you like\n").unwrap();
    let says = ["--licence", "MIT", "--licence-file", &licence, "--notes", "the first"];
    let published = market.publish("1", same, &says);
    market.trusts("A");
    let row = market.world.run("A", &["catalog", "--search", "system of our own"]).ok()[0].clone();
    assert_eq!((&row["licence"], &row["update_bytes"]), (&"MIT".into(), &serde_json::Value::Null));
    let about = market.world.run("A", &["catalog", "acme/nano"]).ok();
    assert_eq!(about["id"], published["version_id"]);
    assert_eq!(about["licence_text"], "do as you like\n");
    assert_eq!((&about["notes"], &about["licence"]), (&"the first".into(), &"MIT".into()));
    assert_eq!(
        (&about["size_bytes"], &about["healthy_within_s"]),
        (&row["size_bytes"], &180.into())
    );
    assert_eq!(about["recipe"].as_str().map(str::len), Some(64), "{about}");
    let sbom = market.world.run("A", &["catalog", "acme/nano@1", "--sbom"]).ok();
    assert_eq!(sbom["spdxVersion"], "SPDX-2.3");
    assert_eq!(
        (&sbom["packages"][0]["name"], &sbom["name"]),
        (&"acme/nano".into(), &"acme/nano-1".into())
    );
    assert_eq!(market.world.run("A", &["catalog", "acme/nano@9"]).error().0, "not_found");
    // Some get the next one; the list says so, and what was taken back is shown as that.
    market.publish("2", larger, &["--percent", "10"]);
    let row = market.world.run("A", &["catalog"]).ok()[0].clone();
    assert_eq!((&row["channels"]["stable"], &row["rollouts"]["stable"]), (&"2".into(), &10.into()));
    let (to, key) = (market.path("www"), market.path("acme.key"));
    market.make(&["yank", "nano", "2", "--reason", "it hums", "--to", &to, "--key", &key]).ok();
    assert_eq!(market.world.run("A", &["catalog", "acme/nano@2"]).ok()["yanked"], "it hums");
}

/// A system that was imported says what is installed in it, where its disk can be read.
#[test]
fn what_was_imported_is_published_with_its_packages() {
    let market = Market::new("imported");
    let files = market.world.root().join("files");
    for folder in ["etc", "usr/lib", "var/lib/dpkg"] {
        fs::create_dir_all(files.join(folder)).unwrap();
    }
    fs::write(files.join("usr/lib/os-release"), "NAME=\"Ubuntu\"\nID=ubuntu\n").unwrap();
    std::os::unix::fs::symlink("../usr/lib/os-release", files.join("etc/os-release")).unwrap();
    let publish = |version: &str, library: &str| {
        let status = format!(
            "Package: libstdc++6\nStatus: install ok installed\nVersion: {library}\n\n\
             Package: gone\nStatus: deinstall ok config-files\nVersion: 1\n"
        );
        fs::write(files.join("var/lib/dpkg/status"), status).unwrap();
        market.publish_disk(version, &files, &[]);
    };
    publish("1", "12.3.0-1ubuntu1~22.04");
    publish("2", "1:12.3.0-2");
    market.trusts("A");
    let run = |arguments: &[&str]| market.world.run("A", arguments).ok();
    assert_eq!(run(&["catalog", "acme/work@1"])["packages"], 1);
    let sbom = run(&["catalog", "acme/work@1", "--sbom"]);
    let package = &sbom["packages"][1];
    let is = (&package["name"], &package["versionInfo"]);
    assert_eq!(is, (&"libstdc++6".into(), &"12.3.0-1ubuntu1~22.04".into()), "{sbom}");
    let url = |sbom: &serde_json::Value| {
        sbom["packages"][1]["externalRefs"][0]["referenceLocator"].as_str().unwrap().to_owned()
    };
    assert_eq!(url(&sbom), "pkg:deb/ubuntu/libstdc%2B%2B6@12.3.0-1ubuntu1~22.04");
    assert_eq!(sbom["relationships"][1]["relatedSpdxElement"], package["SPDXID"]);
    let sbom = run(&["catalog", "acme/work@2", "--sbom"]);
    assert_eq!(url(&sbom), "pkg:deb/ubuntu/libstdc%2B%2B6@1%3A12.3.0-2");
    let differ = run(&["diff", "acme/work@1", "acme/work@2"]);
    assert_eq!(differ["packages"][0]["to"], "1:12.3.0-2", "{differ}");

    // Where it cannot be read it is imported all the same, and says so.
    let image = market.path("2.img");
    let mut bytes = fs::read(&image).unwrap();
    bytes[4096..8192].fill(0xff);
    fs::write(&image, bytes).unwrap();
    let imported = market.make(&["import", &image, "--name", "broken", "--format", "raw"]).ok();
    assert!(imported["notes"].to_string().contains("its packages are not listed"), "{imported}");
}

/// A part of a maker's names is somebody else's: she publishes it with her own key, users see who signed, and
/// what the maker takes back is gone.
#[test]
fn a_delegate_publishes_its_part_until_it_is_revoked() {
    let market = Market::new("delegate");
    let world = &market.world;
    market.publish("1", same, &[]);
    market.trusts("A");
    let (to, key) = (market.path("www"), market.path("acme.key"));
    let [root, online, eve] = ["root.key", "online.key", "eve.key"].map(|name| market.path(name));
    for file in [&root, &online, &eve] {
        market.make(&["key", "new", file, "--plain"]).ok();
    }
    // Who signs that it is current need not be who signs versions.
    let mut rotate = vec!["key", "rotate", "--to", &to, "--root", &root, "--targets", &key];
    rotate.extend(["--online", &online, "--key", &key, "--key", &root, "--key", &online]);
    market.make(&rotate).ok();
    let name = |part: &str| {
        let words = ["key", "delegate", "eve", part, "--to", &to, "--by", &eve];
        market.make(&[&words[..], &["--key", &key, "--key", &online]].concat())
    };
    let wrong = name("*").error();
    assert!(wrong.0 == "key" && wrong.1.contains("for example web"), "{wrong:?}");
    assert_eq!(name("mail*").ok()["part"][0], "mail*");
    let publish = |appliance: &str, version: &str| {
        let words = ["publish", appliance, "--version", version, "--to", &to];
        market.make(&[&words[..], &["--key", &eve, "--key", &online]].concat())
    };
    market.build("mail", |text| same(text).replace("name: nano", "name: mail"));
    publish("mail", "1").ok();
    market.build("mail-2", |text| larger(text).replace("name: nano", "name: mail"));
    publish("mail", "2").ok();
    // What is not hers she does not get through.
    let refused = publish("nano", "1.1").error();
    assert_eq!(refused.0, "key", "{refused:?}");
    let seen = world.run("A", &["catalog"]).ok();
    let rows = seen.as_array().unwrap();
    let offers = |row: &serde_json::Value| {
        (row["appliance"].as_str().unwrap().to_owned(), row["channels"]["stable"].to_string())
    };
    let offered: Vec<_> = rows.iter().map(offers).collect();
    let is = |name: &str, version: &str| (name.to_owned(), format!("\"{version}\""));
    assert_eq!(offered, [is("acme/mail", "2"), is("acme/nano", "1")]);
    let shown = world.run("A", &["trust", "refresh", "acme"]).ok();
    assert_eq!(shown["delegates"][0]["name"], "eve", "{shown}");
    let differ = world.run("A", &["diff", "acme/mail@1", "acme/mail@2"]).ok();
    assert!(differ["fetch_bytes"].is_u64(), "{differ}");
    let gone = market.make(&["key", "revoke", "eve", "--to", &to, "--key", &key, "--key", &online]);
    assert_eq!(gone.ok()["kept"], false);
    assert_eq!(world.run("A", &["catalog"]).ok().as_array().unwrap().len(), 1);
    assert_eq!(publish("mail", "3").error().0, "key");
}
