//! Stand-in for the gateway's interface, so that the commands compile: it binds and drains, and
//! routes nothing. The real module replaces this file.

use std::collections::BTreeMap;
use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use tokio::sync::watch;

/// How the gateway is started.
#[derive(Debug)]
pub struct Options {
    /// The table's file, which is followed.
    pub config: PathBuf,
    /// Overrides the table's `listen`.
    pub listen: Option<SocketAddr>,
    /// Overrides the table's `admin`.
    pub admin: Option<SocketAddr>,
    /// Replicas that `up` runs.
    pub managed: Option<Managed>,
    /// Whether SIGINT and SIGTERM drain.
    pub handle_signals: bool,
}

/// The replicas that `up` runs, by agent.
pub type Managed = watch::Receiver<Arc<BTreeMap<String, ManagedAgent>>>;

/// One agent's replicas.
#[derive(Debug, Clone)]
pub struct ManagedAgent {
    /// How many there should be.
    pub desired: u32,
    /// Those that take requests.
    pub replicas: Vec<Replica>,
}

/// One replica.
#[derive(Debug, Clone)]
pub struct Replica {
    /// Where it listens.
    pub endpoint: config::Endpoint,
    /// What it uses; 0 is unknown.
    pub memory_bytes: Arc<AtomicU64>,
}

/// Why the gateway can't start.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// An address can't be had.
    #[error("{key} = \"{address}\": {source}; change gateway.{key} in the table")]
    Address {
        /// The key in the table.
        key: &'static str,
        /// What it says.
        address: SocketAddr,
        /// Why.
        source: std::io::Error,
    },
}

/// How a run ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// Every request was finished.
    Drained,
    /// So many were cut.
    Cut(usize),
    /// It was told to end at once.
    Killed,
}

/// Ends a gateway.
#[derive(Debug, Clone)]
pub struct Stopper(Arc<watch::Sender<Option<Outcome>>>);

impl Stopper {
    /// Finish what is open.
    pub fn drain(&self, _skip_delay: bool) {
        self.0.send_replace(Some(Outcome::Drained));
    }

    /// End at once.
    pub fn kill(&self) {
        self.0.send_replace(Some(Outcome::Killed));
    }
}

/// A bound gateway.
#[derive(Debug)]
pub struct Gateway {
    sockets: (TcpListener, TcpListener),
    tables: watch::Sender<Arc<config::Table>>,
    stopper: Stopper,
}

impl Gateway {
    /// Binds both ports.
    ///
    /// # Errors
    /// When one can't be had.
    pub fn bind(
        checked: config::Checked,
        _text: String,
        options: Options,
    ) -> Result<Gateway, BindError> {
        let table = checked.table;
        let bind = |key, address| {
            TcpListener::bind(address).map_err(|source| BindError::Address { key, address, source })
        };
        let listen = bind("listen", options.listen.unwrap_or(table.gateway.listen))?;
        let admin = bind("admin", options.admin.unwrap_or(table.gateway.admin))?;
        let tables = watch::Sender::new(Arc::new(table));
        let stopper = Stopper(Arc::new(watch::Sender::new(None)));
        Ok(Gateway { sockets: (listen, admin), tables, stopper })
    }

    /// Listen and admin.
    pub fn addresses(&self) -> (SocketAddr, SocketAddr) {
        let of = |socket: &TcpListener| socket.local_addr().expect("it is bound");
        (of(&self.sockets.0), of(&self.sockets.1))
    }

    /// Every table in force.
    pub fn tables(&self) -> watch::Receiver<Arc<config::Table>> {
        self.tables.subscribe()
    }

    /// Ends it.
    pub fn stopper(&self) -> Stopper {
        self.stopper.clone()
    }

    /// Blocks to the end.
    pub fn run(self) -> Outcome {
        let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
        let mut end = self.stopper.0.subscribe();
        runtime
            .block_on(async { end.wait_for(Option::is_some).await.ok().and_then(|end| *end) })
            .unwrap_or(Outcome::Drained)
    }
}
