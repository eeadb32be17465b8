//! `benches/peers/run`: the gateway beside the proxies that people run today, the same work for
//! each, in turn, round by round. Everything is on loopback: the proxy that is measured has one core,
//! the agent and the load have another. It prints one table, with the bars that we hold ourselves
//! to; `docs/performance.md` explains it.

mod args;
mod bars;
mod measures;
mod proxies;
mod report;
mod running;
mod turns;

use std::io::{self, Write};
use std::process::ExitCode;

use benches::agent::Agent;
use benches::machine;

use args::Args;
use measures::{ALL, Bench};
use report::Report;

/// Where what is measured runs, and where the agent and the load do.
const PROXY_CORE: usize = 0;
const LOAD_CORE: usize = 1;

fn main() -> ExitCode {
    let Some(args) = Args::parse() else {
        eprintln!("{}", args::USAGE);
        return ExitCode::from(2);
    };
    if !args.bench {
        eprintln!("nothing is measured under `cargo test`: {}", args::USAGE);
        return ExitCode::SUCCESS;
    }
    match run(&args) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Whether everything worked; how fast it was is no reason to fail.
fn run(args: &Args) -> io::Result<bool> {
    let binary = machine::binary()?;
    let mut report = Report::new(machine::machine(&binary), args);
    machine::raise_descriptor_limit();
    machine::stay_on(&[LOAD_CORE]);
    let proxies = proxies::found(&binary, args)?;
    let bench = Bench { proxies, agent: Agent::start()?.address, effort: args.effort };
    report.proxies(&bench.proxies);
    say(&report.head())?;
    for (name, measure) in ALL.iter().filter(|(name, _)| args.wants(name)) {
        eprintln!("measuring {name}");
        match measure(&bench) {
            Ok(rows) => report.rows(rows),
            Err(error) => report.failed(format!("{name}: {error}")),
        }
    }
    say(&report.table())?;
    if let Some(file) = &args.json {
        std::fs::write(file, format!("{:#}\n", report.json()))?;
    }
    Ok(report.all_worked())
}

fn say(text: &str) -> io::Result<()> {
    writeln!(io::stdout(), "{text}")
}
