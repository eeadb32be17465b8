//! A response's body as it comes from an agent, over either HTTP, with the connection it comes on.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;

use super::connections::Stream;
use super::http1::Http1Body;
use crate::h1::BodyError;

/// Dropped early, the exchange is cancelled.
pub enum AgentBody {
    /// On a connection of its own, for the next request when the body has ended.
    Http1(Http1Body),
    /// On a stream of a shared connection.
    Http2(Incoming, Stream),
}

impl AgentBody {
    /// All of the body, if it is here.
    pub fn take_whole(&mut self) -> Option<Bytes> {
        match self {
            Self::Http1(body) => body.take_whole(),
            Self::Http2(body, _) => body.is_end_stream().then(Bytes::new),
        }
    }
}

/// A response's body broke off.
#[derive(Debug, thiserror::Error)]
pub enum AgentBodyError {
    /// Over HTTP/1.1.
    #[error(transparent)]
    Http1(#[from] BodyError),
    /// Over HTTP/2.
    #[error(transparent)]
    Http2(#[from] hyper::Error),
}

impl Body for AgentBody {
    type Data = Bytes;
    type Error = AgentBodyError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, AgentBodyError>>> {
        match self.get_mut() {
            Self::Http1(body) => Pin::new(body).poll_frame(cx).map_err(AgentBodyError::from),
            Self::Http2(body, _) => Pin::new(body).poll_frame(cx).map_err(AgentBodyError::from),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Http1(body) => body.is_end_stream(),
            Self::Http2(body, _) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Http1(body) => body.size_hint(),
            Self::Http2(body, _) => body.size_hint(),
        }
    }
}
