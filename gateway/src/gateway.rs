//! Puts the parts together, and is the only module that knows them all: bind first, then serve,
//! then drain.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::sync::watch;

use crate::admin::{self, Admin};
use crate::cluster::config_map::ConfigMap;
use crate::cluster::duties::{self, Duties};
use crate::cluster::external_metrics::{self, ExternalMetrics};
use crate::cluster::load::Board;
use crate::cluster::peers::{self, Peers};
pub use crate::discovery::managed::{Fleet, Managed, ManagedAgent, Replica};
use crate::discovery::{Discovery, Status, kubernetes};
use crate::headroom::{Headroom, Meter};
use crate::metrics::Metrics;
use crate::reload::Reload;
use crate::serve::handover::{self, Handover};
use crate::shared::{Phase, Shared};
use crate::table::Tables;
use crate::{connections, health, serve};

/// Descriptors of listeners, files and runtimes.
const DESCRIPTORS_OF_OUR_OWN: u64 = 128;
/// Those of the admin port, of the external metrics, of probes and to other gateways: they are kept
/// for these, whatever clients and agents would take.
const DESCRIPTORS_KEPT: u64 = (2 * connections::MAX + health::PROBES_MAX + peers::PEERS_MAX) as u64;
/// How often the metrics of the last minute move on.
const UPKEEP: Duration = Duration::from_secs(5);
/// How often ejected endpoints that are in again are noticed by admission, replaced tables that
/// nobody uses any more are let go, and memory is looked at.
const CAPACITY_TICK: Duration = Duration::from_millis(100);

/// What the command line decides.
#[derive(Default)]
pub struct Options {
    /// The table's file, to be watched.
    pub config: PathBuf,
    /// In place of the table's `listen`.
    pub listen: Option<SocketAddr>,
    /// In place of the table's `admin`.
    pub admin: Option<SocketAddr>,
    /// Clients' port may be another gateway's, whose place this one takes.
    pub takeover: bool,
    /// Where the cluster's API server asks for external metrics; `None`: nowhere.
    pub external_metrics: Option<SocketAddr>,
    /// What `up` runs; its replicas take the place of listed endpoints.
    pub managed: Option<Managed>,
    /// Asked now and then how many log lines were dropped.
    pub dropped_log_lines: Option<Dropped>,
}

/// Says how many log lines were dropped since the start.
pub type Dropped = Box<dyn Fn() -> usize + Send + Sync>;

/// Why the gateway can't start.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// A listener can't be had.
    #[error("cannot listen on {address} ({key} in the table's [gateway]): {source}")]
    Listen {
        /// What was asked for.
        address: SocketAddr,
        /// Where it was asked for.
        key: &'static str,
        /// Why not.
        source: io::Error,
    },
    /// The table asks for what this version does not do.
    #[error("{0}")]
    Unsupported(String),
    /// There is no way to ask the cluster.
    #[error("discovery = \"kubernetes\": {0}")]
    Credentials(#[from] kubernetes::Unusable),
    /// External metrics can't be offered.
    #[error(transparent)]
    ExternalMetrics(#[from] external_metrics::BindError),
}

/// How it ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// Everything that was open has ended by itself.
    Drained,
    /// `drain_timeout` cut so many connections.
    Cut(usize),
    /// A second signal, or [`Stopper::kill`], ended it at once.
    Killed,
}

/// A gateway that has its addresses but serves nobody yet.
pub struct Gateway {
    listeners: Vec<TcpListener>,
    admin_listener: TcpListener,
    addresses: (SocketAddr, SocketAddr),
    external_metrics: Option<ExternalMetrics>,
    shared: Arc<Shared>,
    reload: Reload,
    stopper: Stopper,
    managed: Option<Managed>,
    discovery: Discovery,
    config_map: Option<ConfigMap>,
    phase: watch::Sender<Phase>,
    peers: Arc<Peers>,
    dropped_log_lines: Option<Dropped>,
}

/// What stops a gateway from outside.
#[derive(Clone)]
pub struct Stopper(Arc<watch::Sender<Stop>>);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stop {
    No,
    Drain { skip_delay: bool },
    Kill,
}

impl Stopper {
    /// Begins the drain; `skip_delay`: without `drain_delay`.
    pub fn drain(&self, skip_delay: bool) {
        self.0.send_if_modified(|stop| {
            let begins = *stop == Stop::No;
            if begins {
                *stop = Stop::Drain { skip_delay };
            }
            begins
        });
    }

    /// Ends it at once.
    pub fn kill(&self) {
        self.0.send_replace(Stop::Kill);
    }
}

impl Gateway {
    /// Opens the listeners.
    ///
    /// # Errors
    /// When an address can't be had, the table asks for what this version does not do, or there are
    /// no credentials for the cluster that it should follow.
    pub fn bind(checked: config::Checked, options: Options) -> Result<Self, BindError> {
        let table = Arc::new(checked.table);
        let mut discovery = Discovery::new(table.gateway.discovery, options.managed.clone())?;
        let workers = match table.gateway.workers {
            0 => std::thread::available_parallelism().map_or(1, usize::from),
            n => n,
        };
        let address = options.listen.unwrap_or(table.gateway.listen);
        let wrap = |address, key| move |source| BindError::Listen { address, key, source };
        let listeners =
            serve::listen(address, workers, options.takeover).map_err(wrap(address, "listen"))?;
        let admin_address = options.admin.unwrap_or(table.gateway.admin);
        let admin_listener =
            TcpListener::bind(admin_address).map_err(wrap(admin_address, "admin"))?;
        let external_metrics = options.external_metrics.map(ExternalMetrics::bind).transpose()?;
        let of = |listener: &TcpListener, wanted| listener.local_addr().unwrap_or(wanted);
        let addresses = (of(&listeners[0], address), of(&admin_listener, admin_address));
        let metrics = Arc::new(Metrics::new());
        let found = discovery.find(&table);
        let tables = Tables::new(Arc::clone(&table), &found, Arc::clone(&metrics))
            .map_err(|error| BindError::Unsupported(error.to_string()))?;
        let headroom = connections_max(table.gateway.max_connections);
        let shared = Arc::new(Shared::new(Arc::new(tables), metrics, workers, headroom));
        if discovery.cluster().is_some() {
            duties::prepare(&shared);
        }
        let config_map = ConfigMap::mounted(&options.config, &table, discovery.credentials());
        let begun = if discovery.status().is_ready() { Phase::Running } else { Phase::Starting };
        let (phase, running) = watch::channel(begun);
        let peers = Arc::new(Peers::new(Arc::clone(&shared), running, &discovery.peers()));
        Ok(Self {
            listeners,
            admin_listener,
            addresses,
            external_metrics,
            phase,
            peers,
            reload: Reload::new(options.config, Arc::clone(&shared.tables), table),
            shared,
            stopper: Stopper(Arc::new(watch::Sender::new(Stop::No))),
            managed: options.managed,
            discovery,
            config_map,
            dropped_log_lines: options.dropped_log_lines,
        })
    }

    /// Where clients and operators connect.
    #[must_use]
    pub fn addresses(&self) -> (SocketAddr, SocketAddr) {
        self.addresses
    }

    /// Where the cluster's API server asks for external metrics, if it can.
    #[must_use]
    pub fn external_metrics(&self) -> Option<SocketAddr> {
        self.external_metrics.as_ref().and_then(ExternalMetrics::address)
    }

    /// Every table in force from now on.
    #[must_use]
    pub fn tables(&self) -> watch::Receiver<Arc<config::Table>> {
        self.reload.tables()
    }

    /// What stops it from outside.
    #[must_use]
    pub fn stopper(&self) -> Stopper {
        self.stopper.clone()
    }

    /// Serves until it has been stopped and drained. Blocks.
    ///
    /// # Panics
    /// When the kernel gives no thread or no epoll descriptor.
    pub fn run(self) -> Outcome {
        let phase = self.phase;
        let workers: Vec<_> = self
            .listeners
            .into_iter()
            .zip(handover::between(&self.shared.loads))
            .enumerate()
            .map(|(n, doors)| start_worker(n, doors, &self.shared, &phase))
            .collect();
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .thread_name("control")
            .enable_all()
            .build()
            .expect("a runtime for the control tasks");
        let control = Control {
            shared: self.shared,
            phase,
            stopper: self.stopper,
            managed: self.managed,
            external_metrics: self.external_metrics,
            status: self.discovery.status(),
            config_map: self.config_map,
            peers: self.peers,
            admin_port: self.addresses.1.port(),
            dropped_log_lines: self.dropped_log_lines,
        };
        let outcome = runtime.block_on(control.run(
            self.admin_listener,
            self.reload,
            self.discovery,
            workers,
        ));
        runtime.shutdown_background();
        outcome
    }
}

/// Raises the soft descriptor limit to the hard one and says how many connections fit: each takes
/// two descriptors, its own and the agent's.
fn connections_max(wanted: usize) -> (usize, Headroom) {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    // Where it is refused, the limit that there is counts.
    let _ = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit });
    let descriptors = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
    let (fit, end) = share_descriptors(descriptors);
    let max_connections = wanted.min(fit).max(1);
    tracing::info!(descriptors, max_connections, "descriptors, and the connections that fit");
    if max_connections < wanted {
        let text = "max_connections clamped to the descriptor limit";
        tracing::warn!(max = max_connections, wanted, descriptors, "{text}");
    }
    (max_connections, Headroom::new(end))
}

/// How many client connections fit, and where the descriptors of connections end.
fn share_descriptors(descriptors: u64) -> (usize, u64) {
    let end = descriptors - DESCRIPTORS_KEPT.min(descriptors / 2);
    let fit = end.saturating_sub(DESCRIPTORS_OF_OUR_OWN) / 2;
    (usize::try_from(fit).unwrap_or(usize::MAX), end)
}

type WorkerThread = JoinHandle<io::Result<usize>>;

fn start_worker(
    n: usize,
    (listener, handover): (TcpListener, Handover),
    shared: &Arc<Shared>,
    phase: &watch::Sender<Phase>,
) -> WorkerThread {
    let (shared, phase) = (Arc::clone(shared), phase.subscribe());
    std::thread::Builder::new()
        .name(format!("worker-{n}"))
        .spawn(move || serve::worker(listener, handover, shared, phase))
        .expect("a thread for a worker")
}

/// What runs beside the workers.
struct Control {
    shared: Arc<Shared>,
    phase: watch::Sender<Phase>,
    stopper: Stopper,
    managed: Option<Managed>,
    external_metrics: Option<ExternalMetrics>,
    status: Arc<Status>,
    config_map: Option<ConfigMap>,
    peers: Arc<Peers>,
    admin_port: u16,
    dropped_log_lines: Option<Dropped>,
}

impl Control {
    async fn run(
        mut self,
        admin_listener: TcpListener,
        mut reload: Reload,
        discovery: Discovery,
        workers: Vec<WorkerThread>,
    ) -> Outcome {
        let tables = reload.tables();
        let board = Board::new(Arc::clone(&self.shared), Arc::clone(&self.peers));
        if let Some(external_metrics) = self.external_metrics.take() {
            tokio::spawn(external_metrics.serve(Arc::clone(&self.shared), board.clone()));
        }
        if let Some((credentials, known)) = discovery.cluster() {
            let duties = Duties {
                shared: Arc::clone(&self.shared),
                board: board.clone(),
                credentials,
                known,
                tables: reload.tables(),
                phase: self.phase.subscribe(),
            };
            tokio::spawn(duties.run());
        }
        let admin = Admin::new(
            Arc::clone(&self.shared),
            self.phase.subscribe(),
            self.managed.take(),
            Arc::clone(&self.status),
            board,
            self.config_map.as_ref().map(ConfigMap::status),
        );
        tokio::spawn(admin::serve(admin_listener, admin));
        tokio::spawn(upkeep(Arc::clone(&self.shared), self.dropped_log_lines.take()));
        tokio::spawn(capacity(Arc::clone(&self.shared)));
        tokio::spawn(health::probe(Arc::clone(&self.shared.tables)));
        tokio::spawn(health::read_reports(Arc::clone(&self.shared.tables)));
        tokio::spawn(Arc::clone(&self.peers).run(
            discovery.peers(),
            reload.tables(),
            Arc::clone(&self.status),
            self.admin_port,
        ));
        tokio::spawn(open(Arc::clone(&self.status), self.phase.clone()));
        let source = discovery.start(reload.tables());
        if let Some(config_map) = self.config_map.take() {
            reload.follow(config_map.follow());
        }
        tokio::spawn(reload.run(source, true));
        let stopped = self.stop(tables);
        let joined = tokio::task::spawn_blocking(move || {
            workers.into_iter().map(|worker| worker.join().map_or(0, |cut| cut.unwrap_or(0))).sum()
        });
        let mut killed = self.stopper.0.subscribe();
        tokio::select! {
            outcome = async { stopped.await; joined.await } => match outcome {
                Ok(0) => Outcome::Drained,
                Ok(cut) => Outcome::Cut(cut),
                Err(_) => Outcome::Killed,
            },
            _ = killed.wait_for(|stop| *stop == Stop::Kill) => Outcome::Killed,
        }
    }

    /// From the first word to stop until what is open may be cut.
    fn stop(
        &self,
        tables: watch::Receiver<Arc<config::Table>>,
    ) -> impl Future<Output = ()> + use<> {
        let (phase, mut stop) = (self.phase.clone(), self.stopper.0.subscribe());
        async move {
            let skip_delay = match stop.wait_for(|stop| *stop != Stop::No).await.map(|stop| *stop) {
                Ok(Stop::Drain { skip_delay }) => skip_delay,
                _ => true,
            };
            let (delay, timeout) = {
                let gateway = &tables.borrow().gateway;
                (gateway.drain_delay, gateway.drain_timeout)
            };
            let delay = if skip_delay { Duration::ZERO } else { delay };
            tracing::info!(delay_ms = delay.as_millis() as u64, "draining");
            phase.send_replace(Phase::Closing);
            tokio::time::sleep(delay).await;
            phase.send_replace(Phase::Draining);
            tokio::spawn(async move {
                tokio::time::sleep(timeout).await;
                phase.send_replace(Phase::Cut);
            });
        }
    }
}

/// Has the workers accept once it is known where the replicas are, or was waited for long enough.
async fn open(status: Arc<Status>, phase: watch::Sender<Phase>) {
    status.ready().await;
    phase.send_if_modified(|phase| {
        let starts = *phase == Phase::Starting;
        if starts {
            *phase = Phase::Running;
        }
        starts
    });
}

async fn upkeep(shared: Arc<Shared>, dropped: Option<Dropped>) {
    let mut ticks = tokio::time::interval(UPKEEP);
    loop {
        ticks.tick().await;
        shared.metrics.upkeep();
        shared.tables.forget_callers();
        if let Some(dropped) = &dropped {
            shared.metrics.log_dropped.set(dropped() as f64);
        }
    }
}

/// An ejection ends without anybody noticing, and memory grows so; the line has to, and who comes.
async fn capacity(shared: Arc<Shared>) {
    let mut ticks = tokio::time::interval(CAPACITY_TICK);
    let mut meter = Meter::new();
    loop {
        ticks.tick().await;
        let current = shared.tables.current();
        current.refresh_capacity();
        meter.look(&shared.headroom, current.table.gateway.max_memory);
        drop(current);
        shared.tables.forget();
    }
}
