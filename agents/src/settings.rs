//! What an agent is told at the start: flags, and the environment for what a Secret or a table fills in.

use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Parser, ValueEnum};

use crate::sandbox::disk::{MAX_FILES, Space};
use crate::sandbox::{Bounds, Limits, Required, Whole};
use crate::steps::Budget;

/// Which agent this process is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Kind {
    /// Answers from a folder of documents.
    Qa,
    /// Works with code in a sandbox.
    Coding,
}

impl Kind {
    /// The name in the table, the metadata and the flag.
    pub fn name(self) -> &'static str {
        match self {
            Self::Qa => "qa",
            Self::Coding => "coding",
        }
    }
}

/// The flags of `agent`, each with its environment variable.
#[derive(Debug, Clone, Parser)]
#[command(name = "agent", version, about = "A reference agent of Switchyard")]
pub struct Settings {
    /// Which agent to be
    #[arg(long = "type", env = "AGENT_TYPE", value_enum)]
    pub kind: Kind,
    /// Address to listen on
    #[arg(long, env = "HOST", default_value = "127.0.0.1")]
    pub host: IpAddr,
    /// Port to listen on; 0 takes any free one
    #[arg(long, env = "PORT", default_value_t = config::names::AGENT_PORT)]
    pub port: u16,
    /// Most requests at once; more are refused with 503, not begun
    #[arg(long, env = "AGENT_MAX_IN_FLIGHT", default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub max_in_flight: u32,
    /// Longest time for one request, from its head to its last byte
    #[arg(long, env = "AGENT_TIMEOUT", default_value = "290s", value_parser = duration)]
    pub timeout: Duration,
    /// After SIGTERM, how long begun requests may go on
    #[arg(long, env = "AGENT_DRAIN_TIMEOUT", default_value = "330s", value_parser = duration)]
    pub drain_timeout: Duration,
    /// What qa answers from.
    #[command(flatten)]
    pub qa: QaSettings,
    /// coding: existing folder in which the sessions' workspaces are made (default: the system's temporary folder)
    #[arg(long, env = "AGENT_WORKSPACE")]
    pub workspace: Option<PathBuf>,
    /// Dependencies without which this agent is not ready and takes no work, for example redis,model
    #[arg(long, env = "AGENT_REQUIRE", value_enum, value_delimiter = ',')]
    pub require: Vec<Dependency>,
    /// Most turns of the model for one request
    #[arg(long, env = "AGENT_MAX_STEPS", default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=1_000))]
    pub max_steps: u32,
    /// Most tokens for one request, read and written, over all turns
    #[arg(long, env = "AGENT_MAX_TOKENS", default_value_t = 500_000, value_parser = clap::value_parser!(u64).range(1..))]
    pub max_tokens: u64,
    /// What is kept from one request to the next.
    #[command(flatten)]
    pub memory: MemorySettings,
    /// The language model.
    #[command(flatten)]
    pub model: ModelSettings,
    /// What a command in the sandbox may use.
    #[command(flatten)]
    pub sandbox: SandboxSettings,
}

/// A thing that an agent may need.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Dependency {
    /// The model server, one of them.
    Model,
    /// Redis.
    Redis,
    /// The documents' index.
    Index,
    /// The embedding model's server.
    Embeddings,
    /// The folder of workspaces.
    Workspace,
}

impl Dependency {
    /// Its name in `/health`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Model => "model",
            Self::Redis => "redis",
            Self::Index => "index",
            Self::Embeddings => "embeddings",
            Self::Workspace => "workspace",
        }
    }
}

/// How a model is told of its tools.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum ToolCalls {
    /// As the protocol has it; in the prompt, where a server refuses that.
    Auto,
    /// As the protocol has it.
    Native,
    /// In the prompt, and called by JSON in the text.
    Json,
}

/// What is kept from one request to the next, and where.
#[derive(Clone, Parser)]
pub struct MemorySettings {
    // Not a flag: it may hold a password.
    /// Redis, for all replicas; without it this process.
    #[arg(skip)]
    pub redis_url: Option<String>,
    /// How long a session is kept after its last exchange
    #[arg(long, env = "AGENT_SESSION_TTL", default_value = "24h", value_parser = duration)]
    pub session_ttl: Duration,
    /// How long an answer is kept for its Idempotency-Key
    #[arg(long, env = "AGENT_IDEMPOTENCY_TTL", default_value = "24h", value_parser = duration)]
    pub idempotency_ttl: Duration,
}

impl std::fmt::Debug for MemorySettings {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("MemorySettings")
            .field("redis_url", &self.redis_url.as_ref().map(|_| "…"))
            .finish_non_exhaustive()
    }
}

/// The documents, and how they are searched.
#[derive(Clone, Parser)]
pub struct QaSettings {
    /// qa: folder of Markdown and text to answer from (default: docs/)
    #[arg(long, env = "AGENT_DOCS")]
    pub docs: Option<PathBuf>,
    /// qa: folder in which the index is kept for the next start (default: a temporary one)
    #[arg(long, env = "AGENT_INDEX")]
    pub index: Option<PathBuf>,
    /// qa: name of a model that makes embeddings; searches go by them as well as by words
    #[arg(long, env = "AGENT_EMBEDDING_MODEL")]
    pub embedding_model: Option<String>,
    /// qa: base URL of its server, when it is another than the language model's
    #[arg(long, env = "AGENT_EMBEDDING_BASE_URL")]
    pub embedding_base_url: Option<String>,
    /// Key of that other server.
    #[arg(skip)]
    pub embedding_api_key: Option<String>,
    /// qa: least cosine similarity for a passage that has too few of the question's words
    #[arg(long, env = "AGENT_MIN_SIMILARITY", default_value = "0.4", value_parser = similarity)]
    pub min_similarity: f32,
}

impl std::fmt::Debug for QaSettings {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("QaSettings")
            .field("docs", &self.docs)
            .field("index", &self.index)
            .field("embedding_model", &self.embedding_model)
            .field("embedding_base_url", &self.embedding_base_url)
            .field("embedding_api_key", &self.embedding_api_key.as_ref().map(|_| "…"))
            .finish_non_exhaustive()
    }
}

impl Settings {
    /// What one request may use.
    pub fn budget(&self) -> Budget {
        Budget { steps: self.max_steps, tokens: self.max_tokens, way_out: None }
    }

    /// The model that makes embeddings. Without a server of its own it is the language model's server that has it; the
    /// key of one server is never sent to another.
    ///
    /// # Errors
    /// One line, when a part is missing.
    pub fn embedding(&self) -> Result<Option<ModelSettings>, String> {
        let mut model = self.model.clone();
        match (&self.qa.embedding_model, &self.qa.embedding_base_url) {
            (None, None) => return Ok(None),
            (None, Some(_)) => {
                let line = "AGENT_EMBEDDING_BASE_URL is set, but not AGENT_EMBEDDING_MODEL: name a model that the server has";
                return Err(line.to_owned());
            }
            (Some(_), None) if model.base_url.is_none() && model.api_key.is_none() => {
                let line = "AGENT_EMBEDDING_MODEL is set, but there is no server: set AGENT_EMBEDDING_BASE_URL, OPENAI_BASE_URL or OPENAI_API_KEY";
                return Err(line.to_owned());
            }
            (Some(_), None) => {}
            (Some(_), Some(url)) => {
                model.base_url = Some(url.clone());
                model.api_key.clone_from(&self.qa.embedding_api_key);
            }
        }
        model.model.clone_from(&self.qa.embedding_model);
        Ok(Some(model))
    }

    /// What is wrong with the embedding model's settings, by the names that they have.
    pub fn of_embeddings(&self, line: &str) -> String {
        match self.qa.embedding_base_url {
            Some(_) => line.replace("OPENAI_BASE_URL", "AGENT_EMBEDDING_BASE_URL"),
            None => line.to_owned(),
        }
    }
}

/// Where the language model is, and how long it may take.
#[derive(Clone, Parser)]
pub struct ModelSettings {
    /// Name of the model, as its server knows it; one for all servers, or one for each, with commas
    #[arg(long, env = "AGENT_MODEL")]
    pub model: Option<String>,
    // Not a flag: a key on a command line is visible to every user of the machine.
    /// Key of the model server; one for all servers, or one for each, with commas, `-` for none.
    #[arg(skip)]
    pub api_key: Option<String>,
    /// Base URL of an OpenAI-compatible server, up to and with /v1; several with commas, the preferred one first
    #[arg(long = "base-url", env = "OPENAI_BASE_URL")]
    pub base_url: Option<String>,
    /// Longest time to connect to the model server
    #[arg(long = "model-connect-timeout", env = "AGENT_MODEL_CONNECT_TIMEOUT", default_value = "5s", value_parser = duration)]
    pub connect_timeout: Duration,
    /// Longest time until the model's first byte
    #[arg(long = "model-first-byte-timeout", env = "AGENT_MODEL_FIRST_BYTE_TIMEOUT", default_value = "120s", value_parser = duration)]
    pub first_byte_timeout: Duration,
    /// Longest pause within the model's answer
    #[arg(long = "model-idle-timeout", env = "AGENT_MODEL_IDLE_TIMEOUT", default_value = "60s", value_parser = duration)]
    pub idle_timeout: Duration,
    /// Longest time for one turn of the model, attempts and waits included
    #[arg(long = "model-timeout", env = "AGENT_MODEL_TIMEOUT", default_value = "240s", value_parser = duration)]
    pub total_timeout: Duration,
    /// Most tokens of a conversation; what does not fit is left out, and that is said
    #[arg(long = "context-tokens", env = "AGENT_CONTEXT_TOKENS", default_value_t = 32_768, value_parser = clap::value_parser!(u64).range(512..=100_000_000))]
    pub context_tokens: u64,
    /// How the model is told of its tools
    #[arg(long = "tool-calls", env = "AGENT_TOOL_CALLS", value_enum, default_value = "auto")]
    pub tool_calls: ToolCalls,
}

impl std::fmt::Debug for ModelSettings {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ModelSettings")
            .field("model", &self.model)
            .field("base_url", &self.base_url)
            .field("api_key", &self.api_key.as_ref().map(|_| "…"))
            .finish_non_exhaustive()
    }
}

/// The limits of commands.
#[derive(Debug, Clone, Parser)]
pub struct SandboxSettings {
    /// coding: longest time for one command
    #[arg(long, env = "AGENT_RUN_TIMEOUT", default_value = "30s", value_parser = duration)]
    pub run_timeout: Duration,
    /// coding: commands at once; more wait for their turn
    #[arg(long, env = "AGENT_RUN_AT_ONCE", default_value_t = 4, value_parser = clap::value_parser!(u16).range(1..=1_000))]
    pub run_at_once: u16,
    /// coding: most memory of one command, all its processes together, MiB (default: what the agent leaves of the
    /// container's limit, shared by the commands at once, at most 2048)
    #[arg(long, env = "AGENT_RUN_MEMORY_MIB", value_parser = clap::value_parser!(u64).range(16..=1_048_576))]
    pub run_memory_mib: Option<u64>,
    /// coding: most processes and threads of one command
    #[arg(long, env = "AGENT_RUN_PROCESSES", default_value_t = 128, value_parser = clap::value_parser!(u64).range(1..=100_000))]
    pub run_processes: u64,
    /// coding: most disk space of one workspace, MiB
    #[arg(long, env = "AGENT_WORKSPACE_MIB", default_value_t = 256, value_parser = clap::value_parser!(u64).range(1..=1_048_576))]
    pub workspace_mib: u64,
    /// coding: start only where these protections are in force: some of network,files,processes,memory; without a
    /// value, or as `full`, all
    #[arg(long, env = "AGENT_REQUIRE_SANDBOX", default_value = "", num_args = 0..=1, default_missing_value = "full", hide_default_value = true)]
    pub require_sandbox: Required,
}

impl SandboxSettings {
    /// In terms of the sandbox; the memory by what there is, unless it is set.
    pub fn bounds(&self) -> Bounds {
        let whole = Whole::find();
        let at_once = usize::from(self.run_at_once);
        let asked = self.run_memory_mib.map(|mib| mib << 20);
        let limits = Limits {
            time: self.run_timeout,
            memory: asked.unwrap_or_else(|| whole.share(at_once)),
            processes: self.run_processes,
            disk: Space { bytes: self.workspace_mib << 20, files: MAX_FILES },
        };
        Bounds { limits, at_once, whole }
    }
}

impl Settings {
    /// The process's arguments and environment; prints usage and exits when they are wrong.
    pub fn from_process() -> Self {
        let mut settings = Self::parse();
        settings.model.api_key = filled("OPENAI_API_KEY");
        settings.memory.redis_url = filled("REDIS_URL");
        // A Secret or a table may set a variable to nothing: the same as not setting it.
        settings.model.model = settings.model.model.filter(|name| !name.is_empty());
        settings.model.base_url = settings.model.base_url.filter(|url| !url.is_empty());
        let qa = &mut settings.qa;
        qa.embedding_api_key = filled("AGENT_EMBEDDING_API_KEY");
        qa.embedding_model = qa.embedding_model.take().filter(|name| !name.is_empty());
        qa.embedding_base_url = qa.embedding_base_url.take().filter(|url| !url.is_empty());
        settings
    }
}

fn filled(name: &str) -> Option<String> {
    std::env::var(name).ok().map(|value| value.trim().to_owned()).filter(|value| !value.is_empty())
}

fn similarity(text: &str) -> Result<f32, String> {
    let number = text.parse().ok().filter(|number| (0.0..=1.0).contains(number));
    number.ok_or_else(|| {
        format!("`{text}` is no cosine similarity; write for example 0.4, from 0 to 1")
    })
}

/// Reads `300ms`, `5s`, `2m` or `1h`, as the table writes durations.
///
/// # Errors
/// Says how a duration is written when this is none.
pub fn duration(text: &str) -> Result<Duration, String> {
    let wrong = || format!("`{text}` is no duration; write for example 300ms, 5s, 2m or 1h");
    let digits = text.find(|c: char| !c.is_ascii_digit()).ok_or_else(wrong)?;
    let (number, unit) = text.split_at(digits);
    let number: u64 = number.parse().map_err(|_| wrong())?;
    let millis = match unit {
        "ms" => 1,
        "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        _ => return Err(wrong()),
    };
    number.checked_mul(millis).filter(|n| *n > 0).map(Duration::from_millis).ok_or_else(wrong)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_written_as_in_the_table() {
        assert_eq!(duration("300ms"), Ok(Duration::from_millis(300)));
        assert_eq!(duration("2m"), Ok(Duration::from_secs(120)));
        for wrong in ["", "5", "s", "-1s", "5 s", "0s", "99999999999999999999s", "5d"] {
            assert!(duration(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_key_is_sent_to_its_own_server_only() {
        let with = |url: Option<&str>, embedding: Option<&str>| {
            let mut settings = Settings::parse_from(["agent", "--type", "qa"]);
            settings.model.api_key = Some("sk-language".to_owned());
            settings.model.base_url = url.map(str::to_owned);
            settings.qa.embedding_model = Some("e".to_owned());
            settings.qa.embedding_base_url = embedding.map(str::to_owned);
            settings.embedding().unwrap().unwrap()
        };
        let same = with(Some("http://a/v1"), None);
        assert_eq!(same.base_url.as_deref(), Some("http://a/v1"));
        assert_eq!(same.api_key.as_deref(), Some("sk-language"));
        assert_eq!(same.model.as_deref(), Some("e"));
        let other = with(Some("http://a/v1"), Some("http://b/v1"));
        assert_eq!(other.base_url.as_deref(), Some("http://b/v1"));
        assert_eq!(other.api_key, None);
    }

    #[test]
    fn an_embedding_model_needs_a_server() {
        let settings = Settings::parse_from(["agent", "--type", "qa", "--embedding-model", "e"]);
        assert!(settings.embedding().unwrap_err().contains("AGENT_EMBEDDING_BASE_URL"));
        assert!(
            similarity("1.5").is_err() && similarity("NaN").is_err() && similarity("x").is_err()
        );
    }

    #[test]
    fn a_key_does_not_show_in_debug_output() {
        let mut settings = Settings::parse_from(["agent", "--type", "qa"]);
        settings.model.api_key = Some("sk-secret".to_owned());
        assert!(!format!("{settings:?}").contains("sk-secret"));
    }
}
