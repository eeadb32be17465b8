//! When an agent is between two replicas, and what is noted of it at each swap.

use super::{Agent, Split, Standing};
use crate::admission::sleep::Mode;
use crate::pool::now_ms;

impl Agent {
    /// Whether its last replica has gone, or begins nothing new, and requests wait for the next one:
    /// as long as any may wait in line. One that may be parked is waited for by rules of its own.
    #[must_use]
    pub fn is_between_replicas(&self) -> bool {
        let queue = self.settings.queue;
        queue.max > 0
            && self.state.gap.age(now_ms()).is_some_and(|age| age < queue.timeout)
            && self.is_never_parked()
            && !self.has_staying()
            && self.ready() == 0
    }

    /// Whether there is nobody to ask, and requests wait for who comes next.
    #[must_use]
    pub fn is_awaited(&self) -> bool {
        self.is_parked() || self.is_between_replicas()
    }

    fn is_never_parked(&self) -> bool {
        self.state.sleep.mode() == Mode::Fixed
    }

    /// Whether it has a replica that isn't on its way out.
    fn has_staying(&self) -> bool {
        let stays = |split: &Split| split.standing != Standing::Leaving;
        self.picked().any(|split| stays(split) && !split.pool.places().is_empty())
    }

    /// Whether somebody tells of the replicas that come.
    fn is_followed(&self) -> bool {
        self.picked().any(|split| split.standing != Standing::Listed)
    }

    /// Notes who is on its way out and that the last replica has gone: before it is in force.
    pub(super) fn note_leaving(&self) {
        for split in &self.splits {
            let leaving = split.standing == Standing::Leaving;
            split.pool.places().iter().for_each(|place| place.leave(leaving));
        }
        if !self.is_followed() {
            return self.state.gap.forget();
        }
        let went = !self.has_staying() && self.state.gap.begin(now_ms());
        if went && self.is_never_parked() {
            let (agent, patience) = (&self.settings.name, self.settings.queue.timeout);
            let waits_ms = patience.as_millis() as u64;
            tracing::info!(agent, waits_ms, "the agent's last ready replica has gone");
        }
    }

    /// Notes that there is a replica: when it is in force, so that nobody who still sees none is
    /// refused.
    pub(super) fn note_coming(&self) {
        if !self.is_followed() || !self.has_staying() {
            return;
        }
        let came = self.state.gap.end(now_ms());
        if let Some(gap) = came.filter(|_| self.is_never_parked()) {
            let (agent, gap_ms) = (&self.settings.name, gap.as_millis() as u64);
            tracing::info!(agent, gap_ms, "the agent has a ready replica again");
        }
    }
}
