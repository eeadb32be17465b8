//! A TCP connection: read and written without calls that would only say "not yet", by ourselves or
//! by hyper ([`Socket`]), and watched by its owner beside.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::task::{Context, Poll, ready};

use bytes::{Buf, BufMut, Bytes};
use futures_util::task::AtomicWaker;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};
use tokio::net::TcpStream;

/// What both hyper's half ([`Socket`]) and the connection's owner hold.
pub struct Wire {
    stream: TcpStream,
    received: AtomicU64,
    flushes: AtomicU64,
    flushed: AtomicWaker,
    reset: AtomicBool,
}

impl Wire {
    /// Takes the connection over; small writes go out at once (`TCP_NODELAY`).
    #[must_use]
    pub fn new(stream: TcpStream) -> Arc<Self> {
        // A socket that is gone already says so at the first read.
        let _ = stream.set_nodelay(true);
        Arc::new(Self {
            stream,
            received: AtomicU64::new(0),
            flushes: AtomicU64::new(0),
            flushed: AtomicWaker::new(),
            reset: AtomicBool::new(false),
        })
    }

    /// The half for hyper. `begun`: bytes that were read before.
    #[must_use]
    pub fn socket(self: &Arc<Self>, begun: Bytes) -> TokioIo<Socket> {
        TokioIo::new(self.half(begun))
    }

    /// The connection as a stream of bytes. `begun`: bytes that were read before.
    #[must_use]
    pub fn half(self: &Arc<Self>, begun: Bytes) -> Socket {
        Socket { wire: Arc::clone(self), begun }
    }

    /// The connection.
    #[must_use]
    pub fn stream(&self) -> &TcpStream {
        &self.stream
    }

    /// Bytes read so far.
    #[must_use]
    pub fn received(&self) -> u64 {
        self.received.load(Relaxed)
    }

    /// Ends when the peer has closed its side, though nobody reads and unread bytes lie before
    /// its FIN: `EPOLLRDHUP`, which tokio files under priority readiness too.
    pub async fn closed_by_peer(&self) {
        // An error means that the runtime is gone, and with it everybody who waits.
        while let Ok(ready) = self.stream.ready(Interest::PRIORITY).await {
            if ready.is_read_closed() {
                return;
            }
        }
    }

    /// The same for the only one who reads, who is always the same task: a side that is closed can be
    /// read, too, and mostly nothing can, which costs less to ask. `closed` is
    /// [`Wire::closed_by_peer`]; `watched` says after how many bytes the task was last noted as the
    /// one to wake, if nobody has read since.
    pub fn poll_closed_unread(
        &self,
        closed: Pin<&mut impl Future<Output = ()>>,
        watched: &mut Option<u64>,
        cx: &mut Context<'_>,
    ) -> Poll<()> {
        let received = Some(self.received());
        if *watched == received && self.stream.try_io(Interest::READABLE, || Ok(())).is_err() {
            return Poll::Pending;
        }
        *watched = None;
        if self.stream.poll_read_ready(cx).is_pending() {
            *watched = received;
            return Poll::Pending;
        }
        closed.poll(cx)
    }

    /// How often everything that was to be sent was handed to the kernel.
    #[must_use]
    pub fn flushes(&self) -> u64 {
        self.flushes.load(Relaxed)
    }

    /// Everything that was to be sent is with the kernel.
    pub fn count_flush(&self) {
        self.flushes.fetch_add(1, Relaxed);
        self.flushed.wake();
    }

    /// Ready once [`Wire::flushes`] has passed `seen`.
    pub fn poll_flushed(&self, seen: u64, cx: &mut Context<'_>) -> Poll<()> {
        self.flushed.register(cx.waker());
        if self.flushes() > seen { Poll::Ready(()) } else { Poll::Pending }
    }

    /// Says that nothing more will be written.
    pub fn close_write(&self) {
        // It fails when the peer was faster, which is as good.
        let _ = rustix::net::shutdown(&self.stream, rustix::net::Shutdown::Write);
    }

    /// Ends both directions, for whoever waits on either.
    pub fn close(&self) {
        let _ = rustix::net::shutdown(&self.stream, rustix::net::Shutdown::Both);
    }

    /// Makes the close a reset, so that what was sent can't be taken for whole.
    pub fn reset_on_close(&self) {
        self.reset.store(true, Relaxed);
        let _ = socket2::SockRef::from(&self.stream).set_linger(Some(std::time::Duration::ZERO));
    }

    /// Whether [`Wire::reset_on_close`] was called.
    #[must_use]
    pub fn is_reset_on_close(&self) -> bool {
        self.reset.load(Relaxed)
    }

    /// Reads once, into what room `buffer` has. Nothing read means that the peer has closed.
    pub fn poll_read(
        &self,
        cx: &mut Context<'_>,
        buffer: &mut impl BufMut,
    ) -> Poll<io::Result<usize>> {
        loop {
            ready!(self.stream.poll_read_ready(cx))?;
            let room = buffer.chunk_mut().len();
            match self.stream.try_read_buf(buffer) {
                Ok(n) => {
                    if 0 < n && n < room {
                        self.drained(Interest::READABLE);
                    }
                    // One thread reads; nobody else counts.
                    self.received.store(self.received() + n as u64, Relaxed);
                    return Poll::Ready(Ok(n));
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
    }

    /// Writes once, as much as the kernel takes.
    pub fn poll_write(&self, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_write_with(cx, data.len(), |stream| stream.try_write(data))
    }

    /// Writes once from several places, as much as the kernel takes.
    pub fn poll_write_vectored(
        &self,
        cx: &mut Context<'_>,
        data: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let length = data.iter().map(|part| part.len()).sum();
        self.poll_write_with(cx, length, |stream| stream.try_write_vectored(data))
    }

    fn poll_write_with(
        &self,
        cx: &mut Context<'_>,
        length: usize,
        write: impl Fn(&TcpStream) -> io::Result<usize>,
    ) -> Poll<io::Result<usize>> {
        loop {
            ready!(self.stream.poll_write_ready(cx))?;
            match write(&self.stream) {
                Ok(n) => {
                    if 0 < n && n < length {
                        self.drained(Interest::WRITABLE);
                    }
                    return Poll::Ready(Ok(n));
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
    }

    /// Marks the socket as drained after a short read or write: it saves the call that would
    /// only say so. Sound because the driver of a current-thread runtime does not run in between,
    /// and because closed sides are never unmarked.
    fn drained(&self, interest: Interest) {
        let _ = self.stream.try_io(interest, || Err::<(), _>(io::ErrorKind::WouldBlock.into()));
    }
}

/// A connection as a stream of bytes: hyper's half of it, or a tunnel's end.
pub struct Socket {
    wire: Arc<Wire>,
    begun: Bytes,
}

impl AsyncRead for Socket {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if !self.begun.is_empty() {
            let n = self.begun.len().min(buf.remaining());
            buf.put_slice(&self.begun[..n]);
            self.begun.advance(n);
            return Poll::Ready(Ok(()));
        }
        self.wire.poll_read(cx, buf).map_ok(drop)
    }
}

impl AsyncWrite for Socket {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        data: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.wire.poll_write(cx, data)
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.wire.count_flush();
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        if !self.wire.is_reset_on_close() {
            self.wire.close_write();
        }
        Poll::Ready(Ok(()))
    }
}
