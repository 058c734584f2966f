//! From the command line to the thing done.

use std::{io::Read as _, path::Path, process::ExitCode};

use anyhow::Context as _;
use clap::CommandFactory as _;
use serde_json::{Value, json};
use service_kit::{Kit, Section, Settings};

use crate::{
    apply,
    cli::{Cli, Command, Output, Send, Server},
    client::{Client, segment, with_query},
    conservation, dead, demo, doctor, output, people,
    run::{self, Service},
    search, standalone, templates,
};

/// Every crate's settings: together they are all that there are.
const SECTIONS: [Section; 6] = [
    ingress::SETTINGS,
    router::SETTINGS,
    gateway::SETTINGS,
    indexer::SETTINGS,
    kafka_listener::SETTINGS,
    sandbox::SETTINGS,
];

pub(crate) async fn dispatch(cli: Cli) -> anyhow::Result<ExitCode> {
    let Cli { config, output, command } = cli;
    let settings = || Settings::from_process(&SECTIONS, config.as_deref());
    match command {
        Command::Standalone(options) => return standalone::run(settings()?, options).await,
        Command::Ingress => return run::run(settings()?, Service::Ingress).await,
        Command::Router => return run::run(settings()?, Service::Router).await,
        Command::Gateway { channel } => return run::run(settings()?, Service::Gateway(run::channels(&channel)?)).await,
        Command::Indexer => return run::run(settings()?, Service::Indexer).await,
        Command::Sandbox => return standalone::sandbox_alone(settings()?).await,
        Command::Topics => topics(&settings()?, output).await?,
        Command::Schema => schema(&settings()?, output).await?,
        Command::Settings => print!("{}", settings()?.effective()),
        Command::Send(options) => send(options, output).await?,
        Command::Trace { id, wait, server } => trace(&Client::new(&server)?, &id, wait, output).await?,
        Command::Search(options) => search::run(options, output).await?,
        Command::Why { who, category, since, limit, server } => {
            search::why(&Client::new(&server)?, &who, category, since, limit, output).await?;
        }
        Command::Dead(command) => return dead::run(command, output).await,
        Command::Conservation(options) => return conservation::run(options, output).await,
        Command::Doctor(options) => return doctor::run(settings(), options, output).await,
        Command::Users(command) => people::users(command, output).await?,
        Command::Devices(options) => people::devices(options, output).await?,
        Command::Templates(command) => templates::run(command, output).await?,
        Command::Completions { shell } => {
            clap_complete::generate(shell, &mut Cli::command(), "carillon", &mut std::io::stdout());
        }
        Command::Apply { files, dry_run, server } => {
            apply::run(&Client::new(&server)?, &files, dry_run, output).await?
        }
        Command::Get { kind, name, tenant, server } => {
            get(&server, &kind, name.as_deref(), tenant.as_deref(), output).await?
        }
        Command::Demo(options) => return demo::play(&options).await,
    }
    Ok(ExitCode::SUCCESS)
}

async fn topics(settings: &Settings, output: Output) -> anyhow::Result<()> {
    let reports = Kit::ensure_topics(settings).await?;
    if output == Output::Json {
        let rows: Vec<_> = reports
            .iter()
            .map(|r| json!({"name": r.name, "created": r.created, "partitions": r.partitions, "wanted": r.wanted}))
            .collect();
        println!("{}", Value::from(rows));
        return Ok(());
    }
    let mut rows = vec![vec!["TOPIC".to_owned(), "PARTITIONS".to_owned(), String::new()]];
    for r in reports {
        let said = match (r.created, r.partitions == r.wanted) {
            (true, _) => "created".to_owned(),
            (false, true) => "was there".to_owned(),
            (false, false) => format!("was there; settings say {}", r.wanted),
        };
        rows.push(vec![r.name, r.partitions.to_string(), said]);
    }
    print!("{}", output::table(&rows));
    Ok(())
}

async fn schema(settings: &Settings, output: Output) -> anyhow::Result<()> {
    let steps = Kit::migrate(settings).await?;
    if output == Output::Json {
        println!("{}", json!({"applied": steps}));
    } else if steps.is_empty() {
        println!("the schemas are up to date");
    } else {
        steps.iter().for_each(|step| println!("applied {step}"));
    }
    Ok(())
}

async fn send(options: Send, output: Output) -> anyhow::Result<()> {
    let client = Client::new(&options.server)?;
    let request = match &options.file {
        Some(file) => read_json(file)?,
        None => request(&options)?,
    };
    let accepted = client.post("/v1/notifications", &request).await?;
    let id = accepted["id"].as_str().context("the answer has no id")?;
    if options.wait {
        return trace(&client, id, true, output).await;
    }
    match output {
        Output::Json => println!("{accepted}"),
        Output::Text => println!("accepted {id}\n  carillon trace {id}"),
    }
    Ok(())
}

fn request(options: &Send) -> anyhow::Result<Value> {
    let to: Vec<_> = options
        .to
        .iter()
        .map(|to| match to.split_once(':') {
            Some((channel, address)) if domain::channel::is_name(channel) => {
                json!({"channel": channel, "address": address})
            }
            _ => json!({"user": to}),
        })
        .collect();
    let mut request = match &options.template {
        Some(template) => json!({"to": to, "template": template, "data": templates::data(&options.data)?}),
        None => json!({"to": to, "content": {"default": {"title": options.title, "body": options.body}}}),
    };
    let mut set = |name: &str, value: Option<Value>| {
        if let (Some(map), Some(value)) = (request.as_object_mut(), value) {
            map.insert(name.to_owned(), value);
        }
    };
    set("locale", options.locale.clone().map(Value::from));
    set("category", options.category.clone().map(Value::from));
    set("channels", Some(Value::from(options.channel.clone())).filter(|_| !options.channel.is_empty()));
    set("priority", options.priority.map(Value::from));
    set("expires_at", options.expires_at.clone().map(Value::from));
    Ok(request)
}

fn read_json(file: &Path) -> anyhow::Result<Value> {
    let mut text = String::new();
    if file == Path::new("-") {
        std::io::stdin().read_to_string(&mut text).context("cannot read standard input")?;
    } else {
        text = std::fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?;
    }
    serde_json::from_str(&text).with_context(|| format!("{} is not JSON", file.display()))
}

async fn trace(client: &Client, id: &str, wait: bool, output: Output) -> anyhow::Result<()> {
    let notification = client.notification(id, wait).await?;
    match output {
        Output::Json => println!("{notification}"),
        Output::Text => print!("{}", output::trace(&notification)),
    }
    Ok(())
}

async fn get(
    server: &Server,
    kind: &str,
    name: Option<&str>,
    tenant: Option<&str>,
    output: Output,
) -> anyhow::Result<()> {
    let name = name.map(|n| format!("/{}", segment(n))).unwrap_or_default();
    let path = with_query(&format!("/v1/config/{}{name}", segment(kind)), [("tenant", tenant.map(str::to_owned))]);
    let entry = Client::new(server)?.get(&path).await?;
    if output == Output::Json {
        println!("{entry}");
        return Ok(());
    }
    println!("{entry:#}");
    Ok(())
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;

    fn requested(words: &[&str]) -> anyhow::Result<Value> {
        let cli = Cli::try_parse_from(["carillon", "send"].iter().chain(words))?;
        let Command::Send(options) = cli.command else { panic!("send") };
        request(&options)
    }

    #[test]
    fn what_is_sent_has_a_text_or_a_template() {
        assert_eq!(
            requested(&["--to", "ana", "--to", "webhook:https://example.com/x", "--title", "T", "--body", "B"])
                .unwrap(),
            json!({"to": [{"user": "ana"}, {"channel": "webhook", "address": "https://example.com/x"}],
                "content": {"default": {"title": "T", "body": "B"}}})
        );
        assert_eq!(
            requested(&["--to", "ana", "--template", "shipped", "--data", "order=17", "--locale", "de"]).unwrap(),
            json!({"to": [{"user": "ana"}], "template": "shipped", "data": {"order": 17}, "locale": "de"})
        );
        assert!(requested(&["--to", "ana", "--template", "t", "--body", "B"]).is_err(), "one of them");
        assert!(requested(&["--to", "ana", "--data", "a=b"]).is_err(), "data is the template's");
    }
}
