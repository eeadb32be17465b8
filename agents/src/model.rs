//! Asking a language model: any server that speaks OpenAI's chat completions over HTTP, streamed. Answers are
//! passed on piece by piece; an answer that breaks off is an error, never a short answer.

mod retry;
mod sse;
mod wire;

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use axum::http::{HeaderMap, StatusCode};
use reqwest::{Client, Response, Url};
use serde_json::{Value, json};
use tokio::time::timeout;

pub use wire::{Call, Turn, Usage};

use crate::agent::{Event, Events};
use crate::metrics::Metrics;
use crate::settings::ModelSettings;

const OPENAI: &str = "https://api.openai.com/v1";
/// Used with a key for OpenAI and no `AGENT_MODEL`: cheap, and knows tools.
const DEFAULT_MODEL: &str = "gpt-4o-mini";
/// Largest error page, or answer in one piece, that is read, bytes.
const MAX_BODY: usize = 2 << 20;

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
    #[error("the model server sent nothing for {} ms ({clock})", .after.as_millis())]
    Timeout {
        /// Which clock: `first byte` or `idle`.
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
    /// It talks without end.
    #[error("the model's answer is longer than an agent takes")]
    TooLong,
}

impl ModelError {
    /// The stable code.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Unreachable(_) => "model-unreachable",
            Self::Refused { .. } => "model-refused",
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

/// One model on one server.
pub struct Model {
    client: Client,
    base: String,
    name: String,
    key: Option<String>,
    first_byte_timeout: Duration,
    idle_timeout: Duration,
    metrics: Arc<Metrics>,
}

impl Model {
    /// The model that the settings name, or `None` when they name none.
    ///
    /// # Errors
    /// One line that says which setting is wrong or missing.
    pub fn new(settings: &ModelSettings, metrics: Arc<Metrics>) -> Result<Option<Self>, String> {
        if settings.base_url.is_none() && settings.api_key.is_none() {
            if settings.model.is_some() {
                tracing::warn!(
                    "AGENT_MODEL is set, but neither OPENAI_API_KEY nor OPENAI_BASE_URL: no model is used"
                );
            }
            return Ok(None);
        }
        let base = settings.base_url.as_deref().unwrap_or(OPENAI).trim_end_matches('/');
        let url = Url::parse(base)
            .ok()
            .filter(|url| matches!(url.scheme(), "http" | "https") && url.has_host())
            .ok_or("OPENAI_BASE_URL is no http:// or https:// URL; for example http://127.0.0.1:11434/v1")?;
        let name =
            match &settings.model {
                Some(name) => name.clone(),
                None if base == OPENAI => DEFAULT_MODEL.to_owned(),
                None => return Err(
                    "OPENAI_BASE_URL is set, but not AGENT_MODEL: name a model that the server has"
                        .to_owned(),
                ),
            };
        let mut builder = Client::builder()
            .connect_timeout(settings.connect_timeout)
            .redirect(reqwest::redirect::Policy::none());
        // A proxy for the outside world cannot reach this machine's own loopback.
        if url.host_str().is_some_and(is_loopback) {
            builder = builder.no_proxy();
        }
        Ok(Some(Self {
            client: builder
                .build()
                .map_err(|error| format!("no HTTP client for the model: {error}"))?,
            base: base.to_owned(),
            name,
            key: settings.api_key.clone(),
            first_byte_timeout: settings.first_byte_timeout,
            idle_timeout: settings.idle_timeout,
            metrics,
        }))
    }

    /// The model's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Asks for the next turn of the conversation and sends its text to `events` as it comes. `headers` go along:
    /// the request's id and trace. Dropping the future closes the connection.
    ///
    /// # Errors
    /// When no whole answer came. What was sent to `events` until then stands.
    pub async fn chat(
        &self,
        messages: &[Value],
        tools: Option<&Value>,
        headers: &HeaderMap,
        events: &Events,
    ) -> Result<Turn, ModelError> {
        let mut body = json!({
            "model": self.name,
            "messages": messages,
            "stream": true,
            "stream_options": {"include_usage": true},
        });
        if let Some(tools) = tools {
            body["tools"] = tools.clone();
        }
        let (response, retries) = self.open(&body, headers).await?;
        let streamed = response
            .headers()
            .get(reqwest::header::CONTENT_TYPE)
            .and_then(|value| value.to_str().ok())
            .is_none_or(|kind| !kind.starts_with("application/json"));
        let turn = if streamed {
            self.read_stream(response, events).await?
        } else {
            self.read_whole(response, events).await?
        };
        let usage = turn.usage.unwrap_or_default();
        self.metrics.model_call(retries, usage.prompt_tokens, usage.completion_tokens);
        Ok(turn.end(messages.len()))
    }

    /// Whether the server answers at all, and takes the key.
    pub async fn reachable(&self) -> bool {
        let mut request = self.client.get(format!("{}/models", self.base));
        if let Some(key) = &self.key {
            request = request.bearer_auth(key);
        }
        match request.send().await {
            Ok(response) => {
                let status = response.status();
                !status.is_server_error() && !matches!(status.as_u16(), 401 | 403)
            }
            Err(_) => false,
        }
    }

    /// Sends the request until a reply's head is good or there is no sense in trying again.
    async fn open(&self, body: &Value, headers: &HeaderMap) -> Result<(Response, u32), ModelError> {
        let mut attempt = 0;
        loop {
            let failed = match self.send(body, headers).await {
                Ok(response) => return Ok((response, attempt)),
                Err(failed) => failed,
            };
            let asked = match &failed {
                ModelError::Busy { retry_after, .. } => *retry_after,
                ModelError::Failed { .. } | ModelError::Unreachable(_) => None,
                _ => return Err(failed),
            };
            let wait = retry::wait(attempt, asked, fastrand::f64());
            let Some(wait) = wait.filter(|_| attempt < retry::MAX_RETRIES) else {
                return Err(failed);
            };
            attempt += 1;
            tracing::warn!(
                code = failed.code(),
                attempt,
                wait_ms = wait.as_millis() as u64,
                "model asked again"
            );
            tokio::time::sleep(wait).await;
        }
    }

    async fn send(&self, body: &Value, headers: &HeaderMap) -> Result<Response, ModelError> {
        let mut request = self
            .client
            .post(format!("{}/chat/completions", self.base))
            .header(reqwest::header::ACCEPT, "text/event-stream, application/json")
            .headers(headers.clone())
            .json(body);
        if let Some(key) = &self.key {
            request = request.bearer_auth(key);
        }
        let after = self.first_byte_timeout;
        let response = timeout(after, request.send())
            .await
            .map_err(|_| ModelError::Timeout { clock: "first byte", after })?
            .map_err(|error| ModelError::Unreachable(error.without_url()))?;
        let status = response.status();
        if status.is_success() {
            return Ok(response);
        }
        let retry_after = retry::asked(response.headers(), SystemTime::now());
        let status = status.as_u16();
        // 429: over a rate; 503 with a time: over capacity. Both say when to come back.
        if status == 429 || (status == 503 && retry_after.is_some()) {
            return Err(ModelError::Busy { status, retry_after });
        }
        let page = self.read_body(response).await.unwrap_or_default();
        let detail = match serde_json::from_slice::<Value>(&page) {
            Ok(json) => wire::message(&json),
            Err(_) => String::from_utf8_lossy(&page).chars().take(300).collect(),
        };
        match status {
            408 | 409 | 500..=599 => Err(ModelError::Failed { status, detail }),
            _ => Err(ModelError::Refused { status, detail }),
        }
    }

    async fn read_stream(
        &self,
        mut response: Response,
        events: &Events,
    ) -> Result<Turn, ModelError> {
        let mut parser = sse::Parser::default();
        let mut turn = Turn::default();
        let mut chunks = Vec::new();
        while let Some(piece) = self.piece(&mut response).await? {
            parser.push(&piece, &mut chunks).map_err(|sse::TooLarge| ModelError::TooLong)?;
            for chunk in chunks.drain(..) {
                if chunk.trim() == "[DONE]" {
                    return Ok(turn);
                }
                let text = turn.add(&chunk)?;
                if !text.is_empty() {
                    events.send(Event::Token(text)).await;
                }
            }
        }
        // Some servers leave out [DONE]; one that gave a reason to finish has finished.
        if turn.finish.is_some() { Ok(turn) } else { Err(ModelError::BrokeOff(None)) }
    }

    async fn read_whole(&self, response: Response, events: &Events) -> Result<Turn, ModelError> {
        let body = self.read_body(response).await?;
        let mut turn = Turn::default();
        let json = std::str::from_utf8(&body).map_err(|_| ModelError::Nonsense)?;
        let text = turn.add(json)?;
        if turn.finish.is_none() && text.is_empty() && turn.calls.is_empty() {
            return Err(ModelError::Nonsense);
        }
        events.send(Event::Token(text)).await;
        Ok(turn)
    }

    async fn read_body(&self, mut response: Response) -> Result<Vec<u8>, ModelError> {
        let mut body = Vec::new();
        while let Some(piece) = self.piece(&mut response).await? {
            body.extend_from_slice(&piece);
            if body.len() > MAX_BODY {
                return Err(ModelError::TooLong);
            }
        }
        Ok(body)
    }

    async fn piece(&self, response: &mut Response) -> Result<Option<bytes::Bytes>, ModelError> {
        let after = self.idle_timeout;
        timeout(after, response.chunk())
            .await
            .map_err(|_| ModelError::Timeout { clock: "idle", after })?
            .map_err(|error| ModelError::BrokeOff(Some(error.without_url())))
    }
}

fn is_loopback(host: &str) -> bool {
    let address = host.trim_start_matches('[').trim_end_matches(']');
    host == "localhost" || address.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback())
}
