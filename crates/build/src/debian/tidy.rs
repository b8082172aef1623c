//! What installing leaves behind: removed, or put into one order.

use std::fs;
use std::path::Path;

use crate::BuildError;

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

/// Removes what would differ between two builds, and what belongs to one machine only.
pub(super) fn tidy(root: &Path) -> Result<(), BuildError> {
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
    for name in ["boot", "start", "stop"] {
        settle(&root.join("etc/init.d").join(format!(".depend.{name}")))?;
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

/// Sorts one of insserv's dependency files, which follow the order in which the building
/// machine's file system lists a folder. Their order means nothing: the dependencies do.
fn settle(path: &Path) -> Result<(), BuildError> {
    match fs::read_to_string(path) {
        Ok(text) => fs::write(path, settled(&text)).map_err(BuildError::io("writing", path)),
        Err(_) => Ok(()),
    }
}

fn settled(text: &str) -> String {
    let mut variables = Vec::new();
    let mut rules = Vec::new();
    for line in text.lines() {
        let sorted = |separator: &str| {
            let (name, words) = line.split_once(separator)?;
            let mut words: Vec<&str> = words.split_whitespace().collect();
            words.sort_unstable();
            Some(format!("{name}{separator} {}", words.join(" ")))
        };
        match sorted("=") {
            Some(variable) => variables.push(variable),
            None => rules.push(sorted(":").unwrap_or_else(|| line.to_owned())),
        }
    }
    rules.sort_unstable();
    variables.extend(rules);
    variables.join("\n") + "\n"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn boot_order_files_are_sorted() {
        let one = "TARGETS = b a c\nINTERACTIVE = a\nb: c a\na: c\n";
        let two = "TARGETS = c a b\nINTERACTIVE = a\na: c\nb: a c\n";
        assert_eq!(settled(one), settled(two));
        assert_eq!(settled(one), "TARGETS = a b c\nINTERACTIVE = a\na: c\nb: a c\n");
    }
}
