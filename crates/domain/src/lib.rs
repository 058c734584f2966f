#![doc = include_str!("../README.md")]

pub mod address;
pub mod channel;
pub mod config;
pub mod content;
pub mod decide;
pub mod delivery;
pub mod error;
pub mod history;
pub mod ids;
pub mod notification;
pub mod outcome;
pub mod preferences;
pub mod secret;
pub mod state;
pub mod status;
pub mod user;

pub use address::Address;
pub use channel::{Account, Channel, ChannelType, Lane, Priority, Selector};
pub use content::Content;
pub use decide::{Plan, Planned, Policy, decide};
pub use delivery::Delivery;
pub use error::{FieldError, FieldErrors};
pub use history::{Attempt, History, Step};
pub use ids::{CategoryKey, DeliveryId, NotificationId, TenantId, UserId};
pub use jiff::Timestamp;
pub use notification::{Notification, Recipient, Strategy};
pub use outcome::{Outcome, RetryPolicy};
pub use preferences::Preferences;
pub use secret::Secret;
pub use state::{Reason, State};
pub use status::{DeliveryStatus, NotificationStatus, Status};
pub use user::{Contacts, User};
