//! Webhooks: an endpoint of the recipient's.

use serde_json::{Map, Value};
use url::Url;

use crate::{FieldErrors, Secret};

/// Signs webhooks.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Account {
    /// `whsec_` and 24 to 64 bytes in base64 (Standard Webhooks 1.0).
    pub secret: Secret,
    /// The secret before this one: while it is here every webhook bears both signatures, so that receivers can change over.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub previous_secret: Option<Secret>,
}

impl Account {
    /// Checks the form of the secrets.
    pub fn check(&self) -> Result<(), FieldErrors> {
        let mut errors = FieldErrors::default();
        for (pointer, secret) in [("/secret", Some(&self.secret)), ("/previous_secret", self.previous_secret.as_ref())] {
            if secret.is_some_and(|s| key(s).is_none()) {
                errors.add(pointer, "a webhook secret is `whsec_` and 24 to 64 bytes in base64");
            }
        }
        errors.into_result()
    }
}

/// The bytes of a secret, if it is one.
pub fn key(secret: &Secret) -> Option<Vec<u8>> {
    let bytes = base64::Engine::decode(&base64::prelude::BASE64_STANDARD, secret.expose().strip_prefix("whsec_")?).ok()?;
    (24..=64).contains(&bytes.len()).then_some(bytes)
}

/// Whether addresses come from devices.
pub const DEVICES: bool = false;

/// Any object is taken.
pub const CONTENT: &[&str] = &[];

/// Any object is taken.
pub fn check_content(_: &Map<String, Value>, _: &str, _: &mut FieldErrors) {}

/// The origin, for people.
pub fn masked(address: &str) -> String {
    Url::parse(address).map_or_else(|_| "…".to_owned(), |url| format!("{}/…", url.origin().ascii_serialization()))
}

/// An absolute `http` or `https` URL without user info or fragment, at most 2,048 bytes, as WHATWG writes it.
pub fn address(text: &str) -> Result<String, String> {
    if text.len() > 2048 {
        return Err("a webhook URL has at most 2,048 bytes".into());
    }
    if text.chars().any(|c| c.is_control() || c.is_whitespace()) {
        return Err("a webhook URL has no spaces or control characters".into());
    }
    let url =
        Url::parse(text).map_err(|e| format!("not a URL ({e}); a webhook address is like https://example.com/hook"))?;
    if !matches!(url.scheme(), "https" | "http") {
        return Err("a webhook URL starts with https:// (or http://)".into());
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err("a webhook URL holds no user name or password".into());
    }
    if url.fragment().is_some() {
        return Err("a webhook URL has no #fragment".into());
    }
    let written = String::from(url);
    // percent-encoding makes it longer, and what is kept has to parse again
    if written.len() > 2048 {
        return Err("a webhook URL has at most 2,048 bytes once it is percent-encoded".into());
    }
    Ok(written)
}
