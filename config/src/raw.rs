//! The table as written: every section and key there is, with kind, built-in default and meaning.
//!
//! This is the only list of keys. The reader, the JSON Schema and the reference page go by it.

use toml::Spanned;
use toml::de::DeValue;

use crate::kinds::pods::{AgentType, Argument, EnvValue, Image, Label, Secret, Service, Variable};
use crate::kinds::web::{Address, Header, Http, Network, Path, ProbePath, TenantName};
use crate::kinds::words::OneOf;
use crate::kinds::{
    Bytes, Clock, Cpu, Factor, Flag, Line, MAX_BYTES, Other, Pause, Share, Time, Whole, YEAR_MS,
};
use crate::reader::{Notes, Reader};
use crate::section::{
    At, Field, Kind, List, Map, OrOff, Section, Shape, built_in, merge_field, one_line, section,
};
use crate::{syntax, table};

/// Most requests that a limit or a queue can count.
const MILLION: u64 = 1_000_000;
/// Largest piece of a request that is ever kept in memory.
const MAX_KEPT: u64 = 64 << 20;
/// hyper's smallest read buffer.
const MIN_HEAD: u64 = 8 << 10;
/// Longest stabilisation window that Kubernetes takes.
const MAX_WINDOW_MS: u64 = 3_600_000;
/// Longest window of a rate.
const DAY_MS: u64 = 24 * 3_600_000;
/// Longest scaling period that Kubernetes takes.
const MAX_PERIOD_MS: u64 = 1_800_000;

section! {
    /// One file says what the agents are, how big, how they scale and how requests reach them.
    Root {
        /// The gateway's own settings.
        gateway: Gateway = {},
        /// Where the manifests go.
        kubernetes: Kubernetes = {},
        /// Who the callers are. Without it, all are one.
        tenants: Tenants,
        /// What holds for every agent that doesn't say otherwise: any key of an agent. Tables such
        /// as `queue` are merged key by key.
        defaults: Defaults,
        /// The agents by type. A type is a DNS-1123 label: 1 to 63 of `a-z`, `0-9` and `-`.
        agents: Map<AgentType, Agent>,
    }
}

section! {
    /// The gateway's own settings.
    Gateway {
        /// Where clients connect: HTTP/1.1, and HTTP/2 with prior knowledge. Port 0 takes a free
        /// one.
        listen: Address = "127.0.0.1:8080",
        /// Where operators connect: probes, metrics, admin API. It has no authentication: keep it
        /// off the public network.
        admin: Address = "127.0.0.1:9090",
        /// Worker threads; 0 is one per CPU that the cgroup allows.
        workers: Whole<0, 1024> = 0,
        /// Where replicas are looked up.
        discovery: OneOf<table::Discovery> = "auto",
        /// How long after SIGTERM new connections are still accepted, while endpoints propagate.
        drain_delay: Pause = "5s",
        /// How long after that open requests may go on.
        drain_timeout: Pause => "the longest agent's `timeout` + 30s",
        /// A request's head must be complete within this time.
        header_timeout: Clock = "10s",
        /// Longest pause between two pieces of a request's body.
        body_timeout: Clock = "30s",
        /// How long an idle client connection is kept.
        keepalive_timeout: Clock = "75s",
        /// Largest request head.
        max_header_bytes: Bytes<MIN_HEAD, { 16 << 20 }> = "64KiB",
        /// Most client connections at once; clamped to what the limit on open files allows.
        max_connections: Whole<1, 10_000_000> = 50000,
        /// Beyond this much memory of the gateway's own, new requests are refused until there is less.
        max_memory: Bytes<{ 16 << 20 }, MAX_BYTES>
            => "nine tenths of the memory limit of the gateway's cgroup, where it has one",
        /// How far the body of `POST /invoke` may be read to find its agent.
        route_body_max: Bytes<0, MAX_KEPT> = "64KiB",
        /// Networks whose `x-forwarded-*` and `forwarded` headers are believed.
        trusted_proxies: List<Network> = []; eg ["10.0.0.0/8"],
        /// Whether each request is logged.
        access_log: Flag = true,
        /// What runs as the gateway, for the manifests.
        deployment: Deployment,
        /// How the gateway scales, for the manifests.
        scale: Scale,
    }
}

section! {
    /// Where the manifests go.
    Kubernetes {
        /// The namespace of everything that is rendered, and of every `service` that names none.
        namespace: Label = "ai-agents",
    }
}

section! {
    /// Who the callers are: by it the places of a full agent are shared fairly.
    Tenants {
        /// The request header that names the caller. It is believed only from `trusted_proxies`, and
        /// taken out of anybody else's requests.
        header: Header as needed; eg "x-tenant-id",
        /// Most tenants that are told apart; further ones share one line, `other`. Those in `known`
        /// always have theirs.
        max: Whole<1, 100_000> = 256,
        /// What each lower class of priority gets, while it waits, of all that is served, however much
        /// the higher ones want.
        reserve: Share = 0.1,
        /// Share of who is not in `known`, relative to the others that wait.
        weight: Whole<1, 1_000> = 1,
        /// Priority of who is not in `known`.
        priority: OneOf<table::Priority> = "normal",
        /// What each who is not in `known` may ask of all agents together.
        rate: OrOff<Rate> = "off"; eg { requests = 600 },
        /// Tenants by name.
        known: Map<TenantName, Tenant> = {}; eg { acme = { weight = 3, priority = "high" } },
    }
}

section! {
    /// One tenant. What it doesn't say is as for those who are not listed.
    Tenant {
        /// Its share, relative to the others that wait.
        weight: Whole<1, 1_000> => "`tenants.weight`",
        /// Which class it waits in: a higher one is served first.
        priority: OneOf<table::Priority> => "`tenants.priority`",
        /// What it may ask of all agents together.
        rate: OrOff<Rate> => "`tenants.rate`"; eg { requests = 6000 },
    }
}

section! {
    /// What a caller may ask for, over all gateways. What is not there has no limit.
    Rate {
        /// Requests in a window.
        requests: Whole<1, { 1_000 * MILLION }>; eg 600,
        /// Bytes of request bodies in a window. A body that is larger than what is left is still taken
        /// if anything is left, and the next ones wait the longer.
        bytes: Bytes<1, MAX_BYTES>; eg "64MiB",
        /// Requests at once, those that wait in line too.
        concurrent: Whole<1, MILLION>; eg 20,
        /// The window.
        window: Time<1_000, DAY_MS> = "60s",
    }
}

section! {
    /// One type of agent.
    Agent {
        /// One line for people.
        description: Line = ""; eg "Writes and runs code",
        /// The Kubernetes Service, `name` or `name.namespace`, for `kubernetes` and `dns`
        /// discovery. With `dns` it is looked up as it is written and called on port 80, or on the
        /// one that follows: a headless Service needs its pods', `"coding-agent:8000"`.
        service: Service; eg "coding-agent",
        /// Addresses, for `listed` discovery and where `service` is absent. The port is 80 without
        /// one.
        endpoints: List<Http> = []; eg ["http://127.0.0.1:8001", "http://127.0.0.1:8002"],
        /// The agent in whose Deployment this one runs; it learns the type from `x-agent-type`.
        /// Clocks and limits stay this agent's own.
        shares: Other; eg "qa",
        /// A weighted split of the traffic.
        versions: List<Version> = []; eg [
            { service = "search-agent", weight = 95 },
            { service = "search-agent-next", weight = 5 }
        ],
        /// How replicas speak. An agent that `shares` speaks as the other does.
        protocol: OneOf<table::Protocol> = "http1",
        /// Largest request body.
        max_body: Bytes<1, MAX_BYTES> = "32MiB",
        /// A connection to a replica is made within this time.
        connect_timeout: Clock = "1s",
        /// From the request sent to the head of the response.
        first_byte_timeout: Clock => "the same as `timeout`",
        /// Between two pieces of a response. On upgraded connections it is the only clock.
        idle_timeout: Clock = "60s",
        /// From admitted (after the queue) to the last byte, retries included.
        timeout: Clock = "300s",
        /// Comments to a client whose event stream is silent for this long, so that nothing on the
        /// way cuts it.
        heartbeat: OrOff<Time<10, YEAR_MS>> = "off"; eg "15s",
        /// What a client's leaving does to its request.
        on_disconnect: OneOf<table::OnDisconnect> = "cancel",
        /// Requests at once for each replica, over all gateways; 0 is no limit.
        max_in_flight: Whole<0, MILLION> = 0,
        /// What a request needs of its replica's memory: a replica takes none that doesn't fit beside
        /// what it has.
        memory: OrOff<Memory> = "off"; eg { base = "64MiB", per_body_byte = 40 },
        /// What each tenant may ask this agent for; without `[tenants]`, all callers together.
        rate: OrOff<Rate> = "off"; eg { requests = 600 },
        /// Where requests wait when every replica is full.
        queue: Queue = {},
        /// Requests with the same value in a header go to the same replica.
        affinity: OrOff<Affinity> = "off"; eg { header = "x-session-id" },
        /// Further attempts for what the agent cannot have begun.
        retry: OrOff<Retry> = {},
        /// Passive health: replicas that fail are left alone for a while.
        eject: OrOff<Eject> = {},
        /// Active health: replicas are asked.
        health: OrOff<Health> = "off"; eg { path = "/readyz" },
        /// Connections to replicas, for each of the gateway's workers.
        keepalive: Keepalive = {},
        /// Renames: the path that a client asks for to the one that the agent is asked for. Others
        /// pass unchanged.
        paths: Map<Path, Path> = {}; eg { "/invoke" = "/run" },
        /// What runs, and its size.
        deployment: Deployment,
        /// How many run. Without it (or with `min` = `max`) there is no autoscaler.
        scale: Scale,
    }
}

section! {
    /// One side of a traffic split.
    Version {
        /// Its Kubernetes Service.
        service: Service as needed; eg "search-agent-next",
        /// Its share of the traffic, relative to the sum of all weights; 0 takes none.
        weight: Whole<0, MILLION> = 1,
        /// Addresses, for `listed` discovery; without them those of the agent that has this
        /// `service`.
        endpoints: List<Http> = []; eg ["http://127.0.0.1:8003"],
    }
}

section! {
    /// Where requests wait when every replica is full.
    Queue {
        /// Most requests that wait; 0: none waits.
        max: Whole<0, MILLION> = 64,
        /// Most bytes of their bodies that are held meanwhile; the rest is left unread.
        bytes: Bytes<0, MAX_BYTES> = "64MiB",
        /// Longest wait.
        timeout: Clock = "30s",
    }
}

section! {
    /// What a request needs of its replica's memory.
    Memory {
        /// Whatever its size.
        base: Bytes<0, MAX_BYTES> as needed; eg "64MiB",
        /// For each byte of its body. A body of unknown length that isn't here after 1 MiB counts as
        /// `max_body`.
        per_body_byte: Factor = 0; eg 40,
        /// What a replica has.
        limit: Bytes<1, MAX_BYTES> => "`deployment.limits.memory`",
    }
}

section! {
    /// Which requests go to the same replica.
    Affinity {
        /// The request header whose value decides.
        header: Header as needed; eg "x-session-id",
    }
}

section! {
    /// Further attempts for what the agent cannot have begun.
    Retry {
        /// Attempts after the first.
        max: Whole<0, 100> = 2,
        /// Share of the last 10 seconds' requests that may be retries, at least 3.
        budget: Share = 0.2,
        /// How much of a body is kept to send it again.
        buffer: Bytes<0, MAX_KEPT> = "64KiB",
    }
}

section! {
    /// Passive health: replicas that fail are left alone for a while.
    Eject {
        /// Failures in a row that eject. A refused or reset connection ejects at once.
        consecutive: Whole<1, MILLION> = 3,
        /// How long the first time; it doubles with each that follows.
        time: Clock = "1s",
        /// How long at most.
        time_max: Clock = "30s",
        /// Failures among the last 10 seconds' requests, answers of 500 and above too, that eject, in
        /// percent, if the other replicas fail less than half as often.
        failure_percent: Whole<1, 100> = 50,
        /// Fewest requests within those 10 seconds that can say so.
        failure_min: Whole<1, MILLION> = 10,
        /// Largest share of the replicas that may be out, in percent; never the last one.
        max_percent: Whole<1, 100> = 50,
    }
}

section! {
    /// Active health: replicas are asked.
    Health {
        /// Asked with GET; any 2xx is healthy.
        path: ProbePath = "/readyz",
        /// Between two probes of one replica.
        interval: Clock = "5s",
        /// For one probe.
        timeout: Clock = "2s",
        /// Failures in a row that take a replica out.
        unhealthy: Whole<1, MILLION> = 3,
        /// Successes in a row that bring it back.
        healthy: Whole<1, MILLION> = 1,
    }
}

section! {
    /// Connections to replicas, for each of the gateway's workers.
    Keepalive {
        /// How long one may lie unused. Stay under the agent's own: many servers close at 5
        /// seconds.
        idle: Clock = "4s",
        /// How old one may become.
        age: Clock = "5m",
        /// Most that lie unused for one replica.
        max: Whole<0, MILLION> = 64,
    }
}

section! {
    /// What runs, and its size.
    Deployment {
        /// The container image.
        image: Image; eg "registry.example.com/agent:1.0.0",
        /// The argument vector. `switchyard up` runs it.
        command: List<Argument> = []; eg ["agent", "--type", "coding"],
        /// Environment variables, in the clear.
        env: Map<Variable, EnvValue> = {}; eg { AGENT_MODEL = "gpt-4o" },
        /// Environment variables from Secrets: the Secret's name and the key in it. `switchyard up`
        /// takes them from its own environment.
        secrets: Map<Variable, Secret> = {}; eg { OPENAI_API_KEY = "agent-secrets/openai-api-key" },
        /// What is reserved for each replica.
        requests: Resources = {},
        /// What each replica may not exceed.
        limits: Resources = {},
    }
}

section! {
    /// CPU and memory of one replica.
    Resources {
        /// CPU: cores, or thousandths with `m`.
        cpu: Cpu; eg "500m",
        /// Memory.
        memory: Bytes<{ 1 << 20 }, MAX_BYTES>; eg "2GiB",
    }
}

section! {
    /// How many replicas run.
    Scale {
        /// Fewest replicas, and what `switchyard up` starts. 0 parks an idle agent (then `idle` is
        /// needed).
        min: Whole<0, 10_000> = 1,
        /// Most replicas.
        max: Whole<1, 10_000> => "the same as `min`, at least 1",
        /// CPU target in percent of the request.
        cpu: Whole<1, 1_000> = 60,
        /// Target for requests in flight, queued and held, for each replica.
        load: Whole<1, MILLION> = 3,
        /// With `min = 0`: parked after that long without a request.
        idle: Clock; eg "15m",
        /// How it grows.
        up: Up = {},
        /// How it shrinks.
        down: Down = {},
    }
}

section! {
    /// How it grows.
    Up {
        /// The lowest target of this long counts.
        window: Time<0, MAX_WINDOW_MS> = "30s",
        /// Most new replicas in a period.
        pods: Whole<1, 10_000> = 2,
        /// That period.
        period: Time<1_000, MAX_PERIOD_MS> = "60s",
    }
}

section! {
    /// How it shrinks.
    Down {
        /// The highest target of this long counts.
        window: Time<0, MAX_WINDOW_MS> = "300s",
    }
}

/// `[defaults]`: an agent's keys, remembered as such.
pub(crate) struct Defaults;

impl Kind for Defaults {
    type Value = Agent;

    fn shape() -> Shape {
        Agent::shape()
    }

    fn read(value: &Spanned<DeValue<'_>>, reader: &mut Reader<'_>) -> Option<Agent> {
        reader.in_defaults = true;
        let read = Agent::read(value, reader);
        reader.in_defaults = false;
        read
    }
}

/// What was written, and how far it could be read.
pub(crate) struct Written {
    /// The table; each agent has `[defaults]` and the built-in defaults under it.
    pub(crate) root: Root,
    /// The file was TOML to its end: what isn't in the table isn't in the file.
    pub(crate) whole: bool,
}

/// Reads a whole file. What is wrong with its text and its values stands in the notes; `None` when
/// the text is too far from TOML.
pub(crate) fn read(text: &str, notes: &mut Notes) -> Option<Written> {
    syntax::parse(text, notes, |tree, whole, notes| {
        let mut reader = Reader::new(notes, Root::shape);
        let mut root = Root::read(tree, &mut reader).unwrap_or_default();
        if let (Some(agents), Some(defaults)) = (&mut root.agents, &root.defaults) {
            for agent in agents.value.values_mut() {
                agent.value = Agent::merge(std::mem::take(&mut agent.value), &defaults.value);
            }
        }
        Written { root: Root::fill(root), whole }
    })
}
