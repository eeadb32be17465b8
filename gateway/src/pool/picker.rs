//! Which of an agent's pools, and where in it: for requests, and for those who hand places to requests
//! that wait.

use std::sync::Arc;

use super::{Claim, Lease, Place, Pool, State, hash, now_ms};

/// Takes a place in one of several pools: one by weight (by session, where there is one), then one of
/// its endpoints; another pool where that one has none.
pub fn weighted<'p>(
    pools: impl Iterator<Item = (u32, &'p Pool)> + Clone,
    session: Option<&[u8]>,
    tried: &[u64],
    need: u64,
) -> Option<Lease> {
    let total = pools.clone().map(|(weight, _)| u64::from(weight)).sum::<u64>().max(1);
    let mut point = match session {
        Some(key) => hash(key) % total,
        None => fastrand::u64(..total),
    };
    let drawn = pools.clone().position(|(weight, _)| {
        let here = point < u64::from(weight);
        point = point.saturating_sub(u64::from(weight));
        here
    });
    let drawn = drawn.unwrap_or(0);
    let mut pools = pools.clone().skip(drawn).chain(pools.take(drawn)).filter(|(w, _)| *w > 0);
    pools.find_map(|(_, pool)| pool.pick(session, tried, need))
}

/// An agent's pools for who lets in those that wait, whatever snapshot they came with.
#[derive(Debug)]
pub struct Picker {
    pools: Vec<(u32, Pool)>,
}

impl Picker {
    /// Of these places, by version and its weight.
    #[must_use]
    pub fn new(pools: impl IntoIterator<Item = (u32, Vec<Arc<Place>>)>) -> Self {
        let pools = pools.into_iter().map(|(weight, places)| (weight, Pool::new(places)));
        Self { pools: pools.collect() }
    }

    /// Takes a place and `need` bytes of memory.
    #[must_use]
    pub fn pick(&self, session: Option<&[u8]>, need: u64) -> Option<Lease> {
        let pools = self.pools.iter().map(|(weight, pool)| (*weight, pool));
        weighted(pools, session, &[], need)
    }

    /// Takes a place and `need` bytes of memory at this endpoint.
    #[must_use]
    pub fn pick_at(&self, endpoint: u64, need: u64) -> Option<Lease> {
        let now = now_ms();
        let is_it =
            |place: &&Arc<Place>| place.endpoint.id == endpoint && place.state(now) == State::Ready;
        self.places().find(is_it)?.take::<true>(need)
    }

    /// Keeps `need` bytes free for a request that fits nowhere yet: where they were kept `before`, or at
    /// the ready endpoint that should have room first, if requests take as long as they usually do. None
    /// where it could never fit.
    #[must_use]
    pub fn claim(&self, need: u64, before: Option<(u64, u64)>, usual_ms: u64) -> Option<Claim> {
        let now = now_ms();
        let fits = |place: &&Arc<Place>| {
            place.state(now) == State::Ready && need <= place.endpoint.memory.whole(place.room())
        };
        let kept = before.and_then(|(endpoint, promise)| {
            let place = self.places().filter(fits).find(|place| place.endpoint.id == endpoint)?;
            Some((place, promise))
        });
        let first = || {
            let promise = |place: &Arc<Place>| {
                place.endpoint.memory.promise(need, place.room(), usual_ms, now)
            };
            let promised = self.places().filter(fits).map(|place| (place, promise(place)));
            promised.min_by_key(|(place, at)| (*at, place.endpoint.memory.spoken_for()))
        };
        let (place, promise) = kept.or_else(first)?;
        Some(Claim::new(&place.endpoint, need, promise))
    }

    fn places(&self) -> impl Iterator<Item = &Arc<Place>> {
        let pools = self.pools.iter().filter(|(weight, _)| *weight > 0);
        pools.flat_map(|(_, pool)| pool.places())
    }
}
