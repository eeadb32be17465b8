//! Several gateways keep an agent's limit together: three of them, two replicas, at most four
//! requests at each.

use crate::prove::Context;
use crate::prove::cluster::{SOON, until};
use crate::prove::failure::{Outcome, ensure};
use crate::prove::table;
use crate::prove::traffic::{Load, Order, nothing_failed, tell};
use crate::prove::yard::Yard;

const GATEWAYS: usize = 3;
const REPLICAS: usize = 2;
/// Requests at once for each replica.
const LIMIT: u32 = 4;
/// Held for 200 ms, two replicas of four places answer 40 a second: this keeps a line in front of them.
const STREAMS: u32 = 30;
/// Whole answers that are waited for.
const ANSWERS: u64 = 150;

pub(super) async fn prove(context: &Context) -> Outcome<String> {
    let keys = format!("max_in_flight = {LIMIT}\nqueue = {{ max = 500, timeout = \"100s\" }}");
    let yard = Yard::up(context, "gateways", |namespace| {
        table::gateway(context, namespace, "") + &table::agent(context, "coding", &keys, "")
    })
    .await?;
    yard.scale("switchyard", GATEWAYS).await?;
    yard.scale("coding-agent", REPLICAS).await?;
    let load = Load::begin(
        &yard,
        "gateways",
        Order { rate: 5, hold_ms: 200, streams: STREAMS, stream_s: 1, ..Order::default() },
    )
    .await?;
    until("the answers", SOON, async || Ok((load.progress().await?.good >= ANSWERS).then_some(())))
        .await?;
    let report = load.end().await?;
    nothing_failed(&report)?;
    let peak = report.pods.values().map(|seen| seen.peak).max().unwrap_or_default();
    let refused: u32 = report.pods.values().map(|seen| seen.refused).sum();
    ensure(peak <= LIMIT, || format!("a replica had {peak} at once"))?;
    ensure(report.pods.len() == REPLICAS, || format!("{} replicas answered", report.pods.len()))?;
    Ok(format!(
        "{GATEWAYS} gateways, {REPLICAS} replicas, limit {LIMIT}: at most {peak} at one, {refused} \
         refused there and answered elsewhere; {}",
        tell(&report)
    ))
}
