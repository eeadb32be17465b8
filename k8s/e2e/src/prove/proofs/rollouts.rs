//! Updates under load: nothing fails, also where an agent has one replica. And the same with
//! `preStop` or the drain taken out, which has to fail: otherwise the first half would prove
//! nothing.

use crate::load::report::Report;
use crate::prove::Context;
use crate::prove::cluster::SOON;
use crate::prove::failure::{Failure, Outcome, ensure};
use crate::prove::say;
use crate::prove::table;
use crate::prove::traffic::{Load, Order, nothing_failed, tell};
use crate::prove::yard::Yard;

/// In a row, of each.
const UPDATES: usize = 5;
/// In a row, of the agent with one replica: each leaves a gap that requests wait through.
const UPDATES_OF_ONE: usize = 2;
/// Such a replica takes longer to start than the old one goes on serving, 5 s by its `preStop`: so
/// there is a gap, and whoever waited did so for at least this long.
const START_MS: u64 = 10_000;
const WAITED_MS: u32 = 1_000;
/// Requests a second to it: all that come in a gap have to fit in a gateway's line.
const RATE_OF_ONE: u32 = 20;

pub(super) async fn prove(context: &Context) -> Outcome<String> {
    let table = |namespace: &str, keys: &str, deployment: &str| {
        table::gateway(context, namespace, keys)
            + &table::agent(context, "coding", "", deployment)
            + &only_replica(context)
    };
    let yard = Yard::up(context, "rollouts", |namespace| table(namespace, "", "")).await?;
    yard.scale("switchyard", 2).await?;
    yard.scale("coding-agent", 3).await?;
    let all = all(context);

    let agent = updates(&yard, "coding-agent", all, UPDATES).await?;
    say(&format!("   {UPDATES} updates of the agent: {}", tell(&agent)));
    nothing_failed(&agent)?;
    let gateway = updates(&yard, "switchyard", all, UPDATES).await?;
    say(&format!("   {UPDATES} updates of the gateway: {}", tell(&gateway)));
    nothing_failed(&gateway)?;

    let one = of_one(&yard, all).await?;

    let namespace = &yard.namespace;
    // An agent that ends on SIGTERM at once, as many do. With the pause before it, requests that
    // are shorter are safe, and longer ones are cut; without the pause those are, too.
    yard.apply(&table(namespace, "", "env = { E2E_DRAIN = \"none\" }"), &[]).await?;
    yard.rolled_out("coding-agent").await?;
    let short = Order { hold_ms: 200, streams: 0, ..all };
    let paused = updates(&yard, "coding-agent", short, 1).await?;
    say(&format!("   an agent without drain, short requests, with preStop: {}", tell(&paused)));
    nothing_failed(&paused)?;
    let undrained = must_fail(&yard, "coding-agent", all, "an agent without drain").await?;
    let no_pause = r#"[{"op": "remove", "path": "/spec/template/spec/containers/0/lifecycle"}]"#;
    yard.kubectl(&["patch", "deployment/coding-agent", "--type=json", "-p", no_pause]).await?;
    yard.rolled_out("coding-agent").await?;
    let what = "an agent without drain and preStop, short requests";
    let unpaused = must_fail(&yard, "coding-agent", short, what).await?;

    yard.apply(&table(namespace, "drain_delay = \"0s\"", ""), &[]).await?;
    yard.rolled_out("coding-agent").await?;
    restart(&yard, "switchyard").await?;
    let hasty = must_fail(&yard, "switchyard", all, "a gateway with drain_delay 0").await?;
    yard.apply(&table(namespace, "drain_timeout = \"0s\"", ""), &[]).await?;
    restart(&yard, "switchyard").await?;
    let cut = must_fail(&yard, "switchyard", all, "a gateway with drain_timeout 0").await?;

    Ok(format!(
        "agent: {}; gateway: {}; one replica: {}; failures without an agent's drain {}, its preStop {}, the gateway's \
         drain_delay {}, its drain_timeout {}",
        tell(&agent),
        tell(&gateway),
        tell(&one),
        undrained.failures(),
        unpaused.failures(),
        hasty.failures(),
        cut.failures()
    ))
}

fn all(context: &Context) -> Order<'static> {
    let settings = &context.settings;
    Order { rate: settings.rate, hold_ms: 20, streams: settings.streams, ..Order::default() }
}

/// The agent with one replica.
fn only_replica(context: &Context) -> String {
    let queue = "queue = { max = 600, timeout = \"50s\" }";
    table::agent(context, "qa", queue, &format!("env = {{ E2E_START_MS = \"{START_MS}\" }}"))
}

/// Its updates: while there is none, requests wait for the next one.
async fn of_one(yard: &Yard<'_>, all: Order<'static>) -> Outcome<Report> {
    yard.settled("qa-agent", 1, SOON).await?;
    let order = Order { agents: "qa", rate: RATE_OF_ONE, streams: 0, ..all };
    let report = updates(yard, "qa-agent", order, UPDATES_OF_ONE).await?;
    say(&format!(
        "   {UPDATES_OF_ONE} updates of an only replica: {}, the longest waited {} ms",
        tell(&report),
        report.max_ms
    ));
    nothing_failed(&report)?;
    ensure(report.max_ms > WAITED_MS, || "nobody had to wait, so this proves nothing".into())?;
    Ok(report)
}

/// So many updates in a row under a load, and what came of it.
async fn updates(
    yard: &Yard<'_>,
    deployment: &str,
    order: Order<'_>,
    times: usize,
) -> Outcome<Report> {
    let load = Load::start(yard, deployment, order).await?;
    for _ in 0..times {
        restart(yard, deployment).await?;
    }
    load.end().await
}

async fn restart(yard: &Yard<'_>, deployment: &str) -> Outcome {
    let target = format!("deployment/{deployment}");
    yard.kubectl(&["rollout", "restart", &target]).await?;
    yard.rolled_out(deployment).await
}

/// Updates until one has lost something. How much each loses is a race with the nodes' rules for the
/// Service: a quick cluster may win one of them.
async fn must_fail(
    yard: &Yard<'_>,
    deployment: &str,
    order: Order<'_>,
    what: &str,
) -> Outcome<Report> {
    for _ in 0..UPDATES {
        let report = updates(yard, deployment, order, 1).await?;
        say(&format!("   {what}: {}", tell(&report)));
        if report.failures() > 0 {
            return Ok(report);
        }
    }
    Err(Failure::from(format!("{what}, and nothing failed in {UPDATES} updates")))
}
