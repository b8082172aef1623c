//! Figures of a plane.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;

use super::routes::usage::may_know;
use super::{Plane, Refused};
use crate::access::Caller;
use crate::figures::{Figures, seconds};
use crate::meter::{Account, Counters};

/// All but what others use is for whoever may see the plane.
pub fn metrics(plane: &Plane, caller: &Caller) -> Result<String, Refused> {
    let hosts = plane.hosts()?;
    let mut figures = Figures::default();
    let states = ["ready", "cordoned", "draining", "gone"].map(|state| {
        let count = hosts.iter().filter(|host| host.state == state).count();
        (format!("{{state=\"{state}\"}}"), count)
    });
    figures.gauge("collective_hosts", "Hosts that have joined.", states);
    let held: u64 = hosts.iter().map(|host| host.instances).sum();
    figures.gauge("collective_instances", "Instances that hosts hold.", [("", held)]);
    let requests = plane.requests.load(Ordering::Relaxed);
    let help = "Requests to this plane.";
    figures.counter("collective_plane_requests_total", help, [("", requests)]);
    let refused = plane.refused.load(Ordering::Relaxed);
    let help = "Requests that this plane refused.";
    figures.counter("collective_plane_refused_total", help, [("", refused)]);
    let stumbled = plane.stumbled.load(Ordering::Relaxed);
    let help = "How often this plane could not steer.";
    figures.counter("collective_plane_steering_failures_total", help, [("", stumbled)]);
    let unreadable = plane.unreadable.load(Ordering::Relaxed);
    let help = "Keys of the state that this plane cannot read, and leaves alone.";
    figures.gauge("collective_plane_unreadable_keys", help, [("", unreadable)]);
    let mut used = plane.used_in_all()?;
    used.retain(|by, _| may_know(caller, by));
    metered(&used, &mut figures);
    Ok(figures.end())
}

/// What was used, in base units.
fn metered(used: &BTreeMap<Account, Counters>, figures: &mut Figures) {
    type Value = fn(&Counters) -> String;
    let families: [(&str, &str, Value); 5] = [
        ("running_seconds", "How long CPUs of instances ran.", |used| seconds(used.running_ms)),
        ("cpu_seconds", "What instances had of hosts' processors.", |used| seconds(used.cpu_ms)),
        ("memory_byte_seconds", "Memory of instances, for as long as they had it.", |used| {
            (u128::from(used.memory_mib_s) << 20).to_string()
        }),
        ("fetched_bytes", "What was fetched for instances.", |used| {
            used.fetched_bytes.saturating_add(used.peer_bytes).to_string()
        }),
        ("stored_bytes", "What instances have put into the repository.", |used| {
            used.stored_bytes.to_string()
        }),
    ];
    for (name, help, value) in families {
        let samples = used.iter().map(|(by, used)| {
            let Account { project, user, appliance } = by;
            let maker = by.maker();
            let labels = format!(
                "{{project=\"{project}\",user=\"{user}\",appliance=\"{appliance}\",\
                 maker=\"{maker}\"}}"
            );
            (labels, value(used))
        });
        figures.counter(&format!("collective_usage_{name}_total"), help, samples);
    }
    type Bytes = fn(&Counters) -> u64;
    let sources: [(&str, Bytes); 2] =
        [("peer", |used| used.peer_bytes), ("repository", |used| used.fetched_bytes)];
    let sources = sources.map(|(source, bytes)| {
        let sum = used.values().map(bytes).fold(0, u64::saturating_add);
        (format!("{{source=\"{source}\"}}"), sum)
    });
    let help = "What was fetched for instances, by where it came from.";
    figures.counter("collective_chunk_fetch_bytes_total", help, sources);
}
