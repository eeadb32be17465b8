//! Why a model gave no answer, and what that means for whoever asked.

use std::time::Duration;

use axum::http::StatusCode;

/// Why the model gave no answer.
#[derive(Debug, thiserror::Error)]
pub enum ModelError {
    /// No connection, or it broke before the answer's head.
    #[error("the model server cannot be reached")]
    Unreachable(#[source] reqwest::Error),
    /// It refuses the request: a wrong key, an unknown model.
    #[error("the model server refused the request with {status}: {detail}")]
    Refused {
        /// Its status.
        status: u16,
        /// Its words, shortened.
        detail: String,
    },
    /// It has too much to do, and retries did not help.
    #[error("the model server is busy ({status}); try again later")]
    Busy {
        /// Its status.
        status: u16,
        /// When it says to try again.
        retry_after: Option<Duration>,
    },
    /// It failed, before or within the answer.
    #[error("the model server failed with {status}: {detail}")]
    Failed {
        /// Its status; 200 for an error within the stream.
        status: u16,
        /// Its words, shortened.
        detail: String,
    },
    /// A clock fired.
    #[error("the model server was too slow: {} ms ({clock})", .after.as_millis())]
    Timeout {
        /// Which clock: `first byte`, `idle` or `total`.
        clock: &'static str,
        /// Its length.
        after: Duration,
    },
    /// The stream ended before the answer did.
    #[error("the model's answer broke off")]
    BrokeOff(#[source] Option<reqwest::Error>),
    /// It does not speak chat completions.
    #[error("the model server's answer is no chat completion; check OPENAI_BASE_URL")]
    Nonsense,
    /// The conversation is longer than the model reads.
    #[error("the conversation is longer than the model reads: {detail}")]
    ContextTooLong {
        /// Its words, shortened.
        detail: String,
    },
    /// It talks without end.
    #[error("the model's answer is longer than an agent takes")]
    TooLong,
}

impl ModelError {
    /// The stable code.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Unreachable(_) => "model-unreachable",
            Self::Refused { .. } | Self::ContextTooLong { .. } => "model-refused",
            Self::Busy { .. } => "model-busy",
            Self::Failed { .. } => "model-failed",
            Self::Timeout { .. } => "model-timeout",
            Self::BrokeOff(_) => "model-broke-off",
            Self::Nonsense | Self::TooLong => "model-bad-response",
        }
    }

    /// The status that the agent's client sees.
    pub fn status(&self) -> StatusCode {
        match self {
            Self::Busy { .. } => StatusCode::SERVICE_UNAVAILABLE,
            Self::Timeout { .. } => StatusCode::GATEWAY_TIMEOUT,
            _ => StatusCode::BAD_GATEWAY,
        }
    }

    /// When the model server says to try again.
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Busy { retry_after, .. } => Some(retry_after.unwrap_or(Duration::from_secs(1))),
            _ => None,
        }
    }
}

impl ModelError {
    /// What a server's refusal with `status` means; `detail` are its words, `code` is its name for it.
    pub(super) fn refused(status: u16, detail: String, code: &str) -> Self {
        let words = detail.to_ascii_lowercase();
        let too_long = code == "context_length_exceeded"
            || ["context length", "context size", "context window", "maximum context"]
                .iter()
                .any(|says| words.contains(says));
        match status {
            400 | 413 | 422 | 500 if too_long => Self::ContextTooLong { detail },
            408 | 409 | 500..=599 => Self::Failed { status, detail },
            _ => Self::Refused { status, detail },
        }
    }

    /// Whether the same request may succeed later, or elsewhere.
    pub(super) fn is_of_the_moment(&self) -> bool {
        matches!(self, Self::Busy { .. } | Self::Failed { .. } | Self::Unreachable(_))
    }

    /// Whether another server may take it: this one has not the key, or not the model.
    pub(super) fn is_of_the_server(&self) -> bool {
        matches!(self, Self::Refused { status: 401..=404, .. })
            || matches!(self, Self::Timeout { clock: "first byte", .. })
            || self.is_of_the_moment()
    }

    /// Whether the server itself said when to come back.
    pub(super) fn asks_to_wait(&self) -> bool {
        matches!(self, Self::Busy { retry_after: Some(_), .. })
    }

    /// Whether it refuses what its words name: `tool`, or `response_format`.
    pub(super) fn is_about(&self, what: &str) -> bool {
        match self {
            Self::Refused { status: 400 | 404 | 422, detail }
            | Self::Failed { status: 500 | 501, detail } => {
                detail.to_ascii_lowercase().contains(what)
            }
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_is_known_by_its_status_its_code_or_its_words() {
        let of = |status, detail: &str, code| ModelError::refused(status, detail.to_owned(), code);
        let too_long = |error| matches!(error, ModelError::ContextTooLong { .. });
        assert!(too_long(of(400, "too much", "context_length_exceeded")));
        assert!(too_long(of(400, "This model's maximum context length is 8192 tokens", "")));
        assert!(!too_long(of(401, "no context length for you", "")));
        assert!(of(500, "tools param requires --jinja flag", "").is_about("tool"));
        assert!(!of(429, "tool", "").is_about("tool"));
        assert!(of(404, "no such model", "").is_of_the_server());
        assert!(!of(400, "bad", "").is_of_the_server() && !of(404, "no", "").is_of_the_moment());
    }
}
