//! The layers, the problems, and what is hidden.

use std::{fs, path::PathBuf, time::Duration};

use super::*;

const SERVICE: &str = r#"
[mail]
host = "localhost"
port = 25
wait = "10s"
tls = false
relays = []
smtp_password = ""
callback_url = ""
"#;

fn file(text: &str) -> (tempfile::TempDir, PathBuf) {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("settings.toml");
    fs::write(&path, text).expect("a file");
    (dir, path)
}

fn env<'a>(vars: &'a [(&str, &str)]) -> impl Iterator<Item = (String, String)> + 'a {
    vars.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
}

fn section(defaults: &'static str) -> Section {
    Section { defaults, check: |_| {} }
}

#[test]
fn environment_beats_file_beats_defaults() {
    let (_dir, path) = file("[mail]\nhost = 'file'\nport = 1\nrelays = ['x']\n[log]\n");
    let vars = [
        ("CARILLON__MAIL__HOST", "environment"),
        ("CARILLON__mail__Relays", "a:1, b:2,"),
        ("CARILLON__MAIL__TLS", "true"),
        // not ours: the CLI's, the tests', and what Kubernetes injects for a service of this name
        ("CARILLON_URL", "x"),
        ("CARILLON_TEST_KAFKA", "x"),
        ("CARILLON_INGRESS_SERVICE_HOST", "x"),
        ("PATH", "x"),
    ];
    let mut settings = Settings::load(&[section(SERVICE)], Some(&path), env(&vars)).expect("valid");
    settings.set("mail.wait", "1m");
    let read = settings.read(|r| {
        let mail = (r.string("mail.host"), r.integer("mail.port", 1..=9), r.list("mail.relays"), r.flag("mail.tls"));
        (mail, r.duration("mail.wait"), r.string("topics.prefix"))
    });
    let mail = ("environment".to_owned(), 1, vec!["a:1".to_owned(), "b:2".to_owned()], true);
    assert_eq!(read, Ok((mail, Duration::from_secs(60), "carillon.".to_owned())));
}

#[test]
fn all_problems_are_told_with_their_origin() {
    let (_dir, path) =
        file("drian = '1s'\nlog = 'debug'\n[mail]\nport = '25'\nrelays = [1]\n[topcis]\n[mail.host]\nx = 1\n");
    let vars = [
        ("CARILLON__MAIL__PROT", "26"),
        ("CARILLON__MAIL__PORT", "twenty"),
        ("CARILLON__KAFKA_BROKERS", "a:1"),
        ("CARILLON__MAIL__SMTP_PASSWORD", "se\u{fffd}cret"),
    ];
    let Problems(problems) = Settings::load(&[section(SERVICE)], Some(&path), env(&vars)).expect_err("problems");
    let from_file = format!("(from {})", path.display());
    let from = |name: &str| format!("(from the environment variable CARILLON__{name})");
    let mut expected = [
        format!("drian: is not a setting; the nearest is `drain` {from_file}"),
        format!("log: is a section, not a value {from_file}"),
        format!("mail.port: must be an integer, not a string {from_file}"),
        format!("mail.relays: must be a list of strings, not a list of something else {from_file}"),
        format!("topcis: is not a setting; the nearest is `topics` {from_file}"),
        format!("mail.host.x: is not a setting; the nearest is `mail.host` {from_file}"),
        format!("mail.prot: is not a setting; the nearest is `mail.port` {}", from("MAIL__PROT")),
        format!("mail.port: must be an integer {}", from("MAIL__PORT")),
        format!("kafka_brokers: is not a setting; the nearest is `kafka.brokers` {}", from("KAFKA_BROKERS")),
        format!("mail.smtp_password: is not UTF-8 {}", from("MAIL__SMTP_PASSWORD")),
    ];
    expected.sort();
    assert_eq!(problems, expected);
}

#[test]
fn a_fault_in_the_syntax_has_a_place() {
    let (_dir, path) = file("[mail]\nhost = 'a'\nport = = 1\n");
    let Problems(problems) = Settings::load(&[section(SERVICE)], Some(&path), []).expect_err("a problem");
    let [problem] = &problems[..] else { panic!("{problems:?}") };
    assert!(problem.starts_with(&format!("{}: line 3, column 8: ", path.display())), "{problem}");

    let nowhere = path.with_extension("missing");
    let Problems(problems) = Settings::load(&[section(SERVICE)], Some(&nowhere), []).expect_err("a problem");
    assert!(problems[0].contains("settings.missing: cannot be read"), "{problems:?}");
}

#[test]
fn shared_values_are_checked_together() {
    let vars = [
        ("CARILLON__LOG__FORMAT", "xml"),
        ("CARILLON__TOPICS__PARTITIONS", "0"),
        ("CARILLON__KAFKA__BROKERS", ""),
        ("CARILLON__REDIS__URL", "http://:hunter2@host"),
        ("CARILLON__STORE__CLAIM_WINDOW", "0s"),
        ("CARILLON__ADMIN__SILENCE", "1s"),
        ("CARILLON__TELEMETRY__OTLP_ENDPOINT", "collector:4317"),
        ("CARILLON__TELEMETRY__OTLP_SAMPLE", "1.5"),
    ];
    let Problems(problems) = Settings::load(&[], None, env(&vars)).expect_err("problems");
    let from = |name: &str| format!("(from the environment variable CARILLON__{name})");
    assert_eq!(
        problems,
        [
            format!("admin.silence: must be 5s to 1h {}", from("ADMIN__SILENCE")),
            format!("kafka.brokers: must name at least one host:port {}", from("KAFKA__BROKERS")),
            format!("log.format: must be auto, human or json {}", from("LOG__FORMAT")),
            format!("redis.url: must be a URL that begins with redis:// {}", from("REDIS__URL")),
            format!("store.claim_window: must be 1m to 365d {}", from("STORE__CLAIM_WINDOW")),
            format!(
                "telemetry.otlp_endpoint: must be a URL that begins with http:// {}",
                from("TELEMETRY__OTLP_ENDPOINT")
            ),
            format!("telemetry.otlp_sample: must be 0.0 to 1.0, not 1.5 {}", from("TELEMETRY__OTLP_SAMPLE")),
            format!("topics.partitions: must be 1 to 10000, not 0 {}", from("TOPICS__PARTITIONS")),
        ]
    );
}

#[test]
fn a_reader_notes_every_problem() {
    let vars = [
        ("CARILLON__MAIL__PORT", "99999"),
        ("CARILLON__MAIL__WAIT", "10 minutes"),
        ("CARILLON__MAIL__HOST", "nowhere"),
        ("CARILLON__DRAIN", "25h"),
    ];
    let settings = Settings::load(&[section(SERVICE)], None, env(&vars)).expect("of the right types");
    let Problems(problems) = settings
        .read(|r| {
            r.integer("mail.port", 1..=65_535);
            r.duration("mail.wait");
            r.socket_addr("mail.host");
            r.duration_within("drain", Duration::ZERO..=Duration::from_secs(86_400));
            r.string("mail.hots");
            assert_eq!(r.optional("mail.callback_url", socket_addr), None);
        })
        .expect_err("problems");
    let from = |name: &str| format!("(from the environment variable CARILLON__{name})");
    assert_eq!(
        problems,
        [
            format!("mail.port: must be 1 to 65535, not 99999 {}", from("MAIL__PORT")),
            format!("mail.wait: must be a time span like 250ms, 90s, 10m, 24h or 7d {}", from("MAIL__WAIT")),
            format!("mail.host: must be an IP address and a port, like 127.0.0.1:8080 {}", from("MAIL__HOST")),
            format!("drain: must be 0ms to 1d {}", from("DRAIN")),
            "mail.hots: no compiled-in default names this setting".to_owned(),
        ]
    );
}

#[test]
fn durations() {
    let mut settings = Settings::load(&[section(SERVICE)], None, []).expect("valid");
    for (text, expected) in [
        ("250ms", Some(250)),
        ("90s", Some(90_000)),
        ("10m", Some(600_000)),
        ("24h", Some(86_400_000)),
        ("7 d", Some(604_800_000)),
        ("0s", Some(0)),
        ("", None),
        ("10", None),
        ("s", None),
        ("-1s", None),
        ("1.5s", None),
        ("1S", None),
        ("99999999999999999999d", None),
        ("999999999999999999d", None),
    ] {
        settings.set("mail.wait", text);
        let read = settings.read(|r| r.duration("mail.wait")).ok();
        assert_eq!(read, expected.map(Duration::from_millis), "{text}");
    }
}

#[test]
fn secrets_are_not_shown() {
    let vars = [
        ("CARILLON__MAIL__SMTP_PASSWORD", "hunter2"),
        ("CARILLON__MAIL__CALLBACK_URL", "https://hunter2@example.com/x"),
        ("CARILLON__REDIS__URL", "redis://:p@ss/hunter2@redis:6379/1"),
        ("CARILLON__KAFKA__EXTRA", "sasl.username=me,sasl.password=hunter2"),
    ];
    let settings = Settings::load(&[section(SERVICE)], None, env(&vars)).expect("valid");
    let shown = settings.effective();
    assert!(!shown.contains("hunter2") && !format!("{settings:?}").contains("hunter2"), "{shown}");
    let shown: toml::Table = shown.parse().expect("it is TOML");
    assert_eq!(shown["mail"]["smtp_password"].as_str(), Some("(hidden)"));
    assert_eq!(shown["mail"]["callback_url"].as_str(), Some("https://(hidden)@example.com/x"));
    assert_eq!(shown["redis"]["url"].as_str(), Some("redis://(hidden)@redis:6379/1"));
    assert_eq!(shown["kafka"]["extra"][0].as_str(), Some("sasl.username=me"));
    assert_eq!(shown["kafka"]["extra"][1].as_str(), Some("sasl.password=(hidden)"));
    assert_eq!(shown["mail"]["port"].as_integer(), Some(25));
    assert_eq!(shown["drain"].as_str(), Some("20s"));
    assert_eq!(settings.read(|r| r.secret("mail.smtp_password").expose().to_owned()).as_deref(), Ok("hunter2"));
}

#[test]
fn defaults_must_not_overlap() {
    let Problems(problems) =
        Settings::load(&[section(SERVICE), section("[mail]\nport = 26")], None, []).expect_err("a problem");
    assert_eq!(problems, ["mail.port: has two defaults (from the compiled-in defaults)"]);
}
