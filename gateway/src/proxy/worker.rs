//! What the requests of one worker share, and what the requests of one client connection share.

use std::cell::Cell;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;

use tokio::sync::{Notify, oneshot};
use tokio::time::Instant;

use crate::error::Code;
use crate::forward::connections::Connections;
use crate::forward::headers::{Peer, Scheme};
use crate::headroom::Headroom;
use crate::metrics::Metrics;
use crate::shared::Connected;
use crate::table::View;
use crate::wire::{Socket, Wire};

/// One worker: its view of the table, its upstream connections, and what it has open.
pub struct Worker {
    /// The table in force.
    pub view: View,
    /// Upstream connections.
    pub connections: Rc<Connections>,
    /// For requests that reach no agent.
    pub metrics: Arc<Metrics>,
    /// Memory and descriptors.
    pub headroom: Arc<Headroom>,
    /// Shutting down: answers say `Connection: close`.
    pub closing: Cell<bool>,
    /// The listener is closed: connections end as soon as they are idle.
    pub draining: Cell<bool>,
    /// `drain_timeout` is over: what is still open is cut.
    pub cut: Cell<bool>,
    /// Told whenever [`Worker::draining`] or [`Worker::cut`] turns, and when nothing is open.
    pub changed: Notify,
    /// Of what is open, the connections that have said all they had to say.
    pub lingering: Cell<usize>,
    open: Cell<usize>,
}

impl Worker {
    /// A worker with nothing open.
    #[must_use]
    pub fn new(view: View, metrics: Arc<Metrics>, headroom: Arc<Headroom>) -> Rc<Self> {
        Rc::new(Self {
            view,
            connections: Rc::new(Connections::new(Arc::clone(&headroom))),
            metrics,
            headroom,
            closing: Cell::new(false),
            draining: Cell::new(false),
            cut: Cell::new(false),
            changed: Notify::new(),
            lingering: Cell::new(0),
            open: Cell::new(0),
        })
    }

    /// Counts something that the worker must not end before.
    #[must_use]
    pub fn open(self: &Rc<Self>) -> Open {
        self.open.set(self.open.get() + 1);
        Open(Rc::clone(self))
    }

    /// A descriptor is missing: idle connections to agents are given up, here and soon elsewhere.
    pub fn lacks_descriptors(&self) {
        self.headroom.missed();
        self.connections.give_up_idle();
    }

    /// Ends when [`Worker::cut`] turns.
    pub async fn until_cut(&self) {
        while !self.cut.get() {
            self.changed.notified().await;
        }
    }

    /// How much is open: connections, tunnels, and exchanges that go on without their client.
    #[must_use]
    pub fn opened(&self) -> usize {
        self.open.get()
    }
}

/// See [`Worker::open`].
pub struct Open(Rc<Worker>);

impl Drop for Open {
    fn drop(&mut self) {
        let open = self.0.open.get() - 1;
        self.0.open.set(open);
        if open == 0 {
            self.0.changed.notify_waiters();
        }
    }
}

/// One client connection.
pub struct Client {
    /// Who it is.
    pub peer: Peer,
    /// Who it is, with the port.
    pub address: SocketAddr,
    /// The socket.
    pub wire: Arc<Wire>,
    /// Requests under way, to their bodies' last bytes.
    busy: Cell<u32>,
    /// Requests so far.
    pub served: Cell<u64>,
    /// When the last one ended, once somebody has asked.
    idle_since: Cell<Option<Instant>>,
    /// Bytes that had been read when the last one ended.
    pub read_before: Cell<u64>,
    /// HTTP/1: when the total clock of the exchange under way fires. The body has that clock too,
    /// but nobody polls it while the client does not read.
    pub due: Cell<Option<Instant>>,
    /// HTTP/1: the agent goes on without its client, so its FIN alone does not end the connection.
    pub outlives_client: Cell<bool>,
    /// Speaks HTTP/1: one request at a time, and only we watch the socket while it waits.
    pub is_http1: Cell<bool>,
    /// HTTP/1.0: only its close ends the reply under way, so that any other close has to be a reset.
    pub until_close: Cell<bool>,
    /// It becomes a tunnel: the socket is somebody else's.
    pub upgraded: Cell<bool>,
    /// Where the socket goes when the answer that says so is out.
    pub tunnel: Cell<Option<oneshot::Sender<Socket>>>,
    /// Why the connection is being cut, for those who are dropped with it.
    pub cause: Cell<Option<Code>>,
    connected: Connected,
}

impl Client {
    /// A connection that has just been accepted.
    #[must_use]
    pub fn new(address: SocketAddr, wire: Arc<Wire>, connected: Connected) -> Rc<Self> {
        Rc::new(Self {
            peer: Peer::new(address.ip(), Scheme::Http),
            address,
            wire,
            busy: Cell::new(0),
            served: Cell::new(0),
            idle_since: Cell::new(None),
            read_before: Cell::new(0),
            due: Cell::new(None),
            outlives_client: Cell::new(false),
            is_http1: Cell::new(false),
            until_close: Cell::new(false),
            upgraded: Cell::new(false),
            tunnel: Cell::new(None),
            cause: Cell::new(None),
            connected,
        })
    }

    /// Whether a request is under way.
    #[must_use]
    pub fn is_busy(&self) -> bool {
        self.busy.get() > 0
    }

    /// When the last request ended; the connection asks at once, so that it is right.
    #[must_use]
    pub fn idle_since(&self) -> Instant {
        let since = self.idle_since.get().unwrap_or_else(Instant::now);
        self.idle_since.set(Some(since));
        since
    }

    /// As if the last request ended now.
    pub fn idle_anew(&self) {
        self.idle_since.set(None);
    }

    /// Counts a request until the guard is dropped.
    #[must_use]
    pub fn busy(self: &Rc<Self>) -> Busy {
        self.served.set(self.served.get() + 1);
        self.busier()
    }

    fn busier(self: &Rc<Self>) -> Busy {
        self.busy.set(self.busy.get() + 1);
        self.connected.request_begins();
        Busy(Rc::clone(self))
    }
}

/// See [`Client::busy`].
pub struct Busy(Rc<Client>);

impl Clone for Busy {
    /// The same request: it is under way until both are dropped.
    fn clone(&self) -> Self {
        self.0.busier()
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        let client = &self.0;
        client.busy.set(client.busy.get() - 1);
        client.connected.request_ends();
        client.idle_anew();
        client.read_before.set(client.wire.received());
        client.due.set(None);
        client.outlives_client.set(false);
    }
}
