//! `benches/overload/run`: what becomes of more work than the replicas can do. `switchyard up` runs two
//! replicas whose capacity is exactly known, an open loop asks for several times that, and what counts
//! is who was served, who waited, who was told to go away, and what became of the replicas. It prints
//! how that stands to the bars and does not judge; `docs/performance.md` explains it.

mod args;
mod arrivals;
mod calls;
mod client;
mod fair;
mod memory;
mod outcomes;
mod replica;
mod report;
mod yard;

use std::io::{self, Write};
use std::process::ExitCode;

use benches::machine;

use args::Args;
use report::Report;
use yard::Bench;

fn main() -> ExitCode {
    if let Some(settings) = replica::Settings::of_command_line() {
        return ended(replica::serve(settings).map(|()| true));
    }
    let Some(args) = Args::parse() else {
        eprintln!("{}", args::USAGE);
        return ExitCode::from(2);
    };
    if !args.bench {
        eprintln!("nothing is measured under `cargo test`: {}", args::USAGE);
        return ExitCode::SUCCESS;
    }
    ended(run(&args))
}

fn ended(how: io::Result<bool>) -> ExitCode {
    match how {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Whether everything worked; what came of it is no reason to fail.
fn run(args: &Args) -> io::Result<bool> {
    let binary = machine::binary()?;
    machine::raise_descriptor_limit();
    say(&machine::line(&machine::machine(&binary)))?;
    say(&format!("{}, {} s a run", args::command(), args.effort.time.as_secs()))?;
    let bench = Bench { binary, replica: std::env::current_exe()?, effort: args.effort };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let mut report = Report::default();
    let mut worked = true;
    for name in args::ALL.iter().filter(|name| args.wants(name)) {
        eprintln!("measuring {name}");
        let measured = match *name {
            "fair" => runtime.block_on(fair::measure(&bench, &mut report)),
            "calls" => runtime.block_on(calls::measure(&bench, &mut report)),
            _ => runtime.block_on(memory::measure(&bench, &mut report)),
        };
        say(&report.take_text())?;
        if let Err(error) = measured {
            eprintln!("failed: {name}: {error}");
            worked = false;
        }
    }
    say(&report.bars())?;
    Ok(worked)
}

fn say(text: &str) -> io::Result<()> {
    writeln!(io::stdout(), "{text}")
}
