//! What `qemu-img` is asked, and what of its answer is believed.
//!
//! The program runs behind walls that somebody else builds; here are only its words. Formats are
//! always given, so that it never probes. Files are plain names in the folder that it works in.
//!
//! *Invariant.* Its answer is foreign too: bounded, and every file in it must be one that we gave.

use std::ffi::OsString;

use serde_json::Value;

use crate::error::{ImportError, Result};
use crate::format::Format;
use crate::guard;

/// Longest answer of `info` that is read, bytes.
pub const INFO_BYTES_MAX: usize = 4 << 20;

/// QEMU's word for a format of disks.
pub fn driver(format: Format) -> Option<&'static str> {
    match format {
        Format::Raw => Some("raw"),
        Format::Qcow2 => Some("qcow2"),
        Format::Vmdk => Some("vmdk"),
        Format::Vdi => Some("vdi"),
        Format::Vhd => Some("vpc"),
        Format::Vhdx => Some("vhdx"),
        Format::Iso | Format::Ova | Format::Ovf | Format::Box => None,
    }
}

/// Asks what a file is.
pub fn info(format: Format, file: &str) -> Vec<OsString> {
    words(&["info", "--output=json", "-f", driver(format).unwrap_or("raw"), file])
}

/// Asks whether it is whole. What is cut off reads as zeros otherwise, and nobody would notice.
pub fn check(format: Format, file: &str) -> Option<Vec<OsString>> {
    let checks = matches!(format, Format::Qcow2 | Format::Vmdk | Format::Vdi | Format::Vhdx);
    let driver = driver(format).filter(|_| checks)?;
    Some(words(&["check", "-f", driver, file]))
}

/// Whether [`check`] ended with a disk that can be read: leaked space does no harm.
pub fn is_whole(exit_code: Option<i32>) -> bool {
    matches!(exit_code, Some(0 | 3))
}

/// Converts to a raw file that is there, of the right length, and reads as zeros.
pub fn to_raw(format: Format, file: &str, output: &str) -> Vec<OsString> {
    let driver = driver(format).unwrap_or("raw");
    let mut all = words(&["convert", "-n", "--target-is-zero", "-S", "4k", "-f", driver]);
    all.extend(words(&["-O", "raw", file, output]));
    all
}

/// Converts a raw file into a new disk in an empty file that is there.
pub fn from_raw(file: &str, output: &str, target: Target) -> Vec<OsString> {
    let mut all = words(&["convert", "-S", "4k", "-f", "raw"]);
    all.extend(match target {
        Target::Qcow2 => words(&["-O", "qcow2"]),
        Target::StreamVmdk => words(&["-O", "vmdk", "-o", "subformat=streamOptimized"]),
    });
    all.extend(words(&[file, output]));
    all
}

/// What is written for others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Target {
    /// Version 3, without compression.
    Qcow2,
    /// The form that an OVA carries.
    StreamVmdk,
}

fn words(words: &[&str]) -> Vec<OsString> {
    words.iter().map(OsString::from).collect()
}

/// Reads the answer of [`info`]; gives the disk's size, bytes. `files` are those that it may name.
pub fn read_info(answer: &[u8], format: Format, files: &[&str]) -> Result<u64> {
    let malformed = |detail: &str| ImportError::malformed(format.as_str(), detail);
    if answer.len() > INFO_BYTES_MAX {
        return Err(malformed("qemu-img says too much about it"));
    }
    let info: Value =
        serde_json::from_slice(answer).map_err(|_| malformed("qemu-img cannot say what it is"))?;
    if info["format"].as_str() != driver(format) {
        return Err(malformed("qemu-img takes it for something else"));
    }
    for key in ["backing-filename", "full-backing-filename", "backing-filename-format"] {
        if !info[key].is_null() {
            return Err(ImportError::Unsafe {
                what: "its backing file".to_owned(),
                detail: "would have to be read too".to_owned(),
                hint: "bring it into one file first: qemu-img convert -O qcow2 FILE WHOLE",
            });
        }
    }
    if info["encrypted"].as_bool() == Some(true) {
        return Err(ImportError::Unsupported {
            what: "an encrypted disk".to_owned(),
            hint: "decrypt it first with `qemu-img convert`",
        });
    }
    if let Some(name) = foreign_name(&info, files, 0) {
        return Err(ImportError::Unsafe {
            what: format!("the file {:?}", name.chars().take(80).collect::<String>()),
            detail: "would have to be read too".to_owned(),
            hint: "bring it into one file first: qemu-img convert -O qcow2 FILE WHOLE",
        });
    }
    let size = info["virtual-size"].as_u64().ok_or_else(|| malformed("it has no size"))?;
    guard::bounded(size)?;
    Ok(size)
}

/// How deep an answer may be nested: a disk over its file has two levels, each of few objects.
const DEPTH_MAX: usize = 12;

/// A file name anywhere in the answer that is none of ours.
fn foreign_name<'a>(value: &'a Value, files: &[&str], depth: usize) -> Option<&'a str> {
    const NAMES: [&str; 3] = ["filename", "data-file", "data-file-raw"];
    if depth > DEPTH_MAX {
        return Some("...");
    }
    match value {
        Value::Object(fields) => fields.iter().find_map(|(key, field)| match field {
            Value::String(name) if NAMES.contains(&key.as_str()) => {
                let name = name.strip_prefix("./").unwrap_or(name);
                (!files.contains(&name)).then_some(name)
            }
            other => foreign_name(other, files, depth + 1),
        }),
        Value::Array(list) => list.iter().find_map(|item| foreign_name(item, files, depth + 1)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(answer: &str, expected: Result<u64, &str>) {
        let read = read_info(answer.as_bytes(), Format::Qcow2, &["input", "extent-0"]);
        match (read, expected) {
            (Ok(size), Ok(want)) => assert_eq!(size, want),
            (Err(error), Err(want)) => assert!(error.to_string().contains(want), "{error}"),
            (read, want) => panic!("{read:?}, not {want:?}"),
        }
    }

    #[test]
    fn only_what_we_gave_may_be_named() {
        check(r#"{"format":"qcow2","virtual-size":4096,"filename":"input"}"#, Ok(4096));
        check(
            r#"{"format":"qcow2","virtual-size":4096,"filename":"input",
                "children":[{"name":"file","info":{"filename":"extent-0"}}]}"#,
            Ok(4096),
        );
        check(
            r#"{"format":"qcow2","virtual-size":4096,"backing-filename":"input"}"#,
            Err("backing file"),
        );
        check(
            r#"{"format":"qcow2","virtual-size":1,"children":[{"info":{"filename":"/etc/passwd"}}]}"#,
            Err("/etc/passwd"),
        );
        check(
            r#"{"format":"qcow2","virtual-size":1,"format-specific":{"data":{"data-file":"x"}}}"#,
            Err("\"x\""),
        );
        check(r#"{"format":"raw","virtual-size":1}"#, Err("something else"));
        check(r#"{"format":"qcow2"}"#, Err("no size"));
        check(r#"{"format":"qcow2","virtual-size":99999999999999}"#, Err("more than"));
        check("", Err("cannot say"));
    }
}
