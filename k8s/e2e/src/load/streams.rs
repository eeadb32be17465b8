//! One stream after the other, each read event by event to its end mark.

use std::sync::Arc;
use std::time::{Duration, Instant};

use http_body_util::BodyExt;
use hyper::body::Incoming;

use super::Load;
use super::exchange::{ANSWER_MAX, Fault, ask, cause, connection};
use super::report::What;
use crate::agent::{Order, Said};
use crate::wire::Connection;

/// Longest silence within a stream, heartbeats counted as sound.
const SILENCE: Duration = Duration::from_secs(45);
/// After a failed stream, so that a gateway that refuses isn't asked all the time.
const PAUSE: Duration = Duration::from_millis(200);
/// Streams of one worker have numbers from a range of their own.
const RANGE: u64 = 1_000_000;

/// Keeps one open until told to stop.
pub(super) async fn run(load: Arc<Load>, worker: u32) {
    let streams = u64::from(load.settings.streams.max(1));
    let length_ms = load.settings.events * load.settings.every_ms;
    // Spread over a stream's length, so that they don't all end at once.
    let first = Duration::from_millis(length_ms * u64::from(worker) / streams / 4);
    tokio::time::sleep(first).await;
    let mut kept = None;
    for turn in 0.. {
        if load.stopped() {
            break;
        }
        load.tally().sent(What::Stream);
        let number = u64::from(worker + 1) * RANGE + turn;
        let used = if worker.is_multiple_of(2) { kept.take() } else { None };
        match one(&load, used, number).await {
            Ok(connection) => {
                load.tally().good(What::Stream, 0);
                kept = Some(connection);
            }
            Err(fault) => {
                load.tally().failed(What::Stream, fault);
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
}

async fn one(load: &Load, kept: Option<Connection>, number: u64) -> Result<Connection, Fault> {
    let (mut connection, is_new) = connection(load, kept).await?;
    let settings = &load.settings;
    let order =
        Order { number, events: settings.events, every_ms: settings.every_ms, ..Order::default() };
    let agent = load.agent(number);
    let answer = ask(load, &mut connection, is_new, (agent, &order)).await?;
    let mut reader =
        Reader { load, order: &order, agent, next: 0, opened: None, last: Instant::now() };
    reader.read(answer.into_body()).await?;
    Ok(connection)
}

/// Where one stream has come to.
struct Reader<'a> {
    load: &'a Load,
    order: &'a Order,
    agent: &'a str,
    next: u64,
    /// By whom.
    opened: Option<String>,
    last: Instant,
}

impl Reader<'_> {
    async fn read(&mut self, mut body: Incoming) -> Result<(), Fault> {
        let mut text = Vec::new();
        loop {
            let frame = tokio::time::timeout(SILENCE, body.frame()).await;
            match frame.map_err(|_| self.fault("silent", "45 s"))? {
                Some(Ok(frame)) => text.extend(frame.into_data().unwrap_or_default()),
                Some(Err(error)) => return Err(self.fault("truncated", cause(&error))),
                None if self.next == self.order.events + 1 && text.is_empty() => return Ok(()),
                None => return Err(self.fault("truncated", "an end without the end mark")),
            }
            while let Some(end) = text.windows(2).position(|two| two == b"\n\n") {
                let event: Vec<u8> = text.drain(..end + 2).collect();
                self.event(&String::from_utf8_lossy(&event))?;
            }
            if text.len() > ANSWER_MAX {
                return Err(self.fault("wrong bytes", "an event without an end"));
            }
        }
    }

    fn event(&mut self, event: &str) -> Result<(), Fault> {
        let field = |name: &str| event.lines().find_map(|line| line.strip_prefix(name));
        let Some(data) = field("data: ") else {
            // A comment: the gateway's heartbeat.
            return if event.starts_with(':') {
                Ok(())
            } else {
                Err(self.fault("wrong bytes", event))
            };
        };
        let name = field("event: ").unwrap_or_default();
        if name == "error" {
            return Err(self.fault("error event", data));
        }
        let said: Said = serde_json::from_str(data).map_err(|_| self.fault("wrong bytes", data))?;
        let is_last = said.seq == self.order.events;
        let expected = if is_last { "final" } else { "token" };
        if said.seq != self.next || name != expected {
            return Err(self.fault("wrong order", format!("{name} {} for {}", said.seq, self.next)));
        }
        if said.number != self.order.number || said.kind != self.agent {
            return Err(self.fault("another's answer", data));
        }
        self.count(&said);
        Ok(())
    }

    fn count(&mut self, said: &Said) {
        let mut tally = self.load.tally();
        if self.opened.is_some() {
            let gap = u32::try_from(self.last.elapsed().as_millis()).unwrap_or(u32::MAX);
            tally.gap(gap);
        } else {
            tally.opened(&said.pod);
            tally.heard(said);
            self.opened = Some(said.pod.clone());
        }
        self.last = Instant::now();
        self.next += 1;
    }

    #[expect(clippy::needless_pass_by_value, reason = "errors and literals are handed over alike")]
    fn fault(&self, kind: &str, detail: impl ToString) -> Fault {
        let (next, events) = (self.next, self.order.events);
        Fault::new(kind, format!("{} (after {next} of {events} events)", detail.to_string()))
    }
}

impl Drop for Reader<'_> {
    fn drop(&mut self) {
        if let Some(pod) = &self.opened {
            self.load.tally().closed(pod);
        }
    }
}
