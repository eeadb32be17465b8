//! `cargo bench -p benches --bench yard`: the gateway's milliseconds, measured from outside. The real
//! binary runs between a client and an agent that are both in here, all on loopback. It prints, it
//! does not judge; it fails only when something does not work at all. `docs/performance.md`
//! explains the rows.

mod report;
mod rows;

use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use benches::agent::Agent;
use benches::machine;
use report::Row;
use rows::{ALL, Yard};

/// No measurement takes longer, unless something hangs.
const ROW_MAX: Duration = Duration::from_secs(40);

const USAGE: &str = "usage: cargo bench -p benches --bench yard -- [--quick] [--json FILE] [NAME…]";

/// What the command line asks for.
#[derive(Default)]
struct Args {
    quick: bool,
    json: Option<PathBuf>,
    /// Measurements whose name begins so; all, where there is none.
    names: Vec<String>,
    /// Cargo says that it runs benches, not tests.
    bench: bool,
}

impl Args {
    fn parse() -> Option<Self> {
        let (mut parsed, mut args) = (Self::default(), std::env::args().skip(1));
        while let Some(arg) = args.next() {
            match arg.as_str() {
                "--bench" => parsed.bench = true,
                "--quick" => parsed.quick = true,
                "--json" => parsed.json = Some(args.next()?.into()),
                name if ALL.iter().any(|(known, _)| known.starts_with(name)) => {
                    parsed.names.push(arg);
                }
                _ => return None,
            }
        }
        Some(parsed)
    }

    fn wants(&self, name: &str) -> bool {
        self.names.is_empty() || self.names.iter().any(|wanted| name.starts_with(wanted))
    }
}

fn main() -> ExitCode {
    let Some(args) = Args::parse() else {
        let names: Vec<_> = ALL.iter().map(|(name, _)| *name).collect();
        eprintln!("{USAGE}\nNAME: {}", names.join(", "));
        return ExitCode::from(2);
    };
    if !args.bench {
        eprintln!("nothing is measured under `cargo test`: {USAGE}");
        return ExitCode::SUCCESS;
    }
    match measure(&args) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Whether everything worked.
fn measure(args: &Args) -> io::Result<bool> {
    let binary = machine::binary()?;
    let about = machine::machine(&binary);
    say(&machine::line(&about))?;
    machine::raise_descriptor_limit();
    let yard = Yard { binary, agent: Agent::start()?, quick: args.quick };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let (rows, failed) = runtime.block_on(all(args, &yard));
    say(&report::table(&rows))?;
    failed.iter().for_each(|failed| eprintln!("failed: {failed}"));
    if let Some(file) = &args.json {
        let json = report::json(&about, &rows, &failed);
        std::fs::write(file, format!("{json:#}\n"))?;
    }
    Ok(failed.is_empty())
}

async fn all(args: &Args, yard: &Yard) -> (Vec<Row>, Vec<String>) {
    let (mut rows, mut failed) = (Vec::new(), Vec::new());
    for (name, measure) in ALL.iter().filter(|(name, _)| args.wants(name)) {
        eprintln!("measuring {name}");
        match tokio::time::timeout(ROW_MAX, measure(yard)).await {
            Ok(Ok(mut more)) => rows.append(&mut more),
            Ok(Err(error)) => failed.push(format!("{name}: {error}")),
            Err(_) => failed.push(format!("{name}: not done after {ROW_MAX:?}")),
        }
    }
    (rows, failed)
}

fn say(text: &str) -> io::Result<()> {
    writeln!(io::stdout(), "{text}")
}
