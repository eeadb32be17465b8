//! Who asks for what, and when: Poisson arrivals of several sources, the same for every run.

use std::time::Duration;

use fastrand::Rng;

/// The same numbers make the same arrivals.
const SEED: u64 = 5;

/// One kind of request, at a rate of its own.
#[derive(Clone, Copy)]
pub(crate) struct Source {
    /// The tenant, which is told in a header; where there are none, the size.
    pub(crate) name: &'static str,
    pub(crate) per_second: f64,
    /// How long the replica holds it, in milliseconds: evenly between the two.
    pub(crate) hold_ms: (u64, u64),
    /// Bytes of its body: evenly between the two.
    pub(crate) body: (usize, usize),
}

/// One request.
#[derive(Clone, Copy)]
pub(crate) struct Arrival {
    /// After the run's begin.
    pub(crate) due: Duration,
    /// Which of the sources.
    pub(crate) source: usize,
    pub(crate) hold: Duration,
    pub(crate) body: usize,
}

/// All that come within `time`, in their order.
pub(crate) fn arrivals(sources: &[Source], time: Duration) -> Vec<Arrival> {
    let mut random = Rng::with_seed(SEED);
    let each = sources.iter().enumerate();
    let mut all: Vec<_> =
        each.flat_map(|(n, source)| source.arrivals(n, time, &mut random.fork())).collect();
    all.sort_by_key(|arrival| arrival.due);
    all
}

impl Source {
    fn arrivals(&self, source: usize, time: Duration, random: &mut Rng) -> Vec<Arrival> {
        let (mut all, mut due) = (Vec::new(), 0.0);
        loop {
            due -= (1.0 - random.f64()).ln() / self.per_second;
            if due >= time.as_secs_f64() {
                return all;
            }
            let hold = Duration::from_millis(random.u64(self.hold_ms.0..=self.hold_ms.1));
            let body = random.usize(self.body.0..=self.body.1);
            all.push(Arrival { due: Duration::from_secs_f64(due), source, hold, body });
        }
    }
}
