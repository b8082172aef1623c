//! Figures of a process, as OpenMetrics 1.0 has them: a plane's own, and those of a host, which has a small
//! server for them ([`Server`]).
//!
//! **Invariant:** what is written is a whole document: families one after the other, the end at its end.

mod server;

use std::fmt::{Display, Write};

pub use server::Server;

/// What the document is called in an answer.
pub const KIND: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// A document that is being written.
#[derive(Debug, Default)]
pub struct Figures(String);

/// What was counted by how long it took.
#[derive(Debug, Clone, Default)]
pub struct Lasted {
    /// How many took no longer than each bound and longer than the one before; the last: longer than all.
    pub within: Vec<u64>,
    /// How long all of them took.
    pub micros: u64,
}

impl Figures {
    /// What only grows; the name ends with `_total`. The labels of each sample are written as they are.
    pub fn counter<L: Display, V: Display>(
        &mut self,
        name: &str,
        help: &str,
        samples: impl IntoIterator<Item = (L, V)>,
    ) {
        // A counter's family is called without what its samples end with.
        self.family(name.strip_suffix("_total").unwrap_or(name), "counter", help);
        self.samples(name, samples);
    }

    /// What is so now.
    pub fn gauge<L: Display, V: Display>(
        &mut self,
        name: &str,
        help: &str,
        samples: impl IntoIterator<Item = (L, V)>,
    ) {
        self.family(name, "gauge", help);
        self.samples(name, samples);
    }

    /// How long something took, by bounds in milliseconds, and of each `kind`.
    pub fn histogram(
        &mut self,
        name: &str,
        help: &str,
        bounds_ms: &[u64],
        samples: &[(&str, &Lasted)],
    ) {
        self.family(name, "histogram", help);
        for (kind, lasted) in samples {
            let mut count = 0;
            for at in 0..=bounds_ms.len() {
                count += lasted.within.get(at).copied().unwrap_or_default();
                let most = bounds_ms.get(at).map(|ms| format!("{:?}", *ms as f64 / 1000.0));
                let most = most.as_deref().unwrap_or("+Inf");
                let labels = format!("{{kind=\"{kind}\",le=\"{most}\"}}");
                self.samples(&format!("{name}_bucket"), [(labels, count)]);
            }
            let labels = format!("{{kind=\"{kind}\"}}");
            self.samples(&format!("{name}_count"), [(&labels, count)]);
            self.samples(&format!("{name}_sum"), [(&labels, micros(lasted.micros))]);
        }
    }

    /// The document.
    pub fn end(mut self) -> String {
        self.0.push_str("# EOF\n");
        self.0
    }

    fn family(&mut self, family: &str, kind: &str, help: &str) {
        // Writing to text does not fail.
        let _ = write!(self.0, "# HELP {family} {help}\n# TYPE {family} {kind}\n");
    }

    fn samples<L: Display, V: Display>(
        &mut self,
        name: &str,
        samples: impl IntoIterator<Item = (L, V)>,
    ) {
        for (labels, value) in samples {
            let _ = writeln!(self.0, "{name}{labels} {value}");
        }
    }
}

/// Seconds, as they are written.
pub fn seconds(ms: u64) -> String {
    format!("{}.{:03}", ms / 1000, ms % 1000)
}

fn micros(micros: u64) -> String {
    format!("{}.{:06}", micros / 1_000_000, micros % 1_000_000)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_document_is_as_the_standard_has_it() {
        let mut figures = Figures::default();
        figures.counter("c_bytes_total", "Bytes.", [("{source=\"peer\"}", 7)]);
        figures.gauge("g", "Now.", [("", 1)]);
        let lasted = Lasted { within: vec![2, 0, 1], micros: 1_000_203 };
        figures.histogram("h_seconds", "Long.", &[1, 1000], &[("ram", &lasted)]);
        let expected = "\
# HELP c_bytes Bytes.
# TYPE c_bytes counter
c_bytes_total{source=\"peer\"} 7
# HELP g Now.
# TYPE g gauge
g 1
# HELP h_seconds Long.
# TYPE h_seconds histogram
h_seconds_bucket{kind=\"ram\",le=\"0.001\"} 2
h_seconds_bucket{kind=\"ram\",le=\"1.0\"} 2
h_seconds_bucket{kind=\"ram\",le=\"+Inf\"} 3
h_seconds_count{kind=\"ram\"} 3
h_seconds_sum{kind=\"ram\"} 1.000203
# EOF
";
        assert_eq!(figures.end(), expected);
    }
}
