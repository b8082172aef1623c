//! Keys, stored names, and the sealing of frames and records.
//!
//! A private repository has one 32-byte [`MasterKey`]; every other key is derived from it with
//! BLAKE3's key derivation and a context string of its own, bound to the repository's id. A
//! public repository has the same layout without secrecy: sealed messages have the same lengths
//! there and end in a checksum instead of an authentication tag.
//!
//! | what | key | nonce |
//! | --- | --- | --- |
//! | frame of a pack | derived from the random pack id | (kind, number of the frame): a counter |
//! | record (ref payload, index, ..) | derived from a random salt that is stored in front | zero |
//! | stored name of a chunk | name key, keyed hash | |
//!
//! # Invariants
//!
//! * No pair of key and nonce is used twice. A pack id is random and a pack is written once, by
//!   one writer, which counts its frames. A record has a key of its own for each sealing, also
//!   when two hosts race to create the same one, because each brings its own salt.
//! * This module makes no randomness: pack ids and salts are arguments, and **must** come from
//!   the operating system's generator.
//! * Key material is overwritten when it is dropped and never printed.
//!
//! # What fails how
//!
//! A wrong key is told apart from damage by [`Cipher::key_check`], which is kept in the
//! repository's configuration and compared before anything else is opened. After that, what
//! does not open is [`Damaged`].

use std::fmt;

use aes_gcm::aead::{AeadInOut, KeyInit};
use aes_gcm::{Aes256Gcm, Nonce, Tag};
use model::ChunkId;
use zeroize::{Zeroize, Zeroizing};

/// Bytes that sealing adds to a frame: the tag.
pub const TAG_BYTES: usize = 16;
/// Bytes of the salt in front of a record.
pub const SALT_BYTES: usize = 32;
/// Bytes that sealing adds to a record: salt and tag.
pub const RECORD_OVERHEAD_BYTES: usize = SALT_BYTES + TAG_BYTES;
/// Bytes of the name under which a repository knows a chunk.
pub const STORED_NAME_BYTES: usize = 16;

/// The name under which a repository knows a chunk. In a private one nobody can compute it, nor
/// go back from it to the id, without the key.
pub type StoredName = [u8; STORED_NAME_BYTES];

/// The sealed bytes are not what was sealed, or not where they were sealed for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("does not open: the bytes are damaged, or belong to another place")]
pub struct Damaged;

/// The key is not the one that the repository was made with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("this is not the repository's key")]
pub struct WrongKey;

/// The one secret of a private repository: whoever has it reads everything.
pub struct MasterKey(Zeroizing<[u8; 32]>);

impl MasterKey {
    /// Takes 32 random bytes; the caller wipes its own copy.
    pub fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(Zeroizing::new(bytes))
    }

    /// The secret itself, for storing and exporting it.
    pub fn expose(&self) -> &[u8; 32] {
        &self.0
    }
}

impl Clone for MasterKey {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl fmt::Debug for MasterKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("MasterKey(redacted)")
    }
}

/// Random; names one repository for ever. Everything sealed is bound to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct RepositoryId(pub [u8; 16]);

/// Random; names one pack, and makes its key unique.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PackId(pub [u8; 32]);

/// What a sealed message inside a pack is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum FrameKind {
    /// A frame of chunks.
    Chunks,
    /// The table of the pack's frames, at its end.
    Table,
}

impl FrameKind {
    fn number(self) -> u8 {
        match self {
            Self::Chunks => 0,
            Self::Table => 1,
        }
    }
}

/// How a repository seals what it stores.
///
/// Cheap to share, costly to make: one for each open repository.
#[derive(Debug)]
pub struct Cipher {
    repository: RepositoryId,
    keys: Option<Keys>,
}

/// The keys of a private repository.
struct Keys {
    pack: Zeroizing<[u8; 32]>,
    record: Zeroizing<[u8; 32]>,
    chunk_name: Zeroizing<[u8; 32]>,
    ref_name: Zeroizing<[u8; 32]>,
    check: [u8; 16],
}

impl fmt::Debug for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Keys(redacted)")
    }
}

/// How a repository's configuration names its cipher.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum CipherKind {
    /// Public: anyone who reads the store reads everything.
    None,
    /// Private: AES-256-GCM.
    Aes256Gcm,
}

impl Cipher {
    /// For a public repository.
    pub fn none(repository: RepositoryId) -> Self {
        Self { repository, keys: None }
    }

    /// For a private repository.
    pub fn aes256gcm(master: &MasterKey, repository: RepositoryId) -> Self {
        let key = |context| derive(context, &[master.expose(), &repository.0]);
        let mut check = [0; 16];
        check.copy_from_slice(&key("collective 2026 key check")[..16]);
        let keys = Keys {
            pack: key("collective 2026 pack root key"),
            record: key("collective 2026 record root key"),
            chunk_name: key("collective 2026 chunk name key"),
            ref_name: key("collective 2026 ref name key"),
            check,
        };
        Self { repository, keys: Some(keys) }
    }

    /// Which one it is.
    pub fn kind(&self) -> CipherKind {
        if self.keys.is_some() { CipherKind::Aes256Gcm } else { CipherKind::None }
    }

    /// The repository that everything sealed is bound to.
    pub fn repository(&self) -> RepositoryId {
        self.repository
    }

    /// A value that tells whether a key is this repository's without telling anything about the
    /// key. Kept in the repository's configuration. All zero in a public one.
    pub fn key_check(&self) -> [u8; 16] {
        self.keys.as_ref().map_or([0; 16], |keys| keys.check)
    }

    /// Compares the key with the repository's recorded check value.
    pub fn verify_key(&self, recorded: &[u8; 16]) -> Result<(), WrongKey> {
        if self.key_check() == *recorded { Ok(()) } else { Err(WrongKey) }
    }

    /// The name under which this repository knows a chunk.
    pub fn stored_name(&self, id: &ChunkId) -> StoredName {
        let mut name = [0; STORED_NAME_BYTES];
        match &self.keys {
            None => name.copy_from_slice(&id.as_bytes()[..STORED_NAME_BYTES]),
            Some(keys) => {
                let hash = blake3::keyed_hash(&keys.chunk_name, id.as_bytes());
                name.copy_from_slice(&hash.as_bytes()[..STORED_NAME_BYTES]);
            }
        }
        name
    }

    /// The name of a ref's directory in the store: a keyed hash in a private repository, a plain
    /// one in a public one. `kind` and `name` do not run into each other.
    pub fn stored_ref_name(&self, kind: &str, name: &str) -> [u8; 32] {
        let mut hasher = match &self.keys {
            None => blake3::Hasher::new_derive_key("collective 2026 public ref name"),
            Some(keys) => blake3::Hasher::new_keyed(&keys.ref_name),
        };
        hasher.update(&(kind.len() as u64).to_le_bytes()).update(kind.as_bytes());
        *hasher.update(name.as_bytes()).finalize().as_bytes()
    }

    /// The sealer of one pack. `pack` must be fresh from the operating system's generator when
    /// the pack is written; when it is read, it is the pack's name.
    pub fn pack(&self, pack: PackId) -> PackCipher {
        let keys = self.keys.as_ref();
        let key = keys.map(|keys| derive("collective 2026 pack key", &[&*keys.pack, &pack.0]));
        PackCipher { repository: self.repository, pack, seal: Seal::new(key) }
    }

    /// Seals a record of the repository: whatever is small and not in a pack. `place` says where
    /// it belongs (for example its object key): it opens nowhere else. `salt` must be fresh from
    /// the operating system's generator for every call.
    ///
    /// The result is salt, sealed bytes, tag: [`RECORD_OVERHEAD_BYTES`] more than `plain`.
    pub fn seal_record(&self, place: &str, salt: [u8; SALT_BYTES], plain: &[u8]) -> Vec<u8> {
        let mut sealed = Vec::with_capacity(plain.len() + RECORD_OVERHEAD_BYTES);
        sealed.extend_from_slice(&salt);
        sealed.extend_from_slice(plain);
        let context = self.record_context(place, &salt);
        let tag = self.record_seal(&salt).close(&[0; 12], &context, &mut sealed[SALT_BYTES..]);
        sealed.extend_from_slice(&tag);
        sealed
    }

    /// Opens a record that was sealed for this place.
    pub fn open_record(&self, place: &str, sealed: &[u8]) -> Result<Vec<u8>, Damaged> {
        let (salt, rest) = sealed.split_first_chunk::<SALT_BYTES>().ok_or(Damaged)?;
        let (body, tag) = rest.split_last_chunk::<TAG_BYTES>().ok_or(Damaged)?;
        let mut plain = body.to_vec();
        let context = self.record_context(place, salt);
        self.record_seal(salt).open(&[0; 12], &context, &mut plain, tag)?;
        Ok(plain)
    }

    /// Seals the payload of a ref's generation: [`Self::seal_record`] at the place that the
    /// ref's kind, name and generation are.
    pub fn seal_ref(
        &self,
        kind: &str,
        name: &str,
        generation: u64,
        salt: [u8; SALT_BYTES],
        payload: &[u8],
    ) -> Vec<u8> {
        self.seal_record(&self.ref_place(kind, name, generation), salt, payload)
    }

    /// Opens the payload of a ref's generation, when the name is known.
    pub fn open_ref(
        &self,
        kind: &str,
        name: &str,
        generation: u64,
        sealed: &[u8],
    ) -> Result<Vec<u8>, Damaged> {
        self.open_record(&self.ref_place(kind, name, generation), sealed)
    }

    /// Opens the payload of a ref's generation when only its stored name is known: for listing.
    pub fn open_stored_ref(
        &self,
        stored_name: &[u8; 32],
        generation: u64,
        sealed: &[u8],
    ) -> Result<Vec<u8>, Damaged> {
        self.open_record(&ref_place(stored_name, generation), sealed)
    }

    fn ref_place(&self, kind: &str, name: &str, generation: u64) -> String {
        // The stored name stands for the name: it is a hash of it, and a listing knows only it.
        ref_place(&self.stored_ref_name(kind, name), generation)
    }

    fn record_seal(&self, salt: &[u8; SALT_BYTES]) -> Seal {
        let keys = self.keys.as_ref();
        Seal::new(keys.map(|keys| derive("collective 2026 record key", &[&*keys.record, salt])))
    }

    fn record_context(&self, place: &str, salt: &[u8; SALT_BYTES]) -> Vec<u8> {
        [b"record".as_slice(), &self.repository.0, salt, place.as_bytes()].concat()
    }
}

fn ref_place(stored_name: &[u8; 32], generation: u64) -> String {
    format!("refs/{}/{generation:020}", ChunkId::from_bytes(*stored_name))
}

/// Seals and opens the frames of one pack.
pub struct PackCipher {
    repository: RepositoryId,
    pack: PackId,
    seal: Seal,
}

impl fmt::Debug for PackCipher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PackCipher({})", ChunkId::from_bytes(self.pack.0).short())
    }
}

impl PackCipher {
    /// Which pack.
    pub fn id(&self) -> PackId {
        self.pack
    }

    /// Seals one frame in place; it grows by [`TAG_BYTES`]. A writer counts: the same
    /// (kind, number) must never be sealed twice with different bytes.
    pub fn seal(&self, kind: FrameKind, number: u32, frame: &mut Vec<u8>) {
        let tag = self.seal.close(&nonce(kind, number), &self.context(kind, number), frame);
        frame.extend_from_slice(&tag);
    }

    /// Opens one frame in place; it shrinks by [`TAG_BYTES`]. On an error its content is
    /// unspecified.
    pub fn open(&self, kind: FrameKind, number: u32, frame: &mut Vec<u8>) -> Result<(), Damaged> {
        let tag = *frame.last_chunk::<TAG_BYTES>().ok_or(Damaged)?;
        frame.truncate(frame.len() - TAG_BYTES);
        self.seal.open(&nonce(kind, number), &self.context(kind, number), frame, &tag)
    }

    fn context(&self, kind: FrameKind, number: u32) -> Vec<u8> {
        let kind = [kind.number()];
        [b"frame".as_slice(), &self.repository.0, &self.pack.0, &kind, &number.to_le_bytes()]
            .concat()
    }
}

fn nonce(kind: FrameKind, number: u32) -> [u8; 12] {
    let mut nonce = [0; 12];
    nonce[..4].copy_from_slice(&number.to_le_bytes());
    nonce[4] = kind.number();
    nonce
}

/// One key, ready for use; or none, and then a checksum.
enum Seal {
    None,
    Aes256Gcm(Box<Aes256Gcm>),
}

impl Seal {
    fn new(key: Option<Zeroizing<[u8; 32]>>) -> Self {
        match key {
            None => Self::None,
            Some(key) => Self::Aes256Gcm(Box::new(Aes256Gcm::new((&*key).into()))),
        }
    }

    fn close(&self, nonce: &[u8; 12], context: &[u8], bytes: &mut [u8]) -> [u8; TAG_BYTES] {
        match self {
            Self::None => checksum(context, bytes),
            Self::Aes256Gcm(cipher) => {
                let nonce = Nonce::from(*nonce);
                let tag = cipher.encrypt_inout_detached(&nonce, context, bytes.into());
                // It fails only beyond 64 GiB in one message; ours are bounded far below.
                tag.expect("a message of less than 64 GiB").into()
            }
        }
    }

    fn open(
        &self,
        nonce: &[u8; 12],
        context: &[u8],
        bytes: &mut [u8],
        tag: &[u8; TAG_BYTES],
    ) -> Result<(), Damaged> {
        match self {
            Self::None if checksum(context, bytes) == *tag => Ok(()),
            Self::None => Err(Damaged),
            Self::Aes256Gcm(cipher) => {
                let (nonce, tag) = (Nonce::from(*nonce), Tag::from(*tag));
                cipher
                    .decrypt_inout_detached(&nonce, context, bytes.into(), &tag)
                    .map_err(|_| Damaged)
            }
        }
    }
}

/// What stands in the tag's place in a public repository: it finds bit flips and misplaced
/// bytes, and stops nobody who wants to deceive; ids and signatures do that.
fn checksum(context: &[u8], bytes: &[u8]) -> [u8; TAG_BYTES] {
    let mut hasher = blake3::Hasher::new_derive_key("collective 2026 public checksum");
    hasher.update(&(context.len() as u64).to_le_bytes()).update(context).update(bytes);
    let mut tag = [0; TAG_BYTES];
    tag.copy_from_slice(&hasher.finalize().as_bytes()[..TAG_BYTES]);
    tag
}

fn derive(context: &'static str, material: &[&[u8]]) -> Zeroizing<[u8; 32]> {
    let mut hasher = blake3::Hasher::new_derive_key(context);
    for part in material {
        hasher.update(part);
    }
    let mut hash = hasher.finalize();
    let key = Zeroizing::new(*hash.as_bytes());
    hash.zeroize();
    hasher.zeroize();
    key
}

#[cfg(test)]
mod tests {
    use super::*;

    const REPOSITORY: RepositoryId = RepositoryId([7; 16]);

    fn private(key: u8) -> Cipher {
        Cipher::aes256gcm(&MasterKey::from_bytes([key; 32]), REPOSITORY)
    }

    fn both() -> [Cipher; 2] {
        [private(1), Cipher::none(REPOSITORY)]
    }

    fn sealed_frame(cipher: &Cipher) -> Vec<u8> {
        let mut frame = b"some frame".to_vec();
        cipher.pack(PackId([9; 32])).seal(FrameKind::Chunks, 3, &mut frame);
        frame
    }

    #[test]
    fn frames_open_where_they_were_sealed_and_nowhere_else() {
        for cipher in both() {
            let sealed = sealed_frame(&cipher);
            assert_eq!(sealed.len(), 10 + TAG_BYTES);
            let open = |cipher: &Cipher, pack, kind, number| {
                let mut frame = sealed.clone();
                cipher.pack(PackId([pack; 32])).open(kind, number, &mut frame).map(|()| frame)
            };
            assert_eq!(
                open(&cipher, 9, FrameKind::Chunks, 3).as_deref(),
                Ok(b"some frame".as_slice())
            );
            assert_eq!(open(&cipher, 8, FrameKind::Chunks, 3), Err(Damaged));
            assert_eq!(open(&cipher, 9, FrameKind::Table, 3), Err(Damaged));
            assert_eq!(open(&cipher, 9, FrameKind::Chunks, 4), Err(Damaged));
            assert_eq!(open(&private(2), 9, FrameKind::Chunks, 3), Err(Damaged));
            let elsewhere = Cipher::none(RepositoryId([8; 16]));
            assert_eq!(open(&elsewhere, 9, FrameKind::Chunks, 3), Err(Damaged));
        }
    }

    #[test]
    fn every_flipped_bit_and_every_cut_of_a_frame_is_noticed() {
        for cipher in both() {
            let sealed = sealed_frame(&cipher);
            let pack = cipher.pack(PackId([9; 32]));
            for bit in 0..sealed.len() * 8 {
                let mut frame = sealed.clone();
                frame[bit / 8] ^= 1 << (bit % 8);
                assert_eq!(pack.open(FrameKind::Chunks, 3, &mut frame), Err(Damaged), "{bit}");
            }
            for len in 0..sealed.len() {
                let mut frame = sealed[..len].to_vec();
                assert_eq!(pack.open(FrameKind::Chunks, 3, &mut frame), Err(Damaged), "{len}");
            }
        }
    }

    #[test]
    fn every_flipped_bit_and_every_cut_of_a_record_is_noticed() {
        for cipher in both() {
            let sealed = cipher.seal_record("index/1", [5; 32], b"payload");
            assert_eq!(sealed.len(), 7 + RECORD_OVERHEAD_BYTES);
            assert_eq!(
                cipher.open_record("index/1", &sealed).as_deref(),
                Ok(b"payload".as_slice())
            );
            assert_eq!(cipher.open_record("index/2", &sealed), Err(Damaged));
            for bit in 0..sealed.len() * 8 {
                let mut record = sealed.clone();
                record[bit / 8] ^= 1 << (bit % 8);
                assert_eq!(cipher.open_record("index/1", &record), Err(Damaged), "{bit}");
            }
            for len in 0..sealed.len() {
                assert_eq!(cipher.open_record("index/1", &sealed[..len]), Err(Damaged), "{len}");
            }
        }
    }

    #[test]
    fn racers_share_no_key_stream() {
        // Two payloads for the same generation of the same ref, as two hosts would seal them:
        // the salts differ, so equal plaintext gives unrelated bytes.
        let cipher = private(1);
        let first = cipher.seal_ref("instance", "t1", 4, [1; 32], &[0; 64]);
        let second = cipher.seal_ref("instance", "t1", 4, [2; 32], &[0; 64]);
        let equal = first[SALT_BYTES..].iter().zip(&second[SALT_BYTES..]).filter(|(a, b)| a == b);
        assert!(equal.count() < 8);
    }

    #[test]
    fn a_ref_opens_by_name_and_by_stored_name_at_its_own_generation() {
        for cipher in both() {
            let sealed = cipher.seal_ref("instance", "t1", 4, [1; 32], b"head");
            assert_eq!(cipher.open_ref("instance", "t1", 4, &sealed).unwrap(), b"head");
            let stored = cipher.stored_ref_name("instance", "t1");
            assert_eq!(cipher.open_stored_ref(&stored, 4, &sealed).unwrap(), b"head");
            assert_eq!(cipher.open_ref("instance", "t1", 5, &sealed), Err(Damaged));
            assert_eq!(cipher.open_ref("instance", "t2", 4, &sealed), Err(Damaged));
            assert_eq!(cipher.open_ref("instanc", "et1", 4, &sealed), Err(Damaged));
        }
    }

    #[test]
    fn a_wrong_key_is_told_apart() {
        let recorded = private(1).key_check();
        assert_eq!(private(1).verify_key(&recorded), Ok(()));
        assert_eq!(private(2).verify_key(&recorded), Err(WrongKey));
        assert_eq!(Cipher::none(REPOSITORY).verify_key(&recorded), Err(WrongKey));
        assert_eq!(Cipher::none(REPOSITORY).verify_key(&[0; 16]), Ok(()));
    }

    #[test]
    fn stored_names_tell_nothing_without_the_key() {
        let id = crate::id_of(b"page");
        assert_eq!(Cipher::none(REPOSITORY).stored_name(&id), id.as_bytes()[..16]);
        assert_ne!(private(1).stored_name(&id), id.as_bytes()[..16]);
        assert_ne!(private(1).stored_name(&id), private(2).stored_name(&id));
        let elsewhere = Cipher::aes256gcm(&MasterKey::from_bytes([1; 32]), RepositoryId([8; 16]));
        assert_ne!(private(1).stored_name(&id), elsewhere.stored_name(&id));
    }

    #[test]
    fn secrets_are_not_printed() {
        let key = MasterKey::from_bytes([0xab; 32]);
        assert_eq!(format!("{key:?}"), "MasterKey(redacted)");
        let printed = format!("{:?}{:?}", private(0xab), private(0xab).pack(PackId([0; 32])));
        assert!(!printed.contains("171") && !printed.contains("ab,"), "{printed}");
    }
}
