//! Misbehaviour on request: at most one rule per channel, put through the control port.

use std::{collections::BTreeMap, time::Duration};

use domain::Channel;
use jiff::SignedDuration;

use crate::{
    behaviour::{self, PATIENCE},
    smtp::Phase,
};

/// The body of `PUT /behaviour`.
#[derive(Debug, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Put {
    channel: String,
    rule: Written,
}

/// A rule as it is written.
#[derive(Debug, Clone, Default, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Written {
    #[serde(skip_serializing_if = "Option::is_none")]
    status: Option<u16>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
    #[serde(
        default,
        serialize_with = "jiff::fmt::serde::duration::friendly::compact::optional",
        skip_serializing_if = "Option::is_none"
    )]
    delay: Option<SignedDuration>,
    #[serde(
        default,
        serialize_with = "jiff::fmt::serde::duration::friendly::compact::optional",
        skip_serializing_if = "Option::is_none"
    )]
    jitter: Option<SignedDuration>,
    #[serde(default = "always")]
    rate: f64,
    #[serde(default)]
    drop: bool,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    goaway: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    max_streams: Option<u32>,
    #[serde(default)]
    path: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    phase: Option<Phase>,
}

const fn always() -> f64 {
    1.0
}

/// What a rule does to a request that it strikes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Rule {
    /// The status of HTTP, or the reply code of SMTP.
    pub(crate) status: Option<u16>,
    /// APNs' reason, or the text of an SMTP reply.
    pub(crate) reason: Option<String>,
    /// Wait so long first.
    pub(crate) delay: Option<Duration>,
    /// Close the connection without an answer.
    pub(crate) drop: bool,
    /// APNs: send GOAWAY and do not process it.
    pub(crate) goaway: bool,
    /// APNs: allow so many streams from now on.
    pub(crate) max_streams: Option<u32>,
}

/// A checked rule and the number of requests that it was asked about.
struct Active {
    written: Written,
    rule: Rule,
    jitter: Duration,
    asked: u64,
}

#[derive(Default)]
pub(crate) struct Rules(BTreeMap<Channel, Active>);

impl Rules {
    pub(crate) fn put(&mut self, Put { channel, rule: written }: Put) -> Result<(), String> {
        let channel = Channel::parse(&channel)?;
        let rule = written.check(channel)?;
        let jitter = span(written.jitter)?.unwrap_or_default();
        self.0.insert(channel, Active { written, rule, jitter, asked: 0 });
        Ok(())
    }

    pub(crate) fn clear(&mut self) {
        self.0.clear();
    }

    pub(crate) fn shown(&self) -> BTreeMap<&'static str, Written> {
        self.0.iter().map(|(channel, active)| (channel.as_str(), active.written.clone())).collect()
    }

    /// What is to be done to a request, if the channel's rule strikes it.
    pub(crate) fn strike(&mut self, channel: Channel, path: &str) -> Option<Rule> {
        self.strike_in(channel, Phase::default(), path)
    }

    /// The same for a part of a request.
    pub(crate) fn strike_in(&mut self, channel: Channel, phase: Phase, path: &str) -> Option<Rule> {
        let matches = |w: &Written| w.phase.unwrap_or_default() == phase && path.starts_with(&w.path);
        let active = self.0.get_mut(&channel).filter(|a| matches(&a.written))?;
        active.asked += 1;
        if share(active.asked) >= active.written.rate {
            return None;
        }
        let mut rule = active.rule.clone();
        if !active.jitter.is_zero() {
            // another sequence than the one that chose the request
            rule.delay = Some(rule.delay.unwrap_or_default() + active.jitter.mul_f64(share(!active.asked)));
        }
        Some(rule)
    }
}

impl Written {
    fn check(&self, channel: Channel) -> Result<Rule, String> {
        if !(0.0..=1.0).contains(&self.rate) {
            return Err("`rate` is 0 to 1".into());
        }
        if self.status.is_some_and(|s| behaviour::status(&s.to_string()).is_none()) {
            return Err("`status` is 200 to 599".into());
        }
        if channel != Channel::Apns && (self.goaway || self.max_streams.is_some()) {
            return Err("`goaway` and `max_streams` are for apns".into());
        }
        if channel != Channel::Email && self.phase.is_some() {
            return Err("`phase` is for email".into());
        }
        if channel == Channel::Webhook && self.reason.is_some() {
            return Err("`reason` is for apns and email".into());
        }
        if self.reason.as_ref().is_some_and(|r| r.len() > 200 || r.chars().any(char::is_control)) {
            return Err("`reason` is at most 200 characters on one line".into());
        }
        if self.reason.is_some() && self.status.is_none() {
            return Err("`reason` goes with `status`".into());
        }
        let rule = Rule {
            status: self.status,
            reason: self.reason.clone(),
            delay: span(self.delay)?,
            drop: self.drop,
            goaway: self.goaway,
            max_streams: self.max_streams,
        };
        if rule == Rule::default() && self.jitter.is_none() {
            return Err("a rule has `status`, `delay`, `jitter`, `drop`, `goaway` or `max_streams`".into());
        }
        Ok(rule)
    }
}

fn span(written: Option<SignedDuration>) -> Result<Option<Duration>, String> {
    let wrong = "`delay` and `jitter` are 0s to 60s";
    let span = written.map(Duration::try_from).transpose().map_err(|_| wrong)?;
    if span.is_some_and(|s| s > PATIENCE) { Err(wrong.into()) } else { Ok(span) }
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
    use axum::http::StatusCode;

    use super::*;
    use crate::behaviour::{Act, End};

    fn put(rules: &mut Rules, json: &str) -> Result<(), String> {
        rules.put(serde_json::from_str(json).map_err(|e| e.to_string())?)
    }

    #[test]
    fn a_rule_strikes_its_share_and_the_same_ones_again() {
        let strikes = || {
            let mut rules = Rules::default();
            let json = r#"{"channel": "webhook", "rule": {"status": 500, "rate": 0.25, "path": "/hook/ok/"}}"#;
            put(&mut rules, json).expect("valid");
            let mut struck = |path| rules.strike(Channel::Webhook, path).is_some_and(|r| r.status == Some(500));
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
        let bent = Act::answer(StatusCode::OK, "").bent(rules.strike(Channel::Webhook, "/hook/ok"));
        assert_eq!(bent, Act { delay: Duration::from_millis(300), end: End::Drop });
        let spread = r#"{"channel": "apns", "rule": {"delay": "20ms", "jitter": "10ms"}}"#;
        put(&mut rules, spread).expect("valid");
        for _ in 0..100 {
            let delay = rules.strike(Channel::Apns, "/3/device/00").and_then(|r| r.delay).expect("a delay");
            assert!((Duration::from_millis(20)..Duration::from_millis(30)).contains(&delay), "{delay:?}");
        }
    }
}
