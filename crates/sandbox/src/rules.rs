//! Misbehaviour on request: at most one rule per channel, put through the control port.

use std::{collections::BTreeMap, time::Duration};

use axum::http::StatusCode;
use domain::Channel;
use jiff::SignedDuration;

use crate::behaviour::{self, Act, End, PATIENCE};

/// The body of `PUT /behaviour`.
#[derive(Debug, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Put {
    channel: String,
    rule: Rule,
}

/// A rule as it was put.
#[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Rule {
    #[serde(skip_serializing_if = "Option::is_none")]
    status: Option<u16>,
    #[serde(
        default,
        serialize_with = "jiff::fmt::serde::duration::friendly::compact::optional",
        skip_serializing_if = "Option::is_none"
    )]
    delay: Option<SignedDuration>,
    #[serde(default = "always")]
    rate: f64,
    #[serde(default)]
    drop: bool,
    #[serde(default)]
    path: String,
}

const fn always() -> f64 {
    1.0
}

/// A checked rule and the number of requests that it was asked about.
struct Active {
    rule: Rule,
    asked: u64,
}

#[derive(Default)]
pub(crate) struct Rules(BTreeMap<Channel, Active>);

impl Rules {
    pub(crate) fn put(&mut self, Put { channel, rule }: Put) -> Result<(), String> {
        let channel = Channel::parse(&channel)?;
        if !(0.0..=1.0).contains(&rule.rate) {
            return Err("`rate` is 0 to 1".into());
        }
        if rule.status.is_some_and(|s| behaviour::status(&s.to_string()).is_none()) {
            return Err("`status` is 200 to 599".into());
        }
        if rule.delay.is_some_and(|d| Duration::try_from(d).map_or(true, |d| d > PATIENCE)) {
            return Err("`delay` is 0s to 60s".into());
        }
        if rule.status.is_none() && rule.delay.is_none() && !rule.drop {
            return Err("a rule has `status`, `delay` or `drop`".into());
        }
        self.0.insert(channel, Active { rule, asked: 0 });
        Ok(())
    }

    pub(crate) fn clear(&mut self) {
        self.0.clear();
    }

    pub(crate) fn shown(&self) -> BTreeMap<&'static str, Rule> {
        self.0.iter().map(|(channel, active)| (channel.as_str(), active.rule.clone())).collect()
    }

    /// Bends what would be done with a request.
    pub(crate) fn bend(&mut self, channel: Channel, path: &str, act: Act) -> Act {
        let Some(Active { rule, asked }) = self.0.get_mut(&channel).filter(|a| path.starts_with(&a.rule.path)) else {
            return act;
        };
        *asked += 1;
        if share(*asked) >= rule.rate {
            return act;
        }
        let delay = rule.delay.and_then(|d| Duration::try_from(d).ok()).unwrap_or(act.delay);
        let end = match rule.status.and_then(|s| StatusCode::from_u16(s).ok()) {
            _ if rule.drop => End::Drop,
            Some(status) => End::Answer { status, header: None, text: "as the rule says" },
            None => act.end,
        };
        Act { delay, end }
    }
}

/// A fixed sequence that looks random, from 0 to below 1: `SplitMix64` of a counter.
fn share(count: u64) -> f64 {
    let mut z = count.wrapping_mul(0x9E37_79B9_7F4A_7C15);
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^= z >> 31;
    let top = u32::try_from(z >> 32).unwrap_or(u32::MAX);
    f64::from(top) / (f64::from(u32::MAX) + 1.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn put(rules: &mut Rules, json: &str) -> Result<(), String> {
        rules.put(serde_json::from_str(json).map_err(|e| e.to_string())?)
    }

    #[test]
    fn a_rule_strikes_its_share_and_the_same_ones_again() {
        let strikes = || {
            let mut rules = Rules::default();
            let json = r#"{"channel": "webhook", "rule": {"status": 500, "rate": 0.25, "path": "/hook/ok/"}}"#;
            put(&mut rules, json).expect("valid");
            let mut struck =
                |path| rules.bend(Channel::Webhook, path, Act::answer(StatusCode::OK, "")).status() == Some(500);
            assert!(!(0..100).any(|_| struck("/hook/gone")));
            (0..4000).map(|_| struck("/hook/ok/x")).collect::<Vec<_>>()
        };
        let first = strikes();
        let count = first.iter().filter(|s| **s).count();
        assert!((900..1100).contains(&count), "{count} of 4000");
        assert_eq!(first, strikes());
    }

    #[test]
    fn rules_are_checked() {
        let mut rules = Rules::default();
        for (rule, says) in [
            (r#"{"rate": 1.0}"#, "has `status`"),
            (r#"{"status": 700}"#, "200 to 599"),
            (r#"{"drop": true, "rate": 1.5}"#, "0 to 1"),
            (r#"{"delay": "2m"}"#, "60s"),
            (r#"{"delay": "-1s"}"#, "60s"),
            (r#"{"goaway": true}"#, "goaway"),
        ] {
            let error = put(&mut rules, &format!(r#"{{"channel": "webhook", "rule": {rule}}}"#)).expect_err(rule);
            assert!(error.contains(says), "{error}");
        }
        assert!(put(&mut rules, r#"{"channel": "pigeon", "rule": {"drop": true}}"#).is_err());
        put(&mut rules, r#"{"channel": "webhook", "rule": {"drop": true, "delay": "300ms"}}"#).expect("valid");
        let bent = rules.bend(Channel::Webhook, "/hook/ok", Act::answer(StatusCode::OK, ""));
        assert_eq!(bent, Act { delay: Duration::from_millis(300), end: End::Drop });
    }
}
