//! A maker's repository copied for a branch office: whoever reads the copy finds the state before or the
//! new one, whole, whatever happens to whoever copies.

mod support;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use repository::{Open, Repository};
use s3_server::{S3Server, WebServer};
use serde_json::Value;
use support::{Said, World, appliance, copy_tree, said};

/// A maker, the web server that shows what it publishes, and a host that mirrors it.
struct Market {
    world: World,
    server: WebServer,
    fingerprint: String,
}

/// Bytes of the disk that is published: with every version, some of them are others.
const DISK_BYTES: usize = 6 << 20;

impl Market {
    fn new(name: &str) -> Self {
        let world = World::empty(name);
        let www = world.root().join("www");
        fs::create_dir_all(&www).unwrap();
        let server = WebServer::start(&www).unwrap();
        let mut market = Self { world, server, fingerprint: String::new() };
        market.make(&["repo", "init", &market.path("own")]).ok();
        market.make(&["key", "new", &market.path("acme.key"), "--plain"]).ok();
        let published = market.publish(1);
        market.fingerprint = published["root_fingerprint"].as_str().unwrap().to_owned();
        market
    }

    fn path(&self, name: &str) -> String {
        self.world.root().join(name).to_string_lossy().into_owned()
    }

    /// The maker does something on its own host, in its own repository.
    fn make(&self, arguments: &[&str]) -> Said {
        let mut command = self.world.program("maker");
        command.env("COLLECTIVE_REPO", self.path("own")).arg("--json").args(arguments);
        said(command.output().unwrap())
    }

    /// Publishes `nano` with this number, on a disk of noise of which 64 KiB are other ones.
    fn publish(&self, number: u64) -> Value {
        let folder = self.recipe(number);
        self.make(&["build", folder.to_str().unwrap()]).ok();
        let (to, key, number) = (self.path("www"), self.path("acme.key"), number.to_string());
        let words = ["publish", "nano", "--version", &number, "--to", &to, "--key", &key];
        self.make(&[&words[..], &["--maker", "acme"]].concat()).ok()
    }

    fn recipe(&self, number: u64) -> PathBuf {
        let folder = self.world.root().join(format!("recipe-{number}"));
        copy_tree(Path::new(&appliance("nano")), &folder);
        let image = folder.join("nano.img");
        let mut disk = fs::read(&image).unwrap();
        let mut state = 7_u64;
        while disk.len() < DISK_BYTES {
            if disk.len() == 1 << 20 {
                state += number;
            } else if disk.len() == (1 << 20) + (64 << 10) {
                state = 9;
            }
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            disk.extend_from_slice(&state.to_be_bytes()[..4]);
        }
        fs::write(&image, disk).unwrap();
        let file = folder.join("appliance.yaml");
        let text = fs::read_to_string(&file).unwrap().replace("size: 1MiB", "size: 8MiB");
        let memory = format!("memory: {}MiB", 16 + number);
        fs::write(&file, text.replace("memory: 16MiB", &memory)).unwrap();
        folder
    }

    /// Mirrors what the web server shows.
    fn mirror(&self, host: &str) -> Said {
        self.mirror_to(host, &self.path("mirror"), None)
    }

    fn mirror_to(&self, host: &str, to: &str, dies_at: Option<&str>) -> Said {
        let url = self.server.url();
        let words = ["repo", "mirror", &url, to, "--root-fingerprint", &self.fingerprint];
        let mut command = self.world.command(host, &words);
        command.envs(dies_at.map(|step| ("COLLECTIVE_DIE_AT", step)));
        said(command.output().unwrap())
    }

    /// What a host that has never seen anything finds in the mirror: its versions, all whole.
    #[track_caller]
    fn read(&self, folder: &str) -> Vec<String> {
        self.read_at(folder, folder)
    }

    /// The same where a web server shows it.
    #[track_caller]
    fn read_at(&self, place: &str, folder: &str) -> Vec<String> {
        let host = self.world.root().join("host-fresh");
        let _ = fs::remove_dir_all(&host);
        let print = &self.fingerprint;
        self.world.run("fresh", &["trust", "add", place, "--root-fingerprint", print]).ok();
        let catalog = self.world.run("fresh", &["catalog"]).ok();
        let mirror = Repository::open(objects::open(folder).unwrap(), Open::default()).unwrap();
        let report = mirror.check(true, &mut |_| ()).unwrap();
        assert_eq!(report.problems, []);
        let versions = catalog[0]["versions"].as_array().unwrap();
        let found = versions.iter().map(|version| {
            let number = version["version"].as_str().unwrap().to_owned();
            let kept = mirror.refs().read("release", &format!("nano/{number}")).unwrap();
            let kept = kept.unwrap_or_else(|| panic!("{number} is signed, and nothing keeps it"));
            let id = kept.roots[0].chunk().to_string();
            assert_eq!(id, version["id"].as_str().unwrap());
            number
        });
        found.collect()
    }

    /// What is signed: every object below `signed/`.
    fn signed(&self, folder: &str) -> BTreeMap<PathBuf, Vec<u8>> {
        let root = self.world.root().join(folder).join("signed");
        let mut all = BTreeMap::new();
        for folder in [root.clone(), root.join("targets")] {
            for file in fs::read_dir(folder).unwrap().flatten().filter(|f| f.path().is_file()) {
                let name = file.path().strip_prefix(&root).unwrap().to_owned();
                all.insert(name, fs::read(file.path()).unwrap());
            }
        }
        all
    }
}

#[test]
fn a_mirror_is_the_makers_repository_and_takes_only_what_it_lacks() {
    let market = Market::new("mirror");
    // Nobody is copied unseen.
    let unseen = ["repo", "mirror", &market.server.url(), &market.path("mirror")];
    let (kind, message, hint) = market.world.run("office", &unseen).error();
    assert!(kind == "trust" && message.contains(&market.fingerprint), "{message}");
    assert!(hint.contains("--root-fingerprint"), "{hint}");
    let first = market.mirror("office").ok();
    assert_eq!((&first["maker"], &first["versions"]), (&"acme".into(), &1.into()), "{first}");
    let copied = |print: &Value| print["copied_bytes"].as_u64().unwrap();
    assert!(copied(&first) >= DISK_BYTES as u64, "{first}");
    assert!(first["fetched_bytes"].as_u64().unwrap() < copied(&first) + (1 << 20), "{first}");
    // What is signed is the same to the byte.
    let mirrored = market.signed("mirror");
    assert!(mirrored.iter().all(|(name, bytes)| market.signed("www").get(name) == Some(bytes)));
    assert_eq!(market.read(&market.path("mirror")), ["1"]);

    // Again: nothing is written. (A fingerprint is not asked for twice.)
    let again = ["repo", "mirror", &market.server.url(), &market.path("mirror")];
    let second = market.world.run("office", &again).ok();
    assert_eq!((copied(&second), &second["objects"]), (0, &0.into()), "{second}");
    assert!(second["reused_bytes"].as_u64().unwrap() >= DISK_BYTES as u64, "{second}");

    // The next version costs what differs; by the name of a maker that is trusted.
    market.publish(2);
    let print = &market.fingerprint;
    let url = market.server.url();
    market.world.run("office", &["trust", "add", &url, "--root-fingerprint", print]).ok();
    let third = market.world.run("office", &["repo", "mirror", "acme", again[3]]).ok();
    assert!((64 << 10..400 << 10).contains(&copied(&third)), "{third}");
    assert!(third["reused_bytes"].as_u64().unwrap() > 5 << 20, "{third}");
    assert!(third["fetched_bytes"].as_u64().unwrap() < 1 << 20, "{third}");

    // A web server on the mirror is enough for readers, and for a mirror of the mirror.
    let office = WebServer::start(&market.world.root().join("mirror")).unwrap();
    assert_eq!(market.read_at(&office.url(), &market.path("mirror")), ["2", "1"]);
    let words =
        ["repo", "mirror", &office.url(), &market.path("second"), "--root-fingerprint", print];
    market.world.run("other", &words).ok();
    assert_eq!(market.read(&market.path("second")), ["2", "1"]);
}

#[test]
fn who_is_killed_while_mirroring_leaves_a_mirror_that_works() {
    let market = Market::new("mirror-killed");
    let place = market.path("mirror");
    market.mirror("office").ok();
    let steps = [
        "session: uploaded",
        "session: listed",
        "mirror: copied",
        "ref: held",
        "ref: visible",
        "mirror: version kept",
        "mirror: documents",
        "mirror: snapshot",
        "mirror: roots",
        "mirror: visible",
    ];
    let mut newest = 1;
    for step in steps {
        newest += 1;
        market.publish(newest);
        let died = market.mirror_to("office", &place, Some(step));
        assert!(died.code != 0 && died.stdout.is_empty(), "{step}: {died:?}");
        let has = market.read(&place);
        let expected = if step == "mirror: visible" { newest } else { newest - 1 };
        assert_eq!(has[0], expected.to_string(), "{step}");
        // It goes on from there.
        let done = market.mirror("office").ok();
        let copied = done["copied_bytes"].as_u64().unwrap();
        let is_there = !["session: uploaded", "mirror: copied"].contains(&step);
        assert!(copied < if is_there { 64 << 10 } else { 400 << 10 }, "{step}: {done}");
        assert_eq!(market.read(&place)[0], newest.to_string(), "{step}");
    }
    // In an empty place, too: nothing is said before everything is there.
    for step in ["mirror: version kept", "mirror: documents", "mirror: roots"] {
        let place = market.path(&step.replace(": ", "-").replace(' ', "-"));
        market.mirror_to("office", &place, Some(step));
        let print = &market.fingerprint;
        let (kind, ..) = market
            .world
            .run("fresh", &["trust", "add", &place, "--root-fingerprint", print])
            .error();
        assert_eq!(kind, "trust", "{step}");
        market.mirror_to("office", &place, None).ok();
        assert_eq!(market.read(&place).len() as u64, newest, "{step}");
    }
}

#[test]
fn a_mirror_of_a_damaged_or_lying_source_stays_as_it_was() {
    let market = Market::new("mirror-lies");
    let place = market.path("mirror");
    let (www, root) = (market.world.root().join("www"), market.world.root().to_owned());
    copy_tree(&www, &root.join("old"));
    market.mirror("office").ok();
    let show = |what: &str| {
        fs::remove_dir_all(&www).unwrap();
        copy_tree(&root.join(what), &www);
    };
    market.publish(2);
    copy_tree(&www, &root.join("new"));

    // A pack that is not what it was.
    let signed = market.signed("mirror");
    let mut packs = Vec::new();
    for folder in fs::read_dir(www.join("packs")).unwrap().flatten() {
        packs.extend(fs::read_dir(folder.path()).unwrap().flatten().map(|file| file.path()));
    }
    for pack in packs {
        let mut bytes = fs::read(&pack).unwrap();
        for byte in bytes.iter_mut().skip(100).step_by(1000) {
            *byte ^= 4;
        }
        fs::write(&pack, bytes).unwrap();
    }
    let (kind, message, _) = market.mirror("office").error();
    assert!(kind == "damaged" && message.contains("nano/2"), "{kind}: {message}");
    assert_eq!(market.signed("mirror"), signed);
    assert_eq!(market.read(&place), ["1"]);

    show("new");
    market.mirror("office").ok();
    assert_eq!(market.read(&place), ["2", "1"]);
    // An old state, to the host that knows better, and to one that only sees that the mirror does.
    show("old");
    for host in ["office", "other"] {
        let (kind, message, _) = market.mirror(host).error();
        assert!(kind == "trust" && message.contains("older"), "{host}: {kind}: {message}");
        assert_eq!(market.read(&place), ["2", "1"]);
    }
    // Words that nobody signed.
    show("new");
    let timestamp = www.join("signed/timestamp.json");
    let text = fs::read_to_string(&timestamp).unwrap();
    fs::write(&timestamp, text.replace("\"version\": 4", "\"version\": 5")).unwrap();
    assert_eq!(market.mirror("office").error().0, "trust");
    assert_eq!(market.read(&place), ["2", "1"]);
    // Nothing there at all.
    fs::remove_dir_all(&www).unwrap();
    fs::create_dir_all(&www).unwrap();
    assert_eq!(market.mirror("office").code, 1);
    assert_eq!(market.read(&place), ["2", "1"]);
    // What is damaged in the mirror's signed part is put right.
    show("new");
    let targets = fs::read_dir(root.join("mirror/signed/targets")).unwrap().flatten();
    for file in targets {
        fs::write(file.path(), b"{}").unwrap();
    }
    market.mirror("office").ok();
    assert_eq!(market.read(&place), ["2", "1"]);
}

#[test]
fn a_mirror_is_no_place_for_anything_else() {
    let market = Market::new("mirror-place");
    market.mirror("office").ok();
    let refused = |words: &[&str]| {
        let said = market.world.run("office", words);
        assert_ne!(said.code, 0, "{said:?}");
        let error = &said.json()["error"];
        let field = |name: &str| error[name].as_str().unwrap().to_owned();
        (field("kind"), field("message"))
    };
    let url = market.server.url();
    let mirror = |to: &str| {
        refused(&["repo", "mirror", &url, to, "--root-fingerprint", &market.fingerprint])
    };
    // A repository of somebody's own; another maker's mirror.
    let own = mirror(&market.path("own"));
    assert!(own.0 == "exists" && own.1.contains("something else"), "{own:?}");
    let other = market.path("other-www");
    let key = market.path("acme.key");
    let words = ["publish", "nano", "--version", "1", "--to", &other, "--key", &key];
    market.make(&[&words[..], &["--maker", "other"]].concat()).ok();
    let other = mirror(&other);
    assert!(other.0 == "exists" && other.1.contains("another maker"), "{other:?}");
    let same = refused(&["repo", "mirror", &url, &url]);
    assert_eq!(same.0, "usage");
    let www = mirror(&market.path("www"));
    assert!(www.0 == "usage" && www.1.contains("same repository"), "{www:?}");
    let wrong = "0".repeat(64);
    let other =
        refused(&["repo", "mirror", &url, &market.path("m2"), "--root-fingerprint", &wrong]);
    assert!(other.0 == "trust" && other.1.contains(&market.fingerprint), "{other:?}");
    assert_eq!(market.read(&market.path("mirror")), ["1"]);
}

/// Whoever mirrors while the maker publishes has one of the states that were published.
#[test]
fn a_mirror_is_made_while_the_maker_publishes() {
    let market = Market::new("mirror-busy");
    let last = 6;
    std::thread::scope(|scope| {
        let maker = scope.spawn(|| (2..=last).for_each(|number| drop(market.publish(number))));
        loop {
            let done = maker.is_finished();
            let said = market.mirror("office");
            if said.code != 0 {
                // A server's timestamp and what it names are read one after the other.
                let (kind, message, _) = said.error();
                assert!(kind == "trust" || kind == "unavailable", "{kind}: {message}");
            }
            let has = market.read(&market.path("mirror"));
            let newest: u64 = has[0].parse().unwrap();
            assert_eq!(has.len() as u64, newest, "{has:?}");
            if done {
                break;
            }
        }
    });
    market.mirror("office").ok();
    assert_eq!(market.read(&market.path("mirror")).len() as u64, last);
}

/// A mirror in S3 is one like any other.
#[test]
fn s3_holds_a_mirror() {
    let market = Market::new("mirror-s3");
    let folder = market.world.root().join("s3");
    fs::create_dir_all(folder.join("bucket")).unwrap();
    let server = S3Server::start(&folder, &["bucket"], "127.0.0.1:0").unwrap();
    let mirror = || {
        let url = market.server.url();
        let print = &market.fingerprint;
        let words = ["repo", "mirror", &url, "s3://bucket/acme", "--root-fingerprint", print];
        let mut command = market.world.command("office", &words);
        command
            .env("AWS_ENDPOINT_URL", server.endpoint())
            .env("AWS_ACCESS_KEY_ID", s3_server::ACCESS_KEY)
            .env("AWS_SECRET_ACCESS_KEY", s3_server::SECRET_KEY)
            .env("AWS_REGION", "us-east-1");
        said(command.output().unwrap()).ok()
    };
    assert!(mirror()["copied_bytes"].as_u64().unwrap() > DISK_BYTES as u64);
    assert_eq!(mirror()["objects"], 0);
    market.publish(2);
    assert!(mirror()["copied_bytes"].as_u64().unwrap() < 400 << 10);
    assert_eq!(market.read(&market.path("s3/bucket/acme")), ["2", "1"]);
}

/// A maker keeps so many versions: what is signed says so first, whoever dies; a mirror follows.
#[test]
fn versions_that_a_maker_does_not_keep_are_dropped() {
    let market = Market::new("versions");
    (2..=5).for_each(|number| drop(market.publish(number)));
    market.mirror("office").ok();
    let (www, key) = (market.path("www"), market.path("acme.key"));
    let gc = |dies_at: Option<&str>, more: &[&str]| {
        let mut command = market.world.program("maker");
        command.args(["--json", "--repo", &www, "repo", "gc", "--keep-versions"]).args(more);
        command.args(["--key", &key]).envs(dies_at.map(|step| ("COLLECTIVE_DIE_AT", step)));
        said(command.output().unwrap())
    };
    let said = gc(None, &["2", "--dry-run"]).ok();
    assert_eq!(said["dropped"], serde_json::json!(["nano 1", "nano 2", "nano 3"]));
    let bytes = said["dropped_bytes"].as_u64().unwrap();
    assert!((100 << 10..600 << 10).contains(&bytes), "{said}");
    assert_eq!(market.read(&www), ["5", "4", "3", "2", "1"], "only said");
    assert_eq!(gc(None, &["0"]).json()["error"]["kind"], "usage");
    // Whoever dies in between: what is signed is there.
    let died = gc(Some("retain: signed"), &["3"]);
    assert!(died.code != 0 && died.stdout.is_empty(), "{died:?}");
    assert_eq!(market.read(&www), ["5", "4", "3"]);
    let done = gc(None, &["2"]).ok();
    assert_eq!(done["dropped"], serde_json::json!(["nano 3"]), "{done}");
    assert_eq!(market.read(&www), ["5", "4"]);
    assert!(gc(None, &["2"]).ok()["dropped"].is_null());
    // Its signed documents are gone from the list, and its number is never another's.
    let again = market.make(&["publish", "nano", "--version", "5", "--to", &www, "--key", &key]);
    assert_eq!(again.code, 0, "{again:?}");
    let mirrored = market.mirror("office").ok();
    assert_eq!((&mirrored["versions"], &mirrored["dropped_versions"]), (&2.into(), &3.into()));
    assert_eq!(market.read(&market.path("mirror")), ["5", "4"]);
}

/// What is damaged in a repository comes back from whoever has it.
#[test]
fn a_damaged_repository_is_mended_from_a_maker() {
    let market = Market::new("mend");
    market.mirror("office").ok();
    let mirror = market.path("mirror");
    let harm = |bit: u8| {
        for folder in fs::read_dir(Path::new(&mirror).join("packs")).unwrap().flatten() {
            for pack in fs::read_dir(folder.path()).unwrap().flatten() {
                let mut bytes = fs::read(pack.path()).unwrap();
                // In so many places that no other copy has all of it.
                for eighth in 1..8 {
                    let at = bytes.len() * eighth / 8;
                    bytes[at] ^= bit;
                }
                fs::write(pack.path(), bytes).unwrap();
            }
        }
    };
    let check = |host: &str, dies_at: Option<&str>, more: &[&str]| {
        let mut command = market.world.program(host);
        command.args(["--json", "--repo", &mirror, "repo", "check"]).args(more);
        command.envs(dies_at.map(|step| ("COLLECTIVE_DIE_AT", step)));
        said(command.output().unwrap())
    };
    harm(16);
    let damaged = check("office", None, &["--read-data"]);
    assert_eq!((damaged.code, &damaged.json()["ok"]), (1, &false.into()), "{damaged:?}");
    // Nobody to ask: it is said, and the exit code says so too.
    let left = check("alone", None, &["--repair"]);
    assert_eq!(left.code, 1, "{left:?}");
    assert!(left.json()["problems"][0].as_str().unwrap().contains("nobody"), "{left:?}");
    let url = market.server.url();
    for step in ["mend: listed", "mend: condemned"] {
        let died = check("office", Some(step), &["--repair", "--from", &url]);
        assert!(died.code != 0 && died.stdout.is_empty(), "{step}: {died:?}");
    }
    let mended = check("office", None, &["--repair", "--from", &url]).ok();
    assert!(mended["mended"].is_null(), "it was mended before it died: {mended}");
    assert_eq!(market.read(&mirror), ["1"]);
    // From a maker that this host trusts, without being told where.
    harm(2);
    let print = &market.fingerprint;
    market.world.run("office", &["trust", "add", &url, "--root-fingerprint", print]).ok();
    let mended = check("office", None, &["--repair"]).ok();
    let said = mended["mended"].to_string();
    assert!(said.contains("packs/") && said.contains("chunks from a source"), "{mended}");
    assert!(mended["fetched_bytes"].as_u64().unwrap() >= 4096, "{mended}");
    assert_eq!(market.read(&mirror), ["1"]);
    // A copy of the same repository puts whole objects back: the log and refs, too.
    copy_tree(Path::new(&mirror), &market.world.root().join("copy"));
    for object in fs::read_dir(Path::new(&mirror).join("index")).unwrap().flatten() {
        fs::write(object.path(), b"nothing").unwrap();
    }
    let mended = check("office", None, &["--repair", "--from", &market.path("copy")]).ok();
    let said = mended["mended"][0].as_str().unwrap();
    assert!(said.contains("index/") && said.contains("put back"), "{mended}");
    assert_eq!(market.read(&mirror), ["1"]);
}

/// A branch office: chunks come from its mirror, and from the maker where that is away, behind or lies;
/// and from the mirror alone, news too, while the maker is away.
#[test]
fn guest_of_a_branch_office_runs_from_its_mirror() {
    let market = Market::new("mirror-office");
    let (world, url) = (&market.world, market.server.url());
    world.run("A", &["repo", "init", &world.repository()]).ok();
    market.mirror("office").ok();
    let mirror = world.root().join("mirror");
    let office = WebServer::start(&mirror).unwrap();
    for host in ["A", "B", "C"] {
        let print = &market.fingerprint;
        world.run(host, &["trust", "add", &url, "--root-fingerprint", print]).ok();
        let print = world.run(host, &["trust", "mirror", "acme", &office.url()]).ok();
        assert_eq!(print["mirrors"], serde_json::json!([office.url()]));
    }
    let listed = world.run("A", &["trust", "list"]).ok();
    assert_eq!(listed[0]["mirrors"][0], office.url(), "{listed}");
    let run = |host: &str, name: &str| {
        let asked = market.server.requests();
        let ran = world.run(host, &["run", "acme/nano", "--name", name]).ok();
        world.await_console(host, name, "boots=1");
        let version = world.row(host, name)["version"].as_str().unwrap().to_owned();
        world.run(host, &["rm", name, "--force"]).ok();
        println!("{host}: {} requests to the maker, {ran}", market.server.requests() - asked);
        (version, market.server.requests() - asked)
    };
    // The maker is asked for what is signed, and for nothing else.
    let before = office.requests();
    let (version, asked) = run("A", "n1");
    assert!(version == "1" && asked < 20 && office.requests() > before + 3, "{asked}");

    // Behind: the new version's chunks come from the maker.
    market.publish(2);
    assert_eq!(run("A", "n2").0, "2");
    // A mirror that lies: everything in it is something else.
    let honest = world.root().join("honest");
    copy_tree(&mirror, &honest);
    for folder in fs::read_dir(mirror.join("packs")).unwrap().flatten() {
        for pack in fs::read_dir(folder.path()).unwrap().flatten() {
            let mut bytes = fs::read(pack.path()).unwrap();
            bytes.iter_mut().skip(88).for_each(|byte| *byte ^= 1);
            fs::write(pack.path(), bytes).unwrap();
        }
    }
    assert_eq!(run("B", "n3").0, "2");
    fs::remove_dir_all(&mirror).unwrap();
    assert_eq!(run("B", "n4").0, "2", "nothing is there any more");
    // The maker is away: who has seen nothing newer takes what its mirror has.
    copy_tree(&honest, &mirror);
    let Market { server, world, .. } = market;
    drop(server);
    let kept = world.run("B", &["catalog"]).ok();
    assert_eq!(kept[0]["channels"]["stable"], "2", "the mirror is behind what B has seen");
    let ran = world.run("C", &["run", "acme/nano", "--name", "n5"]).ok();
    world.await_console("C", "n5", "boots=1");
    assert_eq!(world.row("C", "n5")["version"], "1", "{ran}");
    let gone = world.run("C", &["trust", "mirror", "acme", &office.url(), "--remove"]).ok();
    assert!(gone["mirrors"].is_null(), "{gone}");
    let (kind, ..) =
        world.run("C", &["trust", "mirror", "acme", &office.url(), "--remove"]).error();
    assert_eq!(kind, "not_found");
}
