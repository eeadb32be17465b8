//! The `agent` command: settings, agent, bind, serve, drain.

use std::io::{IsTerminal, Write};
use std::process::ExitCode;
use std::sync::Arc;

use agents::agent::{Agent, Which};
use agents::coding::Coding;
use agents::metrics::Metrics;
use agents::model::Model;
use agents::qa::Qa;
use agents::sandbox;
use agents::server::{End, Server};
use agents::sessions::Sessions;
use agents::settings::{Kind, Settings};
use agents::store::Store;
use tokio::signal::unix::{Signal, SignalKind, signal};

/// For searches and files, which are short: more would only take stacks from a tight memory limit.
const BLOCKING_THREADS: usize = 16;

fn main() -> ExitCode {
    // The same program, started again for one command: before any thread and any setting.
    if let Some(code) = sandbox::supervise_if_asked() {
        return code;
    }
    log();
    let settings = Settings::from_process();
    sandbox::hide_memory();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .max_blocking_threads(BLOCKING_THREADS)
        .enable_all()
        .build();
    let ran = match runtime {
        Ok(runtime) => runtime.block_on(run(&settings)),
        Err(error) => Err(format!("cannot start threads: {error}")),
    };
    match ran {
        Ok(code) => code,
        Err(line) => {
            eprintln!("agent: {line}");
            ExitCode::FAILURE
        }
    }
}

async fn run(settings: &Settings) -> Result<ExitCode, String> {
    let metrics = Arc::new(Metrics::new());
    let agent = build(settings, Arc::clone(&metrics)).await?;
    let model = agent.model_name().to_owned();
    let no_signals = |error| format!("signals cannot be listened for: {error}");
    let mut signals = Signals::new().map_err(no_signals)?;
    // Each sees every signal: one starts the drain, the other ends it.
    let mut second = Signals::new().map_err(no_signals)?;
    let server = Server::bind(settings, agent, metrics).await.map_err(|error| {
        format!(
            "cannot listen on {}:{}: {error}; choose another --port",
            settings.host, settings.port
        )
    })?;
    let address = server.address().map_err(|error| error.to_string())?;
    announce(address).map_err(|error| format!("cannot print the address: {error}"))?;
    tracing::info!(%address, agent = settings.kind.name(), model, "serving");

    let serving = server.serve(async {
        signals.next().await;
    });
    let end = tokio::select! {
        end = serving => end,
        number = second.second() => return Ok(ExitCode::from(128 + number)),
    };
    Ok(match end {
        End::Drained => ExitCode::SUCCESS,
        End::Cut(requests) => {
            tracing::warn!(requests, "cut off at the drain timeout");
            ExitCode::FAILURE
        }
    })
}

async fn build(settings: &Settings, metrics: Arc<Metrics>) -> Result<Agent, String> {
    let model = Model::new(&settings.model, Arc::clone(&metrics))?;
    let which = match settings.kind {
        Kind::Qa => {
            let embedder = match settings.embedding()? {
                Some(embedding) => Model::new(&embedding, Arc::clone(&metrics))
                    .map_err(|line| settings.of_embeddings(&line))?,
                None => None,
            };
            Which::Qa(Qa::open(&settings.qa, model, embedder, settings.budget(), &metrics)?)
        }
        Kind::Coding => Which::Coding(Coding::open(settings, model, metrics).await?),
    };
    let store = Arc::new(Store::new(settings.memory.redis_url.as_deref())?);
    let sessions = Sessions::new(Arc::clone(&store), settings.memory.session_ttl);
    Ok(Agent::new(which, sessions, store))
}

fn announce(address: std::net::SocketAddr) -> std::io::Result<()> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "listening on http://{address}")?;
    out.flush()
}

fn log() {
    let filter = tracing_subscriber::EnvFilter::try_from_env("SWITCHYARD_LOG")
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("info"));
    let terminal = std::io::stderr().is_terminal();
    let text = match std::env::var("SWITCHYARD_LOG_FORMAT").as_deref() {
        Ok("text") => true,
        Ok("json") => false,
        _ => terminal,
    };
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    if text {
        log.with_ansi(terminal).init();
    } else {
        log.json().init();
    }
}

/// The signals that end the process.
struct Signals {
    term: Signal,
    int: Signal,
}

impl Signals {
    fn new() -> std::io::Result<Self> {
        Ok(Self { term: signal(SignalKind::terminate())?, int: signal(SignalKind::interrupt())? })
    }

    /// The next one's number.
    async fn next(&mut self) -> u8 {
        tokio::select! {
            _ = self.term.recv() => libc::SIGTERM as u8,
            _ = self.int.recv() => libc::SIGINT as u8,
        }
    }

    /// The second one's number.
    async fn second(&mut self) -> u8 {
        self.next().await;
        self.next().await
    }
}
