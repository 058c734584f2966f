//! Checks provider tokens: their form and signature, their age, and that a connection stays with one team and key.

use std::time::{Duration, Instant};

use base64::{Engine as _, prelude::BASE64_URL_SAFE_NO_PAD};
use http::HeaderMap;
use jiff::Timestamp;
use ring::signature::{ECDSA_P256_SHA256_FIXED, UnparsedPublicKey};

use super::check::{Refusal, refuse};
use crate::{tls::ApnsKey, verify::text};

/// A token is good for so long, in seconds.
const LIFETIME: i64 = 60 * 60;
/// How far ahead of ours the client's clock may be, in seconds.
const SKEW: i64 = 60;
/// A connection may see so many tokens in such a time: the one it has and a new one.
const MAX_TOKENS: usize = 2;
const UPDATE_PERIOD: Duration = Duration::from_secs(20 * 60);

const INVALID: Refusal = refuse(403, "InvalidProviderToken");

/// What one connection has shown.
#[derive(Default)]
pub(super) struct Shown {
    tokens: Vec<Token>,
    bound: Option<&'static str>,
}

struct Token {
    value: Box<str>,
    issued: i64,
    seen: Instant,
}

#[derive(serde::Deserialize)]
struct Header {
    alg: String,
    kid: String,
}

#[derive(serde::Deserialize)]
struct Claims {
    iss: String,
    iat: i64,
}

impl Shown {
    /// Checks the token of a request.
    pub(super) fn check(&mut self, headers: &HeaderMap, keys: &[ApnsKey], now: Timestamp) -> Result<(), Refusal> {
        if !headers.contains_key("authorization") {
            return Err(refuse(403, "MissingProviderToken"));
        }
        let (scheme, value) = text(headers, "authorization").and_then(|a| a.split_once(' ')).ok_or(INVALID)?;
        if !scheme.eq_ignore_ascii_case("bearer") {
            return Err(INVALID);
        }
        // the signature is checked once: that costs more than all the rest of a request
        if let Some(token) = self.tokens.iter().find(|t| *t.value == *value) {
            return fresh(token.issued, now);
        }
        let (key, issued) = read(value, keys, self.bound)?;
        fresh(issued, now)?;
        let at = Instant::now();
        if self.tokens.iter().filter(|t| at.duration_since(t.seen) < UPDATE_PERIOD).count() >= MAX_TOKENS {
            return Err(refuse(429, "TooManyProviderTokenUpdates"));
        }
        self.bound = Some(key.key_id);
        self.tokens.retain(|t| fresh(t.issued, now).is_ok() || at.duration_since(t.seen) < UPDATE_PERIOD);
        self.tokens.push(Token { value: value.into(), issued, seen: at });
        Ok(())
    }
}

fn fresh(issued: i64, now: Timestamp) -> Result<(), Refusal> {
    match now.as_second().saturating_sub(issued) {
        age if age < -SKEW => Err(INVALID),
        age if age <= LIFETIME => Ok(()),
        _ => Err(refuse(403, "ExpiredProviderToken")),
    }
}

/// The key of a well-formed token that is rightly signed, and when it was issued.
fn read<'a>(value: &str, keys: &'a [ApnsKey], bound: Option<&str>) -> Result<(&'a ApnsKey, i64), Refusal> {
    let (signed, signature) = value.rsplit_once('.').ok_or(INVALID)?;
    let (header, claims) = signed.split_once('.').ok_or(INVALID)?;
    let decoded = |part: &str| BASE64_URL_SAFE_NO_PAD.decode(part).map_err(|_| INVALID);
    let header: Header = serde_json::from_slice(&decoded(header)?).map_err(|_| INVALID)?;
    let claims: Claims = serde_json::from_slice(&decoded(claims)?).map_err(|_| INVALID)?;
    let key = keys.iter().find(|k| k.key_id == header.kid && k.team_id == claims.iss).ok_or(INVALID)?;
    if header.alg != "ES256" {
        return Err(INVALID);
    }
    let public = UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, &key.public);
    public.verify(signed.as_bytes(), &decoded(signature)?).map_err(|_| INVALID)?;
    if bound.is_some_and(|b| b != key.key_id) {
        return Err(refuse(403, "UnrelatedKeyIdInToken"));
    }
    Ok((key, claims.iat))
}

/// A header's value without the signature, so that records let nobody send.
pub(super) fn unsigned(authorization: &str) -> String {
    match authorization.rsplit_once('.') {
        Some((signed, _)) => format!("{signed}.…"),
        None => "…".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use ring::{
        rand::SystemRandom,
        signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _},
    };

    use super::*;

    /// The key of RFC 6979 A.2.5 and a token that another implementation signed with it.
    const POINT: &str = "BGD-1LolWp0xyWHrdMY1bWjASbiSO2H6bOZpYi5g8p-2eQP-EAi4vJmkGunpVii8ZPLxsgwtfp9Rd6PClNRGIpk";
    const VECTOR: &str = "eyJhbGciOiJFUzI1NiIsImtpZCI6IkFCQzEyM0RFRkcifQ.eyJpc3MiOiJERUYxMjNHSElKIiwiaWF0IjoxNzAwMDAwMDAwfQ.2UY659mmI-kanULhIhaMxVcDTuhgEKDVmwBbnsFzr682dQD2KtgLureLuXr5iR8ZNdjyMvuVEgiueFbGDam53A";
    const ISSUED: i64 = 1_700_000_000;

    struct Team(EcdsaKeyPair, ApnsKey);

    fn team(team_id: &'static str, key_id: &'static str) -> Team {
        let random = SystemRandom::new();
        let pkcs8 = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &random).expect("a key");
        let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, pkcs8.as_ref(), &random).expect("a key");
        let public = pair.public_key().as_ref().to_vec();
        Team(pair, ApnsKey { team_id, key_id, private_pem: String::new(), public })
    }

    fn signed(key: &EcdsaKeyPair, header: &str, claims: &str) -> String {
        let encode = |bytes: &[u8]| BASE64_URL_SAFE_NO_PAD.encode(bytes);
        let text = format!("{}.{}", encode(header.as_bytes()), encode(claims.as_bytes()));
        let signature = key.sign(&SystemRandom::new(), text.as_bytes()).expect("signed");
        format!("{text}.{}", encode(signature.as_ref()))
    }

    fn check(shown: &mut Shown, keys: &[ApnsKey], authorization: &str, at: i64) -> &'static str {
        let mut headers = HeaderMap::new();
        headers.insert("authorization", authorization.parse().expect("a value"));
        let now = Timestamp::from_second(at).expect("a time");
        shown.check(&headers, keys, now).map_or_else(|r| r.reason, |()| "")
    }

    #[test]
    fn the_vector_passes_for_an_hour_and_nothing_near_it() {
        let public = BASE64_URL_SAFE_NO_PAD.decode(POINT).expect("base64");
        let keys = [ApnsKey { team_id: "DEF123GHIJ", key_id: "ABC123DEFG", private_pem: String::new(), public }];
        let mut shown = Shown::default();
        let bearer = format!("bearer {VECTOR}");
        assert_eq!(check(&mut shown, &keys, &bearer, ISSUED - 61), "InvalidProviderToken");
        for (at, says) in [(ISSUED - 60, ""), (ISSUED + 3600, ""), (ISSUED + 3601, "ExpiredProviderToken")] {
            assert_eq!(check(&mut shown, &keys, &bearer, at), says, "{at}");
            assert_eq!(check(&mut Shown::default(), &keys, &bearer, at), says, "{at} as the first");
        }
        let (unsigned, signature) = VECTOR.rsplit_once('.').expect("three parts");
        for bad in [
            "bearer".to_owned(),
            "bearer ".to_owned(),
            format!("basic {VECTOR}"),
            format!("bearer {unsigned}."),
            format!("bearer {unsigned}"),
            format!("bearer {unsigned}.{}", &signature[..40]),
            format!("bearer {}x.{signature}", &unsigned[..unsigned.len() - 1]),
            format!("bearer {VECTOR}="),
        ] {
            assert_eq!(check(&mut Shown::default(), &keys, &bad, ISSUED), "InvalidProviderToken", "{bad}");
        }
    }

    #[test]
    fn a_connection_stays_with_its_key_and_takes_few_tokens() {
        let (one, two) = (team("TEAM000001", "KEY0000001"), team("TEAM000002", "KEY0000002"));
        let token = |team: &Team, alg: &str, iat: i64| {
            let header = format!(r#"{{"alg":"{alg}","kid":"{}"}}"#, team.1.key_id);
            let claims = format!(r#"{{"iss":"{}","iat":{iat}}}"#, team.1.team_id);
            format!("Bearer {}", signed(&team.0, &header, &claims))
        };
        let [first, second, third] = [0, 1, 2].map(|n| token(&one, "ES256", ISSUED + n));
        let (other, wrong) = (token(&two, "ES256", ISSUED), token(&one, "ES384", ISSUED));
        let claims = format!(r#"{{"iss":"TEAM000002","iat":{ISSUED}}}"#);
        let mixed = format!("bearer {}", signed(&one.0, r#"{"alg":"ES256","kid":"KEY0000001"}"#, &claims));
        let keys = [one.1, two.1];
        let mut shown = Shown::default();
        for (authorization, says) in [
            (&wrong, "InvalidProviderToken"),
            (&mixed, "InvalidProviderToken"),
            (&first, ""),
            (&other, "UnrelatedKeyIdInToken"),
            (&second, ""),
            (&third, "TooManyProviderTokenUpdates"),
            (&first, ""),
            (&second, ""),
        ] {
            assert_eq!(check(&mut shown, &keys, authorization, ISSUED), says);
        }
        assert_eq!(check(&mut Shown::default(), &keys, &other, ISSUED), "");
        assert!(!unsigned(&first).contains(first.rsplit_once('.').expect("three parts").1));
    }
}
