//! Text for people: the trace of a notification, tables.

use std::fmt::Write as _;

use serde_json::Value;

/// A text in an answer; nothing if it is something else.
pub(crate) fn text(v: &Value) -> &str {
    v.as_str().unwrap_or_default()
}

/// Rows in aligned columns; the first row is the heading.
pub(crate) fn table(rows: &[Vec<String>]) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |c: usize| rows.iter().filter_map(|r| r.get(c)).map(|s| s.chars().count()).max().unwrap_or(0);
    let widths: Vec<_> = (0..columns).map(width).collect();
    let mut out = String::new();
    for row in rows {
        let mut line = String::new();
        for (cell, width) in row.iter().zip(&widths) {
            let pad = width.saturating_sub(cell.chars().count());
            line.push_str(cell);
            line.extend(std::iter::repeat_n(' ', pad + 2));
        }
        out.push_str(line.trim_end());
        out.push('\n');
    }
    out
}

/// Labels and values, the values in one column.
pub(crate) fn fields(rows: impl Iterator<Item = (&'static str, String)>) -> String {
    rows.map(|(label, value)| format!("{label:<13} {value}\n")).collect()
}

/// A notification and the timeline of each of its deliveries.
pub(crate) fn trace(n: &Value) -> String {
    let mut out = String::new();
    let begun = text(&n["accepted_at"]);
    let category = n["category"].as_str().map(|c| format!(", category {c}")).unwrap_or_default();
    let template = n["template"].as_str().map(|t| format!(", template {t}")).unwrap_or_default();
    let count = n["recipients"].as_u64().unwrap_or(0);
    let people = if count == 1 { "1 recipient".to_owned() } else { format!("{count} recipients") };
    put(
        &mut out,
        format_args!(
            "notification {}: {}  ({people}{category}{template}, accepted {begun})",
            text(&n["id"]),
            text(&n["state"])
        ),
    );
    for d in n["deliveries"].as_array().into_iter().flatten() {
        let to = d["user"].as_str().unwrap_or("a raw address");
        let address = d["address"].as_str().map(|a| format!(" {a}")).unwrap_or_default();
        let why = d["reason"].as_str().map(|r| format!(" ({r})")).unwrap_or_default();
        put(&mut out, format_args!("  {to}, {}{address}: {}{why}", text(&d["channel"]), text(&d["state"])));
        for step in d["trace"].as_array().into_iter().flatten() {
            put(&mut out, format_args!("    {}", step_line(begun, step)));
        }
    }
    out
}

fn step_line(begun: &str, step: &Value) -> String {
    let since = |at: &str| -> Option<i64> {
        let (begun, at): (jiff::Timestamp, jiff::Timestamp) = (begun.parse().ok()?, at.parse().ok()?);
        Some(at.as_millisecond() - begun.as_millisecond())
    };
    let at = text(&step["at"]);
    let offset = since(at).map_or_else(|| at.to_owned(), |ms| format!("{ms:>+6} ms"));
    let why = step["reason"].as_str().map(|r| format!(": {r}")).unwrap_or_default();
    let attempt = match &step["attempt"] {
        Value::Object(a) => format!(
            "  attempt {} -> {} in {} ms: {}",
            a["number"],
            text(&a["outcome"]),
            a["took_ms"],
            text(&a["answer"])
        ),
        _ => String::new(),
    };
    format!("{offset}  {}{why}{attempt}", text(&step["state"]))
}

fn put(out: &mut String, line: std::fmt::Arguments<'_>) {
    // writing to a String cannot fail
    let _infallible = writeln!(out, "{line}");
}
