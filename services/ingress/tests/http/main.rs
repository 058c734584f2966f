//! The public API over the real embedded log and stores: what is accepted, what is refused, and how.

mod api;
mod config;
mod dead_letters;
mod devices;
mod edge;
mod failing;
mod notifications;
mod templates;
mod users;
mod views;
