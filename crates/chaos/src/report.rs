//! What a run has shown.

use std::{fmt, path::PathBuf};

use crate::{Mode, check::Violation, plan::Plan};

/// What was broken, when, and what was found.
#[derive(Debug)]
pub struct Report {
    /// What it was.
    pub mode: Mode,
    /// In its short form.
    pub short: bool,
    /// What was to be broken.
    pub plan: Plan,
    /// What was broken: seconds since the beginning.
    pub performed: Vec<(f64, String)>,
    /// What went on beside the plan, and is no violation.
    pub trouble: Vec<String>,
    /// How much there was to look at.
    pub counts: Vec<(&'static str, usize)>,
    /// What is wrong; nothing if all is well.
    pub violations: Vec<Violation>,
    /// Where logs and data were left, if something was found.
    pub left: Option<PathBuf>,
}

/// Violations of one claim that are shown; the rest is counted.
const SHOWN: usize = 12;

impl Report {
    /// Nothing was found.
    pub fn is_green(&self) -> bool {
        self.violations.is_empty()
    }

    /// What runs it again.
    pub fn replay(&self) -> String {
        let (mode, seed) = (self.mode, self.plan.seed);
        // what a plan is depends on the length of the run
        let form = if self.short { "SHORT=1".to_owned() } else { format!("KILLS={}", self.plan.steps.len()) };
        format!("make chaos MODE={mode} SEED={seed} {form}")
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{} seed {}: what was broken", self.mode, self.plan.seed)?;
        for (at, what) in &self.performed {
            writeln!(f, "  {at:7.3} s  {what}")?;
        }
        for trouble in &self.trouble {
            writeln!(f, "  beside the plan: {trouble}")?;
        }
        let counts: Vec<_> = self.counts.iter().map(|(what, count)| format!("{count} {what}")).collect();
        writeln!(f, "found: {}", counts.join(", "))?;
        for claim in 1..=5 {
            let of: Vec<_> = self.violations.iter().filter(|v| v.claim == claim).collect();
            for violation in of.iter().take(SHOWN) {
                writeln!(f, "  VIOLATION {violation}")?;
            }
            if of.len() > SHOWN {
                writeln!(f, "  … and {} more of claim {claim}", of.len() - SHOWN)?;
            }
        }
        match &self.left {
            Some(dir) => writeln!(f, "logs and data: {}\nagain: {}", dir.display(), self.replay()),
            None => writeln!(f, "all five claims hold; again: {}", self.replay()),
        }
    }
}
