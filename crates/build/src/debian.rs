//! A Debian system made from packages, files and commands.
//!
//! Two stages. The *base* is what mmdebstrap makes of the packages: a tar archive in the tools
//! folder, named by the exact package files, reused while those are the same. The recipe's
//! files and commands are applied to an unpacked copy of it, in the work folder.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, Mode, OFlags, ResolveFlags, openat2};

use crate::BuildError;
use crate::apt::{Apt, Deb, Used};
use crate::cage::Cage;
use crate::kernel::KernelTree;
use crate::recipe::{DebianPlan, FileContent, FileEntry};
use crate::tree::{remove_unused, touch};
use crate::workshop::{Outcome, Workshop, make_dir};

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

/// Files that installing leaves behind and that differ from time to time.
const LEFTOVERS: [&str; 9] = [
    "var/cache/ldconfig/aux-cache",
    "var/cache/debconf/config.dat-old",
    "var/cache/debconf/templates.dat-old",
    "var/lib/dpkg/status-old",
    "var/lib/dpkg/available-old",
    "var/lib/systemd/random-seed",
    "var/lib/urandom/random-seed",
    "var/lib/dbus/machine-id",
    "root/.bash_history",
];

/// What a system is made from, besides its plan.
pub(crate) struct Sources<'a> {
    pub apt: &'a Apt,
    /// Where modules come from; a recipe that wants them always has a kernel package.
    pub kernel: Option<&'a KernelTree>,
    pub recipe_dir: &'a Path,
    pub origin: &'a str,
}

/// Makes the system and gives the folder that holds it.
pub(crate) fn make(
    shop: &mut Workshop,
    plan: &DebianPlan,
    sources: &Sources,
    used: &mut Used,
) -> Result<PathBuf, BuildError> {
    let (recipe_dir, origin) = (sources.recipe_dir, sources.origin);
    let base = base(shop, plan, sources.apt)?;
    let root = shop.temp.join("debian");
    make_dir(&root)?;
    let mut unpack = shop.command("tar");
    unpack.args(["--extract", "--numeric-owner", "--same-owner", "--preserve-permissions"]);
    unpack.args(["--xattrs", "--xattrs-include=*", "--file"]).arg(&base);
    unpack.arg("--directory").arg(&root);
    shop.run("unpacking the base system", &mut unpack)?;
    let status = root.join("var/lib/dpkg/status");
    used.add_installed(&fs::read_to_string(&status).map_err(BuildError::io("reading", status))?);
    // mmdebstrap leaves the building machine's here.
    let _ = fs::remove_file(root.join("etc/resolv.conf"));
    let hostname = root.join("etc/hostname");
    let _ = fs::remove_file(&hostname);
    fs::write(&hostname, "localhost\n").map_err(BuildError::io("writing", hostname))?;
    if let (true, Some(kernel)) = (plan.kernel_modules, sources.kernel) {
        kernel.install_modules(shop, &root)?;
    }
    if !plan.files.is_empty() {
        shop.step("files of the recipe", Outcome::Begun);
        for entry in &plan.files {
            put_file(&root, entry, recipe_dir, origin)?;
        }
        shop.step("files of the recipe", Outcome::Done);
    }
    for command in &plan.commands {
        let first_line = command.value.trim().lines().next().unwrap_or_default();
        let what = format!("command {first_line}");
        shop.step(&*what, Outcome::Begun);
        let mut shell = Cage::new(&root).command(shop, "/bin/sh");
        shell.args(["-e", "-c", &command.value]);
        shop.run(&what, &mut shell).map_err(|error| match error {
            BuildError::Failed { status, detail, .. } => {
                let message = format!("the command failed ({status}): {detail}");
                let hint = "commands run as root, without network, in the built system";
                command.error(origin, message, hint).into()
            }
            other => other,
        })?;
        shop.step(what, Outcome::Done);
    }
    tidy(&root)?;
    Ok(root)
}

/// The archive of the base system, from the cache or from mmdebstrap.
fn base(shop: &mut Workshop, plan: &DebianPlan, apt: &Apt) -> Result<PathBuf, BuildError> {
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
    // mmdebstrap gets the package files and lists that were resolved, and fetches nothing.
    let files = shop.temp.join("debs");
    make_dir(&files)?;
    for deb in &debs {
        let (from, to) = (apt.path(deb), files.join(&deb.file));
        fs::hard_link(&from, &to)
            .or_else(|_| fs::copy(&from, &to).map(|_| ()))
            .map_err(BuildError::io("copying", from))?;
    }
    let growing = bases.join("growing.tar");
    let mut command = shop.command("mmdebstrap");
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
    command.arg(format!("--setup-hook=sync-in {} /var/lib/apt/lists/", apt.lists().display()));
    command.arg("--setup-hook=mkdir -p \"$1\"/var/cache/apt/archives");
    command.arg(format!("--setup-hook=sync-in {} /var/cache/apt/archives/", files.display()));
    command.arg(&plan.suite).arg(&growing).arg(apt.sources_list());
    shop.run("mmdebstrap", &mut command)?;
    fs::remove_dir_all(&files).map_err(BuildError::io("removing", files))?;
    fs::rename(&growing, &archive).map_err(BuildError::io("keeping", growing))?;
    shop.step(what, Outcome::Done);
    Ok(archive)
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

/// Puts a file into the system. Links on the way are followed as the guest would follow them:
/// the kernel resolves them below `root`, never in the host's file system.
fn put_file(
    root: &Path,
    entry: &FileEntry,
    recipe_dir: &Path,
    origin: &str,
) -> Result<(), BuildError> {
    let path = entry.path.relative();
    let failed =
        |errno: rustix::io::Errno| BuildError::io("writing", root.join(path))(errno.into());
    let folder_flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let root_fd =
        openat2(CWD, root, folder_flags, Mode::empty(), ResolveFlags::empty()).map_err(failed)?;
    let (parents, name) = path.rsplit_once('/').unwrap_or(("", path));
    let mut folder = rustix::io::fcntl_dupfd_cloexec(&root_fd, 0).map_err(failed)?;
    let mut so_far = String::new();
    for part in parents.split('/').filter(|part| !part.is_empty()) {
        so_far = format!("{so_far}/{part}");
        let open =
            || openat2(&root_fd, &*so_far, folder_flags, Mode::empty(), ResolveFlags::IN_ROOT);
        folder = match open() {
            Ok(found) => found,
            Err(rustix::io::Errno::NOENT) => {
                rustix::fs::mkdirat(&folder, part, Mode::from(0o755)).map_err(failed)?;
                open().map_err(failed)?
            }
            Err(errno) => return Err(failed(errno)),
        };
    }
    // What is there is replaced, also when it is a link: the recipe means this path.
    match rustix::fs::unlinkat(&folder, name, rustix::fs::AtFlags::empty()) {
        Ok(()) | Err(rustix::io::Errno::NOENT) => {}
        Err(errno) => return Err(failed(errno)),
    }
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    let fd =
        openat2(&folder, name, flags, Mode::from(0o600), ResolveFlags::BENEATH).map_err(failed)?;
    let mut file = File::from(fd);
    let io = |doing| BuildError::io(doing, root.join(path));
    let default_mode = match &entry.content {
        FileContent::Text(text) => {
            file.write_all(text.as_bytes()).map_err(io("writing"))?;
            0o644
        }
        FileContent::From(from) => {
            let source = from.open(origin, recipe_dir)?;
            let meta = source.metadata().map_err(io("reading"))?;
            std::io::copy(&mut source.take(meta.len()), &mut file).map_err(io("writing"))?;
            if meta.permissions().mode() & 0o100 != 0 { 0o755 } else { 0o644 }
        }
    };
    let mode = fs::Permissions::from_mode(entry.mode.unwrap_or(default_mode));
    file.set_permissions(mode).map_err(io("writing"))
}

/// Removes what would differ between two builds, and what belongs to one machine only.
fn tidy(root: &Path) -> Result<(), BuildError> {
    for name in LEFTOVERS {
        let path = root.join(name);
        match fs::remove_file(&path) {
            Ok(()) => {}
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) if error.kind() == std::io::ErrorKind::NotADirectory => {}
            Err(error) => return Err(BuildError::io("removing", path)(error)),
        }
    }
    for folder in ["var/log", "var/cache/apt", "tmp", "run", "dev"] {
        empty(&root.join(folder))?;
    }
    // Present and empty: the first start of each instance makes its own.
    let machine_id = root.join("etc/machine-id");
    fs::write(&machine_id, "").map_err(BuildError::io("writing", machine_id))
}

/// Removes the files below a folder, and keeps the folders, which services expect.
fn empty(folder: &Path) -> Result<(), BuildError> {
    let Ok(meta) = fs::symlink_metadata(folder) else { return Ok(()) };
    if !meta.is_dir() {
        return Ok(());
    }
    for entry in fs::read_dir(folder).map_err(BuildError::io("reading", folder))? {
        let path = entry.map_err(BuildError::io("reading", folder))?.path();
        let kind = fs::symlink_metadata(&path).map_err(BuildError::io("reading", &path))?;
        if kind.is_dir() {
            empty(&path)?;
        } else {
            fs::remove_file(&path).map_err(BuildError::io("removing", path))?;
        }
    }
    Ok(())
}
