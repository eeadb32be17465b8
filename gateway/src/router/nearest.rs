//! The type that a misspelled one was meant to be. Asked on the way to an error only, and bounded
//! whatever the table holds: this runs on the thread that carries everyone's requests.

/// Most spellings compared in full for one name; each costs a few microseconds at worst.
const COMPARED: usize = 200;

/// Longest name worth a thought: the longest type and the longest slip.
const LONGEST: usize = 63 + 3;

/// All types, with what tells quickly that two cannot be near each other.
#[derive(Debug)]
pub(super) struct Spellings {
    names: Box<[Box<str>]>,
    /// Which characters each holds, a bit a character.
    letters: Box<[u64]>,
}

impl Spellings {
    pub(super) fn new(names: Vec<Box<str>>) -> Self {
        let letters = names.iter().map(|name| letters(name)).collect();
        Spellings { names: names.into(), letters }
    }

    pub(super) fn len(&self) -> usize {
        self.names.len()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &str> {
        self.names.iter().map(|name| &**name)
    }

    /// The nearest by slips of the finger; failing that, one that begins as `name` does.
    pub(super) fn nearest(&self, name: &str) -> Option<&str> {
        if name.len() > LONGEST {
            return None;
        }
        let name = name.to_ascii_lowercase();
        let slips = slips(name.len());
        let near =
            self.within(&name, slips).map(|other| (strsim::osa_distance(&name, other), other));
        let best = near.filter(|(distance, _)| *distance <= slips).min_by_key(|(d, _)| *d);
        best.map(|(_, other)| other).or_else(|| self.begins_alike(&name))
    }

    /// Types that may be within `slips` of `name`: each slip changes the length by one at most, and
    /// the set of characters by two.
    fn within<'a>(&'a self, name: &str, slips: usize) -> impl Iterator<Item = &'a str> {
        let wanted = letters(name);
        let together = self.iter().zip(&self.letters);
        together
            .filter(move |(other, have)| {
                other.len().abs_diff(name.len()) <= slips
                    && (wanted ^ **have).count_ones() as usize <= 2 * slips
            })
            .map(|(other, _)| other)
            .take(COMPARED)
    }

    fn begins_alike(&self, name: &str) -> Option<&str> {
        if name.len() < 3 {
            return None;
        }
        self.iter()
            .find(|other| other.starts_with(name) || other.len() > 2 && name.starts_with(other))
    }
}

/// How many slips a name of this length may hold and still be recognised.
fn slips(len: usize) -> usize {
    match len {
        0..=3 => 1,
        4..=7 => 2,
        _ => 3,
    }
}

/// The characters of a label as bits; all that no label holds share one.
fn letters(name: &str) -> u64 {
    name.bytes().fold(0, |bits, b| {
        bits | match b {
            b'a'..=b'z' => 1 << (b - b'a'),
            b'0'..=b'9' => 1 << (26 + b - b'0'),
            b'-' => 1 << 36,
            _ => 1 << 37,
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(names: &[&str], wanted: &str, expected: Option<&str>) {
        let spellings = Spellings::new(names.iter().map(|&name| name.into()).collect());
        assert_eq!(spellings.nearest(wanted), expected, "{wanted}");
    }

    #[test]
    fn a_slip_of_the_finger_is_recognised() {
        let names = ["coding", "qa", "search-agent", "summarise"];
        check(&names, "codign", Some("coding"));
        check(&names, "QA", Some("qa"));
        check(&names, "qaa", Some("qa"));
        check(&names, "sumarize", Some("summarise"));
        check(&names, "search", Some("search-agent"));
        check(&names, "coding-agent", Some("coding"));
    }

    #[test]
    fn what_is_like_nothing_gets_no_guess() {
        let names = ["coding", "qa"];
        check(&names, "translate", None);
        check(&names, "x", None);
        check(&names, "", None);
        check(&names, &"q".repeat(10_000), None);
        check(&[], "qa", None);
    }

    #[test]
    fn the_nearer_wins_and_of_equals_the_first() {
        check(&["agent-1", "agent-2"], "agent-3", Some("agent-1"));
        check(&["codings", "coding"], "codin", Some("coding"));
    }

    #[test]
    fn the_quick_look_never_hides_a_near_one() {
        let mut random = fastrand::Rng::with_seed(7);
        let names: Vec<String> = (0..60)
            .map(|_| {
                (0..random.usize(1..9))
                    .map(|_| char::from(*random.choice(b"abc1-").unwrap()))
                    .collect()
            })
            .collect();
        let spellings = Spellings::new(names.iter().map(|n| n.as_str().into()).collect());
        for _ in 0..2_000 {
            let wanted: String = (0..random.usize(0..9))
                .map(|_| char::from(*random.choice(b"abcd1-").unwrap()))
                .collect();
            let slips = slips(wanted.len());
            let best = names.iter().map(|n| strsim::osa_distance(n, &wanted)).min().unwrap();
            if best <= slips {
                let found = spellings.nearest(&wanted).unwrap();
                assert_eq!(strsim::osa_distance(found, &wanted), best, "{wanted}");
            }
        }
    }
}
