//! Baselines: the libraries alone, each as well as it can be used.

pub mod bulk;
pub mod chain;
pub mod http1;
pub mod http2;
pub mod kafka;
pub mod sqlite;
pub mod store;
