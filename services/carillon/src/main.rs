#![doc = include_str!("../README.md")]

mod apply;
mod cli;
mod client;
mod commands;
mod conservation;
mod dead;
mod demo;
mod doctor;
mod exit;
mod output;
mod people;
mod run;
mod search;
mod standalone;
mod templates;

use clap::Parser as _;

#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> std::process::ExitCode {
    let cli = cli::Cli::parse();
    let runtime = match runtime(&cli.command) {
        Ok(runtime) => runtime,
        Err(error) => return exit::report(&error.into()),
    };
    match runtime.block_on(commands::dispatch(cli)) {
        Ok(code) => code,
        Err(error) => exit::report(&error),
    }
}

/// Who consumes has one thread for its tasks: with two, each notification takes up to a third more CPU time
/// (docs/performance.md), and another core is used better by another member of the group. `TOKIO_WORKER_THREADS` says otherwise.
fn runtime(command: &cli::Command) -> std::io::Result<tokio::runtime::Runtime> {
    use cli::Command::{Gateway, Indexer, Router};

    let mut builder = tokio::runtime::Builder::new_multi_thread();
    if matches!(command, Router | Gateway { .. } | Indexer) && std::env::var_os("TOKIO_WORKER_THREADS").is_none() {
        builder.worker_threads(1);
    }
    builder.enable_all().build()
}
