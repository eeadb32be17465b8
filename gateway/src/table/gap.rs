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

    /// Whether it has a replica that isn't on its way out. A place may know of that already while
    /// a request still sees the snapshot before.
    fn has_staying(&self) -> bool {
        let stays = |split: &Split| split.standing != Standing::Leaving;
        let mut staying = self.picked().filter(|split| stays(split));
        staying.any(|split| split.pool.places().iter().any(|place| !place.is_leaving()))
    }

    /// Whether somebody tells of the replicas that come.
    pub(super) fn is_followed(&self) -> bool {
        self.picked().any(|split| split.standing != Standing::Listed)
    }

    /// Notes who is on its way out and that the last replica has gone: before it is in force. The
    /// last replica's going comes first, so that who is turned away by it finds that it is awaited.
    pub(super) fn note_leaving(&self) {
        self.note_places(false);
        if self.is_followed() {
            self.note_gap();
        } else {
            self.state.gap.forget();
        }
        self.note_places(true);
    }

    /// Tells the places whether they are on their way out: those that are, or those that aren't.
    fn note_places(&self, leaving: bool) {
        let is = |split: &&Split| (split.standing == Standing::Leaving) == leaving;
        let splits = self.splits.iter().filter(is);
        splits.flat_map(|split| split.pool.places()).for_each(|place| place.leave(leaving));
    }

    fn note_gap(&self) {
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

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use crate::metrics::Metrics;
    use crate::table::{Found, Replicas, Tables};

    fn at(port: u16) -> Vec<config::Endpoint> {
        vec![config::Endpoint { host: "127.0.0.1".into(), port }]
    }

    fn found(replicas: Replicas) -> Found {
        Found::from([("qa".to_owned(), replicas)])
    }

    fn tables(more: &str, replicas: Replicas) -> Tables {
        let text = format!("[agents.qa]\nservice = \"qa\"\n{more}\n");
        let table = Arc::new(config::parse(&text, "t").unwrap().table);
        Tables::new(table, &found(replicas), Arc::new(Metrics::new())).unwrap()
    }

    fn awaited(tables: &Tables) -> bool {
        let snapshot = tables.current();
        let agent = &snapshot.agents[0];
        let places = agent.state.admission.capacity();
        assert_eq!(agent.is_between_replicas(), places == Some(0), "its line holds all back");
        agent.is_awaited()
    }

    #[test]
    fn an_agent_is_awaited_from_its_last_replicas_going_to_the_next_ones_coming() {
        let tables = tables("", Replicas::followed(Vec::new()));
        assert!(!awaited(&tables), "there never was one");
        let steps = [
            (Replicas::followed(at(1)), false),
            (Replicas::followed(Vec::new()), true),
            (Replicas::leaving(Vec::new()), true),
            (Replicas::followed(at(2)), false),
            (Replicas::leaving(at(2)), false),
            (Replicas::followed(Vec::new()), true),
        ];
        for (n, (replicas, expected)) in steps.into_iter().enumerate() {
            tables.rediscover(&found(replicas));
            assert_eq!(awaited(&tables), expected, "step {n}");
        }
    }

    #[test]
    fn one_that_leaves_counts_until_it_has_turned_somebody_away() {
        let tables = tables("max_in_flight = 2", Replicas::followed(at(1)));
        tables.rediscover(&found(Replicas::leaving(at(1))));
        let snapshot = tables.current();
        let agent = &snapshot.agents[0];
        assert!(!agent.is_awaited());
        assert!(agent.places().all(|place| place.turned_away()));
        agent.refresh_capacity();
        assert!(awaited(&tables));
        tables.rediscover(&found(Replicas::leaving(at(1))));
        assert!(awaited(&tables), "another snapshot changes nothing");
        tables.rediscover(&found(Replicas::followed(at(1))));
        assert!(!awaited(&tables), "a new one at the same address");
    }

    #[test]
    fn nobody_is_awaited_without_a_queue_or_in_place_of_what_is_listed() {
        let without = tables("queue = { max = 0 }", Replicas::followed(at(1)));
        without.rediscover(&found(Replicas::followed(Vec::new())));
        assert!(!awaited(&without));
        let tables = tables("", Replicas::from(at(1)));
        tables.rediscover(&found(Replicas::from(Vec::new())));
        assert!(!awaited(&tables));
    }
}
