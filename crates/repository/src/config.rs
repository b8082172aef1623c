//! The configuration: the first object that is written and the first that is read.
//!
//! ```text
//! 0   40  header, magic "cltvconf"
//! 40  16  repository id
//! 56  1   cipher: 0 none, 1 AES-256-GCM
//! 57  7   reserved, zero
//! 64  16  key check
//! 80  8   grace age, milliseconds
//! 88  16  BLAKE3 of all before, first 16 bytes
//! ```

use chunk::crypt::{CipherKind, RepositoryId};
use chunk::header::Intent;

use crate::RepositoryError;
use crate::layout::{CONFIG, CONFIG_FORMAT};
use crate::wire::Reader;

/// The largest configuration, bytes.
pub(crate) const CONFIG_BYTES_MAX: u64 = 4096;

/// What holds for a repository for ever.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Config {
    pub(crate) repository: RepositoryId,
    pub(crate) cipher: CipherKind,
    pub(crate) key_check: [u8; 16],
    pub(crate) grace_ms: u64,
}

impl Config {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut out = CONFIG_FORMAT.header().encode().to_vec();
        out.extend_from_slice(&self.repository.0);
        out.push(match self.cipher {
            CipherKind::None => 0,
            CipherKind::Aes256Gcm => 1,
        });
        out.extend_from_slice(&[0; 7]);
        out.extend_from_slice(&self.key_check);
        out.extend_from_slice(&self.grace_ms.to_le_bytes());
        let sum = checksum(&out);
        out.extend_from_slice(&sum);
        out
    }

    /// Reads it. The checksum comes before every field, so that a flipped bit is never taken
    /// for a wrong key.
    pub(crate) fn decode(bytes: &[u8], intent: Intent) -> Result<Self, RepositoryError> {
        let (_, rest) = CONFIG_FORMAT
            .read(bytes, intent)
            .map_err(|error| RepositoryError::header(CONFIG, error))?;
        let damaged = |detail: &str| RepositoryError::damaged(CONFIG, detail);
        let (body, sum) =
            bytes.split_last_chunk::<16>().ok_or_else(|| damaged("it ends too early"))?;
        if checksum(body) != *sum {
            return Err(damaged("its checksum does not match"));
        }
        let mut fields = Reader::new(rest);
        let malformed = RepositoryError::malformed(CONFIG);
        let repository = RepositoryId(fields.array().map_err(&malformed)?);
        let cipher = match fields.u8().map_err(&malformed)? {
            0 => CipherKind::None,
            1 => CipherKind::Aes256Gcm,
            _ => return Err(damaged("an unknown cipher")),
        };
        fields.take(7).map_err(&malformed)?;
        let key_check = fields.array().map_err(&malformed)?;
        let grace_ms = fields.u64().map_err(&malformed)?;
        fields.take(16).map_err(&malformed)?;
        fields.end().map_err(&malformed)?;
        Ok(Self { repository, cipher, key_check, grace_ms })
    }
}

fn checksum(bytes: &[u8]) -> [u8; 16] {
    let mut sum = [0; 16];
    sum.copy_from_slice(&blake3::hash(bytes).as_bytes()[..16]);
    sum
}
