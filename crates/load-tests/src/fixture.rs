//! What is sent: a tenant, its accounts, its people, and deliveries to them.

use anyhow::Context as _;
use domain::{
    Address, Attempt, Channel, Content, Delivery, DeliveryStatus, Message, Notification, NotificationId, Outcome,
    Priority, Recipient, Selector, State, Strategy, Target, TenantId, Timestamp, UserId, config::Account,
};
use serde_json::{Value, json};

use crate::peers::Ready;

/// The app that pushes go to.
pub const APP: &str = "com.example.app";
/// What webhooks are signed with.
pub const SECRET: &str = "whsec_dGhlIHNlY3JldCBvZiB0aGUgYmVuY2gsIDMyIGJ5dGVz";
/// Of a push, a mail or a webhook.
pub const TITLE: &str = "On its way";
/// The same.
pub const BODY: &str = "Order 4711 has left the house this morning and will be with you tomorrow between 10 and 12.";

/// Who sends.
pub fn tenant() -> anyhow::Result<TenantId> {
    TenantId::parse("bench").map_err(anyhow::Error::msg)
}

/// The name of a person.
pub fn user(number: u64) -> anyhow::Result<UserId> {
    UserId::parse(&format!("user-{number:07}")).map_err(anyhow::Error::msg)
}

/// The token of a device.
pub fn token(number: u64) -> anyhow::Result<Address> {
    Address::parse(Channel::Apns, &format!("0200{number:060x}")).map_err(anyhow::Error::msg)
}

/// The content of every notification.
pub fn content() -> anyhow::Result<Content> {
    Ok(serde_json::from_value(json!({"default": {"title": TITLE, "body": BODY}}))?)
}

/// What a push of that content says.
pub fn push_body() -> Value {
    json!({"aps": {"alert": {"title": TITLE, "body": BODY}}})
}

/// One notification on one channel, accepted now.
pub fn notification(recipient: Recipient, channel: Channel, message: Message) -> anyhow::Result<Notification> {
    let now = Timestamp::from_microsecond(Timestamp::now().as_microsecond())?;
    Ok(Notification {
        id: NotificationId::new(now),
        tenant: tenant()?,
        recipient,
        category: None,
        priority: Priority::default(),
        channels: vec![Selector::Channel(channel)],
        strategy: Strategy::All,
        message,
        locale: None,
        expires_at: None,
        collapse_key: None,
        metadata: [].into(),
        accepted_at: now,
    })
}

/// A delivery that was just decided.
pub fn delivery(recipient: Recipient, channel: Channel, address: Address) -> anyhow::Result<Delivery> {
    let notification = notification(recipient, channel, Message::Content(content()?))?;
    let app = (channel == Channel::Apns).then(|| APP.to_owned());
    let target = Target { app, ..Target::raw(address) };
    let at = notification.accepted_at;
    let mut delivery = Delivery::begin(&notification, channel, Some(target), at, State::Queued, None);
    delivery.leads = true;
    Ok(delivery)
}

/// Deliveries to addresses as they stand.
pub fn deliveries(
    channel: Channel,
    count: u64,
    address: impl Fn(u64) -> anyhow::Result<Address>,
) -> anyhow::Result<Vec<Delivery>> {
    let one = |n| {
        let address = address(n)?;
        delivery(Recipient::Address(channel, address.clone()), channel, address)
    };
    (0..count).map(one).collect()
}

/// An account that reaches the sink, as it is put into the configuration.
pub fn apns_account(to: &Ready) -> anyhow::Result<Value> {
    Ok(json!({
        "channel": "apns", "team_id": "BENCH00001", "key_id": "BENCHKEY01",
        "private_key": rcgen::KeyPair::generate().context("a key")?.serialize_pem(),
        "topic": APP, "base_url": format!("https://127.0.0.1:{}/", to.port), "ca": to.ca,
    }))
}

/// The same for mail.
pub fn email_account(port: u16) -> Value {
    json!({"channel": "email", "host": "127.0.0.1", "port": port, "tls": "none", "from": "Shop <no-reply@example.com>"})
}

/// The same for webhooks.
pub fn webhook_account() -> Value {
    json!({"channel": "webhook", "secret": SECRET})
}

/// An account as providers take it.
pub fn account(value: Value) -> anyhow::Result<Account> {
    serde_json::from_value(value).context("an account")
}

/// What is told of a delivery that was sent.
pub fn ended(mut delivery: Delivery) -> DeliveryStatus {
    delivery.provider = Some("apns".to_owned());
    let attempt = Attempt::new(1, &Outcome::Sent, "HTTP 200", 2);
    delivery.history.attempted(Timestamp::now(), State::Sent, None, attempt);
    delivery.into_status()
}
