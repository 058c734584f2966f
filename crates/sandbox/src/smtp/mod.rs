#![doc = include_str!("README.md")]

mod auth;
mod behaviour;
mod command;
mod connection;
mod memory;
mod message;
mod reply;
mod session;
#[cfg(test)]
mod tests;
mod transaction;

use std::sync::Arc;

use tokio::net::TcpListener;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

pub(crate) use reply::Phase;

use crate::{Shared, listen};

pub(crate) async fn serve(listener: TcpListener, shared: Arc<Shared>, stop: CancellationToken, tasks: TaskTracker) {
    let acceptor = match shared.tls.acceptor(&[]) {
        Ok(acceptor) => acceptor,
        Err(error) => {
            tracing::error!(%error, "the fake SMTP server has no TLS and stays closed");
            return;
        }
    };
    let memory = Arc::<memory::Memory>::default();
    let converse = |stream, number| {
        let session = session::Session::new(shared.clone(), memory.clone(), number);
        connection::converse(stream, acceptor.clone(), session)
    };
    listen::each(listener, stop, tasks, converse).await;
}
