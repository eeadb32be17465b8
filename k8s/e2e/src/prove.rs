//! The proofs one after the other: what each needs is made, what it made is taken away again, and
//! the summary comes last.

mod cluster;
mod failure;
mod proofs;
mod table;
mod traffic;
mod yard;

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use clap::Args;
use tempfile::TempDir;

use cluster::{kubectl, until};
use failure::Outcome;

/// For namespaces to be gone: a gateway's pause, and what its last requests take.
const GONE: Duration = Duration::from_secs(180);

/// Most lines of each look at a proof that failed.
const DUMPED: usize = 40;

/// What `e2e prove` takes.
#[derive(Args, Clone)]
pub(crate) struct Settings {
    /// The proofs to run; none named: all
    names: Vec<String>,
    /// The gateway's image
    #[arg(long, env = "GATEWAY_IMAGE", default_value = concat!("switchyard/switchyard:", env!("CARGO_PKG_VERSION")))]
    gateway_image: String,
    /// The reference agents' image
    #[arg(long, env = "AGENT_IMAGE", default_value = concat!("switchyard/agent:", env!("CARGO_PKG_VERSION")))]
    agent_image: String,
    /// The image of this program
    #[arg(long, env = "E2E_IMAGE", default_value = concat!("switchyard/e2e:", env!("CARGO_PKG_VERSION")))]
    e2e_image: String,
    /// For all pods
    #[arg(long, env = "IMAGE_PULL_POLICY", default_value = "IfNotPresent")]
    pull_policy: String,
    /// The `switchyard` that renders
    #[arg(long, env = "SWITCHYARD", default_value = "target/debug/switchyard")]
    switchyard: PathBuf,
    /// The repository
    #[arg(long, default_value = ".")]
    repository: PathBuf,
    /// Requests a second under which nothing may fail
    #[arg(long, env = "E2E_RATE", default_value_t = 200)]
    rate: u32,
    /// Streams that are open meanwhile
    #[arg(long, env = "E2E_STREAMS", default_value_t = 100)]
    streams: u32,
    /// Addresses for the proof of a thousand
    #[arg(long, env = "E2E_ENDPOINTS", default_value_t = 1_000)]
    endpoints: u32,
    /// A command that kills a pod's process at once; it is given the namespace and the pod's name
    #[arg(long, env = "E2E_KILL")]
    kill: Option<String>,
    /// A command that stops the API server
    #[arg(long, env = "E2E_API_STOP")]
    api_stop: Option<String>,
    /// A command that starts it again
    #[arg(long, env = "E2E_API_START")]
    api_start: Option<String>,
    /// Leaves the namespaces of failed proofs, to look at
    #[arg(long, env = "E2E_KEEP")]
    keep: bool,
}

/// What every proof sees.
pub(crate) struct Context {
    settings: Settings,
    folder: TempDir,
    /// What is taken away when the proof is over.
    namespaces: Mutex<Vec<String>>,
    /// Parts that could not be run here.
    skipped: Mutex<Vec<String>>,
}

impl Context {
    /// Has this namespace deleted at the end of the proof.
    fn owns(&self, namespace: &str) {
        lock(&self.namespaces).push(namespace.to_owned());
    }

    /// Says loudly that a part is left out.
    fn skip(&self, why: &str) {
        say(&format!("SKIPPED: {why}"));
        lock(&self.skipped).push(why.to_owned());
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[expect(clippy::print_stdout, reason = "it is the report")]
fn say(line: &str) {
    println!("{line}");
}

/// Runs what is asked for. Exit 0 when all held, 1 otherwise, 2 for a name that is none.
pub(crate) async fn run(settings: Settings) -> ExitCode {
    let known = |name: &String| proofs::ALL.iter().any(|proof| proof.name == name);
    if let Some(unknown) = settings.names.iter().find(|name| !known(name)) {
        let names: Vec<_> = proofs::ALL.iter().map(|proof| proof.name).collect();
        eprintln!("e2e: no proof is called {unknown}; there are {}", names.join(", "));
        return ExitCode::from(2);
    }
    let folder = match tempfile::tempdir() {
        Ok(folder) => folder,
        Err(error) => {
            eprintln!("e2e: no temporary folder: {error}");
            return ExitCode::FAILURE;
        }
    };
    let context =
        Context { settings, folder, namespaces: Mutex::default(), skipped: Mutex::default() };
    let begun = Instant::now();
    let mut told = Vec::new();
    let mut failed = 0;
    for proof in proofs::ALL {
        let names = &context.settings.names;
        if !names.is_empty() && !names.iter().any(|name| name == proof.name) {
            continue;
        }
        say(&format!("== {}: {}", proof.name, proof.about));
        let (line, held) = one(&context, proof).await;
        told.push(line);
        failed += usize::from(!held);
    }
    summary(&context, &told, failed, begun);
    if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

async fn one(context: &Context, proof: &proofs::Proof) -> (String, bool) {
    let begun = Instant::now();
    let outcome = tokio::select! {
        outcome = proofs::prove(proof.name, context) => outcome,
        _ = tokio::signal::ctrl_c() => Err("interrupted".into()),
    };
    let seconds = begun.elapsed().as_secs();
    let name = proof.name;
    let (line, held) = match &outcome {
        Ok(figures) => (format!("   {name}: held ({seconds} s): {figures}"), true),
        Err(why) => (format!("   {name}: FAILED ({seconds} s): {why}"), false),
    };
    say(&line);
    if !held {
        dump(context).await;
    }
    if held || !context.settings.keep {
        clean(context).await;
    }
    (line, held)
}

fn summary(context: &Context, told: &[String], failed: usize, begun: Instant) {
    say(&format!("== {} proofs in {} s, {failed} failed", told.len(), begun.elapsed().as_secs()));
    told.iter().for_each(|line| say(line));
    for why in lock(&context.skipped).iter() {
        say(&format!("SKIPPED: {why}"));
    }
}

/// What one wants to see of a proof that failed.
async fn dump(context: &Context) {
    let namespaces = lock(&context.namespaces).clone();
    for namespace in namespaces {
        say(&format!("-- {namespace}"));
        let looks: [&[&str]; 3] = [
            &["get", "pods,deployments,hpa", "-o", "wide"],
            &["get", "events", "--sort-by=.lastTimestamp"],
            &["logs", "-l", "app", "--tail=15", "--prefix", "--max-log-requests=50"],
        ];
        for look in looks {
            let shown = kubectl(&[&["-n", &namespace], look].concat()).await;
            let shown = shown.unwrap_or_else(|why| why.to_string());
            let lines: Vec<_> = shown.lines().collect();
            say(&lines[lines.len().saturating_sub(DUMPED)..].join("\n"));
        }
    }
}

/// Deletes the proof's namespaces and waits until they are gone: the next one wants the room. What
/// runs goes first: while pods take their time, a namespace that is deleted with them looks again
/// only after half their grace.
async fn clean(context: &Context) {
    let namespaces = std::mem::take(&mut *lock(&context.namespaces));
    for namespace in &namespaces {
        let all = ["-n", namespace, "delete", "deployments,pods", "--all", "--timeout=120s"];
        let _ = kubectl(&all).await;
        let _ = kubectl(&["delete", "namespace", namespace, "--wait=false"]).await;
    }
    for namespace in &namespaces {
        if let Err(why) = gone(namespace).await {
            say(&format!("   {namespace} isn't gone: {why}"));
        }
    }
}

async fn gone(namespace: &str) -> Outcome {
    until("namespace gone", GONE, async || {
        let args = ["get", "namespace", namespace, "--ignore-not-found", "-o", "name"];
        Ok(kubectl(&args).await?.trim().is_empty().then_some(()))
    })
    .await
}
