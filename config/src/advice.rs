//! What is legal but unwise. A warning names what will happen, and is here only when someone would
//! be paged for it.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::check::{full_name, in_file_order, runs, services};
use crate::raw::{Agent, Deployment, Gateway, Root};
use crate::reader::{Notes, Origin};
use crate::section::At;
use crate::table::Discovery;
use crate::units::show_duration;

/// nginx (`proxy_read_timeout`) and AWS's application load balancer give up after that much
/// silence.
const PROXY_IDLE: Duration = Duration::from_secs(60);
/// Ends of variables' names that hold secrets.
const SECRET_NAMES: [&str; 4] = ["API_KEY", "TOKEN", "SECRET", "PASSWORD"];

/// Adds every warning about a checked table to the notes.
pub(crate) fn advise(root: &Root, notes: &mut Notes) {
    let gateway = &root.gateway().value;
    advise_gateway(gateway, notes);
    let agents = in_file_order(root);
    advise_drain(gateway, &agents, notes);
    if let Some(tenants) =
        root.tenants.as_ref().filter(|_| gateway.trusted_proxies().value.is_empty())
    {
        let message = "nobody's `tenants.header` is believed: `trusted_proxies` is empty";
        let hint = "trusted_proxies = [\"10.0.0.0/8\"]: who sets that header".to_owned();
        notes.add(tenants.at, message, Some(hint));
    }
    let served = services(root, &agents, |_, _, _| {});
    for (name, written) in &agents {
        let agent = &written.value;
        advise_clocks(agent, notes);
        advise_heartbeat(agent, notes);
        advise_queue(agent, notes);
        advise_scale(agent, notes);
        advise_split(agent, root, notes);
        advise_found(name, written, root, &served, notes);
        if let Some(deployment) = agent.deployment.as_ref().filter(|_| agent.shares.is_none()) {
            advise_deployment(deployment, agent.service.is_some(), notes);
        }
    }
}

fn advise_gateway(gateway: &Gateway, notes: &mut Notes) {
    let admin = gateway.admin();
    if admin.value.ip().is_unspecified() {
        let message = "`admin` listens on every address, and has no authentication";
        let hint = "127.0.0.1 here; a pod overrides it with `--admin`";
        notes.add(admin.at, message, Some(hint.to_owned()));
    }
    for network in &gateway.trusted_proxies().value {
        if network.value.prefix_len() == 0 {
            let message =
                format!("{} is everyone: any client can claim any address", network.value);
            notes.add(network.at, message, Some("list only your own proxies".to_owned()));
        }
    }
    if let Some(deployment) = &gateway.deployment {
        advise_env(&deployment.value, notes);
    }
}

fn advise_drain(gateway: &Gateway, agents: &[(&str, &At<Agent>)], notes: &mut Notes) {
    let Some(drain) = &gateway.drain_timeout else { return };
    let longest = agents.iter().max_by_key(|(_, agent)| agent.value.timeout().value);
    let Some((name, agent)) = longest else { return };
    let timeout = agent.value.timeout().value;
    if drain.value < timeout {
        let (short, long) = (show_duration(drain.value), show_duration(timeout));
        let message =
            format!("a restart cuts requests after {short}, and agent `{name}` may take {long}");
        notes.add(drain.at, message, Some(format!("drain_timeout = \"{long}\" or more")));
    }
}

/// A clock that can't fire because `timeout` fires first. An inherited one is no mistake where only
/// `timeout` is set.
fn advise_clocks(agent: &Agent, notes: &mut Notes) {
    let timeout = agent.timeout();
    let clocks = [
        ("connect_timeout", agent.connect_timeout.as_ref()),
        ("first_byte_timeout", agent.first_byte_timeout.as_ref()),
        ("idle_timeout", agent.idle_timeout.as_ref()),
    ];
    for (name, clock) in clocks {
        let Some(clock) = clock.filter(|clock| clock.at.is_written()) else { continue };
        let meant = clock.at.is_here() || !timeout.at.is_here();
        if clock.value > timeout.value && meant {
            let (clocked, total) = (show_duration(clock.value), show_duration(timeout.value));
            let message = format!("`{name}` never fires: it is {clocked}, over `timeout`, {total}");
            let hint = format!("{name} = \"{total}\" or less, or a longer timeout");
            notes.add(clock.at.max(timeout.at), message, Some(hint));
        }
    }
}

fn advise_heartbeat(agent: &Agent, notes: &mut Notes) {
    let beat = agent.heartbeat();
    let Some(pause) = beat.value else { return };
    let idle = agent.idle_timeout();
    let shown = show_duration(pause);
    if pause >= idle.value {
        let limit = show_duration(idle.value);
        let message = format!(
            "no heartbeat is ever sent: after {limit} of silence `idle_timeout` ends the stream, before {shown}"
        );
        let hint = "a shorter heartbeat, for example \"15s\"".to_owned();
        notes.add(beat.at.max(idle.at), message, Some(hint));
    } else if pause >= PROXY_IDLE {
        let message = format!(
            "a heartbeat every {shown} is too slow: nginx and AWS load balancers cut a stream that is silent for {}",
            show_duration(PROXY_IDLE)
        );
        notes.add(beat.at, message, Some("for example \"15s\"".to_owned()));
    }
}

/// A queue that is set but can't be used, or that outlasts its callers.
fn advise_queue(agent: &Agent, notes: &mut Notes) {
    let queue = agent.queue();
    let (max, timeout) = (queue.value.max(), queue.value.timeout());
    let parks = agent.scale.as_ref().is_some_and(|scale| scale.value.min().value == 0);
    if parks && max.value == 0 {
        let message = "a parked agent's first request has nowhere to wait: `queue.max` is 0";
        let place = agent.scale.as_ref().map_or(max.at, |scale| scale.value.min().at.max(max.at));
        notes.add(place, message, Some("queue = { max = 64 }, or scale.min = 1".to_owned()));
        return;
    }
    if max.value == 0 {
        return;
    }
    let fills = agent.max_in_flight().value > 0 || agent.memory().value.is_some();
    if queue.at.is_here() && !fills && !parks {
        let message = "the queue is never used: `max_in_flight` is 0, so no replica is ever full";
        notes.add(queue.at, message, Some("set max_in_flight, for example 8".to_owned()));
    }
    if timeout.value >= PROXY_IDLE {
        let message = format!(
            "a request may wait {} in the queue: nginx and AWS load balancers give up on it after {}",
            show_duration(timeout.value),
            show_duration(PROXY_IDLE)
        );
        notes.add(timeout.at, message, Some("for example \"30s\"".to_owned()));
    }
}

fn advise_scale(agent: &Agent, notes: &mut Notes) {
    let Some(At { value: scale, at }) = &agent.scale else { return };
    if at.is_here() && agent.deployment.is_none() {
        let message = "there is nothing to scale: this agent has no `deployment`";
        notes.add(*at, message, Some("leave `scale` out, or add a deployment".to_owned()));
        return;
    }
    let limit = agent.max_in_flight();
    if let Some(load) = scale
        .load
        .filter(|load| load.at.is_written() && limit.value > 0 && load.value > limit.value)
    {
        let message = format!(
            "with {} requests for each replica as the target and at most {} let in, it grows only once many wait",
            load.value, limit.value
        );
        notes.add(load.at.max(limit.at), message, Some(format!("load = {} or less", limit.value)));
    }
}

/// What an agent with `versions` has beside them and never uses.
fn advise_split(agent: &Agent, root: &Root, notes: &mut Notes) {
    let versions = &agent.versions().value;
    if versions.is_empty() {
        return;
    }
    let takes = |service: &str| {
        let full = full_name(service, root);
        let of = |version: &crate::raw::Version| {
            version.service.as_ref().map(|s| full_name(&s.value, root))
        };
        versions.iter().any(|version| of(&version.value).as_ref() == Some(&full))
    };
    let unused: Option<(&str, Origin)> = match &agent.service {
        Some(service) if !takes(&service.value) => Some(("service", service.at)),
        None if !agent.endpoints().value.is_empty() => Some(("endpoints", agent.endpoints().at)),
        _ => None,
    };
    if let Some((key, at)) = unused.filter(|(_, at)| at.is_here()) {
        let message = format!("`{key}` gets no traffic: `versions` says where all of it goes");
        notes.add(at, message, Some("make it one of the versions, or leave it out".to_owned()));
    }
}

/// An agent that the discovery which the table asks for by name can't find: its requests get 503.
/// Under "auto" only the place where it runs can tell.
fn advise_found(
    name: &str,
    agent: &At<Agent>,
    root: &Root,
    served: &BTreeMap<String, &str>,
    notes: &mut Notes,
) {
    let At { value: agent, at } = agent;
    if agent.shares.is_some() {
        return;
    }
    let listed = !agent.endpoints().value.is_empty();
    match root.gateway().value.discovery().value {
        Discovery::Auto => {}
        Discovery::Kubernetes | Discovery::Dns => {
            if agent.service.is_none()
                && agent.versions().value.is_empty()
                && !listed
                && runs(agent)
            {
                let message = format!("agent `{name}` has no `service` for `discovery` to look up");
                let hint = format!("add service = \"{name}-agent\", or endpoints");
                notes.add(*at, message, Some(hint));
            }
        }
        Discovery::Listed if !agent.versions().value.is_empty() => {
            advise_listed_versions(agent, root, served, notes);
        }
        Discovery::Listed if agent.service.is_some() && !listed && !runs(agent) => {
            let message =
                format!("`discovery` is \"listed\", and agent `{name}` lists no `endpoints`");
            let hint = "add endpoints, or leave `discovery` at \"auto\"".to_owned();
            notes.add(*at, message, Some(hint));
        }
        Discovery::Listed => {}
    }
}

fn advise_listed_versions(
    agent: &Agent,
    root: &Root,
    served: &BTreeMap<String, &str>,
    notes: &mut Notes,
) {
    let agents = root.agents.as_ref().map(|agents| &agents.value);
    for version in &agent.versions().value {
        let Some(service) = version.value.service.as_ref() else { continue };
        let owner =
            served.get(&full_name(&service.value, root)).and_then(|name| agents?.get(*name));
        let addressed = owner
            .is_some_and(|owner| !owner.value.endpoints().value.is_empty() || runs(&owner.value));
        if version.value.endpoints().value.is_empty() && !addressed {
            let message = format!(
                "`discovery` is \"listed\", and the version `{}` lists no `endpoints`",
                service.value
            );
            let hint = "add endpoints to it, or an agent that has this `service` and endpoints";
            notes.add(service.at, message, Some(hint.to_owned()));
        }
    }
}

fn advise_deployment(deployment: &At<Deployment>, has_service: bool, notes: &mut Notes) {
    let At { value: written, at } = deployment;
    let empty = written.image.is_none() && written.command().value.is_empty();
    if at.is_here() && has_service && empty {
        let message = "this deployment runs nothing: it has neither `image` nor `command`";
        let hint = "for example image = \"registry.example.com/agent:1.0.0\"".to_owned();
        notes.add(*at, message, Some(hint));
    }
    advise_env(written, notes);
}

/// Secrets in the clear, by the name of the variable; the value is nobody's business.
fn advise_env(deployment: &Deployment, notes: &mut Notes) {
    for (name, value) in &deployment.env().value {
        let secret = SECRET_NAMES.iter().any(|end| name.to_uppercase().ends_with(end));
        if secret && !value.value.is_empty() {
            let message = format!("`{name}` looks like a secret, and `env` is in the clear");
            let key = name.to_lowercase().replace('_', "-");
            let hint = format!("secrets = {{ {name} = \"agent-secrets/{key}\" }}");
            notes.add(value.at, message, Some(hint));
        }
    }
}
