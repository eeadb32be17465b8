//! What a request wants the agent to do.

use std::time::Duration;

use bytes::Bytes;
use futures_util::stream;
use http_body_util::{BodyExt, StreamBody};
use hyper::body::Frame;
use hyper::{Response, StatusCode};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::door::Pass;
use super::{Body, json_answer};

/// How much is taken at once by an agent that is to be killed for its greed.
const BITE: usize = 8 << 20;

/// The body of a request. Everything has a default: `{}` is answered at once.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Order {
    /// Comes back as it is, so that answers aren't mixed up.
    pub(crate) number: u64,
    /// Before the answer's head, milliseconds.
    pub(crate) hold_ms: u64,
    /// So many events, and an end mark; 0: a whole answer.
    pub(crate) events: u64,
    /// Between two of them, milliseconds.
    pub(crate) every_ms: u64,
    /// Memory is taken until the kernel ends it.
    pub(crate) eat: bool,
    /// The process ends at once, whatever is open.
    pub(crate) crash: bool,
}

/// An answer, or an event of one.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct Said {
    /// The order's number.
    pub(crate) number: u64,
    /// Which event this is, from 0; the end mark has the number of events.
    pub(crate) seq: u64,
    /// Who says it.
    pub(crate) pod: String,
    /// What the gateway told it to be (`x-agent-type`).
    #[serde(rename = "type")]
    pub(crate) kind: String,
    /// The most requests that it ever had at once.
    pub(crate) peak: u32,
    /// How many it refused because of its own limit.
    pub(crate) refused: u32,
}

impl Order {
    /// Does it; the place is kept until the answer's last byte.
    pub(super) async fn carry_out(self, pod: &str, kind: &str, pass: Pass) -> Response<Body> {
        if self.crash {
            std::process::exit(137);
        }
        if self.eat {
            let _ = tokio::task::spawn_blocking(eat).await;
        }
        tokio::time::sleep(Duration::from_millis(self.hold_ms)).await;
        let said = Said {
            number: self.number,
            seq: 0,
            pod: pod.to_owned(),
            kind: kind.to_owned(),
            peak: pass.peak(),
            refused: pass.refused(),
        };
        if self.events == 0 { whole(&said, kind) } else { self.stream(said, pass) }
    }

    fn stream(self, said: Said, pass: Pass) -> Response<Body> {
        let pause = Duration::from_millis(self.every_ms);
        let events = stream::unfold(Some((said, pass)), move |state| async move {
            let (mut said, pass) = state?;
            if said.seq > 0 {
                tokio::time::sleep(pause).await;
            }
            let last = said.seq == self.events;
            let name = if last { "final" } else { "token" };
            let data = serde_json::to_string(&said).unwrap_or_default();
            let frame = Frame::data(Bytes::from(format!("event: {name}\ndata: {data}\n\n")));
            said.seq += 1;
            Some((Ok(frame), (!last).then_some((said, pass))))
        });
        let answer = Response::builder().header("content-type", "text/event-stream");
        let body = StreamBody::new(events).boxed_unsync();
        answer
            .body(body)
            .unwrap_or_else(|_| json_answer(StatusCode::INTERNAL_SERVER_ERROR, &Value::Null))
    }
}

fn whole(said: &Said, kind: &str) -> Response<Body> {
    let metadata = json!({ "agent": kind, "model": "none" });
    let output = serde_json::to_value(said).unwrap_or_default();
    json_answer(StatusCode::OK, &json!({ "output": output, "metadata": metadata }))
}

/// Takes memory, and touches it, for as long as there is any.
fn eat() {
    loop {
        let bite = vec![1u8; BITE];
        std::hint::black_box(&bite);
        std::mem::forget(bite);
    }
}
