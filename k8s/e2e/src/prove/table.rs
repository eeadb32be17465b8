//! Tables of the proofs, as a user would write them.

use super::Context;

/// The parts that every table has: small pods, short pauses. `keys` are further keys of `[gateway]`.
pub(crate) fn gateway(context: &Context, namespace: &str, keys: &str) -> String {
    let image = &context.settings.gateway_image;
    format!(
        r#"[gateway]
access_log = false
{keys}

[gateway.deployment]
image    = "{image}"
requests = {{ cpu = "20m", memory = "64Mi" }}
limits   = {{ memory = "256Mi" }}

[kubernetes]
namespace = "{namespace}"
"#
    )
}

/// An agent type whose replicas run this program. `keys` are further keys of the agent,
/// `deployment` of what runs.
pub(crate) fn agent(context: &Context, name: &str, keys: &str, deployment: &str) -> String {
    let image = &context.settings.e2e_image;
    format!(
        r#"
[agents.{name}]
service = "{name}-agent"
timeout = "120s"
{keys}

[agents.{name}.deployment]
image    = "{image}"
command  = ["e2e", "agent"]
requests = {{ cpu = "10m", memory = "16Mi" }}
{deployment}
"#
    )
}
