//! Asking a replica whether it takes requests.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use bytes::Bytes;
use config::Protocol;
use http::{Request, StatusCode};
use http_body_util::Empty;
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::TcpStream;
use tokio::time;

use super::spec::Spec;

/// Between two questions.
const INTERVAL: Duration = Duration::from_millis(100);

/// For one question: a server on loopback that needs longer isn't ready.
const TIMEOUT: Duration = Duration::from_secs(2);

/// Waits until the replica on `port` answers 200.
pub(super) async fn until_ready(spec: &Spec, port: u16) {
    let mut ticks = time::interval(INTERVAL);
    ticks.set_missed_tick_behavior(time::MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        if let Ok(Some(StatusCode::OK)) = time::timeout(TIMEOUT, ask(spec, port)).await {
            return;
        }
    }
}

/// The status of one GET, `None` when there is no answer.
async fn ask(spec: &Spec, port: u16) -> Option<StatusCode> {
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let io = TokioIo::new(TcpStream::connect(address).await.ok()?);
    let request = Request::get(format!("http://{address}{}", spec.ready_path));
    match spec.protocol {
        Protocol::Http1 => {
            let request = Request::get(&spec.ready_path).header("host", address.to_string());
            let request = request.body(Empty::<Bytes>::new()).ok()?;
            let (mut sender, connection) = http1::handshake(io).await.ok()?;
            let ended = tokio::spawn(connection);
            let status = sender.send_request(request).await.ok()?.status();
            ended.abort();
            Some(status)
        }
        Protocol::H2c => {
            let request = request.body(Empty::<Bytes>::new()).ok()?;
            let (mut sender, connection) = http2::handshake(TokioExecutor::new(), io).await.ok()?;
            let ended = tokio::spawn(connection);
            let status = sender.send_request(request).await.ok()?.status();
            ended.abort();
            Some(status)
        }
    }
}
