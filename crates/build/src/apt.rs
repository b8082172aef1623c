//! Packages: which ones a list of names means, and their .deb files.
//!
//! A private apt (its own state, cache and sources, the system's proxies and keys) works in the
//! tools folder, one for each suite. What a list of names resolves to is decided by the package
//! lists that were fetched last, and they are fetched again only when they are older than a day:
//! two builds on one day see the same packages, and the second one needs no network.
//!
//! Layout of the tools folder: `apt/<suite>/` (state, and `resolved/` answers), `debs/` (package
//! files under apt's names, each fetched once and checked by apt against the signed lists).

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::rc::Rc;

use crate::BuildError;
use crate::source::Archives;
use crate::tree::{remove_unused, touch};
use crate::workshop::{Outcome, Workshop, make_dir};

/// Package lists older than this are fetched again.
const LISTS_AGE_MS_MAX: u64 = 24 * 3600 * 1000;
/// One package file.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Deb {
    /// The package's name.
    pub name: String,
    /// Its version.
    pub version: String,
    /// The file's name in `debs/`, as apt calls it.
    pub file: String,
}

impl Deb {
    /// Reads apt's file name: `name_version_arch.deb`, with `%3a` for the version's colon.
    fn from_file(file: &str) -> Option<Self> {
        let mut parts = file.strip_suffix(".deb")?.split('_');
        let (name, version, _) = (parts.next()?, parts.next()?, parts.next()?);
        let plain = !name.is_empty() && !name.starts_with(['.', '-']) && !file.contains('/');
        plain.then(|| Self {
            name: name.to_owned(),
            version: version.replace("%3a", ":"),
            file: file.to_owned(),
        })
    }
}

/// The private apts of one build: each suite's is opened once.
#[derive(Default)]
pub(crate) struct Apts(BTreeMap<String, Rc<Apt>>);

impl Apts {
    pub fn of(&mut self, shop: &mut Workshop, suite: &str) -> Result<Rc<Apt>, BuildError> {
        if let Some(apt) = self.0.get(suite) {
            return Ok(Rc::clone(apt));
        }
        let apt = Rc::new(Apt::open(shop, suite)?);
        self.0.insert(suite.to_owned(), Rc::clone(&apt));
        Ok(apt)
    }
}

/// A private apt for one suite.
pub(crate) struct Apt {
    suite: String,
    dir: PathBuf,
    debs: PathBuf,
    /// Names this state of the package lists.
    stamp: String,
}

impl Apt {
    /// Opens a suite's apt, and fetches its package lists if there are none or old ones.
    fn open(shop: &mut Workshop, suite: &str) -> Result<Self, BuildError> {
        let dir = shop.tools.join("apt").join(suite);
        let debs = shop.tools.join("debs");
        for folder in ["state/lists/partial", "cache", "archives/partial"] {
            make_dir(&dir.join(folder))?;
        }
        make_dir(&debs)?;
        let write = |name: &str, text: &str| {
            let path = dir.join(name);
            fs::write(&path, text).map_err(BuildError::io("writing", path))
        };
        let sources = Archives::configured(shop, suite)?.sources_list(suite);
        let stamp_path = dir.join("updated");
        let what = format!("package lists of {suite}");
        let stamp = fs::read_to_string(&stamp_path).unwrap_or_default();
        let same = fs::read_to_string(dir.join("sources.list")).is_ok_and(|old| old == sources);
        let now = ambient::unix_ms();
        let young = stamp.parse().is_ok_and(|at: u64| now.saturating_sub(at) < LISTS_AGE_MS_MAX);
        let mut apt = Self { suite: suite.to_owned(), dir: dir.clone(), debs, stamp };
        if same && young {
            shop.step(what, Outcome::Reused);
            return Ok(apt);
        }
        shop.step(&*what, Outcome::Begun);
        // Until the update is complete there is no stamp.
        let _ = fs::remove_file(&stamp_path);
        let _ = fs::remove_dir_all(dir.join("resolved"));
        make_dir(&dir.join("resolved"))?;
        write("sources.list", &sources)?;
        write("status", "")?;
        let mut command = apt.command(shop);
        command.args(["-qq", "--error-on=any", "update"]);
        shop.run("apt-get update", &mut command).map_err(|e| apt.refusal(e))?;
        apt.stamp = now.to_string();
        write("updated", &apt.stamp)?;
        shop.step(what, Outcome::Done);
        Ok(apt)
    }

    /// The file with the sources, for the system that is built.
    pub fn sources_list(&self) -> PathBuf {
        self.dir.join("sources.list")
    }

    /// The folder with the package lists.
    pub fn lists(&self) -> PathBuf {
        self.dir.join("state/lists")
    }

    /// Where a package's file is once it is fetched.
    pub fn path(&self, deb: &Deb) -> PathBuf {
        self.debs.join(&deb.file)
    }

    fn command(&self, shop: &Workshop) -> Command {
        let mut command = shop.command("apt-get");
        let dir = self.dir.display();
        for option in [
            format!("Dir::State={dir}/state"),
            format!("Dir::State::status={dir}/status"),
            format!("Dir::Cache={dir}/cache"),
            "Dir::Cache::pkgcache=pkgcache.bin".into(),
            "Dir::Cache::srcpkgcache=srcpkgcache.bin".into(),
            // Always empty: apt does not name the files that are in its archives already.
            format!("Dir::Cache::archives={dir}/archives"),
            format!("Dir::Log={dir}/cache"),
            format!("Dir::Etc::sourcelist={dir}/sources.list"),
            "Dir::Etc::sourceparts=/dev/null".into(),
            "Dir::Etc::preferences=/dev/null".into(),
            "Dir::Etc::preferencesparts=/dev/null".into(),
            "APT::Architecture=amd64".into(),
            "APT::Architectures=amd64".into(),
            "APT::Sandbox::User=root".into(),
            "APT::Install-Recommends=false".into(),
            "APT::Install-Suggests=false".into(),
            "Acquire::Languages=none".into(),
            "Acquire::Retries=3".into(),
            "Acquire::http::Timeout=60".into(),
        ] {
            command.arg("-o").arg(option);
        }
        command
    }

    /// The packages that installing `names` into an empty system would install, sorted.
    pub fn resolve(&self, shop: &Workshop, names: &[&str]) -> Result<Vec<Deb>, BuildError> {
        let mut key = blake3::Hasher::new();
        key.update(self.stamp.as_bytes());
        for name in names {
            key.update(name.as_bytes()).update(b"\0");
        }
        let answer_path = self.dir.join("resolved").join(key.finalize().to_hex().as_str());
        let answer = match fs::read_to_string(&answer_path) {
            Ok(answer) => answer,
            Err(_) => {
                let mut command = self.command(shop);
                command.args(["-qq", "--print-uris", "install"]).args(names);
                let doing = format!("finding {}", names.join(" "));
                let printed = shop.capture(&doing, &mut command).map_err(|e| self.refusal(e))?;
                let files: Vec<&str> =
                    printed.lines().filter_map(|line| line.split_whitespace().nth(1)).collect();
                let answer = files.join("\n");
                fs::write(&answer_path, &answer).map_err(BuildError::io("writing", answer_path))?;
                answer
            }
        };
        let mut debs: Vec<Deb> = answer.lines().filter_map(Deb::from_file).collect();
        debs.sort();
        Ok(debs)
    }

    /// Fetches the files that are not there yet.
    pub fn fetch(&self, shop: &mut Workshop, debs: &[Deb]) -> Result<(), BuildError> {
        let missing: Vec<&Deb> = debs.iter().filter(|deb| !self.path(deb).exists()).collect();
        for deb in debs {
            touch(&self.path(deb));
        }
        if missing.is_empty() {
            return Ok(());
        }
        let what = format!("{} packages of {}", missing.len(), self.suite);
        shop.step(&*what, Outcome::Begun);
        remove_unused(&self.debs);
        let arrivals = self.debs.join("partial");
        make_dir(&arrivals)?;
        for chunk in missing.chunks(100) {
            let mut command = self.command(shop);
            command.current_dir(&arrivals).args(["-qq", "download"]);
            command.args(chunk.iter().map(|deb| format!("{}={}", deb.name, deb.version)));
            shop.run("fetching packages", &mut command).map_err(|e| self.refusal(e))?;
            for deb in chunk {
                let arrived = arrivals.join(&deb.file);
                fs::rename(&arrived, self.path(deb)).map_err(BuildError::io("keeping", arrived))?;
            }
        }
        shop.step(what, Outcome::Done);
        Ok(())
    }

    fn refusal(&self, error: BuildError) -> BuildError {
        match error {
            BuildError::Failed { detail, .. } => {
                let complaints: Vec<&str> = detail
                    .lines()
                    .filter_map(|line| line.strip_prefix("E: ").or(line.strip_prefix("Err:")))
                    .collect();
                let detail = if complaints.is_empty() { detail } else { complaints.join("; ") };
                BuildError::Packages { suite: self.suite.clone(), detail }
            }
            other => other,
        }
    }
}

/// Makes the next build look for newer packages at once, not when its lists are a day old.
pub fn forget_package_lists(tools_dir: &Path) -> Result<(), BuildError> {
    for suite in fs::read_dir(tools_dir.join("apt")).into_iter().flatten().flatten() {
        let stamp = suite.path().join("updated");
        if stamp.exists() {
            fs::remove_file(&stamp).map_err(BuildError::io("removing", stamp))?;
        }
    }
    Ok(())
}

/// Reads a package's file name for [`crate::fuzz`].
pub(crate) fn try_file_name(name: &str) {
    if let Some(deb) = Deb::from_file(name) {
        assert!(!deb.name.is_empty() && !deb.name.contains('/'));
    }
}

/// All packages of a build, each once.
#[derive(Debug, Default)]
pub(crate) struct Used(BTreeMap<String, String>);

impl Used {
    pub fn add(&mut self, debs: &[Deb]) {
        for deb in debs {
            self.0.insert(deb.name.clone(), deb.version.clone());
        }
    }

    /// Adds what a system's `/var/lib/dpkg/status` says is installed.
    pub fn add_installed(&mut self, status: &str) {
        for paragraph in status.split("\n\n") {
            let field = |name: &str| {
                paragraph.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
            };
            if let (Some(name), Some(version), Some("install ok installed")) =
                (field("Package"), field("Version"), field("Status"))
            {
                self.0.insert(name.to_owned(), version.to_owned());
            }
        }
    }

    pub fn into_list(self) -> Vec<(String, String)> {
        self.0.into_iter().collect()
    }
}

/// What a system's `/var/lib/dpkg/status` says is installed: names and versions, by name.
pub fn installed(status: &str) -> Vec<(String, String)> {
    let mut used = Used::default();
    used.add_installed(status);
    used.into_list()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn installed_packages_are_listed() {
        let status = "Package: b\nStatus: install ok installed\nVersion: 1:2\nDescription: x\n Version: 9\n\n\
             Package: a\nStatus: deinstall ok config-files\nVersion: 3\n";
        assert_eq!(installed(status), [("b".to_owned(), "1:2".to_owned())]);
    }

    #[test]
    fn apt_file_names_are_read() {
        let deb = Deb::from_file("zlib1g_1%3a1.2.13.dfsg-1_amd64.deb").expect("a package");
        assert_eq!((&*deb.name, &*deb.version), ("zlib1g", "1:1.2.13.dfsg-1"));
        for bad in ["", "x.deb", "a_1.deb", "../a_1_all.deb", "-o_1_all.deb", "_1_all.deb"] {
            assert_eq!(Deb::from_file(bad), None, "{bad}");
        }
    }
}
