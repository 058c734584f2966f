//! What a process tells about itself: logs, metrics and traces. `docs/telemetry.md` is the list of it all.

mod logs;
mod otlp;
mod request;

pub use crate::metrics::registry;
pub(crate) use otlp::flush;
pub use request::observe;

use crate::{Problems, Reader, Settings};

/// From now on writes logs to standard error, as the settings `log.*` say, and sends spans to where `telemetry.*` say. The
/// first call in a process counts. Needs a runtime of tokio.
pub fn init(settings: &Settings) -> Result<(), Problems> {
    let (logs, otlp) = settings.read(|r| (logs::Logs::read(r), otlp::Otlp::read(r)))?;
    logs.init();
    otlp.map_or(Ok(()), otlp::Otlp::start)
}

pub(crate) fn check(r: &mut Reader<'_>) {
    logs::Logs::read(r);
    otlp::Otlp::read(r);
}
