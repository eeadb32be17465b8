//! `kubectl edit configmap`, with an editor that is a script: a new agent type is routed within
//! seconds and without a restart; a broken edit is refused, and told as an Event.

use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use serde_json::Value;

use crate::prove::Context;
use crate::prove::cluster::{SOON, run, until};
use crate::prove::failure::{Outcome, ensure};
use crate::prove::table;
use crate::prove::traffic::{Load, Order, nothing_failed, tell};
use crate::prove::yard::Yard;

/// From the edit's being accepted to its being in force everywhere. The mounted file alone would
/// take up to a minute and a half.
const SECONDS: u64 = 10;
/// Where the new type goes, and the key that is broken.
const PLACE: &str = "# more agents go here";
const KEY: &str = "max_in_flight";
const BROKEN: &str = "max_inflight";

pub(super) async fn prove(context: &Context) -> Outcome<String> {
    let text = |namespace: &str| {
        table::gateway(context, namespace, "")
            + &table::agent(context, "coding", &format!("{KEY} = 64"), "")
            + PLACE
            + "\n"
    };
    let yard = Yard::up(context, "edit", text).await?;
    yard.scale("switchyard", 2).await?;
    yard.scale("coding-agent", 2).await?;
    let before = yard.pods("switchyard").await?;
    let load =
        Load::start(&yard, "edit", Order { rate: 50, streams: 10, ..Order::default() }).await?;

    let added = format!(r#"s/^\( *\){PLACE}$/\1[agents.extra]\n\1shares = "coding"/"#);
    edit(&yard, "add", &added).await?;
    let waited = everywhere(&yard).await?;

    edit(&yard, "break", &format!("s/{KEY} = 64/{BROKEN} = 64/")).await?;
    let told = refused(&yard).await?;
    let line = text(&yard.namespace).lines().position(|line| line.contains(KEY)).unwrap_or(0) + 1;
    ensure(told.contains(BROKEN) && told.contains(&format!(":{line}:")), || {
        format!("the Event doesn't say line {line}: {told}")
    })?;
    everywhere(&yard).await?;

    let report = load.end().await?;
    nothing_failed(&report)?;
    let after = yard.pods("switchyard").await?;
    let same = after
        .iter()
        .all(|pod| pod.restarts == 0 && before.iter().any(|earlier| earlier.uid == pod.uid));
    ensure(same && after.len() == before.len(), || "a gateway was restarted".into())?;
    ensure(waited < Duration::from_secs(SECONDS), || format!("it took {waited:?}"))?;
    Ok(format!(
        "a new type by both gateways {:.1} s after the edit; refused: {}; {}",
        waited.as_secs_f64(),
        told.trim(),
        tell(&report)
    ))
}

/// `kubectl edit`, with `sed` for an editor.
async fn edit(yard: &Yard<'_>, name: &str, change: &str) -> Outcome {
    let editor = yard.folder().join(name);
    let script = format!("#!/bin/sh\nexec sed -i '{change}' \"$1\"\n");
    std::fs::write(&editor, script)?;
    std::fs::set_permissions(&editor, std::fs::Permissions::from_mode(0o755))?;
    let editor = editor.display().to_string();
    let variables = [("EDITOR", editor.as_str()), ("KUBE_EDITOR", editor.as_str())];
    let args = ["edit", "configmap", "switchyard", "-n", &yard.namespace];
    let said = run("kubectl", &args, "", &variables).await?;
    ensure(said.contains("edited"), || format!("kubectl edit says: {said}"))
}

/// Waits until each gateway routes the new type; says how long that took.
async fn everywhere(yard: &Yard<'_>) -> Outcome<Duration> {
    let begun = std::time::Instant::now();
    for gateway in yard.pods("switchyard").await? {
        let url = format!("http://{}:8080/agents/extra/invoke", gateway.ip);
        until("the new type at each gateway", SOON, async || {
            let answer = yard.ask(&url, Some("{}")).await?;
            let body: Value = serde_json::from_str(&answer.body)?;
            Ok((answer.status == 200 && body["output"]["type"] == "extra").then_some(()))
        })
        .await?;
    }
    Ok(begun.elapsed())
}

/// What the Event on the ConfigMap says, once there is one.
async fn refused(yard: &Yard<'_>) -> Outcome<String> {
    let on = "involvedObject.kind=ConfigMap,involvedObject.name=switchyard,type=Warning";
    until("an Event that the edit is refused", SOON, async || {
        let events = yard.json(&["get", "events", "--field-selector", on]).await?;
        let message = events["items"][0]["message"].as_str();
        Ok(message.map(str::to_owned))
    })
    .await
}
