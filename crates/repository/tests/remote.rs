//! A repository on a real S3-compatible server, and one behind a static web server.

mod common;

use std::sync::Arc;

use chunk::{ChunkSource, FetchError, Urgency, id_of};
use common::{again, assert_whole, init, page, publish, verify};
use object_store::aws::AmazonS3Builder;
use objects::{Features, Memory, Objects, Patience, Remote};
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
