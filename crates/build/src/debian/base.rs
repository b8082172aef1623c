//! The base system: what mmdebstrap makes of the packages.
//!
//! mmdebstrap gets the package files and lists that were resolved before, so that it fetches
//! nothing and the archive can be named by them.

use std::fs;
use std::path::PathBuf;

use crate::BuildError;
use crate::apt::{Apt, Deb};
use crate::recipe::DebianPlan;
use crate::tree::{remove_unused, touch};
use crate::workshop::{Outcome, Workshop, growing, make_dir};

/// Changed whenever the same packages would be installed differently.
const LAYOUT: &str = "collective debian 1";

/// What mmdebstrap installs besides the recipe's packages, in apt's terms.
const MINIMAL: &str = "?or(?essential,?priority(required))";

/// Documentation that no appliance needs; copyright files stay, as their licences ask.
const LEFT_OUT: [&str; 7] = [
    "path-exclude=/usr/share/man/*",
    "path-exclude=/usr/share/locale/*",
    "path-exclude=/usr/share/info/*",
    "path-exclude=/usr/share/lintian/*",
    "path-exclude=/usr/share/doc/*",
    "path-include=/usr/share/doc/*/copyright",
    "force-unsafe-io",
];

/// Gives mmdebstrap's new system, `$1`, the package lists and files.
const FILL: &str = r#"mkdir -p "$1/var/lib/apt/lists" "$1/var/cache/apt/archives" &&
cp -r "$LISTS/." "$1/var/lib/apt/lists/" && cp "$DEBS"/*.deb "$1/var/cache/apt/archives/""#;

/// Gives mmdebstrap memory to work in, `$1` bytes or none. It makes and removes many small files,
/// which takes twice as long on a busy disk. The mount ends with the namespace.
const IN_ROOM: &str = r#"
[ "$1" = 0 ] || mount -t tmpfs -o mode=0755,size="$1" room "$TMPDIR" || :
shift
exec "$@"
"#;

/// The archive of the base system, from the cache or from mmdebstrap.
pub(super) fn archive(
    shop: &mut Workshop,
    plan: &DebianPlan,
    apt: &Apt,
) -> Result<PathBuf, BuildError> {
    let mut names = vec![MINIMAL, "usr-is-merged", "apt"];
    names.extend(plan.packages.iter().map(String::as_str));
    let debs = apt.resolve(shop, &names)?;
    let bases = shop.tools.join("bases");
    make_dir(&bases)?;
    let archive = bases.join(format!("{}.tar", name_of(apt, &debs)?));
    let what = format!("Debian {} with {} packages", plan.suite, debs.len());
    if archive.exists() {
        touch(&archive);
        shop.step(what, Outcome::Reused);
        return Ok(archive);
    }
    remove_unused(&bases);
    apt.fetch(shop, &debs)?;
    shop.step(&*what, Outcome::Begun);
    let files = shop.temp.join("debs");
    make_dir(&files)?;
    for deb in &debs {
        let (from, to) = (apt.path(deb), files.join(&deb.file));
        fs::hard_link(&from, &to)
            .or_else(|_| fs::copy(&from, &to).map(|_| ()))
            .map_err(BuildError::io("copying", from))?;
    }
    let growing = growing(&bases)?;
    let room = shop.temp.join("room");
    make_dir(&room)?;
    let mut command = shop.command("unshare");
    command.args(["--mount", "--propagation", "private", "--pid", "--fork", "--kill-child"]);
    command.args(["--mount-proc", "--", "/bin/sh", "-c", IN_ROOM, "room"]);
    command.arg(memory_room(&debs, apt)).arg("mmdebstrap").env("TMPDIR", &room);
    command.args(["--mode=root", "--variant=minbase", "--architectures=amd64", "--quiet"]);
    command.args(["--skip=update,download/empty,essential/unlink"]);
    command.arg(format!("--include={}", {
        let mut include = vec!["usr-is-merged"];
        include.extend(plan.packages.iter().map(String::as_str));
        include.join(",")
    }));
    command.args([
        "--aptopt=APT::Install-Recommends \"false\"",
        "--aptopt=Acquire::Languages \"none\"",
    ]);
    command.args(LEFT_OUT.map(|option| format!("--dpkgopt={option}")));
    command.arg(format!("--setup-hook={FILL}"));
    command.env("LISTS", apt.lists()).env("DEBS", &files);
    command.arg("--format=tar").arg(&plan.suite).arg(&growing).arg(apt.sources_list());
    shop.run("mmdebstrap", &mut command)?;
    fs::remove_dir_all(&files).map_err(BuildError::io("removing", files))?;
    fs::rename(&growing, &archive).map_err(BuildError::io("keeping", growing))?;
    shop.step(what, Outcome::Done);
    Ok(archive)
}

/// How much memory installing the packages may take; 0 when the machine has not plenty of it.
fn memory_room(debs: &[Deb], apt: &Apt) -> String {
    let packed_bytes: u64 =
        debs.iter().filter_map(|deb| fs::metadata(apt.path(deb)).ok()).map(|meta| meta.len()).sum();
    // Packages unpack to about four times their size; they themselves and the archive's lists
    // are there too.
    let room_bytes = packed_bytes * 8 + (256 << 20);
    let available_kib = fs::read_to_string("/proc/meminfo").ok().and_then(|text| {
        let line = text.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
        line.split_whitespace().next()?.parse::<u64>().ok()
    });
    let plenty = available_kib.is_some_and(|kib| kib.saturating_mul(1024) / 3 > room_bytes);
    if plenty { room_bytes } else { 0 }.to_string()
}

fn name_of(apt: &Apt, debs: &[Deb]) -> Result<String, BuildError> {
    let mut hasher = blake3::Hasher::new();
    hasher.update(LAYOUT.as_bytes());
    // The sources become a file of the system.
    let sources = apt.sources_list();
    hasher.update(&fs::read(&sources).map_err(BuildError::io("reading", sources))?);
    for option in LEFT_OUT {
        hasher.update(option.as_bytes());
    }
    for deb in debs {
        hasher.update(deb.file.as_bytes()).update(b"\0");
    }
    Ok(hasher.finalize().to_hex()[..32].to_owned())
}
