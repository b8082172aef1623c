//! The figures of a host over HTTP: `GET /metrics`, and nothing else.
//!
//! *Without TLS and without a token,* at an address that somebody names; by default there is none. What is
//! here are sums: no name of an instance, an appliance or a person, and nothing can be changed. A collector
//! that is on the same machine needs no certificate then; who has it elsewhere and on a network that
//! others read puts a proxy before it.
//!
//! *Bounds:* [`CONNECTIONS_MAX`] at once, each for one request and at most [`CONNECTION_TIME`];
//! [`HEADER_BYTES_MAX`]. One too many is closed at once. A body is not read.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::header::{ALLOW, CONTENT_TYPE, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpListener;
use tokio::runtime::{Builder, Runtime};
use tokio::sync::Semaphore;

use super::KIND;

const CONNECTIONS_MAX: usize = 16;
const CONNECTION_TIME: Duration = Duration::from_secs(10);
const HEADER_TIME: Duration = Duration::from_secs(5);
const HEADER_BYTES_MAX: usize = 16 * 1024;

/// What there is to be told; from memory, at once.
type Tell = dyn Fn() -> String + Send + Sync;

/// Serves until it is dropped.
#[derive(Debug)]
pub struct Server {
    address: SocketAddr,
    runtime: Option<Runtime>,
}

impl Server {
    /// Serves on an address (port 0: any free one). `tell` is asked with each request and must not wait
    /// for anything.
    pub fn start(
        address: SocketAddr,
        tell: impl Fn() -> String + Send + Sync + 'static,
    ) -> io::Result<Self> {
        let runtime = Builder::new_multi_thread()
            .worker_threads(1)
            .thread_name("figures")
            .enable_all()
            .build()?;
        let listener = runtime.block_on(TcpListener::bind(address))?;
        let address = listener.local_addr()?;
        runtime.spawn(accept(listener, Arc::new(tell)));
        Ok(Self { address, runtime: Some(runtime) })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

async fn accept(listener: TcpListener, tell: Arc<Tell>) {
    let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    loop {
        let Ok((socket, _)) = listener.accept().await else {
            // Out of descriptors: some will be let go.
            tokio::time::sleep(Duration::from_millis(50)).await;
            continue;
        };
        let Ok(place) = places.clone().try_acquire_owned() else { continue };
        let tell = tell.clone();
        let respond = service_fn(move |request: Request<Incoming>| {
            let response = respond(request.method(), request.uri().path(), &*tell);
            std::future::ready(Ok::<_, Infallible>(response))
        });
        tokio::spawn(async move {
            let _place = place;
            let served = http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(HEADER_TIME)
                .max_buf_size(HEADER_BYTES_MAX)
                .keep_alive(false)
                .serve_connection(TokioIo::new(socket), respond);
            // Who asks asks again.
            let _ = tokio::time::timeout(CONNECTION_TIME, served).await;
        });
    }
}

fn respond(method: &Method, path: &str, tell: &Tell) -> Response<Full<Bytes>> {
    let (status, kind, text) = match (method, path) {
        (&Method::GET, "/metrics") => (StatusCode::OK, KIND, tell()),
        (_, "/metrics") => (StatusCode::METHOD_NOT_ALLOWED, "text/plain", "only GET\n".to_owned()),
        _ => (StatusCode::NOT_FOUND, "text/plain", "only /metrics\n".to_owned()),
    };
    let mut response = Response::new(Full::new(Bytes::from(text)));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    if status == StatusCode::METHOD_NOT_ALLOWED {
        response.headers_mut().insert(ALLOW, HeaderValue::from_static("GET"));
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};
    use std::net::TcpStream;

    /// All that comes until the other end has enough.
    fn ask(to: SocketAddr, request: &str) -> String {
        let mut socket = TcpStream::connect(to).unwrap();
        socket.write_all(request.as_bytes()).unwrap();
        let mut answer = String::new();
        // One that is closed with something unread is reset.
        let _ = socket.read_to_string(&mut answer);
        answer
    }

    #[test]
    fn it_gives_its_figures_and_nothing_else() {
        let server = Server::start(([127, 0, 0, 1], 0).into(), || "x 1\n".to_owned()).unwrap();
        let to = server.address();
        let get = ask(to, "GET /metrics HTTP/1.1\r\nhost: x\r\n\r\n");
        assert!(get.starts_with("HTTP/1.1 200 ") && get.ends_with("\r\n\r\nx 1\n"), "{get}");
        assert!(get.contains(&format!("content-type: {KIND}\r\n")), "{get}");
        let post = ask(to, "POST /metrics HTTP/1.1\r\nhost: x\r\ncontent-length: 1\r\n\r\nx");
        assert!(post.starts_with("HTTP/1.1 405 ") && post.contains("allow: GET\r\n"), "{post}");
        for path in ["/", "/metrics/", "/v1/hosts", "/../metrics"] {
            let other = ask(to, &format!("GET {path} HTTP/1.1\r\nhost: x\r\n\r\n"));
            assert!(other.starts_with("HTTP/1.1 404 "), "{path}: {other}");
        }
        let long = format!("GET /metrics HTTP/1.1\r\nx: {}\r\n\r\n", "y".repeat(1 << 20));
        assert!(!ask(to, &long).contains("x 1"));

        // So many wait and say nothing: one more is let go, and served when they are gone. (They are let go
        // themselves when that takes long.)
        let turned_away = (0..20).any(|_| {
            let idle = (0..CONNECTIONS_MAX).map(|_| TcpStream::connect(to).unwrap());
            let _idle: Vec<_> = idle.collect();
            ask(to, "GET /metrics HTTP/1.1\r\nhost: x\r\n\r\n").is_empty()
        });
        assert!(turned_away);
        while ask(to, "GET /metrics HTTP/1.1\r\nhost: x\r\n\r\n").is_empty() {
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}
