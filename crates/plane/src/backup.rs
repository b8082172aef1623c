//! A copy of a plane's state in a file. Pure.
//!
//! The format is in `docs/format/plane-backup.md`: a line that says what it is, one for each key, and one
//! that says how many there were and their hash. *A file that was cut off or changed* is refused.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};

const MAGIC: &str = "collective plane backup";
const FORMAT: u64 = 1;
/// Below these is what is said again, or is for a moment.
const LEFT_OUT: [&str; 7] =
    ["alive/", "steering", "planes/", "orders/", "answers/", "loads/", "relief/"];

/// The first line. All versions have these.
#[derive(Serialize, Deserialize)]
struct Header {
    magic: String,
    format: u64,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Line {
    key: String,
    /// Base64.
    value: String,
}

/// The last line.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct End {
    entries: u64,
    /// BLAKE3 of all lines before.
    blake3: String,
}

/// Why something is not a backup that can be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BackupError {
    /// It is something else.
    #[error("this is no backup of a plane")]
    Foreign,
    /// A newer program wrote it.
    #[error("this backup has format {0}; this program knows {FORMAT}")]
    Newer(u64),
    /// It was cut off or changed.
    #[error("this backup is damaged: {0}")]
    Damaged(String),
}

/// Writes keys and values, in their order.
pub fn write<'a>(entries: impl IntoIterator<Item = (&'a str, &'a [u8])>) -> Vec<u8> {
    let header = Header { magic: MAGIC.to_owned(), format: FORMAT };
    let mut file = Vec::new();
    let mut count = 0;
    line(&mut file, &header);
    for (key, value) in entries {
        if is_left_out(key) {
            continue;
        }
        line(&mut file, &Line { key: key.to_owned(), value: STANDARD.encode(value) });
        count += 1;
    }
    end(file, count)
}

/// Whether a key is in no backup.
pub(crate) fn is_left_out(key: &str) -> bool {
    LEFT_OUT.iter().any(|prefix| key.starts_with(prefix))
}

fn end(mut file: Vec<u8>, entries: u64) -> Vec<u8> {
    let blake3 = blake3::hash(&file).to_hex().to_string();
    line(&mut file, &End { entries, blake3 });
    file
}

/// The lines of `file`, without its last one, with an end that is right: for the fuzzers.
pub(crate) fn with_end(file: &[u8]) -> Vec<u8> {
    let whole = file.strip_suffix(b"\n").unwrap_or(file);
    let lines = whole.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
    let lines = &file[..lines];
    let entries = lines.split(|byte| *byte == b'\n').skip(1).filter(|text| !text.is_empty());
    end(lines.to_vec(), entries.count() as u64)
}

fn line(file: &mut Vec<u8>, value: &impl Serialize) {
    file.extend(serde_json::to_vec(value).expect("types of ours are always JSON"));
    file.push(b'\n');
}

/// Reads a file whole, or not at all.
pub fn read(file: &[u8]) -> Result<Vec<(String, Vec<u8>)>, BackupError> {
    let damaged = |what: &str| BackupError::Damaged(what.to_owned());
    let first = file.split(|byte| *byte == b'\n').next().unwrap_or_default();
    let header: Header = serde_json::from_slice(first).map_err(|_| BackupError::Foreign)?;
    if header.magic != MAGIC {
        return Err(BackupError::Foreign);
    }
    if header.format != FORMAT {
        return Err(BackupError::Newer(header.format));
    }
    let whole = file.strip_suffix(b"\n").ok_or_else(|| damaged("it is cut off"))?;
    let last =
        whole.iter().rposition(|byte| *byte == b'\n').ok_or_else(|| damaged("it is cut off"))?;
    let (lines, end) = file.split_at(last + 1);
    let end: End = serde_json::from_slice(end).map_err(|_| damaged("it is cut off"))?;
    if blake3::hash(lines).to_hex().as_str() != end.blake3 {
        return Err(damaged("its hash is another one"));
    }
    let mut entries = Vec::new();
    for text in lines.split(|byte| *byte == b'\n').skip(1).filter(|text| !text.is_empty()) {
        let Line { key, value } =
            serde_json::from_slice(text).map_err(|error| damaged(&error.to_string()))?;
        let value = STANDARD.decode(value).map_err(|error| damaged(&error.to_string()))?;
        entries.push((key, value));
    }
    if entries.len() as u64 != end.entries {
        return Err(damaged("it has another number of entries than it says"));
    }
    Ok(entries)
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOLDEN: &[u8] = include_bytes!("../tests/golden/backup-1.jsonl");

    fn entries() -> Vec<(String, Vec<u8>)> {
        vec![
            ("projects/blue".to_owned(), b"{\"added_unix_ms\":1}".to_vec()),
            ("revoked/0102".to_owned(), b"5".to_vec()),
            ("users/anna".to_owned(), vec![0, 255, b'\n']),
        ]
    }

    #[test]
    fn the_bytes_of_a_backup_are_agreed_on() {
        let known = entries();
        let leased = [("alive/01", &b"1"[..]), ("orders/01/web", b"2"), ("steering", b"")];
        let all = known.iter().map(|(key, value)| (key.as_str(), value.as_slice())).chain(leased);
        let written = write(all);
        if std::env::var_os("COLLECTIVE_BLESS").is_some() {
            let file = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/backup-1.jsonl");
            std::fs::write(file, &written).unwrap();
        }
        assert_eq!(String::from_utf8_lossy(&written), String::from_utf8_lossy(GOLDEN));
        assert_eq!(read(GOLDEN), Ok(known));
    }

    #[test]
    fn what_is_not_a_whole_backup_is_refused() {
        for cut in 1..GOLDEN.len() {
            assert!(read(&GOLDEN[..cut]).is_err(), "{cut} bytes of it");
        }
        for at in 0..GOLDEN.len() {
            let mut changed = GOLDEN.to_vec();
            changed[at] ^= 1;
            assert!(read(&changed).is_err(), "byte {at}");
        }
        assert_eq!(read(b""), Err(BackupError::Foreign));
        assert_eq!(read(b"{\"magic\":\"x\",\"format\":1}\n"), Err(BackupError::Foreign));
        let newer = b"{\"magic\":\"collective plane backup\",\"format\":2,\"more\":1}\n";
        assert_eq!(read(newer), Err(BackupError::Newer(2)));
    }
}
