//! A host's agent: says to a plane that this host is there and what it has, as long as it runs.
//!
//! ```text
//! report ──▶ beat ──ok──▶ wait a third of the lease ─┐
//!   ▲          └──no──▶ wait a little ──────────────┤
//!   └───────────────────────────────────────────────┘
//! ```
//!
//! **Invariant:** holds nothing. When it ends, instances go on; the plane thinks the host gone after its
//! lease, and knows it again with the next beat.
//! **Invariant:** carries out no order yet, and so nobody takes an instance over from this host by
//! itself.

use std::collections::BTreeMap;
use std::time::Duration;

use api::BeatReply;
use host::{Failure, Host};
use plane::client::{Client, ClientError};

/// Between two tries, when the plane does not answer.
const RETRY: Duration = Duration::from_secs(1);
/// The shortest time between two beats, whatever the plane says.
const PAUSE_MIN: Duration = Duration::from_millis(100);

/// What came of a beat.
#[derive(Debug)]
pub enum Heard {
    /// The plane has taken it.
    Taken(BeatReply),
    /// It did not; it is tried again.
    Failed(ClientError),
}

/// Says so until `heard`, which is told what came of each beat, says no. A host that cannot say what it
/// has, or a plane that refuses it, ends it too.
pub fn run(
    host: &Host,
    client: &Client,
    labels: &BTreeMap<String, String>,
    mut heard: impl FnMut(&Heard) -> bool,
) -> Result<(), Failure> {
    let path = format!("/v1/hosts/{}/beat", host.id());
    loop {
        let report = host.describe(labels.clone())?;
        let (heard_now, pause) = match client.put::<BeatReply>(&path, &report) {
            Ok(reply) => {
                let third = Duration::from_millis(reply.lease_ms / 3);
                (Heard::Taken(reply), third.max(PAUSE_MIN))
            }
            Err(ClientError::Refused(problem)) if problem.status < 500 => {
                return Err(Failure::new("permission", problem.detail, problem.hint));
            }
            Err(error) => (Heard::Failed(error), RETRY),
        };
        if !heard(&heard_now) {
            return Ok(());
        }
        ambient::sleep(pause);
    }
}
