//! A door for the fuzzers (crate `fuzz`): what reads what QEMU and the guest's agent say, as
//! functions of bytes. Nothing else goes through it.

use std::io::Write;
use std::os::unix::net::UnixStream;
use std::time::Duration;

use serde_json::Value;

use crate::agent::{Agent, Exec};
use crate::{base64, jail, qmp};

/// More does not fit into a socket that nobody reads yet.
const ANSWERS_BYTES_MAX: usize = 16 << 10;

/// Lines of the monitor, until one of them ends the connection.
pub fn monitor(bytes: &[u8]) {
    let mut events = 0;
    qmp::read_lines(bytes, &mut |event| events += event.name.len().min(1));
    assert!(events <= bytes.len());
}

/// What the guest's agent answers to a ping, a question for its version and a program.
pub fn agent(bytes: &[u8]) {
    let Ok((ours, mut theirs)) = UnixStream::pair() else { return };
    let bytes = &bytes[..bytes.len().min(ANSWERS_BYTES_MAX)];
    // The first byte says whether the stream begins in the middle of something.
    let (synchronized, answers) = match bytes.split_first() {
        Some((first, rest)) => (first & 1 == 0, rest),
        None => (true, bytes),
    };
    if theirs.write_all(answers).is_err() || theirs.shutdown(std::net::Shutdown::Write).is_err() {
        return;
    }
    let channel = crate::agent::channel_at(ours, synchronized);
    let agent = Agent::of(&channel);
    let _ = agent.ping(Duration::from_secs(5));
    let _ = agent.version();
    let exec = Exec {
        program: "x",
        arguments: &[],
        environment: &[],
        stdin: b"",
        output: true,
        timeout: Duration::ZERO,
        patience: crate::agent::SOON,
    };
    let _ = agent.exec(&exec);
    let _ = agent.call("x", Value::Null, Duration::from_secs(5));
}

/// Text in base64, as the agent sends output.
pub fn encoded(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    if let Some(decoded) = base64::decode(&text) {
        assert_eq!(base64::decode(&base64::encode(&decoded)), Some(decoded));
    }
    assert_eq!(base64::decode(&base64::encode(bytes)).as_deref(), Some(bytes));
}

/// The orders of the jail: words that are separated by zeros.
pub fn orders(bytes: &[u8]) {
    let _ = jail::Orders::parse(jail::Orders::words(bytes).into_iter());
}
