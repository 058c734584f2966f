//! What a process tells about itself, taken from outside: an OTLP collector that gives its spans to the test, and the comparison
//! of `/metrics` with `docs/telemetry.md`.

use std::{
    collections::BTreeMap,
    path::Path,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use opentelemetry_proto::tonic::{
    collector::trace::v1::{
        ExportTraceServiceRequest, ExportTraceServiceResponse,
        trace_service_server::{TraceService, TraceServiceServer},
    },
    common::v1::{AnyValue, any_value},
    trace::v1::{self, span::SpanKind},
};
use tokio_util::sync::{CancellationToken, DropGuard};
use tonic::{
    Request, Response, Status,
    transport::{Server, server::TcpIncoming},
};

/// Takes spans until it is dropped.
pub(crate) struct Collector {
    /// For the setting `telemetry.otlp_endpoint`.
    pub(crate) endpoint: String,
    spans: Spans,
    _end: DropGuard,
}

#[derive(Clone, Default)]
struct Spans(Arc<Mutex<Vec<Span>>>);

/// A span as it arrived; ids in hexadecimal, no parent is the empty text.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Span {
    pub(crate) trace: String,
    pub(crate) id: String,
    pub(crate) parent: String,
    pub(crate) name: String,
    pub(crate) kind: SpanKind,
    pub(crate) attributes: BTreeMap<String, String>,
}

impl Collector {
    pub(crate) fn start() -> Self {
        let incoming = TcpIncoming::bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let endpoint = format!("http://{}", incoming.local_addr().unwrap());
        let (spans, end) = (Spans::default(), CancellationToken::new());
        let server = Server::builder().add_service(TraceServiceServer::new(spans.clone()));
        tokio::spawn(server.serve_with_incoming_shutdown(incoming, end.clone().cancelled_owned()));
        Self { endpoint, spans, _end: end.drop_guard() }
    }

    /// All spans of a trace, once they are `enough`.
    pub(crate) async fn trace(&self, trace: &str, enough: impl Fn(&[Span]) -> bool) -> Vec<Span> {
        let deadline = Instant::now() + Duration::from_secs(60);
        loop {
            let all = self.spans.0.lock().unwrap().clone();
            let own: Vec<_> = all.iter().filter(|s| s.trace == trace).cloned().collect();
            if enough(&own) {
                return own;
            }
            assert!(Instant::now() < deadline, "not enough of {trace}: {own:#?}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

/// The names from a span up to the first one of its trace in this platform, and the id that this one came of.
pub(crate) fn way<'a>(spans: &'a [Span], from: &'a Span) -> (Vec<&'a str>, &'a str) {
    let mut names = vec![from.name.as_str()];
    let mut at = from;
    while let Some(parent) = spans.iter().find(|s| s.id == at.parent) {
        names.push(&parent.name);
        at = parent;
    }
    (names, &at.parent)
}

#[tonic::async_trait]
impl TraceService for Spans {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        let resources = request.into_inner().resource_spans;
        let spans = resources.into_iter().flat_map(|r| r.scope_spans).flat_map(|s| s.spans);
        self.0.lock().unwrap().extend(spans.map(Span::from));
        Ok(Response::new(ExportTraceServiceResponse::default()))
    }
}

impl From<v1::Span> for Span {
    fn from(span: v1::Span) -> Self {
        let hex = |bytes: &[u8]| bytes.iter().map(|b| format!("{b:02x}")).collect();
        let text = |value: Option<AnyValue>| match value.and_then(|v| v.value) {
            Some(any_value::Value::StringValue(text)) => text,
            Some(any_value::Value::IntValue(number)) => number.to_string(),
            other => panic!("an attribute is {other:?}"),
        };
        assert!(span.end_time_unix_nano >= span.start_time_unix_nano && span.start_time_unix_nano > 0);
        Self {
            trace: hex(&span.trace_id),
            id: hex(&span.span_id),
            parent: hex(&span.parent_span_id),
            kind: span.kind(),
            attributes: span.attributes.into_iter().map(|a| (a.key, text(a.value))).collect(),
            name: span.name,
        }
    }
}

/// Name, as a query has it, and type of every metric in `docs/telemetry.md`.
pub(crate) fn documented_metrics() -> BTreeMap<String, String> {
    let above = Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().map(|dir| dir.join("docs/telemetry.md"));
    let text = std::fs::read_to_string(above.into_iter().find(|p| p.exists()).unwrap()).unwrap();
    let row = |line: &str| {
        let mut cells = line.strip_prefix("| `")?.split(" | ");
        let name = cells.next()?.strip_suffix('`')?;
        let is_metric = name.starts_with("carillon_") || name.starts_with("process_");
        is_metric.then(|| (name.to_owned(), cells.next().unwrap().to_owned()))
    };
    text.lines().filter_map(row).collect()
}

/// Name and type of every metric that the text of `/metrics` has.
pub(crate) fn exposed_metrics(text: &str) -> BTreeMap<String, String> {
    let row = |line: &str| {
        let (name, kind) = line.strip_prefix("# TYPE ")?.split_once(' ')?;
        let total = if kind == "counter" { "_total" } else { "" };
        Some((format!("{name}{total}"), kind.to_owned()))
    };
    text.lines().filter_map(row).collect()
}
