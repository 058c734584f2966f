//! What a tenant could write to take time, memory or the stack from the others. One test: it measures the whole process.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{
    fs,
    sync::{Arc, mpsc},
    thread,
    time::{Duration, Instant},
};

use domain::{Channel, template::Template};
use serde_json::{Map, Value, json};
use templates::{Compiled, Limits, check};

/// Peak of the memory that the process has had, in KiB.
fn peak() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|l| l.starts_with("VmHWM:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

fn template(body: &str) -> Template {
    let variables = json!({"a": {"description": "", "default": "x"}, "n": {"description": "", "default": 1},
        "l": {"description": "", "default": []}});
    serde_json::from_value(json!({"description": "", "default_locale": "en", "variables": variables,
        "contents": {"en": {"webhook": {"text": format!("{body} "), "value": body}}}}))
    .unwrap()
}

/// The error of the check or of the rendering; `None` if it is harmless.
fn outcome(body: &str, data: &Map<String, Value>) -> Option<String> {
    let template = template(body);
    if let Err(errors) = check(&template, "") {
        return Some(errors.to_string());
    }
    let compiled = Compiled::new(&template).unwrap();
    compiled.render(Channel::Webhook, &[], data, Limits::default()).err().map(|e| e.to_string())
}

fn bombs() -> Vec<(&'static str, String)> {
    let growing = |step: &str, times: usize, end: &str| format!("{}{end}", step.repeat(times));
    vec![
        ("repeat a literal", "{{ 'x' * 99999999 }}".into()),
        ("repeat a literal, in a condition", "{% if 'x' * 99999999 %}{% endif %}".into()),
        ("repeat by data", "{{ a * n }}".into()),
        ("repeat from the right", "{{ n * a }}".into()),
        ("repeat a list", "{{ ([a] * 99999999)|list|length }}".into()),
        ("repeat a tuple", "{{ ((a, a) * 49999999)|length }}".into()),
        ("repeat a choice", "{{ ('x' if a else 1) * 99999999 }}".into()),
        ("nested loops", "{% for i in l %}{% for j in l %}{% for k in l %}{% for m in l %}x{% endfor %}{% endfor %}{% endfor %}{% endfor %}".into()),
        ("silent nested loops", "{% for i in l %}{% for j in l %}{% for k in l %}{% endfor %}{% endfor %}{% endfor %}".into()),
        ("range", "{% for i in range(100000000) %}{% endfor %}".into()),
        ("doubling a text", growing("{% set a = a ~ a %}", 3000, "{{ a|length }}")),
        ("doubling a text by +", growing("{% set a = a + a %}", 3000, "{{ a|length }}")),
        ("doubling a list", growing("{% set l = l + l %}", 3000, "{{ l|length }}")),
        ("doubling by sharing", format!("{{% set l = [] %}}{}", growing("{% set l = [l, l] %}", 3000, "{{ l|length }}"))),
        ("doubling a small text", format!("{{% set a = 'x' %}}{}", growing("{% set a = a ~ a %}", 3000, "{{ a|length }}"))),
        ("doubling a small list", format!("{{% set l = [1] %}}{}", growing("{% set l = l + l %}", 3000, "{{ l|length }}"))),
        ("comparing what is shared", format!("{{% set l = [] %}}{}", growing("{% set l = [l, l] %}", 40, "{{ l == l }}"))),
        ("doubling in a loop", "{% for i in l %}{% set a = a ~ a %}{% endfor %}".into()),
        ("doubling in with", growing("{% with a = a ~ a %}", 60, &"{% endwith %}".repeat(60))),
        ("a list in a list", format!("{{% set l = [] %}}{}", growing("{% set l = [l] %}", 3000, "{{ l }}"))),
        ("a map in a map", format!("{{% set l = 1 %}}{}", growing("{% set l = {'k': l} %}", 2800, "{{ l|tojson }}"))),
        ("a slice of a slice", {
            let step = format!("{{% set l = l{} %}}", "[0:]".repeat(12));
            format!("{{% set l = [1] %}}{}", growing(&step, 500, "{{ l|length }}"))
        }),
        ("a reverse of a reverse", format!("{{% set l = [1] %}}{}", growing("{% set l = l|reverse %}", 2600, "{{ l|first }}"))),
        ("items of many", "{% for i in l %}{{ l|join(a) }}{% endfor %}".into()),
        ("join", "{{ l|join('x'|format) }}{{ l|join(a) }}".into()),
        ("replace", "{{ a|replace('', a) }}".into()),
        ("replace each", "{{ a|replace('x', a)|replace('x', a) }}".into()),
        ("format width", "{{ '%999999999d'|format(1) }}".into()),
        ("format width by argument", "{{ '%*d'|format(999999999, 1) }}".into()),
        ("format precision", "{{ '%.99999999f'|format(1.5) }}".into()),
        ("indent", "{{ a|indent(999999999) }}".into()),
        ("batch", "{{ l|batch(999999999, 'x')|list }}".into()),
        ("slice filter", "{{ l|slice(999999999)|list }}".into()),
        ("trim of many", "{{ a|trim(a) }}".into()),
        ("a path of many", "{{ l|sort(attribute=a)|length }}".into()),
        ("select in", "{{ l|select('in', l)|list|length }}".into()),
        ("map replace", "{{ l|map('replace', 'x', a)|list|length }}".into()),
        ("a block of set", "{% set b %}{% for i in l %}xxxxxxxxxxxxxxxx{% endfor %}{% endset %}{{ b }}".into()),
        ("a block of filter", "{% filter upper %}{% for i in l %}x{% endfor %}{% endfilter %}".into()),
        ("includes itself", "{% include 'x' %}".into()),
        ("extends itself", "{% extends 'x' %}".into()),
        ("macro", "{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}".into()),
        ("recursive loop", "{% for i in l recursive %}{{ loop(l) }}{% endfor %}".into()),
        ("method", "{{ loop.cycle() }}".into()),
        ("parentheses", format!("{{{{ {}1{} }}}}", "(".repeat(5000), ")".repeat(5000))),
        ("brackets", format!("{{{{ {}{} }}}}", "[".repeat(5000), "]".repeat(5000))),
        ("subscripts", format!("{{{{ {}1{} }}}}", "a[".repeat(5000), "]".repeat(5000))),
        ("minus", format!("{{{{ {}1 }}}}", "- ".repeat(20000))),
        ("not", format!("{{{{ {}1 }}}}", "not ".repeat(15000))),
        ("a chain of operators", format!("{{{{ a{} }}}}", "~a".repeat(30000))),
        ("a chain of filters", format!("{{{{ a{} }}}}", "|e".repeat(30000))),
        ("a chain of attributes", format!("{{{{ a{} }}}}", ".a".repeat(30000))),
        ("a chain of choices", format!("{{{{ {}1 }}}}", "1 if a else ".repeat(5000))),
        ("a chain of elif", format!("{{% if a %}}{}{{% endif %}}", "{% elif a %}".repeat(5000))),
        ("nested ifs", format!("{}{}", "{% if a %}".repeat(3000), "{% endif %}".repeat(3000))),
        ("nested loops, deep", format!("{}{}", "{% for a in l %}".repeat(2000), "{% endfor %}".repeat(2000))),
        ("nested targets", format!("{{% for {}a{} in l %}}{{% endfor %}}", "(".repeat(9000), ")".repeat(9000))),
        ("power", "{{ 9 ** 999999999 }}{{ 9.0 ** 999999999 }}".into()),
        ("much text in a loop", format!("{{% for i in l %}}{}{{% endfor %}}", "x".repeat(60_000))),
        ("much marked text in a loop", format!("{{% for i in l %}}{}{{% endfor %}}", "{ }".repeat(20_000))),
        ("a large number", format!("{{{{ {} }}}}", "9".repeat(60_000))),
        ("a large value as it is", "{{ [l, l, l, l, l, l, l, l] }}".into()),
    ]
}

#[test]
fn bombs_end_in_bounded_time_and_memory() {
    let values = [("a", Value::from("x".repeat(20_000))), ("n", 99_999_999.into()), ("l", vec![1; 20_000].into())];
    let long: Map<_, _> = values.map(|(name, value)| (name.to_owned(), value)).into_iter().collect();
    let harmless = ["a slice of a slice", "a reverse of a reverse"];
    let data = Arc::new(long);
    let before = peak();
    for (name, body) in bombs() {
        let (done, result) = mpsc::channel();
        let (of, data, started) = (body.clone(), Arc::clone(&data), Instant::now());
        // with the stack of a worker
        let worker = thread::Builder::new().stack_size(2 * 1024 * 1024);
        worker.spawn(move || done.send(outcome(&of, &data))).unwrap();
        let error = result.recv_timeout(Duration::from_secs(10)).unwrap_or_else(|e| panic!("{name}: {e}"));
        println!("{name}: {:?}, {} MiB, {}", started.elapsed(), peak() / 1024, error.as_deref().unwrap_or("-"));
        assert!(body.len() < templates::MAX_LEAF_BYTES, "{name} is refused for its length alone");
        assert_eq!(error.is_none(), harmless.contains(&name), "{name}: {error:?}");
        assert!(error.is_none_or(|e| e.len() < 2_000), "{name}: the error is long");
    }
    let grown = (peak() - before) / 1024;
    assert!(grown < 48, "the memory grew by {grown} MiB");
}
