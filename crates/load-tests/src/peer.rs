//! What is on the other side of a measured connection: this program once more, on the cores that are left to it. It ends with
//! this one, however that ends.

use std::{
    io::{BufRead as _, BufReader, Write as _},
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
};

use anyhow::{Context as _, ensure};
use serde::de::DeserializeOwned;

use crate::{
    machine::Pinned,
    peers::{Ready, Received},
};

/// The other side of what is measured: a sink or a load, in a process of its own.
#[derive(Debug)]
pub struct Peer {
    child: Child,
    ask: ChildStdin,
    answers: BufReader<ChildStdout>,
    /// Where it is.
    pub ready: Ready,
}

impl Peer {
    /// Starts this program anew as `peer ARGS…`.
    pub fn start(args: &[&str], pinned: Option<&Pinned>) -> anyhow::Result<Self> {
        let me = std::env::current_exe().context("cannot find myself")?;
        let mut command = match pinned.and_then(Pinned::others) {
            Some(cores) => {
                let mut command = Command::new("taskset");
                command.args(["-c", cores]).arg(me);
                command
            }
            None => Command::new(me),
        };
        let mut child = command
            .arg("peer")
            .args(args)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .with_context(|| format!("cannot start {args:?}"))?;
        let (ask, answers) = (child.stdin.take(), child.stdout.take());
        let (ask, answers) = (ask.context("no stdin")?, answers.context("no stdout")?);
        let ready = Ready { port: 0, ca: String::new() };
        let mut peer = Self { child, ask, answers: BufReader::new(answers), ready };
        peer.ready = peer.read()?;
        Ok(peer)
    }

    /// What it has received since it was asked last.
    pub fn received(&mut self) -> anyhow::Result<Received> {
        self.ask.write_all(b"\n").context("it has ended")?;
        self.read()
    }

    fn read<T: DeserializeOwned>(&mut self) -> anyhow::Result<T> {
        let mut line = String::new();
        ensure!(self.answers.read_line(&mut line)? > 0, "it has ended");
        serde_json::from_str(&line).context("it says something else")
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        // it may have ended by itself
        let _ended = self.child.kill();
        let _reaped = self.child.wait();
    }
}
