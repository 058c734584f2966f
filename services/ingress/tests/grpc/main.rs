//! The gRPC way in over a real socket and the real embedded log and stores: what is taken, what is refused, and that HTTP says
//! the same.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

#[expect(dead_code, reason = "what the tests of HTTP need too")]
#[path = "../http/api.rs"]
mod api;
mod edge;
mod notifications;
mod served;
mod stream;
