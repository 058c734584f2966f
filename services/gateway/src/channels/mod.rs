//! One folder per channel, with the same file names in each: `mod.rs`, `payload.rs`, `client.rs`, `verdict.rs`.

use std::sync::Arc;

use async_trait::async_trait;
use domain::{Channel, Delivery, Outcome, config::Account};
use futures::future::BoxFuture;
use service_kit::{Problems, Reader, Settings};

/// Sends one delivery through one external provider. Holds no retry, limit, status or logging: those are the gateway's.
#[async_trait]
pub trait Provider: Send + Sync + 'static {
    /// The name in traces and search, for instance `apns`.
    fn name(&self) -> &'static str;

    /// One attempt, bounded in time, the wait for room included. `account` is the tenant's for this channel, `None` if it has
    /// none.
    async fn send(&self, delivery: &Delivery, account: Option<&Account>) -> Answer;

    /// The same in two: what has to be waited for in this process, such as a connection that is free, is waited for here; the
    /// request leaves when what this gives is polled, and not before. In between one can still change one's mind.
    async fn ready<'a>(
        &'a self,
        delivery: &'a Delivery,
        account: Option<&'a Account>,
    ) -> Result<BoxFuture<'a, Answer>, NoRoom> {
        Ok(self.send(delivery, account))
    }
}

/// There is no room for one more in this process, and the wait for some is over. Nothing left; the provider was not asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NoRoom;

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
