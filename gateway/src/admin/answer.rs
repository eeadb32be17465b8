//! What the operators' port says when there is nothing to show.

use axum::body::Body;
use axum::response::{IntoResponse, Response};
use http::StatusCode;
use http::header::{ALLOW, CONTENT_TYPE, HeaderValue, WWW_AUTHENTICATE};

use crate::error::{Code, Error};
use crate::request_id;

/// What another gateway would prove itself by.
const CHALLENGE: HeaderValue = HeaderValue::from_static("Switchyard-Peer");

/// A failure of one request.
pub(super) struct Refused(pub(super) Error);

impl IntoResponse for Refused {
    /// Without the request's id: [`explained`] adds it.
    fn into_response(self) -> Response {
        let status = self.0.code.status();
        let mut response = status.into_response();
        response.extensions_mut().insert(std::sync::Arc::new(self.0));
        response
    }
}

/// Every error as a problem document: ours, and those of the router and of the stock layers.
/// What has its own JSON, such as a failed probe, stays.
pub(super) fn explained(response: impl IntoResponse) -> Response {
    let mut response = response.into_response();
    let status = response.status();
    let is_error = status.is_client_error() || status.is_server_error();
    let kind = response.headers().get(CONTENT_TYPE).map(|kind| kind.as_bytes());
    if !is_error || kind.is_some_and(|kind| kind.ends_with(b"json")) {
        return response;
    }
    let own = response.extensions_mut().remove::<std::sync::Arc<Error>>();
    let error = own.unwrap_or_else(|| std::sync::Arc::new(error_of(status)));
    let id = request_id::held(response.headers());
    let id = id.as_ref().and_then(|id| id.to_str().ok()).unwrap_or_default();
    let mut problem = error.response(id, None).map(Body::from);
    if status == StatusCode::UNAUTHORIZED {
        // RFC 9110, section 11.6.1.
        problem.headers_mut().insert(WWW_AUTHENTICATE, CHALLENGE);
    }
    for (name, value) in response.headers() {
        if *name == ALLOW || name.as_str() == config::names::REQUEST_ID {
            problem.headers_mut().insert(name, value.clone());
        }
    }
    problem
}

fn error_of(status: StatusCode) -> Error {
    let (code, text) = match status {
        StatusCode::NOT_FOUND => (
            Code::NotFound,
            "there is nothing at this path; see /livez, /readyz, /health, /metrics, /api/agents, /api/table and /api/load",
        ),
        StatusCode::METHOD_NOT_ALLOWED => (Code::MethodNotAllowed, "this path is only read"),
        StatusCode::PAYLOAD_TOO_LARGE => (Code::BodyTooLarge, "nothing here takes such a body"),
        StatusCode::SERVICE_UNAVAILABLE => (Code::Overloaded, "the answer took too long to make"),
        status if status.is_client_error() => {
            (Code::BadRequest, "the request could not be understood")
        }
        _ => (Code::Internal, "the answer could not be made; the log says why"),
    };
    Error::new(code, text)
}
