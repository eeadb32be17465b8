//! The model servers, in the order in which they are preferred, and which of them rest after they failed.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use reqwest::{Client, Url};

use crate::settings::{ModelSettings, ToolCalls};

const OPENAI: &str = "https://api.openai.com/v1";
/// Used with a key for OpenAI and no `AGENT_MODEL`: cheap, and knows tools.
const DEFAULT_MODEL: &str = "gpt-4o-mini";
/// Most servers: each may cost an attempt's time before the next is asked.
const MAX_SERVERS: usize = 8;
/// How long a server rests after its first failure; it doubles with each further one.
const REST: Duration = Duration::from_secs(1);
const LONGEST_REST: Duration = Duration::from_secs(30);
/// The longest rest that a server may ask for itself.
const LONGEST_ASKED: Duration = Duration::from_secs(300);

/// One server and the model on it.
pub(crate) struct Server {
    pub(crate) client: Client,
    /// Up to and with `/v1`.
    pub(crate) base: String,
    pub(crate) model: String,
    pub(crate) key: Option<String>,
    /// Whether tools are told of in the prompt, and calls read from the text.
    calls_as_text: AtomicBool,
    /// Whether it may still be found out that tools must be.
    finds_out: bool,
    /// Whether a schema for the answer is told of in the prompt.
    schema_as_text: AtomicBool,
    health: Mutex<Health>,
}

#[derive(Default)]
struct Health {
    failures: u32,
    rests_until: Option<Instant>,
}

/// All of them; never empty.
pub(crate) struct Servers(Vec<Server>);

impl Servers {
    /// The servers that the settings name, or `None` when they name none.
    pub(super) fn new(settings: &ModelSettings) -> Result<Option<Self>, String> {
        let bases = list(settings.base_url.as_deref());
        let keys = list(settings.api_key.as_deref());
        let models = list(settings.model.as_deref());
        if bases.is_empty() && keys.is_empty() {
            if !models.is_empty() {
                tracing::warn!(
                    "AGENT_MODEL is set, but neither OPENAI_API_KEY nor OPENAI_BASE_URL: no model is used"
                );
            }
            return Ok(None);
        }
        let bases = if bases.is_empty() { vec![OPENAI] } else { bases };
        if bases.len() > MAX_SERVERS {
            return Err(format!("OPENAI_BASE_URL names more than {MAX_SERVERS} servers"));
        }
        let servers = bases.iter().enumerate().map(|(at, base)| {
            let key = nth("OPENAI_API_KEY", &keys, at, bases.len())?.filter(|key| *key != "-");
            let model = match nth("AGENT_MODEL", &models, at, bases.len())? {
                Some(model) => model,
                None if *base == OPENAI => DEFAULT_MODEL,
                None => return Err(
                    "OPENAI_BASE_URL is set, but not AGENT_MODEL: name a model that the server has"
                        .to_owned(),
                ),
            };
            Server::new(settings, base, model, key)
        });
        Ok(Some(Self(servers.collect::<Result<_, _>>()?)))
    }

    pub(super) fn all(&self) -> &[Server] {
        &self.0
    }

    /// The first that does not rest; when all do, the one whose rest is over first.
    pub(super) fn next(&self, now: Instant) -> usize {
        let rests = |server: &Server| server.rests_until().filter(|until| *until > now);
        let place = self.0.iter().position(|server| rests(server).is_none());
        let first_back = || (0..self.0.len()).min_by_key(|at| rests(&self.0[*at]));
        place.or_else(first_back).unwrap_or(0)
    }

    /// Whether one could be asked at once.
    pub(super) fn one_is_fresh(&self, now: Instant) -> bool {
        self.0.iter().any(|server| server.rests_until().is_none_or(|until| until <= now))
    }
}

impl Server {
    fn new(
        settings: &ModelSettings,
        base: &str,
        model: &str,
        key: Option<&str>,
    ) -> Result<Self, String> {
        let base = base.trim_end_matches('/');
        let url = Url::parse(base)
            .ok()
            .filter(|url| matches!(url.scheme(), "http" | "https") && url.has_host())
            .ok_or("OPENAI_BASE_URL is no http:// or https:// URL; for example http://127.0.0.1:11434/v1")?;
        let mut builder = Client::builder()
            .connect_timeout(settings.connect_timeout)
            .redirect(reqwest::redirect::Policy::none());
        // A proxy for the outside world cannot reach this machine's own loopback.
        if url.host_str().is_some_and(is_loopback) {
            builder = builder.no_proxy();
        }
        let client =
            builder.build().map_err(|error| format!("no HTTP client for the model: {error}"))?;
        Ok(Self {
            client,
            base: base.to_owned(),
            model: model.to_owned(),
            key: key.map(str::to_owned),
            calls_as_text: AtomicBool::new(settings.tool_calls == ToolCalls::Json),
            finds_out: settings.tool_calls == ToolCalls::Auto,
            schema_as_text: AtomicBool::new(false),
            health: Mutex::default(),
        })
    }

    pub(super) fn calls_as_text(&self) -> bool {
        self.calls_as_text.load(Ordering::Relaxed)
    }

    pub(super) fn schema_as_text(&self) -> bool {
        self.schema_as_text.load(Ordering::Relaxed)
    }

    /// It refused tools: from now on they are told of in the prompt. False when that is not allowed, or was so already.
    pub(super) fn knows_no_tools(&self) -> bool {
        let new = self.finds_out && !self.calls_as_text.swap(true, Ordering::Relaxed);
        if new {
            tracing::info!(
                server = self.base,
                "tools are told of in the prompt: the server takes none"
            );
        }
        new
    }

    /// It refused a schema: the same.
    pub(super) fn knows_no_schema(&self) -> bool {
        let new = !self.schema_as_text.swap(true, Ordering::Relaxed);
        if new {
            tracing::info!(
                server = self.base,
                "schemas are told of in the prompt: the server takes none"
            );
        }
        new
    }

    /// It answered well.
    pub(super) fn works(&self) {
        *self.health() = Health::default();
    }

    /// It failed: nobody asks it for a while if another can be asked.
    pub(super) fn failed(&self, asked: Option<Duration>, now: Instant) {
        let mut health = self.health();
        let rest = REST.saturating_mul(1 << health.failures.min(10)).min(LONGEST_REST);
        health.failures = health.failures.saturating_add(1);
        health.rests_until = Some(now + asked.map_or(rest, |asked| asked.min(LONGEST_ASKED)));
    }

    fn rests_until(&self) -> Option<Instant> {
        self.health().rests_until
    }

    fn health(&self) -> MutexGuard<'_, Health> {
        self.health.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// `a, b`: the parts of a setting for several servers.
fn list(setting: Option<&str>) -> Vec<&str> {
    let parts = setting.unwrap_or_default().split(',').map(str::trim);
    parts.filter(|part| !part.is_empty()).collect()
}

/// What a setting says for the server at `at`: one for all, or one for each.
fn nth<'a>(
    name: &str,
    values: &[&'a str],
    at: usize,
    servers: usize,
) -> Result<Option<&'a str>, String> {
    match values.len() {
        0 | 1 => Ok(values.first().copied()),
        many if many == servers => Ok(Some(values[at])),
        many => Err(format!(
            "{name} has {many} values for {servers} servers; give one for all of them, or one for each (`-` for none)"
        )),
    }
}

fn is_loopback(host: &str) -> bool {
    let address = host.trim_start_matches('[').trim_end_matches(']');
    host == "localhost" || address.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    fn servers(bases: &str, models: &str, keys: &str) -> Result<Option<Servers>, String> {
        let mut settings = ModelSettings::parse_from(["agent"]);
        settings.base_url = Some(bases.to_owned());
        settings.model = Some(models.to_owned());
        settings.api_key = Some(keys.to_owned());
        Servers::new(&settings)
    }

    #[test]
    fn the_first_is_asked_until_it_fails_and_again_when_it_has_rested() {
        let servers = servers("http://a/v1, http://b/v1/", "m", "").unwrap().unwrap();
        let now = Instant::now();
        assert_eq!(servers.next(now), 0);
        servers.all()[0].failed(None, now);
        assert_eq!((servers.next(now), servers.next(now + REST)), (1, 0));
        servers.all()[1].failed(Some(Duration::from_secs(60)), now);
        assert!(!servers.one_is_fresh(now), "both rest");
        assert_eq!(servers.next(now), 0, "the first is back sooner");
        servers.all()[1].works();
        assert_eq!(servers.next(now), 1);
    }

    #[test]
    fn a_rest_doubles_with_each_failure_and_has_an_end() {
        let servers = servers("http://a/v1,http://b/v1", "m", "").unwrap().unwrap();
        let now = Instant::now();
        for seconds in [1, 2, 4, 8, 16, 30, 30] {
            servers.all()[0].failed(None, now);
            let back = Duration::from_secs(seconds);
            assert_eq!(servers.next(now + back - Duration::from_millis(1)), 1);
            assert_eq!(servers.next(now + back), 0);
        }
    }

    #[test]
    fn models_and_keys_are_one_for_all_or_one_for_each() {
        let two = servers("http://a/v1,http://b/v1", "m,n", "-,k").unwrap().unwrap();
        let told: Vec<_> = two
            .all()
            .iter()
            .map(|s| (s.base.as_str(), s.model.as_str(), s.key.as_deref()))
            .collect();
        assert_eq!(told, [("http://a/v1", "m", None), ("http://b/v1", "n", Some("k"))]);
        let wrong = servers("http://a/v1", "m,n", "k").map(drop).unwrap_err();
        assert!(wrong.contains("AGENT_MODEL has 2 values for 1 servers"), "{wrong}");
        assert!(servers("a/v1", "m", "").is_err());
    }
}
