//! The ideal packing: what a scheduler that knows everything could make of the same arrivals.
//!
//! It knows what each request needs and how long it takes, loses no time between two, and refuses
//! nobody: who doesn't fit now waits, in order of arrival. Whenever something comes or ends, it starts
//! the largest one that fits among the first so many that wait, on the replica that this leaves
//! the least on (best fit decreasing), until none of them fits. Because it sees only so many, large ones
//! and small ones are served as they come; the more it sees, the better it packs. Tried are several
//! numbers, and the best result counts. Finding the true optimum is NP-hard; the fluid bound, all
//! memory in use all the time, is what no packing can pass, and how near it comes to that says how
//! much is left to doubt.
//!
//! Measured is memory put to use, bytes times seconds: choosing small requests doesn't raise it, as it
//! would their number.

/// How many of those that wait it may choose among.
const LOOK_AHEAD: [usize; 6] = [1, 4, 16, 64, 256, usize::MAX];

/// The part of a run that counts, in seconds since its begin.
#[derive(Clone, Copy)]
pub struct Window {
    /// What ends before isn't counted.
    pub from: f64,
    /// Nor what begins after.
    pub to: f64,
}

impl Window {
    /// How long it is.
    pub fn seconds(self) -> f64 {
        self.to - self.from
    }

    /// Whether this lies in it.
    pub fn holds(self, at: f64) -> bool {
        (self.from..self.to).contains(&at)
    }

    /// How much of the time between the two lies in it, from 0 to 1.
    pub fn part(self, begun: f64, ended: f64) -> f64 {
        let inside = ended.min(self.to) - begun.max(self.from);
        if inside > 0.0 { inside / (ended - begun) } else { 0.0 }
    }
}

/// One request. Seconds and bytes.
#[derive(Clone, Copy)]
pub struct Job {
    /// When it comes.
    pub due: f64,
    /// What it holds.
    pub need: f64,
    /// For how long.
    pub time: f64,
}

/// What came of them.
#[derive(Clone, Copy, Default)]
pub struct Packed {
    /// Bytes that were in use on average.
    pub bytes: f64,
    /// Requests done in a second.
    pub per_second: f64,
}

/// The best of all that were tried, for this many replicas with so many bytes each.
pub fn ideal(jobs: &[Job], replicas: usize, bytes: f64, window: Window) -> Packed {
    let tried = LOOK_AHEAD.iter().map(|look_ahead| {
        let mut line = Line::new(replicas, bytes, window);
        line.run(jobs, *look_ahead);
        line.packed()
    });
    tried.max_by(|one, other| one.bytes.total_cmp(&other.bytes)).unwrap_or_default()
}

struct Line {
    free: Vec<f64>,
    waiting: Vec<Job>,
    running: Vec<Running>,
    window: Window,
    used: f64,
    done: usize,
}

struct Running {
    end: f64,
    need: f64,
    replica: usize,
}

impl Line {
    fn new(replicas: usize, bytes: f64, window: Window) -> Self {
        let (waiting, running) = Default::default();
        Self { free: vec![bytes; replicas], waiting, running, window, used: 0.0, done: 0 }
    }

    fn run(&mut self, jobs: &[Job], look_ahead: usize) {
        for come in jobs.chunk_by(|one, other| one.due == other.due) {
            let now = come[0].due;
            self.until(now, look_ahead);
            self.waiting.extend(come);
            self.start_all(now, look_ahead);
        }
        self.until(self.window.to, look_ahead);
    }

    /// Everything that ends before then, and what begins by that.
    fn until(&mut self, then: f64, look_ahead: usize) {
        loop {
            let ends = self.running.iter().enumerate();
            let next = ends.min_by(|(_, one), (_, other)| one.end.total_cmp(&other.end));
            let Some((n, _)) = next.filter(|(_, running)| running.end <= then) else { return };
            let Running { end, need, replica } = self.running.swap_remove(n);
            self.free[replica] += need;
            self.start_all(end, look_ahead);
        }
    }

    fn start_all(&mut self, now: f64, look_ahead: usize) {
        while let Some((n, replica)) = self.next(look_ahead) {
            let Job { need, time, .. } = self.waiting.remove(n);
            self.free[replica] -= need;
            let end = now + time;
            self.running.push(Running { end, need, replica });
            self.used += need * time * self.window.part(now, end);
            self.done += usize::from(self.window.holds(end));
        }
    }

    /// Which of those that wait is next, and where it goes.
    fn next(&self, look_ahead: usize) -> Option<(usize, usize)> {
        let seen = self.waiting.iter().enumerate().take(look_ahead);
        let fitting = seen.filter_map(|(n, job)| Some((n, job.need, self.best_fit(job.need)?)));
        let largest = fitting.max_by(|(_, one, _), (_, other, _)| one.total_cmp(other));
        largest.map(|(n, _, replica)| (n, replica))
    }

    fn best_fit(&self, need: f64) -> Option<usize> {
        let fitting = (0..self.free.len()).filter(|replica| self.free[*replica] >= need);
        fitting.min_by(|one, other| self.free[*one].total_cmp(&self.free[*other]))
    }

    fn packed(&self) -> Packed {
        let seconds = self.window.seconds();
        Packed { bytes: self.used / seconds, per_second: self.done as f64 / seconds }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WINDOW: Window = Window { from: 0.0, to: 10.0 };

    fn jobs(needs: &[f64]) -> Vec<Job> {
        needs.iter().map(|need| Job { due: 0.0, need: *need, time: 10.0 }).collect()
    }

    #[test]
    fn what_fits_only_out_of_order_is_packed() {
        // In order, 3 goes beside 6, and there is no room for 7 beside 4.
        assert_eq!(ideal(&jobs(&[6.0, 3.0, 4.0, 7.0]), 2, 10.0, WINDOW).bytes, 20.0);
    }

    #[test]
    fn memory_is_never_used_twice() {
        let packed = ideal(&jobs(&[6.0, 6.0, 6.0]), 2, 10.0, WINDOW);
        assert_eq!(packed.bytes, 12.0);
    }

    #[test]
    fn one_that_ends_makes_room_for_the_next() {
        let job = Job { due: 0.0, need: 10.0, time: 2.0 };
        let packed = ideal(&[job; 9], 2, 10.0, WINDOW);
        assert_eq!((packed.bytes, packed.per_second), (18.0, 0.8));
    }
}
