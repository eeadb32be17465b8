//! Every metric of an agent. The text under each name is its help; labels come from closed sets.

use std::collections::HashMap;
use std::sync::Mutex;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use metrics::{Counter, Gauge, Histogram};
use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle, PrometheusRecorder};

use crate::sandbox::cgroup::OWN;

/// From a refusal (1 ms) to the longest answer (5 min), each about double the last.
const SECONDS: [f64; 14] =
    [0.001, 0.005, 0.01, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 15.0, 60.0, 120.0, 300.0];

/// Handles to the metrics of one process.
pub struct Metrics {
    recorder: PrometheusRecorder,
    handle: PrometheusHandle,
    requests: Mutex<HashMap<&'static str, Counter>>,
    /// `agent_in_flight`
    pub in_flight: Gauge,
    duration: Histogram,
    prompt_tokens: Counter,
    completion_tokens: Counter,
    model_calls: Counter,
    model_retries: Counter,
    model_fallbacks: Counter,
    replays: Counter,
    runs: Counter,
    /// What `qa` answers from.
    pub index: IndexGauges,
    resident: Gauge,
    peak: Gauge,
}

/// The index of documents.
#[derive(Clone)]
pub struct IndexGauges {
    /// `agent_index_files`
    pub files: Gauge,
    /// `agent_index_passages`
    pub passages: Gauge,
    /// `agent_index_vectors`
    pub vectors: Gauge,
    /// `agent_index_left_out`
    pub left_out: Gauge,
}

impl Metrics {
    /// Registers everything, so that each metric is there from the first scrape on.
    pub fn new() -> Self {
        let recorder = PrometheusBuilder::new()
            .set_buckets(&SECONDS)
            .expect("the list of buckets is not empty")
            .build_recorder();
        let handle = recorder.handle();
        metrics::with_local_recorder(&recorder, describe);
        let counter = |name: &'static str| {
            metrics::with_local_recorder(&recorder, || metrics::counter!(name))
        };
        let gauge =
            |name: &'static str| metrics::with_local_recorder(&recorder, || metrics::gauge!(name));
        let tokens = |kind: &'static str| {
            metrics::with_local_recorder(
                &recorder,
                || metrics::counter!("agent_tokens_total", "kind" => kind),
            )
        };
        let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        gauge("process_start_time_seconds").set(since_epoch.as_secs_f64());
        let made = Self {
            in_flight: gauge("agent_in_flight"),
            duration: metrics::with_local_recorder(&recorder, || {
                metrics::histogram!("agent_request_duration_seconds")
            }),
            prompt_tokens: tokens("prompt"),
            completion_tokens: tokens("completion"),
            model_calls: counter("agent_model_calls_total"),
            model_retries: counter("agent_model_retries_total"),
            model_fallbacks: counter("agent_model_fallbacks_total"),
            replays: counter("agent_replays_total"),
            runs: counter("agent_runs_total"),
            index: IndexGauges {
                files: gauge("agent_index_files"),
                passages: gauge("agent_index_passages"),
                vectors: gauge("agent_index_vectors"),
                left_out: gauge("agent_index_left_out"),
            },
            resident: gauge("process_resident_memory_bytes"),
            peak: gauge("cgroup_memory_peak_bytes"),
            requests: Mutex::new(HashMap::new()),
            handle,
            recorder,
        };
        made.request("ok").increment(0);
        made
    }

    /// Counts one finished request. `outcome` is `ok`, `client-gone` or an error's code.
    pub fn finished(&self, outcome: &'static str, took: Duration) {
        self.request(outcome).increment(1);
        self.duration.record(took.as_secs_f64());
    }

    /// Counts one call of the model.
    pub fn model_call(&self, retries: u32, prompt: u64, completion: u64) {
        self.model_calls.increment(1);
        self.model_retries.increment(retries.into());
        self.prompt_tokens.increment(prompt);
        self.completion_tokens.increment(completion);
    }

    /// Counts an answer of the model server at that place in the list, from 0.
    pub fn model_server(&self, at: usize) {
        self.model_fallbacks.increment((at > 0).into());
    }

    /// Counts an answer that was given again for its idempotency key.
    pub fn replay(&self) {
        self.replays.increment(1);
    }

    /// Counts one command run in the sandbox.
    pub fn run(&self) {
        self.runs.increment(1);
    }

    /// The Prometheus text.
    pub fn render(&self) -> String {
        self.resident.set(resident_bytes() as f64);
        self.peak.set(peak_bytes() as f64);
        self.handle.render()
    }

    /// Folds the samples taken since the last call into the buckets: to be called every few seconds, or
    /// memory grows while nobody scrapes.
    pub fn fold(&self) {
        self.handle.run_upkeep();
    }

    fn request(&self, outcome: &'static str) -> Counter {
        let mut requests = self.requests.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        requests
            .entry(outcome)
            .or_insert_with(|| {
                metrics::with_local_recorder(
                    &self.recorder,
                    || metrics::counter!("agent_requests_total", "outcome" => outcome),
                )
            })
            .clone()
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

fn describe() {
    use metrics::{describe_counter as counter, describe_gauge as gauge};
    counter!("agent_requests_total", "Requests to /invoke: ok, client-gone, or an error's code");
    gauge!("agent_in_flight", "Requests that are worked on, to their body's last byte");
    metrics::describe_histogram!(
        "agent_request_duration_seconds",
        "Request's head to the reply's last byte"
    );
    counter!("agent_tokens_total", "Tokens, as the model server reports them, by kind");
    counter!("agent_model_calls_total", "Calls of the model server that were answered");
    counter!("agent_model_retries_total", "Further attempts at a call of the model server");
    counter!(
        "agent_model_fallbacks_total",
        "Answers of another model server than the preferred one"
    );
    counter!("agent_replays_total", "Answers given again for their idempotency key");
    counter!("agent_runs_total", "Commands run in the sandbox");
    gauge!("agent_index_files", "Documents that qa answers from");
    gauge!("agent_index_passages", "Passages of them");
    gauge!("agent_index_vectors", "Passages that have an embedding");
    gauge!("agent_index_left_out", "Files that are over a bound or no text; the log names them");
    gauge!("process_resident_memory_bytes", "Resident memory of this process");
    gauge!("process_start_time_seconds", "When it started, since the epoch");
    gauge!("cgroup_memory_peak_bytes", "Most memory that its cgroup has used; 0 where nobody says");
}

fn resident_bytes() -> u64 {
    let pages = std::fs::read_to_string("/proc/self/statm")
        .ok()
        .and_then(|text| text.split_ascii_whitespace().nth(1)?.parse::<u64>().ok());
    pages.unwrap_or(0) * rustix::param::page_size() as u64
}

/// The most that this process' cgroup has used, by version 2 or 1.
fn peak_bytes() -> u64 {
    let own = std::fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let of = |line: &str| {
        let (controllers, path) = line.split_once(':')?.1.split_once(':')?;
        // With its commands, where the agent stands one level below what holds them all.
        let path = path.strip_suffix(OWN).unwrap_or(path);
        let file = match controllers {
            "" => format!("/sys/fs/cgroup{path}/memory.peak"),
            "memory" => format!("/sys/fs/cgroup/memory{path}/memory.max_usage_in_bytes"),
            _ => return None,
        };
        std::fs::read_to_string(file).ok()?.trim().parse().ok()
    };
    own.lines().find_map(of).unwrap_or(0)
}
