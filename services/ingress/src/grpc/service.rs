//! The methods: each message becomes the JSON of the HTTP API, and goes the way that this goes.

use std::sync::Arc;

use ::grpc::{
    SendBatchRequest, SendStreamRequest, item_status,
    v1::{
        AcknowledgeRequest, AcknowledgeResponse, CancelRequest, CancelResponse, GetRequest, GetResponse,
        NotificationView, SendBatchResponse, SendRequest, SendResponse, SendResult,
        notification_service_server::NotificationService, send_result,
    },
};
use bus::{LogError, config::Snapshot};
use domain::{FieldErrors, NotificationId, TenantId, Timestamp, config::Scope};
use futures::stream::BoxStream;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status, Streaming};

use super::{call::Call, stream};
use crate::{
    Ingress, body,
    notifications::{
        MAX_BATCH,
        publish::{Accepting, Published, publish},
        request::{self, Draft},
        view,
    },
    now, planned,
    problem::{Kind, Problem},
};

/// Cheap to clone; all clones share the same limits.
#[derive(Clone)]
pub(super) struct Service {
    pub(super) ingress: Ingress,
    pub(super) shutdown: CancellationToken,
    /// Open at the same time.
    pub(super) streams: Arc<Semaphore>,
    /// Of streams, at work at the same time.
    pub(super) items: Arc<Semaphore>,
}

impl Service {
    pub(super) fn new(ingress: Ingress, in_flight: usize, shutdown: CancellationToken) -> Self {
        let room = |places: usize| Arc::new(Semaphore::new(places.max(1)));
        Self { ingress, shutdown, streams: room(in_flight / 2), items: room(in_flight) }
    }

    async fn take(&self, call: &Call, request: &SendRequest) -> Result<NotificationId, Problem> {
        let tenant = call.may_send()?;
        let now = now();
        let draft = draft(request, "", tenant, &self.ingress.config.snapshot(), now)?;
        one(self.publish(vec![call.accepting(tenant, draft, now)]).await?.into_iter().next())
    }

    async fn take_batch(
        &self,
        call: &Call,
        batch: SendBatchRequest,
    ) -> Result<Vec<Result<NotificationId, Problem>>, Problem> {
        let tenant = call.may_send()?;
        let count = batch.notifications.len();
        if !(1..=MAX_BATCH).contains(&count) {
            return Err(Problem::field("/notifications", format!("give 1 to 1,000 notifications, not {count}")));
        }
        let (now, config) = (now(), self.ingress.config.snapshot());
        let mut drafts = Vec::with_capacity(count);
        let parsed: Vec<Result<(), FieldErrors>> = (batch.notifications.into_iter().enumerate())
            .map(|(i, item)| {
                let at = format!("/notifications/{i}");
                let request = read_item(item, &at)?;
                draft(&request, &at, tenant, &config, now).map(|draft| drafts.push(call.accepting(tenant, draft, now)))
            })
            .collect();
        let mut published = self.publish(drafts).await?.into_iter();
        let results = parsed.into_iter().map(|item| {
            item?;
            one(published.next())
        });
        Ok(results.collect())
    }

    /// On a task of its own: a client that goes away in the middle leaves no half of a notification behind.
    pub(super) async fn publish(&self, accepting: Vec<Accepting>) -> Result<Vec<Published>, Problem> {
        let ingress = self.ingress.clone();
        let published = tokio::spawn(async move { publish(&ingress, accepting).await }).await;
        published.unwrap_or_else(|e| {
            Err(Problem { cause: Some(e.to_string()), ..Problem::new(Kind::Internal, "an unexpected fault") })
        })
    }

    async fn find(&self, call: &Call, id: &str) -> Result<NotificationView, Problem> {
        let tenant = call.may(Scope::NotificationsRead)?;
        // what is no id at all names nothing either
        let found = match id.parse::<NotificationId>() {
            Ok(id) => self.ingress.deliveries.notification(tenant, id).await?,
            Err(_) => None,
        };
        let found = found.ok_or_else(|| {
            let detail = "there is no such notification; one that was just accepted shows up within seconds";
            Problem::new(Kind::NotFound, detail)
        })?;
        let json = serde_json::to_value(view::Notification::from(found)).map_err(::grpc::NotJson::from);
        json.and_then(NotificationView::from_json).map_err(|e| Problem {
            cause: Some(e.to_string()),
            ..Problem::new(Kind::Internal, "the notification cannot be shown")
        })
    }
}

/// Checks a request as HTTP does; `at` is its own pointer.
pub(super) fn draft(
    request: &SendRequest,
    at: &str,
    tenant: &TenantId,
    config: &Snapshot,
    now: Timestamp,
) -> Result<Draft, FieldErrors> {
    let json = request.to_json().map_err(|e| wrong(at, e.to_string()))?;
    if body::has_nul(&json) {
        return Err(wrong(at, "the message holds the character NUL (U+0000), which no field takes".into()));
    }
    request::parse(&json, at, tenant, config, now)
}

/// Decodes one item of many.
pub(super) fn read_item(item: bytes::Bytes, at: &str) -> Result<SendRequest, FieldErrors> {
    SendRequest::from_item(item).map_err(|e| wrong(at, format!("the notification cannot be read: {e}")))
}

fn wrong(at: &str, detail: String) -> FieldErrors {
    let mut errors = FieldErrors::default();
    errors.add(at, detail);
    errors
}

/// What became of one.
pub(super) fn one(published: Option<Published>) -> Result<NotificationId, Problem> {
    Ok(published.ok_or_else(|| LogError::Unavailable("no answer".into())).flatten()?)
}

/// Not an answer when nothing was taken over because of the log.
fn answer(results: Vec<Result<NotificationId, Problem>>, call: &Call) -> Result<SendBatchResponse, Status> {
    let ours = results.iter().filter_map(|r| r.as_ref().err()).find(|p| p.kind != Kind::Invalid);
    if let (true, Some(problem)) = (results.iter().all(Result::is_err), ours) {
        return Err(call.refuse(problem));
    }
    let results = results.into_iter().map(|result| {
        let result = match result {
            Ok(id) => send_result::Result::Id(id.to_string()),
            Err(problem) => send_result::Result::Error(item_status(&call.refuse(&problem))),
        };
        SendResult { result: Some(result) }
    });
    Ok(SendBatchResponse { results: results.collect() })
}

#[tonic::async_trait]
impl NotificationService for Service {
    type SendStreamStream = BoxStream<'static, stream::Answer>;

    async fn send(&self, request: Request<SendRequest>) -> Result<Response<SendResponse>, Status> {
        let call = Call::of("Send", &request)?;
        let id = self.take(&call, request.get_ref()).await.map_err(|p| call.refuse(&p))?;
        Ok(Response::new(SendResponse { id: id.to_string(), state: "accepted".into() }))
    }

    async fn send_batch(&self, request: Request<SendBatchRequest>) -> Result<Response<SendBatchResponse>, Status> {
        let call = Call::of("SendBatch", &request)?;
        let results = self.take_batch(&call, request.into_inner()).await.map_err(|p| call.refuse(&p))?;
        answer(results, &call).map(Response::new)
    }

    async fn send_stream(
        &self,
        request: Request<Streaming<SendStreamRequest>>,
    ) -> Result<Response<Self::SendStreamStream>, Status> {
        let call = Call::of("SendStream", &request)?;
        let answers = stream::open(self.clone(), call, request.into_inner())?;
        Ok(Response::new(answers))
    }

    async fn get(&self, request: Request<GetRequest>) -> Result<Response<GetResponse>, Status> {
        let call = Call::of("Get", &request)?;
        let found = self.find(&call, &request.get_ref().id).await.map_err(|p| call.refuse(&p))?;
        Ok(Response::new(GetResponse { notification: Some(found) }))
    }

    async fn cancel(&self, request: Request<CancelRequest>) -> Result<Response<CancelResponse>, Status> {
        Err(Call::of("Cancel", &request)?.refuse(&planned::cancel().await))
    }

    async fn acknowledge(&self, request: Request<AcknowledgeRequest>) -> Result<Response<AcknowledgeResponse>, Status> {
        let problem = Problem::new(Kind::NotYet, "acknowledging: not yet built in this version");
        Err(Call::of("Acknowledge", &request)?.refuse(&problem))
    }
}
