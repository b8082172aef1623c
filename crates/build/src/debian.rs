//! A Debian system made from packages, files and commands.
//!
//! Two stages. The *base* is what mmdebstrap makes of the packages: a tar archive in the tools
//! folder, named by the exact package files, reused while those are the same. The recipe's
//! files and commands are applied to an unpacked copy of it, in the work folder.

mod base;
mod host_keys;
mod put;
mod tidy;

use std::fs;
use std::path::{Path, PathBuf};

use crate::BuildError;
use crate::apt::{Apt, Used};
use crate::cage::Cage;
use crate::kernel::KernelTree;
use crate::recipe::DebianPlan;
use crate::workshop::{Outcome, Workshop, make_dir};

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
    let base = base::archive(shop, plan, sources.apt)?;
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
            put::file(&root, entry, recipe_dir, origin)?;
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
    host_keys::renew(shop, &root, &plan.files)?;
    tidy::tidy(&root)?;
    Ok(root)
}
