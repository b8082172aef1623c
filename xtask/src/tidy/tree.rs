//! The checkout as a value, so that every rule is a pure function of it and can be shown to fail.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};

/// What git tracks or would track, with the workspace's crates.
#[derive(Default)]
pub struct Tree {
    /// Where it lies on this machine: no tracked file may name it.
    pub root: String,
    /// Path relative to the root -> bytes.
    pub files: BTreeMap<String, Vec<u8>>,
    pub crates: Vec<Crate>,
}

pub struct Crate {
    pub name: String,
    /// `crates/NAME`, or `xtask`.
    pub dir: String,
    pub dependencies: Vec<Dependency>,
}

pub struct Dependency {
    pub name: String,
    /// Used by tests only.
    pub dev: bool,
}

impl Tree {
    /// Reads the checkout at `root`.
    pub fn load(root: &Path) -> Result<Self> {
        let listed =
            run(root, "git", &["ls-files", "-z", "--cached", "--others", "--exclude-standard"])?;
        let mut files = BTreeMap::new();
        for path in String::from_utf8(listed)?.split_terminator('\0') {
            let full = root.join(path);
            // A file that is deleted but not yet staged is still listed; a link is not followed.
            if full.symlink_metadata().is_ok_and(|m| m.is_file()) {
                files.insert(path.to_owned(), std::fs::read(full).context(path.to_owned())?);
            }
        }
        let metadata = run(
            root,
            "cargo",
            &["metadata", "--quiet", "--no-deps", "--format-version", "1", "--offline"],
        )?;
        let root = root.to_string_lossy().into_owned();
        let crates = crates(&root, &metadata)?;
        Ok(Self { root, files, crates })
    }

    pub fn text(&self, path: &str) -> Option<&str> {
        self.files.get(path).and_then(|bytes| std::str::from_utf8(bytes).ok())
    }

    /// Every text file, in order of its path.
    pub fn texts(&self) -> impl Iterator<Item = (&str, &str)> {
        self.files
            .iter()
            .filter_map(|(path, bytes)| Some((path.as_str(), std::str::from_utf8(bytes).ok()?)))
    }

    pub fn with_extension<'a>(&'a self, dot: &'a str) -> impl Iterator<Item = (&'a str, &'a str)> {
        self.texts().filter(move |(path, _)| path.ends_with(dot))
    }

    /// The crate that a path belongs to.
    pub fn crate_of(&self, path: &str) -> Option<&Crate> {
        self.crates
            .iter()
            .find(|c| path.strip_prefix(c.dir.as_str()).is_some_and(|rest| rest.starts_with('/')))
    }

    /// The file that opens a crate, with its text.
    pub fn crate_root(&self, member: &Crate) -> Option<(String, &str)> {
        ["lib.rs", "main.rs"].iter().find_map(|file| {
            let path = format!("{}/src/{file}", member.dir);
            self.text(&path).map(|text| (path.clone(), text))
        })
    }

    /// A crate of which nothing but the name exists yet: rules about its inside wait.
    pub fn is_stub(&self, member: &Crate) -> bool {
        self.crate_root(member).is_some_and(|(_, text)| text.contains("(being written)"))
    }
}

fn run(root: &Path, program: &str, args: &[&str]) -> Result<Vec<u8>> {
    let output = Command::new(program)
        .args(args)
        .current_dir(root)
        .output()
        .with_context(|| format!("cannot run {program}"))?;
    ensure!(
        output.status.success(),
        "{program} {} failed: {}",
        args[0],
        String::from_utf8_lossy(&output.stderr).trim()
    );
    Ok(output.stdout)
}

fn crates(root: &str, metadata: &[u8]) -> Result<Vec<Crate>> {
    let metadata: serde_json::Value = serde_json::from_slice(metadata)?;
    let packages = metadata["packages"].as_array().context("cargo metadata names no packages")?;
    packages
        .iter()
        .map(|package| {
            let name = package["name"].as_str().context("a package without a name")?.to_owned();
            let manifest = package["manifest_path"].as_str().context("a package without a path")?;
            let dir = manifest
                .strip_prefix(root)
                .and_then(|rest| rest.strip_prefix('/'))
                .and_then(|rest| rest.strip_suffix("/Cargo.toml"))
                .with_context(|| format!("{name} lies outside the workspace"))?
                .to_owned();
            let dependencies = package["dependencies"]
                .as_array()
                .context("a package without dependencies")?
                .iter()
                .filter_map(|d| {
                    Some(Dependency {
                        name: d["name"].as_str()?.to_owned(),
                        dev: d["kind"].as_str() == Some("dev"),
                    })
                })
                .collect();
            Ok(Crate { name, dir, dependencies })
        })
        .collect()
}

#[cfg(test)]
impl Tree {
    /// A made-up checkout.
    pub fn of(files: &[(&str, &str)]) -> Self {
        let files = files.iter().map(|(p, t)| ((*p).to_owned(), t.as_bytes().to_vec())).collect();
        Self { root: "/a/checkout".to_owned(), files, crates: Vec::new() }
    }

    /// Adds a crate; a dependency that starts with `dev:` is one of its tests.
    pub fn with_crate(mut self, name: &str, dependencies: &[&str]) -> Self {
        let dependencies = dependencies
            .iter()
            .map(|d| match d.strip_prefix("dev:") {
                Some(name) => Dependency { name: name.to_owned(), dev: true },
                None => Dependency { name: (*d).to_owned(), dev: false },
            })
            .collect();
        let dir = if name == "xtask" { name.to_owned() } else { format!("crates/{name}") };
        self.crates.push(Crate { name: name.to_owned(), dir, dependencies });
        self
    }
}
