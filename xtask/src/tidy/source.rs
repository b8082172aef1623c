//! Rust source seen as code alone: comments and literals blanked, then the tests too.
//!
//! **Invariant:** what comes out has the length and the line breaks of what went in, so that a
//! position in one is a position in the other.

use std::collections::BTreeSet;

use super::tree::Tree;

/// `text` with comments, strings and characters replaced by spaces.
pub fn code(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut out = bytes.to_vec();
    let mut at = 0;
    while at < bytes.len() {
        let end = match bytes[at] {
            b'/' if bytes[at..].starts_with(b"//") => line_end(bytes, at),
            b'/' if bytes[at..].starts_with(b"/*") => comment_end(bytes, at),
            b'"' => string_end(bytes, at),
            b'r' | b'b' | b'c' if !in_word(bytes, at) => match raw_string_end(bytes, at) {
                Some(end) => end,
                None => at + 1,
            },
            b'\'' => char_end(bytes, at).unwrap_or(at + 1),
            _ => at + 1,
        };
        if end > at + 1 {
            blank(&mut out, at, end);
        }
        at = end;
    }
    String::from_utf8(out).expect("only whole literals were blanked")
}

/// `code` with every item that exists for tests only replaced by spaces.
pub fn without_tests(code: &str) -> String {
    let mut out = code.as_bytes().to_vec();
    for (start, end) in test_items(code) {
        blank(&mut out, start, end);
    }
    String::from_utf8(out).expect("only whole items were blanked")
}

/// Files that are compiled for tests only: those under `tests/` or `benches/`, and those that a
/// `#[cfg(test)] mod name;` brings in.
pub fn test_files(tree: &Tree) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for (path, text) in tree.with_extension(".rs") {
        if path.split('/').any(|part| part == "tests" || part == "benches") {
            found.insert(path.to_owned());
        }
        let code = code(text);
        for (start, end) in test_items(&code) {
            let item = code[start..end].trim_end();
            let Some(name) = item
                .strip_suffix(';')
                .and_then(|item| item.rsplit_once("mod "))
                .map(|(_, name)| name.trim())
            else {
                continue;
            };
            let (dir, file) = path.rsplit_once('/').unwrap_or(("", path));
            let stem = file.trim_end_matches(".rs");
            let own = if ["lib", "main", "mod"].contains(&stem) {
                dir.to_owned()
            } else {
                format!("{dir}/{stem}")
            };
            found.insert(format!("{own}/{name}.rs"));
            found.insert(format!("{own}/{name}/mod.rs"));
        }
    }
    found
}

/// Line numbers, from 1, at which `word` stands in `code` and is not part of a longer word.
pub fn lines_with(code: &str, word: &str) -> Vec<usize> {
    let is_word = |c: char| c.is_alphanumeric() || c == '_';
    let mut lines = Vec::new();
    for (number, line) in code.lines().enumerate() {
        let found = line.match_indices(word).any(|(at, _)| {
            let before = line[..at].chars().next_back();
            let after = line[at + word.len()..].chars().next();
            let open = !word.starts_with(is_word) || !before.is_some_and(is_word);
            let closed = !word.ends_with(is_word) || !after.is_some_and(is_word);
            open && closed
        });
        if found {
            lines.push(number + 1);
        }
    }
    lines
}

/// Where the items under `#[test]` or a `#[cfg(test)]` start and end.
fn test_items(code: &str) -> Vec<(usize, usize)> {
    let mut items = Vec::new();
    let mut from = 0;
    while let Some(start) = code[from..].find("#[").map(|at| from + at) {
        let close = matching(code.as_bytes(), start + 1).unwrap_or(code.len());
        let attribute: String = code[start..close].chars().filter(|c| !c.is_whitespace()).collect();
        from = close;
        let tests = ["#[test]", "#[cfg(test)]"].contains(&attribute.as_str())
            || attribute.starts_with("#[cfg(all(test,");
        if tests {
            let end = item_end(code.as_bytes(), close);
            items.push((start, end));
            from = end;
        }
    }
    items
}

/// The end of the item that begins at `at`: its `;`, or the brace that closes its body.
fn item_end(code: &[u8], mut at: usize) -> usize {
    while at < code.len() {
        match code[at] {
            b';' => return at + 1,
            b'{' => return matching(code, at).unwrap_or(code.len()),
            b'(' | b'[' => at = matching(code, at).unwrap_or(code.len()),
            _ => at += 1,
        }
    }
    code.len()
}

/// One past the bracket that closes the one at `open`.
fn matching(code: &[u8], open: usize) -> Option<usize> {
    let mut depth = 0usize;
    for (at, byte) in code.iter().enumerate().skip(open) {
        match byte {
            b'(' | b'[' | b'{' => depth += 1,
            b')' | b']' | b'}' => {
                depth = depth.checked_sub(1)?;
                if depth == 0 {
                    return Some(at + 1);
                }
            }
            _ => {}
        }
    }
    None
}

fn blank(out: &mut [u8], start: usize, end: usize) {
    for byte in &mut out[start..end] {
        if *byte != b'\n' {
            *byte = b' ';
        }
    }
}

fn in_word(bytes: &[u8], at: usize) -> bool {
    at > 0 && (bytes[at - 1].is_ascii_alphanumeric() || bytes[at - 1] == b'_')
}

fn line_end(bytes: &[u8], at: usize) -> usize {
    bytes[at..].iter().position(|b| *b == b'\n').map_or(bytes.len(), |n| at + n)
}

fn comment_end(bytes: &[u8], at: usize) -> usize {
    let mut depth = 0;
    let mut end = at;
    while end < bytes.len() {
        if bytes[end..].starts_with(b"/*") {
            depth += 1;
            end += 2;
        } else if bytes[end..].starts_with(b"*/") {
            depth -= 1;
            end += 2;
            if depth == 0 {
                return end;
            }
        } else {
            end += 1;
        }
    }
    end
}

fn string_end(bytes: &[u8], at: usize) -> usize {
    let mut end = at + 1;
    while end < bytes.len() {
        match bytes[end] {
            b'\\' => end += 2,
            b'"' => return end + 1,
            _ => end += 1,
        }
    }
    bytes.len()
}

/// The end of `r".."`, `br#".."#` and their kin, if one begins at `at`.
fn raw_string_end(bytes: &[u8], at: usize) -> Option<usize> {
    let prefix = bytes[at..].iter().take(2).take_while(|b| b"rbc".contains(b)).count();
    let hashes = bytes[at + prefix..].iter().take_while(|b| **b == b'#').count();
    let quote = at + prefix + hashes;
    if bytes.get(quote) != Some(&b'"') {
        return None;
    }
    if !bytes[at..at + prefix].contains(&b'r') {
        return (hashes == 0).then(|| string_end(bytes, quote));
    }
    let close = [&b"\""[..], &b"#".repeat(hashes)].concat();
    let found = bytes[quote + 1..].windows(close.len()).position(|w| w == close);
    Some(found.map_or(bytes.len(), |n| quote + 1 + n + close.len()))
}

/// The end of a character literal; `None` for a lifetime.
fn char_end(bytes: &[u8], at: usize) -> Option<usize> {
    if bytes.get(at + 1) == Some(&b'\\') {
        let close = bytes.get(at + 3..)?.iter().position(|b| *b == b'\'')?;
        return Some(at + 3 + close + 1);
    }
    let rest = std::str::from_utf8(&bytes[at + 1..]).ok()?;
    let first = rest.chars().next()?;
    rest[first.len_utf8()..].starts_with('\'').then(|| at + 1 + first.len_utf8() + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comments_and_literals_are_not_code() {
        let text = "a /* x /* y */ z */ b // c\nd \"e\\\"f\" r#\"g\"h\"# b'i' '\\'' 'j' &'k str é";
        let seen = code(text);
        assert_eq!(seen.len(), text.len());
        assert_eq!(seen.split_whitespace().collect::<Vec<_>>().join(" "), "a b d b &'k str é");
        assert_eq!(seen.lines().count(), 2);
    }

    #[test]
    fn a_word_is_found_whole() {
        assert_eq!(lines_with("x\nunsafe {\nunsafe_code", "unsafe"), [2]);
        assert_eq!(lines_with("std::Instant::now()", "Instant::now"), [1]);
        assert_eq!(lines_with("operand::x", "rand::"), [0usize; 0]);
    }

    #[test]
    fn tests_are_left_out() {
        let text = "fn a() { x }\n#[cfg(test)]\nmod tests {\n fn b() { y }\n}\nfn c() { z }\n\
                    #[cfg(test)]\nimpl<const N: usize> T for [u8; N] { w }\n#[test] fn d() { v }";
        let seen = without_tests(&code(text));
        let left: Vec<_> = ["x", "y", "z", "w", "v"].map(|w| lines_with(&seen, w).len()).into();
        assert_eq!(left, [1, 0, 1, 0, 0]);
    }

    #[test]
    fn files_of_tests_are_known() {
        let tree = Tree::of(&[
            ("crates/a/src/lib.rs", "#[cfg(test)]\nmod images;\nmod real;"),
            ("crates/a/src/part.rs", "#[cfg(test)] mod faults;"),
            ("crates/a/tests/guest.rs", ""),
        ]);
        let found = test_files(&tree);
        for path in
            ["crates/a/src/images.rs", "crates/a/src/part/faults.rs", "crates/a/tests/guest.rs"]
        {
            assert!(found.contains(path), "{path}");
        }
        assert!(!found.contains("crates/a/src/real.rs"));
    }
}
