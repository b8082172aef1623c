//! QEMU's monitor protocol: JSON lines, a greeting, numbered commands, events in between.
//!
//! One thread reads; any thread may call. Each call carries its number and has a deadline; an
//! answer that comes after it is dropped. Subscribers get events through queues of their own.
//!
//! Bounds: a line has at most [`LINE_BYTES_MAX`] bytes, a subscriber's queue [`EVENTS_MAX`]
//! events (a subscriber that falls further behind loses the newest ones, and nobody else waits
//! for it). QEMU is not trusted: a line that is not QMP ends the connection.
//! When QEMU ends, every call under way returns [`QmpError::Closed`] at once.

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Read};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, SyncSender, channel, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use serde_json::{Value, json};

use crate::descriptors;

/// Longest line accepted.
const LINE_BYTES_MAX: u64 = 4 << 20;
/// Events that wait for one subscriber.
const EVENTS_MAX: usize = 1024;

/// Something that happened in QEMU.
#[derive(Debug, Clone)]
pub struct Event {
    /// QEMU's name for it, for example `SHUTDOWN`.
    pub name: String,
    /// Its details; null when it has none.
    pub data: Value,
}

/// Why a command has no result.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum QmpError {
    /// QEMU refused it.
    #[error("{description}")]
    Refused {
        /// QEMU's class, for example `GenericError`.
        class: String,
        /// QEMU's words.
        description: String,
    },
    /// No answer before the deadline.
    #[error("no answer within {} s", .0.as_secs_f32())]
    Timeout(Duration),
    /// QEMU has gone, or never was.
    #[error("the connection is closed")]
    Closed,
    /// What came is not QMP.
    #[error("not QMP: {0}")]
    Malformed(String),
}

type Answer = Result<Value, QmpError>;

#[derive(Default)]
struct Shared {
    waiting: HashMap<u64, Sender<Answer>>,
    subscribers: Vec<SyncSender<Event>>,
    next_id: u64,
    closed: bool,
}

/// A connection to one QEMU's monitor.
pub struct Qmp {
    writer: Mutex<UnixStream>,
    shared: Arc<Mutex<Shared>>,
}

impl Qmp {
    /// Waits for the greeting and leaves negotiation mode. `timeout` is for both together.
    /// `on_event` sees every event, on the reading thread: it must not wait or call.
    pub fn connect(
        stream: UnixStream,
        timeout: Duration,
        on_event: impl Fn(&Event) + Send + 'static,
    ) -> Result<Self, QmpError> {
        let closed = |_| QmpError::Closed;
        let reader = stream.try_clone().map_err(closed)?;
        stream.set_write_timeout(Some(timeout)).map_err(closed)?;
        let shared = Arc::new(Mutex::new(Shared::default()));
        let (greeted, greeting) = channel();
        let for_reader = Arc::clone(&shared);
        std::thread::Builder::new()
            .name("qmp".to_owned())
            .spawn(move || read_all(reader, &for_reader, &greeted, &on_event))
            .map_err(closed)?;
        let qmp = Self { writer: Mutex::new(stream), shared };
        greeting.recv_timeout(timeout).map_err(|error| match error {
            RecvTimeoutError::Timeout => QmpError::Timeout(timeout),
            RecvTimeoutError::Disconnected => QmpError::Closed,
        })??;
        qmp.call("qmp_capabilities", Value::Null, timeout)?;
        Ok(qmp)
    }

    /// Runs one command. `arguments` is an object, or null for none.
    pub fn call(&self, command: &str, arguments: Value, timeout: Duration) -> Answer {
        self.call_with(command, arguments, None, timeout)
    }

    /// As [`Qmp::call`], handing a file descriptor along (`getfd`, `add-fd`).
    pub fn call_with(
        &self,
        command: &str,
        arguments: Value,
        fd: Option<BorrowedFd<'_>>,
        timeout: Duration,
    ) -> Answer {
        let (answered, answer) = channel();
        let id = {
            let mut shared = lock(&self.shared);
            if shared.closed {
                return Err(QmpError::Closed);
            }
            shared.next_id += 1;
            let id = shared.next_id;
            shared.waiting.insert(id, answered);
            id
        };
        let mut request = json!({ "execute": command, "id": id });
        if !arguments.is_null() {
            request["arguments"] = arguments;
        }
        let mut line = request.to_string().into_bytes();
        line.push(b'\n');
        let sent = {
            let writer = lock(&self.writer);
            descriptors::send(writer.as_fd(), &line, fd.as_slice())
        };
        let result = match sent {
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {
                Err(QmpError::Timeout(timeout))
            }
            Err(_) => Err(QmpError::Closed),
            Ok(()) => match answer.recv_timeout(timeout) {
                Ok(answer) => answer,
                Err(RecvTimeoutError::Timeout) => Err(QmpError::Timeout(timeout)),
                Err(RecvTimeoutError::Disconnected) => Err(QmpError::Closed),
            },
        };
        lock(&self.shared).waiting.remove(&id);
        result
    }

    /// Events from now on. The queue ends when QEMU does.
    pub fn subscribe(&self) -> Receiver<Event> {
        let (sender, receiver) = sync_channel(EVENTS_MAX);
        let mut shared = lock(&self.shared);
        if !shared.closed {
            shared.subscribers.push(sender);
        }
        receiver
    }
}

impl Drop for Qmp {
    fn drop(&mut self) {
        // Wakes the reader, which has its own handle of the same socket.
        let _ = lock(&self.writer).shutdown(std::net::Shutdown::Both);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn read_all(
    stream: UnixStream,
    shared: &Mutex<Shared>,
    greeted: &Sender<Result<(), QmpError>>,
    on_event: &dyn Fn(&Event),
) {
    let mut reader = BufReader::new(stream);
    let mut greeting_seen = false;
    let reason = loop {
        match read_line(&mut reader) {
            Ok(message) if message.get("QMP").is_some() => {
                greeting_seen = true;
                let _ = greeted.send(Ok(()));
            }
            Ok(message) => {
                if let Err(error) = deliver(message, shared, on_event) {
                    break error;
                }
            }
            Err(error) => break error,
        }
    };
    if !greeting_seen {
        let _ = greeted.send(Err(reason.clone()));
    }
    if let QmpError::Malformed(detail) = &reason {
        tracing::error!("QEMU's monitor connection ended: {detail}");
    }
    let mut shared = lock(shared);
    shared.closed = true;
    shared.subscribers.clear();
    for (_, waiting) in shared.waiting.drain() {
        let _ = waiting.send(Err(reason.clone()));
    }
}

/// Reads what a monitor says without anybody waiting for an answer: for [`crate::fuzz`].
pub(crate) fn read_lines(mut bytes: &[u8], on_event: &mut dyn FnMut(&Event)) {
    let shared = Mutex::new(Shared::default());
    let seen = std::cell::RefCell::new(on_event);
    while let Ok(message) = read_line(&mut bytes) {
        if deliver(message, &shared, &|event| seen.borrow_mut()(event)).is_err() {
            return;
        }
    }
}

/// One bounded line as JSON.
fn read_line(reader: &mut impl BufRead) -> Result<Value, QmpError> {
    let mut line = Vec::new();
    let read = reader.take(LINE_BYTES_MAX).read_until(b'\n', &mut line);
    match read {
        Ok(0) | Err(_) => Err(QmpError::Closed),
        Ok(_) if line.last() != Some(&b'\n') && line.len() as u64 == LINE_BYTES_MAX => {
            Err(QmpError::Malformed(format!("a line of more than {LINE_BYTES_MAX} bytes")))
        }
        Ok(_) => {
            serde_json::from_slice(&line).map_err(|error| QmpError::Malformed(error.to_string()))
        }
    }
}

fn deliver(
    mut message: Value,
    shared: &Mutex<Shared>,
    on_event: &dyn Fn(&Event),
) -> Result<(), QmpError> {
    if let Some(name) = message.get("event").and_then(Value::as_str) {
        let event = Event { name: name.to_owned(), data: message["data"].take() };
        on_event(&event);
        // A full queue loses this event; a subscriber that is gone is forgotten.
        lock(shared).subscribers.retain(|subscriber| {
            !matches!(
                subscriber.try_send(event.clone()),
                Err(std::sync::mpsc::TrySendError::Disconnected(_))
            )
        });
        return Ok(());
    }
    let answer = if let Some(value) = message.get_mut("return") {
        Ok(value.take())
    } else if let Some(error) = message.get("error") {
        let text = |key: &str| error[key].as_str().unwrap_or_default().to_owned();
        Err(QmpError::Refused { class: text("class"), description: text("desc") })
    } else {
        return Err(QmpError::Malformed("neither event nor answer".to_owned()));
    };
    // Without a number it answers something we did not send; with an unknown one, a call that
    // gave up.
    let waiting = message["id"].as_u64().and_then(|id| lock(shared).waiting.remove(&id));
    if let Some(waiting) = waiting {
        let _ = waiting.send(answer);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    const SOON: Duration = Duration::from_millis(300);

    /// A QEMU that reads each command and answers with `answer(command, id)`.
    fn fake(answer: impl Fn(&str, u64) -> String + Send + 'static) -> Result<Qmp, QmpError> {
        let (ours, theirs) = UnixStream::pair().unwrap();
        std::thread::spawn(move || {
            let mut writer = theirs.try_clone().unwrap();
            let _ = writer.write_all(b"{\"QMP\": {\"version\": {}, \"capabilities\": []}}\r\n");
            for line in BufReader::new(theirs).lines() {
                let Ok(line) = line else { return };
                let message: Value = serde_json::from_str(&line).unwrap();
                let id = message["id"].as_u64().unwrap();
                let text = match message["execute"].as_str().unwrap() {
                    "qmp_capabilities" => format!("{{\"return\": {{}}, \"id\": {id}}}\n"),
                    command => answer(command, id),
                };
                if text.is_empty() || writer.write_all(text.as_bytes()).is_err() {
                    return;
                }
            }
        });
        Qmp::connect(ours, Duration::from_secs(5), |_| ())
    }

    #[test]
    fn answers_find_their_calls_and_events_their_subscribers() {
        let qmp = fake(|command, id| match command {
            "good" => format!(
                "{{\"event\": \"STOP\", \"data\": {{\"a\": 1}}}}\n{{\"return\": 99, \"id\": 12345}}\n\
                 {{\"return\": [7], \"id\": {id}}}\n"
            ),
            _ => format!(
                "{{\"error\": {{\"class\": \"GenericError\", \"desc\": \"no\"}}, \"id\": {id}}}\n"
            ),
        })
        .unwrap();
        let events = qmp.subscribe();
        assert_eq!(qmp.call("good", Value::Null, SOON), Ok(json!([7])));
        let event = events.recv_timeout(SOON).unwrap();
        assert_eq!((event.name.as_str(), &event.data["a"]), ("STOP", &json!(1)));
        let refused = QmpError::Refused { class: "GenericError".into(), description: "no".into() };
        assert_eq!(qmp.call("bad", json!({"x": 1}), SOON), Err(refused));
    }

    #[test]
    fn silence_has_a_deadline_and_death_is_noticed() {
        let silent = fake(|_, _| " \n".to_owned()).unwrap();
        assert!(matches!(
            silent.call("x", Value::Null, SOON),
            Err(QmpError::Timeout(_) | QmpError::Malformed(_))
        ));
        let dead = fake(|_, _| String::new()).unwrap();
        let events = dead.subscribe();
        assert_eq!(dead.call("x", Value::Null, Duration::from_secs(60)), Err(QmpError::Closed));
        assert!(events.recv_timeout(SOON).is_err());
        assert_eq!(dead.call("x", Value::Null, Duration::from_secs(60)), Err(QmpError::Closed));
    }

    #[test]
    fn what_is_not_qmp_ends_the_connection() {
        for garbage in ["nonsense\n", "[]\n", "{\"id\": 1}\n"] {
            let qmp = fake(move |_, _| garbage.to_owned()).unwrap();
            let error = qmp.call("x", Value::Null, Duration::from_secs(60)).unwrap_err();
            assert!(matches!(error, QmpError::Malformed(_)), "{garbage} {error}");
        }
        let long = fake(|_, _| "x".repeat(LINE_BYTES_MAX as usize + 1)).unwrap();
        let error = long.call("x", Value::Null, Duration::from_secs(60)).unwrap_err();
        assert!(matches!(error, QmpError::Malformed(_)), "{error}");
    }

    #[test]
    fn a_connection_without_a_greeting_is_refused() {
        let (ours, theirs) = UnixStream::pair().unwrap();
        assert!(matches!(Qmp::connect(ours, SOON, |_| ()), Err(QmpError::Timeout(_))));
        drop(theirs);
        let (ours, theirs) = UnixStream::pair().unwrap();
        drop(theirs);
        assert!(Qmp::connect(ours, SOON, |_| ()).is_err());
    }
}
