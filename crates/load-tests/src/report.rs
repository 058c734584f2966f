//! What came of the rows: figures, the report as JSON, a table.

use std::{fmt::Write as _, path::Path};

use anyhow::Context as _;

use crate::{
    harness::{Sample, Side},
    machine,
};

/// A row of the report.
#[derive(Debug, Clone, serde::Serialize)]
pub struct Figure {
    /// Of the row.
    pub name: String,
    /// The median of the rounds' ratios; more is better.
    pub ratio: f64,
    /// What was promised.
    pub at_least: f64,
    /// From the least of the rounds' ratios to the greatest.
    pub spread: f64,
    /// The median, in `unit`.
    pub ours: f64,
    /// The median, in `unit`.
    pub baseline: f64,
    /// Of both.
    pub unit: &'static str,
    /// The median, in microseconds of CPU time for one operation.
    #[serde(skip)]
    pub cpu_us: (f64, f64),
}

/// Which way is better.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Better {
    /// A rate.
    More,
    /// A time, a size.
    Less,
}

impl Figure {
    /// Compares two sides round by round.
    pub fn of(name: &str, unit: &'static str, better: Better, at_least: f64, ours: &Side, baseline: &Side) -> Self {
        let ratio =
            |(a, b): (&Sample, &Sample)| if better == Better::More { a.value / b.value } else { b.value / a.value };
        let ratios: Vec<f64> = ours.samples.iter().zip(&baseline.samples).map(ratio).collect();
        let of = |side: &Side, get: fn(&Sample) -> f64| median(side.samples.iter().map(get).collect());
        let (least, greatest) = ratios.iter().fold((f64::MAX, f64::MIN), |(l, g), r| (l.min(*r), g.max(*r)));
        Self {
            name: name.to_owned(),
            ratio: median(ratios),
            at_least,
            spread: greatest - least,
            ours: of(ours, |s| s.value),
            baseline: of(baseline, |s| s.value),
            unit,
            cpu_us: (of(ours, |s| s.cpu_us), of(baseline, |s| s.cpu_us)),
        }
    }

    /// Whether it is as good as promised.
    pub fn is_met(&self) -> bool {
        self.ratio >= self.at_least
    }
}

/// The middle one, or what lies between the middle two; not a number if there is none.
pub fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    match values.len() {
        0 => f64::NAN,
        n if n % 2 == 1 => values[n / 2],
        n => f64::midpoint(values[n / 2 - 1], values[n / 2]),
    }
}

/// The value below which that share of the sorted values lies.
pub fn percentile(sorted: &[u64], share: f64) -> u64 {
    let rank = (sorted.len() as f64 * share).ceil() as usize;
    sorted.get(rank.saturating_sub(1)).copied().unwrap_or_default()
}

/// For people. With what was stolen, in ticks, and how long reads of [`machine::FAR`] waited, in nanoseconds.
pub fn table(figures: &[Figure], stolen: u64, mut far: Vec<f64>) -> String {
    let mut text = String::new();
    for (what, is) in machine::describe() {
        let _infallible = writeln!(text, "{what:12} {is}");
    }
    let _infallible = writeln!(text, "{:12} {} ms in all", "steal", stolen * 10);
    far.sort_by(f64::total_cmp);
    if let (Some(least), Some(most)) = (far.first(), far.last()) {
        let (least, most, middle) = (short(*least), short(*most), short(median(far.clone())));
        let _infallible = writeln!(
            text,
            "{:12} {least} to {most} ns, median {middle}: a read somewhere in {} MB, before each row",
            "far reads",
            machine::FAR / 1_000_000
        );
    }
    let _infallible = writeln!(
        text,
        "\n{:24} {:>8} {:>8} {:>7} {:>12} {:>12} {:28} {:>18}",
        "row", "ratio", "at least", "spread", "ours", "baseline", "unit", "CPU µs each"
    );
    for f in figures {
        let verdict = if f.is_met() { "" } else { "  MISSED" };
        let cpu = format!("{} / {}", short(f.cpu_us.0), short(f.cpu_us.1));
        let _infallible = writeln!(
            text,
            "{:24} {:>8.2} {:>8} {:>7.2} {:>12} {:>12} {:28} {cpu:>18}{verdict}",
            f.name,
            f.ratio,
            f.at_least,
            f.spread,
            short(f.ours),
            short(f.baseline),
            f.unit
        );
    }
    text
}

fn short(value: f64) -> String {
    if value.is_nan() {
        "-".to_owned()
    } else if value.abs() >= 100.0 {
        format!("{value:.0}")
    } else {
        format!("{value:.1}")
    }
}

/// Writes `report.json`, and beside it the table and every single measurement.
pub fn write(dir: &Path, figures: &[Figure], sides: &[(String, Vec<Side>)], table: &str) -> anyhow::Result<()> {
    std::fs::create_dir_all(dir).with_context(|| format!("cannot make {}", dir.display()))?;
    let rounds: serde_json::Map<_, _> = sides
        .iter()
        .map(|(row, sides)| Ok((row.clone(), serde_json::to_value(sides)?)))
        .collect::<anyhow::Result<_>>()?;
    for (name, text) in [
        ("report.json", serde_json::to_string_pretty(figures)?),
        ("rounds.json", serde_json::to_string_pretty(&rounds)?),
        ("report.txt", table.to_owned()),
    ] {
        let path = dir.join(name);
        std::fs::write(&path, text + "\n").with_context(|| format!("cannot write {}", path.display()))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn side(values: &[f64]) -> Side {
        Side { name: "x", samples: values.iter().map(|v| Sample { value: *v, cpu_us: 2.0 * v }).collect() }
    }

    #[test]
    fn the_median_of_the_ratios_counts() {
        let (ours, baseline) = (side(&[90.0, 80.0, 10.0]), side(&[100.0, 100.0, 100.0]));
        let more = Figure::of("a", "x/s", Better::More, 0.8, &ours, &baseline);
        assert_eq!((more.ratio, more.ours, more.baseline), (0.8, 80.0, 100.0));
        assert!((more.spread - 0.8).abs() < 1e-9 && more.is_met() && more.cpu_us == (160.0, 200.0));
        let less = Figure::of("a", "MB", Better::Less, 1.3, &ours, &baseline);
        assert!((less.ratio - 1.25).abs() < 1e-9 && !less.is_met());
        let json = serde_json::to_value(&more).unwrap();
        let keys: Vec<_> = json.as_object().unwrap().keys().cloned().collect();
        assert_eq!(keys, ["at_least", "baseline", "name", "ours", "ratio", "spread", "unit"]);
        let none = Figure::of("a", "MB", Better::More, 0.0, &side(&[]), &side(&[]));
        assert!(!none.is_met(), "what was not measured is not met");
        let table = table(&[more, less], 0, vec![140.0, 15.0, 20.0]);
        assert!(table.contains("MISSED") && table.contains("15.0 to 140 ns, median 20.0"), "{table}");
    }

    #[test]
    fn percentiles() {
        let sorted: Vec<u64> = (1..=1000).collect();
        assert_eq!([0.5, 0.99, 1.0].map(|p| percentile(&sorted, p)), [500, 990, 1000]);
        assert_eq!(percentile(&[], 0.99), 0);
        assert_eq!((median(vec![4.0, 1.0, 3.0]), median(vec![1.0, 2.0])), (3.0, 1.5));
    }
}
