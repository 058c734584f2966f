//! One request: read, checked, recorded, then treated as its token or a rule says.

use std::{
    borrow::Cow,
    future::poll_fn,
    sync::{Arc, atomic::Ordering::Relaxed},
    time::Duration,
};

use bytes::{Bytes, BytesMut};
use domain::Channel;
use h2::{RecvStream, server::SendResponse};
use http::{HeaderValue, Response, header, request::Parts};
use jiff::Timestamp;
use tokio::time::sleep;

use super::{
    Session,
    behaviour::{self, Act, Answer, End},
    check::{self, Proof, Refusal},
    token,
};
use crate::{behaviour::PATIENCE, receiver::texts, records::Reception};

/// So much of a body is read; what is longer is too large for APNs anyhow.
const ENOUGH: usize = 16 * 1024;

/// What becomes of a stream, or of the whole connection.
pub(super) enum Ended {
    Answered,
    /// Stays open without an answer until the connection closes.
    Held(RecvStream, SendResponse<Bytes>),
    Reset,
    Closed,
    Frozen,
}

/// Serves a stream.
pub(super) async fn exchange(
    session: Arc<Session>,
    head: Parts,
    mut body: RecvStream,
    mut respond: SendResponse<Bytes>,
    proof: Result<Proof, Refusal>,
) -> Ended {
    // a request that breaks off has not been received
    let Some(bytes) = read(&mut body).await else { return Ended::Answered };
    let stream = respond.stream_id().as_u32();
    if session.is_after_last(&respond) {
        return Ended::Held(body, respond);
    }
    let id = check::id(&head.headers).unwrap_or_else(|| uuid::Uuid::new_v4().to_string());
    let act = match decide(&session, &head, &bytes, &id, proof) {
        Ok(act) => act,
        Err(error) => {
            tracing::error!(%error, "cannot record a request");
            Answer::error(500, "InternalServerError").into()
        }
    };
    if !act.unprocessed() {
        session.processed.fetch_max(stream, Relaxed);
    }
    if let Some(streams) = act.streams {
        session.allow(streams.unwrap_or(session.shared.apns_max_streams));
    }
    if !act.delay.is_zero() && !wait(&mut respond, act.delay).await {
        return Ended::Answered;
    }
    match act.end {
        End::Answer(answer) => send(&mut respond, answer, &id),
        End::Last(answer) => {
            send(&mut respond, answer, &id);
            session.goaway();
        }
        // a later stream was taken up already: GOAWAY could not say that this one was not
        End::Unprocessed if session.processed.load(Relaxed) > stream => {
            respond.send_reset(h2::Reason::REFUSED_STREAM);
        }
        End::Unprocessed | End::Unanswered => {
            session.goaway();
            return Ended::Held(body, respond);
        }
        End::ResetStream(reason) => respond.send_reset(reason),
        End::Stall => {
            if wait(&mut respond, PATIENCE).await {
                respond.send_reset(h2::Reason::CANCEL);
            }
        }
        End::Reset => return Ended::Reset,
        End::Close => return Ended::Closed,
        End::Freeze => return Ended::Frozen,
    }
    Ended::Answered
}

async fn read(body: &mut RecvStream) -> Option<Bytes> {
    let mut read = BytesMut::new();
    while let Some(piece) = body.data().await {
        let piece = piece.ok()?;
        body.flow_control().release_capacity(piece.len()).ok()?;
        if read.is_empty() && body.is_end_stream() {
            return Some(piece);
        }
        read.extend_from_slice(&piece);
        if read.len() > ENOUGH {
            break;
        }
    }
    Some(read.freeze())
}

/// Checks and records a request.
fn decide(
    session: &Session,
    head: &Parts,
    bytes: &[u8],
    id: &str,
    proof: Result<Proof, Refusal>,
) -> anyhow::Result<Act> {
    let checked = check::head(head, proof).and_then(|token| check::body(&head.headers, bytes).map(|()| token));
    let mut headers = texts(&head.headers);
    if let Some(authorization) = headers.get_mut(header::AUTHORIZATION.as_str()) {
        *authorization = token::unsigned(authorization);
    }
    let path = head.uri.path();
    let reception = Reception {
        method: head.method.to_string(),
        address: head.uri.to_string(),
        path: path.to_owned(),
        id: Some(id.to_owned()),
        verified: checked.is_ok(),
        problem: checked.err().map(|r| r.reason.to_owned()),
        headers,
        body: String::from_utf8_lossy(bytes).into_owned(),
        ..Reception::new(Channel::Apns, session.number)
    };
    let now = reception.time;
    session.shared.records.keep(reception, |seen| {
        let act = match checked {
            Ok(token) => token_act(session, token, path, seen, now),
            Err(r) => Answer::error(r.status, r.reason).into(),
        };
        let status = act.status();
        (act, status)
    })
}

fn token_act(session: &Session, token: &str, path: &str, seen: u32, now: Timestamp) -> Act {
    let token: Cow<'_, str> =
        if token.bytes().any(|b| b.is_ascii_uppercase()) { token.to_ascii_lowercase().into() } else { token.into() };
    behaviour::of(&token, seen, now).bent(session.shared.strike(Channel::Apns, path), now)
}

/// False: the client gave the stream up meanwhile.
async fn wait(respond: &mut SendResponse<Bytes>, time: Duration) -> bool {
    tokio::select! {
        _ = poll_fn(|cx| respond.poll_reset(cx)) => false,
        () = sleep(time) => true,
    }
}

fn send(respond: &mut SendResponse<Bytes>, answer: Answer, id: &str) {
    let mut response = Response::new(());
    let Answer { status, body, html } = answer;
    *response.status_mut() = http::StatusCode::from_u16(status).unwrap_or(http::StatusCode::INTERNAL_SERVER_ERROR);
    let headers = response.headers_mut();
    if let Ok(id) = HeaderValue::from_str(id) {
        headers.insert("apns-id", id);
    }
    if status == 200
        && let Ok(unique) = HeaderValue::from_str(&uuid::Uuid::new_v4().to_string())
    {
        headers.insert("apns-unique-id", unique);
    }
    if html {
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/html"));
    }
    let body = match body {
        Cow::Borrowed(text) => Bytes::from_static(text.as_bytes()),
        Cow::Owned(text) => Bytes::from(text),
    };
    let sent = respond.send_response(response, body.is_empty());
    let sent = sent.and_then(|mut stream| if body.is_empty() { Ok(()) } else { stream.send_data(body, true) });
    if let Err(error) = sent {
        // the client gave the stream up
        tracing::debug!(%error, "no answer");
    }
}
