//! Who is told of spans: a collector that the environment names, in OpenTelemetry's words (OTLP over HTTP, protobuf).
//!
//! The library for it is OpenTelemetry's own, with the HTTP client that is here anyway: it knows the standard
//! variables as they are documented, sends in the background, and drops what is too much. It brings eight crates;
//! encoding OTLP by hand would save most of them, and would have to follow what collectors expect from then on.

use std::time::Duration;

use opentelemetry::KeyValue;
use opentelemetry::trace::TracerProvider;
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::SdkTracerProvider;

use crate::TRACER;

/// How long the end of a process waits for its last spans to be taken.
pub const LAST: Duration = Duration::from_secs(1);

/// Of these, one has to be set for spans to be sent.
const ENDPOINTS: [&str; 2] = ["OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"];

/// Why no spans are sent.
#[derive(Debug, thiserror::Error)]
#[error("no spans are sent: {0}")]
pub struct CollectorError(String);

/// Where spans are sent while this is there; dropped, the last ones are.
#[derive(Debug)]
pub struct Collector(SdkTracerProvider);

/// Whether the environment names a collector, which is asked for its variables one by one.
pub fn is_named(variable: impl Fn(&str) -> Option<String>) -> bool {
    let says = |name: &str, what: &str| variable(name).is_some_and(|value| value == what);
    let named = |name: &&str| variable(name).is_some_and(|value| !value.is_empty());
    ENDPOINTS.iter().any(named)
        && !says("OTEL_SDK_DISABLED", "true")
        && !says("OTEL_TRACES_EXPORTER", "none")
}

impl Collector {
    /// Sends the spans of this process, as the part of the whole that it is, to where the environment says.
    pub fn start(part: &str) -> Result<Self, CollectorError> {
        let exporter = opentelemetry_otlp::SpanExporter::builder().with_http().build();
        let exporter = exporter.map_err(|error| CollectorError(error.to_string()))?;
        let mut resource = Resource::builder();
        // Whoever says another name in the environment is heard.
        let is_said = resource_says_a_name();
        if !is_said {
            resource = resource.with_service_name(part.to_owned());
        }
        let version = KeyValue::new("service.version", env!("CARGO_PKG_VERSION"));
        let provider = SdkTracerProvider::builder()
            .with_resource(resource.with_attribute(version).build())
            .with_batch_exporter(exporter)
            .build();
        if TRACER.set(provider.tracer("collective")).is_err() {
            return Err(CollectorError("they are already".to_owned()));
        }
        Ok(Self(provider))
    }
}

/// What the library has read of the environment names this process.
fn resource_says_a_name() -> bool {
    let resource = Resource::builder().build();
    let name = resource.get(&opentelemetry::Key::new("service.name"));
    name.is_some_and(|name| !name.as_str().starts_with("unknown_service"))
}

impl Drop for Collector {
    fn drop(&mut self) {
        // What is not taken by then is lost, and nothing else.
        let _ = self.0.shutdown_with_timeout(LAST);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_are_sent_only_where_the_environment_says_so() {
        let named = |set: &[(&str, &str)]| {
            is_named(|name| {
                let found = set.iter().find(|(known, _)| *known == name);
                found.map(|(_, value)| value.to_string())
            })
        };
        let endpoint = ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:4318");
        assert!(!named(&[]) && !named(&[("OTEL_EXPORTER_OTLP_ENDPOINT", "")]));
        assert!(named(&[endpoint]));
        assert!(named(&[("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "http://127.0.0.1:4318/x")]));
        assert!(!named(&[endpoint, ("OTEL_SDK_DISABLED", "true")]));
        assert!(!named(&[endpoint, ("OTEL_TRACES_EXPORTER", "none")]));
    }
}
