//! The least of an HTTP/1.1 client: no retries, no redirects, no pool, so that nothing that goes
//! wrong is mended before it is counted.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1::{self, SendRequest};
use hyper::{Method, Request, Uri};
use hyper_util::rt::TokioIo;
use serde::{Deserialize, Serialize};
use tokio::net::TcpStream;

/// A connection that takes one request after another.
pub(crate) type Connection = SendRequest<Full<Bytes>>;

/// For a connection to be made: long enough for two lost SYNs.
pub(crate) const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// For `ask`, altogether.
const ASK_TIMEOUT: Duration = Duration::from_secs(60);
/// How long a name may take to be found, tried every `NAME_PAUSE`: a Service may be younger than the pod.
const NAME_TRIES: u32 = 60;
const NAME_PAUSE: Duration = Duration::from_millis(500);

/// Where a URL's host is. DNS is asked here once and not for every connection: what is measured is
/// the gateway, behind an address that doesn't change.
///
/// # Errors
/// When the URL has no host, or the name isn't found in half a minute.
pub(crate) async fn resolve(uri: &Uri) -> io::Result<SocketAddr> {
    let host = uri.host().ok_or_else(|| io::Error::other("a URL needs a host"))?;
    let port = uri.port_u16().unwrap_or(80);
    let mut tries = 0;
    loop {
        let found = tokio::net::lookup_host((host, port)).await;
        match found.map(|mut found| found.next()) {
            Ok(Some(address)) => return Ok(address),
            other if tries >= NAME_TRIES => {
                return Err(other.err().unwrap_or_else(|| io::Error::other("no address")));
            }
            _ => tries += 1,
        }
        tokio::time::sleep(NAME_PAUSE).await;
    }
}

/// A new connection.
///
/// # Errors
/// When it isn't made within `CONNECT_TIMEOUT`.
pub(crate) async fn connect(address: SocketAddr) -> io::Result<Connection> {
    let stream = tokio::time::timeout(CONNECT_TIMEOUT, TcpStream::connect(address)).await??;
    stream.set_nodelay(true)?;
    let (sender, connection) =
        http1::handshake(TokioIo::new(stream)).await.map_err(io::Error::other)?;
    tokio::spawn(connection);
    Ok(sender)
}

/// An answer as `e2e ask` prints it.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    /// `x-switchyard-error`, or empty.
    pub(crate) code: String,
    pub(crate) body: String,
}

/// Asks once, with GET, or with POST where there is a body, and reads the whole answer.
///
/// # Errors
/// When there is none within a minute.
pub(crate) async fn ask(url: &str, data: Option<String>) -> io::Result<Answer> {
    tokio::time::timeout(ASK_TIMEOUT, ask_in_time(url, data)).await?
}

async fn ask_in_time(url: &str, data: Option<String>) -> io::Result<Answer> {
    let uri: Uri = url.parse().map_err(io::Error::other)?;
    let mut connection = connect(resolve(&uri).await?).await?;
    let method = if data.is_some() { Method::POST } else { Method::GET };
    let path = uri.path_and_query().map_or("/", |path| path.as_str());
    let request = Request::builder().method(method).uri(path);
    let request = request
        .header("host", uri.authority().map_or("", |authority| authority.as_str()))
        .header("content-type", "application/json")
        .body(Full::from(data.unwrap_or_default()))
        .map_err(io::Error::other)?;
    let answer = connection.send_request(request).await.map_err(io::Error::other)?;
    let code = answer.headers().get("x-switchyard-error");
    let code = code.and_then(|code| code.to_str().ok()).unwrap_or_default().to_owned();
    let status = answer.status().as_u16();
    let body = answer.into_body().collect().await.map_err(io::Error::other)?.to_bytes();
    Ok(Answer { status, code, body: String::from_utf8_lossy(&body).into_owned() })
}
