//! The fault suite: what breaks while clients ask, and what they notice of it. Each test is a row of
//! "What happens when…" in `docs/operations.md`; further rows are proven by other modules here.
//!
//! With `SWITCHYARD_FAULTS=long` everything is asked for ten times as much.

mod load;
mod replica;

mod budget;
mod hang;
mod kill;
mod limits;
mod races;
mod restarts;

/// So many, or ten times as many.
fn times(n: usize) -> usize {
    match std::env::var("SWITCHYARD_FAULTS").as_deref() {
        Ok("long") => n * 10,
        _ => n,
    }
}
