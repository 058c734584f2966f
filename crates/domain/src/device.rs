//! A phone or browser: what a push goes to.

use jiff::Timestamp;

use crate::{Address, Channel, DeviceId, Locale};

/// A registered device.
#[derive(Debug, Clone, PartialEq)]
pub struct Device {
    /// Derived from tenant, channel, app and token.
    pub id: DeviceId,
    /// Whose service reaches it.
    pub channel: Channel,
    /// The app on it: a bundle id.
    pub app: String,
    /// What the provider knows it by.
    pub token: Address,
    /// Which of the provider's environments it is registered with.
    pub environment: Environment,
    /// What its owner reads on it.
    pub locale: Option<Locale>,
    /// IANA, for instance `Europe/Zurich`.
    pub time_zone: Option<String>,
    /// When it was first registered. A provider that says that it was gone before that is answered by this registration.
    pub registered_at: Timestamp,
    /// When it was registered last.
    pub last_active_at: Timestamp,
}

/// A provider's environment: builds of an app in development are known in another one than those from the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Environment {
    /// Apps from the store.
    #[default]
    Production,
    /// Apps in development.
    Sandbox,
}

/// Whether a text can be a bundle id; it becomes a header.
pub fn is_app(text: &str) -> bool {
    (1..=155).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._".contains(&b))
}

/// Where a delivery goes, with what the provider has to know about the address.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Target {
    /// The address.
    pub address: Address,
    /// When it was registered; `None` for a raw address.
    pub since: Option<Timestamp>,
    /// The device's app.
    pub app: Option<String>,
    /// The device's environment.
    pub environment: Environment,
}

impl Target {
    /// An address that belongs to no device.
    pub const fn raw(address: Address) -> Self {
        Self { address, since: None, app: None, environment: Environment::Production }
    }
}

impl From<&Device> for Target {
    fn from(device: &Device) -> Self {
        Self {
            address: device.token.clone(),
            since: Some(device.last_active_at),
            app: Some(device.app.clone()),
            environment: device.environment,
        }
    }
}
