//! The body of `POST /invoke`: read within bounds, and understood or refused with what to send instead.

use std::time::Duration;

use axum::body::{Body, BodyDataStream};
use axum::http::{HeaderMap, header};
use futures_util::StreamExt;
use serde_json::Value;

use crate::error::Error;

/// Largest body, bytes: a model's whole context is about this long.
const MAX_BODY: usize = 4 << 20;
/// Longest time for a whole body.
const BODY_TIMEOUT: Duration = Duration::from_secs(30);
/// What is read of a refused body, so that the refusal is not lost to a reset, and for how long: as much as the
/// gateway passes by default.
const LET_PASS: usize = 32 << 20;
const LET_PASS_TIME: Duration = Duration::from_secs(2);
const MAX_SESSION_ID: usize = 64;
/// Largest schema, bytes: it is sent with every turn.
const MAX_SCHEMA: usize = 32 << 10;

/// A body that was understood.
#[derive(Debug, PartialEq)]
pub(crate) struct Input {
    /// Never blank.
    pub(crate) input: String,
    /// Safe as a file's name.
    pub(crate) session_id: Option<String>,
    /// Whether events are wanted, when it says so.
    pub(crate) stream: Option<bool>,
    /// A JSON Schema that the output is to keep.
    pub(crate) schema: Option<Value>,
}

/// Reads the whole body.
///
/// # Errors
/// When it is too large, too slow or breaks off.
pub(crate) async fn read(headers: &HeaderMap, body: Body) -> Result<Vec<u8>, Error> {
    let too_large = Err(Error::BodyTooLarge { limit: MAX_BODY });
    let length = headers.get(header::CONTENT_LENGTH).and_then(|v| v.to_str().ok()?.parse().ok());
    let mut pieces = body.into_data_stream();
    if length.is_some_and(|length: u64| length > MAX_BODY as u64) {
        tokio::spawn(let_pass(pieces));
        return too_large;
    }
    let reading = async {
        let mut whole = Vec::new();
        while let Some(piece) = pieces.next().await {
            let piece = piece.map_err(|_| Error::BadRequest("the body broke off".to_owned()))?;
            whole.extend_from_slice(&piece);
            if whole.len() > MAX_BODY {
                break;
            }
        }
        Ok(whole)
    };
    let read = tokio::time::timeout(BODY_TIMEOUT, reading).await;
    let whole = read.unwrap_or(Err(Error::BodyTimeout(BODY_TIMEOUT)))?;
    if whole.len() > MAX_BODY {
        tokio::spawn(let_pass(pieces));
        return too_large;
    }
    Ok(whole)
}

/// Reads on for a while, so that a client that is still sending sees the refusal and not a reset connection.
pub(crate) async fn let_pass(mut pieces: BodyDataStream) {
    let mut seen = 0;
    let reading = async {
        while let Some(Ok(piece)) = pieces.next().await {
            seen += piece.len();
            if seen > LET_PASS {
                break;
            }
        }
    };
    let _ = tokio::time::timeout(LET_PASS_TIME, reading).await;
}

/// Understands the body. `header` is the session that a header names; one in the body goes first.
///
/// # Errors
/// Says which member is wrong and what it should be. Members that it does not know are left alone.
pub(crate) fn parse(body: &[u8], header: Option<String>) -> Result<Input, Error> {
    let example = r#"send a JSON object such as {"input": "your question"}"#;
    let json: Value = serde_json::from_slice(body)
        .map_err(|error| wrong(format!("the body is no JSON ({error}); {example}")))?;
    let Value::Object(members) = json else {
        return Err(wrong(format!("the body is no JSON object; {example}")));
    };
    let member = |name: &str| members.get(name).filter(|value| !value.is_null());
    let input = match member("input") {
        Some(Value::String(text)) if !text.trim().is_empty() => text.clone(),
        Some(Value::String(_)) => return Err(wrong(format!("`input` is empty; {example}"))),
        Some(_) => return Err(wrong(format!("`input` is no string; {example}"))),
        None => return Err(wrong(format!("`input` is missing; {example}"))),
    };
    let stream = match member("stream") {
        Some(Value::Bool(stream)) => Some(*stream),
        Some(_) => return Err(wrong("`stream` is neither true nor false".to_owned())),
        None => None,
    };
    let schema = match member("output_schema") {
        Some(schema) => Some(checked(schema)?),
        None => None,
    };
    let session_id = match member("session_id") {
        Some(Value::String(id)) => Some(id.clone()),
        Some(_) => return Err(wrong("`session_id` is no string".to_owned())),
        None => header,
    };
    if session_id.as_deref().is_some_and(|id| !is_session_id(id)) {
        return Err(wrong(format!(
            "the session's id is not 1 to {MAX_SESSION_ID} characters of A-Z a-z 0-9 . _ - with a letter or digit first"
        )));
    }
    Ok(Input { input, session_id, stream, schema })
}

fn wrong(text: String) -> Error {
    Error::BadRequest(text)
}

/// A schema that is one.
fn checked(schema: &Value) -> Result<Value, Error> {
    if !schema.is_object() || schema.to_string().len() > MAX_SCHEMA {
        return Err(wrong(format!(
            "`output_schema` is no JSON Schema of at most {MAX_SCHEMA} bytes"
        )));
    }
    match jsonschema::validator_for(schema) {
        Ok(_) => Ok(schema.clone()),
        Err(error) => Err(wrong(format!("`output_schema` is no JSON Schema: {error}"))),
    }
}

fn is_session_id(id: &str) -> bool {
    let allowed = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
    (1..=MAX_SESSION_ID).contains(&id.len())
        && id.starts_with(|c: char| c.is_ascii_alphanumeric())
        && id.chars().all(allowed)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(body: &str, says: &str) {
        let error = parse(body.as_bytes(), None).unwrap_err();
        assert!(error.to_string().contains(says), "{body}: {error}");
    }

    #[test]
    fn a_wrong_body_is_told_what_is_wrong() {
        refused("", "no JSON");
        refused("[]", "no JSON object");
        refused("{}", "`input` is missing");
        refused(r#"{"input": 1}"#, "`input` is no string");
        refused(r#"{"input": " \n"}"#, "`input` is empty");
        refused(r#"{"input": "a", "stream": "yes"}"#, "`stream`");
        refused(r#"{"input": "a", "output_schema": 1}"#, "`output_schema`");
        refused(r#"{"input": "a", "output_schema": {"type": "text"}}"#, "is no JSON Schema: ");
        for id in ["", "..", ".a", "a/b", "a b", &"a".repeat(65)] {
            refused(&format!(r#"{{"input": "a", "session_id": "{id}"}}"#), "session");
        }
    }

    #[test]
    fn members_that_belong_to_others_are_left_alone() {
        let body = r#"{"agent": "qa", "input": "a", "session_id": "s-1", "stream": true}"#;
        let input = parse(body.as_bytes(), Some("header".to_owned())).unwrap();
        let expected = Input {
            input: "a".into(),
            session_id: Some("s-1".into()),
            stream: Some(true),
            schema: None,
        };
        assert_eq!(input, expected);
    }
}
