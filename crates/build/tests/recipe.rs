//! What is refused in an `appliance.yaml`, where, and with which words.

use build::{RECIPE_BYTES_MAX, Recipe};

/// A recipe that is right; each case replaces one line of it.
const GOOD: &str = "\
name: web
version: \"1\"
hardware: {memory: 512MiB}
boot:
  mode: kernel
  kernel: {package: linux-image-cloud-amd64, suite: bookworm}
  initrd: {root: system, modules: [virtio_net]}
disks:
  - name: system
    role: system
    size: 1GiB
    debian: {suite: bookworm, packages: [nginx-light]}
  - {name: data, role: data, size: 64MiB, format: ext4}
nics:
  - ports: [80]
ready: {port: 80}
";

fn refusal(text: &str) -> String {
    match Recipe::parse(text, "r.yaml") {
        Ok(_) => "accepted".to_owned(),
        Err(error) => format!("{error} ({})", error.hint),
    }
}

fn check(line: &str, replacement: &str, expected: &str) {
    assert!(GOOD.contains(line), "no line {line:?}");
    let text = GOOD.replacen(line, replacement, 1);
    assert_eq!(refusal(&text), expected, "with {replacement:?}");
}

#[test]
fn a_good_recipe_is_accepted() {
    let recipe = Recipe::parse(GOOD, "r.yaml").expect("it is right");
    assert_eq!(recipe.name().as_str(), "web");
    assert_eq!(recipe.version(), "1");
    assert_eq!(recipe.ready(), &model::Ready::Port(80));
    let page = GOOD.replacen("{port: 80}", "{http: {port: 80, path: /api/state}}", 1);
    let page = Recipe::parse(&page, "r.yaml").unwrap();
    let (port, path) = (80, "/api/state".to_owned());
    assert_eq!(page.ready(), &model::Ready::Http { port, path });
}

#[test]
fn the_shape_is_checked() {
    check(
        "version: \"1\"",
        "verson: \"1\"",
        "r.yaml:2:1: unknown field `verson` (did you mean `version`?)",
    );
    check(
        "ready: {port: 80}",
        "ready: agnt",
        "r.yaml:16:8: unknown variant `agnt` (did you mean `agent`?)",
    );
    check(
        "  - ports: [80]",
        "  - ports: [80000]",
        "r.yaml:15:13: expected a whole number from 0 to 65535 \
         (docs/format/appliance.md explains every field with an example)",
    );
    check(
        "hardware: {memory: 512MiB}",
        "hardware: {cpus: 2}",
        "r.yaml:3:12: missing field `memory` \
         (docs/format/appliance.md explains every field with an example)",
    );
    check(
        "name: web\n",
        "name: web\nname: web\n",
        "r.yaml:2:1: duplicate mapping key: name \
         (docs/format/appliance.md explains every field with an example)",
    );
}

#[test]
fn checkpoints_are_taken_as_the_maker_says() {
    let said = |text: &str| {
        let text = format!("{GOOD}{text}");
        match Recipe::parse(&text, "r.yaml") {
            Ok(recipe) => recipe.auto().map(|auto| auto.to_string()).unwrap_or_default(),
            Err(error) => format!("{error} ({})", error.hint),
        }
    };
    let check = |text: &str, expected: &str| {
        let found = said(text);
        assert!(found.contains(expected), "{text}: {found}");
    };
    assert_eq!(said(""), "");
    let default = "5m,last=6,hourly=24,daily=7,weekly=4";
    assert_eq!(said("checkpoints: {every: 5m}"), default);
    assert_eq!(
        said("checkpoints: {every: 60m, dirtied: 1024MiB, keep: {daily: 9}}"),
        "1h,dirtied=1GiB,last=1,daily=9"
    );
    check(
        "checkpoints: {every: off}",
        "r.yaml:17:22: \"off\" is no time between checkpoints (write",
    );
    check("checkpoints: {every: 32d}", "r.yaml:17:22: \"32d\" is no time");
    check("checkpoints: {dirtied: 1MiB}", "missing field `every`");
    check(
        "checkpoints: {every: 5m, dirtied: 1KiB}",
        "r.yaml:17:35: \"1KiB\" does not say how much",
    );
    check("checkpoints: {every: 5m, keep: {last: 201}}", "r.yaml:17:32: 201 automatic checkpoints");
    check("checkpoints: {every: 5m, keep: {last: x}}", "r.yaml:17:39: ");
    check("checkpoints: {every: 5m, keep: {yearly: 1}}", "r.yaml:17:33: unknown field");
}

#[test]
fn who_is_to_start_from_memory_has_to_be_known_to_be_ready() {
    let running = |ready: &str| GOOD.replacen("ready: {port: 80}", ready, 1);
    let recipe = Recipe::parse(&running("ready: {port: 80}\nstate: running"), "r.yaml").unwrap();
    assert!(recipe.is_running());
    let recipe = Recipe::parse(&running("ready: started\nstate: stopped"), "r.yaml").unwrap();
    assert!(!recipe.is_running());
    check(
        "ready: {port: 80}",
        "state: running\nready: started",
        "r.yaml:17:8: `state: running` needs to know when it is ready; `started` is before it has \
         booted (use `agent`, `port` or `console`)",
    );
    check(
        "ready: {port: 80}",
        "ready: {port: 80}\nstate: running\nvendor_data: v.yaml",
        "r.yaml:18:14: `vendor_data` is on a CD of each instance's own, which a memory cannot know \
         (leave out `state: running`, or configure it with `files` and `commands`)",
    );
    check(
        "hardware: {memory: 512MiB}",
        "hardware: {memory: 512MiB, tpm: true}\nstate: running",
        "r.yaml:3:33: a TPM's secrets would be the same in every instance that starts from one memory \
         (leave out `state: running`: each instance then has a TPM of its own)",
    );
    check(
        "hardware: {memory: 512MiB}",
        "hardware: {memory: 512MiB, tpm: true}",
        "r.yaml:3:33: with `mode: kernel` the initial RAM disk would lie over the tables that tell of \
         a TPM (use `mode: uefi` or `mode: bios`)",
    );
    check(
        "ready: {port: 80}",
        "ready: {port: 80}\nstate: runing",
        "r.yaml:17:8: unknown variant `runing` (did you mean `running`?)",
    );
}

#[test]
fn values_are_checked() {
    check(
        "name: web",
        "name: Web",
        "r.yaml:1:7: \"Web\" is not a name: use 1 to 63 of a-z, 0-9, '-', '_' and '.', \
         starting with a letter or digit (for example: name: web)",
    );
    check(
        "hardware: {memory: 512MiB}",
        "hardware: {memory: 512MB}",
        "r.yaml:3:20: \"512MB\" is not a size: write for example 512MiB or 4GiB \
         (write a whole number with a unit, for example 512MiB or 4GiB)",
    );
    check(
        "hardware: {memory: 512MiB}",
        "hardware: {memory: 512MiB, cpus: 65}",
        "r.yaml:3:34: 65 CPUs are not possible (use 1 to 64)",
    );
    check(
        "    size: 1GiB",
        "    size: 1000001",
        "r.yaml:11:11: \"1000001\" must be a multiple of 4KiB, above zero \
         (write a whole number with a unit, for example 512MiB or 4GiB)",
    );
    check(
        "name: data, role",
        "name: system, role",
        "r.yaml:13:12: two disks are called \"system\" (give each disk a name of its own)",
    );
    check(
        "[nginx-light]",
        "[\"nginx-light=1.0\"]",
        "r.yaml:12:42: \"nginx-light=1.0\" is not the name of a Debian package \
         (use the package's name alone, without a version)",
    );
    check(
        "ready: {port: 80}",
        "ready: {http: {port: 81, path: /}}",
        "r.yaml:16:8: no network card offers port 81 (add it to the `ports` of one of `nics`)",
    );
    check(
        "ready: {port: 80}",
        "ready: {http: {port: 80, path: api/state}}",
        "r.yaml:16:8: the path must begin with a slash and be 1 to 1024 printable bytes \
         (for example `ready: {http: {port: 80, path: /}}`; write %20 for a space)",
    );
    check(
        "ready: {port: 80}",
        "ready: {port: 81}",
        "r.yaml:16:8: no network card offers port 81 (add it to the `ports` of one of `nics`)",
    );
}

#[test]
fn paths_stay_inside_the_folder() {
    for path in ["../x", "/etc/shadow", "a/../../x", "."] {
        check(
            "size: 64MiB, format: ext4",
            &format!("image: \"{path}\""),
            &format!(
                "r.yaml:13:37: {path:?} leaves the recipe's folder \
                 (copy the file into the recipe's folder and name it relative to that)"
            ),
        );
    }
    check(
        "packages: [nginx-light]",
        "files: [{path: /etc/../x, content: a}]",
        "r.yaml:12:46: \"/etc/../x\" is not a path in the guest \
         (write it absolute and without . or .., for example /etc/motd)",
    );
}

#[test]
fn a_file_of_a_package_is_a_kernel() {
    let kernel = "kernel: {package: linux-image-cloud-amd64, suite: bookworm}";
    let initrd = "  initrd: {root: system, modules: [virtio_net]}\n";
    let text = GOOD.replace(initrd, "");
    let inside = "kernel: {package: ipxe, suite: bookworm, path: /boot/ipxe.lkrn}";
    assert_eq!(refusal(&text.replace(kernel, inside)), "accepted");
    check(
        kernel,
        "kernel: {package: ipxe, suite: bookworm, path: boot/ipxe.lkrn}",
        "r.yaml:6:50: \"boot/ipxe.lkrn\" is not a path in the guest \
         (write it absolute and without . or .., for example /etc/motd)",
    );
    check(
        kernel,
        "kernel: {path: /boot/ipxe.lkrn}",
        "r.yaml:6:18: `path` is a file in a `package` \
         (add `package` and `suite`, or name a file of the recipe's folder by `file`)",
    );
    check(
        kernel,
        inside,
        "r.yaml:7:36: modules come from a kernel package, and the kernel is a file \
         (build the drivers into that kernel)",
    );
}

#[test]
fn combinations_are_checked() {
    check(
        "  mode: kernel",
        "  mode: bios",
        "r.yaml:6:11: with `mode: bios` the disk brings its own kernel \
         (use `mode: kernel`, or remove it)",
    );
    check(
        "  mode: kernel",
        "  mode: uefi",
        "r.yaml:6:11: with `mode: uefi` the disk brings its own kernel \
         (use `mode: kernel`, or remove it)",
    );
    check(
        "  mode: kernel",
        "  mode: kernel\n  secure_boot: true",
        "r.yaml:6:16: only UEFI has secure boot (use `mode: uefi`, or remove it)",
    );
    check(
        "  mode: kernel",
        "  mode: kernel\n  variables: keys.fd",
        "r.yaml:6:14: only UEFI has variables (use `mode: uefi`, or remove it)",
    );
    check(
        "{name: data,",
        "{name: ram,",
        "r.yaml:13:12: the computer's memory has this name (choose another name)",
    );
    check(
        "role: data,",
        "role: data, at_stop: reset,",
        "r.yaml:13:39: `at_stop` is for system disks \
         (remove it: data disks are always kept, scratch disks never)",
    );
    check(
        "root: system",
        "root: data",
        "r.yaml:7:18: disk \"data\" has no system to start \
         (name a disk that has `debian` or `image`)",
    );
    check(
        "    role: system",
        "    role: scratch",
        "r.yaml:9:5: disk \"system\" is scratch, so its content would be lost at the first stop \
         (use `role: system`, or leave the disk empty)",
    );
    check(
        "    debian: {",
        "    format: ext4\n    debian: {",
        "r.yaml:12:13: `format` is for disks without other content \
         (remove `format`: `image` and `debian` bring their own file system)",
    );
    check(
        "{package: linux-image-cloud-amd64, suite: bookworm}",
        "{file: vmlinuz}",
        "r.yaml:7:11: busybox needs a suite to come from (add for example: suite: bookworm)",
    );
    check(
        "format: ext4}",
        "label: x}",
        "r.yaml:13:50: there is no file system to give a label to \
         (add `format: ext4`, or remove `label`)",
    );
}

#[test]
fn size_and_aliases_are_bounded() {
    let long = format!("{GOOD}# {}", "x".repeat(RECIPE_BYTES_MAX));
    assert!(refusal(&long).starts_with("r.yaml:1:1: larger than 256.0 KiB"), "too long");
    // Each line repeats the one before ten times.
    let mut bomb = String::from("a: &a [x,x,x,x,x,x,x,x,x,x]\n");
    for (one, next) in ('a'..='h').zip('b'..='i') {
        bomb += &format!("{next}: &{next} [{}]\n", vec![format!("*{one}"); 10].join(","));
    }
    assert_ne!(refusal(&bomb), "accepted");
    let deep = format!("name: {}", "[".repeat(50_000));
    assert_ne!(refusal(&deep), "accepted");
}

#[test]
fn nothing_crashes_on_broken_text() {
    let bytes = GOOD.as_bytes();
    for end in 0..bytes.len() {
        let _ = refusal(&String::from_utf8_lossy(&bytes[..end]));
    }
    for at in 0..bytes.len() {
        for replacement in [b'{', b':', b'*', b'\n', b'-', 0xff, 0] {
            let mut broken = bytes.to_vec();
            broken[at] = replacement;
            let _ = refusal(&String::from_utf8_lossy(&broken));
        }
    }
}
