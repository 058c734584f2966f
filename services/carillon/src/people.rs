//! `carillon users` and `carillon devices`: where people can be reached.

use anyhow::{Context as _, bail};
use clap::{Args, Subcommand};
use serde_json::{Value, json};

use crate::{
    cli::{Output, Server},
    client::{Client, items, segment},
    output::{fields, table, text},
};

#[derive(Debug, Subcommand)]
pub(crate) enum Users {
    /// Shows a person: language, addresses (masked), devices and preferences.
    #[command(after_help = "Example: carillon users show ana")]
    Show {
        /// The id that your own systems use.
        user: String,
        #[command(flatten)]
        server: Server,
    },
    /// Writes a person: what is not given here is gone afterwards; preferences and devices stay as they are.
    #[command(after_help = "Example: carillon users put ana --locale de-CH --contact email:ana@example.com")]
    Put(Put),
    /// Removes a person with addresses, devices and preferences.
    #[command(after_help = "Example: carillon users remove ana")]
    Remove {
        /// The id that your own systems use.
        user: String,
        #[command(flatten)]
        server: Server,
    },
}

#[derive(Debug, Args)]
pub(crate) struct Put {
    /// The id that your own systems use.
    user: String,
    /// The person's language, for instance `de-CH`.
    #[arg(long)]
    locale: Option<String>,
    /// IANA, for instance `Europe/Zurich`.
    #[arg(long)]
    time_zone: Option<String>,
    /// CHANNEL:ADDRESS; may be given several times.
    #[arg(long, value_name = "CHANNEL:ADDRESS")]
    contact: Vec<String>,
    #[command(flatten)]
    server: Server,
}

/// Shows a person's devices, or removes one.
#[derive(Debug, Args)]
pub(crate) struct Devices {
    /// The id that your own systems use.
    user: String,
    /// Removes this device instead.
    #[arg(long, value_name = "ID")]
    remove: Option<String>,
    #[command(flatten)]
    server: Server,
}

pub(crate) async fn users(command: Users, output: Output) -> anyhow::Result<()> {
    match command {
        Users::Show { user, server } => show(&Client::new(&server)?, &user, output).await,
        Users::Put(put) => {
            let written = Client::new(&put.server)?.put(&path(&put.user), &body(&put)?).await?;
            match output {
                Output::Json => println!("{written}"),
                Output::Text => println!("written; `carillon users show {}`", put.user),
            }
            Ok(())
        }
        Users::Remove { user, server } => {
            if !Client::new(&server)?.delete(&path(&user)).await? {
                bail!("there is no user {user}");
            }
            said(output, "removed", &user);
            Ok(())
        }
    }
}

pub(crate) async fn devices(options: Devices, output: Output) -> anyhow::Result<()> {
    let client = Client::new(&options.server)?;
    let all = format!("{}/devices", path(&options.user));
    if let Some(id) = options.remove {
        if !client.delete(&format!("{all}/{}", segment(&id))).await? {
            bail!("{} has no device {id}", options.user);
        }
        said(output, "removed", &id);
        return Ok(());
    }
    let page = client.get(&all).await?;
    match output {
        Output::Json => println!("{page}"),
        Output::Text if items(&page).is_empty() => println!("{} has no device", options.user),
        Output::Text => print!("{}", device_table(&page)),
    }
    Ok(())
}

fn path(user: &str) -> String {
    format!("/v1/users/{}", segment(user))
}

fn said(output: Output, what: &str, id: &str) {
    match output {
        Output::Json => println!("{}", json!({what: id})),
        Output::Text => println!("{what} {id}"),
    }
}

fn body(put: &Put) -> anyhow::Result<Value> {
    let mut contacts = serde_json::Map::new();
    for contact in &put.contact {
        let (channel, address) =
            contact.split_once(':').context("--contact is CHANNEL:ADDRESS, like email:ana@example.com")?;
        if let Value::Array(addresses) = contacts.entry(channel).or_insert_with(|| json!([])) {
            addresses.push(address.into());
        }
    }
    let mut body = json!({"contacts": contacts});
    for (name, value) in [("locale", &put.locale), ("time_zone", &put.time_zone)] {
        if let Some(value) = value {
            body[name] = value.clone().into();
        }
    }
    Ok(body)
}

async fn show(client: &Client, user: &str, output: Output) -> anyhow::Result<()> {
    let found = client.find(&path(user)).await?.with_context(|| format!("there is no user {user}"))?;
    let preferences = client.get(&format!("{}/preferences", path(user))).await?;
    let devices = client.get(&format!("{}/devices", path(user))).await?;
    if output == Output::Json {
        println!("{}", json!({"user": found, "preferences": preferences, "devices": devices["items"]}));
        return Ok(());
    }
    let mut rows: Vec<_> =
        [("user", "id"), ("locale", "locale"), ("time zone", "time_zone"), ("changed", "updated_at")]
            .map(|(label, name)| (label, found[name].as_str().unwrap_or("-").to_owned()))
            .into();
    for (channel, addresses) in found["contacts"].as_object().into_iter().flatten() {
        let addresses: Vec<_> = addresses.as_array().into_iter().flatten().map(text).collect();
        rows.push(("contact", format!("{channel}: {}", addresses.join(", "))));
    }
    rows.push(("preferences", preferences.to_string()));
    print!("{}", fields(rows.into_iter()));
    if !items(&devices).is_empty() {
        print!("{}", device_table(&devices));
    }
    println!("  carillon why {user}");
    Ok(())
}

fn device_table(page: &Value) -> String {
    let mut rows = vec![["DEVICE", "PLATFORM", "APP", "TOKEN", "LAST ACTIVE"].map(str::to_owned).to_vec()];
    for device in items(page) {
        let cell = |name: &str| device[name].as_str().unwrap_or("-").to_owned();
        rows.push(["id", "platform", "app", "token", "last_active_at"].map(cell).to_vec());
    }
    table(&rows)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn contacts_are_grouped_by_channel() {
        let put = |contact: &[&str]| Put {
            user: "ana".into(),
            locale: Some("de".into()),
            time_zone: None,
            contact: contact.iter().map(|c| (*c).to_owned()).collect(),
            server: Server { url: String::new(), key: String::new() },
        };
        let body_of =
            body(&put(&["email:a@example.com", "webhook:https://example.com/x", "email:b@example.com"])).unwrap();
        let contacts = json!({"email": ["a@example.com", "b@example.com"], "webhook": ["https://example.com/x"]});
        assert_eq!(body_of, json!({"locale": "de", "contacts": contacts}));
        assert!(body(&put(&["ana"])).unwrap_err().to_string().contains("CHANNEL:ADDRESS"));
        assert_eq!(path("a b/c"), "/v1/users/a%20b%2Fc");
    }
}
