//! Spans: what was done with a notification, from when to when. The one place for their names and attributes, which follow
//! OpenTelemetry's messaging conventions 1.44; nothing in them is personal.
//!
//! A span is told once it has ended, with the ids that the `traceparent` of a record has named all along. So nothing has to be
//! carried through batches: a record that is handed out names the span in which it is processed, and what is published with
//! [`Headers::handed_on`] comes of that one.

use std::{
    sync::{Arc, OnceLock},
    time::{Duration, SystemTime},
};

use domain::{Delivery, Outcome};
pub use wire::TraceContext;

use crate::{Headers, LogError, Position, Record};

/// Bit 0 of a context's flags.
const SAMPLED: u8 = 1;

/// Work that has ended.
#[derive(Debug, Clone, PartialEq)]
pub struct Span {
    /// Its trace and its own id.
    pub context: TraceContext,
    /// The span that it came of; `None` if it began its trace.
    pub parent: Option<u64>,
    /// From a small set: no id is part of it.
    pub name: String,
    /// Which side of which call it is.
    pub kind: Kind,
    /// When it began.
    pub begun: SystemTime,
    /// When it ended.
    pub ended: SystemTime,
    /// What there is to know.
    pub attributes: Vec<(&'static str, Value)>,
    /// A code, if it failed.
    pub error: Option<String>,
}

/// Which side of which call a span is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A request was answered.
    Server,
    /// A request was made.
    Client,
    /// A record was published.
    Producer,
    /// A record was processed.
    Consumer,
}

/// The value of an attribute.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Value {
    /// Words.
    Text(String),
    /// A number.
    Number(i64),
}

impl From<&str> for Value {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}

impl From<i64> for Value {
    fn from(number: i64) -> Self {
        Self::Number(number)
    }
}

struct Collector {
    take: Box<dyn Fn(Span) + Send + Sync>,
    sample: f64,
}

static COLLECTOR: OnceLock<Collector> = OnceLock::new();

/// From now on `take` gets the spans of sampled traces; it must not block. `sample` is the share, 0 to 1, of the traces that
/// begin in this process; of a trace that comes from outside whoever began it has decided. The first call in a process counts,
/// for others it is `false`.
pub fn collect(sample: f64, take: impl Fn(Span) + Send + Sync + 'static) -> bool {
    COLLECTOR.set(Collector { take: Box::new(take), sample }).is_ok()
}

/// Somebody collects spans.
pub(crate) fn is_on() -> bool {
    COLLECTOR.get().is_some()
}

/// The context of new work: a child of what it comes of, or the first of a trace.
pub fn context(parent: Option<TraceContext>) -> TraceContext {
    let begin = || {
        let context = TraceContext::start();
        let sampled = COLLECTOR.get().is_none_or(|c| share(context.trace_id) < c.sample);
        TraceContext { flags: if sampled { SAMPLED } else { 0 }, ..context }
    };
    parent.map_or_else(begin, TraceContext::child)
}

/// Where a trace lies among all of them, evenly from 0 to 1: every process says the same.
fn share(trace_id: u128) -> f64 {
    const BITS: u32 = 52;
    let low = u64::try_from(trace_id & ((1 << BITS) - 1)).unwrap_or(0);
    // both are small enough to be exact
    #[expect(clippy::cast_precision_loss, reason = "52 bits fit")]
    let share = low as f64 / (1_u64 << BITS) as f64;
    share
}

/// Work under way.
#[derive(Debug, Clone, Copy)]
pub struct Open {
    /// What goes on to those who are called.
    pub context: TraceContext,
    parent: Option<TraceContext>,
    begun: SystemTime,
}

impl Open {
    /// Begins now.
    pub fn begin(parent: Option<TraceContext>) -> Self {
        Self { context: context(parent), parent, begun: SystemTime::now() }
    }

    /// A request of a client was answered. `route` is a pattern of ours, never the client's own path.
    pub fn answered(self, method: &'static str, route: &str, status: u16) {
        self.end(|span| {
            span.name = format!("{method} {route}");
            span.kind = Kind::Server;
            span.attributes.push(("http.request.method", method.into()));
            span.attributes.push(("http.route", route.into()));
            span.attributes.push(("http.response.status_code", i64::from(status).into()));
            span.error = (status >= 500).then(|| status.to_string());
        });
    }

    /// A record was published, or not.
    pub(crate) fn sent(self, topic: &str, result: &Result<Position, LogError>) {
        self.end(|span| {
            messaging(span, "send", topic);
            span.kind = Kind::Producer;
            match result {
                Ok(at) => position(span, at),
                Err(error) => span.error = Some(code(error).to_owned()),
            }
        });
    }

    fn end(self, describe: impl FnOnce(&mut Span)) {
        let Self { context, parent, begun } = self;
        let Some(collector) = COLLECTOR.get().filter(|_| context.flags & SAMPLED != 0) else { return };
        let mut span = Span {
            context,
            parent: parent.map(|p| p.span_id),
            name: String::new(),
            kind: Kind::Client,
            begun,
            // the clock may have been set back
            ended: SystemTime::now().max(begun),
            attributes: Vec::new(),
            error: None,
        };
        describe(&mut span);
        if let Some(error) = &span.error {
            span.attributes.push(("error.type", error.as_str().into()));
        }
        (collector.take)(span);
    }
}

/// A record in a stage's hands.
#[derive(Debug)]
pub(crate) struct Processing {
    open: Open,
    group: Arc<str>,
}

impl Processing {
    /// Begins now; the record's headers name it from now on. `None`: nobody collects spans.
    /// Boxed, because mostly there is none, and every record has room for it.
    pub(crate) fn begin(record: &mut Arc<Record>, group: &Arc<str>) -> Option<Box<Self>> {
        if !is_on() {
            return None;
        }
        let open = Open::begin(record.headers.trace());
        Arc::make_mut(record).headers.set_trace(open.context);
        Some(Box::new(Self { open, group: group.clone() }))
    }

    /// The stage has said what became of it; `error` is a code, if nothing did.
    pub(crate) fn end(self, at: &Position, error: Option<&'static str>) {
        let Self { open, group } = self;
        open.end(|span| {
            messaging(span, "process", &at.partition.topic);
            span.kind = Kind::Consumer;
            span.attributes.push(("messaging.consumer.group.name", group.as_ref().into()));
            position(span, at);
            span.error = error.map(str::to_owned);
        });
    }
}

/// Begins the publishing of a record; its headers name it from now on. `None`: it belongs to no trace.
pub(crate) fn send(headers: &mut Headers) -> Option<Open> {
    let open = Open::begin(Some(headers.trace()?));
    headers.set_trace(open.context);
    Some(open)
}

/// A request to a provider has just ended, after `took`; `headers` are those of the record that is being processed.
pub fn attempted(
    headers: &Headers,
    provider: &'static str,
    delivery: &Delivery,
    number: u32,
    outcome: &Outcome,
    took: Duration,
) {
    if !is_on() {
        return;
    }
    let open = Open::begin(headers.trace());
    let begun = open.begun.checked_sub(took).unwrap_or(open.begun);
    Open { begun, ..open }.end(|span| {
        span.name = format!("attempt {provider}");
        span.attributes.push(("carillon.provider", provider.into()));
        span.attributes.push(("carillon.channel", delivery.channel.as_str().into()));
        span.attributes.push(("carillon.notification.id", delivery.notification.to_string().as_str().into()));
        span.attributes.push(("carillon.delivery.id", delivery.id.to_string().as_str().into()));
        span.attributes.push(("carillon.attempt", i64::from(number).into()));
        span.attributes.push(("carillon.outcome", outcome.code().into()));
        span.error = (!matches!(outcome, Outcome::Sent)).then(|| outcome.code().to_owned());
    });
}

fn messaging(span: &mut Span, operation: &'static str, topic: &str) {
    span.name = format!("{operation} {topic}");
    span.attributes.push(("messaging.system", "kafka".into()));
    span.attributes.push(("messaging.operation.name", operation.into()));
    span.attributes.push(("messaging.operation.type", operation.into()));
    span.attributes.push(("messaging.destination.name", topic.into()));
}

fn position(span: &mut Span, at: &Position) {
    span.attributes.push(("messaging.destination.partition.id", at.partition.index.to_string().as_str().into()));
    span.attributes.push(("messaging.kafka.offset", at.offset.into()));
}

fn code(error: &LogError) -> &'static str {
    match error {
        LogError::Unavailable(_) => "unavailable",
        LogError::Topic { .. } => "topic",
        LogError::TooLarge(_) => "too_large",
        LogError::Full(_) => "full",
        LogError::NotAssigned => "not_assigned",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Partition;

    #[test]
    fn every_process_samples_the_same_traces() {
        assert!(share(0) < f64::MIN_POSITIVE);
        assert!(share(u128::MAX) < 1.0, "a share of 1 takes all");
        let taken = (0..2000).filter(|_| share(TraceContext::start().trace_id) < 0.25).count();
        assert!((350..650).contains(&taken), "{taken} of 2000");
    }

    #[test]
    fn without_a_collector_the_trace_goes_on_as_it_came() {
        let parent = TraceContext::start();
        let at = Position { partition: Partition { topic: "t".into(), index: 0 }, offset: 0 };
        let headers = Headers::default().with(TraceContext::HEADER, parent.to_string());
        let mut record = Arc::new(Record { at, timestamp_ms: 0, key: None, headers, value: None });
        assert!(Processing::begin(&mut record, &"g".into()).is_none());
        assert_eq!(record.headers.handed_on().trace(), Some(parent));
        let malformed = Headers::default().with(TraceContext::HEADER, "00-0");
        assert!(malformed.handed_on().trace().is_some_and(|begun| begun.trace_id != parent.trace_id));
    }
}
