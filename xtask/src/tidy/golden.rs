//! Golden files: bytes that some version wrote, and that every later one reads.
//!
//! A golden file is any file below a folder called `golden`. The lock names each with its BLAKE3,
//! so that a format cannot change without a new version, a new file and a new line.

use std::collections::BTreeMap;

use super::Finding;
use super::tree::Tree;

/// The lock: lines of `<BLAKE3, hex>  <path>`, sorted by path.
pub const LOCK: &str = "docs/format/golden.lock";

pub fn locked(tree: &Tree) -> Vec<Finding> {
    let present = present(tree);
    let locked = match read_lock(tree) {
        Ok(locked) => locked,
        Err(finding) => return vec![finding],
    };
    let mut findings = Vec::new();
    for (path, hash) in &locked {
        match present.get(path) {
            None => findings.push(Finding::at(
                *path,
                "a locked golden file is gone: old bytes must stay readable, put it back",
            )),
            Some(found) if found != hash => findings.push(Finding::at(
                *path,
                "a locked golden file changed: restore it, give the format a new version and add \
                 a new golden file beside it",
            )),
            Some(_) => {}
        }
    }
    for path in present.keys().filter(|path| !locked.contains_key(*path)) {
        findings.push(Finding::at(
            *path,
            "a golden file that is not locked: `cargo xtask tidy --bless-new` adds it",
        ));
    }
    findings
}

/// The lock with a line for each golden file that it lacks; the lines it has are kept as they are.
pub fn with_new(tree: &Tree) -> String {
    let present = present(tree);
    let mut lines: BTreeMap<&str, String> =
        present.iter().map(|(path, hash)| (*path, hash.clone())).collect();
    lines.extend(read_lock(tree).unwrap_or_default().into_iter().map(|(p, h)| (p, h.to_owned())));
    lines.iter().map(|(path, hash)| format!("{hash}  {path}\n")).collect()
}

fn present(tree: &Tree) -> BTreeMap<&str, String> {
    tree.files
        .iter()
        .filter(|(path, _)| {
            let mut parts = path.split('/');
            let file = parts.next_back().unwrap_or_default();
            parts.any(|part| part == "golden") && !file.ends_with(".rs") && !file.ends_with(".md")
        })
        .map(|(path, bytes)| (path.as_str(), blake3::hash(bytes).to_hex().to_string()))
        .collect()
}

fn read_lock(tree: &Tree) -> Result<BTreeMap<&str, &str>, Finding> {
    let mut locked = BTreeMap::new();
    for (number, line) in tree.text(LOCK).unwrap_or_default().lines().enumerate() {
        let Some((hash, path)) = line.split_once("  ").filter(|(hash, _)| hash.len() == 64) else {
            let place = format!("{LOCK}:{}", number + 1);
            return Err(Finding::at(place, "not a line of `<BLAKE3>  <path>`"));
        };
        locked.insert(path, hash);
    }
    Ok(locked)
}

#[cfg(test)]
mod tests {
    use super::super::places;
    use super::*;

    const FILE: &str = "crates/volume/tests/golden/journal-v1.bin";

    fn tree(content: Option<&str>, lock: &str) -> Tree {
        let mut files = vec![(LOCK, lock), ("crates/volume/tests/golden.rs", "")];
        files.extend(content.map(|c| (FILE, c)));
        Tree::of(&files)
    }

    #[test]
    fn a_golden_file_that_is_new_changed_or_gone_is_found() {
        let lock = with_new(&tree(Some("bytes"), ""));
        assert_eq!(lock, format!("{}  {FILE}\n", blake3::hash(b"bytes").to_hex()));
        assert_eq!(locked(&tree(Some("bytes"), &lock)), []);
        assert_eq!(places(&locked(&tree(Some("bytes"), ""))), [FILE]);
        assert_eq!(places(&locked(&tree(Some("other"), &lock))), [FILE]);
        assert_eq!(places(&locked(&tree(None, &lock))), [FILE]);
        assert_eq!(places(&locked(&tree(None, "junk"))), [format!("{LOCK}:1")]);
    }

    #[test]
    fn blessing_never_changes_a_line() {
        let lock = with_new(&tree(Some("bytes"), ""));
        assert_eq!(with_new(&tree(Some("other"), &lock)), lock);
    }
}
