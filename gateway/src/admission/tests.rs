mod model;

use super::*;
use std::sync::Arc;

use crate::pool::{Endpoint, Place, Probe};

const QUEUE: config::Queue = config::Queue { max: 2, bytes: 1000, timeout: Duration::from_secs(5) };

fn with_places(places: u32) -> Arc<Admission> {
    let admission = Arc::new(Admission::default());
    admission.set_capacity(Some(places));
    admission
}

type Entered = tokio::task::JoinHandle<Result<Seat, Error>>;

/// Somebody who waits, or has already been answered.
async fn waiting(admission: &Arc<Admission>, need: u64) -> Entered {
    let (shared, before) = (Arc::clone(admission), admission.queued());
    let ask = Ask { need, ..Ask::default() };
    let queue = config::Queue { max: 100, ..QUEUE };
    let task = tokio::spawn(async move { shared.enter(ask, queue).await });
    while admission.queued() == before && !task.is_finished() {
        tokio::task::yield_now().await;
    }
    task
}

async fn settled() {
    for _ in 0..10 {
        tokio::task::yield_now().await;
    }
}

#[tokio::test(start_paused = true)]
async fn the_line_is_first_come_first_served() {
    let admission = with_places(1);
    let seat = admission.enter(Ask::default(), QUEUE).await.unwrap();
    let first = waiting(&admission, 0).await;
    let second = waiting(&admission, 0).await;
    assert_eq!((admission.queued(), admission.in_flight()), (2, 1));
    admission.leave(seat);
    let seat = first.await.unwrap().unwrap();
    assert!(!second.is_finished());
    admission.leave(seat);
    second.await.unwrap().unwrap();
    assert_eq!((admission.queued(), admission.in_flight()), (0, 1));
}

#[tokio::test(start_paused = true)]
async fn a_full_line_and_a_long_wait_are_told_apart() {
    let admission = with_places(1);
    admission.enter(Ask::default(), QUEUE).await.unwrap();
    let waiters = [waiting(&admission, 0).await, waiting(&admission, 0).await];
    let full = admission.enter(Ask::default(), QUEUE).await.unwrap_err();
    assert_eq!(full.code, Code::QueueFull);
    for waiter in waiters {
        assert_eq!(waiter.await.unwrap().unwrap_err().code, Code::QueueTimeout);
    }
    assert_eq!((admission.queued(), admission.in_flight()), (0, 1));
}

#[tokio::test]
async fn the_bodies_of_those_who_wait_are_bounded() {
    let admission = with_places(0);
    let waiter = waiting(&admission, 0).await;
    let mut held = admission.hold_bytes(400);
    assert!(held.now(800, QUEUE.bytes));
    assert!(!held.now(1000, QUEUE.bytes), "no more is read");
    let ask = Ask { held: 1, ..Ask::default() };
    let full = admission.enter(ask, QUEUE).await.unwrap_err();
    assert_eq!(full.code, Code::QueueFull);
    assert!(full.detail.contains("1000 bytes"), "{}", full.detail);
    drop(held);
    assert_eq!(admission.queued_bytes(), 0);
    waiter.abort();
}

#[tokio::test]
async fn who_leaves_the_line_costs_nobody_a_place() {
    let admission = with_places(1);
    let seat = admission.enter(Ask::default(), QUEUE).await.unwrap();
    let leaver = waiting(&admission, 0).await;
    let stayer = waiting(&admission, 0).await;
    admission.leave(seat);
    leaver.abort();
    if let Ok(Ok(seat)) = leaver.await {
        admission.leave(seat);
    }
    stayer.await.unwrap().unwrap();
    assert_eq!((admission.queued(), admission.in_flight()), (0, 1));
}

#[tokio::test]
async fn more_places_let_the_line_in() {
    let admission = with_places(1);
    admission.enter(Ask::default(), QUEUE).await.unwrap();
    let waiter = waiting(&admission, 0).await;
    admission.set_capacity(None);
    waiter.await.unwrap().unwrap();
    assert_eq!((admission.in_flight(), admission.capacity()), (2, None));
}

fn replica(port: u16, limit: u64) -> Arc<Place> {
    let address = config::Endpoint { host: "127.0.0.1".into(), port };
    let endpoint = Arc::new(Endpoint::new(address, config::Protocol::Http1));
    let place = Arc::new(Place::new(endpoint, Arc::<Probe>::default()));
    place.room().set(limit, 1, true);
    place
}

fn with_memory(replicas: &[Arc<Place>]) -> Arc<Admission> {
    let admission = Arc::new(Admission::default());
    admission.set_rules(Some(Picker::new([(1, replicas.to_vec())])), 0.0);
    admission
}

fn leased(seat: &Seat) -> u64 {
    seat.lease.as_ref().unwrap().endpoint().id
}

#[tokio::test]
async fn what_does_not_fit_waits_and_others_pass_that_do() {
    let admission = with_memory(&[replica(1, 100)]);
    let big = waiting(&admission, 70).await.await.unwrap().unwrap();
    let second = waiting(&admission, 70).await;
    let small = waiting(&admission, 20).await;
    settled().await;
    assert!(!small.is_finished(), "what is kept for the second is left to it");
    assert_eq!(admission.queued(), 2);
    admission.leave(big);
    second.await.unwrap().unwrap();
    small.await.unwrap().unwrap();
    assert_eq!((admission.queued(), admission.in_flight()), (0, 2));
}

#[tokio::test]
async fn room_is_kept_at_one_replica_and_small_ones_go_on_at_the_others() {
    let replicas = [replica(1, 100), replica(2, 100)];
    let admission = with_memory(&replicas);
    let busy = [waiting(&admission, 60).await, waiting(&admission, 50).await];
    let mut seats = Vec::new();
    for seat in busy {
        seats.push(seat.await.unwrap().unwrap());
    }
    assert_ne!(leased(&seats[0]), leased(&seats[1]));
    let large = waiting(&admission, 90).await;
    settled().await;
    let fuller = leased(&seats[0]);
    let mut passed = 0;
    // Small ones come and go: all at the replica that is not kept.
    for _ in 0..20 {
        let small = waiting(&admission, 40).await.await.unwrap().unwrap();
        assert_eq!(leased(&small), fuller);
        admission.leave(small);
        passed += 1;
    }
    assert_eq!((passed, large.is_finished()), (20, false));
    admission.leave(seats.pop().unwrap());
    large.await.unwrap().unwrap();
}

#[tokio::test]
async fn who_leaves_gives_up_what_was_kept_for_it() {
    let admission = with_memory(&[replica(1, 100)]);
    let _busy = waiting(&admission, 50).await.await.unwrap().unwrap();
    let large = waiting(&admission, 90).await;
    let small = waiting(&admission, 40).await;
    settled().await;
    assert!(!small.is_finished());
    large.abort();
    small.await.unwrap().unwrap();
}

#[tokio::test]
async fn who_would_surely_wait_too_long_is_refused_at_once() {
    let admission = with_places(1);
    let mut seat = admission.enter(Ask::default(), QUEUE).await.unwrap();
    // The pace goes by the kernel's clock, in steps of a few milliseconds.
    for _ in 0..line::PACE_MIN {
        let next = waiting(&admission, 0).await;
        tokio::time::sleep(Duration::from_millis(30)).await;
        admission.leave(seat);
        seat = next.await.unwrap().unwrap();
    }
    let mut waiters = Vec::new();
    for _ in 0..4 {
        waiters.push(waiting(&admission, 0).await);
    }
    let queue = config::Queue { max: 100, timeout: Duration::from_millis(60), ..QUEUE };
    let refused = admission.enter(Ask::default(), queue).await.unwrap_err();
    assert_eq!(refused.code, Code::QueueFull);
    assert!(refused.detail.contains("at the present pace"), "{}", refused.detail);
    assert!(refused.retry_after.unwrap() >= Duration::from_secs(1));
    drop(waiters);
}
