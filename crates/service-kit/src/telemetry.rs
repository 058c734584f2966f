//! Logs, for people on a terminal and for machines elsewhere.

use std::io::IsTerminal;

use tracing_subscriber::EnvFilter;

pub use crate::metrics::registry;
use crate::{Problems, Reader, Settings};

#[derive(Clone, Copy)]
enum Format {
    Human,
    Json,
}

/// Writes logs to standard error from now on, as `log.format` and `log.filter` say. The first call in a process counts.
pub fn init(settings: &Settings) -> Result<(), Problems> {
    let (format, filter) =
        settings.read(|r| (r.parsed("log.format", parse_format), r.parsed("log.filter", parse_filter)))?;
    let terminal = std::io::stderr().is_terminal();
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter.unwrap_or_default())
        .with_writer(std::io::stderr)
        .with_ansi(terminal);
    let human = match format.flatten() {
        None => terminal,
        Some(Format::Human) => true,
        Some(Format::Json) => false,
    };
    let set =
        if human { builder.try_init() } else { builder.json().flatten_event(true).with_span_list(false).try_init() };
    if set.is_ok() {
        std::panic::set_hook(Box::new(|panic| tracing::error!(%panic, "panicked")));
    }
    Ok(())
}

pub(crate) fn check(r: &mut Reader<'_>) {
    r.parsed("log.format", parse_format);
    r.parsed("log.filter", parse_filter);
}

/// `None` is `auto`.
fn parse_format(text: &str) -> Result<Option<Format>, String> {
    match text {
        "auto" => Ok(None),
        "human" => Ok(Some(Format::Human)),
        "json" => Ok(Some(Format::Json)),
        _ => Err("must be auto, human or json".into()),
    }
}

fn parse_filter(text: &str) -> Result<EnvFilter, String> {
    EnvFilter::builder().parse(text).map_err(|e| format!("is not a log filter: {e}"))
}
