//! Settings: compiled-in defaults < TOML file < environment, every value with its origin, every problem at once.

mod merge;
mod reader;
mod show;

use std::{collections::BTreeMap, fmt, path::Path};

use toml::Value;

pub use reader::{Reader, socket_addr};

use crate::{engines, telemetry};

/// The defaults of what all services share, commented.
pub const DEFAULTS: &str = include_str!("../../settings.default.toml");

/// All settings of a process, merged. Every key there is stands in some compiled-in default.
#[derive(Clone)]
pub struct Settings {
    /// By dotted key, such as `kafka.brokers`.
    entries: BTreeMap<String, Entry>,
}

#[derive(Clone)]
struct Entry {
    value: Value,
    origin: Origin,
}

/// Where a value came from.
#[derive(Clone, PartialEq, Eq)]
enum Origin {
    Default,
    /// The path, as it was given.
    File(String),
    /// The variable's name.
    Environment(String),
    /// [`Settings::set`].
    Program,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("the compiled-in defaults"),
            Self::File(path) => f.write_str(path),
            Self::Environment(name) => write!(f, "the environment variable {name}"),
            Self::Program => f.write_str("the command line"),
        }
    }
}

/// Everything that is wrong with the settings, one line per problem: the key, what is wrong, where the value came from.
/// A process that has some ends with code 64 before it touches anything.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problems(pub Vec<String>);

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.join("\n"))
    }
}

impl std::error::Error for Problems {}

/// The settings of one crate.
#[derive(Clone, Copy)]
pub struct Section {
    /// Commented TOML: documentation, defaults and types in one.
    pub defaults: &'static str,
    /// Reads all of them as the crate will, so that every problem is known before anything is opened.
    pub check: fn(&mut Reader<'_>),
}

impl Settings {
    /// Merges [`DEFAULTS`] and those of `sections`, the file, and those variables of `env` that begin with `CARILLON__`;
    /// checks every value. `Err` has all problems.
    pub fn load(
        sections: &[Section],
        file: Option<&Path>,
        env: impl IntoIterator<Item = (String, String)>,
    ) -> Result<Self, Problems> {
        let (settings, mut problems) = merge::merge(sections.iter().map(|s| s.defaults), file, env);
        let checked = settings.read(|r| {
            engines::check(r);
            telemetry::check(r);
            sections.iter().for_each(|s| (s.check)(r));
        });
        problems.extend(checked.err().map(|p| p.0).unwrap_or_default());
        // a key that several read is wrong once
        problems.sort();
        problems.dedup();
        if problems.is_empty() { Ok(settings) } else { Err(Problems(problems)) }
    }

    /// The same, with the environment of this process: the one place that reads it.
    pub fn from_process(sections: &[Section], file: Option<&Path>) -> Result<Self, Problems> {
        // what is no UTF-8 is marked by the replacement character, which `load` refuses
        let env = std::env::vars_os().map(|(k, v)| (k.to_string_lossy().into(), v.to_string_lossy().into()));
        Self::load(sections, file, env)
    }

    /// Overrides a value, for options of the command line, the demo and tests.
    pub fn set(&mut self, key: &str, value: impl Into<Value>) {
        debug_assert!(self.entries.contains_key(key), "no default names the setting `{key}`");
        self.entries.insert(key.to_owned(), Entry { value: value.into(), origin: Origin::Program });
    }

    /// Reads settings into a value; `Err` has all problems that the reader noted.
    pub fn read<T>(&self, read: impl FnOnce(&mut Reader<'_>) -> T) -> Result<T, Problems> {
        let mut reader = Reader::new(self);
        let value = read(&mut reader);
        reader.finish().map(|()| value)
    }

    /// The effective values as TOML, secrets shown as `(hidden)`.
    pub fn effective(&self) -> String {
        show::effective(self)
    }
}

impl fmt::Debug for Settings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.effective())
    }
}

#[cfg(test)]
mod tests;
