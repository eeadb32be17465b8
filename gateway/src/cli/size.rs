//! `switchyard size`: drives an agent, or watches it, measures what it takes, and says what the table
//! should allow it; or that the samples don't say.

mod answer;
mod drive;
mod fit;
mod flight;
mod measure;
mod meter;
mod mix;
mod out;
mod plot;
mod progress;
mod quantiles;
mod replay;
mod report;
mod resize;
mod target;
mod text;
mod track;
mod trend;
mod verdict;
mod watch;
mod windows;
mod write;

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use clap::ValueEnum;
use config::{Agent, Table};

use self::answer::Answer;
use self::drive::{Driver, Load};
use self::flight::Flight;
use self::measure::{Clocks, Measured};
use self::mix::Mix;
use self::progress::Progress;
use self::replay::Recording;
use self::report::Report;
use self::target::Target;
use self::verdict::Verdict;
use super::load::load_or_explain;
use super::signals::Endings;
use super::terminal;

/// How long a run is, when nobody says: three quarters of it give the 299 windows that a limit takes, and
/// half as many more.
const TIME: &str = "10m";
/// Peaks are those of windows of this length, when nobody says.
const WINDOW: Duration = Duration::from_secs(1);
/// And in a cluster, whose kubelets look every ten seconds.
const CLUSTER_WINDOW: Duration = Duration::from_secs(30);
/// Windows shorter than that hold too few looks; longer ones too few windows.
const WINDOW_MIN: Duration = Duration::from_millis(50);
const WINDOW_MAX: Duration = Duration::from_secs(600);
/// Looks in a window, and the longest and shortest time between two.
const LOOKS: u32 = 10;
const EVERY_MAX: Duration = Duration::from_millis(100);
const EVERY_MIN: Duration = Duration::from_millis(10);
/// Threads that send; one more looks.
const SENDERS: usize = 2;
/// The most that can be added to a limit: three times as much.
const HEADROOM_MAX: f64 = 300.0;

#[derive(clap::Args)]
pub(crate) struct Args {
    /// The agent's type in the table.
    #[arg(value_name = "TYPE")]
    agent: String,
    /// The table.
    #[arg(long, value_name = "FILE", default_value = "config/switchyard.toml")]
    config: PathBuf,
    #[command(flatten)]
    target: target::Args,
    /// Requests as this file describes them: kinds, sizes, arrival (docs/sizing.md).
    #[arg(long, value_name = "FILE", conflicts_with = "replay")]
    mix: Option<PathBuf>,
    /// Recorded requests, one JSON object a line; at their own times, or with --concurrency.
    #[arg(long, value_name = "FILE")]
    replay: Option<PathBuf>,
    /// How many requests to keep under way, rising; the last is held. By default 1,2,4,… up to max_in_flight.
    #[arg(long, value_name = "N,N,…", value_delimiter = ',')]
    concurrency: Vec<u32>,
    /// How long to measure.
    #[arg(long, value_name = "TIME", default_value = TIME, value_parser = time)]
    time: Duration,
    /// Drive nothing: watch the replicas that run for this long.
    #[arg(long, value_name = "TIME", value_parser = time, conflicts_with_all = ["mix", "replay", "concurrency", "time", "limited"])]
    watch: Option<Duration>,
    /// Peaks are those of windows of this length: 1s, with --watch 10s, in a cluster 30s.
    #[arg(long, value_name = "TIME", value_parser = time)]
    window: Option<Duration>,
    /// Percent that a limit lies above what was measured.
    #[arg(long, value_name = "PERCENT", default_value_t = 15.0, value_parser = percent)]
    headroom: f64,
    /// What a replica may have: asks what that carries, instead of what to allow.
    #[arg(long, value_name = "SIZE", value_parser = size)]
    limit: Option<u64>,
    /// Draw the run: a name that ends in .svg or .png.
    #[arg(long, value_name = "FILE", value_parser = plot::file)]
    plot: Option<PathBuf>,
    /// Put the answer into the table, if it is a yes, and show the change.
    #[arg(long)]
    write: bool,
    /// Give the answer to the running pods, if it is a yes (Kubernetes 1.33 and later).
    #[arg(long, requires = "cluster")]
    resize: bool,
    /// Keep the run in this folder: report.json, report.txt, windows.jsonl, plot.svg.
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// `text`: tables. `json`: the same figures for programs.
    #[arg(long, value_enum, default_value_t = Format::Text)]
    format: Format,
}

#[derive(Clone, Copy, PartialEq, ValueEnum)]
enum Format {
    Text,
    Json,
}

impl Args {
    fn window(&self) -> Duration {
        let default = match self.watch {
            _ if self.target.cluster => CLUSTER_WINDOW,
            Some(_) => watch::WINDOW,
            None => WINDOW,
        };
        self.window.unwrap_or(default)
    }
}

fn time(text: &str) -> Result<Duration, String> {
    let time = config::units::duration(text).filter(|time| !time.is_zero());
    time.ok_or_else(|| "a time such as 90s, 10m or 24h".to_owned())
}

fn size(text: &str) -> Result<u64, String> {
    let size = config::units::size(text).filter(|size| *size > 0);
    size.ok_or_else(|| "a size such as 512MiB or 2Gi".to_owned())
}

fn percent(text: &str) -> Result<f64, String> {
    let value = text.trim_end_matches('%').parse::<f64>().ok();
    let value = value.filter(|value| (0.0..=HEADROOM_MAX).contains(value));
    value.ok_or_else(|| format!("percent from 0 to {HEADROOM_MAX}"))
}

/// Exit code 0 with an answer, 1 where there is none: the samples don't support one, or it couldn't be
/// measured; 2 for the command line.
pub(crate) fn run(args: &Args) -> ExitCode {
    match measure_and_report(args) {
        Ok(code) => code,
        Err(line) => {
            eprintln!("error: {line}");
            ExitCode::FAILURE
        }
    }
}

fn measure_and_report(args: &Args) -> Result<ExitCode, String> {
    let Some(checked) = load_or_explain(&args.config) else { return Ok(ExitCode::FAILURE) };
    let agent = find(&checked.table, args)?;
    check(args)?;
    let measured = match args.watch {
        Some(total) => block_on(watched(args, &checked.table, agent, total))?,
        None => block_on(measure(args, &checked.table, agent, load(args, agent)?))?,
    };
    let answer = Answer::of(&measured);
    let verdict = Verdict::of(&measured, &answer, args.headroom / 100.0, args.limit);
    let now = verdict::in_table(agent);
    let report = Report {
        agent: &agent.name,
        measured: &measured,
        answer: &answer,
        verdict: &verdict,
        now: &now,
    };
    let printed = match args.format {
        Format::Text => terminal::print(&report.text()),
        Format::Json => terminal::print(&format!("{:#}\n", report.json())),
    };
    keep(args, &report)?;
    if !verdict.is_yes() {
        if args.write || args.resize {
            eprintln!("nothing was changed: there is no answer");
        }
        return Ok(ExitCode::FAILURE);
    }
    if args.write {
        show(args, &write::write(&args.config, &agent.name, &verdict.sizes)?);
    }
    if args.resize {
        let place = target::place(&args.target, &checked.table, agent)?;
        eprint!("{}", block_on(resize::resize(&place, &verdict.sizes))?);
    }
    Ok(printed)
}

/// What was asked for beside the report.
fn keep(args: &Args, report: &Report) -> Result<(), String> {
    if let Some(file) = &args.plot {
        plot::write(file, &report.plot())?;
    }
    args.out.as_ref().map_or(Ok(()), |folder| out::keep(folder, report))
}

/// The change of the table, where it doesn't disturb what programs read.
fn show(args: &Args, diff: &str) {
    let text = if diff.is_empty() { "the table says so already\n" } else { diff };
    match args.format {
        Format::Text => drop(terminal::print(&format!("\n{text}"))),
        Format::Json => eprint!("{text}"),
    }
}

fn find<'a>(table: &'a Table, args: &Args) -> Result<&'a Agent, String> {
    table.agents.get(&args.agent).ok_or_else(|| {
        let names: Vec<&str> = table.agents.keys().map(String::as_str).collect();
        format!(
            "there is no agent {:?} in {}; there is {}",
            args.agent,
            args.config.display(),
            names.join(", ")
        )
    })
}

fn check(args: &Args) -> Result<(), String> {
    if !(WINDOW_MIN..=WINDOW_MAX).contains(&args.window()) {
        return Err("--window is from 50ms to 10m".to_owned());
    }
    if args.plot.as_ref().is_some_and(|file| plot::is_png(file)) {
        plot::fonts()?;
    }
    if let Some(folder) = &args.out {
        let made = std::fs::create_dir_all(folder);
        made.map_err(|error| format!("--out {}: {error}", folder.display()))?;
    }
    if args.watch.unwrap_or(args.time) < args.window() * 2 {
        return Err("the time holds no two windows: a longer one, or a shorter --window".to_owned());
    }
    Ok(())
}

fn load(args: &Args, agent: &Agent) -> Result<Load, String> {
    let given = match args.concurrency.as_slice() {
        [] => None,
        levels => Some(mix::checked_levels(levels).map_err(|why| format!("--concurrency: {why}"))?),
    };
    if let Some(path) = &args.replay {
        let recording = Recording::read(path, given.is_none())?;
        return Ok(match given {
            Some(levels) => Load::Looped(recording, levels),
            None => Load::Timed(recording),
        });
    }
    let mut mix = match &args.mix {
        Some(path) => Mix::read(path, agent.max_in_flight)?,
        None => Mix::standard(agent.max_in_flight),
    };
    if let Some(levels) = given {
        mix.arrival = mix::Arrival::Closed(levels);
    }
    Ok(Load::Mix(mix))
}

async fn watched(
    args: &Args,
    table: &Table,
    agent: &Agent,
    total: Duration,
) -> Result<Measured, String> {
    let mut endings =
        Endings::listen().map_err(|error| format!("can't follow signals: {error}"))?;
    let whom = target::whom(&args.target, table, agent)?;
    let progress = Progress::new(&agent.name, total);
    watch::watch(&whom, total, args.window(), &mut endings, progress).await
}

async fn measure(
    args: &Args,
    table: &Table,
    agent: &Agent,
    load: Load,
) -> Result<Measured, String> {
    let mut endings =
        Endings::listen().map_err(|error| format!("can't follow signals: {error}"))?;
    let begun = tokio::select! {
        begun = Target::reach(&args.target, table, agent, args.window()) => begun?,
        _ = endings.next() => return Err("interrupted before it began".to_owned()),
    };
    let Target { base, track, mut single, limit } = begun;
    let flight = Arc::new(Flight::default());
    let driver = Arc::new(Driver::new(load, base, flight, agent)?);
    let every = match args.target.cluster {
        true => meter::pods::EVERY.min(args.window()),
        false => every(args.window()),
    };
    let clocks = Clocks { window: args.window(), every, total: args.time };
    let progress = Progress::new(&agent.name, args.time);
    let mut measured =
        measure::drive(track, &driver, single.as_mut(), clocks, &mut endings, progress).await;
    measured.limit = measured.limit.or(limit);
    if let Some(single) = single {
        let said = single.said();
        let how = single.stop().await;
        if measured.early.as_ref().is_some_and(|why| why.contains("gone")) {
            eprintln!("{} {how}; its last lines:\n{said}", agent.name);
        }
    }
    Ok(measured)
}

/// A whole part of a window.
fn every(window: Duration) -> Duration {
    let wished = (window / LOOKS).clamp(EVERY_MIN, EVERY_MAX);
    window / u32::try_from(window.as_nanos().div_ceil(wished.as_nanos())).unwrap_or(LOOKS)
}

/// The looking is done on this thread, which also keeps the agent alive that it has started.
fn block_on<T>(future: impl Future<Output = Result<T, String>>) -> Result<T, String> {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(SENDERS)
        .enable_all()
        .build()
        .map_err(|error| format!("can't start: {error}"))?
        .block_on(future)
}
