//! A static web server on a folder, as a maker would put a repository on: GET, HEAD and ranges,
//! nothing else.

use std::io;
use std::net::SocketAddr;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use hyper::body::Incoming;
use hyper::header::{CONTENT_LENGTH, CONTENT_RANGE, ETAG, RANGE};
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use s3s::Body;
use tokio::net::TcpListener;
use tokio::runtime::{Builder, Runtime};

/// A running web server; dropping it stops it.
pub struct WebServer {
    address: SocketAddr,
    requests: Arc<AtomicU64>,
    runtime: Option<Runtime>,
}

impl WebServer {
    /// Serves the folder `root` on a free port of the loopback interface.
    pub fn start(root: &Path) -> io::Result<Self> {
        Self::serve(root, true)
    }

    /// The same, by a server that knows nothing of ranges and answers with the whole.
    pub fn simple(root: &Path) -> io::Result<Self> {
        Self::serve(root, false)
    }

    fn serve(root: &Path, ranges: bool) -> io::Result<Self> {
        let runtime = Builder::new_multi_thread()
            .worker_threads(2)
            .thread_name("web")
            .enable_all()
            .build()?;
        let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0"))?;
        let address = listener.local_addr()?;
        let requests = Arc::new(AtomicU64::new(0));
        let (root, counter) = (root.to_owned(), Arc::clone(&requests));
        runtime.spawn(async move {
            loop {
                let Ok((socket, _)) = listener.accept().await else { continue };
                // Else each answer of two packets waits 40 ms for a delayed acknowledgement.
                let _ = socket.set_nodelay(true);
                let (root, counter) = (root.clone(), Arc::clone(&counter));
                tokio::spawn(async move {
                    let serve = service_fn(move |request: Request<Incoming>| {
                        counter.fetch_add(1, Ordering::Relaxed);
                        let answer = answer(&root, &request, ranges);
                        async move { Ok::<_, std::convert::Infallible>(answer) }
                    });
                    // A client that hangs up is no concern of the server's.
                    let _ = hyper::server::conn::http1::Builder::new()
                        .serve_connection(TokioIo::new(socket), serve)
                        .await;
                });
            }
        });
        Ok(Self { address, requests, runtime: Some(runtime) })
    }

    /// The folder's URL.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Requests answered so far.
    pub fn requests(&self) -> u64 {
        self.requests.load(Ordering::Relaxed)
    }
}

impl Drop for WebServer {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

fn answer(root: &Path, request: &Request<Incoming>, ranges: bool) -> Response<Body> {
    let nothing = |status| {
        let mut response = Response::new(Body::empty());
        *response.status_mut() = status;
        response
    };
    let head = request.method() == Method::HEAD;
    if !head && request.method() != Method::GET {
        return nothing(StatusCode::METHOD_NOT_ALLOWED);
    }
    let Some(path) = inside(root, request.uri().path()) else {
        return nothing(StatusCode::BAD_REQUEST);
    };
    let Ok(bytes) = std::fs::read(&path) else { return nothing(StatusCode::NOT_FOUND) };
    let total = bytes.len();
    let mut response =
        match request.headers().get(RANGE).and_then(|r| r.to_str().ok()).filter(|_| ranges) {
            None => Response::new(Body::from(bytes)),
            Some(range) => {
                let Some((start, end)) = parse_range(range, total) else {
                    return nothing(StatusCode::RANGE_NOT_SATISFIABLE);
                };
                let mut response = Response::new(Body::from(bytes[start..end].to_vec()));
                *response.status_mut() = StatusCode::PARTIAL_CONTENT;
                let content_range = format!("bytes {start}-{}/{total}", end - 1);
                if let Ok(value) = content_range.parse() {
                    response.headers_mut().insert(CONTENT_RANGE, value);
                }
                response
            }
        };
    if let Ok(value) = format!("\"{total}\"").parse() {
        response.headers_mut().insert(ETAG, value);
    }
    if head {
        response.headers_mut().insert(CONTENT_LENGTH, total.into());
        *response.body_mut() = Body::empty();
    }
    response
}

/// The file that a URL's path names, if it does not leave the folder.
fn inside(root: &Path, path: &str) -> Option<PathBuf> {
    let path = Path::new(path.trim_start_matches('/'));
    path.components().all(|part| matches!(part, Component::Normal(_))).then(|| root.join(path))
}

/// `bytes=a-b`, the only form that our clients send, as a half-open range inside `total`.
fn parse_range(range: &str, total: usize) -> Option<(usize, usize)> {
    let (start, end) = range.strip_prefix("bytes=")?.split_once('-')?;
    let start: usize = start.parse().ok()?;
    let end = end.parse::<usize>().map_or(total, |end| end.saturating_add(1).min(total));
    (start < end).then_some((start, end))
}
