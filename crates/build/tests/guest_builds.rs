//! Whole builds, from real packages. They need root, mmdebstrap, and apt's sources for the first
//! time; later ones use what the first one cached below cargo's target folder.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use build::{BuildError, Built, Outcome, Recipe, Step};

/// Shared by these tests, and kept: packages are fetched once.
fn tools() -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).join("build-tools")
}

fn folder() -> tempfile::TempDir {
    tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a folder can be made")
}

fn try_build(text: &str, recipe_dir: &Path, work: &Path) -> Result<(Built, Vec<Step>), BuildError> {
    build_with(&tools(), text, recipe_dir, work)
}

/// What needs no package has tools of its own: builds wait for others that use the same folder.
fn try_build_alone(text: &str, recipe_dir: &Path, work: &Path) -> Result<Built, BuildError> {
    build_with(&work.join("tools"), text, recipe_dir, work).map(|(built, _)| built)
}

fn build_with(
    tools: &Path,
    text: &str,
    recipe_dir: &Path,
    work: &Path,
) -> Result<(Built, Vec<Step>), BuildError> {
    let recipe = Recipe::parse(text, "appliance.yaml")?;
    let mut steps = Vec::new();
    let built = build::build(&recipe, recipe_dir, work, tools, &mut |step| steps.push(step))?;
    Ok((built, steps))
}

fn digest(built: &Built) -> BTreeMap<String, String> {
    let disks = built.disks.iter().filter_map(|disk| disk.image.as_ref());
    built
        .kernel
        .iter()
        .chain(&built.initrd)
        .chain(disks)
        .map(|path| {
            let name = path.file_name().expect("a file").to_string_lossy().into_owned();
            let bytes = fs::read(path).expect("an output can be read");
            (name, blake3::hash(&bytes).to_hex().to_string())
        })
        .collect()
}

/// What a folder of a disk's file system holds.
fn names_in(image: &Path, folder: &str) -> Vec<String> {
    let mut debugfs = std::process::Command::new("/usr/sbin/debugfs");
    let done =
        debugfs.args(["-R", &format!("ls -p {folder}")]).arg(image).output().expect("it runs");
    // Lines are /INODE/MODE/UID/GID/NAME/SIZE/.
    let listing = String::from_utf8_lossy(&done.stdout).into_owned();
    listing.lines().filter_map(|line| line.split('/').nth(5)).map(str::to_owned).collect()
}

/// Without root nothing can be built from packages, and that is said; true when it is so.
fn refused_without_root(text: &str, recipe_dir: &Path) -> bool {
    if rustix::process::geteuid().is_root() {
        return false;
    }
    let work = folder();
    let error = try_build(text, recipe_dir, work.path()).expect_err("root is needed");
    assert_eq!(error.kind(), "permission");
    true
}

/// Forgets what was unpacked and installed, but not the package files. Waits for other tests'
/// builds, as builds wait for each other.
fn forget(names: &[&str]) {
    let lock = fs::File::create(tools().join("lock")).expect("the lock can be opened");
    lock.lock().expect("the lock can be had");
    for name in names {
        let _ = fs::remove_dir_all(tools().join(name));
    }
}

#[test]
fn guest_tiny_is_the_same_bytes_twice() {
    let recipe_dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../appliances/tiny");
    let text = fs::read_to_string(recipe_dir.join("appliance.yaml")).expect("the recipe is there");
    if refused_without_root(&text, &recipe_dir) {
        return;
    }
    let (one, two) = (folder(), folder());
    let (first, _) = try_build(&text, &recipe_dir, one.path()).expect("it builds");
    forget(&["trees"]);
    let (second, _) = try_build(&text, &recipe_dir, two.path()).expect("it builds again");
    assert_eq!(digest(&first), digest(&second));
    assert_eq!(first.packages, second.packages);
    assert!(first.packages.iter().any(|(name, _)| name == "qemu-guest-agent"));
    assert_eq!(
        fs::metadata(first.disks[0].image.as_ref().expect("formatted")).expect("there").len(),
        64 << 20
    );

    // A third time nothing is left to do but to write the outputs.
    let (_, steps) =
        try_build(&text, &recipe_dir, one.path()).expect("it builds in the same place");
    let kernel = Step { what: "kernel linux-image-cloud-amd64".into(), outcome: Outcome::Reused };
    assert!(steps.contains(&kernel), "{steps:?}");
    assert!(!one.path().join("temp").exists(), "temporary files are gone");
}

const DEBIAN: &str = "\
name: small
version: \"1\"
hardware: {memory: 256MiB}
boot:
  mode: kernel
  kernel: {package: linux-image-cloud-amd64, suite: bookworm}
  initrd: {root: system}
disks:
  - name: system
    role: system
    size: 512MiB
    debian:
      suite: bookworm
      # The packages of the Debian guest in crates/collective/tests/guest_warm.rs: installed once for both.
      packages: [sysvinit-core, acpid, iproute2, procps, qemu-guest-agent, udhcpc, openssh-server]
      files:
        - {path: /etc/hostname, content: \"small\\n\"}
        - {path: /lib/collective/deep/file, from: input, mode: \"0750\"}
        - {path: /etc/ssh/ssh_host_of_its_maker, content: \"meant\"}
      commands:
        - useradd --system --no-create-home someone
        - test \"$(cat /lib/collective/deep/file)\" = input
        - test $(tail -n +3 /proc/net/dev | wc -l) = 1 # the loopback alone
        - ls /etc/ssh/ssh_host_ed25519_key # made when it was installed
        - mkdir /etc/Főtanú # as a certificate of ca-certificates is called
ready: started
";

#[test]
fn guest_debian_is_the_same_bytes_twice() {
    let recipe_dir = folder();
    fs::write(recipe_dir.path().join("input"), "input\n").expect("written");
    let text = DEBIAN;
    if refused_without_root(text, recipe_dir.path()) {
        return;
    }
    let (one, two) = (folder(), folder());
    let (first, _) = try_build(text, recipe_dir.path(), one.path()).expect("it builds");
    forget(&["bases"]);
    let (second, _) = try_build(text, recipe_dir.path(), two.path()).expect("it builds again");
    assert_eq!(digest(&first), digest(&second));
    assert!(first.packages.iter().any(|(name, _)| name == "openssh-server"));

    // Host keys would differ from build to build, and be the same for all who start from one. Each
    // computer makes its own before its server starts.
    let image = second.disks[0].image.as_ref().expect("made");
    let ssh = names_in(image, "/etc/ssh");
    assert!(ssh.iter().any(|name| name == "sshd_config"), "{ssh:?}");
    assert!(ssh.iter().any(|name| name == "ssh_host_of_its_maker"), "{ssh:?}");
    assert!(!ssh.iter().any(|name| name.contains("_key")), "{ssh:?}");
    let started = names_in(image, "/etc/rc2.d");
    let turn = |name: &str| {
        let entry = started.iter().find(|entry| entry.ends_with(name) && entry.starts_with('S'));
        entry.unwrap_or_else(|| panic!("{name} is not in {started:?}")).clone()
    };
    assert!(turn("collective-host-keys") < turn("ssh"), "{started:?}");
    let etc = names_in(image, "/etc");
    assert!(etc.iter().any(|name| name == "Főtanú"), "{etc:?}");

    // What is wrong with a command is said at its line.
    let text = text.replace("useradd --system --no-create-home someone", "echo no >&2; false");
    let error = try_build(&text, recipe_dir.path(), two.path()).expect_err("it fails");
    let BuildError::Recipe(error) = error else { panic!("{error}") };
    assert_eq!((error.line, error.column), (21, 11));
    assert!(error.message.ends_with("no"), "{error}");
    assert!(!two.path().join("temp").exists(), "temporary files are gone");

    // So is a disk that is too small.
    let text = DEBIAN.replace("512MiB", "64MiB");
    let error = try_build(&text, recipe_dir.path(), two.path()).expect_err("it does not fit");
    assert!(matches!(&error, BuildError::DiskTooSmall { disk, .. } if disk == "system"), "{error}");
}

#[test]
fn guest_what_packages_lack_is_said_at_its_line() {
    let recipe_dir = folder();
    let initrd = |what: &str| {
        format!(
            "name: x\nversion: \"1\"\nhardware: {{memory: 64MiB}}\nboot:\n  mode: kernel\n  \
             kernel: {{package: linux-image-cloud-amd64, suite: bookworm}}\n  \
             initrd: {{{what}}}\nready: started\n"
        )
    };
    let good = initrd("modules: [virtio_net]");
    if refused_without_root(&good, recipe_dir.path()) {
        return;
    }
    let work = folder();
    let refusal = |what: &str| {
        try_build(&initrd(what), recipe_dir.path(), work.path()).expect_err("refused").to_string()
    };
    let module = refusal("modules: [virtio_net, no_such_module]");
    assert!(module.starts_with("appliance.yaml:7:34: the kernel 6."), "{module}");
    assert!(module.ends_with("has no module no_such_module"), "{module}");
    assert_eq!(
        refusal("programs: [/usr/bin/no-such-program]"),
        "appliance.yaml:7:23: none of the packages has the program /usr/bin/no-such-program"
    );
    let package = refusal("packages: [no-such-package]");
    assert_eq!(package, "packages of bookworm: Unable to locate package no-such-package");
}

#[test]
fn files_that_are_not_there_or_outside_are_said_at_their_line() {
    let recipe_dir = folder();
    let work = folder();
    let kernel = |file: &str| {
        format!(
            "name: x\nversion: \"1\"\nhardware: {{memory: 64MiB}}\nboot:\n  mode: kernel\n  \
             kernel: {{file: {file}}}\nready: started\n"
        )
    };
    std::os::unix::fs::symlink("/etc/passwd", recipe_dir.path().join("outside")).expect("linked");
    std::os::unix::fs::symlink("kernel", recipe_dir.path().join("inside")).expect("linked");
    fs::create_dir(recipe_dir.path().join("folder")).expect("made");
    fs::write(recipe_dir.path().join("kernel"), "a kernel").expect("written");
    let refusal = |file: &str| {
        try_build_alone(&kernel(file), recipe_dir.path(), work.path())
            .expect_err("refused")
            .to_string()
    };
    assert_eq!(
        refusal("missing"),
        "appliance.yaml:6:18: \"missing\" cannot be opened: No such file or directory (os error 2)"
    );
    assert_eq!(
        refusal("outside"),
        "appliance.yaml:6:18: \"outside\" leaves the recipe's folder through a symbolic link"
    );
    assert_eq!(refusal("folder"), "appliance.yaml:6:18: \"folder\" is not a regular file");
    let built = try_build_alone(&kernel("inside"), recipe_dir.path(), work.path()).expect("fine");
    assert_eq!(fs::read(built.kernel.expect("a kernel")).expect("read"), b"a kernel");
}

#[test]
fn images_become_disks() {
    let recipe_dir = folder();
    let work = folder();
    let text = |size: &str| {
        format!(
            "name: x\nversion: \"1\"\nhardware: {{memory: 64MiB}}\nboot: {{mode: bios}}\ndisks:\n  \
             - {{name: system, role: system, image: disk.img{size}}}\n  \
             - {{name: more, role: scratch, size: 1MiB}}\nready: started\n"
        )
    };
    fs::write(recipe_dir.path().join("disk.img"), vec![7; 5000]).expect("written");
    let built = try_build_alone(&text(""), recipe_dir.path(), work.path()).expect("fine");
    assert_eq!(built.hardware.disks[0].size_bytes, 8192);
    assert!(built.disks[1].image.is_none());
    let built =
        try_build_alone(&text(", size: 2MiB"), recipe_dir.path(), work.path()).expect("fine");
    let bytes = fs::read(built.disks[0].image.as_ref().expect("an image")).expect("read");
    assert_eq!((bytes.len(), bytes[4999], bytes[5000]), (2 << 20, 7, 0));
    let error = try_build_alone(&text(", size: 4096"), recipe_dir.path(), work.path())
        .expect_err("too small");
    assert_eq!(error.to_string(), "appliance.yaml:6:41: the image has 5000 bytes, the disk 4096");
    fs::write(recipe_dir.path().join("disk.img"), b"QFI\xfb and so on").expect("written");
    let error = try_build_alone(&text(""), recipe_dir.path(), work.path()).expect_err("not raw");
    assert_eq!(error.to_string(), "appliance.yaml:6:41: \"disk.img\" is not a raw image");
}
