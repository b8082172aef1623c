//! Where the planes of this host are: the one that it joined by, and those that one of them has named since. When
//! the one that is asked is away, the next is.
//!
//! `plane/planes.json` in the host's directory, so that an agent that begins when its plane is gone finds another;
//! lost, they are named again with the next beat.
//!
//! **Invariant:** whoever is at any of these is believed only by the certificate of the authority that this host has
//! joined: an address lets nobody in.

use host::{Failure, Host};
use serde::{Deserialize, Serialize};

const FILE: &str = "planes.json";
const FORMAT: u32 = 1;
/// Most planes that are kept, and most bytes of one's address.
const KEPT_MAX: usize = 16;
const URL_BYTES_MAX: usize = 512;

/// See the module's documentation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Planes {
    joined: String,
    named: Vec<String>,
}

#[derive(Serialize, Deserialize)]
struct File {
    format: u32,
    named: Vec<String>,
}

impl Planes {
    /// Those that this host knows, which joins by this one now.
    pub fn known(host: &Host, joined: &str) -> Self {
        // One that cannot be read is written again.
        let kept = host.read_for_plane::<File>(FILE).ok().flatten();
        let named = kept.filter(|kept| kept.format == FORMAT).map(|kept| kept.named);
        Self { joined: joined.to_owned(), named: named.unwrap_or_default() }
    }

    /// None are known any more.
    pub fn forget(host: &Host) -> Result<(), Failure> {
        host.write_for_plane(FILE, &File { format: FORMAT, named: Vec::new() })
    }

    /// A plane says where all are. One that says nothing is older, or does not know itself where it is.
    pub fn named(&mut self, host: &Host, urls: &[String]) {
        let fits = |url: &&String| url.len() <= URL_BYTES_MAX;
        let named: Vec<_> = urls.iter().filter(fits).take(KEPT_MAX).cloned().collect();
        if named.is_empty() || named == self.named {
            return;
        }
        // What cannot be written now is written when they change again.
        let _ = host.write_for_plane(FILE, &File { format: FORMAT, named: named.clone() });
        self.named = named;
    }

    /// Whom to ask when this one is away, one after the other.
    pub fn after(&self, url: &str) -> Vec<&str> {
        let others = self.named.iter().map(String::as_str).filter(|named| *named != self.joined);
        let all: Vec<_> = std::iter::once(self.joined.as_str()).chain(others).collect();
        let next = all.iter().position(|one| *one == url).map_or(0, |at| at + 1);
        let (before, after) = all.split_at(next);
        after.iter().chain(before).copied().filter(|one| *one != url).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_of_them_is_asked_in_turn() {
        let planes = |named: &[&str]| Planes {
            joined: "b".to_owned(),
            named: named.iter().map(|url| url.to_string()).collect(),
        };
        assert_eq!(planes(&[]).after("b"), [""; 0], "there is no other");
        assert_eq!(planes(&["b"]).after("b"), [""; 0]);
        assert_eq!(planes(&["a", "c"]).after("b"), ["a", "c"]);
        assert_eq!(planes(&["a", "b", "c"]).after("a"), ["c", "b"]);
        assert_eq!(planes(&["a", "b", "c"]).after("c"), ["b", "a"]);
        // One that is named no longer is left for the first of those that are.
        assert_eq!(planes(&["a"]).after("gone"), ["b", "a"]);
    }
}
