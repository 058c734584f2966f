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
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return exit::report(&error.into()),
    };
    match runtime.block_on(commands::dispatch(cli)) {
        Ok(code) => code,
        Err(error) => exit::report(&error),
    }
}
