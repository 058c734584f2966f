//! Logs, for people on a terminal and for machines elsewhere.

use std::io::IsTerminal;

use tracing::Subscriber;
use tracing_subscriber::{EnvFilter, fmt::MakeWriter, util::SubscriberInitExt as _};

use crate::Reader;

/// What `log.*` say.
pub(super) struct Logs {
    /// `None` is `auto`.
    format: Option<Format>,
    filter: EnvFilter,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Format {
    Human,
    Json,
}

impl Logs {
    pub(super) fn read(r: &mut Reader<'_>) -> Self {
        Self {
            format: r.parsed("log.format", parse_format).flatten(),
            filter: r.parsed("log.filter", parse_filter).unwrap_or_default(),
        }
    }

    pub(super) fn init(self) {
        let terminal = std::io::stderr().is_terminal();
        if self.subscriber(terminal, std::io::stderr).try_init().is_ok() {
            std::panic::set_hook(Box::new(|panic| tracing::error!(%panic, "panicked")));
        }
    }

    fn subscriber<W>(self, terminal: bool, writer: W) -> Box<dyn Subscriber + Send + Sync>
    where
        W: for<'w> MakeWriter<'w> + Send + Sync + 'static,
    {
        let builder = tracing_subscriber::fmt().with_env_filter(self.filter).with_writer(writer).with_ansi(terminal);
        match self.format {
            Some(Format::Human) => Box::new(builder.finish()),
            None if terminal => Box::new(builder.finish()),
            // of a request's line `span` has the trace
            _ => Box::new(builder.json().flatten_event(true).with_span_list(false).finish()),
        }
    }
}

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

#[cfg(test)]
mod tests {
    use std::{
        io,
        sync::{Arc, Mutex},
    };

    use domain::{Address, Channel, Secret};
    use serde_json::Value;

    use super::*;
    use crate::Settings;

    #[derive(Clone, Default)]
    struct Lines(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Lines {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    /// What is logged when `filter` is the setting, and the output is a terminal or not.
    fn logged(terminal: bool, filter: &str, log: impl FnOnce()) -> String {
        let lines = Lines::default();
        let own = lines.clone();
        let logs = Logs { format: None, filter: parse_filter(filter).unwrap() };
        tracing::subscriber::with_default(logs.subscriber(terminal, move || own.clone()), log);
        String::from_utf8(std::mem::take(&mut *lines.0.lock().unwrap())).unwrap()
    }

    /// Everything that holds a secret or an address, as careless code would log it.
    #[test]
    fn no_canary_in_either_format() {
        const CANARY: &str = "canary-7f3a";
        let env = |name: &str, value: String| (format!("CARILLON__{name}"), value);
        let settings = Settings::load(
            &[],
            None,
            [
                env("REDIS__URL", format!("redis://:{CANARY}@127.0.0.1")),
                env("KAFKA__EXTRA", format!("sasl.password={CANARY}")),
            ],
        )
        .unwrap();
        let secret = Secret::new(CANARY);
        let url = format!("https://{CANARY}.example/{CANARY}");
        let address = Address::parse(Channel::Webhook, &url).unwrap();
        for terminal in [true, false] {
            let said = logged(terminal, "info", || {
                let span = tracing::error_span!("request", ?secret);
                span.in_scope(|| tracing::warn!(?secret, ?address, ?settings, "careless: {secret:?} {address:?}"));
            });
            assert!(said.contains("careless") && !said.contains(CANARY), "{said}");
        }
    }

    #[test]
    fn machines_get_the_trace_with_every_line_of_a_request() {
        let trace_id = "0af7651916cd43dd8448eb211c80319c";
        let log = || {
            let request = tracing::error_span!("request", trace_id);
            request.in_scope(|| tracing::warn!(channel = "email", "slow"));
            tracing::info!("not shown");
        };
        let said = logged(false, "warn", log);
        let line: Value = serde_json::from_str(&said).unwrap();
        assert_eq!(
            (&line["message"], &line["channel"], &line["level"]),
            (&"slow".into(), &"email".into(), &"WARN".into())
        );
        assert_eq!(line["span"]["trace_id"], trace_id);
        let said = logged(true, "warn", log);
        assert!(said.contains("slow") && said.contains(trace_id), "{said}");
    }
}
