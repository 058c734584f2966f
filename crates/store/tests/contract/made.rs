//! Users, devices, changes, notifications and deliveries as the suites make them.

use std::collections::BTreeMap;

use domain::{
    Address, Channel, Contacts, DeliveryId, DeliveryStatus, Device, DeviceId, Environment, History, NotificationId,
    NotificationStatus, Preferences, Priority, Selector, State, TenantId, Timestamp, User, UserId,
};
use store::{Change, UserKey};
use uuid::Uuid;

use crate::{at, tenant};

/// A user's key.
pub fn key(tenant: &TenantId, user: &str) -> UserKey {
    UserKey { tenant: tenant.clone(), user: UserId::parse(user).expect("a user id") }
}

/// A user that can be told from others by the time zone.
pub fn user(key: &UserKey, zone: &str) -> User {
    User {
        tenant: key.tenant.clone(),
        id: key.user.clone(),
        locale: None,
        time_zone: Some(zone.into()),
        contacts: Contacts::default(),
        devices: vec![],
        preferences: Preferences::default(),
        updated_at: Timestamp::UNIX_EPOCH,
    }
}

/// A change at a step, by someone with an odd name.
pub fn change(step: i64) -> Change {
    Change { by: "ops \"ключ\" 🔑".into(), from: "http 192.0.2.7".into(), at: at(step) }
}

/// A device whose token is `n`, as it looks when it was registered at a step.
pub fn device(tenant: &TenantId, n: u32, step: i64) -> Device {
    let token = Address::parse(Channel::Apns, &format!("{n:064x}")).expect("a token");
    Device {
        id: DeviceId::derive(tenant, Channel::Apns, "com.example.app", &token),
        channel: Channel::Apns,
        app: "com.example.app".into(),
        token,
        environment: Environment::Production,
        locale: None,
        time_zone: None,
        registered_at: at(step),
        last_active_at: at(step),
    }
}

/// A notification that was just accepted.
pub fn notification(tenant: &TenantId) -> NotificationStatus {
    NotificationStatus {
        id: NotificationId::new(at(0)),
        tenant: tenant.clone(),
        recipients: 1,
        category: None,
        priority: Priority::default(),
        channels: vec![Selector::Channel(Channel::Webhook)],
        accepted_at: at(0),
        expires_at: None,
        template: None,
        metadata: BTreeMap::new(),
    }
}

/// A delivery of a tenant that no other test has, just accepted.
pub fn delivery() -> DeliveryStatus {
    let mut history = History::default();
    history.reached(at(0), State::Accepted, None);
    DeliveryStatus {
        id: DeliveryId(Uuid::new_v4()),
        notification: NotificationId::new(at(0)),
        tenant: tenant(),
        user: None,
        recipient_key: "webhook:0".into(),
        channel: Channel::Webhook,
        address: None,
        category: None,
        priority: Priority::default(),
        state: State::Accepted,
        reason: None,
        template: None,
        provider: None,
        leads: true,
        accepted_at: at(0),
        updated_at: at(0),
        metadata: [].into(),
        history,
    }
}
