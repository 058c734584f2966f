//! The listener over a real embedded log: ordinary clients (librdkafka, Java), and frames made by hand.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod clients;
mod closed;
mod harness;
mod hostile;
mod idempotence;
mod java;
mod kit;
mod raw;
mod refusals;
mod requests;
