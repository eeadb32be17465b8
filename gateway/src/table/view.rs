//! The table as a worker sees it, and as a request holds it.

use std::cell::RefCell;
use std::ops::Deref;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::{Agent, Snapshot, Tables};
use crate::admission::rates::Granted;
use crate::admission::tenants::Tenants;
use crate::admission::{Ask, Seat};
use crate::pool::{Lease, Place};

/// One worker's view of [`Tables`]: its own count of references, so that workers share none.
pub struct View {
    tables: Arc<Tables>,
    seen: RefCell<(u64, Rc<Shared>)>,
}

impl View {
    /// A view of the snapshot in force.
    #[must_use]
    pub fn new(tables: Arc<Tables>) -> Self {
        let version = tables.version.load(Ordering::Acquire);
        let seen = RefCell::new((version, Rc::new(Shared(tables.current()))));
        Self { tables, seen }
    }

    /// Who asked lately, where callers are told apart.
    #[must_use]
    pub fn tenants(&self) -> &Tenants {
        &self.tables.tenants
    }

    /// The snapshot in force, for one request.
    #[must_use]
    pub fn current(&self) -> Current {
        let version = self.tables.version.load(Ordering::Acquire);
        let mut seen = self.seen.borrow_mut();
        if seen.0 != version {
            *seen = (version, Rc::new(Shared(self.tables.current())));
        }
        Current(Rc::clone(&seen.1))
    }
}

/// A snapshot as one request holds it.
#[derive(Clone)]
pub struct Current(Rc<Shared>);

/// A worker's one reference to what all workers share.
struct Shared(Arc<Snapshot>);

impl Deref for Current {
    type Target = Snapshot;

    fn deref(&self) -> &Snapshot {
        &self.0.0
    }
}

impl Current {
    /// One agent, held as long as the request.
    #[must_use]
    pub fn agent(&self, index: u32) -> AgentRef {
        AgentRef { current: self.clone(), index: index as usize }
    }
}

/// An agent as one request holds it.
#[derive(Clone)]
pub struct AgentRef {
    current: Current,
    index: usize,
}

impl Deref for AgentRef {
    type Target = Agent;

    fn deref(&self) -> &Agent {
        &self.current.agents[self.index]
    }
}

impl AgentRef {
    /// The same agent as the snapshot in force has it, or as it was if it is gone there.
    #[must_use]
    pub fn latest(&self, view: &View) -> Self {
        let current = view.current();
        if Rc::ptr_eq(&current.0, &self.current.0) {
            return self.clone();
        }
        match current.routes.lookup(&self.settings.name) {
            Some(index) => current.agent(index),
            None => self.clone(),
        }
    }
}

/// A place that admission gave; given back by being dropped, at the body's last byte.
pub struct Permit {
    agent: AgentRef,
    place: Option<Arc<Place>>,
    seat: Seat,
    /// What was taken of its caller's limits, for as long.
    pub granted: Option<Granted>,
    held: bool,
}

impl Permit {
    /// Waits for a place.
    ///
    /// # Errors
    /// As [`Admission::enter`](crate::admission::Admission::enter).
    pub async fn of(agent: &AgentRef, ask: Ask<'_>) -> Result<Self, crate::error::Error> {
        let seat = agent.state.admission.enter(ask, agent.settings.queue).await?;
        Ok(Self { agent: agent.clone(), place: None, seat, granted: None, held: false })
    }

    /// A place, if there is one without waiting; with room at a replica, where it needs that.
    #[must_use]
    pub fn at_once(agent: &AgentRef, ask: Ask<'_>) -> Option<Self> {
        let admission = &agent.state.admission;
        let mut seat = admission.try_enter(ask.terms)?;
        if ask.need > 0 {
            seat.lease = agent.pick(ask.session, &[], ask.need);
            if seat.lease.is_none() {
                admission.give_back(seat);
                return None;
            }
        }
        Some(Self { agent: agent.clone(), place: None, seat, granted: None, held: false })
    }

    /// The place at a replica, where admission gave one: once.
    pub fn lease(&mut self) -> Option<Lease> {
        self.seat.lease.take()
    }

    /// Ties it to the replica that answers, where places are counted.
    pub fn settle(&mut self, place: &Arc<Place>) {
        self.place = self.agent.settings.max_in_flight.is_some().then(|| Arc::clone(place));
    }

    /// Counts it as held from now on: the client left, the agent goes on.
    pub fn hold(&mut self) {
        self.agent.state.admission.hold();
        self.held = true;
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        let admission = &self.agent.state.admission;
        if self.held {
            admission.release();
        }
        let seat = std::mem::take(&mut self.seat);
        match &self.place {
            Some(place) if place.is_retired() => admission.leave_for_good(seat),
            _ => admission.leave(seat),
        }
    }
}
