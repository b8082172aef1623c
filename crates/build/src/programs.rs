//! The programs of the host that a build from packages runs. Everything else that it runs (busybox,
//! e2fsprogs, kmod) it fetches itself, so that the host's own does not change the bytes.

use std::path::Path;

use crate::BuildError;

/// Where they are looked for, whatever the user's own path: an ordinary user's has no `sbin`.
pub(crate) const FOLDERS: [&str; 4] = ["/usr/sbin", "/usr/bin", "/sbin", "/bin"];

/// A program and the package that has it.
type Program = (&'static str, &'static str);

/// What every build from packages needs.
pub(crate) const ANY: &[Program] = &[
    ("apt-get", "apt"),
    ("dpkg-deb", "dpkg"),
    ("tar", "tar"),
    ("unshare", "util-linux"),
    ("setpriv", "util-linux"),
    ("mount", "mount"),
    ("chroot", "coreutils"),
];

/// What disks with a Debian system need beyond.
pub(crate) const DEBIAN: &[Program] = &[("mmdebstrap", "mmdebstrap")];

/// Refuses to start without them.
pub(crate) fn require(programs: &[Program]) -> Result<(), BuildError> {
    match programs.iter().find(|program| !is_there(program)) {
        None => Ok(()),
        Some(&(tool, package)) => Err(BuildError::MissingTool { tool, package }),
    }
}

/// The programs that some recipes need and this host does not have.
pub fn missing_programs() -> Vec<&'static str> {
    let all = ANY.iter().chain(DEBIAN);
    all.filter(|program| !is_there(program)).map(|(tool, _)| *tool).collect()
}

fn is_there((tool, _): &Program) -> bool {
    FOLDERS.iter().any(|folder| Path::new(folder).join(tool).exists())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_that_is_not_there_is_named_with_its_package() {
        require(&[("sh", "dash")]).unwrap();
        let missing = require(&[("sh", "dash"), ("no-such-program", "a-package")]).unwrap_err();
        assert!(missing.to_string().contains("no-such-program"), "{missing}");
        assert!(missing.hint().contains("apt-get install a-package"), "{}", missing.hint());
    }
}
