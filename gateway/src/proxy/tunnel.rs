//! An upgraded connection: bytes both ways until either side ends or nothing moves for
//! `idle_timeout`, which is the only clock.

use std::cell::Cell;
use std::io;
use std::pin::pin;
use std::rc::Rc;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::record::Record;
use super::reply::Exchange;
use super::worker::{Client, Worker};
use crate::error::{Code, Error};
use crate::forward::AgentBody;
use crate::wire::Socket;

/// What one direction holds at once.
const BUFFER: usize = 16 * 1024;

/// After one side has ended: how long the other may take.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// What there is of it before the client's connection has been handed over.
pub(super) struct Tunnel {
    /// Towards the agent, and what is held as long as it lasts.
    pub exchange: Exchange,
}

impl Tunnel {
    /// Runs on a task of its own, once the client's connection is handed over; the record is
    /// written when it ends.
    pub(super) fn start(self, worker: &Rc<Worker>, client: &Client, mut record: Record) {
        let (hand_over, handed_over) = oneshot::channel();
        client.tunnel.set(Some(hand_over));
        let open = worker.open();
        let worker = Rc::clone(worker);
        tokio::task::spawn_local(async move {
            let _open = open;
            let mut run = std::pin::pin!(self.run(handed_over, &mut record));
            loop {
                let changed = worker.changed.notified();
                tokio::select! {
                    () = &mut run => return,
                    () = changed => if worker.cut.get() { return },
                }
            }
        });
    }

    async fn run(self, client: oneshot::Receiver<Socket>, record: &mut Record) {
        let Exchange { agent, permit: _permit, lease: _lease, incoming, .. } = self.exchange;
        let (Ok(client), AgentBody::Http1(body)) = (client.await, incoming) else {
            record.failed(&Error::new(Code::UpstreamReset, "the upgrade was not completed"));
            return;
        };
        let idle_timeout = agent.settings.idle_timeout;
        let moved = Moved { at: Cell::new(Instant::now()), sent: Cell::new(0) };
        let (client_in, client_out) = tokio::io::split(client);
        let (agent_in, agent_out) = tokio::io::split(body.into_socket());
        let mut up = pin!(pump(client_in, agent_out, &moved, false));
        let mut down = pin!(pump(agent_in, client_out, &moved, true));
        let either = async {
            // Who is left gets a moment to read what is on its way, and to close by itself.
            tokio::select! {
                _ = &mut up => drop(tokio::time::timeout(LAST_WORDS, &mut down).await),
                _ = &mut down => drop(tokio::time::timeout(LAST_WORDS, &mut up).await),
            }
        };
        tokio::select! {
            () = either => record.done(),
            () = moved.stopped(idle_timeout) => {
                let text = format!("nothing moved for {idle_timeout:?}");
                record.failed(&Error::new(Code::IdleTimeout, text));
            }
        }
        record.sent = moved.sent.get();
    }
}

/// When something last moved, and how much went to the client.
struct Moved {
    at: Cell<Instant>,
    sent: Cell<u64>,
}

impl Moved {
    /// Ends when nothing has moved for that long.
    async fn stopped(&self, idle_timeout: Duration) {
        loop {
            let due = self.at.get() + idle_timeout;
            if due <= Instant::now() {
                return;
            }
            tokio::time::sleep_until(due).await;
        }
    }
}

/// One direction, to its end; the end is passed on.
async fn pump(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    moved: &Moved,
    to_client: bool,
) -> io::Result<()> {
    let mut buffer = vec![0; BUFFER];
    loop {
        let n = from.read(&mut buffer).await?;
        if n == 0 {
            return to.shutdown().await;
        }
        to.write_all(&buffer[..n]).await?;
        moved.at.set(Instant::now());
        if to_client {
            moved.sent.set(moved.sent.get() + n as u64);
        }
    }
}
