//! Names of foreign files: plain, or refused.

/// Longest name, bytes: what file systems have.
const NAME_BYTES_MAX: usize = 255;

/// Whether this is the plain name of a file: no folders, not hidden in any way, nothing that a
/// terminal or a shell would take for something else.
pub fn plain(name: &str) -> bool {
    !name.is_empty()
        && name.len() <= NAME_BYTES_MAX
        && !name.starts_with(['.', '-'])
        && name.chars().all(|c| !c.is_control() && !"/\\:\"'`$|;<>*?".contains(c))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_plain_names_are_plain() {
        for good in ["a.vmdk", "Disk 1 (copy).vmdk", "a..b", "ä.img"] {
            assert!(plain(good), "{good}");
        }
        for bad in [
            "",
            ".",
            "..",
            "../a",
            "/a",
            "a/b",
            "a\\b",
            "c:a",
            ".a",
            "-o",
            "a\n",
            "a\0",
            "http://a",
            "json:{}",
            "nbd:x",
            &"a".repeat(256),
        ] {
            assert!(!plain(bad), "{bad}");
        }
    }
}
