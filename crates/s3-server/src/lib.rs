//! Small servers on a folder, for tests and demonstrations, never for real data: an
//! S3-compatible one, and a static web server ([`WebServer`]).
//!
//! The S3 protocol is `s3s`, the storage `s3s-fs`. What is added here is one thing: writes to
//! the same path take turns, because `s3s-fs` alone checks `If-None-Match` and then writes, and
//! two racing creates would both succeed.
//!
//! **Invariant:** no crate of the product depends on this one, except in its tests.

#![warn(missing_docs)]

mod web;

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Method, Request};
use hyper_util::rt::TokioIo;
use s3s::auth::SimpleAuth;
use s3s::service::{S3Service, S3ServiceBuilder};
use s3s_fs::FileSystem;
use tokio::net::TcpListener;
use tokio::runtime::{Builder, Runtime};

pub use web::WebServer;

/// The access key that the server expects (`AWS_ACCESS_KEY_ID`).
pub const ACCESS_KEY: &str = "collective";
/// The secret key that the server expects (`AWS_SECRET_ACCESS_KEY`).
pub const SECRET_KEY: &str = "collective-test-secret";

/// A running server; dropping it stops it.
pub struct S3Server {
    address: SocketAddr,
    ways: Arc<Ways>,
    runtime: Option<Runtime>,
}

/// What it does otherwise than it should.
struct Ways {
    root: PathBuf,
    delay_ms: AtomicU64,
    ignores_conditions: AtomicBool,
    clock_ahead_s: AtomicU64,
    held: Mutex<Option<String>>,
}

/// Writes to one path that wait for each other.
type Turns = Arc<Mutex<HashMap<String, Arc<tokio::sync::Mutex<()>>>>>;

impl S3Server {
    /// Serves the folder `root`, with these buckets, on `address` (port 0: any free one).
    pub fn start(root: &Path, buckets: &[&str], address: &str) -> io::Result<Self> {
        for bucket in buckets {
            std::fs::create_dir_all(root.join(bucket))?;
        }
        let files =
            FileSystem::new(root).map_err(|error| io::Error::other(format!("{error:?}")))?;
        let mut builder = S3ServiceBuilder::new(files);
        builder.set_auth(SimpleAuth::from_single(ACCESS_KEY, SECRET_KEY));
        let service = builder.build();
        let runtime =
            Builder::new_multi_thread().worker_threads(2).thread_name("s3").enable_all().build()?;
        let listener = runtime.block_on(TcpListener::bind(address))?;
        let address = listener.local_addr()?;
        let ways = Arc::new(Ways {
            root: root.to_owned(),
            delay_ms: AtomicU64::new(0),
            ignores_conditions: AtomicBool::new(false),
            clock_ahead_s: AtomicU64::new(0),
            held: Mutex::new(None),
        });
        runtime.spawn(accept(listener, service, Arc::clone(&ways)));
        Ok(Self { address, ways, runtime: Some(runtime) })
    }

    /// From now on each answer begins so much later, as if the server were far away.
    pub fn delay(&self, delay: Duration) {
        self.ways.delay_ms.store(delay.as_millis() as u64, Ordering::Relaxed);
    }

    /// From now on what is written below a path with this in it waits, as on a line that is too slow for it; none:
    /// goes on.
    pub fn hold(&self, part: Option<&str>) {
        *self.ways.held.lock().unwrap_or_else(PoisonError::into_inner) = part.map(str::to_owned);
    }

    /// From now on it writes over objects that were to be created, as some look-alikes do.
    pub fn ignore_conditions(&self) {
        self.ways.ignores_conditions.store(true, Ordering::Relaxed);
    }

    /// From now on its clock is so far ahead, as its new objects say.
    pub fn set_clock_ahead(&self, by: Duration) {
        self.ways.clock_ahead_s.store(by.as_secs(), Ordering::Relaxed);
    }

    /// What clients need as `AWS_ENDPOINT_URL`.
    pub fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }
}

impl Drop for S3Server {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            // Requests that are under way end here; tests want just that.
            runtime.shutdown_background();
        }
    }
}

async fn accept(listener: TcpListener, service: S3Service, ways: Arc<Ways>) {
    let turns = Turns::default();
    loop {
        let Ok((socket, _)) = listener.accept().await else { continue };
        // Else each answer of two packets waits 40 ms for a delayed acknowledgement.
        let _ = socket.set_nodelay(true);
        let (service, turns, ways) = (service.clone(), Arc::clone(&turns), Arc::clone(&ways));
        tokio::spawn(async move {
            let serve = service_fn(move |request| {
                let delay = Duration::from_millis(ways.delay_ms.load(Ordering::Relaxed));
                let answer =
                    in_turn(service.clone(), Arc::clone(&turns), Arc::clone(&ways), request);
                async move {
                    tokio::time::sleep(delay).await;
                    answer.await
                }
            });
            // A client that hangs up is no concern of the server's.
            let _ = hyper::server::conn::http1::Builder::new()
                .serve_connection(TokioIo::new(socket), serve)
                .await;
        });
    }
}

async fn in_turn(
    service: S3Service,
    turns: Turns,
    ways: Arc<Ways>,
    request: Request<Incoming>,
) -> Result<s3s::HttpResponse, s3s::HttpError> {
    if request.method() == Method::GET || request.method() == Method::HEAD {
        return service.call(request.map(s3s::Body::from)).await;
    }
    let path = request.uri().path().to_owned();
    let is_held = || {
        let held = ways.held.lock().unwrap_or_else(PoisonError::into_inner);
        held.as_ref().is_some_and(|part| path.contains(part))
    };
    while is_held() {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let file = ways.root.join(path.trim_start_matches('/'));
    let turn = {
        let mut turns = turns.lock().unwrap_or_else(PoisonError::into_inner);
        // Only those that someone holds are worth keeping.
        turns.retain(|_, turn| Arc::strong_count(turn) > 1);
        Arc::clone(turns.entry(path).or_default())
    };
    let _ours = turn.lock().await;
    if request.method() == Method::PUT && ways.ignores_conditions.load(Ordering::Relaxed) {
        let _ = std::fs::remove_file(&file);
    }
    let answer = service.call(request.map(s3s::Body::from)).await;
    let ahead_s = ways.clock_ahead_s.load(Ordering::Relaxed);
    if ahead_s > 0
        && let Ok(file) = std::fs::File::options().write(true).open(&file)
        && let Ok(noted) = file.metadata().and_then(|meta| meta.modified())
    {
        let _ = file.set_modified(noted + Duration::from_secs(ahead_s));
    }
    answer
}
