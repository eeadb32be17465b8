//! The table as used: valid, `[defaults]` applied, every built-in default filled in.
//!
//! What is written in the file is [`crate::raw`]; [`crate::convert`] makes the one from the other.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use ipnet::IpNet;

/// A valid table, every default filled in.
#[derive(Debug, Clone, PartialEq)]
pub struct Table {
    /// The gateway's own settings.
    pub gateway: Gateway,
    /// Where the manifests go.
    pub kubernetes: Kubernetes,
    /// Who the callers are; `None`: all are one.
    pub tenants: Option<Tenants>,
    /// Agents by type, in alphabetical order.
    pub agents: BTreeMap<String, Agent>,
    /// SHA-256 of the file's bytes, lower-case hex, all 64 digits.
    pub hash: String,
}

/// `[gateway]`.
#[derive(Debug, Clone, PartialEq)]
pub struct Gateway {
    /// Where clients connect.
    pub listen: SocketAddr,
    /// Where operators connect.
    pub admin: SocketAddr,
    /// Worker threads; 0 means one per CPU that the cgroup allows.
    pub workers: usize,
    /// Where replicas are looked up.
    pub discovery: Discovery,
    /// How long after SIGTERM new work is still accepted.
    pub drain_delay: Duration,
    /// How long after that open requests may go on. Default: the longest agent's timeout + 30 s.
    pub drain_timeout: Duration,
    /// A request's head must be complete within this time of its first byte.
    pub header_timeout: Duration,
    /// Longest pause between two pieces of a request's body.
    pub body_timeout: Duration,
    /// How long an idle client connection is kept.
    pub keepalive_timeout: Duration,
    /// Largest request head, bytes.
    pub max_header_bytes: usize,
    /// Most client connections at once.
    pub max_connections: usize,
    /// Beyond this much memory of its own, bytes, new requests are refused. `None`: nine tenths of the
    /// cgroup's limit, where there is one.
    pub max_memory: Option<u64>,
    /// How far a body is read to find its agent, bytes.
    pub route_body_max: usize,
    /// Networks whose forwarded headers are believed.
    pub trusted_proxies: Vec<IpNet>,
    /// Whether each request is logged.
    pub access_log: bool,
    /// What runs, for the manifests.
    pub deployment: Option<Deployment>,
    /// How it scales, for the manifests.
    pub scale: Option<Scale>,
}

/// Where an agent's replicas are looked up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Discovery {
    /// Kubernetes in a pod, else listed.
    Auto,
    /// EndpointSlices of the agent's Service.
    Kubernetes,
    /// Addresses of the agent's Service name.
    Dns,
    /// The table's `endpoints`.
    Listed,
}

/// `[kubernetes]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kubernetes {
    /// Namespace of everything that is rendered.
    pub namespace: String,
}

/// `[tenants]`.
#[derive(Debug, Clone, PartialEq)]
pub struct Tenants {
    /// The request header that names the caller, lower case.
    pub header: String,
    /// Most tenants that are told apart.
    pub max: usize,
    /// What each lower class gets, while it waits, of all that is served.
    pub reserve: f64,
    /// Those that are not listed.
    pub unlisted: Tenant,
    /// The listed ones, by name.
    pub known: BTreeMap<String, Tenant>,
}

/// One tenant.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Tenant {
    /// Its share, relative to the others that wait.
    pub weight: u32,
    /// Its class.
    pub priority: Priority,
    /// What it may ask of all agents together; `None` is "off".
    pub rate: Option<Rate>,
}

/// A class of tenants: those of a higher one are served first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Priority {
    /// Before all others.
    High,
    /// When nobody of `high` waits.
    Normal,
    /// When nobody else waits.
    Low,
}

/// `rate = { requests, bytes, concurrent, window }`, over all gateways. `None`: no limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate {
    /// Requests in a window.
    pub requests: Option<u64>,
    /// Bytes of request bodies in a window.
    pub bytes: Option<u64>,
    /// Requests at once, waiting ones too.
    pub concurrent: Option<u32>,
    /// The window.
    pub window: Duration,
}

/// `[agents.<type>]`, with `[defaults]` applied.
#[derive(Debug, Clone, PartialEq)]
pub struct Agent {
    /// The type: a DNS-1123 label of at most 63 characters.
    pub name: String,
    /// One line for people; may be empty.
    pub description: String,
    /// The Kubernetes Service, `name` or `name.namespace`.
    pub service: Option<String>,
    /// Addresses for listed discovery.
    pub endpoints: Vec<Endpoint>,
    /// The agent in whose Deployment this one runs (never one that shares itself: chains are
    /// resolved).
    pub shares: Option<String>,
    /// Weighted traffic split; empty when there is none.
    pub versions: Vec<Version>,
    /// How replicas speak.
    pub protocol: Protocol,
    /// Largest request body, bytes.
    pub max_body: u64,
    /// Clock: a connection to a replica is made within this.
    pub connect_timeout: Duration,
    /// Clock: request sent to response head. Default: `timeout`.
    pub first_byte_timeout: Duration,
    /// Clock: between two pieces of a response; the only clock on upgraded connections.
    pub idle_timeout: Duration,
    /// Clock: admitted to last byte, retries included.
    pub timeout: Duration,
    /// SSE comments to a client whose stream is silent for this long; `None` is "off".
    pub heartbeat: Option<Duration>,
    /// What a client's leaving does.
    pub on_disconnect: OnDisconnect,
    /// Requests at once per replica; `None` is no limit (0 in the table).
    pub max_in_flight: Option<u32>,
    /// What a request needs of its replica's memory; `None` is "off".
    pub memory: Option<Memory>,
    /// What each tenant may ask this agent for; `None` is "off".
    pub rate: Option<Box<Rate>>,
    /// Where requests wait when every replica is full.
    pub queue: Queue,
    /// Session affinity: the request header whose value sticks to a replica, lower case; `None` is
    /// "off".
    pub affinity: Option<String>,
    /// Retries; `None` is "off".
    pub retry: Option<Retry>,
    /// Passive health; `None` is "off".
    pub eject: Option<Eject>,
    /// Active health; `None` is "off".
    pub health: Option<Health>,
    /// Upstream connections.
    pub keepalive: Keepalive,
    /// Renamed paths: as the client asks (after the mount) to as the agent is asked.
    pub paths: BTreeMap<String, String>,
    /// What runs. Apart, as is `scale`: what requests ask of many agents lies the closer together.
    pub deployment: Option<Box<Deployment>>,
    /// How many run. `None`: one, and `kubectl scale` has the last word.
    pub scale: Option<Box<Scale>>,
}

/// One listed address, `http://host:port`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Endpoint {
    /// IP address or host name, without brackets.
    pub host: String,
    /// TCP port.
    pub port: u16,
}

impl std::fmt::Display for Endpoint {
    /// The authority: `host:port`, with brackets around IPv6.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

/// One side of a traffic split.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Version {
    /// Its Service. Under listed discovery its addresses are `endpoints`, or those of the agent
    /// that has this `service`.
    pub service: String,
    /// Its share of the traffic, relative to the sum of weights. 0 takes none.
    pub weight: u32,
    /// Addresses for listed discovery; may be empty.
    pub endpoints: Vec<Endpoint>,
}

/// How a replica speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Protocol {
    /// HTTP/1.1.
    Http1,
    /// HTTP/2 with prior knowledge.
    H2c,
}

/// What a client's leaving does to its request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnDisconnect {
    /// The exchange with the agent is cancelled.
    Cancel,
    /// The agent finishes; its place is kept and counted as held.
    Continue,
}

/// `memory = { base, per_body_byte, limit }`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Memory {
    /// What a request needs whatever its size, bytes.
    pub base: u64,
    /// And for each byte of its body.
    pub per_body_byte: f64,
    /// What a replica has, bytes.
    pub limit: u64,
}

impl Memory {
    /// What a request with such a body needs, bytes.
    #[must_use]
    pub fn need(&self, body: u64) -> u64 {
        self.base.saturating_add((self.per_body_byte * body as f64) as u64)
    }
}

/// `queue = { max, bytes, timeout }`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Queue {
    /// Most requests that wait; 0: none waits.
    pub max: usize,
    /// Most bytes of their bodies that are held meanwhile.
    pub bytes: u64,
    /// Longest wait.
    pub timeout: Duration,
}

/// `retry = { max, budget, buffer }`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Retry {
    /// Further attempts after the first.
    pub max: u32,
    /// Share of the last 10 s' requests that may be retries, at least 3.
    pub budget: f64,
    /// How much of a body is kept to send it again, bytes.
    pub buffer: usize,
}

/// `eject = { consecutive, time, time_max, failure_percent, failure_min, max_percent }`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Eject {
    /// Failures in a row that eject (a refused or reset connection ejects at once).
    pub consecutive: u32,
    /// First ejection; doubles with each that follows.
    pub time: Duration,
    /// Longest ejection.
    pub time_max: Duration,
    /// Share of failures in the last 10 s, percent, that ejects.
    pub failure_percent: u32,
    /// Fewest requests in those 10 s that can say so.
    pub failure_min: u32,
    /// Largest share of an agent's replicas that may be out, percent.
    pub max_percent: u32,
}

/// `health = { path, interval, timeout, unhealthy, healthy }`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Health {
    /// Asked with GET; 2xx is healthy.
    pub path: String,
    /// Between two probes of one replica.
    pub interval: Duration,
    /// For one probe.
    pub timeout: Duration,
    /// Failures in a row that make a replica unhealthy.
    pub unhealthy: u32,
    /// Successes in a row that make it healthy again.
    pub healthy: u32,
}

/// `keepalive = { idle, age, max }`: upstream connections of one worker to one replica.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Keepalive {
    /// How long one may lie unused.
    pub idle: Duration,
    /// How old one may become.
    pub age: Duration,
    /// Most that lie unused.
    pub max: usize,
}

/// `[agents.<type>.deployment]`: what runs, and its size.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Deployment {
    /// Container image.
    pub image: Option<String>,
    /// Argument vector. What `up` runs.
    pub command: Vec<String>,
    /// Environment, values in the clear.
    pub env: BTreeMap<String, String>,
    /// Environment from Secrets: variable to Secret and key.
    pub secrets: BTreeMap<String, SecretRef>,
    /// What is reserved.
    pub requests: Resources,
    /// What it may not exceed.
    pub limits: Resources,
}

/// `"agent-secrets/openai-api-key"`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SecretRef {
    /// The Secret's name.
    pub name: String,
    /// The key in it.
    pub key: String,
}

/// CPU and memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Resources {
    /// Thousandths of a CPU.
    pub cpu_millis: Option<u64>,
    /// Bytes.
    pub memory: Option<u64>,
}

/// `[agents.<type>.scale]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Scale {
    /// Fewest replicas. What `up` starts.
    pub min: u32,
    /// Most replicas; the same as `min`: no autoscaler.
    pub max: u32,
    /// CPU target, percent of the request.
    pub cpu: Option<u32>,
    /// In-flight + queued + held per replica.
    pub load: Option<u32>,
    /// With `min = 0`: parked after that long without a request.
    pub idle: Option<Duration>,
    /// How it grows.
    pub up: ScaleUp,
    /// How it shrinks.
    pub down: ScaleDown,
}

/// `up = { window, pods, period }`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ScaleUp {
    /// Stabilisation window.
    pub window: Duration,
    /// Most new pods in a period.
    pub pods: u32,
    /// That period.
    pub period: Duration,
}

/// `down = { window }`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ScaleDown {
    /// Stabilisation window.
    pub window: Duration,
}
