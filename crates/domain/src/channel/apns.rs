//! Apple's push service: what a device token, an account and a message of it are.

use serde_json::{Map, Value};

use crate::{FieldErrors, Secret, device};

/// Token authentication (`team_id`, `key_id`, `private_key`) or a certificate (`certificate`, `certificate_key`).
#[derive(Debug, Clone, PartialEq, Eq, Default, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Account {
    /// Ten characters.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub team_id: Option<String>,
    /// Ten characters.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key_id: Option<String>,
    /// P-256, PKCS#8 in PEM: the `.p8` file.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub private_key: Option<Secret>,
    /// A certificate chain in PEM, instead of the three above.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub certificate: Option<Secret>,
    /// Its private key in PEM.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub certificate_key: Option<Secret>,
    /// The bundle id for addresses that belong to no registered device.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub topic: Option<String>,
    /// `https://host:port`, instead of Apple's own hosts.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub base_url: Option<String>,
    /// Trusted certificates in PEM, instead of the public roots.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ca: Option<String>,
}

impl Account {
    /// Checks that one of the two ways to authenticate is whole.
    pub fn check(&self) -> Result<(), FieldErrors> {
        let mut errors = FieldErrors::default();
        let ten = |id: &Option<String>| id.as_ref().is_some_and(|i| i.len() == 10 && i.bytes().all(|b| b.is_ascii_alphanumeric()));
        let pem = |key: &Option<Secret>| key.as_ref().is_some_and(|k| k.expose().contains("-----BEGIN "));
        let token = self.team_id.is_some() || self.key_id.is_some() || self.private_key.is_some();
        let certificate = self.certificate.is_some() || self.certificate_key.is_some();
        if token == certificate {
            errors.add("", "give either `team_id`, `key_id` and `private_key`, or `certificate` and `certificate_key`");
        } else if token {
            for (pointer, id) in [("/team_id", &self.team_id), ("/key_id", &self.key_id)] {
                if !ten(id) {
                    errors.add(pointer, "ten letters and digits, as Apple's developer account shows it");
                }
            }
            if !pem(&self.private_key) {
                errors.add("/private_key", "the text of the .p8 file, from -----BEGIN PRIVATE KEY----- on");
            }
        } else {
            for (pointer, key) in [("/certificate", &self.certificate), ("/certificate_key", &self.certificate_key)] {
                if !pem(key) {
                    errors.add(pointer, "in PEM, from -----BEGIN on");
                }
            }
        }
        if self.topic.as_ref().is_some_and(|t| !device::is_app(t)) {
            errors.add("/topic", "a bundle id like com.example.app");
        }
        if self.base_url.as_ref().is_some_and(|u| !url::Url::parse(u).is_ok_and(|u| u.scheme() == "https" && u.path() == "/")) {
            errors.add("/base_url", "https://host:port");
        }
        errors.into_result()
    }
}

/// The values of `apns-push-type`.
pub const PUSH_TYPES: &[&str] = &[
    "alert", "background", "location", "voip", "complication", "fileprovider", "mdm", "liveactivity", "pushtotalk",
    "widgets", "controls",
];

/// Whether addresses come from devices.
pub const DEVICES: bool = true;

/// What the channel's own content may have.
pub const CONTENT: &[&str] = &[
    "title", "subtitle", "body", "badge", "sound", "thread_id", "category", "push_type", "content_available",
    "mutable_content", "interruption_level", "relevance_score", "target_content_id", "data", "payload",
];

/// Checks the types of the fields.
pub fn check_content(content: &Map<String, Value>, at: &str, errors: &mut FieldErrors) {
    for (key, value) in content {
        let (ok, expected) = match key.as_str() {
            "badge" => (value.as_u64().is_some_and(|n| n <= 99_999), "a whole number from 0"),
            "content_available" | "mutable_content" => (value.is_boolean(), "true or false"),
            "relevance_score" => (value.as_f64().is_some_and(|n| (0.0..=1.0).contains(&n)), "a number from 0 to 1"),
            "sound" => (value.is_string() || value.is_object(), "a name, or an object"),
            "data" => (value.as_object().is_some_and(|d| !d.contains_key("aps")), "an object without `aps`"),
            "payload" => (value.get("aps").is_some_and(Value::is_object), "the whole payload, with `aps`"),
            "push_type" => (value.as_str().is_some_and(|t| PUSH_TYPES.contains(&t)), "one of Apple's push types"),
            "interruption_level" => {
                let levels = ["passive", "active", "time-sensitive", "critical"];
                (value.as_str().is_some_and(|l| levels.contains(&l)), "passive, active, time-sensitive or critical")
            }
            _ => (value.is_string(), "a text"),
        };
        if !ok {
            errors.add(format!("{at}/{key}"), format!("is {expected}"));
        }
    }
}

/// A device token: hexadecimal, so that it is safe in a path.
pub fn address(text: &str) -> Result<String, String> {
    if text.is_empty() || text.len() > 200 || text.len() % 2 == 1 || !text.bytes().all(|b| b.is_ascii_hexdigit()) {
        return Err("a device token has 2 to 200 hexadecimal digits, an even number of them".into());
    }
    Ok(text.to_ascii_lowercase())
}

/// The last four digits of a token that is long enough to hide behind them.
pub fn masked(address: &str) -> String {
    if address.len() < 16 { "…".into() } else { ["…", &address[address.len() - 4..]].concat() }
}
