//! One folder per channel, with the same file names in each: `mod.rs`, `payload.rs`, `client.rs`, `verdict.rs`.

use std::sync::Arc;

use async_trait::async_trait;
use domain::{Channel, Delivery, Outcome, config::Account};
use service_kit::{Problems, Reader, Settings};

/// Sends one delivery through one external provider. Holds no retry, limit, status or logging: those are the gateway's.
#[async_trait]
pub trait Provider: Send + Sync + 'static {
    /// The name in traces and search, for instance `apns`.
    fn name(&self) -> &'static str;

    /// One attempt, bounded in time. `account` is the tenant's for this channel, `None` if it has none.
    async fn send(&self, delivery: &Delivery, account: Option<&Account>) -> Answer;
}

/// What came of an attempt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// The verdict.
    pub outcome: Outcome,
    /// The provider's answer or the error, for people: no address, no content, no secret.
    pub detail: String,
}

/// Declares the providers: the module of a channel, and in it its provider beside `Options`, its settings.
macro_rules! providers {
    ($($channel:ident = $module:ident::$provider:ident;)*) => {
        $(pub mod $module;)*

        /// Reads a channel's own settings, for what is wrong with them.
        pub fn check(r: &mut Reader<'_>, channel: Channel) {
            match channel { $(Channel::$channel => drop($module::Options::read(r)),)* }
        }

        /// The provider of a channel, from the settings.
        pub fn provider(channel: Channel, settings: &Settings) -> Result<Arc<dyn Provider>, Problems> {
            match channel { $(Channel::$channel => Ok(Arc::new($module::$provider::new(settings)?)),)* }
        }
    };
}

providers! {
    Apns = apns::Apns;
    Email = email::Email;
    Webhook = webhook::Webhook;
}
