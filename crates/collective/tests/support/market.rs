//! A maker and its users, with a web server between them.
#![allow(dead_code, reason = "each test binary uses a part of it")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use s3_server::WebServer;
use serde_json::Value;

use crate::support::{self, World, appliance, copy_tree};

/// A maker called `acme`, the web server that shows what it publishes, and users.
pub struct Market {
    pub world: World,
    pub server: WebServer,
}

impl Market {
    pub fn new(name: &str) -> Self {
        let world = World::empty(name);
        world.run("A", &["repo", "init", &world.repository()]).ok();
        let market = Self { server: serve(&world.root().join("www")), world };
        market.make(&["repo", "init", &market.path("own")]).ok();
        market.make(&["key", "new", &market.path("acme.key"), "--plain"]).ok();
        market
    }

    pub fn path(&self, name: &str) -> String {
        self.world.root().join(name).to_string_lossy().into_owned()
    }

    /// The maker does something on its own host, in its own repository.
    pub fn make(&self, arguments: &[&str]) -> support::Said {
        let mut command = self.world.program("maker");
        command.env("COLLECTIVE_REPO", self.path("own")).arg("--json").args(arguments);
        support::said(command.output().unwrap())
    }

    /// Builds `nano` with its recipe changed, and publishes it.
    pub fn publish(&self, number: &str, change: impl Fn(String) -> String, more: &[&str]) -> Value {
        self.build(number, change);
        let (to, key) = (self.path("www"), self.path("acme.key"));
        let words = ["publish", "nano", "--version", number, "--to", &to, "--key", &key];
        self.make(&[&words[..], &["--maker", "acme"], more].concat()).ok()
    }

    /// Publishes the `tiny` that was built last.
    pub fn publish_tiny(&self, version: &str, more: &[&str]) {
        let (to, key) = (self.path("www"), self.path("acme.key"));
        let words = ["publish", "tiny", "--version", version, "--to", &to, "--key", &key];
        self.make(&[&words[..], &["--maker", "acme"], more].concat()).ok();
    }

    /// Imports an ext4 disk of 24 MiB with these files as `work`, the disk being its maker's, and publishes it.
    pub fn publish_disk(&self, version: &str, files: &Path, more: &[&str]) -> Value {
        let image = disk(files, &self.world.root().join(format!("{version}.img")));
        let words = ["import", &image, "--name", "work", "--format", "raw", "--system", "disk1"];
        self.make(&words).ok();
        let (to, key) = (self.path("www"), self.path("acme.key"));
        let words = ["publish", "work", "--version", version, "--to", &to, "--key", &key];
        self.make(&[&words[..], &["--maker", "acme"], more].concat()).ok()
    }

    pub fn build(&self, number: &str, change: impl Fn(String) -> String) {
        let folder = self.recipe(number, change);
        self.make(&["build", folder.to_str().unwrap()]).ok();
    }

    fn recipe(&self, number: &str, change: impl Fn(String) -> String) -> PathBuf {
        let folder = self.world.root().join(format!("recipe-{number}"));
        copy_tree(Path::new(&appliance("nano")), &folder);
        let file = folder.join("appliance.yaml");
        let text = fs::read_to_string(&file).unwrap();
        // Another version is another record, whatever else it is.
        fs::write(&file, change(text) + "\n").unwrap();
        folder
    }

    pub fn trusts(&self, host: &str) {
        let print = self.make(&["trust", "add", &self.path("www"), "--yes"]).ok();
        let print = print["root_fingerprint"].as_str().unwrap().to_owned();
        let url = self.server.url();
        self.world.run(host, &["trust", "add", &url, "--root-fingerprint", &print]).ok();
        self.make(&["trust", "remove", "acme"]).ok();
    }

    pub fn version(&self, host: &str, name: &str) -> String {
        self.world.row(host, name)["version"].as_str().unwrap().to_owned()
    }

    /// The manifest of a volume at rest.
    pub fn manifest(&self, name: &str, volume: &str) -> String {
        let seen = self.world.run("A", &["inspect", name]).ok();
        let volumes = seen["volumes"].as_array().unwrap().clone();
        let found = volumes.iter().find(|v| v["name"] == volume).unwrap();
        found["manifest"].as_str().unwrap().to_owned()
    }
}

fn serve(folder: &Path) -> WebServer {
    fs::create_dir_all(folder).unwrap();
    WebServer::start(folder).unwrap()
}

/// Makes an ext4 disk of 24 MiB with these files; gives its path.
pub fn disk(files: &Path, image: &Path) -> String {
    let options = ["-q", "-t", "ext4", "-b", "4096", "-d"];
    let made = Command::new("mke2fs").args(options).args([files, image]).arg("24M").output();
    let made = made.unwrap();
    assert!(made.status.success(), "{made:?}");
    image.to_string_lossy().into_owned()
}

/// Bytes that nobody can compress, the same for the same seed.
pub fn noise(bytes: usize, seed: u64) -> Vec<u8> {
    let mut state = 88_172_645_463_325_252_u64 ^ seed;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 32) as u8
    };
    (0..bytes).map(|_| next()).collect()
}

/// As it is.
pub fn same(text: String) -> String {
    text
}

/// With more memory: it boots, and counts that on its data disk.
pub fn larger(text: String) -> String {
    text.replace("memory: 16MiB", "memory: 24MiB")
}

/// It never says what its maker waits for.
pub fn broken(text: String) -> String {
    text.replace("nano: boots=", "nano: never")
}

/// All files below a folder.
pub fn files_below(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).unwrap().flatten() {
        let path = entry.path();
        if path.is_dir() { files.extend(files_below(&path)) } else { files.push(path) }
    }
    files
}
