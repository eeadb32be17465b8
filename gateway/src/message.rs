//! The head of a message while it is the gateway's: what came, and becomes what goes on.

mod fields;

use http::{HeaderMap, Method, Request, StatusCode, Uri, Version};

pub use self::fields::{Fields, Line, Name, Names};

/// A request's head. It passes through many hands, so it is handed over as a box.
#[derive(Debug)]
pub struct RequestHead {
    /// What is to be done.
    pub method: Method,
    /// With what.
    pub uri: Uri,
    /// How it came.
    pub version: Version,
    /// Everything else.
    pub fields: Fields,
}

/// A request's head on its way to an agent. Which replica is asked stands nowhere in it.
#[derive(Debug)]
pub struct OutgoingHead {
    /// What is to be done.
    pub method: Method,
    /// With what: path and query, as they can stand in a request.
    pub target: Box<str>,
    /// Everything else.
    pub fields: Fields,
}

/// A response's head.
#[derive(Debug)]
pub struct ResponseHead {
    /// What became of the request.
    pub status: StatusCode,
    /// How it came.
    pub version: Version,
    /// Everything else.
    pub fields: Fields,
}

impl RequestHead {
    /// That of a request over HTTP/2, with its body.
    #[must_use]
    pub fn of<B>(request: Request<B>) -> (Box<Self>, B) {
        let (parts, body) = request.into_parts();
        let (method, uri, version) = (parts.method, parts.uri, parts.version);
        (Box::new(Self { method, uri, version, fields: Fields::from(&parts.headers) }), body)
    }
}

impl ResponseHead {
    /// That of a response over HTTP/2, or of one of the gateway's own, with its body.
    #[must_use]
    pub fn of<B>(response: http::Response<B>) -> (Self, B) {
        let (parts, body) = response.into_parts();
        let (status, version) = (parts.status, parts.version);
        (Self { status, version, fields: Fields::from(&parts.headers) }, body)
    }

    /// For HTTP/2.
    #[must_use]
    pub fn with<B>(&self, body: B) -> http::Response<B> {
        let mut response = http::Response::new(body);
        *response.status_mut() = self.status;
        *response.headers_mut() = HeaderMap::from(&self.fields);
        response
    }
}
