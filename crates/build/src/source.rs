//! Where packages come from: the system's own apt configuration, never a host of ours.
//!
//! A recipe may ask for another suite than the system's, so the sources are taken apart into the
//! Debian archive and its security archive, and put together again for the suite. apt itself
//! reads its configuration (`apt-get indextargets`), in whichever of its formats it is written.

use crate::BuildError;
use crate::workshop::Workshop;

/// Suites that exist on every Debian archive, to tell a Debian source from another vendor's.
const KNOWN_SUITES: [&str; 12] = [
    "bullseye",
    "bookworm",
    "trixie",
    "forky",
    "sid",
    "oldoldstable",
    "oldstable",
    "stable",
    "testing",
    "unstable",
    "experimental",
    "duke",
];

/// The archives that the system is configured with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Archives {
    main: String,
    security: Option<String>,
}

impl Archives {
    /// Asks apt.
    pub fn configured(shop: &Workshop, suite: &str) -> Result<Self, BuildError> {
        let mut command = shop.command("apt-get");
        command.args(["indextargets", "--format", "$(REPO_URI) $(RELEASE) $(COMPONENT)"]);
        command.arg("Created-By: Packages");
        let listing = shop.capture("reading apt's sources", &mut command)?;
        Self::from_listing(&listing, suite)
            .ok_or_else(|| BuildError::NoSource { suite: suite.to_owned() })
    }

    /// Reads lines of `URI release component`.
    fn from_listing(listing: &str, suite: &str) -> Option<Self> {
        let sources: Vec<(&str, &str)> = listing
            .lines()
            .filter_map(|line| {
                let mut words = line.split_whitespace();
                let (uri, release, component) = (words.next()?, words.next()?, words.next()?);
                (component == "main").then_some((uri, release))
            })
            .collect();
        let find = |wanted: &dyn Fn(&str) -> bool| {
            sources.iter().find(|(_, release)| wanted(release)).map(|(uri, _)| (*uri).to_owned())
        };
        let main =
            find(&|release| release == suite).or_else(|| find(&|r| KNOWN_SUITES.contains(&r)))?;
        // Older releases call it bullseye/updates; nothing that old is supported.
        let security = find(&|release| {
            release.strip_suffix("-security").is_some_and(|r| KNOWN_SUITES.contains(&r))
        });
        Some(Self { main, security })
    }

    /// The text of a sources.list for a suite with its updates and security updates.
    pub fn sources_list(&self, suite: &str) -> String {
        let main = &self.main;
        let mut list = format!("deb {main} {suite} main\n");
        if !matches!(suite, "sid" | "unstable" | "experimental") {
            list += &format!("deb {main} {suite}-updates main\n");
            if let Some(security) = &self.security {
                list += &format!("deb {security} {suite}-security main\n");
            }
        }
        list
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LISTING: &str = "\
http://mirror.test/other/ nodistro main
http://mirror.test/debian/ bookworm-backports main
http://mirror.test/debian/ bookworm main
http://mirror.test/debian/ bookworm non-free
http://mirror.test/debian-security/ bookworm-security main
";

    #[test]
    fn another_suite_comes_from_the_same_archives() {
        let archives = Archives::from_listing(LISTING, "trixie").expect("there is a source");
        assert_eq!(
            archives.sources_list("trixie"),
            "deb http://mirror.test/debian/ trixie main\n\
             deb http://mirror.test/debian/ trixie-updates main\n\
             deb http://mirror.test/debian-security/ trixie-security main\n"
        );
        assert_eq!(archives.sources_list("sid"), "deb http://mirror.test/debian/ sid main\n");
    }

    #[test]
    fn without_a_debian_source_there_is_none() {
        assert_eq!(Archives::from_listing("http://mirror.test/x/ noble main\n", "bookworm"), None);
        assert_eq!(Archives::from_listing("", "bookworm"), None);
    }
}
