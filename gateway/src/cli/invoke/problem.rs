//! What went wrong, in one line, out of whatever an error reply holds.

use reqwest::StatusCode;
use serde_json::Value;

use crate::cli::terminal;

/// How much of a reply that is no problem JSON is shown, in characters.
const EXCERPT: usize = 300;

/// The line for an error reply: `title: detail (code, request id)` when its body is a problem
/// (RFC 9457) or like one, else the status and how the body begins.
pub(super) fn of_reply(status: StatusCode, body: &str) -> String {
    match serde_json::from_str::<Value>(body).ok().and_then(|value| of_json(&value)) {
        Some(line) => line,
        None if body.trim().is_empty() => status.to_string(),
        None => format!("{status}: {}", excerpt(body.trim())),
    }
}

/// The line for the data of an SSE `error` event.
pub(super) fn of_event(data: &str) -> String {
    let value = serde_json::from_str::<Value>(data).ok();
    value.and_then(|value| of_json(&value)).unwrap_or_else(|| excerpt(data))
}

fn of_json(value: &Value) -> Option<String> {
    let text = |key: &str| value.get(key).and_then(Value::as_str).filter(|text| !text.is_empty());
    let title = text("title").or_else(|| text("error"));
    let detail = text("detail").or_else(|| text("message"));
    let said: Vec<_> = title.into_iter().chain(detail).collect();
    if said.is_empty() {
        return None;
    }
    let request = text("request_id").map(|id| format!("request {id}"));
    let marks: Vec<_> = text("code").map(str::to_owned).into_iter().chain(request).collect();
    let marks = if marks.is_empty() { String::new() } else { format!(" ({})", marks.join(", ")) };
    Some(one_line(&format!("{}{marks}", said.join(": "))))
}

fn excerpt(text: &str) -> String {
    let short: String = text.chars().take(EXCERPT).collect();
    let dots = if short.len() < text.len() { "…" } else { "" };
    one_line(&format!("{short}{dots}"))
}

fn one_line(text: &str) -> String {
    terminal::clean(&text.replace(['\n', '\r'], " "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_problem_is_one_line_with_its_code_and_request() {
        let body = r#"{"type":"urn:switchyard:error:unknown-agent","title":"Unknown agent","status":404,
            "detail":"There is no agent \"qq\"; did you mean \"qa\"?","code":"unknown-agent","request_id":"0198"}"#;
        assert_eq!(
            of_reply(StatusCode::NOT_FOUND, body),
            "Unknown agent: There is no agent \"qq\"; did you mean \"qa\"? (unknown-agent, request 0198)",
        );
    }

    #[test]
    fn a_reply_that_is_no_problem_is_quoted_in_short() {
        let line = of_reply(StatusCode::BAD_GATEWAY, &format!("<html>\n{}", "x".repeat(1000)));
        assert!(line.starts_with("502 Bad Gateway: <html> xxx") && line.ends_with("x…"), "{line}");
        assert_eq!(of_reply(StatusCode::NOT_FOUND, ""), "404 Not Found");
        assert_eq!(of_event("model said no"), "model said no");
    }
}
