//! The socket. Requests are read and bounded here; what they mean is on a thread of its own, where
//! the state may be waited for.
//!
//! *Bounds:* those of [`door`](super::door), [`BODY_BYTES_MAX`], [`HANDSHAKE_TIME`], [`HEADER_TIME`],
//! [`BODY_TIME`].

use std::convert::Infallible;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use http_body_util::{BodyExt, Either, Full, Limited};
use hyper::body::{Bytes, Frame, Incoming};
use hyper::header::{CONNECTION, CONTENT_TYPE, ETAG, HeaderValue};
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use rustls::crypto::aws_lc_rs;
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::{Builder, Runtime};
use tokio_rustls::TlsAcceptor;

use super::ask::Request;
use super::door::{Bounds, Door, Guest};
use super::presence::Presence;
use super::routes::Reply;
use super::steer::Steering;
use super::{Plane, Refused, ServeError, events};
use crate::identity::{IdentityError, Peer};

const BODY_BYTES_MAX: usize = 512 * 1024;
const HANDSHAKE_TIME: Duration = Duration::from_secs(10);
const HEADER_TIME: Duration = Duration::from_secs(10);
const BODY_TIME: Duration = Duration::from_secs(30);

/// A plane that is served; dropped, it is not.
#[derive(Debug)]
pub struct Server {
    address: SocketAddr,
    _steering: Steering,
    _presence: Option<Presence>,
    runtime: Option<Runtime>,
}

impl Server {
    /// Serves a plane on an address (port 0: any free one).
    pub fn start(plane: Arc<Plane>, address: SocketAddr) -> Result<Self, ServeError> {
        Self::start_within(plane, address, Bounds::default())
    }

    /// The same with bounds of a test's own.
    #[doc(hidden)]
    pub fn start_within(
        plane: Arc<Plane>,
        address: SocketAddr,
        bounds: Bounds,
    ) -> Result<Self, ServeError> {
        let tls = TlsAcceptor::from(Arc::new(tls(&plane, address)?));
        let io = |source| ServeError::Io { what: format!("cannot listen on {address}"), source };
        let runtime = Builder::new_multi_thread()
            .worker_threads(2)
            .max_blocking_threads(bounds.known + bounds.strangers + events::STREAMS_MAX)
            .thread_name("plane")
            .enable_all()
            .build()
            .map_err(io)?;
        let listener = runtime.block_on(TcpListener::bind(address)).map_err(io)?;
        let address = listener.local_addr().map_err(io)?;
        let steering = Steering::begin(plane.clone()).map_err(io)?;
        let listens = (!address.ip().is_unspecified()).then(|| format!("https://{address}"));
        let found_at = plane.found_at.get().cloned().or(listens);
        let presence = found_at.map(|url| Presence::begin(plane.clone(), url));
        let presence = presence.transpose().map_err(io)?;
        runtime.spawn(accept(listener, tls, plane, Door::new(bounds)));
        Ok(Self { address, _steering: steering, _presence: presence, runtime: Some(runtime) })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            // What is under way is ended: a caller that got no answer asks again.
            runtime.shutdown_background();
        }
    }
}

/// Who calls may show a certificate of the authority's; what it allows is for the routes to say.
fn tls(plane: &Plane, address: SocketAddr) -> Result<ServerConfig, ServeError> {
    let no = |error: &dyn std::fmt::Display| IdentityError(format!("no TLS: {error}"));
    let loopback = [IpAddr::from([127, 0, 0, 1]), IpAddr::from(Ipv6Addr::LOCALHOST), address.ip()];
    let (certificate, key) = plane.authority.plane(&loopback)?;
    let provider = Arc::new(aws_lc_rs::default_provider());
    let mut roots = RootCertStore::empty();
    roots.add(plane.authority.der().clone()).map_err(|error| no(&error))?;
    let hosts = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider.clone())
        .allow_unauthenticated()
        .build()
        .map_err(|error| no(&error))?;
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| no(&error))?
        .with_client_cert_verifier(hosts)
        .with_single_cert(vec![certificate], key)
        .map_err(|error| no(&error))?;
    Ok(config)
}

async fn accept(listener: TcpListener, tls: TlsAcceptor, plane: Arc<Plane>, door: Arc<Door>) {
    loop {
        let Ok((socket, from)) = listener.accept().await else {
            // Out of descriptors: some will be let go.
            tokio::time::sleep(Duration::from_millis(50)).await;
            continue;
        };
        // One too many is closed: its caller is told at once, and others are served.
        let Some(guest) = door.enter(from.ip()) else { continue };
        let _ = socket.set_nodelay(true);
        tokio::spawn(attend(
            (socket, from.ip()),
            tls.clone(),
            plane.clone(),
            Arc::new(guest),
            door.bounds.time,
        ));
    }
}

async fn attend(
    (socket, from): (TcpStream, IpAddr),
    tls: TlsAcceptor,
    plane: Arc<Plane>,
    guest: Arc<Guest>,
    time: Duration,
) {
    let ends = tokio::time::sleep(time);
    let Ok(Ok(socket)) = tokio::time::timeout(HANDSHAKE_TIME.min(time), tls.accept(socket)).await
    else {
        return;
    };
    let shown = socket.get_ref().1.peer_certificates().and_then(|shown| shown.first());
    let peer = shown.and_then(Peer::of);
    let here = guest.clone();
    let serve =
        service_fn(move |request| respond(plane.clone(), (peer, from), here.clone(), request));
    let served = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIME)
        .serve_connection(TokioIo::new(socket), serve);
    tokio::pin!(served);
    // A caller that hangs up is no concern of ours.
    tokio::select! {
        _ = &mut served => {}
        () = ends => if guest.is_known() {
            let _ = served.await;
        },
    }
}

/// A document, or what comes as it happens.
type Body = Either<Full<Bytes>, Streamed>;

struct Streamed(events::Reader);

impl hyper::body::Body for Streamed {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        self.0.poll_recv(context).map(|part| part.map(|part| Ok(Frame::data(part))))
    }
}

async fn respond(
    plane: Arc<Plane>,
    (peer, from): (Option<Peer>, IpAddr),
    guest: Arc<Guest>,
    request: hyper::Request<Incoming>,
) -> Result<hyper::Response<Body>, Infallible> {
    let (head, body) = request.into_parts();
    let headers = head.headers.iter().filter_map(|(name, value)| {
        Some((name.as_str().to_owned(), value.to_str().ok()?.to_owned()))
    });
    let id: [u8; 8] = ambient::random();
    let id: String = id.iter().map(|byte| format!("{byte:02x}")).collect();
    let request = Request {
        id: id.clone(),
        query: head.uri.query().unwrap_or_default().to_owned(),
        method: head.method.as_str().to_owned(),
        path: head.uri.path().to_owned(),
        headers: headers.collect(),
        peer,
        body: Vec::new(),
        from: Some(from),
    };
    let read = Limited::new(body, BODY_BYTES_MAX).collect();
    let body = match tokio::time::timeout(BODY_TIME, read).await {
        Ok(Ok(body)) => body.to_bytes().to_vec(),
        _ => {
            let detail =
                format!("a body of more than {BODY_BYTES_MAX} bytes, or one that broke off");
            let refused = Refused::new(413, "usage", detail, "send less");
            let mut response = write(plane.refuse(&refused), &id);
            // What is left of the body is not read, so nothing can follow it: who would send the next
            // request on this connection has to know.
            response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
            return Ok(response);
        }
    };
    let request = Request { body, ..request };
    let asked = plane.clone();
    let answered = tokio::task::spawn_blocking(move || asked.answer(&request)).await;
    let (answered, stream) = match answered {
        Ok(mut reply) => {
            let stream = reply.stream.take();
            (Ok(reply), stream)
        }
        failed => (failed, None),
    };
    // Who is answered anything but "who are you" is known, if there is a place; if there is none, it
    // goes when it has its answer.
    let is_known = answered.as_ref().is_ok_and(|reply| reply.known) && guest.shown();
    let close = !is_known && !guest.is_known();
    let answered = answered.map(|reply| write(reply, &id)).map(|mut response| {
        if close {
            response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
        }
        response
    });
    let answered = match (answered, stream) {
        (Ok(response), Some(stream)) => {
            let (to, reader) = events::channel();
            // What goes wrong ends the stream; its reader asks again.
            tokio::task::spawn_blocking(move || drop(plane.send_events(&stream, &to)));
            Ok(response.map(|_| Body::Right(Streamed(reader))))
        }
        (answered, _) => answered,
    };
    Ok(answered.unwrap_or_else(|_| {
        let mut response = hyper::Response::new(Body::Left(Full::default()));
        *response.status_mut() = hyper::StatusCode::INTERNAL_SERVER_ERROR;
        response
    }))
}

fn write(reply: Reply, id: &str) -> hyper::Response<Body> {
    let mut response = hyper::Response::new(Body::Left(Full::new(Bytes::from(reply.body))));
    *response.status_mut() = hyper::StatusCode::from_u16(reply.status).unwrap_or_default();
    let headers = response.headers_mut();
    if let Ok(id) = HeaderValue::from_str(id) {
        headers.insert("x-request-id", id);
    }
    if !reply.kind.is_empty() {
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(reply.kind));
    }
    if let Some(revision) = reply.etag
        && let Ok(value) = HeaderValue::from_str(&format!("\"{}\"", revision.0))
    {
        headers.insert(ETAG, value);
    }
    if let Some(operation) = reply.operation
        && let Ok(value) = HeaderValue::from_str(&operation)
    {
        headers.insert(api::OPERATION_HEADER, value);
    }
    if !reply.planes.is_empty()
        && let Ok(value) = HeaderValue::from_str(&reply.planes.join(", "))
    {
        headers.insert(api::PLANES_HEADER, value);
    }
    response
}
