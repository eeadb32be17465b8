//! An agent that takes more memory than its limit is killed: its callers are told so, and another
//! agent's callers notice nothing.

use crate::agent;
use crate::prove::Context;
use crate::prove::cluster::{SOON, until};
use crate::prove::failure::{Outcome, ensure};
use crate::prove::table;
use crate::prove::traffic::{Load, Order, nothing_failed, tell};
use crate::prove::yard::Yard;

/// What fails a caller of a replica that dies: its request was there, so that nobody may repeat it.
const TOLD: &str = "502 upstream-reset";
/// Requests to the greedy agent, a second, and how long each is held.
const RATE: u32 = 20;
const HOLD_MS: u64 = 200;

pub(super) async fn prove(context: &Context) -> Outcome<String> {
    let yard = Yard::up(context, "oom", |namespace| {
        table::gateway(context, namespace, "")
            + &table::agent(context, "coding", "", "limits = { memory = \"128Mi\" }")
            + &table::agent(context, "qa", "", "limits = { memory = \"512Mi\" }")
    })
    .await?;
    yard.scale("switchyard", 2).await?;
    yard.scale("coding-agent", 2).await?;
    yard.scale("qa-agent", 2).await?;
    let order = Order { rate: 50, streams: 20, ..Order::default() };
    let others = Load::start(&yard, "coding", order).await?;
    let own = Order { agents: "qa", rate: RATE, hold_ms: HOLD_MS, ..Order::default() };
    let own = Load::start(&yard, "qa", own).await?;

    let greedy = serde_json::to_string(&agent::Order { eat: true, ..agent::Order::default() })?;
    let answer = yard.ask("http://switchyard/agents/qa/invoke", Some(&greedy)).await?;
    ensure(answer.status == 502 && answer.code == "upstream-reset", || {
        format!("the greedy one was told {} {}: {}", answer.status, answer.code, answer.body)
    })?;
    let killed = until("a qa pod killed and back", SOON, async || {
        let pods = yard.pods("qa-agent").await?;
        let back = pods.iter().all(|pod| pod.ready.is_some());
        Ok(pods.into_iter().find(|pod| pod.restarts > 0 && back))
    })
    .await?;
    ensure(killed.last_end == "OOMKilled", || format!("it ended by {}", killed.last_end))?;
    let good = own.progress().await?.good;
    until("qa answers again", SOON, async || {
        Ok((own.progress().await?.good > good + u64::from(RATE)).then_some(()))
    })
    .await?;

    let (others, own) = (others.end().await?, own.end().await?);
    nothing_failed(&others)?;
    // Those that the replica had, and one second's more: a generous ceiling.
    let most = u64::from(RATE) * (HOLD_MS / 1_000 + 1);
    let only_told = own.requests.failed.keys().all(|kind| kind == TOLD);
    ensure(only_told && own.failures() <= most, || {
        format!("its own callers: {}: {}", tell(&own), own.examples.join("; "))
    })?;
    let again = own.pods.get(&killed.name).map_or(0, |seen| seen.answers);
    Ok(format!(
        "OOMKilled; its caller was told 502 upstream-reset; qa: {} ({again} by the one that came \
         back); coding: {}",
        tell(&own),
        tell(&others)
    ))
}
