//! `make chaos`: breaks a Carillon and says what came of it.

use std::{path::PathBuf, process::ExitCode, time::Instant};

use anyhow::Context as _;
use chaos::{Addresses, Mode, Options};
use clap::{Parser, ValueEnum};

/// Breaks a running Carillon, mends it, and checks that it kept its promises. Ends with 1 if it did not.
#[derive(Debug, Parser)]
struct Cli {
    /// All that happens follows from it; left out, a random one.
    #[arg(long)]
    seed: Option<u64>,
    /// How many things break in a run.
    #[arg(long, default_value_t = 12)]
    kills: usize,
    /// What runs.
    #[arg(long, value_enum, default_value_t = What::Standalone)]
    mode: What,
    /// So many runs, each with the next seed.
    #[arg(long, default_value_t = 1)]
    seeds: u64,
    /// A run of a minute, on engines that stay as they are.
    #[arg(long)]
    short: bool,
    /// Only prints the plans.
    #[arg(long)]
    dry_run: bool,
    /// The binary that is broken; left out, the one beside this.
    #[arg(long)]
    binary: Option<PathBuf>,
    /// The command that kills and starts engines; left out, they stay as they are.
    #[arg(long)]
    engines: Option<PathBuf>,
    /// Brokers.
    #[arg(long, env = "CARILLON_TEST_KAFKA", default_value = "")]
    kafka: String,
    /// Redis.
    #[arg(long, env = "CARILLON_TEST_REDIS", default_value = "")]
    redis: String,
    /// Cassandra.
    #[arg(long, env = "CARILLON_TEST_CASSANDRA", default_value = "")]
    cassandra: String,
    /// Elasticsearch.
    #[arg(long, env = "CARILLON_TEST_ELASTICSEARCH", default_value = "")]
    elasticsearch: String,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum What {
    Cluster,
    Standalone,
    Sim,
}

#[tokio::main]
async fn main() -> ExitCode {
    match Box::pin(run(Cli::parse())).await {
        Ok(code) => code,
        Err(error) => {
            eprintln!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn run(cli: Cli) -> anyhow::Result<ExitCode> {
    let first = cli.seed.unwrap_or_else(|| fastrand::u64(..1_000_000));
    let red = match cli.mode {
        What::Sim => simulate(first, cli.seeds),
        What::Cluster | What::Standalone => break_for_real(&cli, first).await?,
    };
    if cli.seeds > 1 {
        let names: Vec<_> = red.iter().map(ToString::to_string).collect();
        println!("red seeds of {}: {}", cli.seeds, if red.is_empty() { "none".to_owned() } else { names.join(", ") });
    }
    Ok(if red.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// The red seeds.
async fn break_for_real(cli: &Cli, first: u64) -> anyhow::Result<Vec<u64>> {
    let mut red = Vec::new();
    for seed in first..first.saturating_add(cli.seeds) {
        let options = options(cli, seed)?;
        if cli.dry_run {
            print!("seed {seed}\n{}", options.plan());
            continue;
        }
        match Box::pin(chaos::run(options)).await {
            Ok(report) => {
                println!("{report}");
                if report.is_green() {
                    continue;
                }
            }
            // nothing can be said of this one; the others have their turn all the same
            Err(error) => println!("seed {seed}: {error:#}"),
        }
        red.push(seed);
    }
    Ok(red)
}

/// The red seeds, a hundred at most.
fn simulate(first: u64, seeds: u64) -> Vec<u64> {
    let begun = Instant::now();
    let told = chaos::sim::run_many(first, seeds, |so_far| eprintln!("{so_far} seeds, {:.0?}", begun.elapsed()));
    for (seed, violations) in &told.red {
        println!("sim seed {seed}: make chaos MODE=sim SEED={seed} SEEDS=1");
        violations.iter().for_each(|violation| println!("  VIOLATION {violation}"));
    }
    let chaos::sim::Told { seeds, deaths, accepted, unknown, red } = told;
    println!(
        "{seeds} seeds from {first} on in {:.0?}: {deaths} deaths, {accepted} accepted, {unknown} deliveries with an unknown outcome, {} seeds red",
        begun.elapsed(),
        red.len()
    );
    red.into_iter().map(|(seed, _)| seed).collect()
}

fn options(cli: &Cli, seed: u64) -> anyhow::Result<Options> {
    let mode = match cli.mode {
        What::Cluster => Mode::Cluster,
        What::Standalone => Mode::Standalone,
        What::Sim => Mode::Sim,
    };
    let engines = Addresses {
        kafka: cli.kafka.clone(),
        redis: cli.redis.clone(),
        cassandra: cli.cassandra.clone(),
        elasticsearch: cli.elasticsearch.clone(),
    };
    if mode == Mode::Cluster {
        let all = [&engines.kafka, &engines.redis, &engines.cassandra, &engines.elasticsearch];
        anyhow::ensure!(
            all.iter().all(|a| !a.is_empty()),
            "eval \"$(deploy/dev/engines env)\" says where the engines are"
        );
    }
    let beside = || Some(std::env::current_exe().ok()?.parent()?.join("carillon"));
    let binary = cli.binary.clone().or_else(beside).context("say --binary")?;
    anyhow::ensure!(binary.exists(), "{} is missing: cargo build -p carillon", binary.display());
    let binary = binary.canonicalize()?;
    let options = if cli.short {
        Options::short(seed, mode, binary, engines)
    } else {
        Options::long(seed, cli.kills, mode, binary, engines)
    };
    let breaks_engines = cli.engines.as_ref().map(|path| path.canonicalize()).transpose().context("--engines")?;
    Ok(Options { breaks_engines, ..options })
}
