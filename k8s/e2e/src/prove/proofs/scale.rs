//! `kubectl scale` of an agent without a range: up, new replicas get requests soon after they are
//! ready; down, no open stream is cut.

use std::time::{Duration, Instant};

use crate::prove::Context;
use crate::prove::cluster::{SOON, until};
use crate::prove::failure::{Outcome, ensure};
use crate::prove::table;
use crate::prove::traffic::{Load, Order, nothing_failed, tell};
use crate::prove::yard::{Pod, Yard};

/// From a pod's being ready to its first answer, seconds. A second is what Kubernetes' own clock
/// for it is exact to, another the readiness in the EndpointSlice; the rest is a slow machine.
const SECONDS: f64 = 10.0;
/// For pods that go, with streams of `STREAM_S` and the pause before.
const LEAVING: Duration = Duration::from_secs(240);
const STREAM_S: u64 = 30;

pub(super) async fn prove(context: &Context) -> Outcome<String> {
    let yard = Yard::up(context, "scale", |namespace| {
        table::gateway(context, namespace, "") + &table::agent(context, "coding", "", "")
    })
    .await?;
    yard.scale("switchyard", 2).await?;
    yard.scale("coding-agent", 2).await?;
    let streams = context.settings.streams;
    let order = Order { rate: 50, streams, stream_s: STREAM_S, ..Order::default() };
    let load = Load::start(&yard, "scale", order).await?;

    let five = yard.scale("coding-agent", 5).await?;
    until("all five answer", SOON, async || Ok((load.progress().await?.pods >= 5).then_some(())))
        .await?;

    let begun = Instant::now();
    let open = load.progress().await?.open;
    yard.kubectl(&["scale", "deployment/coding-agent", "--replicas=2"]).await?;
    yard.settled("coding-agent", 2, LEAVING).await?;
    let gone = begun.elapsed().as_secs();
    let report = load.end().await?;
    nothing_failed(&report)?;

    let mut slowest = 0.0_f64;
    for pod in &five {
        let seconds = first_answer(pod, &report)?;
        slowest = slowest.max(seconds);
    }
    ensure(slowest <= SECONDS, || {
        format!("a ready pod waited {slowest:.1} s for its first request")
    })?;
    Ok(format!(
        "first answer {slowest:.1} s after ready at most; three went in {gone} s under {open} streams; {}",
        tell(&report)
    ))
}

/// Seconds from ready to its first answer.
fn first_answer(pod: &Pod, report: &crate::load::report::Report) -> Outcome<f64> {
    let seen = report.pods.get(&pod.name).ok_or_else(|| format!("{} never answered", pod.name))?;
    let ready = pod.ready.ok_or("not ready")? as f64;
    Ok((seen.first_ms as f64 / 1_000.0 - ready).max(0.0))
}
