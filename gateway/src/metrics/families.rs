//! Every metric there is, with what `/metrics` says of it.

use super::text::Family;

pub(crate) const REQUESTS: Family = Family::counter(
    "switchyard_requests_total",
    "Requests by outcome: ok, upstream_error or an error code. Counted when the response's \
     body has ended; agent is empty where none was found",
);
pub(crate) const RETRIES: Family =
    Family::counter("switchyard_retries_total", "Further attempts after the first");
pub(crate) const EJECTIONS: Family = Family::counter(
    "switchyard_ejections_total",
    "Times a replica was taken out by passive health",
);
pub(crate) const PARKS: Family = Family::counter(
    "switchyard_parks_total",
    "Times an idle agent was scaled to zero by this gateway",
);
pub(crate) const WAKES: Family =
    Family::counter("switchyard_wakes_total", "Times a parked agent was woken by this gateway");
pub(crate) const START: Family = Family::histogram(
    "switchyard_start_seconds",
    "From waking a parked agent to its first ready replica",
);
pub(crate) const PARKED: Family = Family::gauge(
    "switchyard_parked",
    "1 while the agent has no replica and a request would wake it, else 0",
);
pub(crate) const REQUEST_BYTES: Family =
    Family::counter("switchyard_request_bytes_total", "Bytes of request bodies received");
pub(crate) const RESPONSE_BYTES: Family = Family::counter(
    "switchyard_response_bytes_total",
    "Bytes of response bodies received from agents",
);
pub(crate) const RELOADS: Family =
    Family::counter("switchyard_reloads_total", "Edits of the table by result");
pub(crate) const DURATION: Family = Family::histogram(
    "switchyard_request_duration_seconds",
    "Head received to last byte of the response",
);
pub(crate) const FIRST_BYTE: Family =
    Family::histogram("switchyard_first_byte_seconds", "Request sent upstream to response head");
pub(crate) const QUEUE: Family = Family::histogram(
    "switchyard_queue_seconds",
    "Waiting for a place, where there was any waiting",
);
pub(crate) const LOAD: Family = Family::gauge(
    "switchyard_load",
    "Requests in flight, queued and held, over all gateways of the cluster",
);
pub(crate) const IN_FLIGHT: Family =
    Family::gauge("switchyard_in_flight", "Requests that have a place");
pub(crate) const QUEUED: Family =
    Family::gauge("switchyard_queued", "Requests that wait for a place");
pub(crate) const QUEUED_BYTES: Family = Family::gauge(
    "switchyard_queued_bytes",
    "Bytes of bodies held for requests that wait for a place",
);
pub(crate) const HELD: Family =
    Family::gauge("switchyard_held", "Requests whose client left and whose agent goes on");
pub(crate) const ENDPOINTS: Family = Family::gauge("switchyard_endpoints", "Replicas by state");
pub(crate) const TABLE_GENERATION: Family =
    Family::gauge("switchyard_table_generation", "Tables taken since the start");
pub(crate) const TABLE_HASH: Family = Family::gauge(
    "switchyard_table_hash",
    "First 12 hexadecimal digits of the table's hash, as a number",
);
pub(crate) const TABLE_REFUSED: Family = Family::gauge(
    "switchyard_table_refused",
    "1 while the last edit of the table stands refused, else 0",
);
pub(crate) const DISCOVERY_AGE: Family = Family::gauge(
    "switchyard_discovery_age_seconds",
    "How long the source of the replicas' addresses has been away; 0 while it is followed",
);
pub(crate) const CONFIG_MAP_AGE: Family = Family::gauge(
    "switchyard_config_map_age_seconds",
    "How long the table's ConfigMap could not be followed; 0 while it is",
);
pub(crate) const GATEWAYS: Family = Family::gauge(
    "switchyard_gateways",
    "Gateways of the cluster that are heard, this one included",
);
pub(crate) const CONNECTIONS: Family =
    Family::gauge("switchyard_connections", "Open client connections");
pub(crate) const WORKER_CONNECTIONS: Family =
    Family::gauge("switchyard_worker_connections", "Open client connections of a worker");
pub(crate) const MEMORY: Family =
    Family::gauge("switchyard_memory_bytes", "Resident memory of the gateway");
pub(crate) const MEMORY_MAX: Family = Family::gauge(
    "switchyard_memory_max_bytes",
    "Resident memory beyond which new requests are refused; 0 without a limit",
);
pub(crate) const SHEDDING: Family = Family::gauge(
    "switchyard_shedding",
    "1 while new requests are refused for want of memory, else 0",
);
pub(crate) const LOG_LINES_DROPPED: Family = Family::gauge(
    "switchyard_log_lines_dropped",
    "Log lines dropped because the writer could not keep up",
);
pub(crate) const BUILD_INFO: Family =
    Family::gauge("switchyard_build_info", "1, with the version as a label");
