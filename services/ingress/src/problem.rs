//! What every refusal looks like: RFC 9457 problem documents.

use axum::{
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use bus::LogError;
use domain::{FieldError, FieldErrors};
use store::StoreError;
use utoipa::ToSchema;

/// The kinds of problems; a closed list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// The request breaks the contract; `errors` says where.
    Invalid,
    /// No key, or one that is not valid.
    Unauthorized,
    /// The key may not do this.
    Forbidden,
    /// There is no such thing, or it is another tenant's.
    NotFound,
    /// The path does not take this method.
    Method,
    /// The request did not arrive in time.
    Timeout,
    /// Something else stands in the way.
    Conflict,
    /// More than is taken.
    TooLarge,
    /// Not JSON, or encoded.
    MediaType,
    /// A fault of this installation.
    Internal,
    /// In the contract, and not in this version.
    NotYet,
    /// Later it may work.
    Unavailable,
}

impl Kind {
    const fn parts(self) -> (StatusCode, &'static str, &'static str) {
        match self {
            Self::Invalid => (StatusCode::BAD_REQUEST, "invalid-request", "The request is not valid"),
            Self::Unauthorized => (StatusCode::UNAUTHORIZED, "unauthorized", "A valid API key is needed"),
            Self::Forbidden => (StatusCode::FORBIDDEN, "forbidden", "The API key may not do this"),
            Self::NotFound => (StatusCode::NOT_FOUND, "not-found", "There is no such thing"),
            Self::Method => {
                (StatusCode::METHOD_NOT_ALLOWED, "method-not-allowed", "The path does not take this method")
            }
            Self::Timeout => (StatusCode::REQUEST_TIMEOUT, "timeout", "The request did not arrive in time"),
            Self::Conflict => (StatusCode::CONFLICT, "conflict", "Something else stands in the way"),
            Self::TooLarge => (StatusCode::PAYLOAD_TOO_LARGE, "too-large", "The request is too large"),
            Self::MediaType => (
                StatusCode::UNSUPPORTED_MEDIA_TYPE,
                "unsupported-media-type",
                "The body is not in a form that is taken",
            ),
            Self::Internal => (StatusCode::INTERNAL_SERVER_ERROR, "internal", "Something is wrong on this side"),
            Self::NotYet => (StatusCode::NOT_IMPLEMENTED, "not-yet-built", "Not yet built in this version"),
            Self::Unavailable => (StatusCode::SERVICE_UNAVAILABLE, "unavailable", "Not possible at the moment"),
        }
    }
}

/// A refusal on its way out; [`crate::edge`] renders it, with the request's id.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// What kind.
    pub kind: Kind,
    /// What is wrong and what to do, in a sentence.
    pub detail: String,
    /// The fields that are wrong.
    pub errors: Vec<FieldError>,
    /// For the log of this installation only.
    pub cause: Option<String>,
}

impl Problem {
    /// A problem without fields.
    pub fn new(kind: Kind, detail: impl Into<String>) -> Self {
        Self { kind, detail: detail.into(), errors: Vec::new(), cause: None }
    }

    /// A problem with one field, or with the whole body if the pointer is empty.
    pub fn field(pointer: &str, detail: impl Into<String>) -> Self {
        let mut errors = FieldErrors::default();
        errors.add(pointer, detail);
        errors.into()
    }

    /// A fault whose cause is for the log only.
    pub fn internal(cause: impl ToString) -> Self {
        Self { cause: Some(cause.to_string()), ..Self::of_status(StatusCode::INTERNAL_SERVER_ERROR, "") }
    }

    /// The document that the client gets.
    pub fn document(&self, request_id: &str) -> Document {
        let (status, slug, title) = self.kind.parts();
        Document {
            kind: format!("urn:carillon:problem:{slug}"),
            title: title.to_owned(),
            status: status.as_u16(),
            detail: self.detail.clone(),
            request_id: request_id.to_owned(),
            errors: self
                .errors
                .iter()
                .map(|e| Field { pointer: e.pointer.clone(), detail: e.detail.clone() })
                .collect(),
        }
    }

    /// The status code.
    pub const fn status(&self) -> StatusCode {
        self.kind.parts().0
    }

    /// The problem behind a bare status, for answers that a library made.
    pub fn of_status(status: StatusCode, detail: &str) -> Self {
        let (kind, own) = match status {
            StatusCode::NOT_FOUND => (Kind::NotFound, "no such path; /openapi.json lists those that there are"),
            StatusCode::METHOD_NOT_ALLOWED => {
                (Kind::Method, "the header `Allow` lists the methods that this path takes")
            }
            s if s.is_client_error() => (Kind::Invalid, "the request cannot be read"),
            _ => (Kind::Internal, "an unexpected fault"),
        };
        Self::new(kind, if detail.is_empty() { own } else { detail })
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let mut response = self.status().into_response();
        let headers = response.headers_mut();
        match self.kind {
            Kind::Unauthorized => {
                headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer realm=\"carillon\""));
            }
            Kind::Unavailable => {
                headers.insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
            }
            _ => {}
        }
        response.extensions_mut().insert(self);
        response
    }
}

impl From<FieldErrors> for Problem {
    fn from(errors: FieldErrors) -> Self {
        let detail = match errors.0.as_slice() {
            [one] if one.pointer.is_empty() => one.detail.clone(),
            [one] => format!("{}: {}", one.pointer, one.detail),
            several => format!("{} fields are wrong; `errors` names each", several.len()),
        };
        Self { kind: Kind::Invalid, detail, errors: errors.0, cause: None }
    }
}

impl From<LogError> for Problem {
    fn from(error: LogError) -> Self {
        let (kind, detail) = match &error {
            LogError::Unavailable(_) | LogError::NotAssigned => (Kind::Unavailable, OUTCOME_OPEN.to_owned()),
            LogError::Full(_) => {
                (Kind::Unavailable, "the log has no room at the moment; send the request again later".to_owned())
            }
            LogError::TooLarge(_) => (
                Kind::TooLarge,
                "the log does not take a record of this size; make content and metadata smaller".to_owned(),
            ),
            LogError::Topic { topic, detail } => (
                Kind::Unavailable,
                format!("an operator has to act on topic {topic}: {detail}; then send the request again"),
            ),
        };
        Self { cause: Some(error.to_string()), ..Self::new(kind, detail) }
    }
}

/// Said when a write may or may not have happened.
pub const OUTCOME_OPEN: &str =
    "the log did not confirm in time, so the outcome is open: it may or may not have been taken; it may be sent again";

impl From<StoreError> for Problem {
    fn from(error: StoreError) -> Self {
        let (kind, detail) = match &error {
            StoreError::Unavailable { .. } => (
                Kind::Unavailable,
                "the store does not answer, so the outcome of a change is open; the request can be repeated as it is",
            ),
            StoreError::Corrupt { .. } => {
                (Kind::Internal, "the store holds something unreadable; an operator has to look")
            }
        };
        Self { cause: Some(error.to_string()), ..Self::new(kind, detail) }
    }
}

/// An RFC 9457 problem document.
#[derive(Debug, Clone, serde::Serialize, ToSchema)]
#[schema(as = Problem)]
pub struct Document {
    /// Identifies the kind of problem.
    #[serde(rename = "type")]
    #[schema(example = "urn:carillon:problem:invalid-request")]
    pub kind: String,
    /// The kind in words.
    pub title: String,
    /// The HTTP status.
    pub status: u16,
    /// What is wrong here and what to do.
    pub detail: String,
    /// As in the header `X-Request-Id`.
    pub request_id: String,
    /// The fields that are wrong; empty if it is not about fields.
    pub errors: Vec<Field>,
}

/// One field that is wrong.
#[derive(Debug, Clone, serde::Serialize, ToSchema)]
#[schema(as = FieldError)]
pub struct Field {
    /// JSON pointer (RFC 6901) into the request's body, or `/name` of a query parameter; empty for the whole.
    pub pointer: String,
    /// What is wrong and what would be right.
    pub detail: String,
}
