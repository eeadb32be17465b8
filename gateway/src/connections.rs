//! The connections of operators and of the cluster's API server: few, and none of them for ever.

use std::io;
use std::net::TcpListener;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::Router;
use hyper::server::conn::http1;
use hyper::service::{Service, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::{Instant, timeout};

/// Connections at once of one listener. Probes, scrapers and a few people need far fewer; for one
/// more, the one that has been silent longest is closed, and where all are being answered it waits.
pub const MAX: usize = 64;
/// From the end of one answer (or the connection's begin) to the end of the next head.
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);
/// How old a connection may become; then it ends with the answer that is under way…
const AGE_MAX: Duration = Duration::from_secs(60);
/// …which may take that long: a client that doesn't read its answer is cut.
const LAST_ANSWER: Duration = Duration::from_secs(10);
/// Largest head.
const HEAD_MAX: usize = 16 << 10;
/// After `accept` failed for want of descriptors or memory: it would fail again at once.
const ACCEPT_PAUSE: Duration = Duration::from_millis(20);

/// Serves until it is dropped, and its connections with it. `open` makes of a new connection what
/// is spoken on, such as TLS, or ends it with `None`; it has to end by itself.
///
/// # Errors
/// When the runtime can't take the listener.
pub async fn serve<S, F>(
    listener: TcpListener,
    name: &'static str,
    open: impl Fn(TcpStream) -> F,
    router: Router,
) -> io::Result<()>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    F: Future<Output = Option<S>> + Send + 'static,
{
    listener.set_nonblocking(true)?;
    let listener = tokio::net::TcpListener::from_std(listener)?;
    let (mut connections, mut open_ones) =
        (JoinSet::new(), Vec::<(AbortHandle, Arc<Silence>)>::new());
    let mut fails = false;
    loop {
        tokio::select! {
            accepted = listener.accept(), if connections.len() <= MAX => match accepted {
                Ok((stream, _)) => {
                    fails = false;
                    // It would only be slower without.
                    let _ = stream.set_nodelay(true);
                    let (opening, router, silence) = (open(stream), router.clone(), Arc::default());
                    let heard = Arc::clone(&silence);
                    let task = connections.spawn(async move {
                        if let Some(stream) = opening.await {
                            connection(stream, router, heard).await;
                        }
                    });
                    open_ones.push((task, silence));
                    if open_ones.len() > MAX {
                        close_the_most_silent(&open_ones);
                    }
                }
                Err(error) => {
                    if !std::mem::replace(&mut fails, true) {
                        tracing::warn!(listener = name, %error, "cannot accept; who connects waits");
                    }
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            },
            Some(_ended) = connections.join_next() => {
                open_ones.retain(|(task, _)| !task.is_finished());
            }
        }
    }
}

/// Since when a connection has asked nothing: since it was opened, or its last answer was made.
struct Silence(Mutex<Option<Instant>>);

impl Default for Silence {
    fn default() -> Self {
        Self(Mutex::new(Some(Instant::now())))
    }
}

impl Silence {
    /// `None`: it is being answered.
    fn since(&self) -> Option<Instant> {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn begins(&self, now: Option<Instant>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = now;
    }
}

fn close_the_most_silent(open: &[(AbortHandle, Arc<Silence>)]) {
    let silent = open.iter().filter_map(|(task, silence)| Some((silence.since()?, task)));
    if let Some((_, task)) = silent.min_by_key(|(since, _)| *since) {
        task.abort();
    }
}

async fn connection(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    router: Router,
    silence: Arc<Silence>,
) {
    let router = TowerToHyperService::new(router);
    let answer = service_fn(move |request| {
        silence.begins(None);
        let (answering, silence) = (router.call(request), Arc::clone(&silence));
        async move {
            let answer = answering.await;
            silence.begins(Some(Instant::now()));
            answer
        }
    });
    let serving = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .max_buf_size(HEAD_MAX)
        .half_close(true)
        .serve_connection(TokioIo::new(stream), answer);
    let mut serving = std::pin::pin!(serving);
    if timeout(AGE_MAX, serving.as_mut()).await.is_err() {
        serving.as_mut().graceful_shutdown();
        // A client that took too long is of no interest to anyone.
        let _ = timeout(LAST_ANSWER, serving).await;
    }
}

#[cfg(test)]
mod tests {
    use axum::routing::get;
    use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
    use tokio::task::JoinHandle;

    use super::*;

    fn start() -> (DuplexStream, JoinHandle<()>) {
        let large = || async { "x".repeat(1 << 20) };
        let router = Router::new().route("/", get(|| async { "ok" })).route("/large", get(large));
        let (client, server) = duplex(1024);
        (client, tokio::spawn(connection(server, router, Arc::default())))
    }

    async fn seconds_until_end(connection: JoinHandle<()>) -> u64 {
        let begin = Instant::now();
        connection.await.unwrap();
        begin.elapsed().as_secs()
    }

    #[tokio::test(start_paused = true)]
    async fn who_says_nothing_or_half_a_head_is_let_go() {
        let (client, connection) = start();
        assert_eq!(seconds_until_end(connection).await, HEAD_TIMEOUT.as_secs());
        drop(client);
        let (mut client, connection) = start();
        client.write_all(b"GET / HTTP/1.1\r\nhost").await.unwrap();
        assert_eq!(seconds_until_end(connection).await, HEAD_TIMEOUT.as_secs());
    }

    #[tokio::test(start_paused = true)]
    async fn who_does_not_read_is_let_go() {
        let (mut client, connection) = start();
        client.write_all(b"GET /large HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
        let all = AGE_MAX + LAST_ANSWER;
        assert_eq!(seconds_until_end(connection).await, all.as_secs());
    }

    #[tokio::test(start_paused = true)]
    async fn who_closes_its_side_is_still_answered() {
        let (mut client, _connection) = start();
        client.write_all(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
        client.shutdown().await.unwrap();
        let mut reply = String::new();
        client.read_to_string(&mut reply).await.unwrap();
        assert!(reply.starts_with("HTTP/1.1 200") && reply.ends_with("ok"), "{reply}");
    }
}
