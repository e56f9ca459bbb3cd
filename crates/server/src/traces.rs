//! Traces, sent over OTLP to a collector; off unless it is named.
//!
//! Rejoin begins no trace. A message whose publisher sent a W3C `traceparent`
//! that says "sampled" gets spans in the publisher's trace: one for its way
//! into the stream, and one on each edge for its way out of it. So what is
//! traced is the publishers' decision, and a fan-out to ten thousand clients
//! is as many spans as there are edges.
//!
//! The edge and the backplane know nothing of this: what they are given is
//! wrapped here, and only when a collector is named.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::Context as _;
use delivery::publish::{Publication, Publish, PublishError, Published};
use delivery::{Message, Tail, TailEvent};
use futures_util::future::BoxFuture;
use opentelemetry::propagation::TextMapPropagator;
use opentelemetry::trace::TracerProvider;
use opentelemetry::trace::{Span, SpanBuilder, SpanKind, Status, TraceContextExt};
use opentelemetry::{Context, KeyValue};
use opentelemetry_otlp::{Protocol, SpanExporter, WithExportConfig};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::propagation::TraceContextPropagator;
use opentelemetry_sdk::trace::{
    BatchConfigBuilder, BatchSpanProcessor, Sampler, SdkTracer, SdkTracerProvider,
};
use serde::{Deserialize, Serialize};

use crate::config::ConfigError;

/// Spans that wait for the collector; more are dropped, as the next batch
/// must not cost an edge its memory while the collector is away.
const QUEUE_SPANS: usize = 4_096;

/// How long spans are gathered before they are sent.
const BATCH_DELAY: Duration = Duration::from_secs(1);

/// How long one batch may take.
const EXPORT_TIMEOUT: Duration = Duration::from_secs(5);

/// Where traces go.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TraceConfig {
    /// The collector's address for traces, OTLP over HTTP with protobuf:
    /// `http://127.0.0.1:4318/v1/traces`. No TLS: it runs beside the edge.
    /// Default: empty, no traces.
    pub endpoint: String,
    /// `service.name` of the spans. Default: `rejoin`.
    pub service: String,
}

impl Default for TraceConfig {
    fn default() -> Self {
        Self {
            endpoint: String::new(),
            service: "rejoin".to_owned(),
        }
    }
}

impl TraceConfig {
    pub(crate) fn check(&self) -> Result<(), ConfigError> {
        if self.endpoint.is_empty() || self.endpoint.starts_with("http://") {
            return Ok(());
        }
        Err(ConfigError::Bound {
            field: "trace.endpoint".to_owned(),
            reason: "expected http://HOST:PORT/PATH, or nothing".to_owned(),
        })
    }
}

/// Makes spans; cheap to clone. The last one to go sends what is left.
#[derive(Clone)]
pub struct Traces {
    _provider: SdkTracerProvider,
    tracer: SdkTracer,
}

impl Traces {
    /// Nothing, if no collector is named. It need not be there.
    pub fn new(config: &TraceConfig, edge: &str) -> anyhow::Result<Option<Self>> {
        if config.endpoint.is_empty() {
            return Ok(None);
        }
        let exporter = SpanExporter::builder()
            .with_http()
            .with_protocol(Protocol::HttpBinary)
            .with_endpoint(&config.endpoint)
            .with_timeout(EXPORT_TIMEOUT)
            .build()
            .context("trace.endpoint")?;
        let batches = BatchConfigBuilder::default()
            .with_max_queue_size(QUEUE_SPANS)
            .with_scheduled_delay(BATCH_DELAY)
            .build();
        let processor = BatchSpanProcessor::builder(exporter)
            .with_batch_config(batches)
            .build();
        let resource = Resource::builder()
            .with_service_name(config.service.clone())
            .with_attribute(KeyValue::new("service.instance.id", edge.to_owned()))
            .build();
        let provider = SdkTracerProvider::builder()
            .with_span_processor(processor)
            .with_sampler(Sampler::ParentBased(Box::new(Sampler::AlwaysOff)))
            .with_resource(resource)
            .build();
        let tracer = provider.tracer("rejoin");
        Ok(Some(Self {
            _provider: provider,
            tracer,
        }))
    }

    /// Publishing that is traced.
    pub fn publisher(&self, inner: Arc<dyn Publish>) -> Arc<dyn Publish> {
        let traces = self.clone();
        Arc::new(TracedPublish { traces, inner })
    }

    /// A tail that is traced.
    pub fn tail<T>(&self, inner: T) -> TracedTail<T> {
        let traces = self.clone();
        TracedTail { traces, inner }
    }

    fn received(&self, message: &Message) {
        let Some(parent) = message.traceparent.as_deref().and_then(parent) else {
            return;
        };
        let stored = Duration::from_millis(u64::try_from(message.time_ms).unwrap_or_default());
        let namespace = message.channel.namespace();
        SpanBuilder::from_name(format!("receive {namespace}"))
            .with_kind(SpanKind::Consumer)
            .with_start_time(UNIX_EPOCH + stored)
            .with_attributes([
                KeyValue::new("messaging.operation.name", "receive"),
                KeyValue::new("messaging.destination.name", message.channel.to_string()),
                KeyValue::new("rejoin.cursor", message.position.to_string()),
            ])
            .start_with_context(&self.tracer, &parent)
            // Not before its start, whatever the clocks say.
            .end_with_timestamp(SystemTime::now().max(UNIX_EPOCH + stored));
    }
}

/// The publisher's context, if it says that it is sampled.
fn parent(traceparent: &str) -> Option<Context> {
    let headers = HashMap::from([("traceparent".to_owned(), traceparent.to_owned())]);
    let context = TraceContextPropagator::new().extract_with_context(&Context::new(), &headers);
    let sampled = context.span().span_context().is_sampled();
    sampled.then_some(context)
}

struct TracedPublish {
    traces: Traces,
    inner: Arc<dyn Publish>,
}

impl Publish for TracedPublish {
    fn publish(&self, publication: Publication) -> BoxFuture<'_, Result<Published, PublishError>> {
        let Some(parent) = publication.traceparent.as_deref().and_then(parent) else {
            return self.inner.publish(publication);
        };
        let namespace = publication.channel.namespace();
        let mut span = SpanBuilder::from_name(format!("publish {namespace}"))
            .with_kind(SpanKind::Producer)
            .with_attributes([
                KeyValue::new("messaging.operation.name", "publish"),
                KeyValue::new(
                    "messaging.destination.name",
                    publication.channel.to_string(),
                ),
                KeyValue::new("messaging.message.id", publication.id.to_string()),
            ])
            .start_with_context(&self.traces.tracer, &parent);
        Box::pin(async move {
            let result = self.inner.publish(publication).await;
            match &result {
                Ok(published) => {
                    span.set_attribute(KeyValue::new(
                        "rejoin.cursor",
                        published.cursor.to_string(),
                    ));
                    span.set_attribute(KeyValue::new("rejoin.duplicate", published.duplicate));
                }
                Err(error) => span.set_status(Status::error(error.to_string())),
            }
            span.end();
            result
        })
    }
}

/// See [`Traces::tail`].
pub struct TracedTail<T> {
    traces: Traces,
    inner: T,
}

impl<T: Tail> Tail for TracedTail<T> {
    async fn next(&mut self) -> TailEvent {
        let event = self.inner.next().await;
        match &event {
            TailEvent::Messages { messages, .. } => {
                messages
                    .iter()
                    .for_each(|message| self.traces.received(message));
            }
            TailEvent::Started { .. } => {}
        }
        event
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_publisher_decides() {
        let id = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7";
        assert!(parent(&format!("{id}-01")).is_some());
        for not in [
            &format!("{id}-00"),
            "",
            "00-x-y-01",
            "00-00000000000000000000000000000000-0000000000000000-01",
        ] {
            assert!(parent(not).is_none(), "{not}");
        }
    }

    #[test]
    fn an_address_is_checked() {
        let config = |endpoint: &str| TraceConfig {
            endpoint: endpoint.to_owned(),
            ..TraceConfig::default()
        };
        assert!(config("").check().is_ok());
        assert!(config("http://127.0.0.1:4318/v1/traces").check().is_ok());
        assert!(config("127.0.0.1:4318").check().is_err());
        assert!(Traces::new(&config(""), "a").unwrap().is_none());
    }
}
