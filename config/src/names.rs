//! Names that the gateway, the agents and the manifests agree on.

/// Header that carries the resolved agent type to the agent, and may name it in `POST /invoke`.
pub const AGENT_TYPE: &str = "x-agent-type";
/// Header that identifies one request from end to end.
pub const REQUEST_ID: &str = "x-request-id";
/// Header of a 503 that says: this request was not begun, it may be sent elsewhere.
pub const NOT_BEGUN: &str = "x-switchyard-not-begun";
/// Header with the stable code of an error that the gateway itself made.
pub const ERROR: &str = "x-switchyard-error";
/// Port on which agents listen in a pod.
pub const AGENT_PORT: u16 = 8000;
/// Where an agent makes cgroups (version 2) for what it starts, it goes into this one itself: its own cgroup is the
/// one above.
pub const AGENT_CGROUP: &str = "agent-itself";
/// Metric by which autoscalers ask for an agent's load: requests in flight, queued and held, over
/// all gateways.
pub const LOAD_METRIC: &str = "agent_load";
/// Label of [`LOAD_METRIC`] that names the agent's type.
pub const LOAD_LABEL: &str = "agent";
/// Longest name of a tenant, bytes.
pub const TENANT_MAX: usize = 128;
/// The tenant of who is not named, or whose name isn't believed.
pub const NOBODY: &str = "";
/// What tenants beyond the most that are told apart are together. No tenant can be called that: it
/// has a character that names don't.
pub const OTHER_TENANTS: &str = "(other)";

/// Whether this can be a tenant's name.
#[must_use]
pub fn is_tenant(name: &[u8]) -> bool {
    let fits = |b: &u8| b.is_ascii_alphanumeric() || b"._:/+=@-".contains(b);
    (1..=TENANT_MAX).contains(&name.len()) && name.iter().all(fits)
}
