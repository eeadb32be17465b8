use super::*;
use crate::body::{ClientBody, Limits as BodyLimits};
use bytes::Bytes;
use tokio::time::Instant;

fn rate(requests: Option<u64>, bytes: Option<u64>, concurrent: Option<u32>) -> config::Rate {
    config::Rate { requests, bytes, concurrent, window: Duration::from_secs(60) }
}

fn limit(scope: Scope, rate: config::Rate) -> Limit {
    Limit { scope, rate, used: Arc::default() }
}

fn body(bytes: usize) -> Source {
    let body = ClientBody::Whole(Bytes::from(vec![b'x'; bytes]));
    let limits = BodyLimits { max: u64::MAX, timeout: Duration::from_secs(1), keep: 0 };
    Source::new(body, limits, |_| {}, Instant::now())
}

fn taken(limits: &[&Limit], bytes: usize, part: Part) -> Taken {
    take(&limits.iter().map(|limit| (*limit).clone()).collect(), &body(bytes), part).0
}

#[test]
fn so_many_requests_and_no_more_are_taken_in_a_window() {
    let limit = limit(Scope::Agent, rate(Some(3), None, None));
    for _ in 0..3 {
        drop(taken(&[&limit], 0, Part::default()).unwrap());
    }
    let refused = taken(&[&limit], 0, Part::default()).err().unwrap();
    assert_eq!(refused.code, Code::RateLimited);
    let wait = refused.retry_after.unwrap();
    assert!(wait > Duration::from_secs(15) && wait <= Duration::from_secs(20), "{wait:?}");
}

#[test]
fn requests_at_once_are_given_back_when_they_end() {
    let limit = limit(Scope::Tenant, rate(None, None, Some(2)));
    let first = taken(&[&limit], 0, Part::default()).unwrap();
    let _second = taken(&[&limit], 0, Part::default()).unwrap();
    assert!(taken(&[&limit], 0, Part::default()).is_err());
    drop(first);
    assert!(taken(&[&limit], 0, Part::default()).is_ok());
}

#[test]
fn a_body_larger_than_what_is_left_is_taken_and_the_next_waits_for_it() {
    let limit = limit(Scope::Agent, rate(None, Some(1000), None));
    drop(taken(&[&limit], 2500, Part::default()).unwrap());
    let wait = taken(&[&limit], 1, Part::default()).err().unwrap().retry_after.unwrap();
    assert!(wait > Duration::from_secs(85) && wait <= Duration::from_secs(91), "{wait:?}");
}

#[test]
fn a_refusal_takes_nothing_of_the_other_limits() {
    let tenant = limit(Scope::Tenant, rate(Some(10), Some(1000), Some(5)));
    let agent = limit(Scope::Agent, rate(Some(1), None, None));
    drop(taken(&[&tenant, &agent], 10, Part::default()).unwrap());
    let before = told(&[tenant.clone()].into_iter().collect(), Part::default(), now_ns());
    for _ in 0..20 {
        assert!(taken(&[&tenant, &agent], 10, Part::default()).is_err());
    }
    let after = told(&[tenant.clone()].into_iter().collect(), Part::default(), now_ns());
    assert_eq!(before.left.split(";t=").next(), after.left.split(";t=").next());
    assert_eq!(tenant.used.concurrent.load(Relaxed), 0);
}

#[test]
fn gateways_share_every_limit_and_none_is_left_without() {
    for (limit, gateways) in [(10, 3), (3, 3), (7, 2), (600, 7)] {
        let parts = (0..gateways).map(|rank| Part { gateways, rank }.of(limit));
        assert_eq!(parts.sum::<u64>(), limit);
    }
    assert_eq!(Part { gateways: 5, rank: 4 }.of(2), 1);
    let limit = limit(Scope::Agent, rate(Some(10), None, None));
    let part = Part { gateways: 5, rank: 0 };
    assert!(taken(&[&limit], 0, part).is_ok() && taken(&[&limit], 0, part).is_ok());
    assert!(taken(&[&limit], 0, part).is_err());
}

#[test]
fn the_client_is_told_each_limit_and_what_is_left() {
    let limit = limit(Scope::Agent, rate(Some(10), Some(1 << 20), Some(4)));
    let (granted, told) = take(&[limit].into_iter().collect(), &body(0), Part::default());
    let _granted = granted.unwrap();
    assert_eq!(
        told.policy,
        "\"agent-requests\";q=10;w=60, \"agent-bytes\";q=1048576;qu=\"content-bytes\";w=60, \
         \"agent-concurrent\";q=4;qu=\"concurrent-requests\""
    );
    assert_eq!(
        told.left,
        "\"agent-requests\";r=9;t=6, \"agent-bytes\";r=1048576;t=0, \"agent-concurrent\";r=3"
    );
}
