//! The guest agent: programs run inside the guest, over a virtio-serial channel.
//!
//! The protocol is qemu-ga's: JSON lines, one request at a time, no numbers. So an answer can
//! only be told apart by what came before it, and a channel that was cut (a timeout, a suspend
//! in the middle of an answer) holds stale bytes. The cure is the protocol's own:
//! `guest-sync-delimited`, whose answer starts with the byte 0xff and carries a number we
//! made up: everything before it is thrown away, and the 0xff that we send first makes the
//! agent drop half a request. Every new connection, and every failure, starts with one.
//!
//! Bounds: an answer has at most [`ANSWER_BYTES_MAX`] bytes; every request has a deadline; one
//! request at a time holds the channel, so that a long program in the guest keeps nobody out.
//! The guest is not trusted: what it sends is data, never a path or a command on this host.

mod channel;

use std::io;
use std::time::Duration;

use serde_json::{Value, json};

pub(crate) use channel::Channel;

use crate::base64;
use crate::qemu::Qemu;

/// Longest answer: qemu-ga caps each output stream at 16 MiB, in base64, and sends both at once.
pub const ANSWER_BYTES_MAX: usize = 48 << 20;
/// Longest standard input of a program; qemu-ga takes one request of it.
pub const STDIN_BYTES_MAX: usize = 8 << 20;

/// For requests that only look, and for who need not wait for a guest whose pages are far away.
pub const SOON: Duration = Duration::from_secs(10);
/// How long one attempt to synchronize may take before it is tried anew.
const SYNC: Duration = Duration::from_secs(5);

/// Why the guest agent did not answer.
#[derive(Debug, thiserror::Error)]
pub enum AgentError {
    /// Nothing in the guest has opened the channel.
    #[error("no guest agent is running in the guest")]
    Absent,
    /// It listens, but did not answer in time.
    #[error("the guest agent did not answer {command} within {} s", .after.as_secs_f32())]
    Timeout {
        /// The request.
        command: String,
        /// The deadline.
        after: Duration,
    },
    /// A program ran longer than it was allowed to; it was killed if the guest let us.
    #[error("{program} did not end within {} s", .after.as_secs_f32())]
    TooLong {
        /// The program in the guest.
        program: String,
        /// What it was allowed.
        after: Duration,
    },
    /// The agent refused the request.
    #[error("the guest agent refused {command}: {detail}")]
    Refused {
        /// The request.
        command: String,
        /// Its own words.
        detail: String,
    },
    /// What came is not the agent's protocol, or too long.
    #[error("the guest agent answered {command} with something unexpected: {detail}")]
    Unexpected {
        /// The request.
        command: String,
        /// What was wrong.
        detail: String,
    },
    /// More standard input than one request holds.
    #[error("standard input of {bytes} bytes is too long; at most {STDIN_BYTES_MAX}")]
    StdinTooLong {
        /// What was asked for.
        bytes: usize,
    },
    /// QEMU has gone.
    #[error("the channel to the guest is closed: {0}")]
    Closed(io::Error),
}

impl AgentError {
    /// What to do next.
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            Self::Absent => Some(
                "the appliance must run qemu-guest-agent (package qemu-guest-agent); it may also still be starting",
            ),
            Self::Timeout { .. } => {
                Some("the guest may be paused or overloaded: see `collective ps`, or try again")
            }
            Self::TooLong { .. } => Some("allow more time with --timeout"),
            Self::Refused { .. } => {
                Some("is the program installed in the guest, and spelled right?")
            }
            _ => None,
        }
    }
}

/// A program to run in the guest.
#[derive(Debug, Clone)]
pub struct Exec<'a> {
    /// Its path, or its name to be looked for in the agent's `PATH`.
    pub program: &'a str,
    /// Its arguments.
    pub arguments: &'a [String],
    /// `NAME=value`, beside what the agent itself has; none: the agent's own.
    pub environment: &'a [String],
    /// Its standard input.
    pub stdin: &'a [u8],
    /// Whether its output is wanted: to collect it costs an emulated guest some 0.1 s.
    pub output: bool,
    /// How long it may run.
    pub timeout: Duration,
    /// How long the agent may take for one answer: [`SOON`], or more where what it touches comes over a
    /// slow line.
    pub patience: Duration,
}

/// How a program in the guest ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExecOutput {
    /// Its exit code, or 128 + the signal that ended it, as a shell says it.
    pub code: i32,
    /// What it wrote to standard output.
    pub stdout: Vec<u8>,
    /// What it wrote to standard error.
    pub stderr: Vec<u8>,
    /// The agent dropped output because there was too much.
    pub truncated: bool,
}

/// The guest agent of one running QEMU.
pub struct Agent<'a> {
    qemu: Option<&'a Qemu>,
    channel: &'a Channel,
}

impl Qemu {
    /// The guest agent, whether or not one is there.
    pub fn agent(&self) -> Agent<'_> {
        Agent { qemu: Some(self), channel: self.agent_channel() }
    }
}

impl<'a> Agent<'a> {
    /// An agent behind a channel of its own, without QEMU: for [`crate::fuzz`].
    pub(crate) fn of(channel: &'a Channel) -> Self {
        Self { qemu: None, channel }
    }
}

/// [`Channel::at`].
pub(crate) fn channel_at(stream: std::os::unix::net::UnixStream, synchronized: bool) -> Channel {
    Channel::at(stream, synchronized)
}

impl Agent<'_> {
    /// Whether it answers, within `timeout`.
    pub fn ping(&self, timeout: Duration) -> Result<(), AgentError> {
        self.call("guest-ping", Value::Null, timeout).map(drop)
    }

    /// Waits until it answers, for a guest that is starting.
    pub fn wait(&self, timeout: Duration) -> Result<(), AgentError> {
        let deadline = ambient::now() + timeout;
        let mut pause = Backoff::new();
        loop {
            let left = deadline.saturating_duration_since(ambient::now());
            match self.ping(left.min(SYNC)) {
                Err(AgentError::Absent | AgentError::Timeout { .. }) if !left.is_zero() => {
                    pause.sleep();
                }
                other => return other,
            }
        }
    }

    /// The agent's version.
    pub fn version(&self) -> Result<String, AgentError> {
        let answer = self.call("guest-info", Value::Null, SOON)?;
        Ok(answer["version"].as_str().unwrap_or_default().chars().take(64).collect())
    }

    /// Sets the guest's clock, which stood still while the guest was suspended, to the second.
    ///
    /// By its `date`; where the agent cannot run that or must not, by `guest-set-time`. That one would
    /// do it alone, but also has `hwclock` write the hardware's clock, which may wait for a second to end.
    pub fn set_time(&self, unix_ms: u64, timeout: Duration) -> Result<(), AgentError> {
        let date = Exec {
            program: "date",
            arguments: &["-u".to_owned(), "-s".to_owned(), format!("@{}", unix_ms / 1000)],
            environment: &[],
            stdin: b"",
            output: false,
            timeout,
            patience: SOON,
        };
        match self.exec(&date) {
            Ok(ExecOutput { code: 0, .. }) => Ok(()),
            Ok(_) | Err(AgentError::Refused { .. }) => {
                let nanoseconds = unix_ms.saturating_mul(1_000_000);
                self.call("guest-set-time", json!({ "time": nanoseconds }), SOON).map(drop)
            }
            Err(error) => Err(error),
        }
    }

    /// Runs a program to its end. What it still had running when this fails stays running in the
    /// guest, except that a program which took too long is killed where the guest has `kill`.
    pub fn exec(&self, exec: &Exec<'_>) -> Result<ExecOutput, AgentError> {
        if exec.stdin.len() > STDIN_BYTES_MAX {
            return Err(AgentError::StdinTooLong { bytes: exec.stdin.len() });
        }
        let deadline = ambient::now() + exec.timeout;
        let mut arguments =
            json!({ "path": exec.program, "arg": exec.arguments, "capture-output": exec.output });
        if !exec.environment.is_empty() {
            arguments["env"] = json!(exec.environment);
        }
        if !exec.stdin.is_empty() {
            arguments["input-data"] = base64::encode(exec.stdin).into();
        }
        let pid = self.start(arguments, exec.patience)?;
        let mut pause = Backoff::new();
        loop {
            let command = "guest-exec-status";
            let asked = ambient::now();
            let status = self.call(command, json!({ "pid": pid }), exec.patience)?;
            if status["exited"].as_bool() == Some(true) {
                return output(&status).ok_or_else(|| AgentError::Unexpected {
                    command: command.to_owned(),
                    detail: "output that is not base64".to_owned(),
                });
            }
            if ambient::now() >= deadline {
                // Best effort: a guest may have no kill, or no such right.
                let kill = json!({ "path": "kill", "arg": ["-9", pid.to_string()] });
                let _ = self.start(kill, SOON);
                let program = exec.program.to_owned();
                return Err(AgentError::TooLong { program, after: exec.timeout });
            }
            // A slow guest answers with the CPU that its program needs: half of it at most.
            pause.sleep_at_least(asked.elapsed());
        }
    }

    fn start(&self, arguments: Value, patience: Duration) -> Result<i64, AgentError> {
        let command = "guest-exec";
        let answer = self.call(command, arguments, patience)?;
        answer["pid"].as_i64().ok_or_else(|| AgentError::Unexpected {
            command: command.to_owned(),
            detail: "no process id".to_owned(),
        })
    }

    /// Any other request; the agent's answer as it is.
    pub fn call(
        &self,
        command: &str,
        arguments: Value,
        timeout: Duration,
    ) -> Result<Value, AgentError> {
        // Asked before any byte is sent: what nobody reads would pile up in the channel.
        if let Some(qemu) = self.qemu
            && !is_open(qemu)?
        {
            return Err(AgentError::Absent);
        }
        self.channel.request(command, arguments, timeout)
    }
}

/// Whether a program in the guest has the channel open.
fn is_open(qemu: &Qemu) -> Result<bool, AgentError> {
    let closed = |error: crate::VmmError| AgentError::Closed(io::Error::other(error.to_string()));
    let answer = qemu.call("query-chardev", Value::Null, SOON).map_err(closed)?;
    let devices = answer.as_array().map(Vec::as_slice).unwrap_or_default();
    let agent = devices.iter().find(|device| device["label"] == "agent");
    Ok(agent.is_some_and(|device| device["frontend-open"] == true))
}

fn output(status: &Value) -> Option<ExecOutput> {
    let stream = |key: &str| status[key].as_str().map_or(Some(Vec::new()), base64::decode);
    let flag = |key: &str| status[key].as_bool().unwrap_or(false);
    let code = match (status["exitcode"].as_i64(), status["signal"].as_i64()) {
        (_, Some(signal)) if signal != 0 => 128 + signal,
        (code, _) => code.unwrap_or(0),
    };
    Some(ExecOutput {
        code: i32::try_from(code).unwrap_or(255),
        stdout: stream("out-data")?,
        stderr: stream("err-data")?,
        truncated: flag("out-truncated") || flag("err-truncated"),
    })
}

/// Short pauses that grow: an answer within milliseconds is seen within milliseconds, and a long
/// wait costs little.
struct Backoff(Duration);

impl Backoff {
    const LONGEST: Duration = Duration::from_millis(100);

    fn new() -> Self {
        Self(Duration::from_millis(2))
    }

    fn sleep(&mut self) {
        self.sleep_at_least(Duration::ZERO);
    }

    /// Never longer than the longest pause.
    fn sleep_at_least(&mut self, least: Duration) {
        std::thread::sleep(self.0.max(least).min(Self::LONGEST));
        self.0 = (self.0 * 3 / 2).min(Self::LONGEST);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{BufRead, Write};
    use std::os::unix::net::UnixStream;

    const SHORT: Duration = Duration::from_millis(200);

    /// An agent that already has `stale` in the channel and answers by `answer`.
    fn fake(
        stale: &'static [u8],
        answer: impl Fn(&str, &Value) -> Option<String> + Send + 'static,
    ) -> Channel {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        theirs.write_all(stale).unwrap();
        std::thread::spawn(move || {
            let mut reader = io::BufReader::new(theirs.try_clone().unwrap());
            let mut line = Vec::new();
            while reader.read_until(b'\n', &mut line).is_ok_and(|count| count > 0) {
                let start = line.iter().position(|&byte| byte != 0xff).unwrap();
                let request: Value = serde_json::from_slice(&line[start..]).unwrap();
                line.clear();
                let arguments = &request["arguments"];
                let text = match request["execute"].as_str().unwrap() {
                    "guest-sync-delimited" => {
                        theirs.write_all(&[0xff]).unwrap();
                        Some(format!("{{\"return\": {}}}", arguments["id"]))
                    }
                    command => answer(command, arguments),
                };
                if let Some(text) = text {
                    theirs.write_all(text.as_bytes()).unwrap();
                    theirs.write_all(b"\n").unwrap();
                }
            }
        });
        Channel::new(ours)
    }

    fn agent(channel: &Channel) -> Agent<'_> {
        Agent { qemu: None, channel }
    }

    #[test]
    fn stale_bytes_are_thrown_away() {
        let stale = b"half an answer\"}}\n{\"return\": 7}\n\xff{\"return\": 99}\n{\"retu";
        let channel = fake(stale, |_, _| Some("{\"return\": {}}".into()));
        agent(&channel).ping(SOON).unwrap();
        agent(&channel).ping(SOON).unwrap();
    }

    #[test]
    fn programs_give_their_output_and_code() {
        let polls = std::sync::atomic::AtomicU32::new(0);
        let channel = fake(b"", move |command, arguments| {
            Some(match command {
                "guest-exec" => {
                    assert_eq!(arguments["input-data"], "aGk=");
                    "{\"return\": {\"pid\": 5}}".into()
                }
                _ if polls.fetch_add(1, std::sync::atomic::Ordering::Relaxed) < 2 => {
                    "{\"return\": {\"exited\": false}}".into()
                }
                _ => {
                    "{\"return\": {\"exited\": true, \"exitcode\": 3, \"out-data\": \"aGVsbG8=\"}}"
                        .into()
                }
            })
        });
        let arguments = ["-c".to_owned()];
        let exec = Exec {
            program: "sh",
            arguments: &arguments,
            environment: &[],
            stdin: b"hi",
            output: true,
            timeout: SOON,
            patience: SOON,
        };
        let output = agent(&channel).exec(&exec).unwrap();
        assert_eq!((output.code, output.stdout.as_slice()), (3, &b"hello"[..]));
    }

    #[test]
    fn a_clock_is_set_by_date_and_without_one_by_the_agent() {
        // What `guest-exec` of `date` does, and all that is asked then.
        let check = |date: &'static str, expected: &[&str]| {
            let (said, asked) = std::sync::mpsc::channel();
            let channel = fake(b"", move |command, arguments| {
                said.send(format!("{command} {arguments}")).unwrap();
                Some(match (command, date) {
                    ("guest-exec", "missing") => "{\"error\": {\"desc\": \"no date\"}}".into(),
                    ("guest-exec", _) => "{\"return\": {\"pid\": 5}}".into(),
                    ("guest-exec-status", code) => {
                        format!("{{\"return\": {{\"exited\": true, \"exitcode\": {code}}}}}")
                    }
                    _ => "{\"return\": {}}".into(),
                })
            });
            agent(&channel).set_time(1_700_000_000_123, SOON).unwrap();
            drop(channel);
            assert_eq!(asked.iter().collect::<Vec<_>>(), expected, "{date}");
        };
        let exec = "guest-exec {\"arg\":[\"-u\",\"-s\",\"@1700000000\"],\"capture-output\":false,\
                    \"path\":\"date\"}";
        let status = "guest-exec-status {\"pid\":5}";
        let set = "guest-set-time {\"time\":1700000000123000000}";
        check("0", &[exec, status]);
        check("1", &[exec, status, set]);
        check("missing", &[exec, set]);
    }

    #[test]
    fn a_late_answer_does_not_answer_the_next_request() {
        let channel = fake(b"", |command, _| match command {
            "slow" => {
                std::thread::sleep(2 * SHORT);
                Some("{\"return\": \"slow\"}".into())
            }
            "bad" => Some("{\"error\": {\"class\": \"x\", \"desc\": \"no such thing\"}}".into()),
            _ => Some("{\"return\": \"quick\"}".into()),
        });
        let agent = agent(&channel);
        let error = agent.call("slow", Value::Null, SHORT).unwrap_err();
        assert!(matches!(error, AgentError::Timeout { .. }), "{error}");
        assert_eq!(agent.call("quick", Value::Null, SOON).unwrap(), "quick");
        let error = agent.call("bad", Value::Null, SOON).unwrap_err();
        assert!(error.to_string().contains("no such thing"), "{error}");
    }

    #[test]
    fn silence_and_nonsense_have_an_end() {
        let channel = fake(b"", |_, _| None);
        let error = agent(&channel).ping(SHORT).unwrap_err();
        assert!(matches!(error, AgentError::Timeout { .. }), "{error}");
        let channel = fake(b"", |_, _| Some("nonsense".into()));
        let error = agent(&channel).ping(SOON).unwrap_err();
        assert!(matches!(error, AgentError::Unexpected { .. }), "{error}");
        let (ours, theirs) = UnixStream::pair().unwrap();
        drop(theirs);
        let channel = Channel::new(ours);
        assert!(matches!(agent(&channel).ping(SOON), Err(AgentError::Closed(_))));
    }
}
