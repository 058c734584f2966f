#![doc = include_str!("../README.md")]

pub mod config;
pub mod consume;
pub mod dead;
pub mod embedded;
pub mod kafka;
pub mod log;
pub mod metrics;
pub mod record;
pub mod sim;
pub mod topic;
pub mod trace;

mod group;
mod traced;

pub use config::Config;
pub use log::{Event, Follow, FollowEvent, Log, LogError, Revoked, Subscription};
pub use record::{Headers, Outgoing, Partition, Position, Record};
pub use topic::{Cleanup, TopicSpec, Topics};
pub use traced::Traced;
