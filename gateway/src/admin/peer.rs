//! `/api/peer`: what the other gateways of the cluster ask, and nobody else may.

use std::sync::Arc;

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::HeaderMap;
use http::header::{AUTHORIZATION, CONTENT_TYPE};

use super::Admin;
use super::answer::Refused;
use crate::cluster::peers::SEAL;
use crate::error::{Code, Error};

/// `/api/peer`.
pub(super) async fn answer(
    State(admin): State<Arc<Admin>>,
    headers: HeaderMap,
) -> Result<Response, Refused> {
    let signed = headers.get(AUTHORIZATION).and_then(|value| value.to_str().ok());
    let answer = admin.board.peers().answer(signed);
    let answer =
        answer.map_err(|refusal| Refused(Error::new(Code::Unauthorized, refusal.to_string())))?;
    let headers = [(CONTENT_TYPE, "application/json".to_owned()), (SEAL, answer.seal)];
    Ok((headers, answer.body).into_response())
}
