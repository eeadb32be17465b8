//! Where an agent's replicas are. Each source says it in the same words: [`Found`].
//!
//! What the table lists and what `up` runs is known at once; Services are looked up by a task of
//! their own ([`kubernetes`], [`dns`]), which says what it knows now.

pub mod dns;
pub mod kubernetes;
pub mod listed;
pub mod managed;

mod services;
mod status;

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

use self::kubernetes::Credentials;
use self::managed::Managed;
use self::services::Services;
pub use self::services::{Known, Pod};
pub use self::status::Status;
pub use crate::table::{Found, Replicas};

/// After the start, how long the first answer is waited for before the gateway takes requests
/// with what it has: a cluster whose API is away must not keep it out for ever.
const FIRST_ANSWER: Duration = Duration::from_secs(10);

type Table = Arc<config::Table>;

/// The admin ports of all gateways of the cluster, this one's among them; `None`: not known yet.
pub type Gateways = Option<Vec<config::Endpoint>>;

/// How the other gateways are found.
pub enum Peers {
    /// There are none.
    None,
    /// By the cluster's word.
    Followed(watch::Receiver<Gateways>, Credentials),
    /// By looking up their Service's name.
    Dns,
}

/// Where this process looks: `auto` decided by where it runs.
#[must_use]
pub fn resolve(wanted: config::Discovery) -> config::Discovery {
    match wanted {
        config::Discovery::Auto if kubernetes::in_pod() => config::Discovery::Kubernetes,
        config::Discovery::Auto => config::Discovery::Listed,
        named => named,
    }
}

/// A source of addresses that isn't started yet.
pub struct Discovery {
    source: Source,
    lookup: Option<(Lookup, watch::Sender<Arc<Known>>)>,
    gateways: watch::Sender<Gateways>,
    status: Arc<Status>,
}

enum Lookup {
    Kubernetes(Credentials),
    Dns,
}

impl Discovery {
    /// What the table wants. What `up` runs takes the place of all else.
    ///
    /// # Errors
    /// When it is the cluster, and there are no credentials for it.
    pub fn new(
        wanted: config::Discovery,
        managed: Option<Managed>,
    ) -> Result<Self, kubernetes::Unusable> {
        let lookup = match (resolve(wanted), managed) {
            (_, Some(managed)) => return Ok(Self::at_hand(Source::Managed(managed))),
            (config::Discovery::Kubernetes, None) => Lookup::Kubernetes(Credentials::find()?),
            (config::Discovery::Dns, None) => Lookup::Dns,
            (config::Discovery::Listed | config::Discovery::Auto, None) => {
                return Ok(Self::at_hand(Source::Listed));
            }
        };
        let sender = watch::Sender::new(Arc::default());
        let known = sender.subscribe();
        let (status, key) = match lookup {
            Lookup::Kubernetes(_) => ("kubernetes", kubernetes::full_name as services::Key),
            Lookup::Dns => ("dns", dns::as_written as services::Key),
        };
        let status = Arc::new(Status::waiting(status));
        let source = Source::Services(Services::new(known, key, Arc::clone(&status)));
        Ok(Self {
            source,
            lookup: Some((lookup, sender)),
            gateways: watch::Sender::default(),
            status,
        })
    }

    fn at_hand(source: Source) -> Self {
        let name = if matches!(source, Source::Listed) { "listed" } else { "managed" };
        let status = Arc::new(Status::at_hand(name));
        Self { source, lookup: None, gateways: watch::Sender::default(), status }
    }

    /// Whether it knows where everything is, and how old that is.
    #[must_use]
    pub fn status(&self) -> Arc<Status> {
        Arc::clone(&self.status)
    }

    /// How the other gateways are found.
    #[must_use]
    pub fn peers(&self) -> Peers {
        match &self.lookup {
            Some((Lookup::Kubernetes(credentials), _)) => {
                Peers::Followed(self.gateways.subscribe(), *credentials)
            }
            Some((Lookup::Dns, _)) => Peers::Dns,
            None => Peers::None,
        }
    }

    /// How the cluster's API is reached, where it is asked.
    #[must_use]
    pub fn credentials(&self) -> Option<Credentials> {
        match &self.lookup {
            Some((Lookup::Kubernetes(credentials), _)) => Some(*credentials),
            _ => None,
        }
    }

    /// How the cluster is asked and what is known of it, where that is the source.
    #[must_use]
    pub fn cluster(&self) -> Option<(Credentials, watch::Receiver<Arc<Known>>)> {
        match &self.lookup {
            Some((Lookup::Kubernetes(credentials), known)) => {
                Some((*credentials, known.subscribe()))
            }
            _ => None,
        }
    }

    /// What is known at the start.
    #[must_use]
    pub fn find(&mut self, table: &config::Table) -> Found {
        self.source.find(table)
    }

    /// Begins to look up what these tables name, on a task of its own.
    #[must_use]
    pub fn start(self, tables: watch::Receiver<Table>) -> Source {
        match self.lookup {
            Some((Lookup::Kubernetes(credentials), known)) => {
                tokio::spawn(kubernetes::follow(
                    credentials,
                    tables,
                    known,
                    self.gateways,
                    self.status,
                ));
            }
            Some((Lookup::Dns, known)) => {
                tokio::spawn(dns::follow(tables, known, self.status));
            }
            None => {}
        }
        self.source
    }
}

/// A source of addresses.
pub enum Source {
    /// The table.
    Listed,
    /// The supervisor of `up`.
    Managed(Managed),
    /// One who looks up Services.
    Services(Services),
}

impl Source {
    /// Where the replicas of this table are, as known now.
    #[must_use]
    pub fn find(&mut self, table: &config::Table) -> Found {
        match self {
            Self::Listed => listed::find(table),
            Self::Managed(managed) => managed::find(table, &managed.borrow_and_update()),
            Self::Services(services) => services.find(table),
        }
    }

    /// Waits until something else may be found; for ever when nothing will change any more.
    pub async fn changed(&mut self) {
        let changed = match self {
            Self::Listed => false,
            Self::Managed(managed) => managed.changed().await.is_ok(),
            Self::Services(services) => services.changed().await,
        };
        if !changed {
            std::future::pending::<()>().await;
        }
    }

    /// What was last found is in force.
    pub fn in_force(&self) {
        if let Self::Services(services) = self {
            services.in_force();
        }
    }
}
