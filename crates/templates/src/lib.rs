#![doc = include_str!("../README.md")]

mod cache;
mod check;
mod compile;
mod context;
mod guard;
mod language;
mod merge;
mod meter;
mod render;

pub use cache::Cache;
pub use check::{check, check_data};
pub use compile::Compiled;
pub use render::{Limits, RenderError, Rendered};

/// Most bytes that a template may have as JSON.
pub const MAX_TEMPLATE_BYTES: usize = 256 * 1024;

/// Most bytes that one text of a template may have.
pub const MAX_LEAF_BYTES: usize = 64 * 1024;

/// Most texts with tags in one content, so that the steps of a rendering are bounded.
pub const MAX_LEAVES: usize = 256;

/// Most texts with tags in a template, so that its memory is bounded.
pub const MAX_ALL_LEAVES: usize = 4096;

/// Most errors that are told at once.
const MAX_ERRORS: usize = 50;

/// Most bytes that the data of a notification may have as JSON.
pub const MAX_DATA_BYTES: usize = 64 * 1024;

/// How deep data and contents may be nested.
pub const MAX_DEPTH: usize = 32;
