//! A server that speaks chat completions, at whose wire a test sits.

use serde_json::{Value, json};

use crate::agent::{Agent, Call};

/// The server.
pub struct Model(Agent);

/// One completion that is asked for. Dropping it breaks the answer off.
pub struct Completion {
    call: Call,
    /// What was asked.
    pub asked: Value,
}

impl Model {
    pub async fn start() -> Model {
        Model(Agent::manual().await)
    }

    /// Its address, without a path.
    pub fn url(&self) -> String {
        format!("http://{}", self.0.addr)
    }

    /// The next completion that is asked for.
    pub async fn asked(&mut self) -> Completion {
        loop {
            let mut call = self.0.call().await;
            let body = call.body().await;
            if call.target() == "/v1/chat/completions" {
                assert_eq!(call.method(), "POST");
                return Completion { call, asked: serde_json::from_slice(&body).unwrap() };
            }
            call.json("{\"data\": []}").await;
        }
    }
}

impl Completion {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.call.header(name)
    }

    /// Answers that there is too much to do.
    pub async fn too_many(self, retry_after: &str) {
        let head = format!(
            "429 Too Many Requests\r\nretry-after: {retry_after}\r\ncontent-type: application/json"
        );
        self.call.reply(&head, "{\"error\": {\"message\": \"slow down\"}}").await;
    }

    pub async fn begin(&mut self) {
        self.call.begin_sse().await;
    }

    /// Says something, in two chunks that are split within the event.
    pub async fn say(&mut self, text: &str) {
        let delta = json!({"content": text});
        let choice = json!({"index": 0, "delta": delta, "finish_reason": null});
        let event = format!("data: {}\n\n", json!({"choices": [choice]}));
        let (left, right) = event.split_at(event.len() / 2);
        self.call.chunk(left).await;
        self.call.chunk(right).await;
    }

    /// Waits until nobody listens any more.
    pub async fn left(mut self) {
        self.call.gone().await;
    }

    /// Ends the answer well.
    pub async fn end(mut self) {
        let finish = json!({"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]});
        let usage = json!({"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15});
        let usage = json!({"choices": [], "usage": usage});
        self.call.chunk(format!("data: {finish}\n\ndata: {usage}\n\ndata: [DONE]\n\n")).await;
        self.call.end().await;
    }
}
