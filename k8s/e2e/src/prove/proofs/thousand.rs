//! A thousand replicas of a hundred types on fake nodes, which come and go: what that costs the
//! gateway, and that requests still reach the right ones.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::prove::Context;
use crate::prove::cluster::{kubectl, kubectl_with, until};
use crate::prove::failure::{Outcome, ensure};
use crate::prove::say;
use crate::prove::table;
use crate::prove::traffic::{Load, Order, nothing_failed, tell};
use crate::prove::yard::Yard;

/// Types.
const TYPES: u32 = 100;
/// For so many pods to be ready, and to be known.
const MANY: Duration = Duration::from_secs(300);
/// How long they come and go, and how many types at a time.
const CHURN: Duration = Duration::from_secs(90);
const AT_A_TIME: u32 = 10;
/// What one gateway may take: memory, and of one core on average.
const MEMORY_MAX: u64 = 256 << 20;
const CORE_MAX: f64 = 0.5;

pub(super) async fn prove(context: &Context) -> Outcome<String> {
    let nodes = kubectl(&["get", "nodes", "-l", "fakelet=true", "-o", "name"]).await?;
    if nodes.trim().is_empty() {
        context.skip("thousand: no nodes are labelled fakelet=true");
        return Ok("skipped".to_owned());
    }
    let each = context.settings.endpoints / TYPES;
    let agents: String = (0..TYPES)
        .map(|number| format!("[agents.{0}]\nservice = \"{0}\"\n", name(number)))
        .collect();
    let yard =
        Yard::up(context, "thousand", |namespace| table::gateway(context, namespace, "") + &agents)
            .await?;
    yard.scale("switchyard", 2).await?;
    let begun = Instant::now();
    start(&yard, each).await?;
    known(&yard, each * TYPES).await?;
    say(&format!("   {} replicas known after {} s", each * TYPES, begun.elapsed().as_secs()));

    let asked: Vec<_> = (0..TYPES).step_by(7).map(name).collect();
    let order = Order { agents: &asked.join(","), rate: 20, plain: true, ..Order::default() };
    let load = Load::start(&yard, "thousand", order).await?;
    let before = usage(&yard).await?;
    let begun = Instant::now();
    let rounds = churn(&yard, each).await?;
    let caught_up = known(&yard, each * TYPES).await?;
    let after = usage(&yard).await?;
    let seconds = begun.elapsed().as_secs_f64();
    let report = load.end().await?;
    nothing_failed(&report)?;

    let mut told = Vec::new();
    for used in &after {
        let earlier = before.iter().find(|earlier| earlier.pod == used.pod);
        let cpu = used.cpu_s - earlier.map_or(0.0, |earlier| earlier.cpu_s);
        let (core, memory) = (cpu / seconds, used.memory);
        told.push(format!("{:.1} % of a core, {} MiB", core * 100.0, memory >> 20));
        ensure(core <= CORE_MAX && memory <= MEMORY_MAX, || format!("a gateway took {told:?}"))?;
    }
    Ok(format!(
        "{} replicas of {TYPES} types, {rounds} rounds of {AT_A_TIME} types down and up; gateways: {}; \
         known again {caught_up:.1} s after the last; {}",
        each * TYPES,
        told.join(" and "),
        tell(&report)
    ))
}

fn name(number: u32) -> String {
    format!("t{number:03}")
}

/// Services and Deployments by hand: nothing is rendered for agents that run elsewhere.
async fn start(yard: &Yard<'_>, replicas: u32) -> Outcome {
    let objects: Vec<_> =
        (0..TYPES).flat_map(|number| objects(&yard.namespace, &name(number), replicas)).collect();
    let list = json!({ "apiVersion": "v1", "kind": "List", "items": objects });
    kubectl_with(&["create", "-f", "-"], &list.to_string()).await.map(drop)
}

fn objects(namespace: &str, name: &str, replicas: u32) -> [Value; 2] {
    let labels = json!({ "app": name, "e2e": "thousand" });
    let metadata = json!({ "name": name, "namespace": namespace, "labels": labels });
    let service = json!({
        "apiVersion": "v1", "kind": "Service", "metadata": metadata,
        "spec": {
            "selector": { "app": name },
            "ports": [{ "name": "http", "port": 80, "targetPort": "http" }],
        },
    });
    let container = json!({
        "name": "agent", "image": "fake", "ports": [{ "name": "http", "containerPort": 8000 }],
        "securityContext": { "allowPrivilegeEscalation": false, "capabilities": { "drop": ["ALL"] }},
    });
    let deployment = json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": metadata,
        "spec": {
            "replicas": replicas,
            "selector": { "matchLabels": { "app": name }},
            "template": {
                // It goes on serving for as long as an agent's `preStop` takes.
                "metadata": { "labels": labels, "annotations": { "fakelet/term-seconds": "5" }},
                "spec": {
                    "nodeSelector": { "fakelet": "true" },
                    "tolerations": [{ "key": "fakelet", "operator": "Exists" }],
                    "automountServiceAccountToken": false,
                    "securityContext": {
                        "runAsNonRoot": true, "runAsUser": 65532,
                        "seccompProfile": { "type": "RuntimeDefault" },
                    },
                    "containers": [container],
                },
            },
        },
    });
    [service, deployment]
}

/// Waits until the gateway has so many ready endpoints; says how long that took, seconds.
async fn known(yard: &Yard<'_>, all: u32) -> Outcome<f64> {
    let begun = Instant::now();
    until(&format!("{all} replicas known to the gateway"), MANY, async || {
        let agents = yard.admin("/api/agents").await?;
        let agents = agents["agents"].as_array().cloned().unwrap_or_default();
        let endpoints = agents.iter().flat_map(|agent| agent["endpoints"].as_array());
        let ready = endpoints.flatten().filter(|endpoint| endpoint["state"] == "ready").count();
        Ok((ready == all as usize).then_some(()))
    })
    .await?;
    Ok(begun.elapsed().as_secs_f64())
}

/// Takes half the replicas of some types away and brings them back, over and over.
async fn churn(yard: &Yard<'_>, each: u32) -> Outcome<u32> {
    let begun = Instant::now();
    let mut rounds = 0;
    while begun.elapsed() < CHURN {
        let first = rounds * AT_A_TIME % TYPES;
        let names: Vec<_> = (first..first + AT_A_TIME)
            .map(|number| format!("deployment/{}", name(number)))
            .collect();
        for replicas in [each / 2, each] {
            let replicas_flag = format!("--replicas={replicas}");
            let mut args = vec!["scale", &replicas_flag];
            args.extend(names.iter().map(String::as_str));
            yard.kubectl(&args).await?;
            known_of(yard, first, replicas).await?;
        }
        rounds += 1;
    }
    Ok(rounds)
}

/// Waits until the cluster has made so many ready of the types of this round.
async fn known_of(yard: &Yard<'_>, first: u32, replicas: u32) -> Outcome {
    until("the round's replicas", MANY, async || {
        let found = yard.json(&["get", "deployments", "-l", "e2e=thousand"]).await?;
        let round = found["items"].as_array().cloned().unwrap_or_default();
        let round = round.iter().filter(|deployment| {
            let name = deployment["metadata"]["name"].as_str().unwrap_or_default();
            (first..first + AT_A_TIME).any(|number| name == self::name(number))
        });
        let mut done = round.map(|deployment| {
            deployment["status"]["readyReplicas"].as_u64() == Some(replicas.into())
                && deployment["status"]["replicas"].as_u64() == Some(replicas.into())
        });
        Ok(done.all(|done| done).then_some(()))
    })
    .await
}

/// What a gateway's container has used.
struct Usage {
    pod: String,
    cpu_s: f64,
    memory: u64,
}

/// Of each gateway, by its kubelet.
async fn usage(yard: &Yard<'_>) -> Outcome<Vec<Usage>> {
    let pods = yard.json(&["get", "pods", "-l", "app=switchyard"]).await?;
    let mut all = Vec::new();
    for pod in pods["items"].as_array().into_iter().flatten() {
        let (name, node) = (&pod["metadata"]["name"], &pod["spec"]["nodeName"]);
        let (name, node) = (name.as_str().unwrap_or_default(), node.as_str().unwrap_or_default());
        let path = format!("/api/v1/nodes/{node}/proxy/metrics/resource");
        let text = kubectl(&["get", "--raw", &path]).await?;
        let cpu = measured(&text, "container_cpu_usage_seconds_total", name);
        let memory = measured(&text, "container_memory_working_set_bytes", name);
        let (Some(cpu_s), Some(memory)) = (cpu, memory) else {
            return Err(format!("the kubelet of {node} says nothing of {name}").into());
        };
        all.push(Usage { pod: name.to_owned(), cpu_s, memory: memory as u64 });
    }
    ensure(!all.is_empty(), || "no gateways".into())?;
    Ok(all)
}

/// A sample of Prometheus' text format: `name{…pod="POD"…} VALUE TIME`.
fn measured(text: &str, metric: &str, pod: &str) -> Option<f64> {
    let pod = format!("pod=\"{pod}\"");
    let line = text.lines().find(|line| {
        line.starts_with(metric) && line.contains(&pod) && line.contains("container=\"switchyard\"")
    })?;
    line.split_once("} ")?.1.split(' ').next()?.parse().ok()
}
