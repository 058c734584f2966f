//! The engines of a cluster, which are broken by the command that runs them.

use std::{path::PathBuf, process::Stdio, time::Duration};

use anyhow::Context as _;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    process::Command,
    sync::mpsc,
    task::JoinHandle,
    time::{sleep, timeout},
};

use crate::plan::Target;

/// What is done to an engine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Deed {
    /// SIGKILL.
    Kill,
    /// Back with its data.
    Start,
    /// Redis only: everything is deleted.
    Flush,
}

/// Does what it is told in that order, beside everything else: an engine takes its time to start, and the command lets only one
/// do something at a time.
pub struct Hands {
    orders: mpsc::Sender<(Target, Deed)>,
    work: JoinHandle<Vec<String>>,
}

impl Hands {
    /// `command` is `deploy/dev/engines`, `redis` the URL of Redis.
    pub fn new(command: PathBuf, redis: String) -> Self {
        let (orders, mut todo) = mpsc::channel::<(Target, Deed)>(1000);
        let work = tokio::spawn(async move {
            let mut failures = Vec::new();
            while let Some((target, deed)) = todo.recv().await {
                let done = match deed {
                    Deed::Kill => run(&command, "kill", target.name()).await,
                    Deed::Start => start(&command, target.name()).await,
                    Deed::Flush => flush(&redis).await,
                };
                if let Err(error) = done {
                    eprintln!("{deed:?} {}: {error:#}", target.name());
                    failures.push(format!("{deed:?} {}: {error:#}", target.name()));
                }
            }
            failures
        });
        Self { orders, work }
    }

    /// Gives an order.
    ///
    /// # Errors
    /// The hands are gone.
    pub async fn order(&self, target: Target, deed: Deed) -> anyhow::Result<()> {
        self.orders.send((target, deed)).await.context("nobody works on the engines any more")
    }

    /// Waits until all is done; gives what could not be done.
    pub async fn finish(self) -> Vec<String> {
        drop(self.orders);
        self.work.await.unwrap_or_else(|error| vec![error.to_string()])
    }
}

/// The ports of one that was just killed may still be taken for a moment.
async fn start(command: &std::path::Path, engine: &str) -> anyhow::Result<()> {
    let mut tries = 0;
    loop {
        tries += 1;
        match run(command, "start", engine).await {
            Err(_) if tries < 5 => sleep(Duration::from_secs(1)).await,
            done => return done,
        }
    }
}

async fn run(command: &std::path::Path, verb: &str, engine: &str) -> anyhow::Result<()> {
    let output = Command::new(command).args([verb, engine]).stdin(Stdio::null()).kill_on_drop(true).output();
    let output = timeout(Duration::from_secs(200), output).await.context("it takes too long")??;
    anyhow::ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Ok(())
}

async fn flush(url: &str) -> anyhow::Result<()> {
    let address = url.split_once("://").map_or(url, |(_, rest)| rest).trim_end_matches('/');
    let flush = async {
        let mut redis = TcpStream::connect(address).await?;
        redis.write_all(b"FLUSHALL\r\n").await?;
        let mut answer = [0; 5];
        redis.read_exact(&mut answer).await?;
        anyhow::ensure!(&answer == b"+OK\r\n", "it refuses");
        Ok(())
    };
    timeout(Duration::from_secs(5), flush).await.context("no answer")?
}
