//! What can't work, though each value by itself could.

use std::collections::BTreeMap;

use crate::convert::memory_limit;
use crate::raw::{Agent, Gateway, Rate, Root, Tenants, Version};
use crate::reader::{Notes, Origin, quoted};
use crate::section::At;
use crate::shares::Shares;
use crate::size::{check_deployment, check_gateway_scale, check_scale, place};
use crate::table::Endpoint;
use crate::units;

/// Most agents that a hint lists.
const MAX_LISTED: usize = 8;

/// Adds every contradiction of the table to the notes.
pub(crate) fn check(root: &Root, notes: &mut Notes) {
    check_gateway(&root.gateway().value, notes);
    let agents = in_file_order(root);
    if agents.is_empty() && !root.partial && !notes.any() {
        let at = root.agents.as_ref().map_or(Origin::Here(0), |agents| agents.at);
        let hint = "add one: [agents.NAME] with endpoints = [\"http://127.0.0.1:8001\"]";
        notes.add(at, "there are no agents", Some(hint.to_owned()));
    }
    let shares = Shares::of(root);
    check_services(root, &agents, notes);
    if let Some(tenants) = &root.tenants {
        check_tenants(tenants, notes);
    }
    for (name, agent) in &agents {
        check_agent(name, agent, notes);
        check_shares(name, agent, root, &shares, notes);
        check_memory(&agent.value, runs_in(name, &agent.value, root, &shares), notes);
    }
    shares.note_circles(root, notes);
}

/// The agents as the file has them.
pub(crate) fn in_file_order(root: &Root) -> Vec<(&str, &At<Agent>)> {
    let all = root.agents.iter().flat_map(|agents| &agents.value);
    let mut agents: Vec<(&str, &At<Agent>)> = all.map(|(name, at)| (name.as_str(), at)).collect();
    agents.sort_by_key(|(_, agent)| agent.at);
    agents
}

fn check_gateway(gateway: &Gateway, notes: &mut Notes) {
    let (listen, admin) = (gateway.listen(), gateway.admin());
    let port = listen.value.port();
    let ips = (listen.value.ip(), admin.value.ip());
    let overlap = ips.0 == ips.1 || ips.0.is_unspecified() || ips.1.is_unspecified();
    if port != 0 && port == admin.value.port() && overlap {
        let message = format!("`listen` and `admin` are both on port {port}");
        let hint = "give them two ports, for example 8080 and 9090".to_owned();
        notes.add(listen.at.max(admin.at), message, Some(hint));
    }
    let deployment = gateway.deployment.as_ref().map(|deployment| &deployment.value);
    if let Some(deployment) = deployment {
        check_deployment(deployment, notes);
    }
    if let Some(scale) = &gateway.scale {
        check_gateway_scale(scale, deployment, notes);
    }
}

/// Which agent has which Service, by its full name; `twice` is told of who claims another's.
pub(crate) fn services<'r>(
    root: &'r Root,
    agents: &[(&'r str, &'r At<Agent>)],
    mut twice: impl FnMut(&'r str, &'r str, &At<String>),
) -> BTreeMap<String, &'r str> {
    let mut served: BTreeMap<String, &str> = BTreeMap::new();
    for (name, At { value: agent, .. }) in agents {
        let Some(service) = agent.service.as_ref().filter(|_| agent.shares.is_none()) else {
            continue;
        };
        let full = full_name(&service.value, root);
        match served.get(&full) {
            Some(first) => twice(first, name, service),
            None => drop(served.insert(full, name)),
        }
    }
    served
}

fn check_services(root: &Root, agents: &[(&str, &At<Agent>)], notes: &mut Notes) {
    services(root, agents, |first, second, service| {
        let full = full_name(&service.value, root);
        let message = format!("agents `{first}` and `{second}` both claim the Service `{full}`");
        let hint = format!("to run both in one Deployment, write shares = \"{first}\" instead");
        notes.add(service.at, message, Some(hint));
    });
}

/// `name.namespace` of a Service, and the port where there is one.
pub(crate) fn full_name(service: &str, root: &Root) -> String {
    let (name, port) = service.split_at(service.find(':').unwrap_or(service.len()));
    match name.contains('.') {
        true => service.to_owned(),
        false => format!("{name}.{}{port}", root.kubernetes().value.namespace().value),
    }
}

/// In whose Deployment an agent runs.
fn runs_in<'r>(name: &str, agent: &'r Agent, root: &'r Root, shares: &Shares<'_>) -> &'r Agent {
    let agents = root.agents.as_ref().map(|agents| &agents.value);
    let owner = shares.owner(name).and_then(|owner| agents?.get(owner));
    owner.map_or(agent, |owner| &owner.value)
}

fn check_tenants(tenants: &At<Tenants>, notes: &mut Notes) {
    let At { value: tenants, at } = tenants;
    if tenants.header.is_none() && !tenants.partial {
        let hint = "for example header = \"x-tenant-id\"".to_owned();
        notes.add(*at, "`tenants` needs the `header` that names them", Some(hint));
    }
    check_rate(tenants.rate(), notes);
    for tenant in tenants.known().value.values() {
        tenant.value.rate.iter().for_each(|rate| check_rate(rate, notes));
    }
}

fn check_rate(rate: &At<Option<Rate>>, notes: &mut Notes) {
    let Some(limits) = &rate.value else { return };
    let any = limits.requests.is_some() || limits.bytes.is_some() || limits.concurrent.is_some();
    if !any && !limits.partial {
        let hint = "for example rate = { requests = 600 }".to_owned();
        notes.add(rate.at, "this `rate` limits nothing", Some(hint));
    }
}

/// That there is something to fit in, and anything fits. `runs`: in whose Deployment.
fn check_memory(agent: &Agent, runs: &Agent, notes: &mut Notes) {
    let At { value, at } = agent.memory();
    let Some(memory) = value.as_ref().filter(|memory| !memory.partial) else { return };
    let Some(base) = memory.base else {
        let hint = "for example memory = { base = \"64MiB\", per_body_byte = 40 }".to_owned();
        return notes.add(*at, "`memory` needs a `base`, what any request needs", Some(hint));
    };
    let Some(limit) = memory_limit(memory, runs) else {
        let hint = "deployment = { limits = { memory = \"512MiB\" } }, or memory.limit".to_owned();
        let message = "`memory` needs to know what a replica has";
        return notes.add(*at, message, Some(hint));
    };
    if base.value > limit.value {
        let (base_shown, limit) = (units::show_size(base.value), units::show_size(limit.value));
        let message =
            format!("no request would ever fit: each needs {base_shown}, a replica has {limit}");
        notes.add(base.at, message, Some("a smaller base, or a larger limit".to_owned()));
    }
}

/// What concerns the agent alone.
fn check_agent(name: &str, agent: &At<Agent>, notes: &mut Notes) {
    let At { value: agent, at } = agent;
    check_reachable(name, agent, *at, notes);
    check_versions(agent, notes);
    if let Some(affinity) = &agent.affinity().value
        && affinity.header.is_none()
        && !affinity.partial
    {
        let hint = "for example affinity = { header = \"x-session-id\" }".to_owned();
        notes.add(agent.affinity().at, "`affinity` needs a `header`", Some(hint));
    }
    check_rate(agent.rate(), notes);
    if let Some(eject) = &agent.eject().value {
        let (time, most) = (eject.time(), eject.time_max());
        if time.value > most.value {
            let (time_shown, most_shown) =
                (units::show_duration(time.value), units::show_duration(most.value));
            let message = format!("`time` is {time_shown}, over `time_max`, {most_shown}");
            let hint = format!("time_max = \"{time_shown}\" or more");
            notes.add(time.at.max(most.at), message, Some(hint));
        }
    }
    if let Some(deployment) = &agent.deployment {
        check_deployment(&deployment.value, notes);
    }
    if let Some(scale) = &agent.scale {
        check_scale(scale, agent.deployment.as_ref().map(|deployment| &deployment.value), notes);
    }
}

/// Whether there is a program to start; an empty command is a problem of its own.
pub(crate) fn runs(agent: &Agent) -> bool {
    agent.deployment.as_ref().is_some_and(|At { value: deployment, .. }| {
        deployment.command().at.is_written() || deployment.partial
    })
}

fn check_reachable(name: &str, agent: &Agent, at: Origin, notes: &mut Notes) {
    let listed = !agent.endpoints().value.is_empty() || !agent.versions().value.is_empty();
    let named = agent.service.is_some() || agent.shares.is_some();
    if listed || named || runs(agent) || agent.partial {
        return;
    }
    let message = format!(
        "agent `{name}` has neither `endpoints` nor `service` nor something to run (`deployment.command`)"
    );
    let hint = "for example endpoints = [\"http://127.0.0.1:8001\"]".to_owned();
    notes.add(at, message, Some(hint));
}

/// The traffic split, and that no address is listed twice.
fn check_versions(agent: &Agent, notes: &mut Notes) {
    let versions = agent.versions();
    let mut services: BTreeMap<&str, Origin> = BTreeMap::new();
    let mut seen: BTreeMap<&Endpoint, Origin> = BTreeMap::new();
    check_endpoints(&agent.endpoints().value, &mut seen, notes);
    seen.clear();
    for At { value: version, at } in &versions.value {
        match &version.service {
            None if version.partial => {}
            None => {
                let hint = "for example { service = \"search-agent\", weight = 95 }".to_owned();
                notes.add(*at, "each of `versions` needs a `service`", Some(hint));
            }
            Some(service) if services.insert(&service.value, service.at).is_some() => {
                let message = format!("the Service `{}` is there twice", service.value);
                let hint = "write it once, with the sum of the weights".to_owned();
                notes.add(service.at, message, Some(hint));
            }
            Some(_) => {}
        }
        check_endpoints(&version.endpoints().value, &mut seen, notes);
    }
    let weighs = |version: &At<Version>| version.value.weight().value > 0 || version.value.partial;
    if !versions.value.is_empty() && !versions.value.iter().any(weighs) {
        let hint = "give at least one a `weight` of 1 or more".to_owned();
        notes.add(versions.at, "every weight is 0: no version would get a request", Some(hint));
    }
}

fn check_endpoints<'r>(
    endpoints: &'r [At<Endpoint>],
    seen: &mut BTreeMap<&'r Endpoint, Origin>,
    notes: &mut Notes,
) {
    for endpoint in endpoints {
        if seen.insert(&endpoint.value, endpoint.at).is_some() {
            let message = format!("http://{} is there twice", endpoint.value);
            notes.add(endpoint.at, message, Some("each replica has its own address".to_owned()));
        }
    }
}

/// That `shares` names an agent, and nothing beside it says otherwise.
fn check_shares(
    name: &str,
    agent: &At<Agent>,
    root: &Root,
    shares: &Shares<'_>,
    notes: &mut Notes,
) {
    let At { value: agent, .. } = agent;
    let Some(other) = &agent.shares else { return };
    let agents = root.agents.as_ref().map(|agents| &agents.value);
    let names = || agents.into_iter().flat_map(|agents| agents.keys()).map(String::as_str);
    if !agents.is_some_and(|agents| agents.contains_key(&other.value)) {
        let near = notes.nearest(&other.value, names().filter(|known| *known != name));
        let hint = match near {
            Some(near) => format!("did you mean \"{near}\"?"),
            None => others(name, agents),
        };
        let message = format!("there is no agent `{}` to share", quoted(&other.value));
        notes.add(other.at, message, Some(hint));
    }
    let beside = [
        ("endpoints", place(&agent.endpoints)),
        ("service", place(&agent.service)),
        ("versions", place(&agent.versions)),
        ("deployment", place(&agent.deployment)),
        ("scale", place(&agent.scale)),
    ];
    for (key, at) in beside {
        let Some(at) = at.filter(|at| at.is_here()) else { continue };
        let message = format!("`{key}` can't stand beside `shares`");
        let hint = format!(
            "agent `{name}` runs in `{}`'s Deployment: leave out one of the two",
            other.value
        );
        notes.add(at, message, Some(hint));
    }
    check_shared_protocol(agent, shares.owner(name), root, notes);
}

/// The agents that could be shared, when they are few.
fn others(name: &str, agents: Option<&BTreeMap<String, At<Agent>>>) -> String {
    let others = agents.into_iter().flat_map(|agents| agents.keys()).filter(|known| *known != name);
    let named: Vec<&str> = others.take(MAX_LISTED + 1).map(String::as_str).collect();
    match named.len() {
        0 | MAX_LISTED.. => "write the name of another agent in this table".to_owned(),
        _ => format!("the other agents are {}", named.join(", ")),
    }
}

fn check_shared_protocol(agent: &Agent, owner: Option<&str>, root: &Root, notes: &mut Notes) {
    let owner =
        root.agents.as_ref().zip(owner).and_then(|(agents, name)| agents.value.get_key_value(name));
    let (protocol, Some((name, owner))) = (agent.protocol(), owner) else { return };
    if protocol.at.is_here() && protocol.value != owner.value.protocol().value {
        let message =
            format!("`protocol` is not that of `{name}`, in whose Deployment this agent runs");
        notes.add(protocol.at, message, Some("leave it out".to_owned()));
    }
}
