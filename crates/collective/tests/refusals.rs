//! Bad input where no guest is needed: each is refused with the right kind, a clear message and a
//! next step, and the command after it works.

mod support;

use std::fs;
use std::path::{Path, PathBuf};

use support::transcript::Transcript;
use support::{World, appliance, copy_tree, said};

/// A recipe of a test's own.
struct Bad(PathBuf);

impl Bad {
    fn recipe(world: &World) -> Self {
        copy_tree(Path::new(&appliance("nano")), &world.root().join("nano"));
        Self(world.root().join("nano/appliance.yaml"))
    }

    /// Changes one thing about the recipe, runs a command, and changes it back.
    #[track_caller]
    fn with(&self, from: &str, to: &str, command: impl FnOnce()) {
        let right = fs::read_to_string(&self.0).unwrap();
        assert!(right.contains(from), "{from}");
        fs::write(&self.0, right.replacen(from, to, 1)).unwrap();
        command();
        fs::write(&self.0, right).unwrap();
    }
}

#[test]
fn wrong_recipes_are_refused_with_line_and_column() {
    let world = World::empty("recipes");
    let bad = Bad::recipe(&world);
    let mut seen = Transcript::of(&world);
    world.run("A", &["repo", "init", &world.repository()]).ok();
    let mut check = |from: &str, to: &str| {
        bad.with(from, to, || {
            let said = seen.run("A", &["build", "nano"]);
            assert_eq!(said.code, 1, "{said:?}");
            assert!(said.stderr.contains("appliance.yaml:"), "{said:?}");
        });
    };
    check("hardware:", "hardware: [");
    check("  memory: 16MiB", "\tmemory: 16MiB");
    check("memory: 16MiB", "memroy: 16MiB");
    check("ready:\n", "owner: me\nready:\n");
    check("memory: 16MiB", "memory: plenty");
    check("memory: 16MiB", "memory: 1PiB");
    check("cpus: 1", "cpus: none");
    check("name: nano", "name: Nano One");
    check("mode: bios", "mode: kernel");
    check("image: nano.img", "image: ../../etc/passwd");
    check("image: nano.img", "image: other.img");
    // Nothing of it was stored, and the right one still builds.
    seen.run("A", &["appliances"]);
    let built = seen.run("A", &["build", "nano"]);
    assert_eq!(built.code, 0, "{built:?}");
    seen.check("wrong-recipes");
}

#[test]
fn wrong_keys_are_refused() {
    let world = World::empty("keys");
    let mut seen = Transcript::of(&world);
    // Two repositories; each key is on host A alone.
    let other = world.root().join("other").to_string_lossy().into_owned();
    world.run("A", &["repo", "init", &world.repository(), "--key", "host"]).ok();
    world.run("A", &["repo", "init", &other, "--key", "host"]).ok();
    world.run("A", &["build", &appliance("nano")]).ok();
    let path = |name: &str| world.root().join(name).to_string_lossy().into_owned();
    world.run("A", &["repo", "key", "export", "-o", &path("right.key")]).ok();
    let mut export = world.program("A");
    export.args(["--json", "--repo", &other, "repo", "key", "export", "-o", &path("wrong.key")]);
    said(export.output().unwrap()).ok();
    let right = fs::read_to_string(path("right.key")).unwrap();
    let digit = if right.as_bytes()[30] == b'0' { "1" } else { "0" };
    fs::write(path("mistyped.key"), [&right[..30], digit, &right[31..]].concat()).unwrap();
    fs::write(path("half.key"), &right[..40]).unwrap();
    fs::write(path("newer.key"), right.replacen("key-1", "key-9", 1)).unwrap();

    assert_eq!(seen.run("B", &["appliances"]).code, 1);
    for key in ["wrong.key", "mistyped.key", "half.key", "newer.key", "no.key"] {
        let said = seen.run("B", &["repo", "key", "import", key]);
        assert_eq!(said.code, 1, "{said:?}");
    }
    // A key of another repository does no harm where it belongs to none.
    assert_eq!(seen.run("B", &["--repo", "other", "repo", "key", "import", "wrong.key"]).code, 0);
    assert_eq!(seen.run("B", &["appliances"]).code, 1);
    // Without its key nobody makes another repository there either.
    assert_eq!(seen.run("B", &["repo", "init", "repository"]).code, 1);
    assert_eq!(seen.run("B", &["repo", "key", "import", "right.key"]).code, 0);
    assert_eq!(seen.run("B", &["appliances"]).code, 0);

    // The key of a folder, swapped for another's.
    world.run("A", &["repo", "init", &path("carried")]).ok();
    let kept = fs::read(path("carried/key")).unwrap();
    fs::write(path("carried/key"), fs::read(path("wrong.key")).unwrap()).unwrap();
    assert_eq!(seen.run("C", &["--repo", "carried", "repo", "stats"]).code, 1);
    fs::write(path("carried/key"), kept).unwrap();
    assert_eq!(seen.run("C", &["--repo", "carried", "repo", "stats"]).code, 0);
    seen.check("wrong-keys");
}

#[test]
fn what_is_no_repository_is_refused() {
    let world = World::empty("places");
    let mut seen = Transcript::of(&world);
    let path = |name: &str| world.root().join(name);
    world.run("A", &["repo", "init", &world.repository()]).ok();
    world.run("A", &["build", &appliance("nano")]).ok();
    fs::create_dir(path("photos")).unwrap();
    fs::write(path("photos/cat.jpg"), "a cat").unwrap();
    for place in ["elsewhere", "photos", "photos/cat.jpg", "ftp://host/path", "s3://"] {
        assert_eq!(seen.run("A", &["--repo", place, "run", "nano"]).code, 1);
    }
    assert_eq!(seen.run("A", &["repo", "use", "photos"]).code, 1);
    assert_eq!(seen.run("A", &["repo", "source", "photos"]).code, 1);
    assert_eq!(seen.run("A", &["repo", "init", "photos/cat.jpg"]).code, 1);
    assert_eq!(seen.run("A", &["run", "nothing-like-it"]).code, 1);

    // Its configuration, damaged, from a newer program, cut, and as it was.
    let config = path("repository/config");
    let whole = fs::read(&config).unwrap();
    let changed = |offset: usize, byte: u8| {
        let mut bytes = whole.clone();
        bytes[offset] = byte;
        bytes
    };
    // Version 2; an incompatible feature; the cipher; half of it.
    for bytes in [changed(8, 2), changed(32, 1), changed(56, 7), whole[..50].to_vec(), vec![]] {
        fs::write(&config, bytes).unwrap();
        assert_eq!(seen.run("A", &["appliances"]).code, 1);
    }
    fs::write(&config, &whole).unwrap();
    assert_eq!(seen.run("A", &["appliances"]).code, 0);
    seen.check("wrong-places");
}
