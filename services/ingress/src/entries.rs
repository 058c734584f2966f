//! The entries of the configuration as requests write them and answers show them.

use domain::{
    FieldErrors,
    config::{Account, ApiKey, Category, Kind, Scope, Source, Tenant},
};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::{Map, Value};

use crate::{auth::fingerprint, body};

const HIDDEN: &str = "(hidden)";

/// Parses the body of a PUT into what is kept.
pub(crate) fn parse(kind: Kind, json: &[u8]) -> Result<Value, FieldErrors> {
    match kind {
        Kind::Tenants => as_is::<Tenant>(json),
        Kind::Keys => key(json),
        Kind::Categories => as_is::<Category>(json),
        Kind::Accounts => account(json),
        Kind::Sources => source(json),
        Kind::Templates => Err(one("", "templates are put at PUT /v1/templates/{key}, and published there")),
    }
}

/// An entry as answers show it.
pub(crate) fn shown(kind: Kind, value: &Value) -> Value {
    let mut value = value.clone();
    match (kind, value.as_object_mut()) {
        // whatever an account has besides its channel could be a credential
        (Kind::Accounts, Some(account)) => {
            for (name, field) in account.iter_mut() {
                if name != "channel" {
                    *field = HIDDEN.into();
                }
            }
        }
        (Kind::Accounts | Kind::Tenants | Kind::Keys | Kind::Categories | Kind::Sources | Kind::Templates, _) => {}
    }
    value
}

fn as_is<T: Serialize + DeserializeOwned>(json: &[u8]) -> Result<Value, FieldErrors> {
    kept(&body::parse::<T>(json, "")?)
}

fn kept<T: Serialize>(entry: &T) -> Result<Value, FieldErrors> {
    serde_json::to_value(entry).map_err(|e| one("", &e.to_string()))
}

fn one(pointer: &str, detail: &str) -> FieldErrors {
    let mut errors = FieldErrors::default();
    errors.add(pointer, detail);
    errors
}

#[derive(serde::Deserialize)]
struct KeyRequest {
    key: Option<String>,
    sha256: Option<String>,
    #[serde(default)]
    scopes: Vec<Scope>,
    #[serde(default)]
    revoked: bool,
    #[serde(flatten)]
    extra: Map<String, Value>,
}

/// Of a key only the hash is kept.
fn key(json: &[u8]) -> Result<Value, FieldErrors> {
    let request: KeyRequest = body::parse(json, "")?;
    let mut errors = FieldErrors::default();
    body::check_names(&request.extra, &["key", "sha256", "scopes", "revoked"], &[], "", &mut errors);
    let hex = |s: &str| s.len() == 64 && s.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
    let visible = |k: &str| (20..=200).contains(&k.len()) && k.bytes().all(|b| b.is_ascii_graphic());
    let sha256 = match (request.key, request.sha256) {
        (Some(key), None) if visible(&key) => fingerprint(&key),
        (Some(_), None) => {
            errors.add("/key", "a key has 20 to 200 visible ASCII characters");
            String::new()
        }
        (None, Some(sha256)) if hex(&sha256) => sha256,
        (None, Some(_)) => {
            errors.add("/sha256", "the SHA-256 of the key as 64 lower-case hexadecimal digits");
            String::new()
        }
        _ => {
            errors.add("", "give one of `key` and `sha256`");
            String::new()
        }
    };
    if request.scopes.is_empty() {
        errors.add("/scopes", "give at least one scope");
    }
    errors.into_result()?;
    kept(&ApiKey { sha256, scopes: request.scopes, revoked: request.revoked })
}

fn account(json: &[u8]) -> Result<Value, FieldErrors> {
    let account: Account = body::parse(json, "")?;
    account.check()?;
    kept(&account)
}

fn source(json: &[u8]) -> Result<Value, FieldErrors> {
    let source: Source = body::parse(json, "")?;
    source.check()?;
    kept(&source)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_kept_as_its_hash_only() {
        let kept = parse(Kind::Keys, br#"{"key": "a-key-of-twenty-chars", "scopes": ["operator"]}"#).expect("valid");
        assert_eq!(kept["sha256"], fingerprint("a-key-of-twenty-chars"));
        assert!(!kept.to_string().contains("twenty"), "{kept}");
        // the value of `printf abc | sha256sum`
        assert_eq!(fingerprint("abc"), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
    }

    #[test]
    fn bad_entries_are_refused_with_their_field() {
        for (kind, json, pointer, detail) in [
            (Kind::Keys, r#"{"key": "short", "scopes": ["operator"]}"#, "/key", "20 to 200"),
            (Kind::Keys, r#"{"key": "a-key-of-twenty chars!", "scopes": ["operator"]}"#, "/key", "visible"),
            (Kind::Keys, r#"{"sha256": "ABC", "scopes": ["operator"]}"#, "/sha256", "64 lower-case"),
            (Kind::Keys, r#"{"scopes": ["operator"]}"#, "", "one of `key` and `sha256`"),
            (Kind::Keys, r#"{"key": "a-key-of-twenty-chars", "scopes": []}"#, "/scopes", "at least one"),
            (Kind::Keys, r#"{"key": "a-key-of-twenty-chars", "scopes": ["x"]}"#, "/scopes/0", "notifications:write"),
            (
                Kind::Keys,
                r#"{"key": "a-key-of-twenty-chars", "scopes": ["operator"], "revokd": true}"#,
                "/revokd",
                "`revoked`",
            ),
            (Kind::Categories, r#"{"channels": ["pigeon"]}"#, "/channels/0", "no channel or type"),
            (Kind::Categories, r#"{"channels": ["sms"]}"#, "/channels/0", "not yet built"),
            (Kind::Categories, r#"{"optin": true}"#, "/optin", "opt_in"),
            (Kind::Tenants, r#"{"title": 7}"#, "/title", "expected a string"),
            (Kind::Accounts, r#"{"channel": "webhook", "secret": "whsec_AAAA"}"#, "/secret", "24 to 64"),
            (Kind::Accounts, r#"{"channel": "webhook"}"#, "", "secret"),
            (
                Kind::Accounts,
                r#"{"channel": "webhook", "secret": "whsec_MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIz", "previous_secret": "x"}"#,
                "/previous_secret",
                "24 to 64",
            ),
            (Kind::Sources, r#"{"source": "a b"}"#, "/source", "URI reference"),
            (Kind::Sources, r#"{}"#, "", "source"),
            (Kind::Accounts, r#"{"channel": "pigeon"}"#, "/channel", "webhook"),
            (Kind::Templates, r#"{}"#, "", "PUT /v1/templates/{key}"),
        ] {
            let errors = parse(kind, json.as_bytes()).expect_err(json);
            let [error] = errors.0.as_slice() else { panic!("{json}: {errors}") };
            assert!(error.detail.contains(detail), "{json}: {errors}");
            assert_eq!(error.pointer, pointer, "{json}: {errors}");
        }
    }
}
