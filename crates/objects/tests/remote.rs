//! Stores across a network: a real S3-compatible server and a static web server, both started
//! here; and what happens when they do not answer.

mod common;

use std::io::Read;
use std::net::TcpListener;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use object_store::RetryConfig;
use object_store::aws::AmazonS3Builder;
use objects::{Features, ObjectError, Objects, Patience, Remote, open_with, probe};
use s3_server::{ACCESS_KEY, S3Server, SECRET_KEY, WebServer};

const BOTH: Features = Features { list: true, write: true };

fn impatient() -> Patience {
    Patience {
        silence: Duration::from_millis(500),
        attempts: 2,
        pause: Duration::from_millis(10),
        ..Patience::default()
    }
}

fn s3(endpoint: &str, prefix: &str, patience: Patience) -> Remote {
    let store = AmazonS3Builder::new()
        .with_bucket_name("bucket")
        .with_endpoint(endpoint)
        .with_region("us-east-1")
        .with_access_key_id(ACCESS_KEY)
        .with_secret_access_key(SECRET_KEY)
        .with_allow_http(true)
        .with_retry(RetryConfig { max_retries: 0, ..RetryConfig::default() })
        .build()
        .unwrap();
    Remote::new(Arc::new(store), prefix, "s3://bucket", BOTH, patience)
}

#[test]
fn s3_conforms() {
    let dir = tempfile::tempdir().unwrap();
    let server = S3Server::start(dir.path(), &["bucket"], "127.0.0.1:0").unwrap();
    common::check(Arc::new(s3(&server.endpoint(), "", Patience::default())));
    common::check(Arc::new(s3(&server.endpoint(), "deep/prefix", Patience::default())));
}

#[test]
fn s3_refuses_strangers() {
    let dir = tempfile::tempdir().unwrap();
    let server = S3Server::start(dir.path(), &["bucket"], "127.0.0.1:0").unwrap();
    let store = AmazonS3Builder::new()
        .with_bucket_name("bucket")
        .with_endpoint(server.endpoint())
        .with_region("us-east-1")
        .with_access_key_id(ACCESS_KEY)
        .with_secret_access_key("wrong")
        .with_allow_http(true)
        .build()
        .unwrap();
    let stranger = Remote::new(Arc::new(store), "", "s3://bucket", BOTH, impatient());
    let error = stranger.get("a", 10).unwrap_err();
    assert!(matches!(error, ObjectError::Denied { .. }), "{error}");
}

#[test]
fn a_static_web_server_is_read() {
    let dir = tempfile::tempdir().unwrap();
    let folder = objects::create(dir.path().to_str().unwrap()).unwrap();
    let bytes: Bytes = (0..100_000u32).map(|i| (i >> 3) as u8).collect();
    folder.put_new("packs/ab/x", bytes.clone()).unwrap();
    let server = WebServer::start(dir.path()).unwrap();
    let web = open_with(&server.url(), impatient()).unwrap();
    assert_eq!(web.features(), Features { list: false, write: false });
    probe(&*web).expect("there is nothing to lose");
    assert_eq!(web.get("packs/ab/x", 100_000).unwrap(), bytes);
    assert_eq!(web.get_range("packs/ab/x", 5000, 300).unwrap(), bytes.slice(5000..5300));
    assert_eq!(web.head("packs/ab/x").unwrap().bytes, 100_000);
    for range in [(99_999, 2), (200_000, 1)] {
        let error = web.get_range("packs/ab/x", range.0, range.1).unwrap_err();
        assert!(matches!(error, ObjectError::Truncated { .. }), "{error}");
    }
    assert!(matches!(web.get("absent", 10), Err(ObjectError::NotFound { .. })));
    assert!(matches!(web.head("absent"), Err(ObjectError::NotFound { .. })));
    assert!(matches!(web.put_new("a", Bytes::new()), Err(ObjectError::ReadOnly { .. })));
    assert!(matches!(web.put("a", Bytes::new()), Err(ObjectError::ReadOnly { .. })));
    assert!(matches!(web.delete("a"), Err(ObjectError::ReadOnly { .. })));
    assert!(matches!(web.list(""), Err(ObjectError::Unsupported { .. })));
    assert!(matches!(web.list_names(""), Err(ObjectError::Unsupported { .. })));
}

#[test]
fn a_server_that_is_gone_is_unavailable_soon() {
    let dir = tempfile::tempdir().unwrap();
    let server = S3Server::start(dir.path(), &["bucket"], "127.0.0.1:0").unwrap();
    let store = s3(&server.endpoint(), "", impatient());
    store.put_new("a", Bytes::from_static(b"1")).unwrap();
    drop(server);
    let begun = ambient::now();
    let errors = [
        store.get("a", 10).map(drop).unwrap_err(),
        store.put_new("b", Bytes::new()).unwrap_err(),
        store.list("").map(drop).unwrap_err(),
        store.delete("a").unwrap_err(),
    ];
    for error in errors {
        assert!(error.is_transient(), "{error}");
    }
    assert!(ambient::now().duration_since(begun) < Duration::from_secs(20));
}

#[test]
fn a_server_that_never_answers_is_unavailable_soon() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    // It accepts, reads, and says nothing, until we hang up.
    std::thread::spawn(move || {
        for socket in listener.incoming().flatten() {
            std::thread::spawn(move || {
                let mut socket = socket;
                let mut buffer = [0; 1024];
                while socket.read(&mut buffer).is_ok_and(|n| n > 0) {}
            });
        }
    });
    let store = open_with(&format!("http://{address}"), impatient()).unwrap();
    let begun = ambient::now();
    let error = store.get("a", 10).unwrap_err();
    assert!(error.is_transient(), "{error}");
    assert!(ambient::now().duration_since(begun) < Duration::from_secs(20));
}
