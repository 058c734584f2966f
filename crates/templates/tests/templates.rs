//! What authors and senders see: checks with pointers, locales, escaping, types, the cache.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::sync::Arc;

use domain::{Channel, FieldErrors, Locale, template::Template};
use proptest::{prelude::*, sample::select};
use serde_json::{Map, Value, json};
use templates::{Cache, Compiled, Limits, RenderError, Rendered, check, check_data};

fn template(variables: Value, contents: Value) -> Template {
    serde_json::from_value(
        json!({"description": "", "default_locale": "en", "variables": variables, "contents": contents}),
    )
    .unwrap()
}

fn of_body(body: &str) -> Template {
    template(
        json!({"name": {"description": ""}, "n": {"description": "", "default": 3}}),
        json!({"en": {"default": {"body": body}}}),
    )
}

fn object(value: Value) -> Map<String, Value> {
    let Value::Object(map) = value else { panic!("no object") };
    map
}

fn render(template: &Template, channel: Channel, wanted: &[&str], data: Value) -> Result<Rendered, RenderError> {
    let wanted: Vec<_> = wanted.iter().map(|l| Locale::parse(l).unwrap()).collect();
    let wanted: Vec<_> = wanted.iter().collect();
    Compiled::new(template).unwrap().render(channel, &wanted, &object(data), Limits::default())
}

fn body(source: &str, name: &str) -> Result<String, RenderError> {
    let rendered = render(&of_body(source), Channel::Webhook, &[], json!({"name": name}))?;
    Ok(rendered.content.default.unwrap().body)
}

fn list(errors: Result<(), FieldErrors>) -> Vec<(String, String)> {
    errors.unwrap_err().0.into_iter().map(|e| (e.pointer, e.detail)).collect()
}

#[test]
fn uploads_are_checked_text_by_text() {
    let wrong = template(
        json!({"name": {"description": ""}, "1st": {"description": ""}, "loop": {"description": ""}}),
        json!({"de": {
            "default": {"title": "{{ nmae }}", "body": "ok\n{{ name }}\n{{ nmae ~ name|shout }}"},
            "email": {"subject": "{% if %}", "text": "{{ foo() }}", "colour": "{{ name }}"},
            "apns": {"badge": "{{ name }}", "push_type": "loud", "data": {"a/b": ["{{ x }}"]}},
            "pigeon": {},
        }}),
    );
    let errors = list(check(&wrong, "/template"));
    let has = |pointer: &str, detail: &str| {
        assert!(errors.iter().any(|(p, d)| p == pointer && d.contains(detail)), "{pointer} {detail}: {errors:#?}");
    };
    has("/template/default_locale", "none for the default locale, en");
    has("/template/variables/1st", "begin with a digit");
    has("/template/variables/loop", "word of the language");
    has("/template/contents/de/default/title", "line 1: variable `nmae` is not declared; declared are");
    has("/template/contents/de/default/body", "line 3: variable `nmae`");
    has("/template/contents/de/default/body", "line 3: there is no filter `shout`");
    has("/template/contents/de/email/subject", "line 1: ");
    has("/template/contents/de/email/text", "no functions");
    has("/template/contents/de/email/colour", "no such field");
    has("/template/contents/de/apns/push_type", "push types");
    has("/template/contents/de/apns/data/a~1b/0", "variable `x`");
    has("/template/contents/de/pigeon", "no channel");
    assert!(
        !errors.iter().any(|(p, _)| p.ends_with("badge")),
        "what tags write is checked when it is written: {errors:#?}"
    );

    check(&of_body("{% for n in [1] %}{{ loop.index }}{% set z = n %}{{ z }}{% endfor %}{{ name }}"), "").unwrap();
    let large = of_body(&"x".repeat(templates::MAX_LEAF_BYTES + 1));
    assert!(list(check(&large, ""))[0].1.contains("at most"));
    // errors are no bomb either
    let names: String = (0..5000).map(|i| format!("{{{{x{i}}}}}")).collect();
    let variables: Map<_, _> =
        (0..256).map(|i| (format!("{}{i}", "v".repeat(60)), json!({"description": ""}))).collect();
    let texts: Vec<_> = (0..200).map(|_| "{{ x }}").collect();
    let errors = list(check(
        &template(variables.into(), json!({"en": {"default": {"body": names}, "webhook": {"l": texts}}})),
        "",
    ));
    assert!(errors.len() == 50 && errors.iter().all(|(_, d)| d.len() < 1000), "{}", errors.len());

    let many: Vec<_> = (0..300).map(|_| "{{ name }}").collect();
    let many = template(json!({"name": {"description": ""}}), json!({"en": {"webhook": {"l": many}}}));
    assert_eq!(list(check(&many, ""))[0].0, "/contents/en");
    assert_eq!(list(check(&template(json!({}), json!({"en": {}})), ""))[0].0, "/contents/en");
}

#[test]
fn data_is_checked_against_what_is_declared() {
    let template = of_body("{{ name }}");
    check_data(&template, &object(json!({"name": "Ana"})), "/data").unwrap();
    let errors = list(check_data(&template, &object(json!({"x/y": 1})), "/data"));
    let expected = [
        ("/data/x~1y", "not declared by the template; it declares n, name"),
        ("/data/name", "missing; the template declares it without a default"),
    ];
    assert_eq!(errors, expected.map(|(p, d)| (p.to_owned(), d.to_owned())));
    let long = "x".repeat(templates::MAX_DATA_BYTES);
    assert!(list(check_data(&template, &object(json!({"name": long})), "/data"))[0].1.contains("at most"));
    let deep = (0..=templates::MAX_DEPTH).fold(json!(1), |v, _| json!([v]));
    assert_eq!(list(check_data(&template, &object(json!({"name": deep})), "/data"))[0].0, "/data/name");
}

#[test]
fn the_first_locale_that_has_something_to_say_wins() {
    let template = template(
        json!({}),
        json!({"en": {"default": {"body": "en"}}, "zh": {"default": {"body": "zh"}},
            "zh-TW": {"webhook": {"t": "zh-TW"}}, "de": {"email": {"text": "de"}}}),
    );
    let chosen = |channel, wanted: &[&str]| render(&template, channel, wanted, json!({})).unwrap().locale.to_string();
    assert_eq!(chosen(Channel::Webhook, &["zh-TW"]), "zh-TW");
    assert_eq!(chosen(Channel::Email, &["zh-TW", "en"]), "zh", "what has nothing for the channel is passed over");
    assert_eq!(chosen(Channel::Email, &["zh-CN"]), "zh");
    assert_eq!(chosen(Channel::Webhook, &["de", "zh"]), "zh");
    assert_eq!(chosen(Channel::Webhook, &["fr"]), "en");
    let own = render(&template, Channel::Email, &["de"], json!({})).unwrap().content;
    assert!(own.default.is_none() && own.channels.len() == 1);

    let only: Template = serde_json::from_value(
        json!({"description": "", "default_locale": "en", "variables": {}, "contents": {"en": {"email": {"text": "x"}}}})).unwrap();
    let error = render(&only, Channel::Webhook, &["de"], json!({})).unwrap_err();
    assert_eq!((error.pointer.as_str(), error.detail.contains("webhook")), ("/contents", true));
}

#[test]
fn only_html_of_mail_is_escaped() {
    let name = "<script>\"&'";
    let template = template(
        json!({"name": {"description": ""}}),
        json!({"en": {
            "email": {"subject": "{{ name }}", "html": "<p style=\"x{y}\">{{ name }}{{ name|upper }}{{ [name]|join('<') }}{{ name|safe }}</p>"},
            "webhook": {"html": "{{ name }}"}}}),
    );
    let said = |channel: Channel| {
        render(&template, channel, &[], json!({"name": name})).unwrap().content.channels[channel.as_str()].clone()
    };
    let mail = said(Channel::Email);
    assert_eq!(mail["subject"], name);
    let html = mail["html"].as_str().unwrap();
    assert!(html.starts_with("<p style=\"x{y}\">&lt;script&gt;&quot;&amp;&#x27;&lt;SCRIPT&gt;"), "{html}");
    assert_eq!(html.matches("<script>").count(), 1, "only what is marked as safe: {html}");
    assert_eq!(said(Channel::Webhook)["html"], name);
}

#[test]
fn a_field_that_is_one_expression_keeps_its_type() {
    let template = template(
        json!({"n": {"description": ""}, "o": {"description": "", "default": {"a": [1, null]}}, "t": {"description": "", "default": true}}),
        json!({"en": {
            "apns": {"title": "{{ n }}", "badge": "{{ n + 1 }}", "data": {"{{ n }}": "{{ o }}", "b": ["{{ t }}", "{{ n }}!", 7, null, "plain"]}},
            "webhook": {"x": "{{ n / 4 }}", "y": "{{ none }}", "z": "{# c #}", "big": "{{ 1e308 * 10 }}"}}}),
    );
    let said = render(&template, Channel::Apns, &[], json!({"n": 2})).unwrap().content.channels["apns"].clone();
    let expected =
        json!({"title": "2", "badge": 3, "data": {"{{ n }}": {"a": [1, null]}, "b": [true, "2!", 7, null, "plain"]}});
    assert_eq!(Value::Object(said), expected);
    let error = render(&template, Channel::Webhook, &[], json!({"n": 2})).unwrap_err();
    assert_eq!(error.pointer, "/contents/en/webhook/big", "infinity is no null: {error}");
}

#[test]
fn an_error_names_the_text_the_line_and_the_variable() {
    let error = body("a\n{% if n > 1 %}{# x\n #}\n{{ n }}{ {{ name.first.x }}{% endif %}", "Ana").unwrap_err();
    assert_eq!(error.pointer, "/contents/en/default/body");
    assert!(error.detail.starts_with("line 4: ") && error.detail.contains("`name.first` is undefined"), "{error}");
    assert_eq!(body("{{ name.x|default('-') }}{% if name.x is defined %}!{% endif %}", "Ana").unwrap(), "-");
    assert!(body("{{ name * 2 }}", "Ana").unwrap_err().detail.contains("`*` takes numbers"));
    let error = Compiled::new(&of_body("{{ name }}"))
        .unwrap()
        .render(Channel::Webhook, &[], &Map::new(), Limits::default())
        .unwrap_err();
    assert_eq!(error.to_string(), "/contents/en/default/body: line 1: `name` is undefined");
    let nested = format!("{}{{{{ name }}}}", "{% set name = [name] %}".repeat(70));
    assert!(body(&nested, "Ana").unwrap_err().detail.contains("nested deeper than 64"));
    assert!(!body("{{ name|int }}", "secret").unwrap_err().to_string().contains("secret"), "errors show no data");
}

#[test]
fn nothing_is_added_or_taken_away() {
    let source =
        "\r\n {{ name }}\r\n{%- if n %}\n{ %}}} #}{{ '{{' }}\n{% raw %}{{ \"x\" }}\\{% endraw %}\n{% endif %}\n\n";
    assert_eq!(body(source, "A\r\nB: c").unwrap(), "\r\n A\r\nB: c\n{ %}}} #}{{\n{{ \"x\" }}\\\n\n\n");
    assert_eq!(body("no tags\n", "").unwrap(), "no tags\n");
}

#[test]
fn the_limits_are_of_the_rendering_as_a_whole() {
    let all = template(
        json!({"name": {"description": ""}}),
        json!({"en": {"webhook": {"a": "{{ name }}.", "b": "{{ name }}.", "c": "{{ name }}"}}}),
    );
    let compiled = Compiled::new(&all).unwrap();
    let data = object(json!({"name": "x".repeat(100)}));
    let render = |work, output| compiled.render(Channel::Webhook, &[], &data, Limits { work, output });
    render(348, 302).unwrap();
    assert_eq!(render(347, 302).unwrap_err().pointer, "/contents/en/webhook/c");
    let error = render(348, 301).unwrap_err();
    assert!(error.pointer == "/contents/en/webhook/c" && error.detail.contains("301 bytes"), "{error}");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, failure_persistence: None, ..ProptestConfig::default() })]

    /// The oracle is the engine, which alone can take the same text with an empty condition behind it.
    #[test]
    fn texts_with_nothing_but_names_say_what_the_engine_makes_of_them(
        pieces in proptest::collection::vec(
            select(&["Hi ", " \n", "{ ", "}} ", "é", "{# c #}", "{{ a }}", "{{a}}", "{{- b -}}", "{{ c }}", "{{ 'x' }}"][..]), 0..6),
        a in select(&["\"Ana\"", "\"<\\\"{{ b }}\"", "\"\"", "7", "null", "[\"x\"]"][..]),
        c in any::<bool>(),
        work in select(&[0, 18, 19, 40, u64::MAX][..]),
        output in select(&[0, 3, 5, 9, usize::MAX][..]),
    ) {
        // what has no tags at all is not rendered
        let source = format!("{{# #}}{}", pieces.concat());
        let engine = format!("{source}{{% if true %}}{{% endif %}}");
        let mut data = object(json!({"a": serde_json::from_str::<Value>(a).unwrap()}));
        if c {
            data.insert("c".to_owned(), json!("given"));
        }
        let said = [source, engine].map(|body| {
            let variables = json!({"a": {"description": ""}, "b": {"description": "", "default": "bb"}, "c": {"description": ""}});
            let both = template(variables, json!({"en": {"default": {"title": "{{ b }}", "body": body}}}));
            Compiled::new(&both).unwrap().render(Channel::Webhook, &[], &data, Limits { work, output })
        });
        prop_assert_eq!(&said[0], &said[1]);
    }
}

#[test]
fn the_cache_knows_templates_by_identity_and_stays_small() {
    let cache = Cache::new(2, usize::MAX);
    let [a, b, c] = ["a", "b", "c"].map(|t| Arc::new(of_body(t)));
    let first = cache.get(&a).unwrap();
    assert!(Arc::ptr_eq(&first, &cache.get(&a).unwrap()));
    let again = Arc::new(of_body("a again"));
    assert!(!Arc::ptr_eq(&first, &cache.get(&again).unwrap()), "deleted and put again");
    cache.get(&a).unwrap();
    cache.get(&b).unwrap();
    assert!(Arc::ptr_eq(&first, &cache.get(&a).unwrap()), "the least recently used went");
    cache.get(&c).unwrap();
    assert_eq!(Arc::strong_count(&b), 1, "what is evicted is let go of");
    assert!(cache.get(&Arc::new(of_body("{{ x }}"))).unwrap_err().0[0].detail.contains("not declared"));
    drop(cache);
    let small = Cache::new(100, 1);
    small.get(&a).unwrap();
    small.get(&b).unwrap();
    assert_eq!(Arc::strong_count(&a), 1, "by size too");
}
