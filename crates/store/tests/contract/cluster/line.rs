//! A line to an engine that breaks, falls silent, is slow or keeps an answer back.

use super::*;

/// Stands between a client and an engine.
pub(super) struct Line {
    pub(super) address: String,
    state: watch::Sender<Link>,
}

#[derive(Debug, Clone, PartialEq)]
pub(super) enum Link {
    Up,
    /// Connections are closed.
    Cut,
    /// Connections are taken and kept, and nothing is ever said on them again.
    Silent,
    /// Every answer comes so much later.
    Slow(Duration),
    /// The engine's answer that contains this text is kept back.
    Holding(String),
    /// It is there, and waits.
    Held,
}

impl Line {
    pub(super) async fn to(engine: &str) -> Self {
        let engine = engine.rsplit('/').next().expect("an address").to_owned();
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address").to_string();
        let (state, _) = watch::channel(Link::Up);
        let line = state.clone();
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                tokio::spawn(connection(client, engine.clone(), line.clone()));
            }
        });
        Self { address, state }
    }

    pub(super) fn set(&self, state: Link) {
        self.state.send_replace(state);
    }

    pub(super) async fn holds(&self) {
        let mut state = self.state.subscribe();
        let held = tokio::time::timeout(Duration::from_secs(10), state.wait_for(|s| *s == Link::Held)).await;
        drop(held.expect("the answer comes").expect("the line is there"));
    }
}

async fn connection(mut client: TcpStream, engine: String, line: watch::Sender<Link>) {
    let mut state = line.subscribe();
    let down = |state: &Link| matches!(state, Link::Cut | Link::Silent);
    if !down(&state.borrow()) {
        let Ok(mut server) = TcpStream::connect(&engine).await else { return };
        let (mut from_client, mut to_client) = client.split();
        let (mut from_server, mut to_server) = server.split();
        tokio::select! {
            _ = tokio::io::copy(&mut from_client, &mut to_server) => return,
            _ = answers(&mut from_server, &mut to_client, &line) => return,
            _ = state.wait_for(down) => {}
        }
    }
    let silent = *state.borrow() == Link::Silent;
    if silent {
        std::future::pending::<()>().await;
    }
}

async fn answers(
    server: &mut (impl AsyncReadExt + Unpin),
    client: &mut (impl AsyncWriteExt + Unpin),
    line: &watch::Sender<Link>,
) -> std::io::Result<()> {
    let mut buffer = vec![0; 64 * 1024];
    loop {
        let read = server.read(&mut buffer).await?;
        if read == 0 {
            return Ok(());
        }
        let keep = |state: &mut Link| {
            let Link::Holding(text) = state else { return false };
            let found = buffer[..read].windows(text.len()).any(|w| w == text.as_bytes());
            if found {
                *state = Link::Held;
            }
            found
        };
        if line.send_if_modified(keep) {
            drop(line.subscribe().wait_for(|state| *state != Link::Held).await);
        }
        let slow = |state: &Link| if let Link::Slow(by) = state { Some(*by) } else { None };
        let by = slow(&line.borrow());
        if let Some(by) = by {
            // what is under way comes at once when it is no longer slow
            let mut changes = line.subscribe();
            drop(tokio::time::timeout(by, changes.wait_for(|state| slow(state).is_none())).await);
        }
        client.write_all(&buffer[..read]).await?;
    }
}

/// Settings under which Cassandra is reached over a line.
pub(super) async fn over_a_line(settings: &ClusterSettings) -> (Line, ClusterSettings) {
    let line = Line::to(&settings.cassandra[0]).await;
    let settings = ClusterSettings { cassandra: vec![line.address.clone()], ..settings.clone() };
    (line, settings)
}
