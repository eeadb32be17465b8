//! `switchyard up`: the whole yard on one machine. The gateway runs on the main thread; one other
//! thread follows the signals and supervises the replicas, which are tied to its life.

mod backoff;
mod child;
mod console;
mod crew;
mod limits;
mod lines;
pub(super) mod memory;
mod plan;
mod ports;
mod probe;
mod replica;
pub(super) mod single;
mod spec;
mod supervise;
#[cfg(test)]
mod tests;
mod yard;

use std::io;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use config::Table;
use switchyard::gateway::{Gateway, Options, Stopper};
use tokio::sync::watch;

use self::console::{Console, GatewayLog};
use self::yard::{Phase, Yard};
use super::load::load_or_explain;
use super::signals::{Ending, Endings};
use super::{logs, serve, terminal};

/// How long a replica may take to get ready.
const START_TIMEOUT: Duration = Duration::from_secs(60);

/// How long everything may take to end after a second signal before the process ends without it;
/// the kernel then takes the replicas down.
const KILL_TIMEOUT: Duration = Duration::from_secs(3);

#[derive(clap::Args)]
pub(crate) struct Args {
    /// The table.
    #[arg(long, value_name = "FILE", default_value = "config/switchyard.toml")]
    config: PathBuf,
}

/// Exit code 0 when all was finished, 1 when the drain cut something or the start failed, 130 or
/// 143 after a second signal.
pub(crate) fn run(args: &Args) -> ExitCode {
    let Some(checked) = load_or_explain(&args.config) else { return ExitCode::FAILURE };
    let colours = terminal::colours(&io::stderr());
    logs::start(GatewayLog::new(colours));
    let (listing, managed) = watch::channel(Arc::default());
    let options = Options {
        config: args.config.clone(),
        listen: None,
        admin: None,
        takeover: false,
        external_metrics: None,
        managed: Some(managed),
        dropped_log_lines: None,
    };
    let gateway = match Gateway::bind(checked, options) {
        Ok(gateway) => gateway,
        Err(error) => return serve::failed(&error),
    };
    let (console, printer) = match Console::start(io::stdout(), io::stderr(), colours) {
        Ok(started) => started,
        Err(error) => return serve::failed(&error),
    };
    serve::addresses(&gateway).lines().for_each(|line| console.print(line));
    let code = run_all(gateway, console, listing);
    printer.finish();
    code
}

fn run_all(gateway: Gateway, console: Console, listing: yard::Listing) -> ExitCode {
    let (phase, seen) = watch::channel(Phase::Run);
    let yard = Yard::new(console, seen, listing, gateway.addresses().0, START_TIMEOUT);
    let (tables, stopper) = (gateway.tables(), gateway.stopper());
    let advance = phase.clone();
    let keep = move || keep(yard, tables, &stopper, &advance);
    let keeper = match thread::Builder::new().name("yard".to_owned()).spawn(keep) {
        Ok(keeper) => keeper,
        Err(error) => return serve::failed(&error),
    };
    let outcome = gateway.run();
    Phase::advance(&phase, Phase::Drain);
    match keeper.join() {
        Ok(Ok(second)) => serve::exit_code(outcome, second),
        Ok(Err(error)) => serve::failed(&error),
        // Its message is out already.
        Err(_) => ExitCode::FAILURE,
    }
}

/// The supervising thread: to the end of the last replica. Gives the second signal, if there was
/// one.
fn keep(
    yard: Yard,
    tables: watch::Receiver<Arc<Table>>,
    stopper: &Stopper,
    phase: &watch::Sender<Phase>,
) -> io::Result<Option<Ending>> {
    let kept = tokio::runtime::Builder::new_current_thread().enable_all().build().map(|runtime| {
        runtime.block_on(async {
            let endings = Endings::listen()?;
            let console = yard.console.clone();
            let (second, seen) = watch::channel(None);
            tokio::select! {
                () = supervise::run(Arc::new(yard), tables) => {}
                () = follow_signals(endings, &console, stopper, phase, &second) => {}
            }
            let second = *seen.borrow();
            Ok(second)
        })
    });
    if !matches!(kept, Ok(Ok(_))) {
        // Without supervision there is nothing to serve.
        stopper.kill();
    }
    kept?
}

/// The first signal drains: the gateway, then the replicas. A second ends everything.
async fn follow_signals(
    mut endings: Endings,
    console: &Console,
    stopper: &Stopper,
    phase: &watch::Sender<Phase>,
    second: &watch::Sender<Option<Ending>>,
) {
    endings.next().await;
    console.say("finishing what is open; a second signal ends it at once");
    stopper.drain(true);
    let ending = endings.next().await;
    second.send_replace(Some(ending));
    Phase::advance(phase, Phase::Kill);
    stopper.kill();
    tokio::time::sleep(KILL_TIMEOUT).await;
    std::process::exit(i32::from(ending.exit_code()));
}
