//! Who is there: what was last heard of each gateway, until it is too old. No I/O.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::PEERS_MAX;
use super::report::Report;
use super::sign::Question;
use crate::table::{Other, Shares};

/// Who wasn't heard for so long is not there any more: four questions, of which three may be lost.
const AGE_MAX: Duration = Duration::from_secs(2);
/// After somebody has come or gone: until then others may go by their old shares, which they may
/// have filled since they last said what they have. They notice an end up to a question later, and
/// say so with the next.
const SETTLE: Duration = Duration::from_millis(1500);

/// What is known of the gateways of the cluster.
pub(super) struct Book {
    /// This one.
    me: String,
    /// By address: a gateway may have several, and an address several gateways one after another.
    heard: HashMap<config::Endpoint, Heard>,
    /// Who has asked, by instance: they are there, whether or not they can be asked.
    asked: HashMap<String, Asked>,
    /// Addresses that were tried at least once, until places are taken.
    tried: BTreeSet<config::Endpoint>,
    /// Shares by membership, the present last; the others until when they still count.
    ranks: Vec<((u32, u32), Instant)>,
    /// Places are taken.
    open: bool,
}

struct Heard {
    at: Instant,
    report: Arc<Report>,
}

struct Asked {
    at: Instant,
    /// By its own clock: what was overheard and is asked again is not news.
    time_ms: u64,
}

impl Book {
    /// Nobody is known yet. `open`: places are taken from the start.
    pub(super) fn new(me: String, open: bool) -> Self {
        let (heard, asked) = (HashMap::new(), HashMap::new());
        Self { me, heard, asked, tried: BTreeSet::new(), ranks: Vec::new(), open }
    }

    /// An address has answered. Says whether it is this gateway's own.
    pub(super) fn heard(
        &mut self,
        address: &config::Endpoint,
        report: Report,
        now: Instant,
    ) -> bool {
        self.missed(address);
        let own = report.instance == self.me;
        let heard = Heard { at: now, report: Arc::new(report) };
        let instance = heard.report.instance.clone();
        let before = self.heard.insert(address.clone(), heard);
        // Another gateway at the same address: the one before is gone.
        if let Some(before) = before.filter(|before| before.report.instance != instance) {
            self.asked.remove(&before.report.instance);
        }
        own
    }

    /// An address was tried.
    pub(super) fn missed(&mut self, address: &config::Endpoint) {
        if !self.open {
            self.tried.insert(address.clone());
        }
    }

    /// Somebody has asked. Says whether that one wasn't known.
    pub(super) fn asked(&mut self, question: &Question, now: Instant) -> bool {
        let Question { instance, time_ms, .. } = question;
        if *instance == self.me {
            return false;
        }
        let before = self.asked.get(instance).map(|asked| asked.time_ms);
        let is_old = before.is_some_and(|before| before >= *time_ms);
        if is_old || before.is_none() && self.asked.len() >= PEERS_MAX {
            return false;
        }
        let is_new = !self.live(now).contains_key(instance.as_str());
        self.asked.insert(instance.clone(), Asked { at: now, time_ms: *time_ms });
        is_new
    }

    /// The others, by instance: each once, with the last that it said, if it said anything.
    pub(super) fn live(&self, now: Instant) -> BTreeMap<&str, Option<&Arc<Report>>> {
        let fresh = |at: Instant| now.saturating_duration_since(at) < AGE_MAX;
        let mut heard: Vec<_> = self.heard.values().filter(|heard| fresh(heard.at)).collect();
        heard.sort_by_key(|heard| heard.at);
        let asked = self.asked.iter().filter(|(_, asked)| fresh(asked.at));
        let mut live: BTreeMap<_, _> = asked.map(|(name, _)| (name.as_str(), None)).collect();
        // The last of each is the freshest.
        live.extend(heard.into_iter().map(|h| (h.report.instance.as_str(), Some(&h.report))));
        live.remove(self.me.as_str());
        live
    }

    /// Whether all of these were tried.
    pub(super) fn has_tried<'a>(
        &self,
        addresses: impl Iterator<Item = &'a config::Endpoint>,
    ) -> bool {
        addresses.into_iter().all(|address| self.tried.contains(address))
    }

    /// Places may be taken from now on.
    pub(super) fn open(&mut self) {
        self.open = true;
        self.tried.clear();
    }

    /// Whether places are taken.
    pub(super) fn is_open(&self) -> bool {
        self.open
    }

    /// This gateway's share, as of now. Forgets who is too old to matter.
    pub(super) fn shares(&mut self, now: Instant) -> Shares {
        self.heard.retain(|_, heard| now.saturating_duration_since(heard.at) < AGE_MAX);
        let forgotten = AGE_MAX * 2;
        self.asked.retain(|_, asked| now.saturating_duration_since(asked.at) < forgotten);
        let live = self.live(now);
        let leaves = |report: &Option<&Arc<Report>>| report.is_some_and(|report| report.leaving);
        let mut names: Vec<_> =
            live.iter().filter(|(_, report)| !leaves(report)).map(|(name, _)| *name).collect();
        names.push(&self.me);
        names.sort_unstable();
        let rank = |name: &str| names.binary_search(&name).ok().map(|rank| rank as u32);
        let others = live.iter().filter_map(|(name, report)| {
            Some(Other { rank: rank(name), running: Arc::clone(&(*report)?.running) })
        });
        let others = others.collect();
        let ranks = (names.len() as u32, rank(&self.me).unwrap_or(0));
        if !self.open {
            return Shares { ranks: Vec::new(), others };
        }
        self.settle(ranks, now);
        Shares { ranks: self.ranks.iter().map(|(ranks, _)| *ranks).collect(), others }
    }

    fn settle(&mut self, ranks: (u32, u32), now: Instant) {
        if self.ranks.last().is_none_or(|(last, _)| *last != ranks) {
            // From now on the one before counts only for a while.
            if let Some((_, until)) = self.ranks.last_mut() {
                *until = now + SETTLE;
            }
            self.ranks.push((ranks, now));
        }
        let last = self.ranks.len() - 1;
        let mut n = 0;
        self.ranks.retain(|(_, until)| {
            n += 1;
            n > last || *until > now
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::table::Running;

    fn at(n: u16) -> config::Endpoint {
        config::Endpoint { host: "10.0.0.1".into(), port: n }
    }

    fn report(instance: &str, leaving: bool) -> Report {
        let running = Arc::new(Running::new());
        let (agents, asked) = (BTreeMap::new(), BTreeMap::new());
        Report { instance: instance.into(), leaving, agents, asked, running }
    }

    fn question(instance: &str, time_ms: u64) -> Question {
        Question { instance: instance.into(), time_ms, nonce: String::new() }
    }

    fn names(book: &Book, now: Instant) -> Vec<String> {
        book.live(now).keys().map(|&name| name.to_owned()).collect()
    }

    fn ranks(book: &mut Book, now: Instant) -> Vec<(u32, u32)> {
        book.shares(now).ranks
    }

    fn ms(n: u64) -> Duration {
        Duration::from_millis(n)
    }

    #[test]
    fn each_gateway_counts_once_and_this_one_not_at_all() {
        let (mut book, now) = (Book::new("me".into(), true), Instant::now());
        assert!(book.heard(&at(1), report("me", false), now));
        assert!(!book.heard(&at(2), report("a", false), now));
        assert!(!book.heard(&at(3), report("a", false), now + ms(10)));
        assert!(!book.asked(&question("a", 1), now));
        assert!(!book.asked(&question("me", 1), now));
        assert_eq!(names(&book, now), ["a"]);
    }

    #[test]
    fn who_is_silent_stays_for_a_while_and_then_goes() {
        let (mut book, now) = (Book::new("me".into(), true), Instant::now());
        book.heard(&at(1), report("a", false), now);
        book.missed(&at(1));
        assert_eq!(names(&book, now + ms(1_999)), ["a"]);
        assert_eq!(names(&book, now + ms(2_000)), [""; 0]);
    }

    #[test]
    fn a_new_gateway_at_the_address_takes_the_place_of_the_old() {
        let (mut book, now) = (Book::new("me".into(), true), Instant::now());
        book.heard(&at(1), report("old", false), now);
        book.asked(&question("old", 1), now);
        book.heard(&at(1), report("new", false), now + ms(100));
        assert_eq!(names(&book, now + ms(100)), ["new"]);
    }

    #[test]
    fn who_asks_is_there_and_a_question_asked_again_is_no_sign_of_life() {
        let (mut book, now) = (Book::new("me".into(), true), Instant::now());
        assert!(book.asked(&question("a", 5), now));
        assert!(!book.asked(&question("a", 5), now + ms(1_500)));
        assert_eq!(names(&book, now + ms(2_100)), [""; 0]);
        assert!(book.asked(&question("a", 6), now + ms(2_200)));
    }

    #[test]
    fn who_leaves_has_no_part_and_is_there() {
        let (mut book, now) = (Book::new("me".into(), true), Instant::now());
        book.heard(&at(1), report("a", false), now);
        book.heard(&at(2), report("z", true), now);
        let shares = book.shares(now);
        assert_eq!((shares.ranks, shares.others.len()), (vec![(2, 1)], 2));
        assert_eq!(names(&book, now), ["a", "z"]);
    }

    #[test]
    fn less_counts_at_once_and_more_once_all_others_must_know() {
        let (mut book, now) = (Book::new("me".into(), true), Instant::now());
        assert_eq!(ranks(&mut book, now), [(1, 0)]);
        book.heard(&at(1), report("a", false), now);
        assert_eq!(ranks(&mut book, now), [(1, 0), (2, 1)]);
        book.heard(&at(1), report("a", false), now + ms(1_600));
        assert_eq!(ranks(&mut book, now + ms(1_600)), [(2, 1)]);
        assert_eq!(ranks(&mut book, now + ms(3_700)), [(2, 1), (1, 0)]);
        assert_eq!(ranks(&mut book, now + ms(5_100)), [(2, 1), (1, 0)]);
        assert_eq!(ranks(&mut book, now + ms(5_200)), [(1, 0)]);
    }

    #[test]
    fn nothing_is_taken_before_it_is_open() {
        let (mut book, now) = (Book::new("me".into(), false), Instant::now());
        assert_eq!(ranks(&mut book, now), []);
        assert!(!book.has_tried([at(1), at(2)].iter()));
        book.missed(&at(1));
        book.heard(&at(2), report("a", false), now);
        assert!(book.has_tried([at(1), at(2)].iter()));
        book.open();
        assert_eq!(ranks(&mut book, now), [(2, 1)]);
    }
}
