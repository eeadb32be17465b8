//! Whether a request may start now: what it is allowed, what it needs, and its wait for a place.

use std::pin::pin;
use std::time::Duration;

use bytes::Bytes;
use tokio::time::Instant;

use super::record::Record;
use super::{Call, is_trusted};
use crate::admission::line::Terms;
use crate::admission::rates::{self, Granted, Limit, Limits, Scope};
use crate::admission::sleep::Mode;
use crate::admission::{Ask, tenants};
use crate::body::{Source, too_large, while_reading};
use crate::error::{Code, Error};
use crate::message::{Fields, Line};
use crate::pool::now_ms;
use crate::table::{Agent, AgentRef, Permit, View};

/// What one request wants in with.
pub(super) struct Wants {
    /// Whose it is, where callers are told apart.
    terms: Option<Terms>,
    /// What it needs of a replica's memory, bytes; 0: nobody counts that.
    need: u64,
    /// The session that affinity goes by, where it is on and the request has one.
    session: Option<Bytes>,
    /// Whether its body may be read while it waits.
    read_ahead: bool,
}

impl Wants {
    /// Of a request for this agent. `read_ahead`: whether its client sends its body without being told
    /// to. Also what was taken of its caller's limits.
    ///
    /// # Errors
    /// 429 where its caller has asked for as much as it may; 413 where it needs more memory than any
    /// replica has; what is wrong with a body that had to be read for that.
    pub(super) async fn of(
        call: &Call,
        agent: &Agent,
        fields: &Fields,
        (source, read_ahead): (&Source, bool),
        record: &mut Record,
    ) -> Result<(Self, Option<Granted>), Error> {
        let session = session(agent, fields);
        let mut wants = Self { terms: None, need: 0, session, read_ahead };
        let mut granted = None;
        if call.current.table.tenants.is_some() || agent.settings.rate.is_some() {
            granted = wants.known(call, agent, fields, source, record)?;
        }
        if let Some(memory) = &agent.settings.memory {
            let size = size(agent, source, read_ahead).await?;
            wants.need = memory.need(size).max(1);
            fits_anywhere(agent, memory, wants.need, size)?;
        }
        Ok((wants, granted))
    }

    /// Finds out whose it is, and counts it.
    fn known(
        &mut self,
        call: &Call,
        agent: &Agent,
        fields: &Fields,
        source: &Source,
        record: &mut Record,
    ) -> Result<Option<Granted>, Error> {
        let (registry, table) = (call.worker.view.tenants(), call.current.table.tenants.as_ref());
        let mut limits = Limits::new();
        let tenant = match table.and_then(|table| Some((tenant_of(call, table, fields)?, table))) {
            Some((name, table)) => registry.of(name, table),
            None => registry.nobody(),
        };
        let caller = agent.state.callers().of(&tenant);
        if let Some(table) = table {
            let settings = table.known.get(&*tenant.name).unwrap_or(&table.unlisted);
            if let Some(rate) = settings.rate {
                limits.push(Limit { scope: Scope::Tenant, rate, used: tenant.used.clone() });
            }
            self.terms = Some(tenants::terms(&caller.account, settings));
        }
        if let Some(rate) = agent.settings.rate.as_deref() {
            limits.push(Limit { scope: Scope::Agent, rate: *rate, used: caller.used.clone() });
        }
        record.tenant = Some(tenant);
        if limits.is_empty() {
            return Ok(None);
        }
        let (taken, told) = rates::take(&limits, source, registry.part());
        record.told = Some(Box::new(told));
        taken.map(Some)
    }

    /// What affinity goes by.
    pub(super) fn session(&self) -> Option<&[u8]> {
        self.session.as_deref()
    }

    /// What it needs of a replica's memory.
    pub(super) fn need(&self) -> u64 {
        self.need
    }

    fn ask(&self, source: &Source) -> Ask<'_> {
        Ask {
            terms: self.terms.as_ref(),
            need: self.need,
            session: self.session(),
            held: source.kept(),
        }
    }

    /// Waits for a place, where there is any hope of one: a parked agent's first replica counts, too,
    /// since whoever waits for it wakes the agent, and so does the next one of an agent whose last has
    /// just gone. Meanwhile the body is read ahead, unless its client waits for a go.
    pub(super) async fn enter(
        &self,
        agent: &AgentRef,
        view: &View,
        source: &Source,
        record: &mut Record,
    ) -> Result<Permit, Error> {
        if agent.ready() == 0 {
            hopeful(&agent.latest(view))?;
        }
        if let Some(permit) = Permit::at_once(agent, self.ask(source)) {
            return Ok(permit);
        }
        let since = Instant::now();
        // On the heap: few requests wait, and every request's future has the size of all it may do.
        let permit = Box::pin(self.wait(agent, source)).await?;
        record.waited(since.elapsed());
        Ok(permit)
    }

    /// Waits in line while the body is read ahead, as far as the line may hold it.
    pub(super) async fn wait(&self, agent: &AgentRef, source: &Source) -> Result<Permit, Error> {
        let mut permit = pin!(stand_in_line(agent, self.ask(source)));
        if !self.read_ahead {
            return permit.await;
        }
        let mut held = agent.state.admission.hold_bytes(source.kept());
        let most = agent.settings.queue.bytes;
        while_reading(permit.as_mut(), source, |kept| held.now(kept, most)).await?
    }
}

/// The session that affinity goes by, where it is on and the request has one.
fn session(agent: &Agent, fields: &Fields) -> Option<Bytes> {
    let session = fields.named(agent.settings.affinity.as_deref()?)?;
    (!session.is_empty()).then(|| Bytes::copy_from_slice(session))
}

/// Who asks, as somebody says who is believed. Who is named twice is nobody: one of the two may be the
/// client's own.
fn tenant_of<'f>(call: &Call, table: &config::Tenants, fields: &'f Fields) -> Option<&'f str> {
    if !is_trusted(call) {
        return None;
    }
    let is = |line: &Line<'_>| line.name.eq_ignore_ascii_case(table.header.as_bytes());
    let mut lines = fields.lines().filter(is);
    let named = lines.next().filter(|_| lines.next().is_none())?.value;
    config::names::is_tenant(named).then(|| std::str::from_utf8(named).ok())?
}

/// How long a request's body is, as far as its memory goes. Without a declared length it is read for
/// that, if it is short; a longer one may become as long as any.
async fn size(agent: &Agent, source: &Source, read_ahead: bool) -> Result<u64, Error> {
    if let Some(length) = source.length() {
        return Ok(length);
    }
    if read_ahead {
        source.read_ahead(|_| true).await?;
    }
    let ended = source.ended_at().is_some();
    Ok(if ended { source.received() } else { agent.settings.max_body })
}

/// Refuses what needs more than any replica has.
fn fits_anywhere(
    agent: &Agent,
    memory: &config::Memory,
    need: u64,
    size: u64,
) -> Result<(), Error> {
    let Some(most) = agent.largest_need().filter(|most| need > *most) else { return Ok(()) };
    let (base, each) = (memory.base, memory.per_body_byte);
    let text = format!(
        "with a body of {size} bytes this request needs about {need} bytes of memory \
         ({base}, and {each} for each byte of the body), and a replica has {most} for its requests"
    );
    Err(Error::new(Code::BodyTooLarge, text))
}

/// Sets the agent's bounds for its body; a declared length is refused before anything is read.
pub(super) fn admit_body(agent: &Agent, source: &Source) -> Result<(), Error> {
    let max = agent.settings.max_body;
    if source.length().unwrap_or_else(|| source.received()) > max {
        return Err(too_large(max));
    }
    source.admit(max, agent.settings.retry.map_or(0, |retry| retry.buffer));
    Ok(())
}

/// Refuses what nobody could answer, and nobody is waited for.
pub(super) fn hopeful(agent: &Agent) -> Result<(), Error> {
    match agent.ready() > 0 || agent.is_awaited() {
        true => Ok(()),
        false => Err(no_endpoint(agent)),
    }
}

/// Waits for a place until it is known that there will be none. Who is refused while the agent has
/// no replica is told when there should be one.
async fn stand_in_line(agent: &AgentRef, ask: Ask<'_>) -> Result<Permit, Error> {
    let (sleep, between) = (&agent.state.sleep, agent.is_between_replicas());
    tokio::select! {
        biased;
        entered = Permit::of(agent, ask) => entered.map_err(|error| match error.code {
            Code::QueueFull if between => full_between(error),
            Code::QueueTimeout if between && agent.state.gap.age(now_ms()).is_some() => {
                no_endpoint(agent)
            }
            Code::QueueFull if agent.is_parked() => starting(error, sleep.come_back(now_ms())),
            Code::QueueTimeout if sleep.is_starting() => starting(error, sleep.come_back(now_ms())),
            _ => error,
        }),
        () = sleep.scaled_by_hand() => Err(no_endpoint(agent)),
        () = outwaited(agent), if between => Err(no_endpoint(agent)),
    }
}

/// Ends when the agent has been without a replica for as long as one is waited for.
async fn outwaited(agent: &Agent) {
    while let Some(age) = agent.state.gap.age(now_ms()) {
        let left = agent.settings.queue.timeout.saturating_sub(age);
        if left.is_zero() {
            return;
        }
        tokio::time::sleep(left).await;
    }
    // There was one, and whoever is still in line waits for a place as ever.
    std::future::pending::<()>().await;
}

/// What the line said, of an agent between two replicas.
fn full_between(error: Error) -> Error {
    let text = "the agent's last replica has gone; no more requests may wait for the next one";
    Error { detail: text.to_owned(), ..error }
}

/// What the line said, of an agent that is being woken.
fn starting(error: Error, left: Duration) -> Error {
    let text = match error.code {
        Code::QueueFull => "the agent was parked and starts; no more requests may wait for it",
        _ => "the agent was parked and has not started in time",
    };
    Error { detail: text.to_owned(), ..error }.retry_after(left)
}

/// The 503 of an agent without a ready replica.
fn no_endpoint(agent: &Agent) -> Error {
    let gap = agent.state.gap.age(now_ms());
    let text = match (agent.places().count(), agent.state.sleep.mode(), gap) {
        (0, Mode::ByHand(deployment), _) => format!(
            "the agent was scaled to zero by hand; \
             `kubectl scale {deployment} --replicas=1` brings it back"
        ),
        (_, Mode::Fixed, Some(gap)) => {
            format!("the agent's last replica went {} s ago, and no other is ready", gap.as_secs())
        }
        (0, ..) => "the agent has no replicas".to_owned(),
        (n, ..) => format!("none of the agent's {n} replicas is ready"),
    };
    Error::new(Code::NoEndpoint, text)
}
