//! Refs: named series of numbered objects, the only thing that makes anything visible.
//!
//! `refs/<hash of kind and name>/<generation>` is *created*; generation n+1 can be created by
//! one writer only, so two hosts can never both advance a ref. Beside them lies `hint`, which is
//! overwritten and never trusted.
//!
//! Payload (before sealing; the place, and so the generation, is authenticated):
//!
//! ```text
//! 0  1   flags: bit 0 removed
//! 1  7   reserved, zero
//! 8  8   generation
//! .. ..  kind (u8 length, text), name (u8 length, text)
//! .. ..  roots: count u32, then kind u8 and id 32 each
//! .. ..  the body: whatever its owner likes, to the end
//! ```
//!
//! Reading: the highest number is the ref. A highest generation that cannot be opened is an
//! error; an older one is never taken in its place, because that would silently undo work.

use std::collections::HashMap;
use std::sync::{MutexGuard, PoisonError};

use bytes::Bytes;
use chunk::crypt::Cipher;
use model::Generation;
use objects::ObjectError;

use crate::Repository;
use crate::error::{RefError, RepositoryError};
use crate::layout::{REF_FORMAT, REF_GONE, REFS, number_of, ref_dir, ref_hint_key, ref_key};
use crate::log::{self, Salt};
use crate::probe::last_in_row;
use crate::record::Target;
use crate::wire::{Malformed, Reader, put_text, unhex};

/// The largest ref object, bytes.
const REF_BYTES_MAX: u64 = 1 << 20;
const REMOVED: u8 = 1;

/// Roots of a ref, at most.
const ROOTS_MAX: usize = 2048;

/// Tries of one generation that are remembered, at most.
const TRIES_MAX: usize = 16;

/// By a ref's stored name: the generation that was tried last without an answer, and the hashes of the objects
/// that were sent for it. An object has a salt of its own, so no other writer's has this hash.
pub(crate) type Unsure = HashMap<[u8; 32], (Generation, Vec<blake3::Hash>)>;

/// What a ref is to say.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct RefPayload {
    /// What it names, and so keeps.
    pub roots: Vec<Target>,
    /// Its owner's bytes, up to 512 KiB.
    pub body: Vec<u8>,
}

/// What a ref says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RefValue {
    /// Which advance this is.
    pub generation: Generation,
    /// What it names, and so keeps.
    pub roots: Vec<Target>,
    /// Its owner's bytes.
    pub body: Vec<u8>,
    /// When the store says that it was written, milliseconds since the Unix epoch; for people.
    /// 0 when the store was not asked.
    pub modified_unix_ms: u64,
}

/// A ref as listed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RefEntry {
    /// Kind of the ref.
    pub kind: String,
    /// Its name.
    pub name: String,
    /// What it says.
    pub value: RefValue,
}

/// A payload as it is in an object.
pub(crate) struct Opened {
    pub(crate) kind: String,
    pub(crate) name: String,
    pub(crate) removed: bool,
    pub(crate) value: RefValue,
}

/// A ref's stored name with the generations that are in the store (ascending) and when the
/// store says that each was written, milliseconds since the Unix epoch.
pub(crate) type Kept = ([u8; 32], Vec<(Generation, u64)>);

/// The refs of a repository.
#[derive(Debug, Clone, Copy)]
pub struct Refs<'a> {
    repository: &'a Repository,
}

impl<'a> Refs<'a> {
    pub(crate) fn new(repository: &'a Repository) -> Self {
        Self { repository }
    }

    /// What a ref says now; nothing when there is none, or it was removed.
    pub fn read(&self, kind: &str, name: &str) -> Result<Option<RefValue>, RefError> {
        let Some(generation) = self.current(kind, name)? else { return Ok(None) };
        self.read_at(kind, name, generation)
    }

    /// What a ref said at a generation; nothing when that is not kept, or says "removed".
    pub fn read_at(
        &self,
        kind: &str,
        name: &str,
        generation: Generation,
    ) -> Result<Option<RefValue>, RefError> {
        let stored = self.stored(kind, name)?;
        match self.open(&stored, generation) {
            Ok(opened) => Ok((!opened.removed).then_some(opened.value)),
            Err(RepositoryError::Object(ObjectError::NotFound { .. })) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// The generation at which a ref is, removed or not; nothing when it never was.
    pub fn current(&self, kind: &str, name: &str) -> Result<Option<Generation>, RefError> {
        let stored = self.stored(kind, name)?;
        let generation = self.latest(&stored)?;
        Ok((generation.0 > 0).then_some(generation))
    }

    /// Advances a ref from the generation that the caller has read (0: it never was, or see
    /// [`Self::current`] for one that was removed) to the next. All that the payload names must
    /// have been stored by finished sessions, or be kept by another ref.
    ///
    /// After [`ObjectError::Unavailable`] it may have happened or not. Who tries again from the same generation goes
    /// on from what this program itself has written meanwhile, and is not told that somebody else did: the
    /// generation that it gets is then one more.
    pub fn advance(
        &self,
        kind: &str,
        name: &str,
        from: Generation,
        payload: &RefPayload,
    ) -> Result<Generation, RefError> {
        self.write(kind, name, from, payload, 0)
    }

    /// Removes a ref. Its generations go on counting if it is ever made again.
    pub fn remove(&self, kind: &str, name: &str, from: Generation) -> Result<(), RefError> {
        self.write(kind, name, from, &RefPayload::default(), REMOVED).map(drop)
    }

    /// All refs of a kind, ordered by name; of every kind for an empty one.
    pub fn list(&self, kind: &str) -> Result<Vec<RefEntry>, RefError> {
        let mut entries = Vec::new();
        for (stored, generations) in self.all()? {
            let Some((generation, modified)) = generations.last().copied() else { continue };
            let opened = self.open(&stored, generation)?;
            if !opened.removed && (kind.is_empty() || opened.kind == kind) {
                let value = RefValue { modified_unix_ms: modified, ..opened.value };
                entries.push(RefEntry { kind: opened.kind, name: opened.name, value });
            }
        }
        entries.sort_by(|a, b| (&a.kind, &a.name).cmp(&(&b.kind, &b.name)));
        Ok(entries)
    }

    /// What a ref said at each generation that is kept, oldest first.
    pub fn history(&self, kind: &str, name: &str) -> Result<Vec<RefValue>, RefError> {
        let stored = self.stored(kind, name)?;
        let mut values = Vec::new();
        for object in self.repository.inner.objects.list(&ref_dir(&stored))? {
            let number = object.key.rsplit('/').next().and_then(number_of);
            let Some(number) = number else { continue };
            match self.open(&stored, Generation(number)) {
                Ok(opened) if opened.removed => {}
                Ok(opened) => values
                    .push(RefValue { modified_unix_ms: object.modified_unix_ms, ..opened.value }),
                // A collector was faster.
                Err(RepositoryError::Object(ObjectError::NotFound { .. })) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(values)
    }

    /// Every ref's stored name with its generations (ascending) and their times.
    pub(crate) fn all(&self) -> Result<Vec<Kept>, RepositoryError> {
        let mut refs: Vec<Kept> = Vec::new();
        for object in self.repository.inner.objects.list(REFS)? {
            let mut parts = object.key.split('/').skip(1);
            let stored = parts.next().and_then(unhex::<32>);
            let number = parts.next().and_then(number_of);
            let (Some(stored), Some(number)) = (stored, number) else { continue };
            let generation = (Generation(number), object.modified_unix_ms);
            match refs.last_mut() {
                Some((last, generations)) if *last == stored => generations.push(generation),
                _ => refs.push((stored, vec![generation])),
            }
        }
        Ok(refs)
    }

    /// Reads one generation of a ref of which only the stored name may be known.
    pub(crate) fn open(
        &self,
        stored: &[u8; 32],
        generation: Generation,
    ) -> Result<Opened, RepositoryError> {
        let key = ref_key(stored, generation);
        let bytes = self.repository.inner.objects.get(&key, REF_BYTES_MAX)?;
        open(&self.repository.inner.cipher, stored, generation, &bytes)
    }

    fn stored(&self, kind: &str, name: &str) -> Result<[u8; 32], RepositoryError> {
        if kind.is_empty() || kind.len() > 255 || name.is_empty() || name.len() > 255 {
            let detail = "kind and name have 1 to 255 bytes".to_owned();
            return Err(RepositoryError::Invalid { what: "a ref's name", detail });
        }
        Ok(self.repository.inner.cipher.stored_ref_name(kind, name))
    }

    fn latest(&self, stored: &[u8; 32]) -> Result<Generation, RepositoryError> {
        let objects = &self.repository.inner.objects;
        if objects.features().list {
            let names = objects.list_names(&ref_dir(stored))?;
            let latest = names.iter().filter_map(|name| number_of(name)).max();
            return Ok(Generation(latest.unwrap_or(0)));
        }
        let exists = |number: u64| match objects.head(&ref_key(stored, Generation(number))) {
            Ok(_) => Ok(true),
            Err(ObjectError::NotFound { .. }) => Ok(false),
            Err(error) => Err(RepositoryError::from(error)),
        };
        let hint: Option<u64> = match objects.get(&ref_hint_key(stored), 20) {
            Ok(bytes) => std::str::from_utf8(&bytes).ok().and_then(|text| text.trim().parse().ok()),
            Err(ObjectError::NotFound { .. }) => None,
            Err(error) => return Err(error.into()),
        };
        // The hint is never trusted: it only says where to begin.
        let latest = match hint.filter(|hint| *hint > 0) {
            Some(hint) if exists(hint)? => hint,
            _ => 0,
        };
        let read = |number| self.open(stored, Generation(number)).map(drop);
        last_in_row(latest, exists, read).map(Generation)
    }

    fn write(
        &self,
        kind: &str,
        name: &str,
        from: Generation,
        payload: &RefPayload,
        flags: u8,
    ) -> Result<Generation, RefError> {
        self.repository.must_be_writable()?;
        let stored = self.stored(kind, name)?;
        if payload.body.len() > REF_BYTES_MAX as usize / 2 || payload.roots.len() > ROOTS_MAX {
            let detail = "at most 2048 roots and 512 KiB of body".to_owned();
            return Err(RepositoryError::Invalid { what: "a ref's payload", detail }.into());
        }
        let fenced =
            |current| RefError::Fenced { kind: kind.to_owned(), name: name.to_owned(), current };
        let current = self.latest(&stored)?;
        if current != from && !(current == from.next() && self.is_own(&stored, current)?) {
            return Err(fenced(current));
        }
        let begun = ambient::now();
        let reliance = self.repository.hold(&payload.roots, from.0 == 0)?;
        let gone = payload.roots.iter().any(|root| matches!(root, Target::Gone(_)));
        let mut next = current.next();
        loop {
            let plain = encode(kind, name, next, payload, flags);
            let cipher = &self.repository.inner.cipher;
            let bytes = seal(cipher, &stored, next, ambient::random(), &plain, gone);
            ambient::step("ref: held");
            self.tried(&stored, next, blake3::hash(&bytes));
            let key = ref_key(&stored, next);
            match self.repository.inner.objects.put_new(&key, Bytes::from(bytes)) {
                // What was sent before has arrived only now.
                Err(ObjectError::AlreadyExists { .. })
                    if next == from.next() && self.is_own(&stored, next)? =>
                {
                    next = next.next();
                }
                Err(ObjectError::AlreadyExists { .. }) => {
                    return Err(fenced(self.latest(&stored)?.max(next)));
                }
                other => break other?,
            }
        }
        ambient::step("ref: visible");
        self.repository.still_held(&reliance, begun)?;
        self.unsure().remove(&stored);
        self.repository.inner.sessions.release(&reliance);
        // A stale hint costs a reader some requests, so its failure is not ours.
        let hint = Bytes::from(next.0.to_string());
        let _ = self.repository.inner.objects.put(&ref_hint_key(&stored), hint);
        Ok(next)
    }
}

impl Refs<'_> {
    fn unsure(&self) -> MutexGuard<'_, Unsure> {
        self.repository.inner.unsure.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// An object is about to be sent.
    fn tried(&self, stored: &[u8; 32], generation: Generation, hash: blake3::Hash) {
        let mut unsure = self.unsure();
        let (tried, hashes) = unsure.entry(*stored).or_insert((generation, Vec::new()));
        if *tried != generation {
            *tried = generation;
            hashes.clear();
        }
        if hashes.len() == TRIES_MAX {
            hashes.remove(0);
        }
        hashes.push(hash);
    }

    /// Whether a generation is what this program has sent, and not heard of.
    fn is_own(&self, stored: &[u8; 32], generation: Generation) -> Result<bool, RepositoryError> {
        let tried = self.unsure().get(stored).cloned();
        let Some((_, hashes)) = tried.filter(|(tried, _)| *tried == generation) else {
            return Ok(false);
        };
        let key = ref_key(stored, generation);
        let bytes = self.repository.inner.objects.get(&key, REF_BYTES_MAX)?;
        Ok(hashes.contains(&blake3::hash(&bytes)))
    }
}

/// The object of one generation.
pub(crate) fn seal(
    cipher: &Cipher,
    stored: &[u8; 32],
    generation: Generation,
    salt: Salt,
    plain: &[u8],
    gone: bool,
) -> Vec<u8> {
    let mut header = REF_FORMAT.header();
    header.incompatible = if gone { REF_GONE } else { 0 };
    log::seal_with(cipher, &header, &ref_key(stored, generation), salt, plain)
}

/// Opens the object of one generation.
pub(crate) fn open(
    cipher: &Cipher,
    stored: &[u8; 32],
    generation: Generation,
    bytes: &[u8],
) -> Result<Opened, RepositoryError> {
    let key = ref_key(stored, generation);
    let plain = log::open(cipher, &REF_FORMAT, &key, bytes)?;
    let opened = parse(&plain).map_err(RepositoryError::malformed(&key))?;
    let belongs = opened.value.generation == generation
        && cipher.stored_ref_name(&opened.kind, &opened.name) == *stored;
    if belongs {
        Ok(opened)
    } else {
        Err(RepositoryError::damaged(&key, "it belongs to another ref or generation"))
    }
}

pub(crate) fn encode(
    kind: &str,
    name: &str,
    generation: Generation,
    payload: &RefPayload,
    flags: u8,
) -> Vec<u8> {
    let mut out = vec![flags, 0, 0, 0, 0, 0, 0, 0];
    out.extend_from_slice(&generation.0.to_le_bytes());
    put_text(&mut out, kind);
    put_text(&mut out, name);
    out.extend_from_slice(&(payload.roots.len() as u32).to_le_bytes());
    payload.roots.iter().for_each(|root| root.put(&mut out));
    out.extend_from_slice(&payload.body);
    out
}

fn parse(plain: &[u8]) -> Result<Opened, Malformed> {
    let mut fields = Reader::new(plain);
    let flags = fields.u8()?;
    if flags > REMOVED || fields.take(7)? != [0; 7] {
        return Err(Malformed("unknown flags"));
    }
    let generation = Generation(fields.u64()?);
    let kind = fields.text()?.to_owned();
    let name = fields.text()?.to_owned();
    let roots = (0..fields.count(33)?)
        .map(|_| Target::read(&mut fields))
        .collect::<Result<_, Malformed>>()?;
    let body = fields.rest().to_vec();
    let value = RefValue { generation, roots, body, modified_unix_ms: 0 };
    Ok(Opened { kind, name, removed: flags & REMOVED != 0, value })
}
