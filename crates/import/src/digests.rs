//! The manifest file of an OVF package: a digest for each of its files.
//!
//! ```text
//! SHA256(disk1.vmdk)= 9f86d0...
//! ```

use std::collections::BTreeMap;
use std::io::{self, Read};

use sha1::Sha1;
use sha2::{Digest, Sha256, Sha512};

use crate::error::{ImportError, Result};
use crate::names::plain;

const WHAT: &str = "manifest file";
/// Longest manifest file, bytes.
pub const MANIFEST_BYTES_MAX: u64 = 1 << 20;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Algorithm {
    Sha1,
    Sha256,
    Sha512,
}

impl Algorithm {
    fn as_str(self) -> &'static str {
        match self {
            Self::Sha1 => "sha1",
            Self::Sha256 => "sha256",
            Self::Sha512 => "sha512",
        }
    }

    fn bytes(self) -> usize {
        match self {
            Self::Sha1 => 20,
            Self::Sha256 => 32,
            Self::Sha512 => 64,
        }
    }
}

/// What every file must hash to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Digests(BTreeMap<String, (Algorithm, Vec<u8>)>);

impl Digests {
    /// Reads a manifest file.
    pub fn parse(text: &str) -> Result<Self> {
        let mut digests = BTreeMap::new();
        for line in text.lines().map(str::trim).filter(|line| !line.is_empty()) {
            let bad = || {
                let line: String = line.chars().take(80).collect();
                ImportError::malformed(WHAT, format!("it has the line {line:?}"))
            };
            let (algorithm, rest) = line.split_once('(').ok_or_else(bad)?;
            let (name, digest) = rest.rsplit_once(')').ok_or_else(bad)?;
            let digest = digest.trim_start().strip_prefix('=').ok_or_else(bad)?.trim();
            let algorithm = match algorithm.trim().to_ascii_lowercase().as_str() {
                "sha1" => Algorithm::Sha1,
                "sha256" => Algorithm::Sha256,
                "sha512" => Algorithm::Sha512,
                _ => return Err(bad()),
            };
            let digest = unhex(digest).filter(|d| d.len() == algorithm.bytes()).ok_or_else(bad)?;
            if !plain(name) || digests.insert(name.to_owned(), (algorithm, digest)).is_some() {
                return Err(bad());
            }
        }
        Ok(Self(digests))
    }

    /// Writes one, as for export: SHA-256 of each file.
    pub fn line(name: &str, sha256: &[u8]) -> String {
        let hex: String = sha256.iter().map(|byte| format!("{byte:02x}")).collect();
        format!("SHA256({name})= {hex}\n")
    }

    /// A reader that checks what it passes on against the digest of `name`. Every file that is used
    /// must have one.
    pub fn checked<R: Read>(&self, name: &str, reader: R) -> Result<Checked<R>> {
        let Some((algorithm, digest)) = self.0.get(name) else {
            let detail = format!("it has no digest of {name}");
            return Err(ImportError::malformed(WHAT, detail));
        };
        let state = match algorithm {
            Algorithm::Sha1 => State::Sha1(Sha1::new()),
            Algorithm::Sha256 => State::Sha256(Sha256::new()),
            Algorithm::Sha512 => State::Sha512(Sha512::new()),
        };
        let wanted = Some((name.to_owned(), *algorithm, digest.clone()));
        Ok(Checked { reader, state, wanted })
    }
}

enum State {
    Sha1(Sha1),
    Sha256(Sha256),
    Sha512(Sha512),
}

/// Hashes what is read through it.
pub struct Checked<R> {
    reader: R,
    state: State,
    wanted: Option<(String, Algorithm, Vec<u8>)>,
}

impl<R: Read> Checked<R> {
    /// A reader that only hashes, with SHA-256.
    pub fn unchecked(reader: R) -> Self {
        Self { reader, state: State::Sha256(Sha256::new()), wanted: None }
    }

    /// Compares, when everything was read. Gives the digest.
    pub fn finish(self) -> Result<Vec<u8>> {
        let found = match self.state {
            State::Sha1(state) => state.finalize().to_vec(),
            State::Sha256(state) => state.finalize().to_vec(),
            State::Sha512(state) => state.finalize().to_vec(),
        };
        match self.wanted {
            Some((member, algorithm, digest)) if digest != found => {
                Err(ImportError::Digest { member, algorithm: algorithm.as_str() })
            }
            _ => Ok(found),
        }
    }
}

impl<R: Read> Read for Checked<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.reader.read(buffer)?;
        let read = &buffer[..count];
        match &mut self.state {
            State::Sha1(state) => state.update(read),
            State::Sha256(state) => state.update(read),
            State::Sha512(state) => state.update(read),
        }
        Ok(count)
    }
}

fn unhex(text: &str) -> Option<Vec<u8>> {
    if !text.is_ascii() || !text.len().is_multiple_of(2) {
        return None;
    }
    (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digests_are_compared() {
        // Of "abc", from FIPS 180-4's examples.
        let text = "SHA1(a)= a9993e364706816aba3e25717850c26c9cd0d89d\r\n\
                    SHA256 (b (1)) = ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad\n\n";
        let digests = Digests::parse(text).unwrap();
        for name in ["a", "b (1)"] {
            let check = |content: &str| {
                let mut checked = digests.checked(name, content.as_bytes()).unwrap();
                io::copy(&mut checked, &mut io::sink()).unwrap();
                checked.finish()
            };
            assert!(check("abc").is_ok(), "{name}");
            assert!(matches!(check("abd"), Err(ImportError::Digest { .. })), "{name}");
        }
        assert!(digests.checked("c", &b""[..]).is_err());
        for bad in [
            "MD5(a)= 900150983cd24fb0d6963f7d28e17f72",
            "SHA256(a)= 00",
            "SHA1(../a)= a9993e364706816aba3e25717850c26c9cd0d89d",
            "SHA1(a) a9993e364706816aba3e25717850c26c9cd0d89d",
            "SHA1(a)= \u{e9}9993e364706816aba3e25717850c26c9cd0d89",
            "nonsense",
        ] {
            assert!(Digests::parse(bad).is_err(), "{bad}");
            assert!(Digests::parse(&format!("{text}{text}")).is_err());
        }
    }
}
