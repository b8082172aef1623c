//! Figures of a plane, as OpenMetrics 1.0 has them.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;

use super::routes::usage::may_know;
use super::{Plane, Refused};
use crate::access::Caller;
use crate::meter::{Account, Counters};

/// All but what others use is for whoever may see the plane.
pub fn metrics(plane: &Plane, caller: &Caller) -> Result<String, Refused> {
    let hosts = plane.hosts()?;
    let mut text = String::new();
    let mut figure = |name: &str, kind: &str, help: &str, values: &[(String, u64)]| {
        // A counter's family is called without what its samples end with.
        let family = name.strip_suffix("_total").unwrap_or(name);
        text.push_str(&format!("# HELP {family} {help}\n# TYPE {family} {kind}\n"));
        for (labels, value) in values {
            text.push_str(&format!("{name}{labels} {value}\n"));
        }
    };
    let states = ["ready", "cordoned", "draining", "gone"].map(|state| {
        let count = hosts.iter().filter(|host| host.state == state).count();
        (format!("{{state=\"{state}\"}}"), count as u64)
    });
    figure("collective_hosts", "gauge", "Hosts that have joined.", &states);
    let held = hosts.iter().map(|host| host.instances).sum();
    figure("collective_instances", "gauge", "Instances that hosts hold.", &[(String::new(), held)]);
    let requests = plane.requests.load(Ordering::Relaxed);
    let refused = plane.refused.load(Ordering::Relaxed);
    let help = "Requests to this plane.";
    figure("collective_plane_requests_total", "counter", help, &[(String::new(), requests)]);
    let help = "Requests that this plane refused.";
    figure("collective_plane_refused_total", "counter", help, &[(String::new(), refused)]);
    let stumbled = plane.stumbled.load(Ordering::Relaxed);
    let help = "How often this plane could not steer.";
    figure(
        "collective_plane_steering_failures_total",
        "counter",
        help,
        &[(String::new(), stumbled)],
    );
    let unreadable = plane.unreadable.load(Ordering::Relaxed);
    let help = "Keys of the state that this plane cannot read, and leaves alone.";
    figure("collective_plane_unreadable_keys", "gauge", help, &[(String::new(), unreadable)]);
    let mut used = plane.used_in_all()?;
    used.retain(|by, _| may_know(caller, by));
    metered(&used, &mut text);
    text.push_str("# EOF\n");
    Ok(text)
}

fn seconds(ms: u64) -> String {
    format!("{}.{:03}", ms / 1000, ms % 1000)
}

/// What was used, in base units.
fn metered(used: &BTreeMap<Account, Counters>, text: &mut String) {
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
        let family = format!("collective_usage_{name}");
        text.push_str(&format!("# HELP {family} {help}\n# TYPE {family} counter\n"));
        for (by, used) in used {
            let Account { project, user, appliance } = by;
            let maker = by.maker();
            text.push_str(&format!(
                "{family}_total{{project=\"{project}\",user=\"{user}\",appliance=\"{appliance}\",\
                 maker=\"{maker}\"}} {}\n",
                value(used)
            ));
        }
    }
    let family = "collective_chunk_fetch_bytes";
    let help = "What was fetched for instances, by where it came from.";
    text.push_str(&format!("# HELP {family} {help}\n# TYPE {family} counter\n"));
    type Bytes = fn(&Counters) -> u64;
    let sources: [(&str, Bytes); 2] =
        [("peer", |used| used.peer_bytes), ("repository", |used| used.fetched_bytes)];
    for (source, bytes) in sources {
        let sum = used.values().map(bytes).fold(0, u64::saturating_add);
        text.push_str(&format!("{family}_total{{source=\"{source}\"}} {sum}\n"));
    }
}
