//! Reads typed values out of the settings; notes what is wrong and goes on, so that all problems are reported together.

use std::{net::SocketAddr, ops::RangeInclusive, time::Duration};

use domain::Secret;
use toml::Value;

use super::{Problems, Settings};

/// Reads settings by dotted key. A value that is wrong is noted, and a harmless placeholder comes back in its place.
pub struct Reader<'a> {
    settings: &'a Settings,
    problems: Vec<String>,
}

impl<'a> Reader<'a> {
    pub(super) fn new(settings: &'a Settings) -> Self {
        Self { settings, problems: Vec::new() }
    }

    pub(super) fn finish(self) -> Result<(), Problems> {
        if self.problems.is_empty() { Ok(()) } else { Err(Problems(self.problems)) }
    }

    /// A text.
    pub fn string(&mut self, key: &str) -> String {
        self.text(key).to_owned()
    }

    /// A credential.
    pub fn secret(&mut self, key: &str) -> Secret {
        Secret::new(self.text(key))
    }

    /// Yes or no.
    pub fn flag(&mut self, key: &str) -> bool {
        self.value(key, "true or false", Value::as_bool).unwrap_or_default()
    }

    /// An integer within limits.
    pub fn integer(&mut self, key: &str, within: RangeInclusive<i64>) -> i64 {
        let Some(n) = self.value(key, "an integer", Value::as_integer) else { return *within.start() };
        if !within.contains(&n) {
            self.problem(key, &format!("must be {} to {}, not {n}", within.start(), within.end()));
            return *within.start();
        }
        n
    }

    /// A share, from 0 to 1.
    pub fn fraction(&mut self, key: &str) -> f64 {
        let share = self.value(key, "a number with a decimal point", Value::as_float).unwrap_or_default();
        if !(0.0..=1.0).contains(&share) {
            self.problem(key, &format!("must be 0.0 to 1.0, not {share}"));
            return 0.0;
        }
        share
    }

    /// A time span such as `250ms`, `90s`, `10m`, `24h` or `7d`.
    pub fn duration(&mut self, key: &str) -> Duration {
        self.parsed(key, parse_duration).unwrap_or_default()
    }

    /// A time span within limits.
    pub fn duration_within(&mut self, key: &str, limits: RangeInclusive<Duration>) -> Duration {
        let Some(span) = self.parsed(key, parse_duration) else { return *limits.start() };
        if !limits.contains(&span) {
            self.problem(key, &format!("must be {} to {}", written(*limits.start()), written(*limits.end())));
            return *limits.start();
        }
        span
    }

    /// A list of texts.
    pub fn list(&mut self, key: &str) -> Vec<String> {
        let items = self.value(key, "a list of strings", Value::as_array).map(Vec::as_slice).unwrap_or_default();
        items.iter().filter_map(Value::as_str).map(str::to_owned).collect()
    }

    /// A text that `parse` understands; its error says what is wrong, such as `is not a colour`. `None` after a problem.
    pub fn parsed<T>(&mut self, key: &str, parse: impl FnOnce(&str) -> Result<T, String>) -> Option<T> {
        match parse(self.text(key)) {
            Ok(value) => Some(value),
            Err(wrong) => {
                self.problem(key, &wrong);
                None
            }
        }
    }

    /// Like [`Reader::parsed`], but the empty text means "none" and is no problem.
    pub fn optional<T>(&mut self, key: &str, parse: impl FnOnce(&str) -> Result<T, String>) -> Option<T> {
        if self.text(key).is_empty() { None } else { self.parsed(key, parse) }
    }

    /// An address to listen on, such as `127.0.0.1:8080`. Where "none" is possible: [`Reader::optional`] with
    /// [`socket_addr`].
    pub fn socket_addr(&mut self, key: &str) -> SocketAddr {
        self.parsed(key, socket_addr).unwrap_or_else(|| SocketAddr::from(([127, 0, 0, 1], 0)))
    }

    /// Notes a problem with a setting, for instance one that contradicts another.
    pub fn problem(&mut self, key: &str, wrong: &str) {
        let origin = self.settings.entries.get(key).map_or_else(String::new, |e| format!(" (from {})", e.origin));
        self.problems.push(format!("{key}: {wrong}{origin}"));
    }

    fn text(&mut self, key: &str) -> &'a str {
        self.value(key, "a string", Value::as_str).unwrap_or_default()
    }

    fn value<T>(&mut self, key: &str, kind: &str, read: impl FnOnce(&'a Value) -> Option<T>) -> Option<T> {
        let settings = self.settings;
        let Some(entry) = settings.entries.get(key) else {
            self.problem(key, "no compiled-in default names this setting");
            return None;
        };
        let value = read(&entry.value);
        if value.is_none() {
            self.problem(key, &format!("must be {kind}"));
        }
        value
    }
}

/// An IP address and a port.
pub fn socket_addr(text: &str) -> Result<SocketAddr, String> {
    text.parse().map_err(|_| "must be an IP address and a port, like 127.0.0.1:8080".into())
}

/// In the largest unit that shows all of it.
fn written(span: Duration) -> String {
    let ms = span.as_millis();
    let units = [("d", 24 * 3600 * 1000), ("h", 3600 * 1000), ("m", 60 * 1000), ("s", 1000)];
    let unit = units.iter().find(|(_, size)| ms > 0 && ms.is_multiple_of(*size));
    unit.map_or_else(|| format!("{ms}ms"), |(name, size)| format!("{}{name}", ms / size))
}

fn parse_duration(text: &str) -> Result<Duration, String> {
    let wrong = || "must be a time span like 250ms, 90s, 10m, 24h or 7d".to_owned();
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let milliseconds: u64 = match unit.trim_start() {
        "ms" => 1,
        "s" => 1000,
        "m" => 60 * 1000,
        "h" => 3600 * 1000,
        "d" => 24 * 3600 * 1000,
        _ => return Err(wrong()),
    };
    let number: u64 = number.parse().map_err(|_| wrong())?;
    number.checked_mul(milliseconds).map(Duration::from_millis).ok_or_else(wrong)
}
