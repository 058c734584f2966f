//! What templates may use: filters and tests whose result and time are linear in what they are given.

use minijinja::{
    AutoEscape, Environment, Error, State, UndefinedBehavior, Value, filters,
    syntax::SyntaxConfig,
    value::{Kwargs, StringInput},
};

use crate::meter;

/// Most steps that one text may take; what it handles is metered besides.
pub(crate) const FUEL: u64 = 50_000;

/// Names of texts whose variables are escaped start with this.
pub(crate) const HTML: &str = "html:";

/// What a filter takes besides its subject.
pub(crate) struct Filter {
    pub(crate) name: &'static str,
    /// Most arguments by position.
    pub(crate) positional: usize,
    /// Arguments by name; `attribute` has to be a literal: a path of unknown length times a list would be quadratic.
    pub(crate) named: &'static [&'static str],
    /// Its positional arguments are literals too.
    pub(crate) literal: bool,
}

const fn filter(name: &'static str, positional: usize, named: &'static [&'static str]) -> Filter {
    Filter { name, positional, named, literal: false }
}

const fn by_attribute(name: &'static str) -> Filter {
    Filter { name, positional: 1, named: &[], literal: true }
}

/// Left out is what multiplies sizes (`indent`, `batch`), runs filters or tests by name, or stays lazy (`chain`, `zip`).
pub(crate) const FILTERS: &[Filter] = &[
    filter("abs", 0, &[]),
    filter("bool", 0, &[]),
    filter("capitalize", 0, &[]),
    filter("count", 0, &[]),
    filter("d", 2, &[]),
    filter("default", 2, &[]),
    filter("dictsort", 0, &["by", "case_sensitive", "reverse"]),
    filter("e", 0, &[]),
    filter("escape", 0, &[]),
    filter("first", 0, &[]),
    filter("float", 1, &["default"]),
    filter("format", 9, &[]),
    by_attribute("groupby"),
    filter("int", 1, &["default"]),
    filter("items", 0, &[]),
    filter("join", 1, &["attribute"]),
    filter("last", 0, &[]),
    filter("length", 0, &[]),
    filter("lines", 0, &[]),
    filter("list", 0, &[]),
    filter("lower", 0, &[]),
    filter("map", 0, &["attribute", "default"]),
    filter("max", 0, &[]),
    filter("min", 0, &[]),
    filter("reject", 0, &[]),
    by_attribute("rejectattr"),
    filter("replace", 2, &[]),
    filter("reverse", 0, &[]),
    filter("round", 2, &["precision", "method"]),
    filter("safe", 0, &[]),
    filter("select", 0, &[]),
    by_attribute("selectattr"),
    filter("sort", 0, &["attribute", "case_sensitive", "reverse"]),
    filter("split", 2, &[]),
    filter("string", 0, &[]),
    filter("sum", 0, &["attribute"]),
    filter("title", 0, &[]),
    filter("tojson", 0, &[]),
    filter("trim", 0, &[]),
    filter("unique", 0, &["attribute", "case_sensitive"]),
    filter("upper", 0, &[]),
    filter("urlencode", 0, &[]),
];

/// Each with the number of its arguments.
pub(crate) const TESTS: &[(&str, usize)] = &[
    ("boolean", 0),
    ("defined", 0),
    ("divisibleby", 1),
    ("endingwith", 1),
    ("even", 0),
    ("false", 0),
    ("float", 0),
    ("integer", 0),
    ("iterable", 0),
    ("mapping", 0),
    ("none", 0),
    ("number", 0),
    ("odd", 0),
    ("sequence", 0),
    ("startingwith", 1),
    ("string", 0),
    ("true", 0),
    ("undefined", 0),
];

/// The first of some names, as errors show them.
pub(crate) fn some<'n>(names: impl IntoIterator<Item = &'n &'n str>) -> String {
    let mut names = names.into_iter();
    let first: Vec<_> = names.by_ref().take(20).copied().collect();
    let more = if names.next().is_some() { ", …" } else { "" };
    if first.is_empty() { "none".into() } else { format!("{}{more}", first.join(", ")) }
}

/// An engine without globals, for which a missing variable is an error.
pub(crate) fn environment() -> Environment<'static> {
    let mut env = Environment::new();
    let globals: Vec<String> = env.globals().map(|(name, _)| name.to_owned()).collect();
    globals.iter().for_each(|name| env.remove_global(name));
    env.set_undefined_behavior(UndefinedBehavior::Strict);
    // names what is undefined
    env.set_debug(true);
    env.set_fuel(Some(FUEL));
    env.set_syntax(syntax());
    env.set_auto_escape_callback(|name| if name.starts_with(HTML) { AutoEscape::Html } else { AutoEscape::None });
    env.add_filter("join", join);
    env.add_filter("replace", replace);
    meter::add_filters(&mut env);
    env
}

/// Jinja's own, but a text keeps its last line feed.
pub(crate) fn syntax() -> SyntaxConfig {
    // only delimiters can be refused, and these are the usual ones
    SyntaxConfig::builder().keep_trailing_newline(true).build().unwrap_or_default()
}

/// Most bytes that escaping makes of one.
const ESCAPED: usize = 6;

fn product(times: usize, text: &StringInput<'_>) -> u64 {
    (times as u64).saturating_mul((text.as_str().len() * ESCAPED) as u64)
}

/// A joiner counts as often as it is used.
fn join(state: &mut State, list: &Value, joiner: Option<StringInput<'_>>, named: Kwargs) -> Result<Value, Error> {
    if let Some(joiner) = &joiner {
        meter::charge(state, product(list.len().unwrap_or_default(), joiner))?;
    }
    filters::join(state, list, joiner, None, named)
}

/// A replacement counts as often as it is used.
fn replace(
    state: &mut State,
    text: StringInput<'_>,
    from: StringInput<'_>,
    to: StringInput<'_>,
) -> Result<Value, Error> {
    meter::charge(state, product(text.as_str().matches(from.as_str()).count(), &to))?;
    filters::replace(state, text, from, to)
}
