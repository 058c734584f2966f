//! The contract of the log: one suite over every adapter, and beside it what only one of them can do.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

#[macro_use]
mod suite;
mod member;

mod coordinator;
mod embedded;
mod embedded_kill;
mod embedded_offsets;
mod kafka;
mod on_kafka;
mod sim;
