//! A request on its way out: its head, and its body as it comes.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::{Body, Frame};

use crate::body::RequestBody;
use crate::h1::{Encoder, Outbox, write};
use crate::message::OutgoingHead;
use crate::wire::Wire;

/// What could not be sent.
#[derive(Debug)]
pub(super) enum UploadError {
    /// The body broke off; its source knows why.
    Body,
    /// The connection broke.
    Io(io::Error),
}

/// See the module.
pub struct Upload {
    body: RequestBody,
    encoder: Encoder,
    outbox: Outbox,
    /// The body's end is in the outbox, or gone.
    ended: bool,
    /// The kernel has taken something.
    begun: bool,
}

impl Upload {
    /// Of a request to `host`.
    pub(super) fn new(head: &OutgoingHead, host: &[u8], body: RequestBody) -> Self {
        let exact = body.size_hint().exact();
        let encoder = Encoder::for_request(&head.method, &head.fields, exact);
        let mut outbox = Outbox::default();
        write::request(head, host, &encoder, outbox.out());
        Self { body, encoder, outbox, ended: false, begun: false }
    }

    /// Whether anything was sent.
    pub(super) fn has_begun(&self) -> bool {
        self.begun
    }

    /// Sends on. Ready when the last byte is with the kernel.
    pub(super) fn poll(
        &mut self,
        wire: &Wire,
        cx: &mut Context<'_>,
    ) -> Poll<Result<(), UploadError>> {
        loop {
            self.gather(cx)?;
            if self.outbox.is_empty() {
                return if self.ended { Poll::Ready(Ok(())) } else { Poll::Pending };
            }
            let waiting = self.outbox.len();
            let flushed = self.outbox.poll_flush(wire, cx);
            self.begun |= self.outbox.len() < waiting;
            ready!(flushed).map_err(UploadError::Io)?;
        }
    }

    /// Takes from the body what is there, as far as it goes out in one call.
    fn gather(&mut self, cx: &mut Context<'_>) -> Result<(), UploadError> {
        while !self.ended && self.outbox.has_room() {
            if self.body.is_end_stream() {
                self.end(None)?;
                return Ok(());
            }
            match Pin::new(&mut self.body).poll_frame(cx) {
                Poll::Pending => return Ok(()),
                Poll::Ready(None) => self.end(None)?,
                Poll::Ready(Some(Ok(frame))) => self.put(frame)?,
                Poll::Ready(Some(Err(_))) => return Err(UploadError::Body),
            }
        }
        Ok(())
    }

    fn put(&mut self, frame: Frame<Bytes>) -> Result<(), UploadError> {
        match frame.into_data() {
            Ok(data) => self.outbox.data(&mut self.encoder, data),
            Err(other) => self.end(other.into_trailers().ok().as_ref())?,
        }
        Ok(())
    }

    fn end(&mut self, trailers: Option<&http::HeaderMap>) -> Result<(), UploadError> {
        if !self.encoder.may_end() {
            return Err(UploadError::Body);
        }
        self.ended = true;
        self.outbox.end(&self.encoder, trailers);
        Ok(())
    }
}
