//! The committed overlay `local` with the real agents, on a cluster that has nothing of ours.

use std::path::{Path, PathBuf};

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
    bring_up(context, &yard, "overlays/local").await?;
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

/// Applies the base or an overlay of the committed manifests, which `folder` names, for a small
/// machine: the overlay `local` as it stands, others with what is in `local` beside. Where the
/// images are called otherwise, with the names that were given.
pub(super) async fn bring_up(context: &Context, yard: &Yard<'_>, folder: &str) -> Outcome {
    let settings = &context.settings;
    let name = folder.rsplit('/').next().unwrap_or_default();
    let committed = settings.repository.join("k8s");
    let overlay = match name {
        "base" | "local" => committed.join("overlays/local"),
        other => beside_local(&committed, yard, other)?,
    };
    let overlay = overlay.display().to_string();
    let objects = kubectl(&["kustomize", &overlay]).await?;
    let as_given = with_images(context, &objects);
    if as_given == objects {
        return kubectl(&["apply", "-k", &overlay]).await.map(drop);
    }
    let policy = format!("imagePullPolicy: {}", settings.pull_policy);
    let as_given = as_given.replace("imagePullPolicy: Never", &policy);
    kubectl_with(&["apply", "-f", "-"], &as_given).await.map(drop)
}

/// A copy of the committed manifests, with an overlay that is another one and `local`.
fn beside_local(committed: &Path, yard: &Yard<'_>, other: &str) -> Outcome<PathBuf> {
    let copy = yard.folder().join("k8s");
    for part in ["base", "components", "overlays"] {
        copy_folder(&committed.join(part), &copy.join(part))?;
    }
    let overlay = copy.join("overlays/e2e");
    std::fs::create_dir_all(&overlay)?;
    let kustomization = json!({
        "apiVersion": "kustomize.config.k8s.io/v1beta1", "kind": "Kustomization",
        "resources": [format!("../{other}")], "components": ["../../components/local"],
    });
    std::fs::write(overlay.join("kustomization.yaml"), kustomization.to_string())?;
    Ok(overlay)
}

fn copy_folder(from: &Path, to: &Path) -> Outcome {
    std::fs::create_dir_all(to)?;
    for entry in std::fs::read_dir(from)? {
        let entry = entry?;
        let (from, to) = (entry.path(), to.join(entry.file_name()));
        match entry.file_type()?.is_dir() {
            true => copy_folder(&from, &to)?,
            false => drop(std::fs::copy(&from, &to)?),
        }
    }
    Ok(())
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
