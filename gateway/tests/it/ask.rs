//! A request, as a test writes it.

use std::net::SocketAddr;

use bytes::{Bytes, BytesMut};

/// A request to make.
#[derive(Debug, Clone)]
pub struct Ask {
    /// The method.
    pub method: &'static str,
    /// The path and query, sent as they are.
    pub target: String,
    /// The fields, sent as they are.
    pub headers: Vec<(String, String)>,
    /// The body.
    pub body: Body,
}

/// A request's body.
#[derive(Debug, Clone)]
pub enum Body {
    /// None at all.
    None,
    /// Of known length.
    Whole(Bytes),
    /// Chunks, and whether the last one follows.
    Chunks(Vec<Bytes>, bool),
}

/// A request with this method.
pub fn ask(method: &'static str, target: &str) -> Ask {
    Ask { method, target: target.to_owned(), headers: Vec::new(), body: Body::None }
}

/// A GET.
pub fn get(target: &str) -> Ask {
    ask("GET", target)
}

/// A POST with a body of known length.
pub fn post(target: &str, body: impl Into<Bytes>) -> Ask {
    ask("POST", target).body(body)
}

impl Ask {
    /// With one more header.
    pub fn header(mut self, name: &str, value: &str) -> Ask {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    /// With a body of known length.
    pub fn body(mut self, body: impl Into<Bytes>) -> Ask {
        self.body = Body::Whole(body.into());
        self
    }

    /// With a chunked body.
    pub fn chunks<T: Into<Bytes>>(mut self, chunks: impl IntoIterator<Item = T>) -> Ask {
        self.body = Body::Chunks(chunks.into_iter().map(Into::into).collect(), true);
        self
    }

    /// With a body whose beginning is sent at once and whose rest comes by [`Open::send`].
    pub fn open_body(mut self, begin: impl Into<Bytes>) -> Ask {
        let begin = begin.into();
        self.body = Body::Chunks(if begin.is_empty() { Vec::new() } else { vec![begin] }, false);
        self
    }

    /// The head, for HTTP/1.1.
    pub fn head(&self, addr: SocketAddr) -> String {
        let mut head = format!("{} {} HTTP/1.1\r\n", self.method, self.target);
        if !self.headers.iter().any(|(n, _)| n == "host") {
            head.push_str(&format!("host: {addr}\r\n"));
        }
        for (name, value) in &self.headers {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        match &self.body {
            Body::None => {}
            Body::Whole(body) => head.push_str(&format!("content-length: {}\r\n", body.len())),
            Body::Chunks(..) => head.push_str("transfer-encoding: chunked\r\n"),
        }
        head + "\r\n"
    }

    /// Chunks, for HTTP/1.1.
    fn chunked(chunks: &[Bytes], last: bool) -> Bytes {
        let mut bytes = BytesMut::new();
        for chunk in chunks {
            bytes.extend_from_slice(format!("{:x}\r\n", chunk.len()).as_bytes());
            bytes.extend_from_slice(chunk);
            bytes.extend_from_slice(b"\r\n");
        }
        if last {
            bytes.extend_from_slice(b"0\r\n\r\n");
        }
        bytes.freeze()
    }

    /// The body, for HTTP/1.1.
    pub fn body_bytes(&self) -> Bytes {
        match &self.body {
            Body::None => Bytes::new(),
            Body::Whole(body) => body.clone(),
            Body::Chunks(chunks, last) => Ask::chunked(chunks, *last),
        }
    }
}
