//! The provider token: a JWT (ES256) that proves the team's key, shared by everything that is sent with it.

use std::sync::{Arc, Mutex, PoisonError};

use base64::{Engine as _, prelude::BASE64_URL_SAFE_NO_PAD};
use domain::Secret;
use hyper::header::HeaderValue;
use ring::{
    rand::SystemRandom,
    signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair},
};
use tokio_rustls::rustls::pki_types::{PrivatePkcs8KeyDer, pem::PemObject as _};

/// Seconds after which a token is renewed. Apple takes one for an hour, and advises to use most of it.
const LIFE: i64 = 50 * 60;
/// Seconds within which Apple takes one new token.
const APART: i64 = 20 * 60;
/// Seconds that a clock may go back before tokens count as made in the future.
const SLEW: i64 = 60;

/// What stands in `authorization`.
#[derive(Debug)]
pub(super) struct Token {
    /// `bearer` and the JWT; sensitive, so neither printed nor put into a compression table.
    pub(super) header: HeaderValue,
    minted: i64,
    serial: u64,
}

/// Makes the tokens of one team and key.
pub(super) struct Tokens {
    key: EcdsaKeyPair,
    random: SystemRandom,
    /// The JWT's header, encoded.
    head: String,
    team: String,
    /// Minting takes some 50 µs, so whoever holds the lock does it and the others wait: one flight.
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    current: Option<Arc<Token>>,
    /// When a token was last renewed before its time, or Apple said that there were too many.
    forced: Option<i64>,
}

impl Tokens {
    /// With a key in PEM (PKCS#8, P-256). Errors: what is wrong with the account.
    pub(super) fn new(team: &str, key_id: &str, key: &Secret) -> Result<Self, &'static str> {
        let plain = |id: &str| id.len() == 10 && id.bytes().all(|b| b.is_ascii_alphanumeric());
        if !plain(team) || !plain(key_id) {
            return Err("the account's team_id and key_id have 10 letters and digits each");
        }
        const WRONG: &str = "the account's private_key is no P-256 key in PEM (PKCS#8)";
        let der = PrivatePkcs8KeyDer::from_pem_slice(key.expose().as_bytes()).map_err(|_| WRONG)?;
        let random = SystemRandom::new();
        let key = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, der.secret_pkcs8_der(), &random);
        let key = key.map_err(|_| WRONG)?;
        Ok(Self::with(team, key_id, key, random))
    }

    fn with(team: &str, key_id: &str, key: EcdsaKeyPair, random: SystemRandom) -> Self {
        let head = BASE64_URL_SAFE_NO_PAD.encode(format!(r#"{{"alg":"ES256","kid":"{key_id}"}}"#));
        Self { key, random, head, team: team.to_owned(), state: Mutex::default() }
    }

    /// The token to use at `now` (seconds since 1970), renewed when it is old. `None`: the machine has no random numbers.
    pub(super) fn current(&self, now: i64) -> Option<Arc<Token>> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(token) = &state.current
            && (-SLEW..LIFE).contains(&(now - token.minted))
        {
            return Some(token.clone());
        }
        self.mint(&mut state, now)
    }

    /// The token to use after Apple said that `used` is too old: a newer one if there is one by now, else a new one. `None`:
    /// one was renewed before its time less than 20 minutes ago; another would only be one too many.
    pub(super) fn renewed(&self, used: &Token, now: i64) -> Option<Arc<Token>> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(token) = state.current.as_ref().filter(|t| t.serial != used.serial) {
            return Some(token.clone());
        }
        if state.forced.is_some_and(|at| (0..APART).contains(&(now - at))) {
            return None;
        }
        state.forced = Some(now);
        self.mint(&mut state, now)
    }

    /// Apple counted too many new tokens: the current one stays.
    pub(super) fn too_many(&self, now: i64) {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).forced = Some(now);
    }

    /// Whether nobody would miss it if it were made again.
    pub(super) fn is_old(&self, now: i64) -> bool {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.current.as_ref().is_none_or(|t| !(-SLEW..LIFE).contains(&(now - t.minted)))
    }

    fn mint(&self, state: &mut State, now: i64) -> Option<Arc<Token>> {
        let jwt = self.sign(now)?;
        let mut header = HeaderValue::try_from(format!("bearer {jwt}")).ok()?;
        header.set_sensitive(true);
        let serial = state.current.as_ref().map_or(0, |t| t.serial + 1);
        let token = Arc::new(Token { header, minted: now, serial });
        state.current = Some(token.clone());
        Some(token)
    }

    fn sign(&self, now: i64) -> Option<String> {
        let claims = BASE64_URL_SAFE_NO_PAD.encode(format!(r#"{{"iss":"{}","iat":{now}}}"#, self.team));
        let signed = format!("{}.{claims}", self.head);
        let signature = self.key.sign(&self.random, signed.as_bytes()).ok()?;
        Some(format!("{signed}.{}", BASE64_URL_SAFE_NO_PAD.encode(signature)))
    }
}

#[cfg(test)]
mod tests {
    use std::thread;

    use ring::signature::{ECDSA_P256_SHA256_FIXED, UnparsedPublicKey};

    use super::*;

    /// RFC 6979 A.2.5: public knowledge.
    const POINT: &str = "BGD-1LolWp0xyWHrdMY1bWjASbiSO2H6bOZpYi5g8p-2eQP-EAi4vJmkGunpVii8ZPLxsgwtfp9Rd6PClNRGIpk";
    /// The vector of the push notes: another signer's signature of the same words.
    const VECTOR: &str = "eyJhbGciOiJFUzI1NiIsImtpZCI6IkFCQzEyM0RFRkcifQ.\
        eyJpc3MiOiJERUYxMjNHSElKIiwiaWF0IjoxNzAwMDAwMDAwfQ.\
        2UY659mmI-kanULhIhaMxVcDTuhgEKDVmwBbnsFzr682dQD2KtgLureLuXr5iR8ZNdjyMvuVEgiueFbGDam53A";

    fn point() -> Vec<u8> {
        BASE64_URL_SAFE_NO_PAD.decode(POINT).expect("base64")
    }

    fn tokens() -> Tokens {
        let scalar = "c9afa9d845ba75166b5c215767b1d6934e50c3db36e89b127b8a622b120f6721";
        let scalar: Vec<u8> =
            (0..32).map(|i| u8::from_str_radix(&scalar[2 * i..2 * i + 2], 16).expect("hex")).collect();
        let random = SystemRandom::new();
        let alg = &ECDSA_P256_SHA256_FIXED_SIGNING;
        let key = EcdsaKeyPair::from_private_key_and_public_key(alg, &scalar, &point(), &random).expect("key");
        Tokens::with("DEF123GHIJ", "ABC123DEFG", key, random)
    }

    fn verifies(jwt: &str) -> bool {
        let (signed, signature) = jwt.rsplit_once('.').expect("three parts");
        let signature = BASE64_URL_SAFE_NO_PAD.decode(signature).expect("base64 without padding");
        UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, point()).verify(signed.as_bytes(), &signature).is_ok()
    }

    #[test]
    fn tokens_are_those_of_the_vector() {
        let tokens = tokens();
        let token = tokens.current(1_700_000_000).expect("random numbers");
        assert!(token.header.is_sensitive() && !format!("{token:?}").contains("eyJ"));
        let jwt = token.header.to_str().expect("text").strip_prefix("bearer ").expect("lower case");
        assert_eq!(jwt.rsplit_once('.').expect("parts").0, VECTOR.rsplit_once('.').expect("parts").0);
        assert!(verifies(VECTOR) && verifies(jwt));
        assert!(!verifies(&jwt.replace("ey", "ez")));
    }

    #[test]
    fn a_token_is_renewed_at_50_minutes_and_when_the_clock_jumps() {
        let (tokens, at) = (tokens(), 1_700_000_000);
        let serial = |now| tokens.current(now).expect("token").serial;
        let serials = [at, at + 1, at - 30, at + 2999, at + 3000, at + 5999, at + 6000, at].map(serial);
        assert_eq!(serials, [0, 0, 0, 0, 1, 1, 2, 3]);
        assert!(!tokens.is_old(at + 2999) && tokens.is_old(at + 3000));
    }

    /// Row 22 of the catalogue (reliability.md, section 7).
    #[test]
    fn a_thousand_expiries_are_one_renewal_and_the_next_has_to_wait() {
        let (tokens, at) = (tokens(), 1_700_000_000);
        let used = tokens.current(at).expect("token");
        let renewed: Vec<_> = thread::scope(|s| {
            let flights: Vec<_> = (0..8)
                .map(|_| s.spawn(|| (0..125).map(|_| tokens.renewed(&used, at + 1).expect("token").serial).collect()))
                .collect();
            flights.into_iter().flat_map(|f| f.join().unwrap_or_else(|_| Vec::<u64>::new())).collect()
        });
        assert_eq!(renewed, vec![1; 1000]);
        let newer = tokens.current(at + 2).expect("token");
        assert!(tokens.renewed(&newer, at + 1 + APART - 1).is_none(), "one in 20 minutes");
        assert_eq!(tokens.renewed(&newer, at + 1 + APART).expect("token").serial, 2);
        tokens.too_many(at + 9000);
        let newest = tokens.current(at + 9000).expect("token");
        assert!(tokens.renewed(&newest, at + 9001).is_none());
        assert_eq!(tokens.current(at + 9001).expect("token").serial, newest.serial, "it stays in use");
    }

    #[test]
    fn a_wrong_key_or_id_is_named() {
        let pem = Secret::new("-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n");
        for (team, key, part) in [
            ("DEF123GHIJ", "ABC123DEFG", "private_key"),
            ("DEF\"23GHIJ", "ABC123DEFG", "team_id"),
            ("DEF123GHIJ", "ABC", "key_id"),
        ] {
            let wrong = Tokens::new(team, key, &pem).err().expect("refused");
            assert!(wrong.contains(part), "{wrong}");
        }
    }
}
