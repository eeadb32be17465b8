//! Ejecting and readmitting endpoints by what their exchanges show, and probing them.

mod active;
mod ask;
pub mod reports;

pub use self::active::{AT_ONCE as PROBES_MAX, probe};
pub use self::reports::read as read_reports;
use crate::forward::Blame;
use crate::pool::{Lease, now_ms};
use crate::table::Agent;

/// Learns from an exchange that failed: a refused or reset connection takes the endpoint out at once,
/// other failures after `eject.consecutive` in a row, or when it fails far more often than the others.
pub fn observe(agent: &Agent, lease: &Lease, blame: Blame) {
    let Some(eject) = agent.eject.as_ref().filter(|_| blame != Blame::None) else { return };
    let in_a_row = lease.endpoint().failed(now_ms());
    match blame {
        Blame::Refused => take_out(agent, lease, "refused or reset"),
        _ if in_a_row >= eject.consecutive => take_out(agent, lease, "failures in a row"),
        _ => compare(agent, lease),
    }
}

/// Learns from an exchange that came to its end. An answer that says that the replica failed
/// takes it out only when it fails far more often than the others.
pub fn ended(agent: &Agent, lease: &Lease, verdict: Verdict) {
    if agent.eject.is_none() || verdict == Verdict::Known {
        return;
    }
    lease.endpoint().ended(verdict == Verdict::Well, now_ms());
    if verdict == Verdict::Failed {
        compare(agent, lease);
    }
}

/// What an answer says of who gave it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It works.
    Well,
    /// Its status is 500 or above.
    Failed,
    /// It says that it has not begun, which [`observe`] has been told already.
    Known,
}

fn compare(agent: &Agent, lease: &Lease) {
    let Some((eject, pool)) = agent.eject.as_ref().zip(agent.pool_of(lease.place())) else {
        return;
    };
    if pool.stands_out(lease.place(), eject) {
        take_out(agent, lease, "failure ratio");
    }
}

fn take_out(agent: &Agent, lease: &Lease, reason: &str) {
    let Some((eject, pool)) = agent.eject.as_ref().zip(agent.pool_of(lease.place())) else {
        return;
    };
    let recent = lease.endpoint().recent(now_ms());
    let Some(time) = pool.eject(lease.place(), eject) else { return };
    agent.metrics.ejections.increment(1);
    agent.refresh_capacity();
    let (agent, address) = (&agent.settings.name, &lease.endpoint().address);
    let for_ms = time.as_millis() as u64;
    let (failures, requests) = (recent.failures.round() as u64, recent.requests.round() as u64);
    tracing::warn!(
        agent, endpoint = %address, for_ms, reason, failures, requests, "endpoint ejected"
    );
}
