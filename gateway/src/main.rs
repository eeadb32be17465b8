//! The `switchyard` command: what it offers; each command is a file in `cli/`.

#![cfg_attr(test, allow(clippy::unwrap_used))]

mod cli;

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use cli::{check, invoke, render, schema, serve, size, status, up};

/// What lies together here is of one size, so that a stream's few hundred bytes of each kind share
/// pages and cache lines with their like and not with what its request has left behind.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// The router in front of agents.
#[derive(Parser)]
#[command(name = "switchyard", version, about)]
struct Switchyard {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run the whole yard on this machine: the gateway and every agent's replicas.
    Up(up::Args),
    /// Run the gateway alone, as in a pod.
    Serve(serve::Args),
    /// Validate a table and name every problem with its place.
    Check(check::Args),
    /// Make the Kubernetes manifests of a table.
    Render(render::Args),
    /// Print the JSON Schema of the table, for editors.
    Schema,
    /// Call an agent once.
    Invoke(invoke::Args),
    /// Show what the agents are doing.
    Status(status::Args),
    /// Measure an agent, and say what it should be allowed.
    Size(Box<size::Args>),
}

fn main() -> ExitCode {
    match Switchyard::parse().command {
        Command::Up(args) => up::run(&args),
        Command::Serve(args) => serve::run(&args),
        Command::Check(args) => check::run(&args),
        Command::Render(args) => render::run(&args),
        Command::Schema => schema::run(),
        Command::Invoke(args) => invoke::run(&args),
        Command::Status(args) => status::run(&args),
        Command::Size(args) => size::run(&args),
    }
}
