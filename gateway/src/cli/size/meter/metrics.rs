//! What a replica says of itself on its `/metrics`.

use std::time::Duration;

use reqwest::{Client, Url};
use switchyard::health::reports::{PEAKS, RESIDENT, STARTED, value};

use super::Reading;
use crate::cli::http;

/// For one answer, and its bytes.
const TIMEOUT: Duration = Duration::from_secs(2);
const ANSWER_MAX: usize = 1 << 20;
/// As the Prometheus clients of all languages call it.
const CPU: &str = "process_cpu_seconds_total";

/// One replica's.
pub(in crate::cli::size) struct Metrics {
    client: Client,
    url: Url,
    /// The maximum that it told last.
    peak: u64,
}

impl Metrics {
    /// Asks once. The error says why that isn't enough.
    pub(in crate::cli::size) async fn new(base: &Url) -> Result<Metrics, String> {
        let mut url = base.clone();
        url.set_path("/metrics");
        let mut metrics = Metrics { client: http::client(base)?, url, peak: 0 };
        let text = metrics.ask().await.map_err(|why| format!("{}: {why}", metrics.url))?;
        let Some(reading) = metrics.read(&text) else {
            return Err(format!("{} has no {RESIDENT}", metrics.url));
        };
        metrics.peak = metrics.peak.max(reading.peak);
        Ok(metrics)
    }

    async fn ask(&self) -> Result<String, String> {
        let asked = self.client.get(self.url.clone()).timeout(TIMEOUT).send().await;
        let mut answer = asked
            .and_then(reqwest::Response::error_for_status)
            .map_err(|error| http::causes(&error.without_url()))?;
        let mut text = Vec::new();
        while let Some(piece) = answer.chunk().await.map_err(|error| http::causes(&error))? {
            text.extend_from_slice(&piece);
            if text.len() > ANSWER_MAX {
                return Err("answers with more than 1 MiB".to_owned());
            }
        }
        Ok(String::from_utf8_lossy(&text).into_owned())
    }

    fn read(&mut self, text: &str) -> Option<Reading> {
        let memory = value(text, RESIDENT)? as u64;
        let told =
            PEAKS.into_iter().find_map(|name| value(text, name)).map_or(0, |peak| peak as u64);
        let before = self.peak;
        self.peak = told.max(before);
        // A maximum that is no new one may be of any time before.
        let peak = if told > before && before > 0 { told } else { 0 };
        let cpu = value(text, CPU).and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
        // To the hundredth: a container that was killed starts within a second.
        let life = value(text, STARTED).map_or(0, |seconds| (seconds * 100.0) as u64);
        Some(Reading { memory, peak: peak.max(memory), cpu, oom_kills: 0, life })
    }

    pub(super) async fn look(&mut self) -> Option<Reading> {
        let text = self.ask().await.ok()?;
        self.read(&text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_new_maximum_is_one_of_now() {
        let url = http::base_url("http://127.0.0.1:1").unwrap();
        let mut metrics = Metrics { client: http::client(&url).unwrap(), url, peak: 0 };
        let text = |resident: u64, peak: u64| {
            format!(
                "{RESIDENT} {resident}\ncgroup_memory_peak_bytes {peak}\n{CPU} 1.5\n{STARTED} 9.25\n"
            )
        };
        let first = metrics.read(&text(100, 500)).unwrap();
        assert_eq!((first.memory, first.peak, first.life), (100, 100, 925));
        assert_eq!(first.cpu, Some(Duration::from_millis(1500)));
        assert_eq!(metrics.read(&text(100, 600)).unwrap().peak, 600);
        assert_eq!(metrics.read(&text(100, 600)).unwrap().peak, 100);
        assert_eq!(metrics.read("up 1\n"), None);
    }
}
