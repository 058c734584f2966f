//! The whole product, from outside: the same scenarios on the embedded default and on real Kafka, Redis, Cassandra and
//! Elasticsearch, whose addresses the environment tells (`make test` brings them up).

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod chaos;
mod events;
mod inside;
mod kill;
mod otlp;
mod outage;
mod poison;
mod process;
mod scale;
mod scenario;
mod spine;
mod world;
