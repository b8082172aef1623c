//! Words that must not be in the repository: they would tie it to one machine or one mirror.
//!
//! Package clients know their registries by configuration; a script that named one would stop
//! working behind a mirror. The list is spelt in pieces, so that this file passes its own rule.

use super::Finding;
use super::tree::Tree;

const HOSTS: &[&str] = &[
    concat!("deb.", "debian."),
    concat!("security.", "debian."),
    concat!("snapshot.", "debian."),
    concat!("ftp.", "debian."),
    concat!("static.", "crates."),
    concat!("index.", "crates."),
    concat!("pypi.", "org"),
    concat!("python", "hosted"),
    concat!("registry.", "npmjs"),
    concat!("proxy.", "golang"),
];

/// Paths that exist on somebody's machine only, where one begins.
const PLACES: &[&str] = &[concat!("/wo", "rk/"), concat!("/ho", "me/"), concat!("/Us", "ers/")];

/// Written by cargo.
const GENERATED: &[&str] = &["Cargo.lock"];

pub fn forbidden(tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (path, text) in tree.texts().filter(|(path, _)| !GENERATED.contains(path)) {
        for (number, line) in text.lines().enumerate() {
            let lower = line.to_ascii_lowercase();
            let place = || format!("{path}:{}", number + 1);
            for host in HOSTS.iter().filter(|host| lower.contains(*host)) {
                findings.push(Finding::at(
                    place(),
                    format!("names the registry `{host}..`: use what the system has configured"),
                ));
            }
            if PLACES.iter().any(|start| begins_path(line, start))
                || (tree.root.len() > 4 && line.contains(&tree.root))
            {
                findings.push(Finding::at(
                    place(),
                    "names a path of one machine: make it relative, or take it from a variable",
                ));
            }
        }
    }
    findings
}

/// Whether `start` stands in `line` where a path begins, and is not the middle of one.
fn begins_path(line: &str, start: &str) -> bool {
    line.match_indices(start).any(|(at, _)| {
        let before = line[..at].chars().next_back();
        !before.is_some_and(|c| c.is_alphanumeric() || "_-./}$)*~>".contains(c))
    })
}

#[cfg(test)]
mod tests {
    use super::super::places;
    use super::*;

    #[track_caller]
    fn check(line: &str, found: bool) {
        let findings = forbidden(&Tree::of(&[("a.sh", line)]));
        assert_eq!(places(&findings).len(), usize::from(found), "{line}");
    }

    #[test]
    fn registries_are_found() {
        check(concat!("URIs: http://DEB.", "debian.org/debian"), true);
        check("URIs: $uri", false);
    }

    #[test]
    fn places_on_one_machine_are_found() {
        check(concat!("cd /wo", "rk/main"), true);
        check(concat!("path=\"/ho", "me/somebody\""), true);
        check("cd /a/checkout/crates", true);
        check(concat!("\"$dir/wo", "rk/disk\""), false);
        check("cd /var/lib/collective", false);
    }
}
