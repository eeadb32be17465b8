//! What all replicas of a yard share.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use switchyard::gateway::ManagedAgent;
use tokio::sync::watch;

use super::console::Console;
use super::limits::{Limit, Limits};
use super::ports::Ports;
use super::spec::Spec;
use crate::cli::units;

/// How far the end of a yard has come; it never goes back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Phase {
    Run,
    /// The gateway has ended; replicas finish.
    Drain,
    /// Everything ends at once.
    Kill,
}

impl Phase {
    /// Goes on to a later phase; an earlier one changes nothing.
    pub(super) fn advance(phase: &watch::Sender<Phase>, to: Phase) {
        phase.send_if_modified(|now| {
            let later = to > *now;
            *now = to.max(*now);
            later
        });
    }
}

/// The replicas that take requests, by agent.
pub(super) type Listing = watch::Sender<Arc<BTreeMap<String, ManagedAgent>>>;

/// One yard.
pub(super) struct Yard {
    pub(super) console: Console,
    pub(super) ports: Ports,
    pub(super) phase: watch::Receiver<Phase>,
    /// How long a replica may take to get ready.
    pub(super) start_timeout: Duration,
    listing: Listing,
    /// Where the gateway listens.
    listen: SocketAddr,
    announced: AtomicBool,
    /// Chosen when the first limited replica starts.
    limits: OnceLock<Limits>,
    lives: AtomicU32,
    secrets: Mutex<BTreeSet<String>>,
}

impl Yard {
    pub(super) fn new(
        console: Console,
        phase: watch::Receiver<Phase>,
        listing: Listing,
        listen: SocketAddr,
        start_timeout: Duration,
    ) -> Yard {
        Yard {
            console,
            ports: Ports::default(),
            phase,
            start_timeout,
            listing,
            listen,
            announced: AtomicBool::new(false),
            limits: OnceLock::new(),
            lives: AtomicU32::new(0),
            secrets: Mutex::default(),
        }
    }

    /// As if the machine allowed only these limits.
    #[cfg(test)]
    pub(super) fn with_limits(self, limits: Limits) -> Yard {
        Yard { limits: OnceLock::from(limits), ..self }
    }

    /// As if replicas had to be ready within this time.
    #[cfg(test)]
    pub(super) fn start_within(self, start_timeout: Duration) -> Yard {
        Yard { start_timeout, ..self }
    }

    /// Shows the gateway an agent's replicas, in place of those before.
    pub(super) fn list(&self, agent: &str, replicas: ManagedAgent) {
        self.listing.send_modify(|all| {
            Arc::make_mut(all).insert(agent.to_owned(), replicas);
        });
    }

    /// Takes an agent from the gateway's view.
    pub(super) fn unlist(&self, agent: &str) {
        self.listing.send_modify(|all| {
            Arc::make_mut(all).remove(agent);
        });
    }

    /// The limit for one life of a replica, and one line when it is another than could be expected.
    pub(super) fn limit(&self, name: &str, bytes: Option<u64>) -> Option<Limit> {
        let bytes = bytes?;
        let limits = self.limits.get_or_init(|| {
            let limits = Limits::choose();
            self.console.say(&limits.to_string());
            limits
        });
        let life = self.lives.fetch_add(1, Ordering::Relaxed);
        let limit = limits.make(&format!("{name}.{life}"), bytes).unwrap_or_else(|error| {
            let size = units::bytes(bytes);
            self.console.say(&format!(
                "{name}: no cgroup for its {size} of memory ({error}); each of its processes gets \
                 a resource limit (RLIMIT_DATA) instead"
            ));
            Limit::Process(bytes)
        });
        Some(limit)
    }

    /// Remembers which variables hold secrets of agents.
    pub(super) fn know_secrets(&self, variables: BTreeSet<String>) {
        *self.secrets.lock().unwrap_or_else(PoisonError::into_inner) = variables;
    }

    /// The variables that hold other agents' secrets: a replica doesn't get them.
    pub(super) fn foreign_secrets(&self, spec: &Spec) -> Vec<String> {
        let all = self.secrets.lock().unwrap_or_else(PoisonError::into_inner);
        all.iter().filter(|variable| !spec.env.contains_key(*variable)).cloned().collect()
    }

    /// Once, when the first agent is ready: how to call it.
    pub(super) fn announce(&self, agent: &str) {
        if self.announced.swap(true, Ordering::Relaxed) {
            return;
        }
        let base = reachable(self.listen);
        self.console.print(&format!(
            "try: curl -N http://{base}/agents/{agent}/invoke -H 'content-type: application/json' \
             -d '{{\"input\": \"What can you do?\", \"stream\": true}}'"
        ));
    }
}

/// An address that can be called, for one that is listened on.
fn reachable(listen: SocketAddr) -> SocketAddr {
    let ip = match listen.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(ip, listen.port())
}
