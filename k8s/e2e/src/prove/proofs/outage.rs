//! A process that dies at once, an API server that doesn't answer, permissions that are taken
//! away: each as `docs/operations.md` says.

use std::time::Duration;

use crate::agent;
use crate::load::report::Report;
use crate::prove::Context;
use crate::prove::cluster::{SOON, shell, until};
use crate::prove::failure::{Outcome, ensure};
use crate::prove::table;
use crate::prove::traffic::{Load, Order, nothing_failed, tell};
use crate::prove::yard::Yard;

/// How long the API server is stopped. A cluster whose nodes count as lost sooner (50 s are usual)
/// may call all pods unready for a moment when it is back, and this proof will say so.
const AWAY: Duration = Duration::from_secs(60);
/// For a gateway whose permission was taken to notice: a watch's minute, and a list's time-out.
const NOTICED: Duration = Duration::from_secs(120);
/// What callers of a process that dies may be told: their request was there, or a stream begun.
const TOLD: [&str; 2] = ["502 upstream-reset", "error event"];
/// And where it was the gateway that died, its connections with it.
const CUT: [&str; 3] = ["reset", "truncated", "connect"];

pub(super) async fn prove(context: &Context) -> Outcome<String> {
    let yard = Yard::up(context, "outage", |namespace| {
        table::gateway(context, namespace, "") + &table::agent(context, "coding", "", "")
    })
    .await?;
    yard.scale("switchyard", 2).await?;
    yard.scale("coding-agent", 3).await?;
    let mut told = vec![agent_killed(&yard).await?];
    match &context.settings.kill {
        Some(kill) => told.push(gateway_killed(&yard, kill).await?),
        None => context.skip("outage: a gateway's process is killed: E2E_KILL is not set"),
    }
    told.push(forbidden(&yard).await?);
    let settings = &context.settings;
    match (&settings.api_stop, &settings.api_start) {
        (Some(stop), Some(start)) => told.push(api_away(&yard, stop, start).await?),
        _ => context.skip("outage: the API server is stopped: E2E_API_STOP and _START are not set"),
    }
    Ok(told.join("; "))
}

fn order(yard: &Yard<'_>) -> Order<'static> {
    let settings = &yard.context.settings;
    Order {
        rate: settings.rate / 2,
        hold_ms: 50,
        streams: settings.streams / 2,
        ..Order::default()
    }
}

/// What failed is only what was open there, and told as it should be; and then nothing more.
async fn agent_killed(yard: &Yard<'_>) -> Outcome<String> {
    let load = Load::start(yard, "kill", order(yard)).await?;
    let before = yard.pods("coding-agent").await?;
    match &yard.context.settings.kill {
        Some(kill) => {
            let pod = before.first().ok_or("no pod")?;
            shell(kill, &[&yard.namespace, &pod.name]).await?;
        }
        None => {
            let crash = agent::Order { crash: true, ..agent::Order::default() };
            let crash = serde_json::to_string(&crash)?;
            yard.ask("http://switchyard/agents/coding/invoke", Some(&crash)).await?;
        }
    }
    until("the killed agent's coming back", SOON, async || {
        let pods = yard.pods("coding-agent").await?;
        let back = pods.iter().all(|pod| pod.ready.is_some());
        Ok((back && pods.iter().any(|pod| pod.restarts > 0)).then_some(()))
    })
    .await?;
    let report = load.end().await?;
    only(&report, &TOLD, "an agent was killed")?;
    let after = calm(yard, "kill-after").await?;
    Ok(format!("an agent killed: {}; afterwards {after}", tell(&report)))
}

async fn gateway_killed(yard: &Yard<'_>, kill: &str) -> Outcome<String> {
    let load = Load::start(yard, "gateway", order(yard)).await?;
    let pods = yard.pods("switchyard").await?;
    shell(kill, &[&yard.namespace, &pods.first().ok_or("no gateway")?.name]).await?;
    until("the killed gateway's coming back", SOON, async || {
        let pods = yard.pods("switchyard").await?;
        let back = pods.iter().all(|pod| pod.ready.is_some());
        Ok((back && pods.iter().any(|pod| pod.restarts > 0)).then_some(()))
    })
    .await?;
    let report = load.end().await?;
    only(&report, &CUT, "a gateway was killed")?;
    let after = calm(yard, "gateway-after").await?;
    Ok(format!("a gateway killed: {}; afterwards {after}", tell(&report)))
}

/// Only these kinds of failures, and not from everybody.
fn only(report: &Report, kinds: &[&str], what: &str) -> Outcome {
    let known = |kind: &String| kinds.contains(&kind.as_str());
    let failed = report.requests.failed.keys().chain(report.streams.failed.keys());
    let fine =
        failed.into_iter().all(known) && report.requests.failures() * 5 < report.requests.sent;
    ensure(fine, || format!("{what}: {}: {}", tell(report), report.examples.join("; ")))
}

/// A few seconds in which nothing fails.
async fn calm(yard: &Yard<'_>, name: &str) -> Outcome<String> {
    let load = Load::start(yard, name, order(yard)).await?;
    let good = load.progress().await?.good;
    until("answers", SOON, async || Ok((load.progress().await?.good > good + 200).then_some(())))
        .await?;
    let report = load.end().await?;
    nothing_failed(&report)?;
    Ok("nothing failed".to_owned())
}

/// The gateway may not look any more: it goes on with what it knows, says how old that is, and
/// takes up what is new once it may again.
async fn forbidden(yard: &Yard<'_>) -> Outcome<String> {
    let load = Load::start(yard, "rbac", order(yard)).await?;
    let binding = yard.json(&["get", "rolebinding", "switchyard"]).await?;
    yard.kubectl(&["delete", "rolebinding", "switchyard"]).await?;
    let told = until("the gateway's saying how old its knowledge is", NOTICED, async || {
        let age = age(yard).await?;
        Ok((age > 0.0).then_some(age))
    })
    .await;
    put_back(yard, binding).await?;
    let told = told?;
    caught_up(yard, &load, "coding-agent", 4).await?;
    yard.scale("coding-agent", 3).await?;
    let report = load.end().await?;
    nothing_failed(&report)?;
    Ok(format!("permission taken: an age of {told:.0} s told, {}", tell(&report)))
}

async fn put_back(yard: &Yard<'_>, mut binding: serde_json::Value) -> Outcome {
    if let Some(metadata) = binding["metadata"].as_object_mut() {
        metadata.retain(|key, _| ["name", "namespace", "labels"].contains(&key.as_str()));
    }
    let args = ["apply", "-f", "-"];
    crate::prove::cluster::kubectl_with(&args, &binding.to_string()).await?;
    until("the gateway's knowing again", SOON, async || {
        let age = age(yard).await?;
        Ok((age == 0.0).then_some(()))
    })
    .await
}

/// How old the knowledge of the replicas is, seconds, by a gateway's own word.
async fn age(yard: &Yard<'_>) -> Outcome<f64> {
    let readyz = yard.admin("/readyz").await?;
    let age = &readyz["discovery"]["age_seconds"];
    age.as_f64().ok_or_else(|| format!("no age in {readyz}").into())
}

/// One more replica is taken up.
async fn caught_up(yard: &Yard<'_>, load: &Load<'_>, deployment: &str, replicas: usize) -> Outcome {
    let known = load.progress().await?.pods;
    yard.scale(deployment, replicas).await?;
    until("the new replica's first answer", SOON, async || {
        Ok((load.progress().await?.pods > known).then_some(()))
    })
    .await
}

async fn api_away(yard: &Yard<'_>, stop: &str, start: &str) -> Outcome<String> {
    let load = Load::start(yard, "api", order(yard)).await?;
    shell(stop, &[]).await?;
    // How long it is away is what is proved; there is no condition to wait for without an API.
    tokio::time::sleep(AWAY).await;
    shell(start, &[]).await?;
    until("the API server", SOON, async || {
        yard.kubectl(&["get", "--raw", "/readyz"]).await.map(Some)
    })
    .await?;
    until(
        "the gateway's knowing again",
        SOON,
        async || Ok((age(yard).await? == 0.0).then_some(())),
    )
    .await?;
    caught_up(yard, &load, "coding-agent", 4).await?;
    yard.scale("coding-agent", 3).await?;
    let report = load.end().await?;
    nothing_failed(&report)?;
    ensure(report.oldest_s > 1.0, || "nobody was told that the API was away".into())?;
    let (away, oldest) = (AWAY.as_secs(), report.oldest_s);
    Ok(format!("API server away for {away} s: an age of {oldest:.0} s told, {}", tell(&report)))
}
