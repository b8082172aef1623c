//! Figures of a plane, as OpenMetrics 1.0 has them.

use std::sync::atomic::Ordering;

use super::{Plane, Refused};

pub fn metrics(plane: &Plane) -> Result<String, Refused> {
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
    text.push_str("# EOF\n");
    Ok(text)
}
