//! Proofs on a real cluster, and the two programs that they run inside of it: an agent that does
//! what a request tells it, and a load that counts every failure.

mod agent;
mod load;
mod prove;
mod wire;

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use tokio::signal::unix::{SignalKind, signal};

#[derive(Parser)]
#[command(
    name = "e2e",
    about = "Proofs of Switchyard on a real cluster",
    disable_version_flag = true
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// An agent whose behaviour the request says
    Agent(agent::Settings),
    /// Requests and streams for a while; one line of JSON a second, the whole report last
    Load(load::Settings),
    /// Ends the load that runs in this pod
    Stop,
    /// Asks an address once and prints the answer as JSON
    Ask {
        /// `http://host:port/path`
        url: String,
        /// Posts this body
        #[arg(long)]
        data: Option<String>,
    },
    /// Does nothing until it is told to end: a pod to run commands in
    Idle,
    /// Runs the proofs, or those named
    Prove(prove::Settings),
}

#[tokio::main]
async fn main() -> ExitCode {
    let ended = match Cli::parse().command {
        Command::Agent(settings) => agent::serve(settings).await,
        Command::Load(settings) => load::run(settings).await,
        Command::Stop => load::stop().await,
        Command::Ask { url, data } => ask(&url, data).await,
        Command::Idle => idle().await,
        Command::Prove(settings) => return prove::run(settings).await,
    };
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("e2e: {error}");
            ExitCode::FAILURE
        }
    }
}

#[expect(clippy::print_stdout, reason = "it is what it is for")]
async fn ask(url: &str, data: Option<String>) -> std::io::Result<()> {
    let answer = wire::ask(url, data).await?;
    println!("{}", serde_json::to_string(&answer).map_err(std::io::Error::other)?);
    Ok(())
}

async fn idle() -> std::io::Result<()> {
    signal(SignalKind::terminate())?.recv().await;
    Ok(())
}
