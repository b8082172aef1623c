//! A repository on a real S3-compatible server, and one behind a static web server.

mod common;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use chunk::{ChunkSource, FetchError, Urgency, id_of};
use common::{again, assert_whole, init, page, publish, verify};
use object_store::aws::AmazonS3Builder;
use objects::{Features, Memory, ObjectError, ObjectMeta, Objects, Patience, Remote};
use repository::{GcOptions, Init, Open, Repository};
use s3_server::{ACCESS_KEY, S3Server, SECRET_KEY, WebServer};

#[test]
fn on_s3() {
    let dir = tempfile::tempdir().unwrap();
    let server = S3Server::start(dir.path(), &["bucket"], "127.0.0.1:0").unwrap();
    let store = AmazonS3Builder::new()
        .with_bucket_name("bucket")
        .with_endpoint(server.endpoint())
        .with_region("us-east-1")
        .with_access_key_id(ACCESS_KEY)
        .with_secret_access_key(SECRET_KEY)
        .with_allow_http(true)
        .build()
        .unwrap();
    let both = Features { list: true, write: true };
    let remote =
        Remote::new(Arc::new(store), "user/repo", "s3://bucket", both, Patience::default());
    let objects: Arc<dyn Objects> = Arc::new(remote);
    let repository = init(&objects, 1);
    let id = publish(&repository, "a", 0..300).unwrap();
    publish(&repository, "gone", 500..700).unwrap();
    let other = again(&repository, &objects).unwrap();
    verify(&other, id, 0..300);
    let gone = other.refs().current("instance", "gone").unwrap().unwrap();
    other.refs().remove("instance", "gone", gone).unwrap();
    // Dates have seconds here, so a grace age of a millisecond lasts up to one.
    for _ in 0..3 {
        std::thread::sleep(std::time::Duration::from_millis(1100));
        repository.gc(GcOptions { keep_generations: 1, ..GcOptions::default() }).unwrap();
    }
    assert_eq!(objects.list("packs").unwrap().len(), 1);
    verify(&other, id, 0..300);
    assert_whole(&other);
}

#[test]
fn behind_a_static_web_server() {
    let dir = tempfile::tempdir().unwrap();
    let folder = objects::create(dir.path().to_str().unwrap()).unwrap();
    let maker =
        Repository::init(Arc::clone(&folder), &Init { grace_ms: 400, ..Init::default() }).unwrap();
    let id = publish(&maker, "a", 0..300).unwrap();
    let server = WebServer::start(dir.path()).unwrap();
    let web = objects::open(&server.url()).unwrap();
    let user = Repository::open(web, Open::default()).unwrap();
    assert!(!user.is_writable() && !user.is_private());
    let value = user.refs().read("instance", "a").unwrap().unwrap();
    assert_eq!(value.generation.0, 1);
    verify(&user, id, 0..300);
    assert_eq!(user.refs().read("instance", "b"), Ok(None));
    // The log grows, is gathered, and cut; a reader who cannot list follows all the same.
    for n in 0..40u64 {
        publish(&maker, "a", n..n + 20).unwrap();
    }
    let last = publish(&maker, "a", 1000..1100).unwrap();
    verify(&user, last, 1000..1100);
    for _ in 0..3 {
        std::thread::sleep(std::time::Duration::from_millis(500));
        maker.gc(GcOptions { keep_generations: 2, ..GcOptions::default() }).unwrap();
    }
    assert!(folder.list("index").unwrap().len() < 20);
    let fresh = Repository::open(objects::open(&server.url()).unwrap(), Open::default()).unwrap();
    for user in [&user, &fresh] {
        let value = user.refs().read("instance", "a").unwrap().unwrap();
        assert_eq!(value.generation.0, 42);
        verify(user, last, 1000..1100);
    }
    assert!(user.check(false, &mut |_| ()).is_err(), "nothing can be listed");
    assert!(user.writer().is_err());
}

#[test]
fn a_users_repository_over_a_makers() {
    let dir = tempfile::tempdir().unwrap();
    let folder = objects::create(dir.path().to_str().unwrap()).unwrap();
    let maker = Repository::init(folder, &Init::default()).unwrap();
    let base = publish(&maker, "base", 0..200).unwrap();
    let server = WebServer::start(dir.path()).unwrap();
    let source = Repository::open(objects::open(&server.url()).unwrap(), Open::default()).unwrap();
    let memory: Arc<dyn Objects> = Arc::new(Memory::new());
    let user = init(&memory, 1000);
    let open =
        Open { key: user.key().cloned(), sources: vec![Arc::new(source)], ..Open::default() };
    let user = Repository::open(Arc::clone(&memory), open).unwrap();
    // The user's manifest names the maker's chunks.
    let payload =
        repository::RefPayload { roots: vec![repository::Target::Manifest(base)], body: vec![] };
    user.refs().advance("instance", "mine", model::Generation(0), &payload).unwrap();
    verify(&user, base, 0..200);
    assert_whole(&user);
    let stats = user.stats().unwrap();
    assert_eq!((stats.logical_bytes, stats.packs), (200 * 4096, 0));
    user.gc(GcOptions::default()).unwrap();
    let absent = id_of(&page(9999));
    let error = user.fetch(&absent, Urgency::Urgent).unwrap_err();
    assert_eq!(error, FetchError::Missing { id: absent });
    // Who is away may have it: that is no reason to give up.
    drop(server);
    let error = user.fetch(&id_of(&page(3)), Urgency::Urgent).unwrap_err();
    assert!(matches!(error, FetchError::Unavailable { .. }), "{error}");
}

/// A web server that serves no parts gives the whole, which is kept: not when it was damaged.
#[test]
fn a_whole_that_came_damaged_is_read_again() {
    let dir = tempfile::tempdir().unwrap();
    let folder = objects::create(dir.path().to_str().unwrap()).unwrap();
    let maker = Repository::init(Arc::clone(&folder), &Init::default()).unwrap();
    let id = publish(&maker, "a", 0..300).unwrap();
    let server = WebServer::simple(dir.path()).unwrap();
    let user = Repository::open(objects::open(&server.url()).unwrap(), Open::default()).unwrap();
    let packs = folder.list("packs").unwrap();
    let [pack] = &packs[..] else { panic!("{packs:?}") };
    let file = dir.path().join(&pack.key);
    let honest = std::fs::read(&file).unwrap();
    let mut flipped = honest.clone();
    for byte in flipped.iter_mut().skip(100) {
        *byte ^= 1;
    }
    std::fs::write(&file, flipped).unwrap();
    let chunk = id_of(&page(7));
    let damaged = user.fetch(&chunk, Urgency::Urgent);
    assert!(matches!(damaged, Err(FetchError::Damaged { .. })), "{damaged:?}");
    std::fs::write(&file, honest).unwrap();
    verify(&user, id, 0..300);
}

/// A store that cannot list, and has an answer to whatever begins so.
struct Yes {
    inner: Arc<dyn Objects>,
    to: &'static str,
    asked: AtomicU64,
}

impl Objects for Yes {
    fn get(&self, key: &str, bytes_max: u64) -> Result<Bytes, ObjectError> {
        match self.inner.get(key, bytes_max) {
            Err(ObjectError::NotFound { .. }) if key.starts_with(self.to) => {
                Ok("<html>hello</html>".into())
            }
            other => other,
        }
    }
    fn get_range(&self, key: &str, offset: u64, bytes: u64) -> Result<Bytes, ObjectError> {
        self.inner.get_range(key, offset, bytes)
    }
    fn put_new(&self, _: &str, _: Bytes) -> Result<(), ObjectError> {
        Err(ObjectError::ReadOnly { location: self.location() })
    }
    fn put(&self, _: &str, _: Bytes) -> Result<(), ObjectError> {
        Err(ObjectError::ReadOnly { location: self.location() })
    }
    fn list(&self, _: &str) -> Result<Vec<ObjectMeta>, ObjectError> {
        Err(ObjectError::Unsupported { location: self.location(), operation: "list".to_owned() })
    }
    fn head(&self, key: &str) -> Result<ObjectMeta, ObjectError> {
        assert!(self.asked.fetch_add(1, Ordering::Relaxed) < 10_000, "it asks for ever");
        if !key.starts_with(self.to) {
            return self.inner.head(key);
        }
        Ok(ObjectMeta { key: key.to_owned(), bytes: 18, modified_unix_ms: 0 })
    }
    fn delete(&self, _: &str) -> Result<(), ObjectError> {
        Err(ObjectError::ReadOnly { location: self.location() })
    }
    fn features(&self) -> Features {
        Features { list: false, write: false }
    }
    fn location(&self) -> String {
        "yes".to_owned()
    }
}

#[test]
fn a_server_that_has_an_answer_to_everything_is_found_out() {
    let inner: Arc<dyn Objects> = Arc::new(Memory::new());
    let maker = Repository::init(Arc::clone(&inner), &Init::default()).unwrap();
    let id = publish(&maker, "a", 0..30).unwrap();
    let open = |to| {
        let yes = Yes { inner: Arc::clone(&inner), to, asked: 0.into() };
        Repository::open(Arc::new(yes), Open::default())
    };
    let honest = open("nothing").unwrap();
    verify(&honest, id, 0..30);
    assert!(honest.refs().read("instance", "a").unwrap().is_some());
    assert!(open("index/").is_err(), "its log has no end");
    let refs = open("refs/").unwrap();
    verify(&refs, id, 0..30);
    assert!(refs.refs().read("instance", "a").is_err(), "its refs have no end");
}
