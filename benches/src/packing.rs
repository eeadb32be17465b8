//! The ideal packing: what a scheduler that knows everything could make of the same arrivals.
//!
//! It knows what each request needs and how long it takes, loses no time between two, and has the
//! same line: who comes when it is full is refused, and everybody else is served. The first in line
//! is promised the first moment at which there is room for it somewhere, and whatever doesn't put
//! that off may go before it (EASY backfilling, Lifka 1995), where it leaves the least. So large ones are
//! served as they come, which matters: all memory is put to use by whoever serves small ones
//! only. Of those that may go, tried are the largest, the smallest and the one that has waited longest
//! first, and the best result counts. The true optimum is NP-hard to find; the fluid bound,
//! all memory in use all the time, is what no packing can pass, and tells how much is left to doubt.
//!
//! Measured is memory put to use, bytes times seconds: choosing small requests doesn't raise it, as it
//! would their number.

use std::collections::VecDeque;

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

/// What there is to pack into.
#[derive(Clone, Copy)]
pub struct Room {
    /// How many replicas.
    pub replicas: usize,
    /// What each of them has.
    pub bytes: f64,
    /// How many may wait.
    pub line: usize,
}

/// Who of those that may go before the first in line goes.
#[derive(Clone, Copy)]
enum Choice {
    Largest,
    Smallest,
    Eldest,
}

/// The best of all that were tried.
pub fn ideal(jobs: &[Job], room: Room, window: Window) -> Packed {
    let choices = [Choice::Largest, Choice::Smallest, Choice::Eldest];
    let tried = choices.map(|choice| {
        let mut yard = Yard::new(room, choice, window);
        yard.run(jobs);
        yard.packed()
    });
    let best = tried.into_iter().max_by(|one, other| one.bytes.total_cmp(&other.bytes));
    best.unwrap_or_default()
}

struct Yard {
    room: Room,
    choice: Choice,
    window: Window,
    free: Vec<f64>,
    waiting: VecDeque<Job>,
    running: Vec<Running>,
    used: f64,
    done: usize,
}

struct Running {
    end: f64,
    need: f64,
    replica: usize,
}

/// What the first in line was promised: room on this replica at that time, and what is left there then.
#[derive(Clone, Copy)]
struct Promise {
    replica: usize,
    at: f64,
    left: f64,
}

impl Yard {
    fn new(room: Room, choice: Choice, window: Window) -> Self {
        let (free, waiting, running) =
            (vec![room.bytes; room.replicas], VecDeque::new(), Vec::new());
        Self { room, choice, window, free, waiting, running, used: 0.0, done: 0 }
    }

    fn run(&mut self, jobs: &[Job]) {
        for come in jobs.chunk_by(|one, other| one.due == other.due) {
            let now = come[0].due;
            self.until(now);
            // What has room at once doesn't wait.
            for job in come.iter().filter(|job| job.need <= self.room.bytes) {
                self.waiting.push_back(*job);
            }
            self.start_all(now);
            self.waiting.truncate(self.room.line);
        }
        self.until(self.window.to);
    }

    /// Everything that ends before then, and what begins by that.
    fn until(&mut self, then: f64) {
        loop {
            let ends = self.running.iter().enumerate();
            let next = ends.min_by(|(_, one), (_, other)| one.end.total_cmp(&other.end));
            let Some((n, _)) = next.filter(|(_, running)| running.end <= then) else { return };
            let Running { end, need, replica } = self.running.swap_remove(n);
            self.free[replica] += need;
            self.start_all(end);
        }
    }

    fn start_all(&mut self, now: f64) {
        while let Some((n, replica)) = self.next(now) {
            let Some(Job { need, time, .. }) = self.waiting.remove(n) else { return };
            self.free[replica] -= need;
            let end = now + time;
            self.running.push(Running { end, need, replica });
            self.used += need * time * self.window.part(now, end);
            self.done += usize::from(self.window.holds(end));
        }
    }

    /// Who is next, and where it goes.
    fn next(&self, now: f64) -> Option<(usize, usize)> {
        let first = *self.waiting.front()?;
        if let Some(replica) = self.best_fit(|replica| self.free[replica] >= first.need) {
            return Some((0, replica));
        }
        let promise = self.promise(first.need)?;
        let others = self.waiting.iter().enumerate().skip(1);
        let may = others.filter_map(|(n, job)| {
            let replica = self.best_fit(|replica| self.fits_before(*job, replica, promise, now))?;
            Some((n, job.need, replica))
        });
        let chosen = match self.choice {
            Choice::Largest => may.max_by(|(_, one, _), (_, other, _)| one.total_cmp(other)),
            Choice::Smallest => may.min_by(|(_, one, _), (_, other, _)| one.total_cmp(other)),
            Choice::Eldest => may.min_by_key(|(n, _, _)| *n),
        };
        chosen.map(|(n, _, replica)| (n, replica))
    }

    /// Whether it fits now without putting off what was promised.
    fn fits_before(&self, job: Job, replica: usize, promise: Promise, now: f64) -> bool {
        let beside =
            replica != promise.replica || now + job.time <= promise.at || job.need <= promise.left;
        self.free[replica] >= job.need && beside
    }

    fn promise(&self, need: f64) -> Option<Promise> {
        let promises = (0..self.free.len()).filter_map(|replica| {
            let mut here: Vec<_> =
                self.running.iter().filter(|running| running.replica == replica).collect();
            here.sort_by(|one, other| one.end.total_cmp(&other.end));
            let mut free = self.free[replica];
            here.into_iter().find_map(|running| {
                free += running.need;
                (free >= need).then_some(Promise { replica, at: running.end, left: free - need })
            })
        });
        promises.min_by(|one, other| one.at.total_cmp(&other.at))
    }

    /// The one of these replicas that has the least left.
    fn best_fit(&self, fits: impl Fn(usize) -> bool) -> Option<usize> {
        let fitting = (0..self.free.len()).filter(|replica| fits(*replica));
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
    const ROOM: Room = Room { replicas: 2, bytes: 10.0, line: 9 };

    fn jobs(all: &[(f64, f64)]) -> Vec<Job> {
        all.iter().map(|(need, time)| Job { due: 0.0, need: *need, time: *time }).collect()
    }

    #[test]
    fn what_fits_only_out_of_order_is_packed() {
        let long = [(6.0, 10.0), (6.0, 10.0), (6.0, 10.0), (4.0, 10.0), (4.0, 10.0)];
        assert_eq!(ideal(&jobs(&long), ROOM, WINDOW).bytes, 20.0);
    }

    #[test]
    fn memory_is_never_used_twice() {
        assert_eq!(ideal(&jobs(&[(6.0, 10.0); 3]), ROOM, WINDOW).bytes, 12.0);
    }

    #[test]
    fn one_that_ends_makes_room_for_the_next() {
        let packed = ideal(&jobs(&[(10.0, 2.0); 9]), ROOM, WINDOW);
        assert_eq!((packed.bytes, packed.per_second), (18.0, 0.8));
    }

    #[test]
    fn who_comes_to_a_full_line_is_refused() {
        let room = Room { line: 2, ..ROOM };
        assert_eq!(ideal(&jobs(&[(10.0, 2.0); 9]), room, WINDOW).bytes, 8.0);
    }

    #[test]
    fn small_ones_do_not_put_off_a_large_one() {
        // The large one may begin at 2; the small ones that follow would fill the room for ever.
        let mut all = jobs(&[(5.0, 2.0), (9.0, 8.0)]);
        let small = (0..8).map(|n| Job { due: f64::from(n) + 0.5, need: 5.0, time: 2.0 });
        all.extend(small);
        let room = Room { replicas: 1, ..ROOM };
        let packed = ideal(&all, room, WINDOW);
        assert!(packed.bytes >= (5.0 * 2.0 + 9.0 * 8.0) / 10.0, "{}", packed.bytes);
    }
}
