//! The committed overlay `local` with the real agents, on a cluster that has nothing of ours.

use serde_json::{Value, json};

use crate::prove::Context;
use crate::prove::cluster::{kubectl, kubectl_with};
use crate::prove::failure::{Outcome, ensure};
use crate::prove::yard::Yard;

/// The committed table's namespace.
pub(super) const NAMESPACE: &str = "ai-agents";
/// What the committed manifests call the images, before the tag.
const GATEWAY: &str = "image: switchyard/switchyard:";
const AGENT: &str = "image: switchyard/agent:";
const DEPLOYMENTS: [&str; 3] = ["switchyard", "qa-agent", "coding-agent"];

pub(super) async fn prove(context: &Context) -> Outcome<String> {
    is_empty().await?;
    let yard = Yard::of(context, NAMESPACE)?;
    bring_up(context, "local").await?;
    for deployment in DEPLOYMENTS {
        yard.rolled_out(deployment).await?;
    }
    yard.start_client().await?;
    let mut told = Vec::new();
    for (agent, input) in [("qa", "What is a drain?"), ("coding", "Print the numbers from 1 to 3")]
    {
        let url = format!("http://switchyard.{NAMESPACE}.svc/agents/{agent}/invoke");
        let answer = yard.ask(&url, Some(&json!({ "input": input }).to_string())).await?;
        ensure(answer.status == 200, || format!("{agent}: {} {}", answer.status, answer.body))?;
        let body: Value = serde_json::from_str(&answer.body)?;
        ensure(body["metadata"]["agent"] == agent, || format!("{agent} said {body}"))?;
        told.push(format!("{agent} answered {} bytes", answer.body.len()));
    }
    let down = yard.ask(&format!("http://switchyard.{NAMESPACE}.svc/agents"), None).await?;
    told.push(format!("GET /agents: {}", down.body.trim()));
    Ok(told.join(", "))
}

/// A cluster may have a real yard under this name: it is not ours to delete.
pub(super) async fn is_empty() -> Outcome {
    let found =
        kubectl(&["get", "namespace", NAMESPACE, "--ignore-not-found", "-o", "name"]).await?;
    ensure(found.trim().is_empty(), || {
        format!("there is a namespace {NAMESPACE} already: this proof needs a cluster without it")
    })
}

/// Applies a committed overlay: as it stands where the images have the names in it, else with the
/// names that were given.
pub(super) async fn bring_up(context: &Context, overlay: &str) -> Outcome {
    let settings = &context.settings;
    let folder = settings.repository.join("k8s/overlays").join(overlay).display().to_string();
    let objects = kubectl(&["kustomize", &folder]).await?;
    let as_given = with_images(context, &objects);
    if as_given == objects {
        return kubectl(&["apply", "-k", &folder]).await.map(drop);
    }
    let policy = format!("imagePullPolicy: {}", settings.pull_policy);
    let as_given = as_given.replace("imagePullPolicy: Never", &policy);
    kubectl_with(&["apply", "-f", "-"], &as_given).await.map(drop)
}

fn with_images(context: &Context, objects: &str) -> String {
    let settings = &context.settings;
    let named = |line: &str| {
        let (indent, rest) = line.split_at(line.len() - line.trim_start().len());
        let image = match rest {
            rest if rest.starts_with(GATEWAY) => &settings.gateway_image,
            rest if rest.starts_with(AGENT) => &settings.agent_image,
            _ => return line.to_owned(),
        };
        format!("{indent}image: {image}")
    };
    objects.lines().map(|line| named(line) + "\n").collect()
}
