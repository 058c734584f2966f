//! What happened to a delivery so far. The envelope carries it, so the last event holds the whole trace.

use jiff::Timestamp;

use crate::{Outcome, Reason, State};

/// Steps in the order in which they happened.
#[derive(Debug, Clone, PartialEq, Eq, Default, serde::Serialize, serde::Deserialize)]
#[serde(transparent)]
pub struct History(pub Vec<Step>);

/// One step: a state that was reached or an attempt that was made.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Step {
    /// When.
    pub at: Timestamp,
    /// The state from then on.
    pub state: State,
    /// Why.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<Reason>,
    /// What the provider was asked and what it said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attempt: Option<Attempt>,
}

/// One request to a provider.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Attempt {
    /// 1 for the first.
    pub number: u32,
    /// `sent`, `transient`, `address_gone`, `rejected`, `misconfigured` or `unknown`.
    pub outcome: String,
    /// The provider's answer in its own words, at most 200 characters; no address, no content.
    pub answer: String,
    /// From the first byte out to the verdict, in milliseconds.
    pub took_ms: u64,
}

impl History {
    /// Adds a step without an attempt.
    pub fn reached(&mut self, at: Timestamp, state: State, reason: Option<Reason>) {
        self.0.push(Step { at, state, reason, attempt: None });
    }

    /// Adds an attempt and the state after it.
    pub fn attempted(&mut self, at: Timestamp, state: State, reason: Option<Reason>, attempt: Attempt) {
        self.0.push(Step { at, state, reason, attempt: Some(attempt) });
    }

    /// The number of attempts so far.
    pub fn attempts(&self) -> u32 {
        u32::try_from(self.0.iter().filter(|s| s.attempt.is_some()).count()).unwrap_or(u32::MAX)
    }

    /// The number of attempts since an operator last sent it on its way again, or since the beginning.
    pub fn tries(&self) -> u32 {
        let since = self.0.iter().rposition(|s| s.reason == Some(Reason::Redriven)).unwrap_or_default();
        u32::try_from(self.0[since..].iter().filter(|s| s.attempt.is_some()).count()).unwrap_or(u32::MAX)
    }

    /// When an operator last sent it on its way again.
    pub fn redriven_at(&self) -> Option<Timestamp> {
        self.0.iter().rev().find(|s| s.reason == Some(Reason::Redriven)).map(|s| s.at)
    }

    /// Whether an attempt got no answer, so that an end without success is not certain.
    pub fn has_unknown(&self) -> bool {
        self.0.iter().filter_map(|s| s.attempt.as_ref()).any(Attempt::is_unknown)
    }

    /// Grows with every step: the external version of the index document. What follows an operator's word comes after all that
    /// was before it, even if not all of that was known to whoever gave it; a decision that is made a second time comes before
    /// the end of the first.
    pub fn version(&self) -> u64 {
        let word = self.redriven_at().map_or(0, |at| at.as_millisecond().max(0).unsigned_abs());
        word * 1000 + (self.0.len() as u64).min(999)
    }

    /// The latest step.
    pub fn last(&self) -> Option<&Step> {
        self.0.last()
    }
}

impl Attempt {
    /// Describes an attempt; the answer is cut at 200 characters and stripped of control characters.
    pub fn new(number: u32, outcome: &Outcome, answer: &str, took_ms: u64) -> Self {
        let answer = answer.chars().filter(|c| !c.is_control()).take(200).collect();
        Self { number, outcome: outcome.code().to_owned(), answer, took_ms }
    }

    /// The request left and no answer came.
    pub fn is_unknown(&self) -> bool {
        self.outcome == Outcome::Unknown.code()
    }
}
