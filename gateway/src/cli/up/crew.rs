//! One agent's replicas: as many as the table says, replaced one at a time when it changes, and
//! listed for the gateway while they take requests.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use switchyard::gateway::{ManagedAgent, Replica};
use tokio::sync::{mpsc, watch};

use super::Yard;
use super::plan::{Plan, Seat, plan};
use super::replica::{Event, Life};
use super::spec::Spec;

/// Events that wait for the crew; its replicas wait for room.
const EVENTS: usize = 64;

/// What the table asks of a crew.
#[derive(Clone)]
pub(super) struct Wanted {
    pub(super) spec: Arc<Spec>,
    pub(super) replicas: u32,
    /// How long a replica may go on after SIGTERM.
    pub(super) grace: Duration,
    /// The agent is no more: all replicas go, and then the crew.
    pub(super) leave: bool,
}

struct Crew {
    yard: Arc<Yard>,
    wanted: watch::Receiver<Wanted>,
    members: BTreeMap<u32, Member>,
    events: mpsc::Sender<Event>,
}

struct Member {
    spec: Arc<Spec>,
    /// While it takes requests.
    ready: Option<Replica>,
    stop: watch::Sender<Option<Duration>>,
    leaving: bool,
}

/// Runs a crew until it has left.
pub(super) async fn run(yard: Arc<Yard>, wanted: watch::Receiver<Wanted>) {
    let (events, mut told) = mpsc::channel(EVENTS);
    let mut crew = Crew { yard, wanted, members: BTreeMap::new(), events };
    loop {
        let wanted = crew.wanted.borrow_and_update().clone();
        crew.step(&wanted);
        if wanted.leave && crew.members.is_empty() {
            return;
        }
        tokio::select! {
            Some(event) = told.recv() => crew.note(event),
            // The supervisor keeps the sender until the crew has left.
            Ok(()) = crew.wanted.changed() => {}
        }
    }
}

impl Crew {
    /// Does what the plan says: who goes leaves the list first, and who has come is on it before
    /// anybody is told.
    fn step(&mut self, wanted: &Wanted) {
        let replicas = if wanted.leave { 0 } else { wanted.replicas };
        let seats: Vec<_> = self.seats(&wanted.spec).collect();
        let Plan { start, stop } = plan(&seats, replicas as usize);
        for id in &stop {
            if let Some(member) = self.members.get_mut(id) {
                member.leaving = true;
                member.ready = None;
            }
        }
        if !wanted.leave {
            self.list(wanted);
            if self.members.values().any(|member| member.ready.is_some()) {
                self.yard.announce(&wanted.spec.agent);
            }
        }
        for member in stop.iter().filter_map(|id| self.members.get(id)) {
            member.stop.send_replace(Some(wanted.grace));
        }
        (0..start).for_each(|_| self.start(&wanted.spec));
    }

    fn seats(&self, spec: &Arc<Spec>) -> impl Iterator<Item = Seat> {
        let staying = self.members.iter().filter(|(_, member)| !member.leaving);
        staying.map(move |(id, member)| Seat {
            id: *id,
            current: member.spec == *spec,
            ready: member.ready.is_some(),
        })
    }

    fn list(&self, wanted: &Wanted) {
        let replicas = self.members.values().filter_map(|member| member.ready.clone()).collect();
        self.yard.list(&wanted.spec.agent, ManagedAgent { desired: wanted.replicas, replicas });
    }

    fn start(&mut self, spec: &Arc<Spec>) {
        let id = (1..).find(|id| !self.members.contains_key(id)).expect("u32 has room for another");
        let (stop, told) = watch::channel(None);
        let member = Member { spec: Arc::clone(spec), ready: None, stop, leaving: false };
        self.members.insert(id, member);
        let life = Life {
            yard: Arc::clone(&self.yard),
            spec: Arc::clone(spec),
            id,
            events: self.events.clone(),
            stop: told,
        };
        tokio::spawn(life.run());
    }

    fn note(&mut self, event: Event) {
        match event {
            Event::Ready(id, replica) => {
                if let Some(member) = self.members.get_mut(&id).filter(|member| !member.leaving) {
                    member.ready = Some(replica);
                }
            }
            Event::Down(id) => {
                if let Some(member) = self.members.get_mut(&id) {
                    member.ready = None;
                }
            }
            Event::Gone(id) => drop(self.members.remove(&id)),
        }
    }
}
