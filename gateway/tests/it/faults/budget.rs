//! Retries when everything fails at once.

use super::load::{Load, post};
use super::times;
use crate::agent::{Agent, Call, Refusing, answers};
use crate::gateway::{Gateway, agent};

/// A fifth, and never ejected: what fails goes on failing.
const SETTINGS: &str = "eject = \"off\"\nretry = { max = 2, budget = 0.2, buffer = \"64KiB\" }";

/// Asserts that at most the budget's share was tried again. The last ten seconds' share over and
/// over may be a little more in sum, and each worker may take one at the same moment.
async fn check_share(gateway: &Gateway, requests: usize) -> f64 {
    let qa = [("agent", "qa")];
    let retries = gateway.metric("switchyard_retries_total", &qa).await.unwrap_or(0.0);
    let allowed = requests as f64 * 0.25 + 8.0;
    assert!(retries <= allowed, "{retries} retries of {requests} requests");
    assert!(retries >= 3.0, "it was retried at all: {retries} of {requests}");
    retries
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_storm_of_connect_failures_leads_to_no_more_retries_than_the_budget_has() {
    let (one, two, good) = (Refusing::new(), Refusing::new(), answers("{}").await);
    let addresses = [one.addr, two.addr, good.addr];
    let gateway = Gateway::start(&agent("qa", &addresses, SETTINGS)).await;
    let load = Load::start(gateway.addr, 16, |_, id| post("/agents/qa/x", id, ""));
    load.more(times(2000)).await;
    let asked = load.end().await;
    let retries = check_share(&gateway, asked.len()).await;
    for failed in asked.iter().filter(|asked| !asked.is_ok()) {
        assert_eq!(failed.code(), Some("connect-failed"), "{failed:?}");
    }
    println!("{retries} retries of {} requests", asked.len());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_storm_of_refusals_reaches_the_agents_no_more_often_than_the_budget_allows() {
    let full = [Agent::with(Call::not_begun).await, Agent::with(Call::not_begun).await];
    let gateway = Gateway::start(&agent("qa", &[full[0].addr, full[1].addr], SETTINGS)).await;
    let load = Load::start(gateway.addr, 16, |_, id| post("/agents/qa/x", id, ""));
    load.more(times(2000)).await;
    let asked = load.end().await;
    let retries = check_share(&gateway, asked.len()).await;
    let attempts = full[0].count() + full[1].count();
    assert_eq!(attempts as f64, asked.len() as f64 + retries, "each attempt is counted");
}
