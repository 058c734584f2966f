//! Accepts connections: bounded, numbered, without Nagle, and closed when the sandbox stops.

use std::{sync::Arc, time::Duration};

use tokio::{
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

/// Most connections of a port at a time; more wait to be accepted.
const MAX_CONNECTIONS: usize = 10_000;

/// Has every connection served by `converse`, with its number from 1 on, until `stop`.
pub(crate) async fn each<F>(
    listener: TcpListener,
    stop: CancellationToken,
    tasks: TaskTracker,
    converse: impl Fn(TcpStream, u64) -> F,
) where
    F: Future<Output = ()> + Send + 'static,
{
    let permits = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    let mut number = 0_u64;
    loop {
        let accepted = tokio::select! {
            () = stop.cancelled() => return,
            accepted = accept(&listener, &permits) => accepted,
        };
        match accepted {
            Ok((stream, permit)) => {
                number += 1;
                let (conversation, stop) = (converse(stream, number), stop.clone());
                tasks.spawn(async move {
                    tokio::select! {
                        () = stop.cancelled() => {}
                        () = conversation => {}
                    }
                    drop(permit);
                });
            }
            Err(error) => {
                // out of file descriptors: others have to close first
                tracing::warn!(%error, "cannot accept a connection");
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
    }
}

async fn accept(
    listener: &TcpListener,
    permits: &Arc<Semaphore>,
) -> std::io::Result<(TcpStream, OwnedSemaphorePermit)> {
    let permit = permits.clone().acquire_owned().await.map_err(std::io::Error::other)?;
    let (stream, _) = listener.accept().await?;
    stream.set_nodelay(true)?;
    Ok((stream, permit))
}
