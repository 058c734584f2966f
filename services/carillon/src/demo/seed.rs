//! What the demo's tenant has: accounts that reach the sandbox, a template in two languages, people.

use domain::{
    Address, Channel, Contact, Contacts, Device, DeviceId, Environment, Locale, Preferences, TenantId, Timestamp, User,
    UserId,
    config::{EntryKey, Kind, Scope},
    template::{Head, Template, Version},
};
use serde_json::{Value, json};
use service_kit::Kit;
use store::{Change, UserKey};

use super::{KEY, SOURCE, TENANT};

/// A person of the demo: where they can be reached, in the sandbox, and what they want.
struct Person {
    name: &'static str,
    locale: &'static str,
    /// The first digits of a device token, and the local part of a mailbox, say what the sandbox does.
    token: Option<&'static str>,
    mail: Option<&'static str>,
    hook: Option<&'static str>,
    preferences: &'static str,
}

const NOBODY: Person = Person { name: "", locale: "en", token: None, mail: None, hook: None, preferences: "{}" };

const PEOPLE: [Person; 6] = [
    Person {
        name: "ana",
        locale: "de-CH",
        token: Some("0200a11a"),
        mail: Some("ana@example.com"),
        hook: Some("ok/ana"),
        ..NOBODY
    },
    Person {
        name: "ben",
        mail: Some("ben@example.com"),
        preferences: r#"{"categories": {"marketing": {"all": false}}}"#,
        ..NOBODY
    },
    Person { name: "cleo", hook: Some("ok/cleo"), ..NOBODY },
    Person { name: "dev", hook: Some("flaky/2/dev"), ..NOBODY },
    Person { name: "eve", token: Some("0410e11e"), ..NOBODY },
    Person { name: "fay", hook: Some("status/503/fay"), ..NOBODY },
];

/// Puts tenant, key, categories, accounts, source, template and people in place. Repeating it changes nothing.
pub(crate) async fn seed(kit: &Kit, sandbox: &sandbox::Running) -> anyhow::Result<()> {
    let tenant = TenantId::parse(TENANT).map_err(anyhow::Error::msg)?;
    let now = Timestamp::now();
    for (kind, name, value) in entries(kit, sandbox, now)? {
        let at = EntryKey { tenant: tenant.clone(), kind, name: name.to_owned() };
        kit.config.put(&at, Some(&value)).await?;
    }
    let change = Change { by: "demo".into(), from: "standalone --demo".into(), at: now };
    for person in &PEOPLE {
        put(kit, sandbox, &tenant, person, &change).await.map_err(anyhow::Error::msg)?;
    }
    Ok(())
}

fn entries(kit: &Kit, sandbox: &sandbox::Running, now: Timestamp) -> anyhow::Result<Vec<(Kind, &'static str, Value)>> {
    let secret = kit.settings.read(|r| r.secret("sandbox.webhook_secret"))?;
    let scopes =
        [Scope::NotificationsWrite, Scope::NotificationsRead, Scope::UsersWrite, Scope::UsersRead, Scope::Operator];
    let template = template()?;
    let version = Version { template, published_at: now, published_by: "demo".into() };
    let head = Head { published: Some(1), latest: 1, draft: None, updated_at: now, updated_by: "demo".into() };
    Ok(vec![
        (Kind::Tenants, TENANT, json!({"title": "The demo's tenant"})),
        (Kind::Keys, "demo", json!({"sha256": ingress::auth::fingerprint(KEY), "scopes": scopes})),
        (Kind::Categories, "shipping", json!({"channels": ["push", "email", "webhook"]})),
        (Kind::Categories, "orders", json!({"channels": ["webhook"]})),
        (Kind::Categories, "marketing", json!({"channels": ["email"]})),
        (Kind::Accounts, "apns", sandbox.apns_account()),
        (Kind::Accounts, "email", sandbox.email_account()),
        (Kind::Accounts, "webhook", json!({"channel": "webhook", "secret": secret.expose()})),
        (Kind::Sources, "shop", json!({"source": SOURCE})),
        (Kind::Templates, "shipped@1", serde_json::to_value(version)?),
        (Kind::Templates, "shipped", serde_json::to_value(head)?),
    ])
}

fn template() -> serde_json::Result<Template> {
    serde_json::from_value(json!({
        "description": "An order has left the house.",
        "default_locale": "en",
        "variables": {"order": {"description": "its number"}, "carrier": {"default": "post"}},
        "contents": {
            "en": {
                "default": {"title": "On its way", "body": "Order {{ order }} has left the house, by {{ carrier }}."},
                "email": {
                    "subject": "Order {{ order }} is on its way",
                    "text": "It has left the house, by {{ carrier }}.",
                    "html": "<p>It has left the house, by <b>{{ carrier }}</b>.</p>",
                },
            },
            "de": {
                "default": {"title": "Unterwegs", "body": "Bestellung {{ order }} hat das Haus verlassen, per {{ carrier }}."},
            },
        },
    }))
}

async fn put(
    kit: &Kit,
    sandbox: &sandbox::Running,
    tenant: &TenantId,
    person: &Person,
    change: &Change,
) -> Result<(), String> {
    let mut contacts = Contacts::default();
    let hook = person.hook.map(|behaviour| sandbox.hook(behaviour));
    for (channel, text) in [(Channel::Email, person.mail), (Channel::Webhook, hook.as_deref())] {
        if let Some(text) = text {
            contacts.add(channel, Contact { address: Address::parse(channel, text)?, since: change.at });
        }
    }
    let user = User {
        tenant: tenant.clone(),
        id: UserId::parse(person.name)?,
        locale: Some(Locale::parse(person.locale)?),
        time_zone: None,
        contacts,
        devices: vec![],
        preferences: serde_json::from_str::<Preferences>(person.preferences).map_err(|e| e.to_string())?,
        updated_at: change.at,
    };
    kit.stores.users.put(&user, change).await.map_err(|e| e.to_string())?;
    let Some(token) = person.token else { return Ok(()) };
    let (app, token) = ("com.example.app", Address::parse(Channel::Apns, token)?);
    let device = Device {
        id: DeviceId::derive(tenant, Channel::Apns, app, &token),
        channel: Channel::Apns,
        app: app.into(),
        token,
        environment: Environment::Production,
        locale: None,
        time_zone: None,
        registered_at: change.at,
        last_active_at: change.at,
    };
    let key = UserKey { tenant: tenant.clone(), user: user.id };
    kit.stores
        .users
        .put_device(&key, &device, None, domain::user::MAX_ADDRESSES, change)
        .await
        .map_err(|e| e.to_string())?;
    Ok(())
}
