//! Rules about the documents.

use super::Finding;
use super::tree::Tree;

const MAP: &str = "ARCHITECTURE.md";

/// The heading over the table of promises.
const PROMISES: &str = "## Promises";

/// Every relative link leads to a tracked file or folder, and every `#part` to a heading.
pub fn links(tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (path, text) in tree.with_extension(".md") {
        for (line, target) in targets(text) {
            if target.contains("://") || target.starts_with("mailto:") {
                continue;
            }
            let (file, part) = target.split_once('#').unwrap_or((target, ""));
            let file = if file.is_empty() { Some(path.to_owned()) } else { resolve(path, file) };
            let place = format!("{path}:{line}");
            let Some(file) = file.filter(|file| exists(tree, file)) else {
                findings.push(Finding::at(place, format!("`{target}` leads nowhere")));
                continue;
            };
            let headed = |text| headings(text).any(|heading| heading == part);
            if !part.is_empty() && tree.text(&file).is_some_and(|text| !headed(text)) {
                findings.push(Finding::at(place, format!("{file} has no heading `#{part}`")));
            }
        }
    }
    findings
}

/// Every crate is named in the map, as `name`.
pub fn map(tree: &Tree) -> Vec<Finding> {
    let text = tree.text(MAP).unwrap_or_default();
    tree.crates
        .iter()
        .filter(|member| !text.contains(&format!("`{}`", member.name)))
        .map(|member| {
            Finding::at(MAP, format!("`{}` is missing: say what it does, and not", member.name))
        })
        .collect()
}

/// Every row of the table of promises names tests, and they exist.
pub fn promises(tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    let rows = prose(tree.text(MAP).unwrap_or_default())
        .skip_while(|(_, line)| *line != PROMISES)
        .skip(1)
        .take_while(|(_, line)| !line.starts_with("## "))
        .filter(|(_, line)| line.starts_with('|'))
        .skip(2);
    for (line, row) in rows {
        let place = format!("{MAP}:{line}");
        let last = row.trim_end_matches('|').rsplit('|').next().unwrap_or_default();
        let mut named = last.split('`').skip(1).step_by(2).peekable();
        if named.peek().is_none() {
            findings.push(Finding::at(
                &place,
                "a promise without a test: name one, in the last column",
            ));
        }
        for test in named {
            let function = format!("fn {test}(");
            if !tree.with_extension(".rs").any(|(_, text)| text.contains(&function)) {
                findings.push(Finding::at(&place, format!("there is no test `{test}`")));
            }
        }
    }
    findings
}

/// The lines outside fenced blocks, numbered from 1.
fn prose(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let mut fenced = false;
    text.lines().enumerate().filter_map(move |(number, line)| {
        if line.trim_start().starts_with("```") {
            fenced = !fenced;
            return None;
        }
        (!fenced).then_some((number + 1, line))
    })
}

/// What `[text](target)` and `[name]: target` point at, with their lines.
fn targets(text: &str) -> Vec<(usize, &str)> {
    let mut found = Vec::new();
    for (number, line) in prose(text) {
        for (at, _) in line.match_indices("](") {
            let rest = &line[at + 2..];
            let inline_code = line[..at].matches('`').count() % 2 == 1;
            if let (Some(end), false) = (rest.find(')'), inline_code) {
                found.push((number, bare(&rest[..end])));
            }
        }
        if let Some((name, target)) = line.strip_prefix('[').and_then(|l| l.split_once("]: "))
            && !name.contains(']')
        {
            found.push((number, bare(target)));
        }
    }
    found
}

/// A target without its `<>` and its title.
fn bare(target: &str) -> &str {
    let target = target.trim();
    let target = target.split_once(' ').map_or(target, |(target, _title)| target);
    target.trim_start_matches('<').trim_end_matches('>')
}

/// `target` as seen from the document at `path`; `None` when it leaves the repository.
fn resolve(path: &str, target: &str) -> Option<String> {
    let mut parts: Vec<&str> = path.split('/').collect();
    parts.pop();
    for part in target.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()?),
            part => parts.push(part),
        }
    }
    Some(parts.join("/"))
}

fn exists(tree: &Tree, file: &str) -> bool {
    let folder = format!("{file}/");
    tree.files.contains_key(file)
        || file.is_empty()
        || tree.files.keys().any(|path| path.starts_with(&folder))
}

/// The anchors that headings get: lower case, spaces to hyphens, other signs dropped.
fn headings(text: &str) -> impl Iterator<Item = String> {
    prose(text).filter(|(_, line)| line.starts_with('#')).map(|(_, line)| {
        line.trim_start_matches('#')
            .trim()
            .chars()
            .filter(|c| c.is_alphanumeric() || " -_".contains(*c))
            .map(|c| if c == ' ' { '-' } else { c.to_ascii_lowercase() })
            .collect()
    })
}

#[cfg(test)]
mod tests {
    use super::super::places;
    use super::*;

    #[track_caller]
    fn check(line: &str, found: bool) {
        let tree = Tree::of(&[
            ("docs/a.md", &format!("# Here, now\n{line}\n")),
            ("docs/format/b.md", "## The `bytes`\n"),
            ("README.md", ""),
        ]);
        let findings = links(&tree);
        let expected: &[&str] = if found { &["docs/a.md:2"] } else { &[] };
        assert_eq!(places(&findings), expected, "{line}");
    }

    #[test]
    fn broken_links_are_found() {
        check(
            "see [b](format/b.md), [top](../README.md), [all](format/) and [here](#here-now)",
            false,
        );
        check("see [b](format/b.md#the-bytes \"title\")", false);
        check("see [c](format/c.md)", true);
        check("see [b](format/b.md#the-words)", true);
        check("see [there](#there)", true);
        check("see [out](../../README.md)", true);
        check("[c]: format/c.md", true);
        check("a `[link](nowhere)` in code, [a page](https://example.org/x)", false);
    }

    #[test]
    fn a_crate_that_is_not_on_the_map_is_found() {
        let tree = Tree::of(&[(MAP, "* `volume` holds pages")])
            .with_crate("volume", &[])
            .with_crate("chunk", &[]);
        let findings = map(&tree);
        assert_eq!(findings.len(), 1);
        assert!(findings[0].message.contains("`chunk`"));
    }

    #[test]
    fn a_promise_without_a_real_test_is_found() {
        let table = "## Promises\n\n| promise | file | test |\n| --- | --- | --- |\n";
        let with = |row: &str| {
            let text = format!("{table}{row}\n\n## More\n\n| a | b |\n");
            promises(&Tree::of(&[(MAP, &text), ("a.rs", "#[test]\nfn it_holds() {}")]))
        };
        assert_eq!(with("| it holds | [a](a.rs) | `it_holds` |"), []);
        assert_eq!(places(&with("| it holds | [a](a.rs) | `it_holds`, `it_stays` |")).len(), 1);
        assert_eq!(places(&with("| it holds | [a](a.rs) | |")), ["ARCHITECTURE.md:5"]);
    }
}
