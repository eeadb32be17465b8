//! One request's attempts: pick an endpoint, exchange, and try elsewhere where that is allowed.

use std::rc::Rc;

use http::StatusCode;
use tokio::sync::oneshot;
use tokio::time::Instant;
use tokio::time::error::Elapsed;

use super::Call;
use super::admit::{Wants, hopeful};
use super::record::Record;
use super::reply::{Exchange, read_out};
use super::worker::Worker;
use crate::body::Source;
use crate::error::{Code, Error};
use crate::forward::{self, Answer, Blame, Chance, Failure, Terms};
use crate::health::{self, Verdict};
use crate::message::{Name, OutgoingHead, ResponseHead};
use crate::pool::{Endpoint, Lease};
use crate::table::{AgentRef, Permit};
use crate::{proxy::worker::Client, retry};

/// How often a request goes back to the line because its place was lost to it.
const WAITS_MAX: u32 = 16;

/// What the attempts have in common.
pub(super) struct Attempts {
    /// The agent.
    pub agent: AgentRef,
    /// The request's place; none while it waits for another.
    pub permit: Option<Permit>,
    /// The request's body.
    pub source: Source,
    /// The request's head.
    pub head: OutgoingHead,
    /// What the request wants in with.
    pub wants: Wants,
    /// When the total clock fires.
    pub deadline: Instant,
    /// Whether the body may be read while the request waits.
    pub read_ahead: bool,
    /// Whether the last attempt died on a connection that had been idle: others of them may have, too.
    pub fresh: bool,
}

/// What is noted on the way.
#[derive(Default)]
struct Notes {
    endpoint: Option<std::sync::Arc<Endpoint>>,
    retries: u32,
    /// How often it went back to the line, and how long it was there.
    waits: u32,
    queued: std::time::Duration,
    first_byte: Option<std::time::Duration>,
}

type Outcome = Result<(Exchange, ResponseHead), Error>;

impl Attempts {
    /// Runs them; beside the client's own task where the agent shall go on without the client.
    ///
    /// # Errors
    /// What the last attempt came to.
    pub(super) async fn run(mut self, call: &Call, record: &mut Record) -> Outcome {
        let (notes, outcome) = match self.agent.settings.on_disconnect {
            config::OnDisconnect::Cancel => self.all(&call.worker).await,
            config::OnDisconnect::Continue => Box::pin(self.beside(call)).await?,
        };
        record.endpoint = notes.endpoint;
        record.retries = notes.retries;
        record.waited(notes.queued);
        record.first_byte = notes.first_byte;
        if let Ok((exchange, _)) = &outcome {
            watch_total(&call.client, exchange);
        }
        outcome
    }

    /// On a task of their own, which the client's leaving does not end.
    async fn beside(mut self, call: &Call) -> Result<(Notes, Outcome), Error> {
        let (mut told, telling) = oneshot::channel();
        let worker = Rc::clone(&call.worker);
        call.client.outlives_client.set(true);
        tokio::task::spawn_local(async move {
            let _open = worker.open();
            let state = self.agent.clone();
            let mut all = std::pin::pin!(self.all(&worker));
            let done = tokio::select! {
                done = &mut all => done,
                () = told.closed() => {
                    let _held = Held::new(&state);
                    all.await
                }
            };
            if let Err((_, Ok((exchange, _)))) = told.send(done) {
                read_out(&worker, exchange).await;
            }
        });
        let mut telling = Telling { told: telling, worker: &call.worker };
        let outcome = (&mut telling.told).await;
        outcome.map_err(|_| Error::new(Code::Internal, "the exchange's task ended"))
    }

    async fn all(&mut self, worker: &Rc<Worker>) -> (Notes, Outcome) {
        let mut notes = Notes::default();
        let retry = self.agent.settings.retry;
        if retry.is_some() {
            self.agent.state.budget.request();
        }
        let mut tried = Vec::new();
        loop {
            let given = self.permit.as_mut().and_then(Permit::lease);
            let pick = || self.agent.pick(self.wants.session(), &tried, self.wants.need());
            let Some(lease) = given.or_else(pick) else {
                if let Err(error) = Box::pin(self.wait_again(worker, &mut notes)).await {
                    return (notes, Err(error));
                }
                continue;
            };
            notes.endpoint = Some(std::sync::Arc::clone(lease.endpoint()));
            let came = self.one(worker, &lease).await;
            if self.came_too_late(worker, &lease, &came) {
                continue;
            }
            let failure = match came {
                Ok(answer) if is_not_begun(&answer) && self.repeats(&lease, &notes) => None,
                Ok(answer) => {
                    notes.first_byte = Some(answer.first_byte);
                    let Some(permit) = self.permit.take() else { continue };
                    return (notes, Ok(self.settle(lease, permit, answer)));
                }
                Err(failure) => Some(failure),
            };
            tried.push(lease.endpoint().id);
            if let Some(failure) = failure {
                health::observe(&self.agent, &lease, failure.blame);
                self.fresh = failure.chance == Chance::Unknown;
                if !self.allows(&failure) || !self.may_retry(notes.retries) {
                    return (notes, Err(failure.error));
                }
            }
            notes.retries += 1;
            self.agent.metrics.retries.increment(1);
        }
    }

    async fn one(&mut self, worker: &Rc<Worker>, lease: &Lease) -> Result<Answer, Failure> {
        let terms = Terms {
            connections: &worker.connections,
            endpoint: lease.endpoint(),
            settings: &self.agent.settings,
            source: &self.source,
            deadline: self.deadline,
            read_ahead: self.read_ahead,
            fresh: self.fresh,
        };
        forward::exchange(&terms, &self.head).await
    }

    /// Whether this kind of failure leaves another attempt possible.
    fn allows(&self, failure: &Failure) -> bool {
        let state = (failure.unsent, self.source.can_repeat());
        retry::allows(failure.chance, state, &self.head.method, &self.head.fields)
    }

    /// Whether it has come to a replica that goes, and was not begun: that is no failure of anybody.
    /// It goes to who is left, or back to the line until the next one is there.
    fn came_too_late(
        &mut self,
        worker: &Worker,
        lease: &Lease,
        came: &Result<Answer, Failure>,
    ) -> bool {
        let repeats = match came {
            Ok(answer) => is_not_begun(answer) && self.source.can_repeat(),
            Err(failure) => failure.chance == Chance::NotBegun && self.allows(failure),
        };
        if !repeats || self.agent.settings.retry.is_none() || Instant::now() >= self.deadline {
            return false;
        }
        let leaving = lease.place().turned_away();
        let latest = self.agent.latest(&worker.view);
        let too_late = leaving || latest.is_awaited();
        if too_late {
            self.agent = latest;
        }
        too_late
    }

    /// Whether what was not begun is tried elsewhere. Who says so again and again is left alone
    /// for a while: it drains, or it is full.
    fn repeats(&self, lease: &Lease, notes: &Notes) -> bool {
        health::observe(&self.agent, lease, Blame::Failed);
        self.source.can_repeat() && self.may_retry(notes.retries)
    }

    /// Whether there is an attempt left: in number, in time, and in the agent's budget.
    fn may_retry(&self, retries: u32) -> bool {
        let Some(retry) = self.agent.settings.retry else { return false };
        retries < retry.max
            && Instant::now() < self.deadline
            && self.agent.state.budget.take(retry.budget)
    }

    /// The place that admission gave is at a replica that has gone: gives it back and waits in
    /// line for another, as it is now; also where the agent was parked in between, or its last
    /// replica has gone. Who waits for a replica is not admitted yet: the total clock begins anew.
    async fn wait_again(&mut self, worker: &Rc<Worker>, notes: &mut Notes) -> Result<(), Error> {
        self.agent = self.agent.latest(&worker.view);
        notes.waits += 1;
        hopeful(&self.agent)?;
        if notes.waits > WAITS_MAX {
            return Err(Error::new(Code::Overloaded, "every replica is full"));
        }
        // What admission believes may be a moment old.
        self.agent.refresh_capacity();
        let granted = self.permit.take().and_then(|mut permit| permit.granted.take());
        let (queued, awaited) = (Instant::now(), self.agent.is_awaited());
        let due = Some(self.deadline).filter(|_| !awaited);
        let entered = by(due, self.wants.wait(&self.agent, &self.source)).await;
        let late = |_| Error::new(Code::TotalTimeout, "no replica became free in time");
        let mut permit = entered.map_err(late)??;
        permit.granted = granted;
        self.permit = Some(permit);
        notes.queued += queued.elapsed();
        if awaited {
            self.deadline = Instant::now() + self.agent.settings.timeout;
        }
        Ok(())
    }

    fn settle(&self, lease: Lease, mut permit: Permit, answer: Answer) -> (Exchange, ResponseHead) {
        self.source.settle();
        permit.settle(lease.place());
        self.agent.metrics.first_byte(answer.first_byte);
        let (agent, deadline, verdict) = (self.agent.clone(), self.deadline, verdict(&answer));
        let Answer { head, body: incoming, at, .. } = answer;
        (Exchange { agent, permit, lease, incoming, at, deadline, verdict }, head)
    }
}

/// What waits for the outcome of a task of its own. Its client may leave just when there is one.
struct Telling<'a> {
    told: oneshot::Receiver<(Notes, Outcome)>,
    worker: &'a Rc<Worker>,
}

impl Drop for Telling<'_> {
    fn drop(&mut self) {
        self.told.close();
        if let Ok((_, Ok((exchange, _)))) = self.told.try_recv() {
            let worker = Rc::clone(self.worker);
            tokio::task::spawn_local(async move {
                let _open = worker.open();
                read_out(&worker, exchange).await;
            });
        }
    }
}

/// What comes by then; without a time, whenever it comes.
async fn by<F: Future>(due: Option<Instant>, coming: F) -> Result<F::Output, Elapsed> {
    match due {
        Some(due) => tokio::time::timeout_at(due, coming).await,
        None => Ok(coming.await),
    }
}

/// Whether the agent says that it has not begun.
fn is_not_begun(answer: &Answer) -> bool {
    let head = &answer.head;
    head.status == StatusCode::SERVICE_UNAVAILABLE
        && head.fields.get(Name::NotBegun).is_some_and(|value| value == b"1")
}

fn verdict(answer: &Answer) -> Verdict {
    match answer.head.status.as_u16() >= 500 {
        false => Verdict::Well,
        true if is_not_begun(answer) => Verdict::Known,
        true => Verdict::Failed,
    }
}

/// HTTP/1: the connection watches the total clock too, for a client that does not read.
fn watch_total(client: &Client, exchange: &Exchange) {
    if client.is_http1.get() {
        client.due.set(Some(exchange.deadline));
    }
}

/// Counts an agent's request as held.
struct Held(AgentRef);

impl Held {
    fn new(agent: &AgentRef) -> Self {
        agent.state.admission.hold();
        Self(agent.clone())
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.0.state.admission.release();
    }
}
