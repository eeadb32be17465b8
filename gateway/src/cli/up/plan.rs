//! Which replicas of an agent to start and stop next: a decision without side effects.

/// A replica that isn't on its way out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Seat {
    pub(super) id: u32,
    /// Whether it runs as the table in force says.
    pub(super) current: bool,
    /// Whether it takes requests.
    pub(super) ready: bool,
}

/// What to do now; asked again after every change.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Plan {
    pub(super) start: usize,
    pub(super) stop: Vec<u32>,
}

/// The next steps towards `wanted` replicas, all of them current. While outdated ones take
/// requests, current ones come one at a time, and an outdated one goes only when there are `wanted`
/// ready ones without it.
pub(super) fn plan(seats: &[Seat], wanted: usize) -> Plan {
    let current: Vec<_> = seats.iter().filter(|seat| seat.current).collect();
    let (serving, useless): (Vec<&Seat>, Vec<&Seat>) =
        seats.iter().filter(|seat| !seat.current).partition(|seat| seat.ready);

    // The youngest go first, and before them those that serve nobody yet.
    let mut by_use = current.clone();
    by_use.sort_by_key(|seat| (!seat.ready, seat.id));
    let surplus: Vec<_> = by_use.into_iter().skip(wanted).collect();
    let missing = wanted.saturating_sub(current.len());
    let start = match serving.is_empty() {
        true => missing,
        false if current.iter().all(|seat| seat.ready) => missing.min(1),
        false => 0,
    };

    let ready = current.iter().filter(|seat| seat.ready).count().min(wanted);
    let replaced = (ready + serving.len()).saturating_sub(wanted);
    let stop = useless.into_iter().chain(surplus).chain(serving.into_iter().take(replaced));
    Plan { start, stop: stop.map(|seat| seat.id).collect() }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Seats as letters, ids from 1: `C`/`c` current and ready or not, `O`/`o` outdated.
    fn check(seats: &str, wanted: usize, start: usize, stop: &[u32]) {
        let seat = |(id, letter): (u32, char)| Seat {
            id,
            current: letter.eq_ignore_ascii_case(&'c'),
            ready: letter.is_uppercase(),
        };
        let all: Vec<_> = (1..).zip(seats.chars()).map(seat).collect();
        assert_eq!(plan(&all, wanted), Plan { start, stop: stop.to_vec() }, "{seats} → {wanted}");
    }

    #[test]
    fn a_yard_starts_all_at_once_and_then_rests() {
        check("", 3, 3, &[]);
        check("cCc", 3, 0, &[]);
        check("CC", 3, 1, &[]);
        check("", 0, 0, &[]);
    }

    #[test]
    fn fewer_replicas_means_the_unready_go_first_then_the_youngest() {
        check("CcC", 2, 0, &[2]);
        check("CCC", 1, 0, &[2, 3]);
        check("Cc", 0, 0, &[1, 2]);
    }

    #[test]
    fn a_change_replaces_one_at_a_time_the_new_one_first() {
        check("OO", 2, 1, &[]);
        check("OOc", 2, 0, &[]);
        check("OOC", 2, 1, &[1]);
        check("OCc", 2, 0, &[]);
        check("OCC", 2, 0, &[1]);
    }

    #[test]
    fn a_change_that_never_gets_ready_takes_nothing_down() {
        check("Oc", 1, 0, &[]);
        check("ooc", 2, 1, &[1, 2]);
        check("Oo", 2, 1, &[2]);
    }

    #[test]
    fn a_change_together_with_a_smaller_scale_shrinks_at_once() {
        check("OOO", 1, 1, &[1, 2]);
        check("OO", 0, 0, &[1, 2]);
    }
}
