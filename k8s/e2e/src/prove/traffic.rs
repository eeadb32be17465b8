//! A load in the cluster: a pod that asks the gateway's Service, and what it says of it.

use std::time::Duration;

use super::cluster::{SOON, until};
use super::failure::{Outcome, ensure};
use super::yard::Yard;
use crate::load::report::{Counts, Progress, Report};

/// For the last streams to end, and the pod with them.
const END: Duration = Duration::from_secs(180);
/// When a load ends by itself, seconds, should nobody tell it to.
const LONGEST: &str = "900";

/// What is asked.
#[derive(Clone, Copy)]
pub(crate) struct Order<'a> {
    /// Types, with commas.
    pub(crate) agents: &'a str,
    /// Requests a second.
    pub(crate) rate: u32,
    /// How long the agent holds each, milliseconds.
    pub(crate) hold_ms: u64,
    /// Streams open at once, and the seconds that each takes.
    pub(crate) streams: u32,
    pub(crate) stream_s: u64,
    /// The agents are fake ones, which say only which pod they are.
    pub(crate) plain: bool,
}

/// Events of a stream, each second.
const EVENTS: u64 = 2;

impl Default for Order<'_> {
    fn default() -> Self {
        Self { agents: "coding", rate: 0, hold_ms: 0, streams: 0, stream_s: 10, plain: false }
    }
}

/// A load that goes on until it is told to end.
pub(crate) struct Load<'a> {
    yard: &'a Yard<'a>,
    pod: String,
}

impl<'a> Load<'a> {
    /// Starts it, and waits until answers come and all its streams are open.
    pub(crate) async fn start(yard: &'a Yard<'a>, name: &str, order: Order<'_>) -> Outcome<Self> {
        let load = Self::begin(yard, name, order).await?;
        until("all streams open, and answers", SOON, async || {
            let now = load.progress().await?;
            Ok((now.open >= order.streams && now.good + u64::from(now.open) > 0).then_some(()))
        })
        .await?;
        Ok(load)
    }

    /// Starts it.
    pub(crate) async fn begin(yard: &'a Yard<'a>, name: &str, order: Order<'_>) -> Outcome<Self> {
        let (rate, hold) = (order.rate.to_string(), order.hold_ms.to_string());
        let (streams, events) = (order.streams.to_string(), (order.stream_s * EVENTS).to_string());
        let every = (1_000 / EVENTS).to_string();
        let readyz = "http://switchyard-admin:9090/readyz";
        let args = [
            "e2e",
            "load",
            "--agents",
            order.agents,
            "--rate",
            &rate,
            "--hold-ms",
            &hold,
            "--streams",
            &streams,
            "--events",
            &events,
            "--every-ms",
            &every,
            "--seconds",
            LONGEST,
            "--readyz",
            readyz,
        ];
        let plain = order.plain.then_some("--plain");
        let args: Vec<_> = args.into_iter().chain(plain).collect();
        let pod = format!("load-{name}");
        yard.start_pod(&pod, &args).await?;
        Ok(Self { yard, pod })
    }

    /// How far it is.
    pub(crate) async fn progress(&self) -> Outcome<Progress> {
        let line = self.yard.kubectl(&["logs", &self.pod, "--tail=1"]).await?;
        Ok(serde_json::from_str(line.trim())?)
    }

    /// Tells it to end, lets its streams come to theirs, and reads its report.
    pub(crate) async fn end(self) -> Outcome<Report> {
        let told = self.yard.kubectl(&["exec", &self.pod, "--", "e2e", "stop"]).await;
        let pod = format!("pod/{}", self.pod);
        until("the load's end", END, async || {
            let phase = self.yard.json(&["get", &pod]).await?["status"]["phase"].clone();
            ensure(phase != "Failed", || "the load failed".into())?;
            Ok((phase == "Succeeded").then_some(()))
        })
        .await?;
        told?;
        // Not by `--tail`: that counts pieces of 16 KiB, and a report of many pods is longer.
        let said = self.yard.kubectl(&["logs", &self.pod]).await?;
        self.yard.kubectl(&["delete", &pod, "--wait=false"]).await?;
        Ok(serde_json::from_str(said.lines().last().unwrap_or_default())?)
    }
}

/// Nothing failed at all, and there was something that could have.
pub(crate) fn nothing_failed(report: &Report) -> Outcome {
    ensure(report.failures() == 0, || format!("{}: {}", tell(report), report.examples.join("; ")))?;
    let good = report.requests.good + report.streams.good;
    ensure(good > 0, || "nothing was asked".into())
}

/// A report in a line.
pub(crate) fn tell(report: &Report) -> String {
    let counts = |what: &str, counts: &Counts| {
        let kinds: Vec<_> =
            counts.failed.iter().map(|(kind, number)| format!("{number} × {kind}")).collect();
        let failed = if kinds.is_empty() { "0".to_owned() } else { kinds.join(", ") };
        format!("{} {what}, {failed} failed", counts.sent)
    };
    let mut told = Vec::new();
    if report.requests.sent > 0 {
        let rate = report.rate();
        let (p50, p99) = (report.p50_ms, report.p99_ms);
        told.push(counts("requests", &report.requests));
        told.push(format!("{rate:.0}/s, p50 {p50} ms, p99 {p99} ms"));
    }
    if report.streams.sent > 0 {
        told.push(counts("streams", &report.streams));
        told.push(format!("{} at once, longest gap {} ms", report.open_most, report.gap_ms));
    }
    told.join(", ")
}
