//! Declarative configuration: what files say is compared with what is there, and put in place.

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, bail};
use domain::config::Kind;
use serde_json::{Map, Value, json};

use crate::{
    cli::Output,
    client::{Client, segment, with_query},
    output, templates,
};

/// One entry of a file.
struct Wanted {
    kind: Kind,
    tenant: String,
    name: String,
    value: Value,
}

/// What became of an entry.
enum Change {
    New,
    /// Where, as JSON pointers.
    Changed(Vec<String>),
    /// What can be seen is the same, and the rest is hidden: it is put again.
    Hidden,
    Unchanged,
}

impl Change {
    const fn as_str(&self) -> &'static str {
        match self {
            Self::New => "new",
            Self::Changed(_) => "changed",
            Self::Hidden => "put again",
            Self::Unchanged => "unchanged",
        }
    }

    fn pointers(&self) -> &[String] {
        match self {
            Self::Changed(pointers) => pointers,
            Self::New | Self::Hidden | Self::Unchanged => &[],
        }
    }

    /// Against what is there, if anything is.
    fn between(found: Option<&Value>, wanted: &Value) -> Self {
        match found.map(|found| differences(found, wanted)) {
            None => Self::New,
            Some(none) if none.is_empty() => Self::Unchanged,
            Some(pointers) => Self::Changed(pointers),
        }
    }
}

/// Reads all files before it changes anything. What an entry is refused for stops it; those before are in place, and are shown.
pub(crate) async fn run(client: &Client, files: &[PathBuf], dry_run: bool, output: Output) -> anyhow::Result<()> {
    let mut wanted = Vec::new();
    for file in files {
        wanted.extend(read(file)?);
    }
    // what others depend on comes first
    wanted.sort_by_key(|w| w.kind);
    let mut rows = vec![["ENTRY", "", "DIFFERS IN"].map(str::to_owned).to_vec()];
    let mut changes = Vec::new();
    for entry in &wanted {
        let change = match apply(client, entry, dry_run).await {
            Ok(change) => change,
            Err(error) => {
                if rows.len() > 1 && !dry_run {
                    eprintln!(
                        "{}(these are in place; once the next one is mended, apply the file again)",
                        output::table(&rows)
                    );
                }
                return Err(error.context(label(entry)));
            }
        };
        let pointers = change.pointers();
        rows.push(vec![label(entry), change.as_str().to_owned(), pointers.join(" ")]);
        changes.push(json!({
            "kind": entry.kind.as_str(), "tenant": entry.tenant, "name": entry.name,
            "change": change.as_str(), "differs": pointers,
        }));
    }
    match output {
        Output::Json => println!("{}", json!({"dry_run": dry_run, "entries": changes})),
        Output::Text => {
            print!("{}", output::table(&rows));
            if dry_run {
                println!("(dry run: nothing was changed)");
            }
        }
    }
    Ok(())
}

fn label(entry: &Wanted) -> String {
    let whose = if entry.tenant.is_empty() { String::new() } else { format!(" of {}", entry.tenant) };
    format!("{}/{}{whose}", entry.kind, entry.name)
}

async fn apply(client: &Client, entry: &Wanted, dry_run: bool) -> anyhow::Result<Change> {
    if entry.kind == Kind::Templates {
        return apply_template(client, entry, dry_run).await;
    }
    let path = format!("/v1/config/{}/{}", entry.kind, segment(&entry.name));
    let path = with_query(&path, [("tenant", Some(entry.tenant.clone()).filter(|t| !t.is_empty()))]);
    let change = match Change::between(client.find(&path).await?.as_ref(), &entry.value) {
        // what an account holds is never answered, so it cannot be compared
        Change::Unchanged if entry.kind == Kind::Accounts => Change::Hidden,
        change => change,
    };
    if !dry_run && !matches!(change, Change::Unchanged) {
        client.put(&path, &entry.value).await?;
    }
    Ok(change)
}

/// What changed is put and published. A draft that says the same and waits, from an `apply` that broke off, is published too.
async fn apply_template(client: &Client, entry: &Wanted, dry_run: bool) -> anyhow::Result<Change> {
    let whose = || [("tenant", Some(entry.tenant.clone()).filter(|t| !t.is_empty()))];
    let path = templates::path(&entry.name);
    let found = client.find(&with_query(&path, whose())).await?;
    let latest = found.as_ref().map(|found| Value::Object(templates::latest(found)));
    let change = match Change::between(latest.as_ref(), &entry.value) {
        Change::Unchanged if found.as_ref().is_some_and(templates::is_draft) => {
            Change::Changed(vec!["(not published)".to_owned()])
        }
        change => change,
    };
    if !dry_run && !matches!(change, Change::Unchanged) {
        client.put(&with_query(&path, whose()), &entry.value).await?;
        client.post(&with_query(&format!("{path}/publish"), whose()), &json!({})).await?;
    }
    Ok(change)
}

/// Where what is there does not say what is wanted, as JSON pointers; what is left out means its default, what is hidden is
/// not compared.
fn differences(found: &Value, wanted: &Value) -> Vec<String> {
    let mut pointers = Vec::new();
    compare(found, wanted, String::new(), &mut pointers);
    pointers
}

fn compare(found: &Value, wanted: &Value, at: String, pointers: &mut Vec<String>) {
    let empty = |v: &Value| {
        matches!(v, Value::Null | Value::Bool(false)) || *v == json!([]) || *v == json!("") || *v == json!({})
    };
    match (found, wanted) {
        (Value::String(found), _) if found == "(hidden)" => {}
        // a variable without a default is another one than one whose default is null or false
        _ if at.starts_with("/variables/") && found != wanted => pointers.push(at),
        (Value::Object(found), Value::Object(wanted)) => {
            let keys: BTreeSet<_> = found.keys().chain(wanted.keys()).collect();
            for key in keys {
                let of = |map: &Map<String, Value>| map.get(key).cloned().unwrap_or_default();
                compare(&of(found), &of(wanted), format!("{at}/{key}"), pointers);
            }
        }
        _ if found == wanted || (empty(found) && empty(wanted)) => {}
        _ => pointers.push(if at.is_empty() { "/".to_owned() } else { at }),
    }
}

fn read(file: &Path) -> anyhow::Result<Vec<Wanted>> {
    let text = std::fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?;
    let json = file.extension().is_some_and(|e| e == "json");
    let root: Map<String, Value> = if json {
        serde_json::from_str(&text)?
    } else {
        toml::from_str(&text).with_context(|| file.display().to_string())?
    };
    let mut wanted = Vec::new();
    for (kind, entries) in root {
        let kind = Kind::parse(&kind).map_err(|e| anyhow::anyhow!("{}: [[{kind}]]: {e}", file.display()))?;
        let Value::Array(entries) = entries else { bail!("{}: write [[{kind}]] for each entry", file.display()) };
        for (i, entry) in entries.into_iter().enumerate() {
            wanted
                .push(parse(kind, entry).with_context(|| format!("{}: [[{kind}]] number {}", file.display(), i + 1))?);
        }
    }
    Ok(wanted)
}

fn parse(kind: Kind, entry: Value) -> anyhow::Result<Wanted> {
    let Value::Object(mut entry) = entry else { bail!("not a table") };
    if kind == Kind::Templates {
        let name = take(&mut entry, "key")?;
        // without one it is the key's own
        let tenant = if entry.contains_key("tenant") { take(&mut entry, "tenant")? } else { String::new() };
        return Ok(Wanted { kind, tenant, name, value: Value::Object(entry) });
    }
    let name = take(&mut entry, "name")?;
    let tenant = if kind == Kind::Tenants { name.clone() } else { take(&mut entry, "tenant")? };
    if let (Kind::Keys, Ok(key)) = (kind, take(&mut entry, "key")) {
        // the key itself does not leave this machine
        entry.insert("sha256".to_owned(), Value::from(ingress::auth::fingerprint(&key)));
    }
    Ok(Wanted { kind, tenant, name, value: Value::Object(entry) })
}

fn take(entry: &mut Map<String, Value>, name: &str) -> anyhow::Result<String> {
    match entry.remove(name) {
        Some(Value::String(text)) => Ok(text),
        _ => Err(anyhow::anyhow!("`{name}` is missing or no text")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_out_means_its_default() {
        let same = |found: &Value, wanted: &Value| differences(found, wanted).is_empty();
        assert!(same(&json!({"scopes": ["operator"], "revoked": false}), &json!({"scopes": ["operator"]})));
        assert!(same(
            &json!({"channel": "webhook", "secret": "(hidden)"}),
            &json!({"channel": "webhook", "secret": "x"})
        ));
        assert!(!same(&json!({"opt_in": true}), &json!({})));
        let found = json!({"contents": {"de": {"default": {"title": "A", "body": "B"}}}, "variables": {}});
        let wanted =
            json!({"contents": {"de": {"default": {"title": "X", "body": "B"}}, "en": {"default": {"body": "C"}}}});
        assert_eq!(differences(&found, &wanted), ["/contents/de/default/title", "/contents/en"]);
        let variable = |v: Value| json!({"variables": {"vip": v}});
        assert_eq!(differences(&variable(json!({"default": false})), &variable(json!({}))), ["/variables/vip"]);
        assert_eq!(differences(&json!({"channels": ["webhook"]}), &json!({"channels": ["chat"]})), ["/channels"]);
    }

    #[test]
    fn an_entry_needs_its_names_and_hides_its_key() {
        let key =
            parse(Kind::Keys, json!({"name": "shop", "tenant": "acme", "key": "a-key-of-twenty-chars", "scopes": []}))
                .unwrap();
        assert!(key.value.get("key").is_none());
        assert_eq!(key.value["sha256"].as_str().map(str::len), Some(64));
        let error = parse(Kind::Keys, json!({"name": "shop"})).map(|_| ()).unwrap_err();
        assert_eq!(error.to_string(), "`tenant` is missing or no text");
    }

    #[test]
    fn a_file_says_what_is_wanted_of_every_kind() {
        let dir = std::env::temp_dir().join(format!("carillon-apply-{}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        let file = dir.join("all.toml");
        let text = r#"
            [[accounts]]
            name = "email"
            tenant = "acme"
            channel = "email"
            host = "127.0.0.1"
            from = "Acme <shop@example.com>"

            [[sources]]
            name = "shop"
            tenant = "acme"
            source = "https://shop.example/orders"

            [[templates]]
            key = "shipped"
            default_locale = "en"
            variables.order = {}
            contents.en.default = { title = "Order {{ order }}", body = "On its way." }
        "#;
        std::fs::write(&file, text).unwrap();
        let wanted = read(&file).unwrap();
        let labels: Vec<_> = wanted.iter().map(label).collect();
        assert_eq!(labels, ["accounts/email of acme", "sources/shop of acme", "templates/shipped"]);
        let template = json!({"default_locale": "en", "variables": {"order": {}},
            "contents": {"en": {"default": {"title": "Order {{ order }}", "body": "On its way."}}}});
        assert_eq!(wanted[2].value, template);
        let with_defaults = json!({"published": 1, "template": {"description": "", "default_locale": "en", "variables": {"order": {}},
            "contents": template["contents"]}});
        assert_eq!(differences(&Value::Object(templates::latest(&with_defaults)), &template), [""; 0]);
        std::fs::remove_dir_all(&dir).unwrap();
    }
}
