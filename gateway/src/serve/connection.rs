//! One client connection: which HTTP it speaks, its clocks, its client's leaving, its graceful end.

use std::cell::Cell;
use std::convert::Infallible;
use std::future::poll_fn;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper_util::rt::TokioTimer;
use tokio::time::{Instant, Sleep};

use super::http1::Http1;
use crate::body::ClientBody;
use crate::error::Code;
use crate::forward::connections::Local;
use crate::message::RequestHead;
use crate::proxy::reply::Reply;
use crate::proxy::respond;
use crate::proxy::worker::{Client, Worker};
use crate::wire::Wire;

/// RFC 9113, section 3.4.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// What is read at first: a usual request.
const FIRST_READ: usize = 2048;
/// HTTP/2 window of one stream: what a slow agent can make the gateway hold.
const STREAM_WINDOW: u32 = 128 * 1024;
/// HTTP/2 window of one client connection: uploads that an agent does not read hold up no others
/// until there are 128 of them.
const CONNECTION_WINDOW: u32 = 16 * 1024 * 1024;
/// What one HTTP/2 stream may have buffered for sending.
const SEND_BUFFER: usize = 64 * 1024;
/// Requests at once on one HTTP/2 connection.
const STREAMS_MAX: u32 = 1000;
/// After our last byte: how long the client may take to read it while it still sends.
const LINGER: Duration = Duration::from_secs(2);
/// How much of what it still sends is read and thrown away.
const LINGER_BYTES: usize = 8 * 1024 * 1024;
/// When draining: how long a connection that has not asked anything yet is waited for.
const FIRST_REQUEST: Duration = Duration::from_millis(500);
/// When draining: how long the next request is waited for on a connection whose answer began before
/// the drain, so that nothing in it said `Connection: close`. Many clients send it with the last
/// byte's arrival.
const NEXT_REQUEST: Duration = Duration::from_millis(400);
/// When `drain_timeout` is over: how long an open request may take to tell its client so.
const LAST_WORDS: Duration = Duration::from_millis(100);
/// A clock of a connection is looked at again after that long at the latest.
const CLOCK_MAX: Duration = Duration::from_secs(3600);

/// Serves one connection to its end.
pub(super) async fn run(worker: Rc<Worker>, client: Rc<Client>) {
    let wire = Arc::clone(&client.wire);
    let begun = tokio::select! {
        begun = first_bytes(&worker, &client) => begun,
        () = worker.until_cut() => None,
    };
    let Some(begun) = begun else { return };
    client.is_http1.set(!begun.starts_with(PREFACE));
    if client.is_http1.get() {
        serve_http1(&worker, &client, begun).await;
    } else {
        // On the heap: every connection's task has the size of all that it may do.
        Box::pin(serve_http2(&worker, &client, begun)).await;
    }
    if !client.upgraded.get() && !wire.is_reset_on_close() {
        linger(&worker, &wire).await;
    }
}

/// Reads until HTTP/2 with prior knowledge can be told from HTTP/1.
async fn first_bytes(worker: &Rc<Worker>, client: &Rc<Client>) -> Option<Bytes> {
    let wire = &client.wire;
    let (keepalive_timeout, header_timeout) = {
        let gateway = &worker.view.current().table.gateway;
        (gateway.keepalive_timeout, gateway.header_timeout)
    };
    let mut begun = Vec::new();
    let mut due = Instant::now() + keepalive_timeout;
    loop {
        let readable = tokio::select! {
            readable = tokio::time::timeout_at(due, wire.stream().readable()) => readable,
            () = no_first_request(worker), if begun.is_empty() => return None,
        };
        if readable.is_err() && !begun.is_empty() {
            let mut late = Http1::new(worker, client, &begun);
            poll_fn(|cx| {
                late.refuse_late_head(cx);
                Poll::Ready(())
            })
            .await;
        }
        readable.ok()?.ok()?;
        if begun.is_empty() {
            due = Instant::now() + header_timeout;
        }
        let mut buffer = [0; FIRST_READ];
        // On the stack, so it is not kept while the connection waits.
        match wire.poll_read(&mut Context::from_waker(Waker::noop()), &mut &mut buffer[..]) {
            Poll::Ready(Ok(n @ 1..)) => begun.extend_from_slice(&buffer[..n]),
            Poll::Ready(_) => return None,
            Poll::Pending => {}
        }
        if begun.len() >= PREFACE.len() || !PREFACE.starts_with(&begun) {
            return Some(begun.into());
        }
    }
}

/// While draining, a new connection gets a moment to ask what it came for.
async fn no_first_request(worker: &Rc<Worker>) {
    while !worker.draining.get() {
        worker.changed.notified().await;
    }
    tokio::time::sleep(FIRST_REQUEST).await;
}

async fn serve_http1(worker: &Rc<Worker>, client: &Rc<Client>, begun: Bytes) {
    let connection = Http1::new(worker, client, &begun);
    Served::new(worker, client, connection).run().await;
}

async fn serve_http2(worker: &Rc<Worker>, client: &Rc<Client>, begun: Bytes) {
    let max = worker.view.current().table.gateway.max_header_bytes;
    let service = service_fn(|request: Request<hyper::body::Incoming>| {
        let (worker, client) = (Rc::clone(worker), Rc::clone(client));
        async { Ok::<_, Infallible>(answer2(worker, client, request).await) }
    });
    let connection = http2::Builder::new(Local)
        .timer(TokioTimer::new())
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_concurrent_streams(STREAMS_MAX)
        .max_send_buf_size(SEND_BUFFER)
        .max_header_list_size(u32::try_from(max).unwrap_or(u32::MAX))
        .serve_connection(client.wire.socket(begun), service);
    Served::new(worker, client, Http2(connection)).run().await;
}

async fn answer2(
    worker: Rc<Worker>,
    client: Rc<Client>,
    request: Request<hyper::body::Incoming>,
) -> Response<Reply> {
    let (head, body) = RequestHead::of(request);
    let (head, reply) = respond(worker, client, (head, ClientBody::Http2(body))).await;
    head.with(reply)
}

/// A connection of either version: ours, or hyper's.
trait Connection {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()>;

    /// Ends when what is under way is over.
    fn shut_down(&mut self);

    /// HTTP/1: something of the next head is here.
    fn has_begun(&self) -> bool {
        false
    }

    /// HTTP/1: the next head did not come in time.
    fn refuse_late_head(&mut self, _cx: &mut Context<'_>) {}

    /// HTTP/1: nothing more comes of the request under way, so its client's leaving can't cut it.
    fn is_read(&self) -> bool {
        true
    }

    /// HTTP/1: there is no body that another task may be reading.
    fn reads_alone(&self) -> bool {
        false
    }
}

struct Http2<C>(C);

impl Connection for Http1 {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        Self::poll(self, cx)
    }

    fn shut_down(&mut self) {
        Self::shut_down(self);
    }

    fn has_begun(&self) -> bool {
        Self::has_begun(self)
    }

    fn refuse_late_head(&mut self, cx: &mut Context<'_>) {
        Self::refuse_late_head(self, cx);
    }

    fn is_read(&self) -> bool {
        Self::is_read(self)
    }

    fn reads_alone(&self) -> bool {
        Self::reads_alone(self)
    }
}

impl<I, S, E> Connection for Http2<http2::Connection<I, S, E>>
where
    S: hyper::service::HttpService<hyper::body::Incoming>,
    S::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    S::ResBody: 'static,
    <S::ResBody as http_body::Body>::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    I: hyper::rt::Read + hyper::rt::Write + Unpin,
    E: hyper::rt::bounds::Http2ServerConnExec<S::Future, S::ResBody>,
{
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        Future::poll(Pin::new(&mut self.0), cx).map(drop)
    }

    fn shut_down(&mut self) {
        Pin::new(&mut self.0).graceful_shutdown();
    }
}

/// Who ended a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ended {
    /// HTTP: everything was said, or a reply broke.
    ByHttp,
    /// A clock, the drain, or a client that left.
    ByUs,
}

/// A connection with its clocks.
struct Served<C> {
    worker: Rc<Worker>,
    client: Rc<Client>,
    connection: C,
    begun: Instant,
    /// When the first byte of the head under way was seen.
    head_since: Cell<Option<Instant>>,
    shutting_down: Cell<bool>,
    /// When `drain_timeout` was over.
    cut_at: Cell<Option<Instant>>,
    /// Of when the timer was last looked at.
    moment: Option<Moment>,
}

/// What the clocks depend on: as long as it is the same, the timer stands as it should.
#[derive(PartialEq, Eq)]
struct Moment {
    is_busy: bool,
    served: u64,
    due: Option<Instant>,
    /// Between two requests.
    received: u64,
    has_begun: bool,
    draining: bool,
    is_cut: bool,
}

impl<C: Connection> Served<C> {
    fn new(worker: &Rc<Worker>, client: &Rc<Client>, connection: C) -> Self {
        let now = Instant::now();
        Self {
            worker: Rc::clone(worker),
            client: Rc::clone(client),
            connection,
            begun: now,
            head_since: Cell::new(Some(now)),
            shutting_down: Cell::new(false),
            cut_at: Cell::new(None),
            moment: None,
        }
    }

    async fn run(mut self) {
        let wire = Arc::clone(&self.client.wire);
        let worker = Rc::clone(&self.worker);
        let mut gone = std::pin::pin!(wire.closed_by_peer());
        let (is_http1, mut is_gone, mut watched) = (self.client.is_http1.get(), false, None);
        let mut timer = std::pin::pin!(tokio::time::sleep_until(self.due_or_far()));
        let mut changed = std::pin::pin!(worker.changed.notified());
        let ended = poll_fn(|cx| {
            loop {
                if self.connection.poll(cx).is_ready() {
                    return Poll::Ready(Ended::ByHttp);
                }
                let is_read = self.connection.is_read();
                // HTTP/2 is read all the time, so hyper sees it by itself.
                if is_http1 && !is_gone {
                    let gone = gone.as_mut();
                    is_gone = if self.connection.reads_alone() {
                        wire.poll_closed_unread(gone, &mut watched, cx).is_ready()
                    } else {
                        watched = None;
                        gone.poll(cx).is_ready()
                    };
                }
                let outlives = self.client.outlives_client.get() && !is_read;
                if is_gone && !outlives {
                    return Poll::Ready(Ended::ByUs);
                }
                if changed.as_mut().poll(cx).is_ready() {
                    changed.set(worker.changed.notified());
                    continue;
                }
                let shut = self.shut_down_if_due() | self.last_words_if_cut();
                if self.poll_clocks(timer.as_mut(), cx).is_ready() {
                    return Poll::Ready(Ended::ByUs);
                }
                if !shut {
                    return Poll::Pending;
                }
            }
        })
        .await;
        if ended == Ended::ByUs && self.client.until_close.get() {
            wire.reset_on_close();
        }
    }

    /// After `drain_timeout`: every request under way answers or breaks off by itself now, and the
    /// connection ends with the last, or soon. Says whether it was told now.
    fn last_words_if_cut(&mut self) -> bool {
        if !self.worker.cut.get() || self.cut_at.get().is_some() {
            return false;
        }
        self.cut_at.set(Some(Instant::now()));
        self.shutting_down.set(true);
        self.connection.shut_down();
        true
    }

    /// While draining: tells the connection as soon as nothing can be lost by it. An HTTP/1 connection
    /// that has not asked anything yet, or has just been answered, would be closed under a request
    /// that is on its way, so it gets a moment; HTTP/2 says GOAWAY and finishes what it has. Says
    /// whether it was told now.
    fn shut_down_if_due(&mut self) -> bool {
        if !self.worker.draining.get() || self.shutting_down.get() {
            return false;
        }
        let expected = Instant::now() < self.request_due();
        if self.client.is_http1.get()
            && (expected || self.client.is_busy() || self.head_since().is_some())
        {
            // Its answer says `Connection: close`.
            return false;
        }
        self.shutting_down.set(true);
        self.connection.shut_down();
        true
    }

    /// While draining: until when a request may still come on an idle connection.
    fn request_due(&self) -> Instant {
        match self.client.served.get() {
            0 => self.begun + FIRST_REQUEST,
            _ => self.client.idle_since() + NEXT_REQUEST,
        }
    }

    /// Since when a head is under way: bytes came after the last request ended.
    fn head_since(&self) -> Option<Instant> {
        let client = &self.client;
        let waiting = !client.is_busy() && self.client.is_http1.get();
        let first = client.served.get() == 0;
        let more = client.wire.received() > client.read_before.get() || self.connection.has_begun();
        let since = (waiting && (first || more))
            .then(|| self.head_since.get().unwrap_or_else(Instant::now));
        self.head_since.set(since);
        since
    }

    fn moment(&self) -> Moment {
        let client = &self.client;
        let is_busy = client.is_busy();
        Moment {
            is_busy,
            served: client.served.get(),
            due: client.due.get(),
            received: if is_busy { 0 } else { client.wire.received() },
            has_begun: self.connection.has_begun(),
            draining: self.worker.draining.get(),
            is_cut: self.cut_at.get().is_some(),
        }
    }

    /// When the next clock fires, if one runs.
    fn due(&self) -> Option<Instant> {
        let table = self.worker.view.current();
        let gateway = &table.table.gateway;
        if let Some(at) = self.cut_at.get() {
            return Some(at + LAST_WORDS);
        }
        if self.client.is_busy() {
            return self.client.due.get();
        }
        let due = match self.head_since() {
            Some(since) => since + gateway.header_timeout,
            None => self.client.idle_since() + gateway.keepalive_timeout,
        };
        let answered = self.client.is_http1.get() && self.head_since().is_none();
        let ends_soon = self.worker.draining.get() && (self.client.served.get() == 0 || answered);
        Some(if ends_soon { due.min(self.request_due().max(Instant::now())) } else { due })
    }

    fn due_or_far(&self) -> Instant {
        self.due().unwrap_or_else(|| Instant::now() + CLOCK_MAX)
    }

    /// Ready when the connection has to end because of a clock.
    fn poll_clocks(&mut self, mut timer: Pin<&mut Sleep>, cx: &mut Context<'_>) -> Poll<()> {
        let moment = Some(self.moment());
        if moment != self.moment {
            self.moment = moment;
            // Moving the timer costs; one that fires too early is moved then.
            if let Some(due) = self.due().filter(|due| *due < timer.deadline()) {
                timer.as_mut().reset(due);
            }
        }
        while timer.as_mut().poll(cx).is_ready() {
            let is_due = self.due().is_some_and(|due| due <= Instant::now());
            if is_due && self.fired(cx).is_ready() {
                return Poll::Ready(());
            }
            timer.as_mut().reset(self.due_or_far());
        }
        Poll::Pending
    }

    /// Ready when the connection has to end now.
    fn fired(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if self.cut_at.get().is_some() {
            return Poll::Ready(());
        }
        if self.client.is_busy() {
            // The client does not read: the body's own clock had no chance to say so.
            self.client.cause.set(Some(Code::TotalTimeout));
        } else if !self.client.is_http1.get() && !self.shutting_down.replace(true) {
            // GOAWAY, so that no request is lost that is on its way; then it has as long again.
            self.client.idle_anew();
            self.connection.shut_down();
            cx.waker().wake_by_ref();
            return Poll::Pending;
        } else if self.head_since().is_some() && !self.worker.draining.get() {
            self.connection.refuse_late_head(cx);
        }
        Poll::Ready(())
    }
}

/// Reads what the client still sends for a moment, so that it can read our last answer before the
/// kernel's reset, which unread bytes would cause.
async fn linger(worker: &Rc<Worker>, wire: &Wire) {
    wire.close_write();
    let mut left = LINGER_BYTES;
    let mut buffer = vec![0; 16 * 1024];
    let drain = async {
        while left > 0 {
            if wire.stream().readable().await.is_err() {
                return;
            }
            match wire.stream().try_read(&mut buffer) {
                Ok(0) => return,
                Ok(n) => left = left.saturating_sub(n),
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
                Err(_) => return,
            }
        }
    };
    worker.lingering.set(worker.lingering.get() + 1);
    tokio::select! {
        _ = tokio::time::timeout(LINGER, drain) => {}
        () = no_first_request(worker) => {}
    }
    worker.lingering.set(worker.lingering.get() - 1);
}
