//! The table as Kubernetes manifests: table in, a folder of files out. No I/O.
//!
//! Everything that the files say comes from the table; what the table leaves open has one default
//! here, a constant with its reason. Objects are JSON values until `yaml` writes them.

#![cfg_attr(test, allow(clippy::unwrap_used))]

mod agent;
mod base;
mod drift;
mod external_metrics;
mod gateway;
mod hpa;
pub mod lint;
mod monitoring;
mod object;
mod overlays;
mod plan;
mod pod;
mod yaml;

pub use agent::AGENT_IMAGE;
pub use base::render;
pub use drift::{DRIFT, drift};
pub use gateway::GATEWAY_IMAGE;
pub use plan::{Owned, notes, owned};
pub use yaml::{Unreadable, documents};

/// One file of the folder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct File {
    /// Where it belongs below the folder, for example `base/00-namespace.yaml`.
    pub path: String,
    /// All of its text.
    pub contents: String,
}

/// How each file that is rendered begins. A file that begins otherwise belongs to somebody else.
pub const MARK: &str = "# Made from the table by `switchyard render`.";

/// Most bytes of all values of one ConfigMap, as the API server has it.
pub const CONFIG_MAP_MAX: usize = 1 << 20;

/// Name of the gateway's Deployment, Service, ConfigMap and ServiceAccount.
pub const GATEWAY: &str = "switchyard";
/// Name of the gateway's Service for operators.
pub const ADMIN_SERVICE: &str = "switchyard-admin";
/// Name of the headless Service by which replicas of the gateway find each other.
pub const PEERS_SERVICE: &str = "switchyard-peers";
/// Name of all that the gateway's external metrics need: Service, Secret, permissions.
pub const EXTERNAL_METRICS: &str = "switchyard-external-metrics";
/// Port of the gateway's pods for external metrics. The kubelet's, on other addresses: firewalls
/// between a control plane and its nodes let it through.
pub const EXTERNAL_METRICS_PORT: u16 = 10250;
/// Key of the table in the gateway's ConfigMap, and the file's name in the pod.
pub const TABLE_KEY: &str = "switchyard.toml";
/// Folder in the gateway's pods where the ConfigMap is mounted.
pub const TABLE_FOLDER: &str = "/etc/switchyard";
/// Port of the gateway's pods for clients.
pub const CLIENT_PORT: u16 = 8080;
/// Port of the gateway's pods for operators.
pub const ADMIN_PORT: u16 = 9090;
