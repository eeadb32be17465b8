//! `switchyard serve`: the gateway alone, as in a pod.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::thread;
use std::time::Duration;

use switchyard::gateway::{Gateway, Options, Outcome, Stopper};
use tokio::sync::watch;

use super::load::load_or_explain;
use super::signals::{Ending, Endings};
use super::{logs, terminal};

/// How long the gateway may take to end after a second signal before the process ends without it.
const KILL_TIMEOUT: Duration = Duration::from_secs(1);

#[derive(clap::Args)]
pub(crate) struct Args {
    /// The table.
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    /// Where clients connect, instead of the table's `gateway.listen`.
    #[arg(long, value_name = "ADDR", env = "SWITCHYARD_LISTEN")]
    listen: Option<SocketAddr>,
    /// Where operators connect, instead of the table's `gateway.admin`.
    #[arg(long, value_name = "ADDR", env = "SWITCHYARD_ADMIN")]
    admin: Option<SocketAddr>,
    /// Listen for clients also where another gateway does already, to take its place: stop that one
    /// once this one is ready. It needs an admin address of its own.
    #[arg(long)]
    takeover: bool,
    /// Where the cluster's API server asks for the agents' load, by HTTPS; off by default.
    #[arg(long, value_name = "ADDR", env = "SWITCHYARD_EXTERNAL_METRICS")]
    external_metrics: Option<SocketAddr>,
}

/// Exit code 0 when all was finished, 1 when the drain cut something or the start failed, 130 or
/// 143 after a second signal.
pub(crate) fn run(args: &Args) -> ExitCode {
    let Some(checked) = load_or_explain(&args.config) else { return ExitCode::FAILURE };
    let log = logs::start_beside(std::io::stderr());
    let options = Options {
        config: args.config.clone(),
        listen: args.listen,
        admin: args.admin,
        takeover: args.takeover,
        external_metrics: args.external_metrics,
        managed: None,
        dropped_log_lines: Some(log.dropped()),
    };
    let gateway = match Gateway::bind(checked, options) {
        Ok(gateway) => gateway,
        Err(error) => return failed(&error),
    };
    let signals = match follow_signals(gateway.stopper()) {
        Ok(signals) => signals,
        Err(error) => return failed(&error),
    };
    if terminal::write_out(&addresses(&gateway)).is_err() {
        tracing::debug!("stdout is closed: the addresses aren't printed");
    }
    exit_code(gateway.run(), *signals.borrow())
}

/// The lines that name where a bound gateway listens.
pub(super) fn addresses(gateway: &Gateway) -> String {
    let (listen, admin) = gateway.addresses();
    let mut lines = format!("listening on http://{listen}\nadmin on http://{admin}\n");
    if let Some(address) = gateway.external_metrics() {
        lines.push_str(&format!("external metrics on https://{address}\n"));
    }
    lines
}

/// The exit code for how a gateway ended, and the second signal if there was one.
pub(super) fn exit_code(outcome: Outcome, second: Option<Ending>) -> ExitCode {
    match (outcome, second) {
        (_, Some(ending)) => ExitCode::from(ending.exit_code()),
        (Outcome::Drained, None) => ExitCode::SUCCESS,
        (Outcome::Cut(_) | Outcome::Killed, None) => ExitCode::FAILURE,
    }
}

pub(super) fn failed(error: &dyn std::fmt::Display) -> ExitCode {
    eprintln!("error: {error}");
    ExitCode::FAILURE
}

/// Drains at the first signal and kills at the second, on a thread of its own; the receiver holds
/// the second signal once there is one.
fn follow_signals(stopper: Stopper) -> std::io::Result<watch::Receiver<Option<Ending>>> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let mut endings = {
        let _inside = runtime.enter();
        Endings::listen()?
    };
    let (second, seen) = watch::channel(None);
    let follow = async move {
        endings.next().await;
        stopper.drain(false);
        let ending = endings.next().await;
        second.send_replace(Some(ending));
        stopper.kill();
        tokio::time::sleep(KILL_TIMEOUT).await;
        std::process::exit(i32::from(ending.exit_code()));
    };
    thread::Builder::new().name("signals".to_owned()).spawn(move || runtime.block_on(follow))?;
    Ok(seen)
}
