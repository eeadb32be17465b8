//! Reading a model's answer, in a stream or in one piece, and passing its text on as it comes.

use reqwest::Response;
use serde_json::Value;
use tokio::time::timeout;

use super::wire::Turn;
use super::{Model, ModelError, dialect, sse};
use crate::agent::{Event, Events};

/// Largest error page, or answer in one piece, that is read, bytes.
const MAX_BODY: usize = 2 << 20;

/// The tools that were offered, and whether calls can only come as text.
type Offered<'a> = Option<(&'a Value, bool)>;

/// Passes text on, but for a beginning that may turn out to be calls.
struct Passing<'a> {
    offered: Offered<'a>,
    events: &'a Events,
    held: Option<String>,
}

impl<'a> Passing<'a> {
    fn new(offered: Offered<'a>, events: &'a Events) -> Self {
        Self { offered, events, held: offered.map(|_| String::new()) }
    }

    async fn text(&mut self, text: String) {
        let Some(held) = &mut self.held else { return self.pass(text).await };
        held.push_str(&text);
        let lenient = self.offered.is_some_and(|(_, lenient)| lenient);
        if !dialect::may_be_calls(held, lenient) {
            let held = self.held.take().unwrap_or_default();
            self.pass(held).await;
        }
    }

    /// The end: what was held back is calls, or goes out.
    async fn end(mut self, mut turn: Turn) -> Result<Turn, ModelError> {
        let held = self.held.take().unwrap_or_default();
        if let Some((tools, lenient)) = self.offered.filter(|_| turn.calls.is_empty()) {
            let calls = dialect::calls_in(&turn.text, tools, lenient);
            if !calls.is_empty() {
                turn.take_calls(calls)?;
                return Ok(turn);
            }
        }
        self.pass(held).await;
        Ok(turn)
    }

    async fn pass(&self, text: String) {
        if !text.is_empty() {
            self.events.send(Event::Token(text)).await;
        }
    }
}

impl Model {
    pub(super) async fn read_stream(
        &self,
        mut response: Response,
        offered: Offered<'_>,
        events: &Events,
    ) -> Result<Turn, ModelError> {
        let mut parser = sse::Parser::default();
        let mut turn = Turn::default();
        let mut passing = Passing::new(offered, events);
        let mut chunks = Vec::new();
        while let Some(piece) = self.piece(&mut response).await? {
            parser.push(&piece, &mut chunks).map_err(|sse::TooLarge| ModelError::TooLong)?;
            for chunk in chunks.drain(..) {
                if chunk.trim() == "[DONE]" {
                    return passing.end(turn).await;
                }
                let text = turn.add(&chunk)?;
                passing.text(text).await;
            }
        }
        // Some servers leave out [DONE]; one that gave a reason to finish has finished.
        match turn.finish {
            Some(_) => passing.end(turn).await,
            None => Err(ModelError::BrokeOff(None)),
        }
    }

    pub(super) async fn read_whole(
        &self,
        response: Response,
        offered: Offered<'_>,
        events: &Events,
    ) -> Result<Turn, ModelError> {
        let body = self.read_body(response).await?;
        let mut turn = Turn::default();
        let json = std::str::from_utf8(&body).map_err(|_| ModelError::Nonsense)?;
        let text = turn.add(json)?;
        if turn.finish.is_none() && text.is_empty() && turn.calls.is_empty() {
            return Err(ModelError::Nonsense);
        }
        let mut passing = Passing::new(offered, events);
        passing.text(text).await;
        passing.end(turn).await
    }

    pub(super) async fn read_body(&self, mut response: Response) -> Result<Vec<u8>, ModelError> {
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
