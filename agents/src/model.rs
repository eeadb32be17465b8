//! Asking a language model: any server that speaks OpenAI's chat completions over HTTP, streamed; several of them in
//! order, the next where one fails. Answers are passed on piece by piece; an answer that breaks off is an error, never a
//! short answer.

mod dialect;
mod embeddings;
mod error;
mod reading;
mod retry;
mod servers;
mod sse;
mod tokens;
mod wire;

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use axum::http::HeaderMap;
use reqwest::Response;
use serde_json::{Value, json};
use tokio::time::timeout;

pub(crate) use dialect::{object, value};
pub use error::ModelError;
pub(crate) use tokens::bytes;
pub use wire::{Call, Turn, Usage};

use crate::agent::Events;
use crate::metrics::Metrics;
use crate::settings::ModelSettings;
use servers::{Server, Servers};

/// What a model is asked.
#[derive(Debug, Clone, Copy)]
pub struct Request<'a> {
    /// The conversation, as chat completions have it.
    pub messages: &'a [Value],
    /// The tools that it may call: the protocol's `tools`.
    pub tools: Option<&'a Value>,
    /// A JSON Schema that its answer is to keep.
    pub schema: Option<&'a Value>,
}

/// A model, on one server or several.
pub struct Model {
    servers: Servers,
    first_byte_timeout: Duration,
    idle_timeout: Duration,
    total_timeout: Duration,
    /// Most tokens of a conversation.
    pub(crate) context_tokens: u64,
    tokens: tokens::Tokens,
    metrics: Arc<Metrics>,
}

impl Model {
    /// The model that the settings name, or `None` when they name none.
    ///
    /// # Errors
    /// One line that says which setting is wrong or missing.
    pub fn new(settings: &ModelSettings, metrics: Arc<Metrics>) -> Result<Option<Self>, String> {
        Ok(Servers::new(settings)?.map(|servers| Self {
            servers,
            first_byte_timeout: settings.first_byte_timeout,
            idle_timeout: settings.idle_timeout,
            total_timeout: settings.total_timeout,
            context_tokens: settings.context_tokens,
            tokens: tokens::Tokens::default(),
            metrics,
        }))
    }

    /// The name of the preferred model.
    pub fn name(&self) -> &str {
        &self.servers.all()[0].model
    }

    /// About how many tokens so many bytes of messages are.
    pub(crate) fn tokens_in(&self, bytes: usize) -> u64 {
        self.tokens.in_bytes(bytes)
    }

    /// Asks for the next turn of the conversation and sends its text to `events` as it comes. `headers` go along:
    /// the request's id and trace. Dropping the future closes the connection.
    ///
    /// # Errors
    /// When no whole answer came. What was sent to `events` until then stands.
    pub async fn chat(
        &self,
        request: Request<'_>,
        headers: &HeaderMap,
        events: &Events,
    ) -> Result<Turn, ModelError> {
        let after = self.total_timeout;
        timeout(after, self.ask(request, headers, events))
            .await
            .unwrap_or(Err(ModelError::Timeout { clock: "total", after }))
    }

    async fn ask(
        &self,
        request: Request<'_>,
        headers: &HeaderMap,
        events: &Events,
    ) -> Result<Turn, ModelError> {
        let Opened { at, response, retries } = self.open(Asked::Turn(request), headers).await?;
        let server = &self.servers.all()[at];
        self.metrics.model_server(at);
        // A reply without a type is a stream: some servers forget it.
        let streamed = response
            .headers()
            .get(reqwest::header::CONTENT_TYPE)
            .and_then(|value| value.to_str().ok())
            .is_none_or(|kind| !kind.starts_with("application/json"));
        let offered = request.tools.map(|tools| (tools, server.calls_as_text()));
        let mut turn = if streamed {
            self.read_stream(response, offered, events).await?
        } else {
            self.read_whole(response, offered, events).await?
        };
        turn.model.clone_from(&server.model);
        let usage = turn.usage.unwrap_or_default();
        self.metrics.model_call(retries, usage.prompt_tokens, usage.completion_tokens);
        let read = request.messages.iter().map(bytes).sum::<usize>();
        let tools = request.tools.map_or(0, |tools| tools.to_string().len());
        self.tokens.counted(usage.prompt_tokens, read + tools);
        Ok(turn.end(request.messages.len()))
    }

    /// Whether one of the servers answers at all, and takes the key.
    pub async fn reachable(&self) -> bool {
        let looks = self.servers.all().iter().map(|server| Box::pin(answers(server)));
        futures_util::future::select_ok(looks).await.is_ok()
    }

    /// Sends the request until a reply's head is good or there is no sense in trying again.
    async fn open(&self, asked: Asked<'_>, headers: &HeaderMap) -> Result<Opened, ModelError> {
        let mut attempt = 0;
        // One that refuses for good is passed over for this request.
        let mut refused = 0;
        loop {
            let at = self.servers.next(Instant::now());
            let server = &self.servers.all()[at];
            let sent = self.post(server, asked.path(), &asked.body(server), headers).await;
            let failed = match sent {
                Ok(response) => {
                    server.works();
                    return Ok(Opened { at, response, retries: attempt });
                }
                Err(failed) => failed,
            };
            if asked.can_be_put_otherwise(server, &failed) {
                continue;
            }
            if !failed.is_of_the_server() {
                return Err(failed);
            }
            let until = failed.retry_after().filter(|_| failed.asks_to_wait());
            server.failed(until, Instant::now());
            let elsewhere = self.servers.one_is_fresh(Instant::now());
            if !failed.is_of_the_moment() {
                refused += 1;
            }
            let over = refused >= self.servers.all().len()
                || attempt >= retry::MAX_RETRIES.max(self.servers.all().len() as u32 - 1)
                || (!failed.is_of_the_moment() && !elsewhere);
            if over {
                return Err(failed);
            }
            let wait = match elsewhere {
                true => Duration::ZERO,
                false => match retry::wait(attempt, until, fastrand::f64()) {
                    Some(wait) => wait,
                    None => return Err(failed),
                },
            };
            attempt += 1;
            tracing::warn!(
                code = failed.code(),
                server = server.base,
                attempt,
                wait_ms = wait.as_millis() as u64,
                "model asked again"
            );
            tokio::time::sleep(wait).await;
        }
    }

    /// Posts to one server, once, and returns a reply whose head is good.
    async fn post(
        &self,
        server: &Server,
        path: &str,
        body: &Value,
        headers: &HeaderMap,
    ) -> Result<Response, ModelError> {
        let mut request = server
            .client
            .post(format!("{}/{path}", server.base))
            .header(reqwest::header::ACCEPT, "text/event-stream, application/json")
            .headers(headers.clone())
            .json(body);
        if let Some(key) = &server.key {
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
        let json = serde_json::from_slice::<Value>(&page);
        let detail = match &json {
            Ok(json) => wire::message(json),
            Err(_) => String::from_utf8_lossy(&page).chars().take(300).collect(),
        };
        let code = json.as_ref().ok().and_then(|json| json["error"]["code"].as_str());
        Err(ModelError::refused(status, detail, code.unwrap_or_default()))
    }
}

/// What a server is asked for.
#[derive(Clone, Copy)]
enum Asked<'a> {
    /// A turn of a conversation.
    Turn(Request<'a>),
    /// An embedding for each text.
    Embeddings(&'a [String]),
}

/// A reply whose head is good.
struct Opened {
    /// Whose it is: the server's place in the list.
    at: usize,
    response: Response,
    /// Attempts before it.
    retries: u32,
}

impl Asked<'_> {
    fn path(&self) -> &'static str {
        match self {
            Self::Turn(_) => "chat/completions",
            Self::Embeddings(_) => "embeddings",
        }
    }

    fn body(&self, server: &Server) -> Value {
        match self {
            Self::Turn(request) => body(server, *request),
            Self::Embeddings(texts) => {
                json!({"model": server.model, "input": texts, "encoding_format": "float"})
            }
        }
    }

    /// Whether the server refused tools or a schema, which from now on go into its prompt.
    fn can_be_put_otherwise(&self, server: &Server, failed: &ModelError) -> bool {
        let Self::Turn(request) = self else { return false };
        (failed.is_about("tool") && request.tools.is_some() && server.knows_no_tools())
            || (failed.is_about("response_format")
                && request.schema.is_some()
                && server.knows_no_schema())
    }
}

/// The turn as this server takes it.
fn body(server: &Server, request: Request<'_>) -> Value {
    let mut messages = request.messages.to_vec();
    let mut body = json!({
        "model": server.model,
        "stream": true,
        "stream_options": {"include_usage": true},
    });
    match request.tools {
        Some(tools) if server.calls_as_text() => messages = dialect::as_text(&messages, tools),
        Some(tools) => body["tools"] = tools.clone(),
        None => {}
    }
    match request.schema {
        Some(schema) if server.schema_as_text() => {
            let told = format!("Answer with JSON only, which keeps this JSON Schema:\n{schema}");
            messages = dialect::with_system(messages, &told);
        }
        Some(schema) => {
            let named = json!({"name": "output", "schema": schema});
            body["response_format"] = json!({"type": "json_schema", "json_schema": named});
        }
        None => {}
    }
    body["messages"] = messages.into();
    body
}

/// Whether a server answers, and takes the key.
async fn answers(server: &Server) -> Result<(), ()> {
    let mut request = server.client.get(format!("{}/models", server.base));
    if let Some(key) = &server.key {
        request = request.bearer_auth(key);
    }
    let status = request.send().await.map_err(drop)?.status();
    let works = !status.is_server_error() && !matches!(status.as_u16(), 401 | 403);
    if works { Ok(()) } else { Err(()) }
}
