//! A server that speaks chat completions as each test scripts it: one script a connection, byte for byte.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

/// What one connection gets.
#[derive(Clone)]
pub(crate) struct Script {
    pieces: Vec<Vec<u8>>,
    end: End,
    /// Before this piece it waits until the server is opened.
    gate: Option<usize>,
}

#[derive(Clone, Copy)]
enum End {
    Close,
    /// Says nothing more, until the other side leaves.
    Hang,
}

/// A request as it came.
#[derive(Clone)]
pub(crate) struct Seen {
    pub(crate) head: String,
    pub(crate) body: Value,
}

pub(crate) struct ModelServer {
    pub(crate) url: String,
    accepting: tokio::task::JoinHandle<()>,
    shared: Arc<Shared>,
}

struct Shared {
    scripts: Vec<Script>,
    seen: watch::Sender<Vec<Seen>>,
    /// Connections whose other side left while this one hung.
    left: watch::Sender<u32>,
    looks: AtomicUsize,
    embedded: std::sync::Mutex<Vec<String>>,
    open: watch::Sender<bool>,
}

const HEAD: &str = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\ntransfer-encoding: chunked\r\n\r\n";

fn chunk(bytes: &[u8]) -> Vec<u8> {
    [format!("{:x}\r\n", bytes.len()).as_bytes(), bytes, b"\r\n"].concat()
}

/// What every object of an answer has: `openai_sdk.rs` holds these to the types of the official SDK.
fn object(kind: &str, choices: &Value, usage: &Value) -> Value {
    json!({"id": "chatcmpl-1", "object": kind, "created": 1_760_000_000, "model": "gpt-4o-mini", "choices": choices, "usage": usage})
}

/// One event with these choices.
fn event(choices: &Value, usage: &Value) -> String {
    format!("data: {}\n\n", object("chat.completion.chunk", choices, usage))
}

/// Tokens, counted.
fn usage() -> Value {
    json!({"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15})
}

/// The event that says who speaks: the first of a stream.
pub(crate) fn begin() -> String {
    let delta = json!({"role": "assistant", "content": "", "refusal": null});
    event(&json!([{"index": 0, "delta": delta, "finish_reason": null}]), &Value::Null)
}

/// One event with a piece of text.
pub(crate) fn text(text: &str) -> String {
    let choice = json!({"index": 0, "delta": {"content": text}, "finish_reason": null});
    event(&json!([choice]), &Value::Null)
}

/// The events that end a good answer.
pub(crate) fn end(reason: &str) -> String {
    let finish = json!([{"index": 0, "delta": {}, "finish_reason": reason}]);
    let (finish, counted) = (event(&finish, &Value::Null), event(&json!([]), &usage()));
    format!("{finish}{counted}data: [DONE]\n\n")
}

impl Script {
    /// A stream of events, each its own chunk, ended well.
    pub(crate) fn stream(events: &[String]) -> Self {
        let mut pieces = vec![HEAD.as_bytes().to_vec()];
        pieces.extend(events.iter().map(|event| chunk(event.as_bytes())));
        pieces.push(b"0\r\n\r\n".to_vec());
        Self { pieces, end: End::Close, gate: None }
    }

    /// A whole answer of that text.
    pub(crate) fn says(words: &str) -> Self {
        Self::stream(&[begin(), text(words), end("stop")])
    }

    /// A whole answer of that text, in one piece.
    pub(crate) fn answer(words: &str) -> Self {
        let message = json!({"role": "assistant", "content": words, "refusal": null});
        let choice =
            json!({"index": 0, "message": message, "logprobs": null, "finish_reason": "stop"});
        let body = object("chat.completion", &json!([choice]), &usage());
        Self::status("200 OK", "", &body.to_string())
    }

    /// An error as the server tells one. `headers`: each with its line end.
    pub(crate) fn error(line: &str, headers: &str, error: &Value) -> Self {
        Self::status(line, headers, &json!({ "error": error }).to_string())
    }

    /// A stream, a chunk and a write for every byte.
    pub(crate) fn bytewise(stream: &str) -> Self {
        let mut pieces = vec![HEAD.as_bytes().to_vec()];
        pieces.extend(stream.as_bytes().iter().map(|byte| chunk(&[*byte])));
        pieces.push(b"0\r\n\r\n".to_vec());
        Self { pieces, end: End::Close, gate: None }
    }

    /// A stream that is cut without its last chunk.
    pub(crate) fn broken(events: &[String]) -> Self {
        let mut script = Self::stream(events);
        script.pieces.pop();
        script
    }

    /// A stream that says nothing more after these events.
    pub(crate) fn hanging(events: &[String]) -> Self {
        Self { end: End::Hang, ..Self::broken(events) }
    }

    /// Not even a head.
    pub(crate) fn silent() -> Self {
        Self { pieces: Vec::new(), end: End::Hang, gate: None }
    }

    /// The same, but not before [`ModelServer::open`].
    pub(crate) fn gated(self) -> Self {
        Self { gate: Some(0), ..self }
    }

    /// The same, but after its first event not before [`ModelServer::open`].
    pub(crate) fn gated_after_first(self) -> Self {
        Self { gate: Some(2), ..self }
    }

    /// A plain reply. `headers`: each with its line end.
    pub(crate) fn status(line: &str, headers: &str, body: &str) -> Self {
        let reply = format!(
            "HTTP/1.1 {line}\r\ncontent-type: application/json\r\n{headers}content-length: {}\r\nconnection: close\r\n\r\n{body}",
            body.len()
        );
        Self { pieces: vec![reply.into_bytes()], end: End::Close, gate: None }
    }

    /// A whole answer of that text, in pieces of one character.
    pub(crate) fn spells(words: &str) -> Self {
        let mut events = vec![begin()];
        events.extend(words.chars().map(|c| text(&c.to_string())));
        events.push(end("stop"));
        Self::stream(&events)
    }

    /// A refusal, as servers word it.
    pub(crate) fn refuses(line: &str, message: &str, code: &str) -> Self {
        let body =
            json!({"error": {"message": message, "type": "invalid_request_error", "code": code}});
        Self::status(line, "", &body.to_string())
    }

    /// An answer with tool calls, the arguments in two pieces.
    pub(crate) fn calls(calls: &[(&str, &str)]) -> Self {
        let mut events = vec![begin()];
        for (index, (name, arguments)) in calls.iter().enumerate() {
            let (left, right) = arguments.split_at(arguments.len() / 2);
            let first = json!({"index": index, "id": format!("c{index}"), "type": "function", "function": {"name": name, "arguments": left}});
            let second = json!({"index": index, "function": {"arguments": right}});
            for piece in [first, second] {
                let choice =
                    json!({"index": 0, "delta": {"tool_calls": [piece]}, "finish_reason": null});
                events.push(event(&json!([choice]), &Value::Null));
            }
        }
        events.push(end("tool_calls"));
        Self::stream(&events)
    }
}

impl ModelServer {
    /// Serves the scripts in order, the last one again and again. `/models` and `/embeddings` are answered always.
    pub(crate) async fn start(scripts: Vec<Script>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/v1", listener.local_addr().unwrap());
        let shared = Arc::new(Shared {
            scripts,
            seen: watch::Sender::default(),
            left: watch::Sender::default(),
            looks: AtomicUsize::new(0),
            embedded: std::sync::Mutex::default(),
            open: watch::Sender::default(),
        });
        let all = Arc::clone(&shared);
        let accepting = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve(stream, Arc::clone(&all)));
            }
        });
        Self { url, accepting, shared }
    }

    /// The texts that were embedded.
    pub(crate) fn embedded(&self) -> Vec<String> {
        self.shared.embedded.lock().unwrap().clone()
    }

    /// From now on nobody listens there.
    pub(crate) async fn stop(&mut self) {
        self.accepting.abort();
        let _ = (&mut self.accepting).await;
    }

    pub(crate) fn seen(&self) -> Vec<Seen> {
        self.shared.seen.borrow().clone()
    }

    /// How often `/models` was asked for.
    pub(crate) fn looks(&self) -> usize {
        self.shared.looks.load(Ordering::Relaxed)
    }

    /// Lets gated scripts speak.
    pub(crate) fn open(&self) {
        self.shared.open.send_replace(true);
    }

    /// Waits until so many requests have come.
    pub(crate) async fn asked(&self, times: usize) {
        let mut seen = self.shared.seen.subscribe();
        let asked = seen.wait_for(|seen| seen.len() >= times);
        tokio::time::timeout(crate::harness::LONG, asked).await.unwrap().unwrap();
    }

    /// Waits until the other side of a hanging connection has left.
    pub(crate) async fn left(&self) {
        let mut left = self.shared.left.subscribe();
        let leaving = left.wait_for(|left| *left > 0);
        tokio::time::timeout(crate::harness::LONG, leaving).await.unwrap().unwrap();
    }
}

async fn serve(mut stream: TcpStream, shared: Arc<Shared>) {
    stream.set_nodelay(true).unwrap();
    let Some(request) = read(&mut stream).await else { return };
    if request.head.starts_with("GET /v1/models ") {
        shared.looks.fetch_add(1, Ordering::Relaxed);
        let model = json!({"id": "gpt-4o-mini", "object": "model", "created": 1_760_000_000, "owned_by": "tests"});
        let models = json!({"object": "list", "data": [model]});
        let reply = Script::status("200 OK", "", &models.to_string());
        let _ = stream.write_all(&reply.pieces[0]).await;
        return;
    }
    if request.head.starts_with("POST /v1/embeddings ") {
        let texts: Vec<String> = serde_json::from_value(request.body["input"].clone()).unwrap();
        let reply = Script::status("200 OK", "", &embeddings(&texts).to_string());
        shared.embedded.lock().unwrap().extend(texts);
        let _ = stream.write_all(&reply.pieces[0]).await;
        return;
    }
    let mut nth = 0;
    shared.seen.send_modify(|seen| {
        nth = seen.len();
        seen.push(request);
    });
    let script = shared.scripts[nth.min(shared.scripts.len() - 1)].clone();
    for (at, piece) in script.pieces.iter().enumerate() {
        if script.gate == Some(at) {
            let _ = shared.open.subscribe().wait_for(|open| *open).await;
        }
        if stream.write_all(piece).await.is_err() {
            return;
        }
        stream.flush().await.unwrap();
        tokio::task::yield_now().await;
    }
    if matches!(script.end, End::Hang) {
        let _ = stream.read(&mut [0]).await;
        shared.left.send_modify(|left| *left += 1);
    }
}

/// For each text how often it has each sequence of three letters, by their hash: texts are near to each other when
/// their words look alike, also misspelt.
fn embeddings(texts: &[String]) -> Value {
    let row = |(index, text): (usize, &String)| {
        let mut vector = vec![0.0_f32; 256];
        for word in text.to_lowercase().split(|c: char| !c.is_alphanumeric()) {
            let letters: Vec<char> = format!(" {word} ").chars().collect();
            for three in letters.windows(3) {
                let hash = three.iter().fold(7_u32, |hash, c| hash.wrapping_mul(31) ^ *c as u32);
                vector[hash as usize % 256] += 1.0;
            }
        }
        vector[0] += 0.001;
        json!({"object": "embedding", "index": index, "embedding": vector})
    };
    let rows: Vec<Value> = texts.iter().enumerate().map(row).collect();
    json!({"object": "list", "data": rows, "usage": {"prompt_tokens": texts.len(), "total_tokens": texts.len()}})
}

async fn read(stream: &mut TcpStream) -> Option<Seen> {
    let mut bytes = Vec::new();
    let at = loop {
        if stream.read_buf(&mut bytes).await.ok()? == 0 {
            return None;
        }
        if let Some(at) = bytes.windows(4).position(|four| four == b"\r\n\r\n") {
            break at;
        }
    };
    let head = String::from_utf8(bytes[..at].to_vec()).unwrap();
    let fields = head.lines().filter_map(|line| line.split_once(": "));
    let mut lengths = fields.filter(|(name, _)| name.eq_ignore_ascii_case("content-length"));
    let length = lengths.next().and_then(|(_, value)| value.parse().ok());
    let length: usize = length.unwrap_or(0);
    while bytes.len() < at + 4 + length {
        if stream.read_buf(&mut bytes).await.ok()? == 0 {
            return None;
        }
    }
    let body = serde_json::from_slice(&bytes[at + 4..]).unwrap_or(Value::Null);
    Some(Seen { head, body })
}
