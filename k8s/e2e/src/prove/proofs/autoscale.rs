//! The real autoscaler on the gateway's own metric: up under a burst, down after it; and parked at
//! zero and woken, with no request lost.

use std::time::{Duration, Instant};

use crate::prove::Context;
use crate::prove::cluster::{SOON, kubectl, until};
use crate::prove::failure::{Outcome, ensure};
use crate::prove::table;
use crate::prove::traffic::{Load, Order, nothing_failed, tell};
use crate::prove::yard::Yard;

/// What the load is told by; a cluster has only one.
const API: &str = "v1beta1.external.metrics.k8s.io";
/// What the overlay makes outside of the namespace.
pub(super) const OUTSIDE: [&[&str]; 4] = [
    &["delete", "apiservice", API],
    &["delete", "clusterrolebinding", "switchyard-external-metrics"],
    &["delete", "clusterrole", "switchyard-external-metrics"],
    &["delete", "rolebinding", "switchyard-external-metrics", "-n", "kube-system"],
];
/// For the autoscaler to go all the way: its own period may be 15 s, and it goes in steps.
const SCALED: Duration = Duration::from_secs(240);
/// Streams of the burst, and the most replicas: 12 are 2 for each of 6, and there may be 4.
const BURST: u32 = 12;
const MOST: usize = 4;

pub(super) async fn prove(context: &Context) -> Outcome<String> {
    let taken = kubectl(&["get", "apiservice", API, "--ignore-not-found", "-o", "name"]).await?;
    ensure(taken.trim().is_empty(), || {
        format!("there is an APIService {API} already, and a cluster has only one")
    })?;
    let proved = with_metrics(context).await;
    // Before its server: an APIService that nobody answers for holds up the end of every namespace.
    for outside in OUTSIDE {
        let _ = kubectl(&[outside, &["--ignore-not-found"]].concat()).await;
    }
    proved
}

async fn with_metrics(context: &Context) -> Outcome<String> {
    let table = |namespace: &str| {
        let short =
            "up = { window = \"0s\", pods = 4, period = \"15s\" }\ndown = { window = \"10s\" }";
        let queue = "queue = { max = 200, timeout = \"90s\" }";
        table::gateway(context, namespace, "")
            + &table::agent(context, "qa", queue, "")
            + &format!("[agents.qa.scale]\nmin = 1\nmax = {MOST}\nload = 2\n{short}\n")
            + &table::agent(context, "coding", queue, "env = { E2E_START_MS = \"1500\" }")
            + &format!(
                "[agents.coding.scale]\nmin = 0\nmax = 2\nload = 20\nidle = \"15s\"\n{short}\n"
            )
    };
    let yard = Yard::with(context, "autoscale", table, &["load", "external-metrics"]).await?;
    yard.scale("switchyard", 2).await?;
    let burst = burst(&yard).await?;
    let zero = zero(&yard).await?;
    Ok(format!("{burst}; {zero}"))
}

async fn burst(yard: &Yard<'_>) -> Outcome<String> {
    until("the metric", SOON, async || {
        let path = format!(
            "/apis/external.metrics.k8s.io/v1beta1/namespaces/{}/agent_load",
            yard.namespace
        );
        yard.kubectl(&["get", "--raw", &path]).await.map(Some)
    })
    .await?;
    let begun = Instant::now();
    let order = Order { agents: "qa", rate: 5, streams: BURST, ..Order::default() };
    let load = Load::start(yard, "burst", order).await?;
    yard.settled("qa-agent", MOST, SCALED).await?;
    let up = begun.elapsed().as_secs();
    let report = load.end().await?;
    nothing_failed(&report)?;
    let begun = Instant::now();
    yard.settled("qa-agent", 1, SCALED).await?;
    let down = begun.elapsed().as_secs();
    Ok(format!("1 to {MOST} in {up} s under {BURST} streams, back in {down} s; {}", tell(&report)))
}

async fn zero(yard: &Yard<'_>) -> Outcome<String> {
    yard.settled("coding-agent", 0, SCALED).await?;
    let begun = Instant::now();
    let load = Load::begin(yard, "wake", Order { rate: 5, ..Order::default() }).await?;
    until("an answer of the woken agent", SOON, async || {
        Ok((load.progress().await?.good > 0).then_some(()))
    })
    .await?;
    let woken = begun.elapsed().as_secs();
    let answered = load.progress().await?.good;
    until("some more answers", SOON, async || {
        Ok((load.progress().await?.good > answered + 25).then_some(()))
    })
    .await?;
    let report = load.end().await?;
    nothing_failed(&report)?;
    yard.settled("coding-agent", 0, SCALED).await?;
    Ok(format!("from zero: first answer after {woken} s, and parked again; {}", tell(&report)))
}
