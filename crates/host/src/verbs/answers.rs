//! Answers to the form of an OVF package, given in words or in files.
//!
//! Every user of this computer sees a command's words while it runs; so a secret comes in a file.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use crate::failure::{Failure, Result};

/// Longest file, bytes: a value that fits into no form is refused there, by its name.
const FILE_BYTES_MAX: u64 = 64 << 10;

/// What a field of the form is to be.
#[derive(Debug, Clone)]
pub enum Answer {
    Text(String),
    /// What is in this file, without the end of its last line.
    File(PathBuf),
}

/// The answers, in the order in which they were given: of two to one field in words the last holds.
pub fn read(answers: &[(String, Answer)]) -> Result<Vec<(String, String)>> {
    let usage = |what: String, hint: &str| Failure::new("usage", what, hint);
    let mut values = Vec::with_capacity(answers.len());
    for (key, answer) in answers {
        let value = match answer {
            Answer::Text(text) => text.clone(),
            Answer::File(path) => {
                if answers.iter().filter(|(other, _)| other == key).count() > 1 {
                    let hint = "keep one of --property and --property-file";
                    return Err(usage(format!("the property {key} is given twice"), hint));
                }
                let wrong = |why: String| {
                    let hint = "name a file that holds the value and nothing else";
                    usage(format!("the property {key}: {}: {why}", path.display()), hint)
                };
                let bytes = content(path).map_err(|e| wrong(e.to_string()))?;
                let text = String::from_utf8(bytes).map_err(|_| wrong("is no text".to_owned()))?;
                let line =
                    text.strip_suffix('\n').map(|line| line.strip_suffix('\r').unwrap_or(line));
                line.unwrap_or(&text).to_owned()
            }
        };
        values.push((key.clone(), value));
    }
    Ok(values)
}

/// Also of a pipe: a shell's `<(command)` keeps a secret out of every file.
fn content(path: &Path) -> std::io::Result<Vec<u8>> {
    let mut content = Vec::new();
    File::open(path)?.take(FILE_BYTES_MAX).read_to_end(&mut content)?;
    Ok(content)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(content: &[u8], expected: std::result::Result<&str, &str>) {
        let folder = std::env::temp_dir().join(format!("answers-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let path = folder.join("secret");
        std::fs::write(&path, content).unwrap();
        let answers = [
            ("a".to_owned(), Answer::Text("1".to_owned())),
            ("b".to_owned(), Answer::File(path)),
            ("a".to_owned(), Answer::Text("2".to_owned())),
        ];
        let values = read(&answers);
        std::fs::remove_dir_all(&folder).unwrap();
        match (values, expected) {
            (Ok(values), Ok(value)) => {
                let found: Vec<_> = values.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
                assert_eq!(found, [("a", "1"), ("b", value), ("a", "2")]);
            }
            (Err(failure), Err(why)) => assert!(failure.message.contains(why), "{failure:?}"),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_file_is_its_content_without_the_end_of_its_last_line() {
        check(b"hunter2\n", Ok("hunter2"));
        check(b"hunter2\r\n", Ok("hunter2"));
        check(b" two\nlines \n\n", Ok(" two\nlines \n"));
        check(b"", Ok(""));
        check(b"\xff", Err("is no text"));
    }

    #[test]
    fn what_cannot_be_meant_is_refused() {
        let file = |path: &str| ("k".to_owned(), Answer::File(path.into()));
        let text = ("k".to_owned(), Answer::Text(String::new()));
        for answers in [vec![file("x"), file("y")], vec![text, file("x")]] {
            assert!(read(&answers).unwrap_err().message.contains("given twice"));
        }
        let missing = read(&[file("/nowhere/at all")]).unwrap_err();
        assert!(missing.message.contains("property k: /nowhere/at all: No such"), "{missing:?}");
        assert!(read(&[file("/")]).is_err());
    }
}
