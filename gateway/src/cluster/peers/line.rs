//! The line to one other gateway: a connection that is kept, and one question at a time.

use bytes::Bytes;
use http::header::{AUTHORIZATION, HOST, HeaderName, HeaderValue};
use http::{Request, StatusCode};
use http_body_util::{BodyExt, Empty, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::task::JoinHandle;

use super::report::{Report, Wire};
use super::sign::{Key, Question};
use super::wall_clock_ms;

/// Where gateways ask each other, on the admin port.
pub const PATH: &str = "/api/peer";
/// What proves an answer.
pub const SEAL: HeaderName = HeaderName::from_static("x-switchyard-peer-seal");
/// The longest answer: some ten thousand replicas with requests.
const ANSWER_MAX: usize = 4 << 20;

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub(super) enum Failure {
    /// No connection.
    #[error("no connection: {0}")]
    Connect(#[source] std::io::Error),
    /// A connection, but no answer.
    #[error("no answer: {0}")]
    Exchange(#[from] hyper::Error),
    /// Longer than any gateway's.
    #[error("no answer: {0}")]
    Body(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// Not what a gateway says.
    #[error("answered {0}")]
    Status(StatusCode),
    /// It doesn't believe us.
    #[error("it doesn't know us: another key, or another time on its clock")]
    Refused,
    /// We don't believe it.
    #[error("its answer isn't one of our gateways': another key, or another server")]
    Forged,
    /// Its answer is that of another version.
    #[error("its answer can't be understood: {0}")]
    Foreign(#[source] serde_json::Error),
    /// Not in time.
    #[error("no answer in time")]
    Timeout,
}

impl Failure {
    /// Whether another key might help.
    pub(super) fn is_about_trust(&self) -> bool {
        matches!(self, Self::Refused | Self::Forged)
    }
}

/// The line to one address.
pub(super) struct Line {
    address: config::Endpoint,
    connection: Option<Connection>,
}

/// A connection and its task, ended by being dropped.
struct Connection {
    sender: http1::SendRequest<Empty<Bytes>>,
    task: JoinHandle<()>,
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Line {
    pub(super) fn new(address: config::Endpoint) -> Self {
        Self { address, connection: None }
    }

    /// Asks once. A connection is kept only after a whole answer, also when this is dropped.
    pub(super) async fn ask(&mut self, key: &Key, instance: &str) -> Result<Report, Failure> {
        let mut connection = match self.connection.take() {
            Some(kept) if !kept.sender.is_closed() => kept,
            _ => self.connect().await?,
        };
        connection.sender.ready().await?;
        let nonce = format!("{:016x}{:016x}", fastrand::u64(..), fastrand::u64(..));
        let question = Question { instance: instance.to_owned(), time_ms: wall_clock_ms(), nonce };
        let answer = connection.sender.send_request(self.request(&key.sign(&question))).await?;
        match answer.status() {
            StatusCode::OK => {}
            StatusCode::UNAUTHORIZED => return Err(Failure::Refused),
            status => return Err(Failure::Status(status)),
        }
        let (head, body) = answer.into_parts();
        let body = Limited::new(body, ANSWER_MAX).collect().await.map_err(Failure::Body)?;
        let body = body.to_bytes();
        let seal = head.headers.get(&SEAL).map_or(&[][..], HeaderValue::as_bytes);
        if !key.unseals(&question.nonce, &body, seal) {
            return Err(Failure::Forged);
        }
        let wire: Wire = serde_json::from_slice(&body).map_err(Failure::Foreign)?;
        self.connection = Some(connection);
        Ok(wire.into())
    }

    async fn connect(&self) -> Result<Connection, Failure> {
        let address = (self.address.host.as_str(), self.address.port);
        let stream = TcpStream::connect(address).await.map_err(Failure::Connect)?;
        // It would only be slower without.
        let _ = stream.set_nodelay(true);
        let (sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
        let task = tokio::spawn(async move {
            // Its failure is the answer's.
            let _ = connection.await;
        });
        Ok(Connection { sender, task })
    }

    fn request(&self, signed: &str) -> Request<Empty<Bytes>> {
        let request = Request::get(PATH).header(HOST, self.address.to_string());
        let request = request.header(AUTHORIZATION, signed).body(Empty::new());
        request.expect("an address and hexadecimal digits fit in headers")
    }
}
