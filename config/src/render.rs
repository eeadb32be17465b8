//! The table in force as JSON, for the admin port.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use crate::kinds::words::spelling;
use crate::table::{
    Agent, Deployment, Eject, Endpoint, Gateway, Health, Keepalive, Memory, Queue, Rate, Resources,
    Retry, Scale, Table, Tenant, Tenants, Version,
};
use crate::units::{show_cpu, show_duration, show_size};

/// The table with every default filled in, under its own keys and in its own spellings (`"300s"`,
/// `"64KiB"`).
///
/// Left out: the values of environment variables, and where secrets come from. `env` and `secrets`
/// are lists of names. Keys without a value (`service`, `scale`, …) and empty lists aren't there.
pub fn render_json(table: &Table) -> Value {
    let agents: Map<String, Value> =
        table.agents.iter().map(|(name, of)| (name.clone(), agent(of))).collect();
    tidy(json!({
        "gateway": gateway(&table.gateway),
        "kubernetes": {"namespace": table.kubernetes.namespace},
        "tenants": table.tenants.as_ref().map(tenants),
        "agents": agents,
    }))
}

/// Without what is null or empty: a table can't say either.
fn tidy(mut value: Value) -> Value {
    if let Value::Object(keys) = &mut value {
        keys.retain(|_, value| match value {
            Value::Null => false,
            Value::Array(items) => !items.is_empty(),
            Value::Object(keys) => !keys.is_empty(),
            _ => true,
        });
    }
    value
}

fn off_or(value: Option<Value>) -> Value {
    value.unwrap_or_else(|| json!("off"))
}

fn gateway(gateway: &Gateway) -> Value {
    let proxies: Vec<String> = gateway.trusted_proxies.iter().map(ToString::to_string).collect();
    tidy(json!({
        "listen": gateway.listen.to_string(),
        "admin": gateway.admin.to_string(),
        "workers": gateway.workers,
        "discovery": spelling(gateway.discovery),
        "drain_delay": show_duration(gateway.drain_delay),
        "drain_timeout": show_duration(gateway.drain_timeout),
        "header_timeout": show_duration(gateway.header_timeout),
        "body_timeout": show_duration(gateway.body_timeout),
        "keepalive_timeout": show_duration(gateway.keepalive_timeout),
        "max_header_bytes": show_size(gateway.max_header_bytes as u64),
        "max_connections": gateway.max_connections,
        "max_memory": gateway.max_memory.map(show_size),
        "route_body_max": show_size(gateway.route_body_max as u64),
        "trusted_proxies": proxies,
        "access_log": gateway.access_log,
        "deployment": gateway.deployment.as_ref().map(deployment),
        "scale": gateway.scale.as_ref().map(scale),
    }))
}

fn agent(agent: &Agent) -> Value {
    let versions: Vec<Value> = agent.versions.iter().map(version).collect();
    tidy(json!({
        "description": agent.description,
        "service": agent.service,
        "endpoints": endpoints(&agent.endpoints),
        "shares": agent.shares,
        "versions": versions,
        "protocol": spelling(agent.protocol),
        "max_body": show_size(agent.max_body),
        "connect_timeout": show_duration(agent.connect_timeout),
        "first_byte_timeout": show_duration(agent.first_byte_timeout),
        "idle_timeout": show_duration(agent.idle_timeout),
        "timeout": show_duration(agent.timeout),
        "heartbeat": off_or(agent.heartbeat.map(|pause| json!(show_duration(pause)))),
        "on_disconnect": spelling(agent.on_disconnect),
        "max_in_flight": agent.max_in_flight.unwrap_or(0),
        "memory": off_or(agent.memory.map(memory)),
        "rate": off_or(agent.rate.as_deref().map(rate)),
        "queue": queue(agent.queue),
        "affinity": off_or(agent.affinity.as_ref().map(|header| json!({"header": header}))),
        "retry": off_or(agent.retry.map(retry)),
        "eject": off_or(agent.eject.map(eject)),
        "health": off_or(agent.health.as_ref().map(health)),
        "keepalive": keepalive(agent.keepalive),
        "paths": agent.paths,
        "deployment": agent.deployment.as_deref().map(deployment),
        "scale": agent.scale.as_deref().map(scale),
    }))
}

fn endpoints(endpoints: &[Endpoint]) -> Vec<String> {
    endpoints.iter().map(|endpoint| format!("http://{endpoint}")).collect()
}

fn version(version: &Version) -> Value {
    tidy(json!({
        "service": version.service,
        "weight": version.weight,
        "endpoints": endpoints(&version.endpoints),
    }))
}

fn queue(queue: Queue) -> Value {
    json!({
        "max": queue.max,
        "bytes": show_size(queue.bytes),
        "timeout": show_duration(queue.timeout),
    })
}

fn memory(memory: Memory) -> Value {
    json!({
        "base": show_size(memory.base),
        "per_body_byte": memory.per_body_byte,
        "limit": show_size(memory.limit),
    })
}

fn rate(rate: &Rate) -> Value {
    tidy(json!({
        "requests": rate.requests,
        "bytes": rate.bytes.map(show_size),
        "concurrent": rate.concurrent,
        "window": show_duration(rate.window),
    }))
}

fn tenants(tenants: &Tenants) -> Value {
    let known: Map<String, Value> =
        tenants.known.iter().map(|(name, of)| (name.clone(), tenant(of))).collect();
    let mut value = tenant(&tenants.unlisted);
    value["header"] = json!(tenants.header);
    value["max"] = json!(tenants.max);
    value["reserve"] = json!(tenants.reserve);
    value["known"] = Value::Object(known);
    tidy(value)
}

fn tenant(tenant: &Tenant) -> Value {
    json!({
        "weight": tenant.weight,
        "priority": spelling(tenant.priority),
        "rate": off_or(tenant.rate.as_ref().map(rate)),
    })
}

fn retry(retry: Retry) -> Value {
    json!({
        "max": retry.max,
        "budget": retry.budget,
        "buffer": show_size(retry.buffer as u64),
    })
}

fn eject(eject: Eject) -> Value {
    json!({
        "consecutive": eject.consecutive,
        "time": show_duration(eject.time),
        "time_max": show_duration(eject.time_max),
        "failure_percent": eject.failure_percent,
        "failure_min": eject.failure_min,
        "max_percent": eject.max_percent,
    })
}

fn health(health: &Health) -> Value {
    json!({
        "path": health.path,
        "interval": show_duration(health.interval),
        "timeout": show_duration(health.timeout),
        "unhealthy": health.unhealthy,
        "healthy": health.healthy,
    })
}

fn keepalive(keepalive: Keepalive) -> Value {
    json!({
        "idle": show_duration(keepalive.idle),
        "age": show_duration(keepalive.age),
        "max": keepalive.max,
    })
}

fn deployment(deployment: &Deployment) -> Value {
    tidy(json!({
        "image": deployment.image,
        "command": deployment.command,
        "env": names(&deployment.env),
        "secrets": names(&deployment.secrets),
        "requests": resources(deployment.requests),
        "limits": resources(deployment.limits),
    }))
}

fn names<T>(variables: &BTreeMap<String, T>) -> Vec<&String> {
    variables.keys().collect()
}

fn resources(resources: Resources) -> Value {
    tidy(json!({
        "cpu": resources.cpu_millis.map(show_cpu),
        "memory": resources.memory.map(show_size),
    }))
}

fn scale(scale: &Scale) -> Value {
    let up = json!({
        "window": show_duration(scale.up.window),
        "pods": scale.up.pods,
        "period": show_duration(scale.up.period),
    });
    tidy(json!({
        "min": scale.min,
        "max": scale.max,
        "cpu": scale.cpu,
        "load": scale.load,
        "idle": scale.idle.map(show_duration),
        "up": up,
        "down": {"window": show_duration(scale.down.window)},
    }))
}
