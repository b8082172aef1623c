//! Keys: what may name an object, so that every store can hold it and no key leaves a folder.

use crate::ObjectError;

/// The longest key, bytes.
pub const KEY_BYTES_MAX: usize = 512;

/// The folder of a [`crate::Folder`] in which objects are staged; no key may begin with it.
pub(crate) const STAGING: &str = "tmp";

fn is_segment(segment: &str) -> bool {
    !segment.is_empty()
        && segment != "."
        && segment != ".."
        && segment
            .bytes()
            .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"-_.".contains(&b))
}

/// Refuses what is not a key.
pub(crate) fn check_key(key: &str) -> Result<(), ObjectError> {
    let valid = key.len() <= KEY_BYTES_MAX
        && key.split('/').all(is_segment)
        && key.split('/').next() != Some(STAGING);
    if valid { Ok(()) } else { Err(not_a_key(key)) }
}

/// Refuses what is not the beginning of a key; empty means everything.
pub(crate) fn check_prefix(prefix: &str) -> Result<(), ObjectError> {
    if prefix.is_empty() { Ok(()) } else { check_key(prefix) }
}

fn not_a_key(key: &str) -> ObjectError {
    ObjectError::Invalid { text: key.to_owned(), expected: "an object's key" }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_stay_inside() {
        for good in ["a", "packs/ab/abcd", "refs/0f/00000000000000000001", "config"] {
            assert!(check_key(good).is_ok(), "{good}");
        }
        let long = "a".repeat(KEY_BYTES_MAX + 1);
        for bad in ["", "/", "/a", "a/", "a//b", "..", "a/../b", "A", "a b", "a\0", "tmp/x", &long]
        {
            assert!(check_key(bad).is_err(), "{bad}");
        }
        assert!(check_prefix("").is_ok());
        assert!(check_prefix("packs/").is_err());
    }
}
