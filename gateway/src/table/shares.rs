//! How the places of each replica are shared out between the gateways of one cluster.
//!
//! Every gateway reckons the same from the same facts: who is there, and what they said they have
//! running. Nothing is agreed on, so that nobody ever waits for anybody.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::admission::rates::Part;
use crate::pool::hash;

/// Requests by agent and replica, where there are any.
pub type Running = BTreeMap<String, BTreeMap<config::Endpoint, u32>>;

/// Another gateway.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Other {
    /// Its place in the order of all that share; `None`: it is leaving, and only finishes what it
    /// has.
    pub rank: Option<u32>,
    /// What it said it has.
    pub running: Arc<Running>,
}

/// What one gateway goes by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shares {
    /// How many share, and this gateway's place in their order, from 0. Several pairs while
    /// others may not know of a change yet: the least that any of them gives is taken. With none
    /// nothing is taken.
    pub ranks: Vec<(u32, u32)>,
    /// The other gateways. Their ranks are those of the last pair.
    pub others: Vec<Other>,
}

impl Default for Shares {
    /// Of a gateway that is alone.
    fn default() -> Self {
        Self { ranks: vec![(1, 0)], others: Vec::new() }
    }
}

impl Shares {
    /// This gateway's part of what is shared evenly, as those that are there now share.
    #[must_use]
    pub fn part(&self) -> Part {
        self.ranks.last().map_or_else(Part::default, |&(gateways, rank)| Part { gateways, rank })
    }

    /// Whether another gateway has a request of this agent there.
    #[must_use]
    pub fn is_used(&self, agent: &str, replica: &config::Endpoint) -> bool {
        let running = |other: &Other| {
            other.running.get(agent).is_some_and(|at| at.get(replica).is_some_and(|n| *n > 0))
        };
        self.others.iter().any(running)
    }

    /// How many requests of an agent this gateway may have at each of its replicas, of which each
    /// takes `limit` from all gateways together.
    #[must_use]
    pub fn of(&self, agent: &str, limit: u32, replicas: &[&config::Endpoint]) -> Vec<u32> {
        if self.others.is_empty() && self.ranks == [(1, 0)] {
            return vec![limit; replicas.len()];
        }
        let Some((&last, before)) = self.ranks.split_last() else { return vec![0; replicas.len()] };
        let mut shares = self.with(last, agent, limit, replicas);
        for ranks in before {
            let others = self.with(*ranks, agent, limit, replicas);
            shares.iter_mut().zip(others).for_each(|(share, other)| *share = other.min(*share));
        }
        shares
    }

    fn with(
        &self,
        (gateways, rank): (u32, u32),
        agent: &str,
        limit: u32,
        replicas: &[&config::Endpoint],
    ) -> Vec<u32> {
        let gateways = gateways.max(1);
        let firsts = firsts(limit, gateways, replicas);
        let part = |places: u32, rank: u32, first: u32| {
            let turn = (rank + first) % gateways;
            places / gateways + u32::from(turn < places % gateways)
        };
        // Fewer places than gateways: one place anyhow, and the agent itself refuses a further.
        let none = firsts.iter().all(|first| part(limit, rank, *first) == 0);
        let spare = (none && limit > 0).then(|| rank as usize % replicas.len().max(1));
        let share = |(n, (replica, first)): (usize, (&&config::Endpoint, &u32))| {
            let at = |other: &Other| {
                other.running.get(agent).and_then(|at| at.get(*replica)).copied().unwrap_or(0)
            };
            let leaving = self.others.iter().filter(|other| other.rank.is_none()).map(at);
            let free = limit.saturating_sub(leaving.fold(0, u32::saturating_add));
            let beyond =
                |other: &Other| Some(at(other).saturating_sub(part(free, other.rank?, *first)));
            let beyond = self.others.iter().filter_map(beyond).fold(0, u32::saturating_add);
            let own = part(free, rank, *first).max(u32::from(spare == Some(n) && free > 0));
            own.saturating_sub(beyond)
        };
        replicas.iter().zip(&firsts).enumerate().map(share).collect()
    }
}

/// With whom each replica's rest begins. By the address, so that a replica's coming or going moves
/// no other's places; where there is nothing but rest, by turns, so that nobody is left without.
fn firsts(limit: u32, gateways: u32, replicas: &[&config::Endpoint]) -> Vec<u32> {
    if limit >= gateways {
        let by_address = |replica: &&config::Endpoint| {
            (hash(replica.to_string().as_bytes()) % u64::from(gateways)) as u32
        };
        return replicas.iter().map(by_address).collect();
    }
    let mut order: Vec<_> = (0..replicas.len()).collect();
    order.sort_by_key(|n| replicas[*n]);
    let mut firsts = vec![0; replicas.len()];
    for (nth, n) in order.into_iter().enumerate() {
        // Counted backwards, so that the next replica's rest goes to the ranks that come next.
        let given = (nth as u64 * u64::from(limit) % u64::from(gateways)) as u32;
        firsts[n] = (gateways - given) % gateways;
    }
    firsts
}

#[cfg(test)]
mod tests {
    use super::*;

    fn replicas(n: u16) -> Vec<config::Endpoint> {
        (1..=n).map(|n| config::Endpoint { host: format!("10.0.0.{n}"), port: 8000 }).collect()
    }

    fn shares(gateways: u32, rank: u32, others: Vec<Other>) -> Shares {
        Shares { ranks: vec![(gateways, rank)], others }
    }

    fn of(shares: &Shares, limit: u32, replicas: &[config::Endpoint]) -> Vec<u32> {
        shares.of("qa", limit, &replicas.iter().collect::<Vec<_>>())
    }

    fn other(rank: Option<u32>, replica: &config::Endpoint, running: u32) -> Other {
        let running = BTreeMap::from([(replica.clone(), running)]);
        Other { rank, running: Arc::new(BTreeMap::from([("qa".to_owned(), running)])) }
    }

    #[test]
    fn each_replicas_places_are_all_given_out_and_nobody_goes_without() {
        for gateways in 1..=7 {
            for limit in 1..=9 {
                for n in 1..=12 {
                    let replicas = replicas(n);
                    let all: Vec<_> = (0..gateways)
                        .map(|rank| of(&shares(gateways, rank, vec![]), limit, &replicas))
                        .collect();
                    let what = format!("{gateways} gateways, {limit} at each of {n}: {all:?}");
                    assert!(all.iter().all(|one| one.iter().sum::<u32>() > 0), "{what}");
                    if limit * u32::from(n) < gateways {
                        continue;
                    }
                    for replica in 0..usize::from(n) {
                        let sum: u32 = all.iter().map(|one| one[replica]).sum();
                        assert_eq!(sum, limit, "{what}");
                    }
                }
            }
        }
    }

    #[test]
    fn with_many_replicas_all_gateways_have_about_the_same() {
        let replicas = replicas(200);
        for rank in 0..3 {
            let sum: u32 = of(&shares(3, rank, vec![]), 4, &replicas).iter().sum();
            assert!((240..=295).contains(&sum), "{sum}");
        }
    }

    #[test]
    fn with_fewer_places_than_gateways_there_is_one_anyhow() {
        let replicas = replicas(2);
        let all: Vec<_> = (0..5).map(|rank| of(&shares(5, rank, vec![]), 1, &replicas)).collect();
        assert!(all.iter().all(|one| one.iter().sum::<u32>() == 1), "{all:?}");
    }

    #[test]
    fn what_others_have_beyond_their_shares_is_left_to_them() {
        let replicas = replicas(1);
        // A gateway that was alone has all four; the new one gets places as they end.
        for (running, left) in [(4, 0), (3, 1), (2, 2), (0, 2)] {
            let shares = shares(2, 1, vec![other(Some(0), &replicas[0], running)]);
            assert_eq!(of(&shares, 4, &replicas), [left], "of {running}");
        }
    }

    #[test]
    fn who_leaves_keeps_what_it_has_and_the_rest_is_shared() {
        let replicas = replicas(1);
        for (running, each) in [(4, 0), (2, 1), (0, 2)] {
            for rank in 0..2 {
                let others = vec![
                    other(Some(1 - rank), &replicas[0], 0),
                    other(None, &replicas[0], running),
                ];
                assert_eq!(of(&shares(2, rank, others), 4, &replicas), [each]);
            }
        }
    }

    #[test]
    fn while_others_may_not_know_the_least_counts_and_unknown_is_nothing() {
        let replicas = replicas(1);
        let both = Shares { ranks: vec![(3, 0), (1, 0)], others: vec![] };
        let before = of(&shares(3, 0, vec![]), 4, &replicas);
        assert_eq!(of(&both, 4, &replicas), before);
        assert_eq!(of(&Shares { ranks: vec![], others: vec![] }, 4, &replicas), [0]);
    }
}
