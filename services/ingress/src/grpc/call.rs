//! What is known of one call beside its message.

use axum::http::HeaderMap;
use domain::{NotificationId, TenantId, Timestamp, config::Scope};
use tonic::{Request, Status};
use wire::TraceContext;

use super::refusal;
use crate::{
    Ingress,
    auth::Caller,
    edge::RequestId,
    notifications::{publish::Accepting, request::Draft},
    problem::{Kind, Problem},
};

/// One call, of a client that is known.
pub(super) struct Call {
    method: &'static str,
    id: RequestId,
    caller: Caller,
    trace: Option<TraceContext>,
    has_idempotency_key: bool,
}

impl Call {
    /// Behind [`super::edge::keyed`] and the authentication, which leave the id and the client.
    pub(super) fn of<T>(method: &'static str, request: &Request<T>) -> Result<Self, Status> {
        let extensions = request.extensions();
        let (Some(id), Some(caller)) = (extensions.get::<RequestId>(), extensions.get::<Caller>()) else {
            return Err(Status::internal("the call was not authenticated"));
        };
        let headers: &HeaderMap = request.metadata().as_ref();
        Ok(Self {
            method,
            id: id.clone(),
            caller: caller.clone(),
            trace: headers.get(TraceContext::HEADER).and_then(|h| TraceContext::parse(h.as_bytes())),
            has_idempotency_key: headers.contains_key("idempotency-key"),
        })
    }

    /// The tenant, if the key has the scope in one.
    pub(super) fn may(&self, scope: Scope) -> Result<&TenantId, Problem> {
        self.caller.may(scope)
    }

    /// The tenant of a client that may send, and asks for nothing that is not built.
    pub(super) fn may_send(&self) -> Result<&TenantId, Problem> {
        let tenant = self.may(Scope::NotificationsWrite)?;
        if self.has_idempotency_key {
            let detail = "the metadata `idempotency-key` is not yet built in this version; send the request without it";
            return Err(Problem::field("", detail));
        }
        Ok(tenant)
    }

    /// That the key, which opened a stream long ago, may still send.
    pub(super) fn may_still_send(&self, ingress: &Ingress) -> Result<(), Problem> {
        let config = ingress.config.snapshot();
        let key = config.key(&self.caller.fingerprint).filter(|(at, _)| config.tenant(&at.tenant).is_some());
        match key {
            Some((_, key)) if !key.revoked && key.scopes.contains(&Scope::NotificationsWrite) => Ok(()),
            _ => Err(Problem::new(Kind::Unauthorized, "the key was revoked or changed while the stream was open")),
        }
    }

    /// A request of this moment, with an id of its own.
    pub(super) fn accepting(&self, tenant: &TenantId, draft: Draft, at: Timestamp) -> Accepting {
        Accepting { id: NotificationId::new(at), tenant: tenant.clone(), draft, trace: self.trace, at }
    }

    /// Says no.
    pub(super) fn refuse(&self, problem: &Problem) -> Status {
        refusal::status(problem, &self.id, self.method)
    }
}
