//! Ejecting and readmitting endpoints by what their exchanges show, and probing them.

mod active;
mod ask;
mod reports;

pub use self::active::{AT_ONCE as PROBES_MAX, probe};
pub use self::reports::read as read_reports;
use crate::forward::Blame;
use crate::pool::{Lease, now_ms};
use crate::table::Agent;

/// Learns from one exchange: a refused or reset connection takes the endpoint out at once, other
/// failures after `eject.consecutive` in a row.
pub fn observe(agent: &Agent, lease: &Lease, blame: Blame) {
    let Some(eject) = &agent.eject else { return };
    let endpoint = lease.endpoint();
    let out = match blame {
        Blame::None => return,
        Blame::Failed => endpoint.failed() >= eject.consecutive,
        Blame::Refused => true,
    };
    let Some(pool) = agent.pool_of(lease.place()).filter(|_| out) else { return };
    if let Some(time) = pool.eject(lease.place(), eject) {
        agent.metrics.ejections.increment(1);
        agent.refresh_capacity();
        let (agent, address) = (&agent.settings.name, &endpoint.address);
        let for_ms = time.as_millis() as u64;
        tracing::warn!(agent, endpoint = %address, for_ms, reason = ?blame, "endpoint ejected");
    }
}

/// Learns that an exchange went well.
pub fn succeeded(agent: &Agent, lease: &Lease) {
    if agent.eject.is_some() {
        lease.endpoint().succeeded(now_ms());
    }
}
