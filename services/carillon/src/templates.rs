//! `carillon templates`: what is said, its versions, and how it will read.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use clap::{Args, Subcommand};
use serde_json::{Map, Value, json};

use crate::{
    cli::{Output, Server},
    client::{Client, items, segment, with_query},
    output::{table, text},
};

/// What a template consists of; anything else in an answer is about it.
const PARTS: [&str; 4] = ["description", "default_locale", "variables", "contents"];

#[derive(Debug, Subcommand)]
pub(crate) enum Templates {
    /// Lists the templates: which version is out, and whether a draft waits to be published.
    #[command(after_help = "Example: carillon templates list")]
    List {
        #[command(flatten)]
        whose: Whose,
    },
    /// Shows a template: texts, variables, versions.
    #[command(after_help = "Example: carillon templates show order-shipped")]
    Show {
        /// Which template.
        #[arg(id = "template", value_name = "KEY")]
        key: String,
        #[command(flatten)]
        whose: Whose,
    },
    /// Writes a draft from a file; notifications get it once it is published.
    ///
    /// The file (TOML or JSON) has `default_locale`, `variables` and `contents` by language.
    #[command(after_help = "Example: carillon templates put order-shipped --file shipped.toml --publish")]
    Put {
        /// Which template.
        #[arg(id = "template", value_name = "KEY")]
        key: String,
        /// TOML, or JSON if its name ends so.
        #[arg(long, short = 'f', value_name = "FILE")]
        file: PathBuf,
        /// Publishes it at once.
        #[arg(long)]
        publish: bool,
        #[command(flatten)]
        whose: Whose,
    },
    /// Makes a version of the draft, which notifications get from then on.
    #[command(after_help = "Example: carillon templates publish order-shipped")]
    Publish {
        /// Which template.
        #[arg(id = "template", value_name = "KEY")]
        key: String,
        #[command(flatten)]
        whose: Whose,
    },
    /// Shows how a template reads with some data; nothing is sent.
    #[command(
        after_help = "Example: carillon templates preview order-shipped --channel email --data order=17 --locale de"
    )]
    Preview(Preview),
    /// Removes a template; notifications that were accepted with it are still sent.
    #[command(after_help = "Example: carillon templates remove order-shipped")]
    Remove {
        /// Which template.
        #[arg(id = "template", value_name = "KEY")]
        key: String,
        #[command(flatten)]
        whose: Whose,
    },
}

#[derive(Debug, Args)]
pub(crate) struct Preview {
    /// Which template.
    #[arg(id = "template", value_name = "KEY")]
    key: String,
    /// For which channel, for instance `email`.
    #[arg(long)]
    channel: String,
    /// NAME=VALUE, or a JSON object; may be given several times.
    #[arg(long, value_name = "DATA")]
    data: Vec<String>,
    /// The reader's language; left out, the template's own.
    #[arg(long)]
    locale: Option<String>,
    /// A published version; left out, the draft, or else what is published.
    #[arg(long, value_name = "NUMBER")]
    version: Option<u32>,
    #[command(flatten)]
    whose: Whose,
}

/// Whose templates.
#[derive(Debug, Clone, Args)]
pub(crate) struct Whose {
    /// With the installation's operator key: of which tenant. A tenant's key has its own.
    #[arg(long)]
    tenant: Option<String>,
    #[command(flatten)]
    server: Server,
}

impl Whose {
    fn client(&self) -> anyhow::Result<Client> {
        Client::new(&self.server)
    }

    fn of(&self, path: &str) -> String {
        with_query(path, [("tenant", self.tenant.clone())])
    }
}

pub(crate) async fn run(command: Templates, output: Output) -> anyhow::Result<()> {
    match command {
        Templates::List { whose } => {
            let given = [("limit", Some("1000".to_owned())), ("tenant", whose.tenant.clone())];
            let page = whose.client()?.get(&with_query("/v1/templates", given)).await?;
            say(output, &page, || listed(&page));
        }
        Templates::Show { key, whose } => {
            let template = whose.client()?.get(&whose.of(&path(&key))).await?;
            // a template is text in a structure: JSON shows both, and can be put again
            say(output, &template, || format!("{template:#}\n"));
        }
        Templates::Put { key, file, publish: at_once, whose } => {
            let draft = Value::Object(read(&file)?);
            let written = whose.client()?.put(&whose.of(&path(&key)), &draft).await?;
            if at_once {
                return publish(&key, &whose, output).await;
            }
            say(output, &written, || {
                let next =
                    format!("carillon templates preview {key} --channel email\n  carillon templates publish {key}");
                format!("the draft of {key} is written\n  {next}\n")
            });
        }
        Templates::Publish { key, whose } => publish(&key, &whose, output).await?,
        Templates::Preview(options) => preview(options, output).await?,
        Templates::Remove { key, whose } => {
            if !whose.client()?.delete(&whose.of(&path(&key))).await? {
                bail!("there is no template {key}");
            }
            say(output, &json!({"removed": key}), || format!("removed {key}\n"));
        }
    }
    Ok(())
}

fn say(output: Output, answer: &Value, words: impl FnOnce() -> String) {
    match output {
        Output::Json => println!("{answer}"),
        Output::Text => print!("{}", words()),
    }
}

/// Where a template is.
pub(crate) fn path(key: &str) -> String {
    format!("/v1/templates/{}", segment(key))
}

async fn publish(key: &str, whose: &Whose, output: Output) -> anyhow::Result<()> {
    let path = whose.of(&format!("{}/publish", path(key)));
    let version = whose.client()?.post(&path, &json!({})).await?;
    say(output, &version, || format!("published {key}@{}\n", version["version"]));
    Ok(())
}

async fn preview(options: Preview, output: Output) -> anyhow::Result<()> {
    let Preview { key, channel, data: given, locale, version, whose } = options;
    let mut body = json!({"channel": channel, "data": data(&given)?});
    if let Some(locale) = locale {
        body["locale"] = locale.into();
    }
    if let Some(version) = version {
        body["version"] = version.into();
    }
    let path = whose.of(&format!("{}/preview", path(&key)));
    let rendered = whose.client()?.post(&path, &body).await?;
    say(output, &rendered, || format!("{rendered:#}\n"));
    Ok(())
}

/// A template in a file.
fn read(file: &Path) -> anyhow::Result<Map<String, Value>> {
    let text = std::fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?;
    let template: anyhow::Result<_> = if file.extension().is_some_and(|e| e == "json") {
        serde_json::from_str(&text).map_err(Into::into)
    } else {
        toml::from_str(&text).map_err(Into::into)
    };
    template.with_context(|| file.display().to_string())
}

/// The values of a template's variables from the command line: `NAME=VALUE`, or JSON objects. A value that is written as
/// JSON writes it (17, true, null, "…", […], {…}) is that; everything else is a text.
pub(crate) fn data(given: &[String]) -> anyhow::Result<Map<String, Value>> {
    let mut data = Map::new();
    for part in given {
        if part.trim_start().starts_with('{') {
            let object: Map<String, Value> = serde_json::from_str(part).context("--data is no JSON object")?;
            data.extend(object);
        } else {
            let (name, value) = part.split_once('=').context("--data is NAME=VALUE or a JSON object")?;
            // 1e3 or 007 is what somebody typed, no number of ours
            let as_typed = |v: &Value| {
                let written = v.to_string();
                !v.is_number() || written == value
            };
            let parsed = serde_json::from_str(value).ok().filter(as_typed);
            data.insert(name.to_owned(), parsed.unwrap_or_else(|| value.into()));
        }
    }
    Ok(data)
}

/// What is there of a template: what was put last, whether that is out or not.
pub(crate) fn latest(found: &Value) -> Map<String, Value> {
    let of = [&found["draft"], &found["template"]].into_iter().find(|t| t.is_object()).unwrap_or(found);
    let parts = of.as_object().into_iter().flatten().filter(|(name, _)| PARTS.contains(&name.as_str()));
    parts.map(|(name, value)| (name.clone(), value.clone())).collect()
}

/// Whether something waits to be published.
pub(crate) fn is_draft(found: &Value) -> bool {
    found["draft"].is_object() || found["has_draft"] == true || found["published"].is_null()
}

fn listed(page: &Value) -> String {
    if items(page).is_empty() {
        return "no templates yet: carillon templates put KEY --file FILE --publish\n".to_owned();
    }
    let mut rows = vec![["TEMPLATE", "VERSION", "DRAFT", "CHANGED", "BY"].map(str::to_owned).to_vec()];
    for template in items(page) {
        let version = template["published"].as_u64().map_or_else(|| "-".to_owned(), |v| v.to_string());
        let draft = if is_draft(template) { "waits" } else { "-" };
        let cell = |name: &str| text(&template[name]).to_owned();
        rows.push(vec![cell("key"), version, draft.to_owned(), cell("updated_at"), cell("updated_by")]);
    }
    table(&rows)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn data_is_what_was_meant() {
        let given = [
            "order=17",
            "name=Ana",
            "vip=true",
            "code=007",
            "big=1e3",
            "items=[1]",
            "eq=a=b",
            "empty=",
            r#"{"x": {"y": null}}"#,
        ];
        let parsed = data(&given.map(str::to_owned)).unwrap();
        let expected = json!({"order": 17, "name": "Ana", "vip": true, "code": "007", "big": "1e3", "items": [1], "eq": "a=b", "empty": "",
            "x": {"y": null}});
        assert_eq!(Value::Object(parsed), expected);
        assert!(data(&["order".to_owned()]).unwrap_err().to_string().contains("NAME=VALUE"));
        assert!(data(&["{".to_owned()]).unwrap_err().to_string().contains("JSON object"));
    }

    #[test]
    fn what_was_put_last_is_compared() {
        let template = json!({"default_locale": "en", "contents": {"en": {"default": {"body": "x"}}}});
        let published = json!({"key": "k", "published": 3, "draft": null, "updated_at": "t", "template": template});
        assert_eq!((Value::Object(latest(&published)), is_draft(&published)), (template.clone(), false));
        let draft = json!({"published": 3, "template": {}, "draft": template});
        assert_eq!((Value::Object(latest(&draft)), is_draft(&draft)), (template, true));
        assert!(is_draft(&json!({"published": null})));
        let page =
            json!({"items": [{"key": "k", "published": 3, "has_draft": true, "updated_at": "t", "updated_by": "me"}]});
        assert_eq!(listed(&page), "TEMPLATE  VERSION  DRAFT  CHANGED  BY\nk         3        waits  t        me\n");
    }
}
