//! The agent's channel: who may speak, and which bytes belong to which request.
//!
//! Everything here is about one connection; see the module above for why it synchronizes.

use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::{ANSWER_BYTES_MAX, AgentError};

/// Our end of the channel, shared by all who ask.
pub(crate) struct Channel(Mutex<State>);

struct State {
    stream: UnixStream,
    /// Bytes that came after the last whole line.
    rest: Vec<u8>,
    /// The next bytes to come are the answer to the next request.
    synchronized: bool,
}

impl Channel {
    pub fn new(stream: UnixStream) -> Self {
        Self(Mutex::new(State { stream, rest: Vec::new(), synchronized: false }))
    }

    /// A channel on which the next bytes are known to be an answer, or not: for [`crate::fuzz`].
    pub fn at(stream: UnixStream, synchronized: bool) -> Self {
        Self(Mutex::new(State { stream, rest: Vec::new(), synchronized }))
    }

    /// One request, with the channel to itself, and its answer.
    pub fn request(
        &self,
        command: &str,
        arguments: Value,
        timeout: Duration,
    ) -> Result<Value, AgentError> {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let deadline = ambient::now() + timeout;
        let answer = state.request(command, arguments, deadline);
        // A refusal is an answer too; after anything else nobody knows what comes next.
        state.synchronized = matches!(answer, Ok(_) | Err(AgentError::Refused { .. }));
        match answer {
            Err(AgentError::Timeout { command, .. }) => {
                Err(AgentError::Timeout { command, after: timeout })
            }
            other => other,
        }
    }
}

impl State {
    fn request(
        &mut self,
        command: &str,
        arguments: Value,
        deadline: Instant,
    ) -> Result<Value, AgentError> {
        if !self.synchronized {
            self.synchronize(command, deadline)?;
        }
        self.send(b"", command, arguments, deadline)?;
        let mut answer = self.line(command, deadline)?;
        if let Some(value) = answer.get_mut("return") {
            return Ok(value.take());
        }
        match answer["error"]["desc"].as_str() {
            Some(detail) => Err(AgentError::Refused {
                command: command.to_owned(),
                detail: detail.chars().take(1000).collect(),
            }),
            None => Err(unexpected(command, "neither result nor error")),
        }
    }

    fn synchronize(&mut self, command: &str, deadline: Instant) -> Result<(), AgentError> {
        let number = u32::from_le_bytes(ambient::random::<4>());
        // What came before is of no interest.
        self.rest.clear();
        self.send(b"\xff", "guest-sync-delimited", json!({ "id": number }), deadline)?;
        loop {
            self.skip_to_delimiter(command, deadline)?;
            // The answer to an older attempt can come first.
            match self.line(command, deadline) {
                Ok(answer) if answer["return"] == number => return Ok(()),
                Ok(_) | Err(AgentError::Unexpected { .. }) => {}
                Err(error) => return Err(error),
            }
        }
    }

    fn send(
        &mut self,
        before: &[u8],
        command: &str,
        arguments: Value,
        deadline: Instant,
    ) -> Result<(), AgentError> {
        let mut request = json!({ "execute": command });
        if !arguments.is_null() {
            request["arguments"] = arguments;
        }
        let mut line = before.to_vec();
        line.extend_from_slice(request.to_string().as_bytes());
        line.push(b'\n');
        self.stream.set_write_timeout(Some(left(deadline))).map_err(AgentError::Closed)?;
        self.stream.write_all(&line).map_err(|error| broken(command, error))
    }

    fn skip_to_delimiter(&mut self, command: &str, deadline: Instant) -> Result<(), AgentError> {
        let mut skipped = 0;
        loop {
            if let Some(at) = self.rest.iter().position(|&byte| byte == 0xff) {
                self.rest.drain(..=at);
                return Ok(());
            }
            skipped += self.rest.len();
            if skipped > 2 * ANSWER_BYTES_MAX {
                return Err(unexpected(command, "it talks without end"));
            }
            self.rest.clear();
            self.read(command, deadline)?;
        }
    }

    /// The next line, as JSON.
    fn line(&mut self, command: &str, deadline: Instant) -> Result<Value, AgentError> {
        let mut searched = 0;
        loop {
            if let Some(at) = self.rest[searched..].iter().position(|&byte| byte == b'\n') {
                let line: Vec<u8> = self.rest.drain(..=searched + at).collect();
                return serde_json::from_slice(&line)
                    .map_err(|error| unexpected(command, &error.to_string()));
            }
            searched = self.rest.len();
            if searched > ANSWER_BYTES_MAX {
                self.rest = Vec::new();
                return Err(unexpected(command, "an answer without end"));
            }
            self.read(command, deadline)?;
        }
    }

    fn read(&mut self, command: &str, deadline: Instant) -> Result<(), AgentError> {
        if ambient::now() >= deadline {
            return Err(late(command));
        }
        self.stream.set_read_timeout(Some(left(deadline))).map_err(AgentError::Closed)?;
        let mut buffer = [0; 64 << 10];
        match self.stream.read(&mut buffer) {
            Ok(0) => Err(AgentError::Closed(io::ErrorKind::UnexpectedEof.into())),
            Ok(count) => {
                self.rest.extend_from_slice(&buffer[..count]);
                Ok(())
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(()),
            Err(error) => Err(broken(command, error)),
        }
    }
}

/// Time left, at least a millisecond: zero would mean no limit.
fn left(deadline: Instant) -> Duration {
    deadline.saturating_duration_since(ambient::now()).max(Duration::from_millis(1))
}

fn late(command: &str) -> AgentError {
    AgentError::Timeout { command: command.to_owned(), after: Duration::ZERO }
}

fn broken(command: &str, error: io::Error) -> AgentError {
    match error.kind() {
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => late(command),
        _ => AgentError::Closed(error),
    }
}

pub(super) fn unexpected(command: &str, detail: &str) -> AgentError {
    AgentError::Unexpected { command: command.to_owned(), detail: detail.to_owned() }
}
