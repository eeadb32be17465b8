//! From the table as written to the table as used.
//!
//! What [`crate::check`] lets pass converts; nothing is judged here.

use std::collections::BTreeMap;
use std::time::Duration;

use sha2::{Digest, Sha256};

use crate::raw;
use crate::section::At;
use crate::shares::Shares;
use crate::table::{
    Agent, Deployment, Eject, Gateway, Health, Keepalive, Kubernetes, Memory, Queue, Rate,
    Resources, Retry, Scale, ScaleDown, ScaleUp, Table, Tenant, Tenants, Version,
};

/// Open requests get this much longer than the longest agent's timeout.
const DRAIN_GRACE: Duration = Duration::from_secs(30);

/// The table of a filled and checked file.
pub(crate) fn table(root: &raw::Root, text: &str) -> Table {
    let shares = Shares::of(root);
    let agents: BTreeMap<String, Agent> = root
        .agents
        .iter()
        .flat_map(|agents| &agents.value)
        .map(|(name, written)| {
            (name.clone(), agent(name, &written.value, shares.owner(name), root))
        })
        .collect();
    let longest = agents.values().map(|agent| agent.timeout).max().unwrap_or_default();
    Table {
        gateway: gateway(&root.gateway().value, longest + DRAIN_GRACE),
        kubernetes: Kubernetes { namespace: root.kubernetes().value.namespace().value.clone() },
        tenants: root.tenants.as_ref().and_then(|written| tenants(&written.value)),
        agents,
        hash: Sha256::digest(text).iter().map(|byte| format!("{byte:02x}")).collect(),
    }
}

fn gateway(written: &raw::Gateway, drain_timeout: Duration) -> Gateway {
    Gateway {
        listen: written.listen().value,
        admin: written.admin().value,
        workers: count(written.workers()),
        discovery: written.discovery().value,
        drain_delay: written.drain_delay().value,
        drain_timeout: written.drain_timeout.map_or(drain_timeout, |written| written.value),
        header_timeout: written.header_timeout().value,
        body_timeout: written.body_timeout().value,
        keepalive_timeout: written.keepalive_timeout().value,
        max_header_bytes: count(written.max_header_bytes()),
        max_connections: count(written.max_connections()),
        max_memory: written.max_memory.map(|written| written.value),
        route_body_max: count(written.route_body_max()),
        trusted_proxies: list(written.trusted_proxies()),
        access_log: written.access_log().value,
        deployment: written.deployment.as_ref().map(|written| deployment(&written.value)),
        scale: written.scale.as_ref().map(|written| scale(&written.value)),
    }
}

fn agent(name: &str, written: &raw::Agent, owner: Option<&str>, root: &raw::Root) -> Agent {
    let agents = root.agents.as_ref().map(|agents| &agents.value);
    // What runs and how it speaks is the owner's; `[defaults]` gives a sharing agent none of its
    // own.
    let runs = owner.and_then(|owner| agents?.get(owner)).map_or(written, |owner| &owner.value);
    let own = owner.is_none();
    let timeout = written.timeout().value;
    Agent {
        name: name.to_owned(),
        description: written.description().value.clone(),
        service: written.service.as_ref().filter(|_| own).map(|service| service.value.clone()),
        endpoints: if own { list(written.endpoints()) } else { Vec::new() },
        shares: owner.map(str::to_owned),
        versions: if own { versions(written) } else { Vec::new() },
        protocol: runs.protocol().value,
        max_body: written.max_body().value,
        connect_timeout: written.connect_timeout().value,
        first_byte_timeout: written.first_byte_timeout.map_or(timeout, |written| written.value),
        idle_timeout: written.idle_timeout().value,
        timeout,
        heartbeat: written.heartbeat().value,
        on_disconnect: written.on_disconnect().value,
        max_in_flight: Some(small(written.max_in_flight())).filter(|limit| *limit != 0),
        memory: written.memory().value.as_ref().and_then(|written| memory(written, runs)),
        rate: written.rate().value.as_ref().map(|written| Box::new(rate(written))),
        queue: queue(&written.queue().value),
        affinity: written
            .affinity()
            .value
            .as_ref()
            .and_then(|affinity| affinity.header.as_ref())
            .map(|header| header.value.clone()),
        retry: written.retry().value.as_ref().map(retry),
        eject: written.eject().value.as_ref().map(eject),
        health: written.health().value.as_ref().map(health),
        keepalive: keepalive(&written.keepalive().value),
        paths: strings(written.paths()),
        deployment: written
            .deployment
            .as_ref()
            .filter(|_| own)
            .map(|written| Box::new(deployment(&written.value))),
        scale: written
            .scale
            .as_ref()
            .filter(|_| own)
            .map(|written| Box::new(scale(&written.value))),
    }
}

fn versions(written: &raw::Agent) -> Vec<Version> {
    let version = |version: &At<raw::Version>| {
        Some(Version {
            service: version.value.service.as_ref()?.value.clone(),
            weight: small(version.value.weight()),
            endpoints: list(version.value.endpoints()),
        })
    };
    written.versions().value.iter().filter_map(version).collect()
}

fn queue(written: &raw::Queue) -> Queue {
    Queue {
        max: count(written.max()),
        bytes: written.bytes().value,
        timeout: written.timeout().value,
    }
}

/// In a replica of `runs`.
fn memory(written: &raw::Memory, runs: &raw::Agent) -> Option<Memory> {
    Some(Memory {
        base: written.base?.value,
        per_body_byte: written.per_body_byte().value,
        limit: memory_limit(written, runs)?.value,
    })
}

/// What a replica has: as `memory` says, or the container's limit.
pub(crate) fn memory_limit(written: &raw::Memory, runs: &raw::Agent) -> Option<At<u64>> {
    let container = || runs.deployment.as_ref()?.value.limits.as_ref()?.value.memory;
    written.limit.or_else(container)
}

fn rate(written: &raw::Rate) -> Rate {
    Rate {
        requests: written.requests.map(|requests| requests.value),
        bytes: written.bytes.map(|bytes| bytes.value),
        concurrent: written.concurrent.as_ref().map(small),
        window: written.window().value,
    }
}

fn tenants(written: &raw::Tenants) -> Option<Tenants> {
    let unlisted = Tenant {
        weight: small(written.weight()),
        priority: written.priority().value,
        rate: written.rate().value.as_ref().map(rate),
    };
    let known = |(name, At { value, .. }): (&String, &At<raw::Tenant>)| {
        let tenant = Tenant {
            weight: value.weight.as_ref().map_or(unlisted.weight, small),
            priority: value.priority.map_or(unlisted.priority, |written| written.value),
            rate: value.rate.as_ref().map_or(unlisted.rate, |at| at.value.as_ref().map(rate)),
        };
        (name.clone(), tenant)
    };
    Some(Tenants {
        header: written.header.as_ref()?.value.clone(),
        max: count(written.max()),
        reserve: written.reserve().value,
        unlisted,
        known: written.known().value.iter().map(known).collect(),
    })
}

fn retry(written: &raw::Retry) -> Retry {
    Retry {
        max: small(written.max()),
        budget: written.budget().value,
        buffer: count(written.buffer()),
    }
}

fn eject(written: &raw::Eject) -> Eject {
    Eject {
        consecutive: small(written.consecutive()),
        time: written.time().value,
        time_max: written.time_max().value,
        failure_percent: small(written.failure_percent()),
        failure_min: small(written.failure_min()),
        max_percent: small(written.max_percent()),
    }
}

fn health(written: &raw::Health) -> Health {
    Health {
        path: written.path().value.clone(),
        interval: written.interval().value,
        timeout: written.timeout().value,
        unhealthy: small(written.unhealthy()),
        healthy: small(written.healthy()),
    }
}

fn keepalive(written: &raw::Keepalive) -> Keepalive {
    Keepalive { idle: written.idle().value, age: written.age().value, max: count(written.max()) }
}

fn deployment(written: &raw::Deployment) -> Deployment {
    let secrets = &written.secrets().value;
    Deployment {
        image: written.image.as_ref().map(|image| image.value.clone()),
        command: list(written.command()),
        env: strings(written.env()),
        secrets: secrets
            .iter()
            .map(|(name, secret)| (name.clone(), secret.value.clone()))
            .collect(),
        requests: resources(&written.requests().value),
        limits: resources(&written.limits().value),
    }
}

fn resources(written: &raw::Resources) -> Resources {
    Resources {
        cpu_millis: written.cpu.map(|cpu| cpu.value),
        memory: written.memory.map(|memory| memory.value),
    }
}

fn scale(written: &raw::Scale) -> Scale {
    let min = small(written.min());
    let (up, down) = (&written.up().value, &written.down().value);
    Scale {
        min,
        max: written.max.as_ref().map_or(min.max(1), small),
        cpu: Some(small(written.cpu())),
        load: Some(small(written.load())),
        idle: written.idle.map(|idle| idle.value),
        up: ScaleUp {
            window: up.window().value,
            pods: small(up.pods()),
            period: up.period().value,
        },
        down: ScaleDown { window: down.window().value },
    }
}

/// A number that its kind bounds far below `usize`.
fn count(written: &At<u64>) -> usize {
    usize::try_from(written.value).unwrap_or(usize::MAX)
}

/// A number that its kind bounds far below `u32`.
fn small(written: &At<u64>) -> u32 {
    u32::try_from(written.value).unwrap_or(u32::MAX)
}

fn list<T: Clone>(written: &At<Vec<At<T>>>) -> Vec<T> {
    written.value.iter().map(|item| item.value.clone()).collect()
}

fn strings(written: &At<BTreeMap<String, At<String>>>) -> BTreeMap<String, String> {
    written.value.iter().map(|(key, value)| (key.clone(), value.value.clone())).collect()
}
