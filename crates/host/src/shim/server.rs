//! The shim's socket: one thread for each connection, one request for each connection.
//!
//! What only reads (`Status`, `AwaitReady`), what only the guest's agent does (`Exec`) and what ends a
//! start while there is no owner yet (`CallOff`) is answered here; everything that changes the instance is
//! queued for its owner.

use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use api::{Asked, Reply, Request};
use spans::{Fact, Kind, Span};

use super::guest::Guest;
use super::shared::Shared;
use crate::auto::line::Taken;
use crate::failure::Failure;
use crate::socket;

/// Connections at once: more are closed unanswered.
const CONNECTIONS_MAX: usize = 64;

/// What the owner's queue holds.
pub enum Message {
    /// Somebody asked, and waits for the reply; what it is followed by ends before that.
    Request(Request, Sender<Reply>, Box<Span>),
    /// QEMU has ended, or the guest has powered itself off.
    Ended(String),
    /// A page cannot be had: hold the guest until it can.
    Stalled,
    /// Every page can be had again.
    Recovered,
    /// The repository has what it came with.
    Landed(Taken),
}

/// What a connection's thread needs.
#[derive(Clone)]
pub struct Door {
    /// Of the instance.
    pub name: Arc<str>,
    pub shared: Arc<Shared>,
    pub owner: Sender<Message>,
    /// The guest, once it runs.
    pub guest: Arc<Mutex<Option<Arc<Guest>>>>,
}

/// Serves connections until the process ends.
pub fn serve(listener: UnixListener, door: Door) {
    let open = Arc::new(AtomicUsize::new(0));
    for stream in listener.incoming() {
        let Ok(stream) = stream else { continue };
        if open.fetch_add(1, Ordering::Relaxed) >= CONNECTIONS_MAX {
            open.fetch_sub(1, Ordering::Relaxed);
            continue;
        }
        let (door, open_here) = (door.clone(), open.clone());
        let spawned = std::thread::Builder::new().name("connection".to_owned()).spawn(move || {
            connection(stream, &door);
            open_here.fetch_sub(1, Ordering::Relaxed);
        });
        if spawned.is_err() {
            open.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

fn connection(mut stream: UnixStream, door: &Door) {
    let _ = stream.set_read_timeout(Some(Duration::from_secs(30)));
    let Asked { request, traceparent } = match socket::receive(&stream) {
        Ok(Some(asked)) => asked,
        Ok(None) => return,
        Err(failure) => {
            let _ = socket::send(&mut stream, &Reply::Failed { error: failure.body() });
            return;
        }
    };
    let asked_how = matches!(request, Request::AwaitReady { .. } | Request::AwaitStarted { .. });
    let reply = answer(Asked { request, traceparent }, door);
    let _ = socket::send(&mut stream, &reply);
    if asked_how {
        door.shared.set_told();
    }
}

fn answer(Asked { request, traceparent }: Asked, door: &Door) -> Reply {
    let followed = |verb: &str| {
        let name = format!("shim {verb}");
        let mut span = Span::below(name, Kind::Asked, traceparent.as_deref());
        span.say(Fact::Instance, &*door.name);
        span
    };
    match request {
        Request::Status => Reply::Status(Box::new(door.shared.status())),
        Request::AwaitReady { timeout_ms } => {
            match door.shared.await_ready(Duration::from_millis(timeout_ms)) {
                Ok(report) => Reply::Started(report),
                Err(failure) => Reply::Failed { error: failure.body() },
            }
        }
        Request::AwaitStarted { timeout_ms } => {
            match door.shared.await_started(Duration::from_millis(timeout_ms)) {
                Ok(report) => Reply::Started(report),
                Err(failure) => Reply::Failed { error: failure.body() },
            }
        }
        Request::CallOff => Reply::CalledOff { in_time: door.shared.call_off() },
        Request::Exec { argv, stdin_base64, timeout_ms } => {
            // Not what is run: that may be anything.
            let mut span = followed("exec");
            let guest = door.guest.lock().unwrap_or_else(|p| p.into_inner()).clone();
            let result = match (door.shared.state(), guest) {
                ("running", Some(guest)) => {
                    guest.exec(&argv, stdin_base64.as_deref(), Duration::from_millis(timeout_ms))
                }
                (state, _) => Err(Failure::new(
                    "state",
                    format!("it is {state}, so that nothing can be run in it"),
                    "`collective unpause NAME` or `collective resume NAME` first",
                )),
            };
            match result {
                Ok(outcome) => Reply::Exec(outcome),
                Err(failure) => {
                    span.failed(failure.kind);
                    Reply::Failed { error: failure.body() }
                }
            }
        }
        other => {
            let (reply, answer): (Sender<Reply>, Receiver<Reply>) = channel();
            let gone = || {
                let failure = Failure::new(
                    "state",
                    "its shim is ending",
                    "`collective ps` shows what it is doing now",
                );
                Reply::Failed { error: failure.body() }
            };
            let span = followed(other.verb());
            if door.owner.send(Message::Request(other, reply, Box::new(span))).is_err() {
                return gone();
            }
            answer.recv().unwrap_or_else(|_| gone())
        }
    }
}
