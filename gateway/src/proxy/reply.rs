//! A response on its way to the client, and what lives as long as it does: the permit, the lease,
//! the clocks and the record. A request ends when this ends.

use std::cell::RefCell;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use bytes::Bytes;
use futures_util::task::AtomicWaker;
use http_body::{Body, Frame, SizeHint};
use tokio::task::AbortHandle;
use tokio::time::{Instant, Sleep};

use super::record::Record;
use super::worker::{Client, Worker};
use crate::body::sse;
use crate::error::{Code, Error};
use crate::forward::{AgentBody, Blame};
use crate::health::{self, Verdict};
use crate::pool::Lease;
use crate::table::{AgentRef, Permit};

/// How long what was sent before a break may take to leave: a client that reads that slowly
/// would not see it anyway.
const BREAK_PATIENCE: Duration = Duration::from_secs(30);

/// The stream's own clock comes first where the client reads.
const WATCHDOG_GRACE: Duration = Duration::from_millis(50);

/// The body of every response.
pub enum Reply {
    /// All of it is here.
    Whole(Option<Bytes>),
    /// It streams from the agent.
    Streamed(Pin<Box<Streamed>>),
}

/// It broke; the connection or the stream ends without an end.
#[derive(Debug, thiserror::Error)]
#[error("the response broke off: {}", .0.as_str())]
pub struct Broken(Code);

/// What a response holds from its agent.
pub struct Exchange {
    /// The agent.
    pub agent: AgentRef,
    /// The place at the endpoint: given back before the one that admission gave, whose next
    /// holder looks for it.
    pub lease: Lease,
    /// The place that admission gave.
    pub permit: Permit,
    /// The body, and the connection that it comes on.
    pub incoming: AgentBody,
    /// When the last piece of the response came.
    pub at: Instant,
    /// When the total clock fires.
    pub deadline: Instant,
    /// What the response's head says of the endpoint.
    pub verdict: Verdict,
}

impl Exchange {
    /// The agent's last byte is here.
    fn finish(self, worker: &Worker) {
        health::ended(&self.agent, &self.lease, self.verdict);
        self.keep(worker);
    }

    /// The response is whole: its connection may serve the next request.
    fn keep(self, worker: &Worker) {
        if let AgentBody::Http1(body) = self.incoming {
            let keepalive = &self.agent.settings.keepalive;
            worker.connections.keep(self.lease.endpoint().id, (body, self.at), keepalive);
        }
    }
}

/// A response that streams.
pub struct Streamed {
    /// Shared with the watchdog, and empty once the exchange is over.
    exchange: Rc<RefCell<Option<Exchange>>>,
    watchdog: Option<Watchdog>,
    /// Apart, since nobody looks at it before the end.
    record: Box<Record>,
    /// Bytes of the body so far.
    sent: u64,
    worker: Rc<Worker>,
    client: Rc<Client>,
    events: Option<Events>,
    /// Clocks: one timer for whichever is next, made when there is first something to wait for.
    timer: Option<Timer>,
    idle_timeout: Duration,
    last_piece: Instant,
    /// [`Wire::flushes`] when something was last given to the connection.
    given_at: u64,
    ending: Option<Ending>,
    /// The agent's last byte was given to the connection.
    done: bool,
}

/// A timer, when it fires and whom it wakes then: before that it isn't touched.
struct Timer {
    sleep: Pin<Box<Sleep>>,
    at: Instant,
    wakes: Waker,
}

impl Timer {
    fn new(at: Instant) -> Self {
        Self { sleep: Box::pin(tokio::time::sleep_until(at)), at, wakes: Waker::noop().clone() }
    }

    /// Ready when `due` has come, which is later than `now`, or an earlier time that it was set to.
    fn poll(&mut self, due: Instant, now: Instant, cx: &mut Context<'_>) -> Poll<()> {
        if self.at > due || self.sleep_is_over(now) {
            self.at = due;
            self.sleep.as_mut().reset(due);
        } else if now < self.at && self.wakes.will_wake(cx.waker()) {
            return Poll::Pending;
        }
        self.wakes.clone_from(cx.waker());
        self.sleep.as_mut().poll(cx)
    }

    fn sleep_is_over(&self, now: Instant) -> bool {
        now >= self.at && self.sleep.is_elapsed()
    }
}

/// HTTP/2: nobody polls a body that its client does not read, and nobody but us knows of the drain.
struct Watchdog {
    task: AbortHandle,
    /// Who polls the body.
    reader: Rc<AtomicWaker>,
}

/// What is known of a stream of events.
struct Events {
    scanner: sse::Boundaries,
    heartbeat: Option<Duration>,
    last_sent: Instant,
}

/// How a broken response ends: the event that says so, what was given leaves, and then the break.
struct Ending {
    code: Code,
    event: Option<Bytes>,
    patience: Option<Pin<Box<Sleep>>>,
}

/// What the body is, as its head says.
#[derive(Debug, Clone, Copy)]
pub struct Shape {
    /// `text/event-stream`, not encoded and not length-delimited.
    pub events: bool,
    /// To an HTTP/1.0 client without `Content-Length`: ended by the close.
    pub until_close: bool,
}

impl Reply {
    /// The agent's response. When all of it is here, the exchange is over already.
    #[must_use]
    pub fn of(
        mut exchange: Exchange,
        mut record: Record,
        (worker, client): (&Rc<Worker>, &Rc<Client>),
        shape: Shape,
    ) -> Self {
        if let Some(whole) = exchange.incoming.take_whole() {
            client.until_close.set(false);
            record.sent = whole.len() as u64;
            record.ended = Some(exchange.at);
            exchange.finish(worker);
            record.done();
            return Self::Whole(Some(whole).filter(|whole| !whole.is_empty()));
        }
        let now = Instant::now();
        let settings = &exchange.agent.settings;
        let events = shape.events.then(|| Events {
            scanner: sse::Boundaries::new(),
            heartbeat: settings.heartbeat,
            last_sent: now,
        });
        let idle_timeout = settings.idle_timeout;
        client.until_close.set(shape.until_close);
        let mut streamed = Streamed {
            record: Box::new(record),
            sent: 0,
            worker: Rc::clone(worker),
            client: Rc::clone(client),
            timer: None,
            events,
            idle_timeout,
            last_piece: now,
            given_at: client.wire.flushes(),
            ending: None,
            done: false,
            exchange: Rc::new(RefCell::new(Some(exchange))),
            watchdog: None,
        };
        if !client.is_http1.get() {
            streamed.watch();
        }
        Self::Streamed(Box::pin(streamed))
    }
}

impl Streamed {
    /// The agent's last byte is here: its connection may serve the next request.
    fn finish(&mut self) {
        let Some(mut exchange) = self.exchange.take() else { return };
        exchange.at = self.last_piece;
        self.done = true;
        self.dismiss();
        exchange.finish(&self.worker);
        self.record.done();
    }

    fn note(&mut self, frame: &Frame<Bytes>, now: Instant) {
        self.last_piece = now;
        self.given_at = self.client.wire.flushes();
        let Some(data) = frame.data_ref() else { return };
        self.sent += data.len() as u64;
        if let Some(events) = &mut self.events {
            events.scanner.feed(data);
            events.last_sent = now;
        }
        if self.is_whole() {
            self.finish();
        }
    }

    /// Whether the agent's last byte was passed on.
    fn is_whole(&self) -> bool {
        self.exchange.borrow().as_ref().is_some_and(|exchange| exchange.incoming.is_end_stream())
    }

    /// The total clock and the drain, on a task of their own. (Over HTTP/1 the connection sees to
    /// both.)
    fn watch(&mut self) {
        let Some(deadline) = self.deadline() else { return };
        let (exchange, worker) = (Rc::clone(&self.exchange), Rc::clone(&self.worker));
        let reader = Rc::new(AtomicWaker::new());
        let waiting = Rc::clone(&reader);
        let task = tokio::task::spawn_local(async move {
            tokio::select! {
                () = tokio::time::sleep_until(deadline + WATCHDOG_GRACE) => drop(exchange.take()),
                () = worker.until_cut() => {}
            }
            waiting.wake();
        });
        self.watchdog = Some(Watchdog { task: task.abort_handle(), reader });
    }

    fn dismiss(&mut self) {
        if let Some(watchdog) = self.watchdog.take() {
            watchdog.task.abort();
        }
    }

    /// When the next clock fires.
    fn next_clock(&self, now: Instant) -> Option<Instant> {
        let next = self.deadline()?.min(self.last_piece + self.idle_timeout);
        let Some(Events { heartbeat: Some(every), last_sent, scanner }) = &self.events else {
            return Some(next);
        };
        let due = *last_sent + *every;
        // Within an event it has to wait for the end of the event.
        Some(next.min(if due > now || scanner.at_boundary() { due } else { now + *every }))
    }

    /// Ready when a clock has fired; pieces that came since only move the timer then.
    fn poll_timer(&mut self, cx: &mut Context<'_>) -> Poll<Instant> {
        loop {
            let now = Instant::now();
            let Some(next) = self.next_clock(now).filter(|next| *next > now) else {
                return Poll::Ready(now);
            };
            let timer = self.timer.get_or_insert_with(|| Timer::new(next));
            ready!(timer.poll(next, now, cx));
        }
    }

    fn poll_clocks(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Broken>>> {
        loop {
            let now = ready!(self.poll_timer(cx));
            if self.deadline().is_none_or(|deadline| now >= deadline) {
                return self.break_off(&self.total_timeout(), cx);
            }
            if now >= self.last_piece + self.idle_timeout {
                let text = format!("nothing came for {:?}", self.idle_timeout);
                return self.break_off(&Error::new(Code::IdleTimeout, text), cx);
            }
            if self.events.as_mut().is_some_and(|events| events.beats(now)) {
                self.given_at = self.client.wire.flushes();
                return Poll::Ready(Some(Ok(Frame::data(sse::HEARTBEAT))));
            }
        }
    }

    /// When the total clock fires, while the exchange lasts.
    fn deadline(&self) -> Option<Instant> {
        self.exchange.borrow().as_ref().map(|exchange| exchange.deadline)
    }

    fn total_timeout(&self) -> Error {
        let timeout = self.record.agent.as_ref().map_or(Duration::ZERO, |a| a.settings.timeout);
        Error::new(Code::TotalTimeout, format!("not done within {timeout:?}"))
    }

    /// Why the reply has to break off though its agent is well: somebody took the exchange, which
    /// is the watchdog, or the drain is over.
    fn cut_off(&self) -> Option<Error> {
        if self.exchange.borrow().is_none() {
            return Some(self.total_timeout());
        }
        let text = "the gateway shuts down before the answer was whole";
        self.worker.cut.get().then(|| Error::new(Code::Draining, text))
    }

    /// Cancels the exchange and begins to tell the client.
    fn break_off(
        &mut self,
        error: &Error,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Broken>>> {
        self.dismiss();
        if let Some(exchange) = self.exchange.take()
            && error.code != Code::Draining
        {
            health::observe(&exchange.agent, &exchange.lease, Blame::Failed);
        }
        let between = self.events.as_ref().is_some_and(|events| events.scanner.at_boundary());
        let problem = || error.problem(self.record.id(), self.record.agent_name());
        let event = between.then(|| sse::error_event(&problem()));
        self.record.failed(error);
        self.ending = Some(Ending { code: error.code, event, patience: None });
        self.poll_ending(cx)
    }

    fn poll_ending(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Broken>>> {
        let Some(ending) = &mut self.ending else { return Poll::Ready(None) };
        if let Some(event) = ending.event.take() {
            self.given_at = self.client.wire.flushes();
            return Poll::Ready(Some(Ok(Frame::data(event))));
        }
        let patience =
            ending.patience.get_or_insert_with(|| Box::pin(tokio::time::sleep(BREAK_PATIENCE)));
        if self.client.wire.poll_flushed(self.given_at, cx).is_pending() {
            ready!(patience.as_mut().poll(cx));
        }
        if self.client.until_close.get() {
            self.client.wire.reset_on_close();
        }
        Poll::Ready(Some(Err(Broken(ending.code))))
    }

    /// Goes on without the client, where the table says so.
    fn go_on_alone(&mut self) {
        let continues =
            |e: &mut Exchange| e.agent.settings.on_disconnect == config::OnDisconnect::Continue;
        if self.worker.cut.get() || self.client.cause.get().is_some() {
            return;
        }
        let Some(exchange) = self.exchange.borrow_mut().take_if(continues) else { return };
        let worker = Rc::clone(&self.worker);
        tokio::task::spawn_local(async move {
            let _open = worker.open();
            read_out(&worker, exchange).await;
        });
    }
}

impl Events {
    fn beats(&mut self, now: Instant) -> bool {
        let due = self.heartbeat.is_some_and(|every| now >= self.last_sent + every);
        let beats = due && self.scanner.at_boundary();
        if beats {
            self.last_sent = now;
        }
        beats
    }
}

/// Reads a response to its end for nobody, so that its agent finishes. Its place counts as held.
pub async fn read_out(worker: &Rc<Worker>, mut exchange: Exchange) {
    exchange.permit.hold();
    let idle_timeout = exchange.agent.settings.idle_timeout;
    loop {
        let due = exchange.deadline.min(Instant::now() + idle_timeout);
        let frame = std::future::poll_fn(|cx| Pin::new(&mut exchange.incoming).poll_frame(cx));
        match tokio::time::timeout_at(due, frame).await {
            Ok(Some(Ok(_))) => {}
            Ok(None) => break,
            Ok(Some(Err(_))) | Err(_) => return,
        }
    }
    exchange.at = Instant::now();
    exchange.keep(worker);
}

impl Drop for Streamed {
    fn drop(&mut self) {
        self.dismiss();
        self.record.sent = self.sent;
        let is_over = self.done || self.ending.is_some();
        if let Some(error) = (!is_over).then(|| self.cut_off()).flatten() {
            self.record.failed(&error);
        }
        self.go_on_alone();
    }
}

impl Body for Reply {
    type Data = Bytes;
    type Error = Broken;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Broken>>> {
        let this = match self.get_mut() {
            Self::Whole(bytes) => return Poll::Ready(bytes.take().map(|b| Ok(Frame::data(b)))),
            Self::Streamed(streamed) => streamed.as_mut().get_mut(),
        };
        if this.ending.is_some() {
            return this.poll_ending(cx);
        }
        if this.done {
            return Poll::Ready(None);
        }
        if let Some(error) = this.cut_off() {
            return this.break_off(&error, cx);
        }
        if let Some(watchdog) = &this.watchdog {
            watchdog.reader.register(cx.waker());
        }
        let polled = (this.exchange.borrow_mut().as_mut())
            .map_or(Poll::Pending, |exchange| Pin::new(&mut exchange.incoming).poll_frame(cx));
        match polled {
            Poll::Ready(Some(Ok(mut frame))) => {
                if let Some(trailers) = frame.trailers_mut() {
                    crate::forward::headers::trailers(trailers);
                }
                this.note(&frame, Instant::now());
                Poll::Ready(Some(Ok(frame)))
            }
            Poll::Ready(None) => {
                this.finish();
                Poll::Ready(None)
            }
            Poll::Ready(Some(Err(cause))) => {
                let text = "the agent broke off its answer";
                this.break_off(&Error::new(Code::UpstreamReset, text).because(cause), cx)
            }
            Poll::Pending => this.poll_clocks(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Whole(bytes) => bytes.is_none(),
            Self::Streamed(streamed) => streamed.done,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Whole(bytes) => SizeHint::with_exact(bytes.as_ref().map_or(0, Bytes::len) as u64),
            Self::Streamed(streamed) => match streamed.exchange.borrow().as_ref() {
                Some(exchange) => exchange.incoming.size_hint(),
                None => SizeHint::new(),
            },
        }
    }
}
