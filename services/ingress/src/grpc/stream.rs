//! Any number of notifications in one call: answered one by one, in order, and no faster than the client reads.

use std::sync::Arc;

use ::grpc::{
    SendStreamRequest, item_status,
    v1::{SendStreamResponse, send_stream_response::Result as Outcome},
};
use domain::NotificationId;
use futures::{
    FutureExt as _, StreamExt as _,
    future::{BoxFuture, ready},
    stream::{self, BoxStream},
};
use tokio::{
    sync::{OwnedSemaphorePermit, mpsc},
    time::{Duration, Instant, sleep},
};
use tonic::{Status, Streaming};
use tracing::Instrument as _;

use super::{
    call::Call,
    edge,
    service::{Service, draft, one, read_item},
};
use crate::{
    now,
    problem::{Kind, Problem},
};

/// Answers of one stream that are being worked for, or wait to be read.
const ANSWERS: usize = 32;
/// How long an item waits when too much is on its way to the log.
const PAUSE: Duration = Duration::from_millis(50);

/// What a stream tells of one item; an error is the end of it.
pub(super) type Answer = Result<SendStreamResponse, Status>;

/// Begins to take items over.
pub(super) fn open(
    service: Service,
    call: Call,
    items: Streaming<SendStreamRequest>,
) -> Result<BoxStream<'static, Answer>, Status> {
    call.may_send().map_err(|p| call.refuse(&p))?;
    let place = service.streams.clone().try_acquire_owned().map_err(|_| {
        call.refuse(&Problem::new(Kind::Unavailable, "too many streams are open; nothing was done, open it again"))
    })?;
    let (answers, read) = mpsc::channel(ANSWERS);
    tokio::spawn(pump(service, Arc::new(call), items, answers, place).in_current_span());
    let answers = stream::unfold(read, |mut read| async move { read.recv().await.map(|answer| (answer, read)) });
    Ok(answers.then(|answer: BoxFuture<'static, Answer>| answer).boxed())
}

/// Reads an item when there is room for its answer, until there are no more, the client is gone, or this process ends.
async fn pump(
    service: Service,
    call: Arc<Call>,
    mut items: Streaming<SendStreamRequest>,
    answers: mpsc::Sender<BoxFuture<'static, Answer>>,
    _place: OwnedSemaphorePermit,
) {
    loop {
        // a client that does not read its answers waits here, and takes nobody's place
        let Ok(room) = answers.reserve().await else { return };
        let end = tokio::select! {
            biased;
            () = service.shutdown.cancelled() => call.refuse(&Problem::new(
                Kind::Unavailable,
                "this process is ending; what has no answer was not taken, send it again",
            )),
            () = answers.closed() => return,
            item = items.message() => match item {
                Ok(Some(item)) => {
                    // never closed
                    let Ok(place) = service.items.clone().acquire_owned().await else { return };
                    let work = tokio::spawn(work(service.clone(), call.clone(), item, place).in_current_span());
                    room.send(work.map(|answer| answer.unwrap_or_else(|e| Err(fault(&e)))).boxed());
                    continue;
                }
                Ok(None) => return,
                Err(status) => edge::unread(&status).map_or(status, |problem| call.refuse(&problem)),
            },
        };
        return room.send(ready(Err(end)).boxed());
    }
}

fn fault(error: &tokio::task::JoinError) -> Status {
    tracing::error!(%error, "an item of a stream was dropped");
    Status::internal("an unexpected fault; whether this item was taken is open")
}

/// On a task of its own, so that it ends whoever reads.
async fn work(service: Service, call: Arc<Call>, item: SendStreamRequest, _place: OwnedSemaphorePermit) -> Answer {
    call.may_still_send(&service.ingress).map_err(|p| call.refuse(&p))?;
    let outcome = match take(&service, &call, item).await {
        Ok(id) => Outcome::Id(id.to_string()),
        Err(problem) => Outcome::Error(item_status(&call.refuse(&problem))),
    };
    Ok(SendStreamResponse { result: Some(outcome) })
}

async fn take(service: &Service, call: &Call, item: SendStreamRequest) -> Result<NotificationId, Problem> {
    let tenant = call.may_send()?;
    let now = now();
    let request = read_item(item.notification, "")?;
    let draft = draft(&request, "", tenant, &service.ingress.config.snapshot(), now)?;
    drop(request);
    let until = Instant::now() + service.ingress.request_timeout;
    loop {
        match service.publish(vec![call.accepting(tenant, draft.clone(), now)]).await {
            // too much is on its way; nothing of this one was sent
            Err(problem) if problem.kind == Kind::Unavailable && Instant::now() < until => sleep(PAUSE).await,
            published => return one(published?.into_iter().next()),
        }
    }
}
