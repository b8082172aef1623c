//! Stores across a network, through the crate `object_store`.
//!
//! Timeouts: an attempt to connect and each silence while reading are bounded, and so is the whole of
//! an object, read or written, by its size and the slowest link that is borne ([`Patience`]). So a
//! server that sends a byte now and then ends, too.
//!
//! Retries: bounded in number and, for what is only read, in time, with doubling, jittered pauses. All retrying happens here and
//! none in `object_store`, because only here is it known what a lost answer means: after a
//! create whose outcome is unknown, the object is read back, and if it holds our bytes we
//! created it (see [`Objects::put_new`]).

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures::StreamExt;
use object_store::path::Path;
use object_store::{
    Error, GetOptions, GetRange, ObjectStore, ObjectStoreExt, PutMode, PutOptions, PutPayload,
};

use crate::key::{check_key, check_prefix};
use crate::whole::Whole;
use crate::{Features, ObjectError, ObjectMeta, Objects, runtime};

/// How long a store across a network may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Patience {
    /// To open a connection, and for each silence while an answer arrives.
    pub silence: Duration,
    /// The slowest acceptable upload of all that is written at once, bytes per second; a write may
    /// take `silence` plus their bytes at this rate: what shares a line is slow together.
    pub upload_bytes_per_s: u64,
    /// The slowest acceptable download of all that is read at once, bytes per second; a read may
    /// take twice `silence` plus their bytes at this rate.
    pub download_bytes_per_s: u64,
    /// Attempts altogether, at least 1.
    pub attempts: u32,
    /// The pause before the second attempt; doubles each time, up to 5 s.
    pub pause: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Self {
            silence: Duration::from_secs(20),
            upload_bytes_per_s: 16 << 10,
            download_bytes_per_s: 16 << 10,
            attempts: 5,
            pause: Duration::from_millis(100),
        }
    }
}

const PAUSE_MAX: Duration = Duration::from_secs(5);
/// How often it is looked whether more has come to share a way.
const LOOK: Duration = Duration::from_millis(250);

/// A store across a network.
#[derive(Clone)]
pub struct Remote {
    store: Arc<dyn ObjectStore>,
    prefix: String,
    location: String,
    features: Features,
    patience: Patience,
    whole: Arc<Whole>,
    reading: Arc<AtomicU64>,
    writing: Arc<AtomicU64>,
}

/// Bytes that are on their way in one direction, these among them.
struct Way<'a> {
    all: &'a AtomicU64,
    bytes: u64,
    bytes_per_s: u64,
}

impl<'a> Way<'a> {
    fn new(all: &'a AtomicU64, bytes: u64, bytes_per_s: u64) -> Self {
        all.fetch_add(bytes, Ordering::Relaxed);
        Self { all, bytes, bytes_per_s: bytes_per_s.max(1) }
    }

    /// How long all that is under way takes at the slowest rate.
    fn at_rate(&self) -> Duration {
        Duration::from_secs_f64(self.all.load(Ordering::Relaxed) as f64 / self.bytes_per_s as f64)
    }
}

impl Drop for Way<'_> {
    fn drop(&mut self) {
        self.all.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

impl Remote {
    /// Any store of the crate `object_store`, with its keys below `prefix` (may be empty).
    pub fn new(
        store: Arc<dyn ObjectStore>,
        prefix: &str,
        location: &str,
        features: Features,
        patience: Patience,
    ) -> Self {
        let prefix = prefix.trim_matches('/').to_owned();
        let (location, whole) = (location.to_owned(), Arc::default());
        let (reading, writing) = Default::default();
        Self { store, prefix, location, features, patience, whole, reading, writing }
    }

    fn path(&self, key: &str) -> Path {
        if self.prefix.is_empty() {
            Path::from(key)
        } else {
            Path::from(format!("{}/{key}", self.prefix))
        }
    }

    fn key_of(&self, path: &Path) -> Option<String> {
        let key = if self.prefix.is_empty() {
            path.as_ref()
        } else {
            path.as_ref().strip_prefix(&self.prefix)?.strip_prefix('/')?
        };
        check_key(key).is_ok().then(|| key.to_owned())
    }

    fn error(&self, key: &str, error: &Error) -> ObjectError {
        let (location, key) = (self.location.clone(), key.to_owned());
        let detail = chain(error);
        match error {
            Error::NotFound { .. } => ObjectError::NotFound { key },
            Error::AlreadyExists { .. }
            | Error::Precondition { .. }
            | Error::NotModified { .. } => ObjectError::AlreadyExists { key },
            Error::PermissionDenied { .. } | Error::Unauthenticated { .. } => {
                ObjectError::Denied { location, key, detail }
            }
            Error::NotSupported { .. } | Error::NotImplemented { .. } => {
                // A web server that ignores the one thing that is asked of it beyond GET.
                let operation = if detail.contains("Range request") {
                    "serve a part of a file (HTTP range requests)".to_owned()
                } else {
                    format!("do this: {detail}")
                };
                ObjectError::Unsupported { location, operation }
            }
            _ if says_full(&detail) => ObjectError::NoSpace { location, detail },
            _ => ObjectError::Unavailable { location, detail },
        }
    }

    fn silent(&self) -> ObjectError {
        ObjectError::Unavailable {
            location: self.location.clone(),
            detail: "no answer in time".to_owned(),
        }
    }

    async fn within<T>(
        &self,
        limit: Duration,
        future: impl Future<Output = Result<T, ObjectError>>,
    ) -> Result<T, ObjectError> {
        tokio::time::timeout(limit, future).await.unwrap_or_else(|_| Err(self.silent()))
    }

    /// Waits as long as all that shares its way may take, `silence` longer: what began later and
    /// made it slower counts too.
    async fn shared<T>(
        &self,
        way: &Way<'_>,
        future: impl Future<Output = Result<T, ObjectError>>,
    ) -> Result<T, ObjectError> {
        let began = ambient::now();
        let mut future = std::pin::pin!(future);
        let mut limit = Duration::ZERO;
        loop {
            limit = limit.max(self.patience.silence + way.at_rate());
            let left = limit.saturating_sub(began.elapsed());
            if left.is_zero() {
                return Err(self.silent());
            }
            if let Ok(done) = tokio::time::timeout(left.min(LOOK), &mut future).await {
                return done;
            }
        }
    }

    async fn pause(&self, attempt: u32) {
        let doubled = self.patience.pause.saturating_mul(1 << attempt.min(16)).min(PAUSE_MAX);
        // Jitter between half and whole, so that many hosts do not return at once.
        let [chance] = ambient::random::<1>();
        tokio::time::sleep(doubled / 2 + doubled / 2 * u32::from(chance) / 255).await;
    }

    /// Repeats what may be repeated freely while the store is unavailable. What has taken as long as
    /// all attempts would in silence is not begun again: it was slow, and would be.
    async fn retry<T, F: Future<Output = Result<T, ObjectError>>>(
        &self,
        act: impl Fn() -> F,
    ) -> Result<T, ObjectError> {
        let began = ambient::now();
        let limit = self.patience.silence.saturating_mul(self.patience.attempts);
        let mut attempt = 0;
        loop {
            match act().await {
                Err(error)
                    if error.is_transient()
                        && attempt + 1 < self.patience.attempts
                        && began.elapsed() < limit =>
                {
                    self.pause(attempt).await;
                    attempt += 1;
                }
                other => return other,
            }
        }
    }

    async fn read(&self, key: &str, range: Range) -> Result<Bytes, ObjectError> {
        let range_wanted = match range {
            Range::Whole { .. } => None,
            Range::Part { offset, bytes } => Some(GetRange::Bounded(offset..offset + bytes)),
        };
        let options = GetOptions { range: range_wanted, ..GetOptions::default() };
        let path = self.path(key);
        // Its first byte comes behind all that shares the way.
        let ahead = Way::new(&self.reading, 0, self.patience.download_bytes_per_s);
        let answer = self
            .shared(&ahead, async {
                let answer = self.store.get_opts(&path, options).await;
                answer.map_err(|error| self.error(key, &error))
            })
            .await;
        let answer = match (answer, range) {
            (Ok(answer), _) => answer,
            (Err(error), Range::Part { offset, bytes }) => {
                return Err(self.why_no_range(key, offset + bytes, error).await);
            }
            (Err(error), Range::Whole { .. }) => return Err(error),
        };
        let found = answer.range.clone();
        let bytes_max = match range {
            Range::Whole { bytes_max } => bytes_max,
            Range::Part { offset, bytes } => {
                if found != (offset..offset + bytes) {
                    let (key, wanted, found) = (key.to_owned(), offset + bytes, found.end);
                    return Err(ObjectError::Truncated { key, wanted, found });
                }
                bytes
            }
        };
        let too_large = || ObjectError::TooLarge { key: key.to_owned(), bytes_max };
        if found.end - found.start > bytes_max {
            return Err(too_large());
        }
        let mut body = BytesMut::with_capacity((found.end - found.start) as usize);
        let mut stream = answer.into_stream();
        let bytes = found.end - found.start;
        let way = Way::new(&self.reading, bytes, self.patience.download_bytes_per_s);
        self.shared(&way, async {
            loop {
                // Others may have the way for as long as what is theirs takes.
                let silence = self.patience.silence.max(way.at_rate());
                let next = self.within(silence, async { Ok(stream.next().await) });
                match next.await? {
                    None => return Ok(()),
                    Some(part) => body.extend_from_slice(&part.map_err(|e| self.error(key, &e))?),
                }
                if body.len() as u64 > bytes_max {
                    return Err(too_large());
                }
            }
        })
        .await?;
        if let Range::Part { offset, bytes } = range
            && body.len() as u64 != bytes
        {
            let (key, wanted, found) = (key.to_owned(), offset + bytes, offset + body.len() as u64);
            return Err(ObjectError::Truncated { key, wanted, found });
        }
        Ok(body.freeze())
    }

    /// Stores word it differently when a range begins behind the object's end: ask for its size.
    async fn why_no_range(&self, key: &str, wanted: u64, error: ObjectError) -> ObjectError {
        let ObjectError::Unavailable { detail, .. } = &error else { return error };
        let status = answer_in(detail).is_some_and(|answer| answer.starts_with("416"));
        if !status && !detail.to_lowercase().contains("range") {
            return error;
        }
        match self.look(key).await {
            Ok(meta) if meta.bytes < wanted => {
                ObjectError::Truncated { key: key.to_owned(), wanted, found: meta.bytes }
            }
            _ => error,
        }
    }

    async fn write(&self, key: &str, bytes: &Bytes, mode: PutMode) -> Result<(), ObjectError> {
        let len = bytes.len() as u64;
        let way = Way::new(&self.writing, len, self.patience.upload_bytes_per_s);
        self.shared(&way, async {
            let options = PutOptions { mode, ..PutOptions::default() };
            let payload = PutPayload::from_bytes(bytes.clone());
            let put = self.store.put_opts(&self.path(key), payload, options).await;
            put.map(|_| ()).map_err(|error| self.error(key, &error))
        })
        .await
    }

    async fn create(&self, key: &str, bytes: &Bytes) -> Result<(), ObjectError> {
        let mut in_doubt = false;
        let mut attempt = 0;
        loop {
            let result = self.write(key, bytes, PutMode::Create).await;
            let result = match result {
                Err(ObjectError::AlreadyExists { .. }) => self.whose(key, bytes, in_doubt).await,
                other => other,
            };
            match result {
                Err(error) if error.is_transient() && attempt + 1 < self.patience.attempts => {
                    in_doubt = true;
                    self.pause(attempt).await;
                    attempt += 1;
                }
                other => return other,
            }
        }
    }

    /// The store says that the key is taken. If an earlier attempt of ours was left in doubt,
    /// look whose bytes are there. A store may also answer so while another's create is under
    /// way that will fail: then nothing is there, and we try again.
    async fn whose(&self, key: &str, bytes: &Bytes, in_doubt: bool) -> Result<(), ObjectError> {
        let taken = Err(ObjectError::AlreadyExists { key: key.to_owned() });
        let found = if in_doubt {
            let range = Range::Whole { bytes_max: crate::OBJECT_BYTES_MAX };
            self.read(key, range).await.map(|there| there == *bytes)
        } else {
            self.look(key).await.map(|_| false)
        };
        match found {
            Ok(true) => Ok(()),
            Ok(false) => taken,
            Err(ObjectError::NotFound { .. }) => Err(ObjectError::Unavailable {
                location: self.location.clone(),
                detail: format!("conflicting writes to {key}"),
            }),
            Err(error) if error.is_transient() && in_doubt => Err(error),
            Err(_) => taken,
        }
    }

    async fn look(&self, key: &str) -> Result<ObjectMeta, ObjectError> {
        self.within(self.patience.silence, async {
            let meta = self.store.head(&self.path(key)).await.map_err(|e| self.error(key, &e))?;
            Ok(meta_of(key.to_owned(), &meta))
        })
        .await
    }

    async fn collect(&self, prefix: &str) -> Result<Vec<ObjectMeta>, ObjectError> {
        let path = match (self.prefix.is_empty(), prefix.is_empty()) {
            (true, true) => None,
            (false, true) => Some(Path::from(self.prefix.as_str())),
            _ => Some(self.path(prefix)),
        };
        let mut stream = self.store.list(path.as_ref());
        let mut objects = Vec::new();
        loop {
            let next = self.within(self.patience.silence, async { Ok(stream.next().await) });
            let Some(meta) = next.await? else { break };
            let meta = meta.map_err(|error| self.error(prefix, &error))?;
            if let Some(key) = self.key_of(&meta.location) {
                objects.push(meta_of(key, &meta));
            }
        }
        objects.sort_by(|a, b| a.key.cmp(&b.key));
        Ok(objects)
    }

    fn may_write(&self) -> Result<(), ObjectError> {
        if self.features.write {
            Ok(())
        } else {
            Err(ObjectError::ReadOnly { location: self.location.clone() })
        }
    }

    fn may_list(&self) -> Result<(), ObjectError> {
        if self.features.list {
            return Ok(());
        }
        let (location, operation) = (self.location.clone(), "list its objects".to_owned());
        Err(ObjectError::Unsupported { location, operation })
    }
}

#[derive(Debug, Clone, Copy)]
enum Range {
    Whole { bytes_max: u64 },
    Part { offset: u64, bytes: u64 },
}

fn meta_of(key: String, meta: &object_store::ObjectMeta) -> ObjectMeta {
    let modified_unix_ms = u64::try_from(meta.last_modified.timestamp_millis()).unwrap_or(0);
    ObjectMeta { key, bytes: meta.size, modified_unix_ms }
}

/// What the server answered, its status code first, in an error's text: the library has it as
/// text only, behind the request's address and duration, whose digits mean nothing.
fn answer_in(detail: &str) -> Option<&str> {
    let (_, answer) = detail.split_once("non-2xx status code: ")?;
    Some(answer)
}

fn says_full(detail: &str) -> bool {
    let answer = answer_in(detail).unwrap_or_default();
    let codes = ["StorageFull", "InsufficientStorage", "QuotaExceeded"];
    answer.starts_with("507")
        || codes.iter().any(|code| answer.contains(code))
        || detail.contains("No space left")
}

/// An error and its causes in one line, bounded.
fn chain(error: &Error) -> String {
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(inner) = cause {
        let inner_text = inner.to_string();
        if !text.contains(&inner_text) {
            text = format!("{text}: {inner_text}");
        }
        cause = inner.source();
    }
    text.replace('\n', " ").chars().take(600).collect()
}

impl Objects for Remote {
    fn get(&self, key: &str, bytes_max: u64) -> Result<Bytes, ObjectError> {
        check_key(key)?;
        let (this, key) = (self.clone(), key.to_owned());
        runtime::wait(
            async move { this.retry(|| this.read(&key, Range::Whole { bytes_max })).await },
        )
    }

    fn get_range(&self, key: &str, offset: u64, bytes: u64) -> Result<Bytes, ObjectError> {
        check_key(key)?;
        if bytes == 0 {
            return Ok(Bytes::new());
        }
        if bytes > crate::OBJECT_BYTES_MAX || offset.checked_add(bytes).is_none() {
            let (key, wanted) = (key.to_owned(), offset.saturating_add(bytes));
            return Err(ObjectError::Truncated { key, wanted, found: 0 });
        }
        if self.whole.is_needed() {
            return self.whole.part(self, key, offset, bytes);
        }
        let (this, name) = (self.clone(), key.to_owned());
        let read = runtime::wait(async move {
            this.retry(|| this.read(&name, Range::Part { offset, bytes })).await
        });
        match read {
            Err(ObjectError::Unsupported { .. }) => self.whole.part(self, key, offset, bytes),
            other => other,
        }
    }

    fn put_new(&self, key: &str, bytes: Bytes) -> Result<(), ObjectError> {
        check_key(key)?;
        self.may_write()?;
        let (this, key) = (self.clone(), key.to_owned());
        runtime::wait(async move { this.create(&key, &bytes).await })
    }

    fn put(&self, key: &str, bytes: Bytes) -> Result<(), ObjectError> {
        check_key(key)?;
        self.may_write()?;
        let (this, key) = (self.clone(), key.to_owned());
        runtime::wait(
            async move { this.retry(|| this.write(&key, &bytes, PutMode::Overwrite)).await },
        )
    }

    fn list(&self, prefix: &str) -> Result<Vec<ObjectMeta>, ObjectError> {
        check_prefix(prefix)?;
        self.may_list()?;
        let (this, prefix) = (self.clone(), prefix.to_owned());
        runtime::wait(async move { this.retry(|| this.collect(&prefix)).await })
    }

    fn list_names(&self, prefix: &str) -> Result<Vec<String>, ObjectError> {
        check_prefix(prefix)?;
        self.may_list()?;
        let this = self.clone();
        let full = match (self.prefix.is_empty(), prefix.is_empty()) {
            (true, true) => None,
            (false, true) => Some(Path::from(self.prefix.as_str())),
            _ => Some(self.path(prefix)),
        };
        let list = move || {
            let (this, full) = (this.clone(), full.clone());
            async move {
                let limit = this.patience.silence * 3;
                this.within(limit, async {
                    let listed = this.store.list_with_delimiter(full.as_ref()).await;
                    listed.map_err(|error| this.error("a listing", &error))
                })
                .await
            }
        };
        let this = self.clone();
        let listed = runtime::wait(async move { this.retry(list).await })?;
        let objects = listed.objects.iter().map(|object| &object.location);
        let mut names: Vec<String> = objects
            .chain(&listed.common_prefixes)
            .filter_map(|path| path.filename().map(str::to_owned))
            .filter(|name| check_key(name).is_ok())
            .collect();
        names.sort();
        names.dedup();
        Ok(names)
    }

    fn head(&self, key: &str) -> Result<ObjectMeta, ObjectError> {
        check_key(key)?;
        let (this, key) = (self.clone(), key.to_owned());
        runtime::wait(async move { this.retry(|| this.look(&key)).await })
    }

    fn delete(&self, key: &str) -> Result<(), ObjectError> {
        check_key(key)?;
        self.may_write()?;
        let (this, key) = (self.clone(), key.to_owned());
        let attempt = move || {
            let (this, key) = (this.clone(), key.clone());
            async move {
                this.within(this.patience.silence, async {
                    match this.store.delete(&this.path(&key)).await {
                        Ok(()) | Err(Error::NotFound { .. }) => Ok(()),
                        Err(error) => Err(this.error(&key, &error)),
                    }
                })
                .await
            }
        };
        let this = self.clone();
        runtime::wait(async move { this.retry(attempt).await })
    }

    fn features(&self) -> Features {
        self.features
    }

    fn forget(&self, key: &str) {
        self.whole.forget(key);
    }

    fn surplus_bytes(&self) -> i64 {
        self.whole.surplus_bytes()
    }

    fn location(&self) -> String {
        self.location.clone()
    }
}
