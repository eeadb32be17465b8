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
    assert!(memory.take(60, &room));
    assert!(!memory.take(41, &room));
    assert!(memory.take(40, &room));
    memory.give_back(60);
    assert_eq!(memory.needed(), 40);
    assert!(memory.fits(60, &room) && !memory.fits(61, &room));
}

#[test]
fn gateways_share_it_and_what_is_larger_than_a_share_goes_where_nothing_else_is() {
    let memory = Memory::default();
    assert!(!memory.fits(60, &room(100, 2, false)));
    let alone = room(100, 2, true);
    assert!(memory.take(60, &alone));
    assert!(!memory.fits(1, &alone));
    memory.give_back(60);
    assert!(memory.take(1, &alone) && !memory.fits(60, &alone));
}

#[test]
fn a_claim_is_kept_free_until_it_is_dropped() {
    let address = config::Endpoint { host: "127.0.0.1".into(), port: 1 };
    let endpoint = Arc::new(Endpoint::new(address, config::Protocol::Http1));
    let room = room(100, 1, true);
    let claim = Claim::new(&endpoint, 80);
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
    assert!(memory.take(200 * MIB, &room));
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
