//! What a gateway in a cluster does beside serving: it wakes what its requests wait for, takes part
//! in electing the one that decides, and as that one parks idle agents and spares busy pods.

use std::sync::Arc;

use tokio::sync::watch;

use super::asker::Asker;
use super::deletion_cost::DeletionCosts;
use super::lease::Elector;
use super::load::Board;
use super::parking::{self, Parking};
use crate::discovery::Known;
use crate::discovery::kubernetes::Credentials;
use crate::shared::{Phase, Shared};

/// What the duties need.
pub struct Duties {
    /// The tables.
    pub shared: Arc<Shared>,
    /// What there is to do, over all gateways.
    pub board: Board,
    /// How the cluster's API is asked.
    pub credentials: Credentials,
    /// Which pods there are.
    pub known: watch::Receiver<Arc<Known>>,
    /// Every table in force.
    pub tables: watch::Receiver<Arc<config::Table>>,
    /// How far the shutdown has come.
    pub phase: watch::Receiver<Phase>,
}

/// What the first request has to find done, before anything is served: whether it may wait.
pub fn prepare(shared: &Shared) {
    parking::set_modes(shared, &shared.tables.current().table);
}

impl Duties {
    /// Does them until it is dropped. The Lease is taken only while there is something to decide,
    /// and given back when the gateway begins to shut down; it wakes agents to the end.
    pub async fn run(self) {
        let asker = Arc::new(Asker::new(self.credentials));
        let namespace = self.tables.borrow().kubernetes.namespace.clone();
        let (elector, lease) = Elector::new(&asker, &namespace);
        let (wanted, is_wanted) = watch::channel(false);
        let (spares, to_spare) = watch::channel(false);
        let costs = DeletionCosts {
            shared: Arc::clone(&self.shared),
            board: self.board.clone(),
            asker: Arc::clone(&asker),
            lease: lease.clone(),
            known: self.known,
            wanted: spares,
        };
        let parking = Parking::new(self.shared, self.board, asker, lease);
        tokio::join!(
            elector.run(is_wanted, self.phase),
            costs.run(),
            parking.run(self.tables.clone()),
            decide(self.tables, to_spare, wanted),
        );
    }
}

/// Whether there is anything to decide: an agent that may be parked, or pods to choose from.
async fn decide(
    mut tables: watch::Receiver<Arc<config::Table>>,
    mut to_spare: watch::Receiver<bool>,
    wanted: watch::Sender<bool>,
) {
    loop {
        let parks = k8s::owned(&tables.borrow_and_update()).iter().any(|one| one.idle.is_some());
        wanted.send_replace(parks || *to_spare.borrow_and_update());
        let ended = tokio::select! {
            changed = tables.changed() => changed.is_err(),
            changed = to_spare.changed() => changed.is_err(),
        };
        if ended {
            return;
        }
    }
}
