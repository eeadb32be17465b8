//! A request that is under way: its reply piece by piece, its body piece by piece, and leaving.

use bytes::Bytes;
use h2::client::ResponseFuture;
use h2::{Reason, RecvStream, SendStream};
use tokio::task::JoinHandle;

use crate::ask::{Ask, Body};
use crate::client::{Client, H2Conn, empty, read_head};
use crate::reply::{Http, Reply, check, check_head};
use crate::wire::{End, Framing, Headers, Reader, Writer, find, reset, soon};

/// The sending of a request's body: under way, or waiting for more.
enum Sending<W> {
    Task(Task<W>),
    Here(W),
    Gone,
}

impl<W> Sending<W> {
    fn take(&mut self) -> Sending<W> {
        std::mem::replace(self, Sending::Gone)
    }

    /// Waits until what was given has been sent.
    async fn settle(&mut self) {
        if let Sending::Task(task) = self {
            let writer = soon("the body is sent", &mut task.0).await.unwrap();
            *self = Sending::Here(writer);
        }
    }

    /// Stops where it is, and waits until it has stopped.
    async fn stop(mut self) {
        if let Sending::Task(task) = &mut self {
            task.0.abort();
            let _ = (&mut task.0).await;
        }
    }
}

/// A task that ends when nobody waits for it any more.
struct Task<W>(JoinHandle<W>);

impl<W> Drop for Task<W> {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Sending<SendStream<Bytes>> {
    fn task(mut stream: SendStream<Bytes>, pieces: Vec<Bytes>, last: bool) -> Self {
        Sending::Task(Task(tokio::spawn(async move {
            for piece in pieces {
                if !send_h2(&mut stream, piece).await {
                    return stream;
                }
            }
            if last {
                let _ = stream.send_data(Bytes::new(), true);
            }
            stream
        })))
    }
}

/// Sends one piece as far as flow control lets it; false when the stream is dead.
async fn send_h2(stream: &mut SendStream<Bytes>, mut piece: Bytes) -> bool {
    while !piece.is_empty() {
        stream.reserve_capacity(piece.len());
        match std::future::poll_fn(|cx| stream.poll_capacity(cx)).await {
            Some(Ok(n)) if n > 0 => {
                if stream.send_data(piece.split_to(n.min(piece.len())), false).is_err() {
                    return false;
                }
            }
            Some(Ok(_)) => {}
            _ => return false,
        }
    }
    true
}

enum Side {
    One {
        reader: Reader,
        framing: Framing,
        sending: Sending<Writer>,
    },
    Two {
        response: Option<ResponseFuture>,
        body: Option<RecvStream>,
        sending: Sending<SendStream<Bytes>>,
    },
}

/// A request that was begun. Dropping it leaves: closes the connection, or resets the stream.
pub struct Open {
    side: Side,
    client: Client,
    to_head: bool,
    head: Option<Reply>,
    keep: Option<H2Conn>,
}

impl Open {
    /// Over HTTP/1.1: the head was sent, the body is being sent by a task.
    pub fn one(client: Client, to_head: bool, reader: Reader, sending: JoinHandle<Writer>) -> Open {
        let sending = Sending::Task(Task(sending));
        let side = Side::One { reader, framing: Framing::Done, sending };
        Open { side, client, to_head, head: None, keep: None }
    }

    /// Over HTTP/2: the head was sent, the body is about to be.
    pub fn two(
        client: Client,
        ask: Ask,
        response: ResponseFuture,
        stream: SendStream<Bytes>,
    ) -> Open {
        let sending = match ask.body {
            Body::None => Sending::Here(stream),
            Body::Whole(body) => Sending::task(stream, vec![body], true),
            Body::Chunks(chunks, last) => Sending::task(stream, chunks, last),
        };
        let side = Side::Two { response: Some(response), body: None, sending };
        Open { side, client, to_head: ask.method == "HEAD", head: None, keep: None }
    }

    /// Keeps the connection as long as this request.
    pub fn keeping(mut self, conn: H2Conn) -> Open {
        self.keep = Some(conn);
        self
    }

    /// The reply's head, as a reply without a body.
    pub async fn head(&mut self) -> &Reply {
        if self.head.is_none() {
            let head = match &mut self.side {
                Side::One { reader, framing, .. } => {
                    let (head, kind) = read_head(reader, self.client, self.to_head).await;
                    *framing = kind;
                    head
                }
                Side::Two { .. } => {
                    let error = |e: h2::Error| panic!("no reply, but the stream's end: {e}");
                    self.head_h2().await.unwrap_or_else(error)
                }
            };
            self.head = Some(head);
        }
        self.head.as_ref().expect("just read")
    }

    async fn head_h2(&mut self) -> Result<Reply, h2::Error> {
        let Side::Two { response, body, .. } = &mut self.side else { unreachable!("asked above") };
        let response = response.take().expect("the head is read once");
        let (parts, stream) = soon("a reply begins", response).await?.into_parts();
        *body = Some(stream);
        let field = |(n, v): (&http::HeaderName, &http::HeaderValue)| {
            (n.as_str().to_owned(), v.as_bytes().iter().map(|b| char::from(*b)).collect())
        };
        let headers = Headers(parts.headers.iter().map(field).collect());
        let reply = empty(Http::Two, parts.status.as_u16(), headers);
        if self.client.checked {
            check_head(&reply);
        }
        Ok(reply)
    }

    /// The next piece of the reply's body, or how it ended.
    pub async fn piece(&mut self) -> Result<Bytes, End> {
        self.head().await;
        match &mut self.side {
            Side::One { reader, framing, .. } => {
                soon("a piece of the reply", reader.piece(framing)).await
            }
            Side::Two { body, .. } => {
                let body = body.as_mut().expect("the head was read");
                match soon("a piece of the reply", body.data()).await {
                    Some(Ok(piece)) => {
                        let _ = body.flow_control().release_capacity(piece.len());
                        Ok(piece)
                    }
                    Some(Err(error)) => Err(h2_end(&error)),
                    None => Err(End::Complete),
                }
            }
        }
    }

    /// Reads until `text` has come, and gives all that came.
    pub async fn until(&mut self, text: &str) -> String {
        let mut all = Vec::new();
        while find(&all, text.as_bytes()).is_none() {
            match self.piece().await {
                Ok(piece) => all.extend_from_slice(&piece),
                Err(end) => {
                    panic!("{end:?} before {text:?} came: {}", String::from_utf8_lossy(&all))
                }
            }
        }
        String::from_utf8(all).unwrap()
    }

    /// The whole reply.
    pub async fn whole(mut self) -> Reply {
        self.rest().await
    }

    /// The reply with what is left of its body.
    pub async fn rest(&mut self) -> Reply {
        let mut reply = self.head().await.clone();
        reply.end = loop {
            match self.piece().await {
                Ok(piece) => reply.body.extend_from_slice(&piece),
                Err(end) => break end,
            }
        };
        match &mut self.side {
            Side::One { reader, .. } => reply.trailers = std::mem::take(&mut reader.trailers),
            Side::Two { body: Some(body), .. } if reply.end == End::Complete => {
                let trailers = soon("the trailers", body.trailers()).await.unwrap();
                for (name, value) in trailers.iter().flatten() {
                    let value = String::from_utf8_lossy(value.as_bytes()).into_owned();
                    reply.trailers.0.push((name.as_str().to_owned(), value));
                }
            }
            Side::Two { .. } => {}
        }
        if self.client.checked {
            check(&reply);
        }
        reply
    }

    /// Waits until the body that was given with the request has been sent as far as it goes.
    pub async fn sent(&mut self) {
        match &mut self.side {
            Side::One { sending, .. } => sending.settle().await,
            Side::Two { sending, .. } => sending.settle().await,
        }
    }

    /// Sends one more piece of an open body; false when nobody takes it any more.
    pub async fn send(&mut self, piece: impl Into<Bytes>) -> bool {
        self.sent().await;
        let piece = piece.into();
        match &mut self.side {
            Side::One { sending: Sending::Here(writer), .. } => {
                soon("a piece is sent", writer.chunk(piece)).await.is_ok()
            }
            Side::Two { sending: Sending::Here(stream), .. } => {
                soon("a piece is sent", send_h2(stream, piece)).await
            }
            _ => unreachable!("the body was sent just now"),
        }
    }

    /// Ends an open body.
    pub async fn finish(&mut self) {
        self.sent().await;
        match &mut self.side {
            Side::One { sending: Sending::Here(writer), .. } => {
                let _ = writer.last_chunk().await;
            }
            Side::Two { sending: Sending::Here(stream), .. } => {
                let _ = stream.send_data(Bytes::new(), true);
            }
            _ => unreachable!("the body was sent just now"),
        }
    }

    /// Goes away without a further word: a close, or RST_STREAM. An HTTP/2 connection that was
    /// made for this request alone is handed back, for it must outlive the reset.
    #[must_use = "dropping the connection would close it, and not only the stream"]
    pub async fn leave(mut self) -> Option<H2Conn> {
        match &mut self.side {
            Side::One { sending, .. } => sending.take().stop().await,
            Side::Two { sending, .. } => match sending.take() {
                Sending::Here(mut stream) => stream.send_reset(Reason::CANCEL),
                other => other.stop().await,
            },
        }
        self.keep.take()
    }

    /// Goes away by a reset of its HTTP/1.1 connection.
    pub async fn reset(mut self) {
        self.sent().await;
        let Side::One { reader, mut sending, .. } = self.side else { panic!("no HTTP/1.1") };
        let Sending::Here(writer) = sending.take() else { unreachable!("sent just now") };
        reset(reader, writer);
    }
}

fn h2_end(error: &h2::Error) -> End {
    match error.reason() {
        Some(reason) if error.is_reset() => End::Stream(reason.into()),
        _ => End::Reset,
    }
}
