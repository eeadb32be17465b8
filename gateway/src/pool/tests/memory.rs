use std::sync::Arc;

use crate::pool::Endpoint;
use crate::pool::memory::{Claim, Memory, Report, Room};

const MIB: u64 = 1_048_576;

fn room(limit: u64, gateways: u32, alone: bool) -> Room {
    let room = Room::default();
    room.set(limit, gateways, alone);
    room
}

fn report(resident: u64, peak: Option<u64>) -> Report {
    Report { resident: resident * MIB, peak: peak.map(|peak| peak * MIB), started: 7 }
}

#[test]
fn what_is_taken_never_exceeds_what_there_is() {
    let (memory, room) = (Memory::default(), room(100, 1, true));
    assert!(memory.take(60, &room, 0));
    assert!(!memory.take(41, &room, 0));
    assert!(memory.take(40, &room, 0));
    memory.give_back(60);
    assert_eq!(memory.needed(), 40);
    assert!(memory.fits(60, &room) && !memory.fits(61, &room));
}

#[test]
fn gateways_share_it_and_what_is_larger_than_a_share_goes_where_nothing_else_is() {
    let memory = Memory::default();
    assert!(!memory.fits(60, &room(100, 2, false)));
    let alone = room(100, 2, true);
    assert!(memory.take(60, &alone, 0));
    assert!(!memory.fits(1, &alone));
    memory.give_back(60);
    assert!(memory.take(1, &alone, 0) && !memory.fits(60, &alone));
}

#[test]
fn a_claim_is_kept_free_until_it_is_dropped() {
    let address = config::Endpoint { host: "127.0.0.1".into(), port: 1 };
    let endpoint = Arc::new(Endpoint::new(address, config::Protocol::Http1));
    let room = room(100, 1, true);
    let claim = Claim::new(&endpoint, 80, 0);
    assert!(endpoint.memory.fits(20, &room) && !endpoint.memory.fits(21, &room));
    drop(claim);
    assert!(endpoint.memory.fits(100, &room));
}

#[test]
fn reports_tell_what_it_takes_at_rest() {
    let (memory, room) = (Memory::default(), room(512 * MIB, 1, true));
    memory.learn(&report(40, None), 512 * MIB);
    assert_eq!(memory.whole(&room), 472 * MIB);
    // An allocator keeps memory, and gives it to the next requests.
    memory.learn(&report(300, None), 512 * MIB);
    assert_eq!((memory.rest(), memory.factor()), (40 * MIB, 1.0));
    memory.learn(&Report { started: 8, ..report(400, None) }, 512 * MIB);
    assert_eq!(memory.whole(&room), 256 * MIB, "it never takes all");
}

#[test]
fn estimates_that_are_too_low_are_raised_and_only_those() {
    let (memory, room) = (Memory::default(), room(512 * MIB, 1, true));
    memory.learn(&report(40, None), 512 * MIB);
    assert!(memory.take(200 * MIB, &room, 0));
    memory.learn(&report(140, None), 512 * MIB);
    assert_eq!(memory.factor(), 1.0);
    memory.learn(&report(140, Some(340)), 512 * MIB);
    assert_eq!(memory.factor(), 1.5);
    assert!(!memory.fits(115 * MIB, &room) && memory.fits(114 * MIB, &room));
    memory.give_back(200 * MIB);
    memory.learn(&report(140, Some(340)), 512 * MIB);
    assert_eq!(memory.factor(), 1.5, "it stays until the replica starts anew");
    memory.learn(&Report { started: 8, ..report(40, Some(40)) }, 512 * MIB);
    assert_eq!(memory.factor(), 1.0);
}

#[test]
fn a_promise_is_when_enough_of_what_runs_should_be_over() {
    let (memory, room) = (Memory::default(), room(100, 1, true));
    for (begun, need) in [(1_000, 30), (1_500, 30), (2_000, 30)] {
        assert!(memory.take(need, &room, begun));
    }
    let promise = |need| memory.promise(need, &room, 5_000, 3_000);
    assert_eq!([10, 40, 50, 100].map(promise), [3_000, 6_000, 6_500, 7_000]);
    // What takes longer than usual may be over at any time.
    assert_eq!(memory.promise(40, &room, 500, 3_000), 3_000);
    memory.give_back(30);
    assert_eq!(memory.promise(50, &room, 5_000, 3_000), 6_500);
}
