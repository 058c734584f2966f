#![doc = include_str!("../README.md")]

mod bare;
mod cluster;
mod counted;
mod deployment;
mod fixture;
mod harness;
mod machine;
mod peer;
mod peers;
mod plot;
mod report;
mod rows;

use std::{
    path::PathBuf,
    process::ExitCode,
    sync::OnceLock,
    time::{Duration, Instant},
};

use anyhow::{Context as _, ensure};
use clap::Parser;
use tracing_subscriber::filter::LevelFilter;

use crate::{
    harness::{Bench, Effort, Engines},
    rows::{Outcomes, ROWS, Row},
};

/// The product's, so that what is compared has the same.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// How fast Carillon is, as a ratio to the raw parts that it is made of.
///
/// Ends with 1 if a row misses its number or cannot be measured.
#[derive(Debug, Parser)]
#[command(args_conflicts_with_subcommands = true)]
struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
    /// Rows; all of them when none is named.
    names: Vec<String>,
    /// Only whether it runs: two short rounds, whose figures mean nothing.
    #[arg(long)]
    quick: bool,
    /// How often each side is measured.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u8).range(1..=50))]
    rounds: u8,
    /// Seconds of one measurement.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u8).range(1..=60))]
    seconds: u8,
    /// Minutes after which no measurement begins any more.
    #[arg(long, default_value_t = 60)]
    limit: u64,
    /// For the report, and for data.
    #[arg(long, default_value = "target/bench", value_name = "DIR")]
    dir: PathBuf,
    /// Only ours, for a profiler: there is no ratio.
    #[arg(long)]
    ours: bool,
    /// Only says whether the rows need engines: 0 if they do, 1 if not.
    #[arg(long)]
    needs_engines: bool,
    #[command(flatten)]
    engines: Engines,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Prints the names of the rows.
    Rows,
    /// The other side of what is measured, until stdin ends.
    #[command(hide = true)]
    Peer {
        #[command(subcommand)]
        kind: peers::Kind,
    },
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let done = match &cli.command {
        Some(Command::Rows) => {
            ROWS.iter().flat_map(|row| row.names).for_each(|name| println!("{name}"));
            Ok(true)
        }
        Some(Command::Peer { kind }) => peers::run(kind).map(|()| true),
        None if cli.needs_engines => chosen(&cli.names).map(|rows| rows.iter().any(|row| row.engines)),
        None => bench(&cli),
    };
    match done {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("{error:#}");
            ExitCode::from(2)
        }
    }
}

/// Runs the rows and reports. `false`: a number was missed, or a row could not be measured.
fn bench(cli: &Cli) -> anyhow::Result<bool> {
    tracing_subscriber::fmt().with_writer(std::io::stderr).with_ansi(false).with_max_level(LevelFilter::WARN).init();
    let rows = chosen(&cli.names)?;
    std::fs::create_dir_all(&cli.dir).with_context(|| format!("cannot make {}", cli.dir.display()))?;
    let bench = Bench {
        effort: effort(cli),
        engines: cli.engines.clone(),
        carillon: std::env::current_exe()?.with_file_name("carillon"),
        dir: cli.dir.canonicalize()?,
        until: Instant::now() + Duration::from_secs(60 * cli.limit),
        ours_only: cli.ours,
        own: format!("lt{:08x}", fastrand::u32(..)),
        populated: OnceLock::new(),
    };
    let (mut all, mut failed) = (Outcomes::default(), Vec::new());
    let (stolen, mut far) = (machine::stolen(), Vec::new());
    for row in rows {
        eprintln!("{}", row.names.join(", "));
        far.push(machine::far_read(machine::FAR));
        match (row.run)(&bench) {
            Ok(outcomes) => {
                all.figures.extend(outcomes.figures.into_iter().filter(|_| !cli.ours));
                all.sides.extend(outcomes.sides);
                all.curves.extend(outcomes.curves);
            }
            Err(error) => failed.push(format!("{}: not measured: {error:#}", row.names.join(", "))),
        }
    }
    if bench.populated.get().is_some()
        && let Err(error) = harness::threads()?.block_on(cluster::forget(&bench))
    {
        eprintln!("the keyspace {} stays behind: {error:#}", bench.own);
    }
    let table = report::table(&all.figures, machine::stolen() - stolen, far);
    let table = all.curves.iter().fold(table, |table, curve| format!("{table}\n{}", curve.table()));
    report::write(&bench.dir, &all.figures, &all.sides, &table)?;
    for curve in &all.curves {
        std::fs::write(bench.dir.join(format!("{}.svg", curve.name)), curve.svg())?;
    }
    println!("\n{table}");
    failed.iter().for_each(|line| println!("{line}"));
    Ok(failed.is_empty() && all.figures.iter().all(report::Figure::is_met))
}

fn effort(cli: &Cli) -> Effort {
    if cli.quick {
        return Effort { rounds: 2, warm: Duration::from_millis(100), time: Duration::from_millis(300), share: 0.02 };
    }
    let time = Duration::from_secs(cli.seconds.into());
    Effort { rounds: cli.rounds.into(), warm: Duration::from_secs(1), time, share: 1.0 }
}

fn chosen(names: &[String]) -> anyhow::Result<Vec<Row>> {
    let known = |name: &str| ROWS.iter().any(|row| row.names.contains(&name));
    if let Some(unknown) = names.iter().find(|name| !known(name)) {
        let known: Vec<_> = ROWS.iter().flat_map(|row| row.names).copied().collect();
        anyhow::bail!("there is no row {unknown}; there are {}", known.join(", "));
    }
    let rows: Vec<_> = ROWS
        .iter()
        .filter(|row| names.is_empty() || row.names.iter().any(|name| names.iter().any(|n| n == name)))
        .copied()
        .collect();
    ensure!(!rows.is_empty(), "there are no rows");
    Ok(rows)
}
