//! Declarative configuration: what files say is compared with what is there, and put in place.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use domain::config::Kind;
use serde_json::{Map, Value, json};

use crate::{cli::Output, client::Client, output};

/// One entry of a file.
struct Wanted {
    kind: Kind,
    tenant: String,
    name: String,
    value: Value,
}

/// What became of an entry.
#[derive(Clone, Copy)]
enum Change {
    New,
    Changed,
    Unchanged,
}

impl Change {
    const fn as_str(self) -> &'static str {
        match self {
            Self::New => "new",
            Self::Changed => "changed",
            Self::Unchanged => "unchanged",
        }
    }
}

/// Reads all files before it changes anything.
pub(crate) async fn run(client: &Client, files: &[PathBuf], dry_run: bool, output: Output) -> anyhow::Result<()> {
    let mut wanted = Vec::new();
    for file in files {
        wanted.extend(read(file)?);
    }
    // what others depend on comes first
    wanted.sort_by_key(|w| w.kind);
    let mut rows = vec![vec!["ENTRY".to_owned(), String::new()]];
    let mut changes = Vec::new();
    for entry in &wanted {
        let change = apply(client, entry, dry_run).await.with_context(|| label(entry))?;
        rows.push(vec![label(entry), change.as_str().to_owned()]);
        changes.push(
            json!({"kind": entry.kind.as_str(), "tenant": entry.tenant, "name": entry.name, "change": change.as_str()}),
        );
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
    format!("{}/{} of {}", entry.kind, entry.name, entry.tenant)
}

async fn apply(client: &Client, entry: &Wanted, dry_run: bool) -> anyhow::Result<Change> {
    let path = format!("/v1/config/{}/{}?tenant={}", entry.kind, entry.name, entry.tenant);
    let change = match client.find(&path).await? {
        None => Change::New,
        Some(found) if same(&found, &entry.value) => Change::Unchanged,
        Some(_) => Change::Changed,
    };
    // an account's secret is never answered, so it cannot be compared: it is put again
    let put = !matches!(change, Change::Unchanged) || entry.kind == Kind::Accounts;
    if put && !dry_run {
        client.put(&path, &entry.value).await?;
    }
    Ok(change)
}

/// Whether what is there says what is wanted; what is left out means its default, what is hidden is not compared.
fn same(found: &Value, wanted: &Value) -> bool {
    let empty = |v: &Value| matches!(v, Value::Null | Value::Bool(false)) || *v == json!([]) || *v == json!("");
    match (found, wanted) {
        (Value::String(found), _) if found == "(hidden)" => true,
        (Value::Object(found), Value::Object(wanted)) => {
            let keys = found.keys().chain(wanted.keys());
            keys.into_iter().all(|k| same(found.get(k).unwrap_or(&Value::Null), wanted.get(k).unwrap_or(&Value::Null)))
        }
        _ => found == wanted || (empty(found) && empty(wanted)),
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
    let mut take = |name: &str| match entry.remove(name) {
        Some(Value::String(text)) => Ok(text),
        _ => Err(anyhow::anyhow!("`{name}` is missing or no text")),
    };
    let name = take("name")?;
    let tenant = if kind == Kind::Tenants { name.clone() } else { take("tenant")? };
    if let (Kind::Keys, Ok(key)) = (kind, take("key")) {
        // the key itself does not leave this machine
        entry.insert("sha256".to_owned(), Value::from(ingress::auth::fingerprint(&key)));
    }
    Ok(Wanted { kind, tenant, name, value: Value::Object(entry) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_out_means_its_default() {
        assert!(same(&json!({"scopes": ["operator"], "revoked": false}), &json!({"scopes": ["operator"]})));
        assert!(same(
            &json!({"channel": "webhook", "secret": "(hidden)"}),
            &json!({"channel": "webhook", "secret": "x"})
        ));
        assert!(!same(&json!({"opt_in": true}), &json!({})));
        assert!(!same(&json!({"channels": ["webhook"]}), &json!({"channels": ["chat"]})));
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
}
