//! The last few packs' ciphers: making one costs a key derivation and a key schedule, and the
//! next read is nearly always from a pack that was just read.

use std::sync::{Arc, Mutex, PoisonError};

use chunk::crypt::{Cipher, PackCipher, PackId};

/// How many are kept.
const KEPT: usize = 32;

#[derive(Default)]
pub(crate) struct PackCiphers(Mutex<Vec<Arc<PackCipher>>>);

impl PackCiphers {
    pub(crate) fn get(&self, cipher: &Cipher, pack: PackId) -> Arc<PackCipher> {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let found = match kept.iter().position(|made| made.id() == pack) {
            Some(at) => kept.remove(at),
            None => Arc::new(cipher.pack(pack)),
        };
        kept.truncate(KEPT - 1);
        kept.insert(0, Arc::clone(&found));
        found
    }
}
