#![doc = include_str!("../README.md")]

mod engines;
pub mod health;
pub mod kit;
mod metrics;
pub mod serve;
pub mod settings;
pub mod signal;
pub mod telemetry;

pub use health::{Health, Need};
pub use kit::{Kit, Unreachable, Uses};
pub use settings::{Problems, Reader, Section, Settings};

#[cfg(test)]
mod tests;
