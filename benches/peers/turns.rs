//! Turns: every target once a round, and each round begins with another, so that what the machine
//! does meanwhile falls on all of them alike.

use std::io;

use super::measures::Bench;

/// What each target's rounds came to.
pub(crate) type Values = Vec<Vec<f64>>;

impl Bench {
    /// Measures every target in every round; they stand in the order of the proxies. `N` values
    /// come of each turn.
    pub(crate) fn in_turn<T, const N: usize>(
        &self,
        targets: &mut [T],
        mut measure: impl FnMut(&mut T) -> io::Result<[f64; N]>,
    ) -> io::Result<[Values; N]> {
        let mut values: [Values; N] = std::array::from_fn(|_| vec![Vec::new(); targets.len()]);
        for round in 0..self.effort.rounds {
            for turn in 0..targets.len() {
                let at = (round + turn) % targets.len();
                let measured = measure(&mut targets[at]).map_err(|error| {
                    io::Error::other(format!("{}, round {round}: {error}", self.proxies[at].name))
                })?;
                for (of, value) in values.iter_mut().zip(measured) {
                    of[at].push(value);
                }
            }
        }
        Ok(values)
    }
}

/// Two measurements of the same targets, round by round as quotients.
pub(crate) fn quotients(values: &Values, by: &Values) -> Values {
    values.iter().zip(by).map(|(these, those)| benches::stats::ratios(these, those)).collect()
}
