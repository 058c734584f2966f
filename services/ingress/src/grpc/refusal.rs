//! What a refusal looks like: a status with the details that a problem document has over HTTP.

use std::{collections::HashMap, time::Duration};

use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt as _};

use crate::{
    edge::RequestId,
    problem::{Kind, Problem},
};

/// Of all violations together; a status travels in trailers, for which clients have about 8 KiB of room.
const MAX_VIOLATIONS: usize = 3 * 1024;
/// Of the message, which travels there too.
const MAX_MESSAGE: usize = 600;
/// As `Retry-After` over HTTP.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// The status of a problem; one that is ours is logged.
pub(super) fn status(problem: &Problem, id: &RequestId, route: &str) -> Status {
    let code = code(problem.kind);
    if matches!(code, Code::Internal | Code::Unavailable) {
        let cause = problem.cause.as_deref().unwrap_or(&problem.detail);
        tracing::warn!(request_id = %id.0, route, code = code.description(), cause, "call failed");
    }
    let document = problem.document(&id.0);
    let reason = document.kind.rsplit(':').next().unwrap_or_default().replace('-', "_").to_ascii_uppercase();
    let mut details = ErrorDetails::new();
    details.set_error_info(reason, "carillon", HashMap::new()).set_request_info(&*id.0, "");
    if problem.kind == Kind::Unavailable {
        details.set_retry_info(Some(RETRY_AFTER));
    }
    violations(problem, &mut details);
    Status::with_error_details(code, short(document.detail), details)
}

/// As many as there is room for, and how many more there are.
fn violations(problem: &Problem, details: &mut ErrorDetails) {
    let mut room = MAX_VIOLATIONS;
    for (told, error) in problem.errors.iter().enumerate() {
        let size = error.pointer.len() + error.detail.len() + 8;
        if size > room && told > 0 {
            let more = problem.errors.len() - told;
            details.add_bad_request_violation("", format!("{more} more fields are wrong"));
            return;
        }
        details.add_bad_request_violation(error.pointer.as_str(), error.detail.as_str());
        room = room.saturating_sub(size);
    }
}

fn short(mut text: String) -> String {
    if let Some((end, _)) = text.char_indices().nth(MAX_MESSAGE) {
        text.truncate(end);
        text.push('…');
    }
    text
}

const fn code(kind: Kind) -> Code {
    match kind {
        Kind::Invalid | Kind::MediaType => Code::InvalidArgument,
        Kind::Unauthorized => Code::Unauthenticated,
        Kind::Forbidden => Code::PermissionDenied,
        Kind::NotFound => Code::NotFound,
        Kind::Method | Kind::NotYet => Code::Unimplemented,
        Kind::Timeout => Code::DeadlineExceeded,
        Kind::Conflict => Code::Aborted,
        Kind::TooLarge => Code::ResourceExhausted,
        Kind::Internal => Code::Internal,
        Kind::Unavailable => Code::Unavailable,
    }
}

/// The status that HTTP has for it, by which calls are counted.
pub(super) const fn as_http(code: Code) -> u16 {
    match code {
        Code::Ok => 200,
        Code::InvalidArgument => 400,
        Code::Unauthenticated => 401,
        Code::PermissionDenied => 403,
        Code::NotFound => 404,
        Code::DeadlineExceeded => 408,
        Code::Aborted => 409,
        Code::ResourceExhausted => 413,
        Code::Unimplemented => 501,
        Code::Unavailable => 503,
        _ => 500,
    }
}
