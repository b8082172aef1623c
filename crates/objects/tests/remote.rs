//! Stores across a network: a real S3-compatible server and a static web server, both started
//! here; and what happens when they do not answer.

mod common;

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
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

/// Python's `http.server`, for one: parts are cut out of the whole, which is fetched once.
#[test]
fn a_web_server_that_serves_no_parts_is_read() {
    let dir = tempfile::tempdir().unwrap();
    let folder = objects::create(dir.path().to_str().unwrap()).unwrap();
    let bytes: Bytes = (0..100_000u32).map(|i| (i >> 3) as u8).collect();
    folder.put_new("packs/ab/x", bytes.clone()).unwrap();
    let server = WebServer::simple(dir.path()).unwrap();
    let web = open_with(&server.url(), impatient()).unwrap();
    assert_eq!(web.get_range("packs/ab/x", 5000, 300).unwrap(), bytes.slice(5000..5300));
    let before = server.requests();
    assert_eq!(web.get_range("packs/ab/x", 0, 100_000).unwrap(), bytes);
    assert_eq!(web.get_range("packs/ab/x", 99_999, 1).unwrap(), bytes.slice(99_999..));
    assert_eq!(server.requests(), before, "it is here");
    let error = web.get_range("packs/ab/x", 99_999, 2).unwrap_err();
    assert!(matches!(error, ObjectError::Truncated { .. }), "{error}");
    assert!(matches!(web.get_range("absent", 0, 1), Err(ObjectError::NotFound { .. })));
}

/// What such a server gave is kept, and may be wrong.
#[test]
fn a_whole_that_was_damaged_is_fetched_again() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("x");
    let server = WebServer::simple(dir.path()).unwrap();
    let web = open_with(&server.url(), impatient()).unwrap();
    // Half of it; then all of it.
    std::fs::write(&file, "0123").unwrap();
    assert_eq!(web.get_range("x", 0, 2).unwrap(), "01");
    std::fs::write(&file, "01234567").unwrap();
    assert_eq!(web.get_range("x", 4, 2).unwrap(), "45", "half of it was not the end of it");
    // Only whoever knows what it should be finds out that a bit is wrong.
    std::fs::write(&file, "01234x67").unwrap();
    assert_eq!(web.get_range("x", 4, 2).unwrap(), "45", "it is here");
    web.forget("x");
    assert_eq!(web.get_range("x", 4, 2).unwrap(), "4x");
}

/// Sends the head of an answer (of `late` after three seconds) and then, one after the other, its bytes.
fn dripping(bytes: usize, pause: Duration) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for socket in listener.incoming().flatten() {
            std::thread::spawn(move || {
                let mut socket = socket;
                let mut asked = [0; 4096];
                let length = socket.read(&mut asked).unwrap_or(0);
                if asked[..length].starts_with(b"GET /late") {
                    std::thread::sleep(Duration::from_secs(3));
                }
                let date = "Thu, 01 Jan 2026 00:00:00 GMT";
                let head = format!(
                    "HTTP/1.1 200 OK\r\nContent-Length: {bytes}\r\nLast-Modified: {date}\r\n\r\n"
                );
                let _ = socket.write_all(head.as_bytes());
                while socket.write_all(b"x").is_ok() {
                    std::thread::sleep(pause);
                }
            });
        }
    });
    format!("http://{address}")
}

/// Answers every request for a part of 100 bytes with this head and this body.
fn lying(head: &'static str, body: &'static [u8]) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for mut socket in listener.incoming().flatten() {
            let _ = socket.read(&mut [0; 4096]);
            let date = "Last-Modified: Thu, 01 Jan 2026 00:00:00 GMT";
            let answer = format!("HTTP/1.1 206 Partial Content\r\n{date}\r\n{head}\r\n\r\n");
            let _ = socket.write_all(answer.as_bytes());
            let _ = socket.write_all(body);
            let _ = socket.shutdown(Shutdown::Both);
        }
    });
    format!("http://{address}")
}

/// Whoever says something else of a part than was asked for gives nothing. (Other bytes of the same length are
/// found by their hash, above.)
#[test]
fn a_server_that_lies_about_ranges_and_lengths_gives_nothing() {
    let right = lying("Content-Range: bytes 10-14/100\r\nContent-Length: 5", b"01234");
    assert_eq!(open_with(&right, impatient()).unwrap().get_range("a", 10, 5).unwrap(), "01234");
    let lies: [(&str, &[u8]); 5] = [
        ("Content-Range: bytes 0-4/100\r\nContent-Length: 5", b"01234"),
        ("Content-Range: bytes 10-14/100\r\nContent-Length: 3", b"012"),
        ("Content-Range: bytes 10-14/100\r\nContent-Length: 9", b"012345678"),
        ("Content-Range: bytes 10-14/100\r\nContent-Length: 9", b"01234"),
        ("Content-Length: 5", b"01234"),
    ];
    for (head, body) in lies {
        let said = open_with(&lying(head, body), impatient()).unwrap().get_range("a", 10, 5);
        assert!(said.is_err(), "{head}: {said:?}");
    }
}

#[test]
fn a_server_that_is_never_silent_and_never_done_is_unavailable_soon() {
    let patience = Patience { download_bytes_per_s: 1000, ..impatient() };
    let endless = dripping(2000, Duration::from_millis(100));
    let store = open_with(&endless, patience).unwrap();
    let begun = ambient::now();
    let error = store.get("a", 10_000).unwrap_err();
    assert!(error.is_transient(), "{error}");
    let took = ambient::now().duration_since(begun);
    assert!(took < Duration::from_secs(20), "{took:?}: 200 s at its own pace");
    // Slow, and not too slow.
    let slow = dripping(20, Duration::from_millis(30));
    let patience = Patience { download_bytes_per_s: 2, ..impatient() };
    assert_eq!(open_with(&slow, patience).unwrap().get("a", 100).unwrap().len(), 20);
}

#[test]
fn what_shares_a_line_may_be_slow_together() {
    // Six seconds each and more: too slow for one that is alone, and not for six.
    let line = dripping(100, Duration::from_millis(60));
    let silence = Duration::from_secs(2);
    let patience = Patience { silence, download_bytes_per_s: 60, attempts: 1, ..impatient() };
    let store = open_with(&line, patience).unwrap();
    assert!(store.get("a", 100).is_err());
    std::thread::scope(|scope| {
        let reads: Vec<_> = (0..6).map(|_| scope.spawn(|| store.get("a", 100))).collect();
        for read in reads {
            assert_eq!(read.join().unwrap().unwrap().len(), 100);
        }
    });
    assert!(store.get("a", 100).is_err(), "it is alone again");
}

#[test]
fn a_first_byte_may_come_behind_what_shares_the_line() {
    let line = dripping(60, Duration::from_millis(60));
    let silence = Duration::from_secs(1);
    let patience = Patience { silence, download_bytes_per_s: 10, attempts: 1, ..impatient() };
    let store = open_with(&line, patience).unwrap();
    assert!(store.get("late", 100).is_err(), "nothing is before it");
    std::thread::scope(|scope| {
        let before: Vec<_> = (0..2).map(|_| scope.spawn(|| store.get("a", 100))).collect();
        // They are under way.
        std::thread::sleep(Duration::from_millis(500));
        assert_eq!(store.get("late", 100).unwrap().len(), 60);
        for read in before {
            assert_eq!(read.join().unwrap().unwrap().len(), 60);
        }
    });
}

/// Answers every request with this; with nothing, it hangs up.
fn answering(answer: &'static str) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for mut socket in listener.incoming().flatten() {
            let _ = socket.read(&mut [0; 4096]);
            let _ = socket.write_all(answer.as_bytes());
            let _ = socket.shutdown(Shutdown::Both);
        }
    });
    format!("http://{address}")
}

/// A port, a duration or a name may have the digits of a status code: they are no answer.
#[test]
fn a_server_is_full_where_it_says_so_and_not_where_its_address_looks_like_it() {
    let put = |answer, key| {
        s3(&answering(answer), "", impatient()).put_new(key, Bytes::from_static(b"1")).unwrap_err()
    };
    let hung_up = put("", "a/507");
    assert!(matches!(hung_up, ObjectError::Unavailable { .. }), "{hung_up:?}");
    let broken = put("HTTP/1.1 500 Oh\r\nContent-Length: 0\r\n\r\n", "a/507");
    assert!(matches!(broken, ObjectError::Unavailable { .. }), "{broken:?}");
    let full = put("HTTP/1.1 507 Full\r\nContent-Length: 0\r\n\r\n", "a");
    assert!(matches!(full, ObjectError::NoSpace { .. }), "{full:?}");
    let quota = "HTTP/1.1 400 No\r\nContent-Length: 42\r\n\r\n\
                 <Error><Code>QuotaExceeded</Code></Error>\n";
    let quota = put(quota, "a");
    assert!(matches!(quota, ObjectError::NoSpace { .. }), "{quota:?}");
}

/// Passes everything on, except the first answer to a PUT after `swallow` is set: then it hangs
/// up instead.
fn proxy(upstream: &str, swallow: &Arc<AtomicBool>) -> String {
    let upstream = upstream.trim_start_matches("http://").to_owned();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let swallow = Arc::clone(swallow);
    std::thread::spawn(move || {
        for client in listener.incoming().flatten() {
            let server = TcpStream::connect(&upstream).unwrap();
            let put = Arc::new(AtomicBool::new(false));
            let (mut from_client, mut to_server) =
                (client.try_clone().unwrap(), server.try_clone().unwrap());
            let seen = Arc::clone(&put);
            std::thread::spawn(move || {
                let mut buffer = [0; 1 << 16];
                while let Ok(n @ 1..) = from_client.read(&mut buffer) {
                    if buffer[..n].starts_with(b"PUT ") {
                        seen.store(true, Ordering::SeqCst);
                    }
                    if to_server.write_all(&buffer[..n]).is_err() {
                        break;
                    }
                }
                let _ = to_server.shutdown(Shutdown::Both);
            });
            let (mut from_server, mut to_client, swallow) = (server, client, Arc::clone(&swallow));
            std::thread::spawn(move || {
                let mut buffer = [0; 1 << 16];
                while let Ok(n @ 1..) = from_server.read(&mut buffer) {
                    if put.load(Ordering::SeqCst) && swallow.swap(false, Ordering::SeqCst) {
                        break;
                    }
                    if to_client.write_all(&buffer[..n]).is_err() {
                        break;
                    }
                }
                let _ = to_client.shutdown(Shutdown::Both);
                let _ = from_server.shutdown(Shutdown::Both);
            });
        }
    });
    format!("http://{address}")
}

#[test]
fn a_create_whose_answer_was_lost_is_known_as_ours() {
    let dir = tempfile::tempdir().unwrap();
    let server = S3Server::start(dir.path(), &["bucket"], "127.0.0.1:0").unwrap();
    let swallow = Arc::new(AtomicBool::new(false));
    let patience = Patience { attempts: 4, ..impatient() };
    let store = s3(&proxy(&server.endpoint(), &swallow), "", patience);
    let direct = s3(&server.endpoint(), "", patience);
    swallow.store(true, Ordering::SeqCst);
    store.put_new("mine", Bytes::from_static(b"mine")).expect("it was us");
    assert!(!swallow.load(Ordering::SeqCst), "an answer was swallowed");
    assert_eq!(direct.get("mine", 10).unwrap(), "mine");
    // The same bytes without doubt are no excuse; another's are never ours.
    let again = store.put_new("mine", Bytes::from_static(b"mine"));
    assert!(matches!(again, Err(ObjectError::AlreadyExists { .. })), "{again:?}");
    direct.put_new("theirs", Bytes::from_static(b"theirs")).unwrap();
    swallow.store(true, Ordering::SeqCst);
    let taken = store.put_new("theirs", Bytes::from_static(b"mine"));
    assert!(matches!(taken, Err(ObjectError::AlreadyExists { .. })), "{taken:?}");
    assert_eq!(direct.get("theirs", 10).unwrap(), "theirs");
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
