//! `host suspend`: before a machine is shut down, all that runs on it goes to the repository.
//!
//! The plane is not asked: it may be away, or on this machine too.

use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::Duration;

use host::{Failure, Host};
use serde::Serialize;

use super::open;
use crate::cli::Global;
use crate::print;

/// Guests that are suspended at once.
const AT_ONCE: usize = 4;

/// What became of one.
#[derive(Serialize)]
struct Rested {
    name: String,
    suspended: bool,
    /// Why not.
    error: Option<String>,
}

pub fn suspend(global: &Global, within: Duration) -> Result<(), Failure> {
    let host: Host = open(global)?;
    let instances = host.describe(Default::default())?.instances;
    let runs =
        instances.iter().filter(|seen| ["starting", "running", "paused"].contains(&&*seen.state));
    let names = runs.map(|seen| super::name(&seen.name)).collect::<Result<Vec<_>, _>>()?;
    let ends = ambient::now() + within;
    let mut waiting = names.clone();
    waiting.reverse();
    let (said, heard) = channel();
    let mut begin = || -> Result<bool, Failure> {
        let Some(name) = waiting.pop() else { return Ok(false) };
        let (host, said) = (open(global)?, said.clone());
        let thread = std::thread::Builder::new().name("suspend".to_owned());
        thread.spawn(move || {
            let error = host.suspend(&name, None).err().map(|failure| failure.message);
            let _ = said.send(Rested { name: name.to_string(), suspended: error.is_none(), error });
        })?;
        Ok(true)
    };
    let mut under_way = 0;
    while under_way < AT_ONCE && begin()? {
        under_way += 1;
    }
    let mut rested: Vec<Rested> = Vec::new();
    while under_way > 0 {
        match heard.recv_timeout(ends.saturating_duration_since(ambient::now())) {
            Ok(one) => {
                rested.push(one);
                under_way -= 1;
                under_way += usize::from(begin()?);
            }
            // They go on being suspended for as long as the machine lets them.
            Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => break,
        }
    }
    for name in &names {
        if rested.iter().all(|one| one.name != name.as_str()) {
            let error = Some("it took too long".to_owned());
            rested.push(Rested { name: name.to_string(), suspended: false, error });
        }
    }
    let left = rested.iter().filter(|one| !one.suspended).count();
    let text = |one: &Rested| match &one.error {
        None => format!("{} is suspended", one.name),
        Some(error) => format!("{} is not suspended: {error}", one.name),
    };
    if left > 0 {
        let left: Vec<_> = rested.iter().filter(|one| !one.suspended).map(text).collect();
        let hint =
            "what still runs when the machine ends goes on from its disks, as after a power cut";
        return Err(Failure::new("state", left.join("; "), hint));
    }
    print::result(global, &rested, || rested.iter().map(text).collect::<Vec<_>>().join("\n"));
    Ok(())
}
