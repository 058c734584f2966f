//! Spans to an OTLP collector, in the background: queued within bounds, sent in batches, dropped and counted when the collector
//! is away. No work ever waits for it.

use std::{sync::OnceLock, time::Duration};

use bus::trace::{self, Kind, Span, Value};
use opentelemetry::{
    InstrumentationScope, KeyValue, SpanId, TraceFlags, TraceId,
    trace::{SpanContext, SpanKind, Status, TraceState},
};
use opentelemetry_otlp::{SpanExporter, WithExportConfig as _};
use opentelemetry_sdk::{
    Resource,
    trace::{SpanData, SpanEvents, SpanExporter as _, SpanLinks},
};
use tokio::{
    sync::mpsc,
    time::{sleep, timeout},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{Problems, Reader, metrics};

/// Spans that wait; about 1 KB each.
const QUEUE: usize = 8192;
/// Spans of one request.
const BATCH: usize = 512;
/// How long the first span of a batch waits for others.
const GATHER: Duration = Duration::from_millis(500);
/// For one request, tries included.
const WITHIN: Duration = Duration::from_secs(5);
/// What is left of the queue at the end may take so long.
const FLUSH: Duration = Duration::from_secs(2);

/// The task that sends, and how it is told to end.
static EXPORT: OnceLock<(CancellationToken, TaskTracker)> = OnceLock::new();

/// What `telemetry.*` say.
pub(super) struct Otlp {
    endpoint: String,
    sample: f64,
    service: String,
}

impl Otlp {
    /// `None`: traces are off.
    pub(super) fn read(r: &mut Reader<'_>) -> Option<Self> {
        let (sample, service) = (r.fraction("telemetry.otlp_sample"), r.string("telemetry.service_name"));
        let endpoint = r.optional("telemetry.otlp_endpoint", |text| {
            let has_host = text.strip_prefix("http://").is_some_and(|rest| !rest.is_empty());
            if has_host { Ok(text.to_owned()) } else { Err("must be a URL that begins with http://".into()) }
        })?;
        Some(Self { endpoint, sample, service })
    }

    pub(super) fn start(self) -> Result<(), Problems> {
        let exporter = SpanExporter::builder().with_tonic().with_endpoint(self.endpoint).with_timeout(WITHIN).build();
        let mut exporter = exporter.map_err(|e| Problems(vec![format!("telemetry.otlp_endpoint: {e}")]))?;
        let instance = uuid::Uuid::new_v4().to_string();
        let resource = Resource::builder_empty()
            .with_service_name(self.service)
            .with_attribute(KeyValue::new("service.instance.id", instance))
            .build();
        exporter.set_resource(&resource);
        let (queue, spans) = mpsc::channel(QUEUE);
        let take = move |span| {
            if queue.try_send(span).is_err() {
                metrics::spans("queue_full", 1);
            }
        };
        if trace::collect(self.sample, take) {
            let (end, tasks) = EXPORT.get_or_init(Default::default);
            tasks.spawn(export(exporter, spans, end.clone()));
        }
        Ok(())
    }
}

/// Sends what waits, for two seconds at most; afterwards nothing is sent any more.
pub(crate) async fn flush() {
    let Some((end, tasks)) = EXPORT.get() else { return };
    end.cancel();
    tasks.close();
    if timeout(FLUSH, tasks.wait()).await.is_err() {
        tracing::warn!("the last spans did not reach the collector within {FLUSH:?}");
    }
}

async fn export(exporter: SpanExporter, mut spans: mpsc::Receiver<Span>, end: CancellationToken) {
    let scope = InstrumentationScope::builder("carillon").with_version(env!("CARGO_PKG_VERSION")).build();
    let mut was_away = false;
    let mut batch = Vec::with_capacity(BATCH);
    loop {
        if end.is_cancelled() {
            spans.close();
        }
        tokio::select! {
            biased;
            taken = spans.recv_many(&mut batch, BATCH) => if taken == 0 { return },
            () = end.cancelled(), if !spans.is_closed() => continue,
        }
        if batch.len() < BATCH {
            end.run_until_cancelled(sleep(GATHER)).await;
        }
        while batch.len() < BATCH
            && let Ok(span) = spans.try_recv()
        {
            batch.push(span);
        }
        let count = batch.len();
        let data = batch.drain(..).map(|span| span_data(span, &scope)).collect();
        let result = exporter.export(data).await;
        metrics::spans(if result.is_ok() { "exported" } else { "refused" }, count);
        match &result {
            Err(error) if !was_away => tracing::warn!(%error, "the collector does not take spans, they are dropped"),
            Ok(()) if was_away => tracing::info!("the collector takes spans again"),
            _ => {}
        }
        was_away = result.is_err();
    }
}

fn span_data(span: Span, scope: &InstrumentationScope) -> SpanData {
    let context = span.context;
    let kind = match span.kind {
        Kind::Server => SpanKind::Server,
        Kind::Client => SpanKind::Client,
        Kind::Producer => SpanKind::Producer,
        Kind::Consumer => SpanKind::Consumer,
    };
    let attribute = |(name, value)| match value {
        Value::Text(text) => KeyValue::new(name, text),
        Value::Number(number) => KeyValue::new(name, number),
    };
    SpanData {
        span_context: SpanContext::new(
            TraceId::from_bytes(context.trace_id.to_be_bytes()),
            SpanId::from_bytes(context.span_id.to_be_bytes()),
            TraceFlags::new(context.flags),
            false,
            TraceState::default(),
        ),
        parent_span_id: span.parent.map_or(SpanId::INVALID, |parent| SpanId::from_bytes(parent.to_be_bytes())),
        parent_span_is_remote: matches!(span.kind, Kind::Server | Kind::Consumer),
        span_kind: kind,
        name: span.name.into(),
        start_time: span.begun,
        end_time: span.ended,
        attributes: span.attributes.into_iter().map(attribute).collect(),
        dropped_attributes_count: 0,
        events: SpanEvents::default(),
        links: SpanLinks::default(),
        status: span.error.map_or(Status::Unset, Status::error),
        instrumentation_scope: scope.clone(),
    }
}
