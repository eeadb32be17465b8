//! What can't work in `deployment` and `scale`, an agent's or the gateway's.

use crate::raw::{Deployment, Resources, Scale};
use crate::reader::{Notes, Origin};
use crate::section::At;
use crate::units;

/// Contradictions of a deployment.
pub(crate) fn check_deployment(deployment: &Deployment, notes: &mut Notes) {
    let (requests, limits) = (&deployment.requests().value, &deployment.limits().value);
    check_limits(requests, limits, notes);
    let command = deployment.command();
    if command.at.is_written() && command.value.first().is_none_or(|word| word.value.is_empty()) {
        let hint = "for example command = [\"agent\", \"--type\", \"qa\"]";
        notes.add(command.at, "`command` names no program", Some(hint.to_owned()));
    }
    for (name, secret) in &deployment.secrets().value {
        if let Some(plain) = deployment.env().value.get(name) {
            let message = format!("`{name}` stands both in `env` and in `secrets`");
            notes.add(
                plain.at.max(secret.at),
                message,
                Some("leave out one of the two".to_owned()),
            );
        }
    }
}

fn check_limits(requests: &Resources, limits: &Resources, notes: &mut Notes) {
    let mut check = |what: &str,
                     request: &Option<At<u64>>,
                     limit: &Option<At<u64>>,
                     show: fn(u64) -> String| {
        let (Some(request), Some(limit)) = (request, limit) else { return };
        if limit.value < request.value {
            let (limited, requested) = (show(limit.value), show(request.value));
            let message = format!("the {what} limit, {limited}, is under the request, {requested}");
            let hint = format!("limits.{what} = \"{requested}\" or more, or a smaller request");
            notes.add(limit.at.max(request.at), message, Some(hint));
        }
    };
    check("cpu", &requests.cpu, &limits.cpu, units::show_cpu);
    check("memory", &requests.memory, &limits.memory, units::show_size);
}

/// Contradictions of a scale; `deployment` is what it scales.
pub(crate) fn check_scale(scale: &At<Scale>, deployment: Option<&Deployment>, notes: &mut Notes) {
    let scale = &scale.value;
    let min = scale.min();
    if min.value == 0 && scale.idle.is_none() && !scale.partial {
        let hint = "for example idle = \"15m\"";
        let message =
            "`min = 0` parks the agent when it is idle, and there is no `idle` to say when";
        notes.add(min.at, message, Some(hint.to_owned()));
    }
    let Some(max) = &scale.max else { return };
    if max.value < min.value {
        let message = format!("`max` is {}, under `min`, {}", max.value, min.value);
        let hint = format!("max = {} or more", min.value);
        notes.add(max.at.max(min.at), message, Some(hint));
        return;
    }
    if max.value <= min.value.max(1) || scale.partial {
        return;
    }
    check_cpu_target(scale, deployment, notes);
}

/// Kubernetes measures CPU in percent of the request, and takes the limit for one where there is
/// none.
fn check_cpu_target(scale: &Scale, deployment: Option<&Deployment>, notes: &mut Notes) {
    let written = scale.cpu.as_ref().filter(|target| target.at.is_written());
    let (Some(target), Some(deployment)) = (written, deployment) else { return };
    let (requests, limits) = (&deployment.requests().value, &deployment.limits().value);
    let partial = deployment.partial || requests.partial || limits.partial;
    if requests.cpu.is_none() && limits.cpu.is_none() && !partial {
        let message = "`cpu` is a percentage of the CPU request, and there is none";
        let hint = "add deployment.requests.cpu, for example \"500m\"";
        notes.add(target.at, message, Some(hint.to_owned()));
    }
}

/// Contradictions of the gateway's own scale.
pub(crate) fn check_gateway_scale(
    scale: &At<Scale>,
    deployment: Option<&Deployment>,
    notes: &mut Notes,
) {
    let min = scale.value.min();
    if min.value == 0 {
        let message = "the gateway can't be parked: it is what wakes the agents";
        notes.add(
            min.at,
            message,
            Some("min = 1 or more; 2 survive the loss of a node".to_owned()),
        );
        return;
    }
    check_scale(scale, deployment, notes);
}

/// The place to name when a whole section is meant.
pub(crate) fn place<T>(section: &Option<At<T>>) -> Option<Origin> {
    section.as_ref().map(|section| section.at)
}
