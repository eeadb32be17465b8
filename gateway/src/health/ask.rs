//! One question: a GET over a connection of its own, so that it shows whether the replica accepts.

use std::sync::Arc;

use bytes::Bytes;
use http::header::{HOST, USER_AGENT};
use http::{Request, StatusCode, Uri};
use http_body_util::{BodyExt, Empty, Limited};
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;

use crate::pool::Endpoint;

const NAME: &str = concat!("switchyard/", env!("CARGO_PKG_VERSION"));

/// Why a replica is not healthy.
#[derive(Debug, thiserror::Error)]
pub(super) enum Failure {
    /// No connection.
    #[error("no connection: {0}")]
    Connect(#[source] std::io::Error),
    /// A connection, but no answer.
    #[error("no answer: {0}")]
    Answer(#[from] hyper::Error),
    /// An answer that is not 2xx.
    #[error("answered {0}")]
    Status(StatusCode),
    /// Not all of it came, or it was too long.
    #[error("a broken answer: {0}")]
    Body(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The path can't stand in a request.
    #[error("no path to ask: {0}")]
    Path(#[from] http::Error),
    /// Not within `health.timeout`.
    #[error("no answer in time")]
    Timeout,
}

/// Asks once; 2xx is healthy. The answer's body is not read. Dropping the future ends the probe.
pub(super) async fn ask(endpoint: &Arc<Endpoint>, agent: &str, path: &str) -> Result<(), Failure> {
    read(endpoint, agent, path, None).await.map(drop)
}

/// Asks once, and reads the answer's body of at most so many bytes, if any of it is wanted.
pub(super) async fn read(
    endpoint: &Arc<Endpoint>,
    agent: &str,
    path: &str,
    most: Option<usize>,
) -> Result<Bytes, Failure> {
    let address = &endpoint.address;
    let connected = TcpStream::connect((address.host.as_str(), address.port)).await;
    let io = TokioIo::new(connected.map_err(Failure::Connect)?);
    let (response, _until_answered) = match endpoint.protocol {
        config::Protocol::Http1 => {
            let request = request(endpoint, agent, path.parse().map_err(http::Error::from)?)?;
            let (mut sender, connection) = http1::handshake(io).await?;
            let until_answered = Background(tokio::spawn(async move {
                // Its failure is the answer's.
                let _ = connection.await;
            }));
            (sender.send_request(request).await?, until_answered)
        }
        config::Protocol::H2c => {
            let whole = format!("http://{}{path}", endpoint.authority);
            let request = request(endpoint, agent, whole.parse().map_err(http::Error::from)?)?;
            let (mut sender, connection) = http2::handshake(TokioExecutor::new(), io).await?;
            let until_answered = Background(tokio::spawn(async move {
                let _ = connection.await;
            }));
            (sender.send_request(request).await?, until_answered)
        }
    };
    if !response.status().is_success() {
        return Err(Failure::Status(response.status()));
    }
    let Some(most) = most else { return Ok(Bytes::new()) };
    let body = Limited::new(response.into_body(), most).collect().await;
    Ok(body.map_err(Failure::Body)?.to_bytes())
}

fn request(endpoint: &Endpoint, agent: &str, uri: Uri) -> http::Result<Request<Empty<Bytes>>> {
    let builder = Request::get(uri).header(USER_AGENT, NAME);
    let builder = builder.header(config::names::AGENT_TYPE, agent);
    let builder = match endpoint.protocol {
        config::Protocol::Http1 => builder.header(HOST, endpoint.host()),
        config::Protocol::H2c => builder,
    };
    builder.body(Empty::new())
}

/// A connection's task, ended by being dropped.
struct Background(JoinHandle<()>);

impl Drop for Background {
    fn drop(&mut self) {
        self.0.abort();
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::io::AsyncReadExt;
    use tokio::net::TcpListener;

    use super::*;

    async fn listener(protocol: config::Protocol) -> (TcpListener, Arc<Endpoint>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let address = config::Endpoint { host: "127.0.0.1".into(), port };
        (listener, Arc::new(Endpoint::new(address, protocol)))
    }

    #[tokio::test]
    async fn an_h2c_replica_is_asked_in_http2() {
        let (listener, endpoint) = listener(config::Protocol::H2c).await;
        let asked = tokio::spawn(async move { ask(&endpoint, "qa", "/readyz?x").await });
        let (stream, _) = listener.accept().await.unwrap();
        let mut connection = h2::server::handshake(stream).await.unwrap();
        let (request, mut reply) = connection.accept().await.unwrap().unwrap();
        assert_eq!(request.uri().path_and_query().unwrap(), "/readyz?x");
        assert_eq!(request.headers()[config::names::AGENT_TYPE], "qa");
        reply.send_response(http::Response::new(()), false).unwrap();
        while let Some(Ok(_)) = connection.accept().await {}
        asked.await.unwrap().unwrap();
    }

    #[tokio::test]
    async fn a_refused_connection_is_told_from_silence() {
        let (listener, endpoint) = listener(config::Protocol::Http1).await;
        let waiting = ask(&endpoint, "qa", "/");
        let silent = tokio::time::timeout(Duration::from_millis(50), waiting).await;
        assert!(silent.is_err(), "{silent:?}");
        // The probe that was given up has closed its connection.
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut head = Vec::new();
        stream.read_to_end(&mut head).await.unwrap();
        assert!(head.starts_with(b"GET / HTTP/1.1\r\n"));
        drop((stream, listener));
        let refused = ask(&endpoint, "qa", "/").await;
        assert!(matches!(refused, Err(Failure::Connect(_))), "{refused:?}");
    }
}
