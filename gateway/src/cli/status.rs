//! `switchyard status`: what the agents are doing, from the gateway's admin port.

mod view;

use std::io::{self, IsTerminal};
use std::process::ExitCode;
use std::time::Duration;

use reqwest::{Client, Url};
use serde::de::DeserializeOwned;

use super::{http, terminal};

/// Between two looks with `--watch`.
const INTERVAL: Duration = Duration::from_secs(1);

/// How long an answer may take: the admin port answers from memory.
const TIMEOUT: Duration = Duration::from_secs(5);

/// Cursor home, clear to the end: what stands above in the scroll-back stays.
const REDRAW: &str = "\x1b[H\x1b[J";

#[derive(clap::Args)]
pub(crate) struct Args {
    /// Look again every second: redraws on a terminal, prints block after block elsewhere.
    #[arg(long)]
    watch: bool,
    /// The gateway's admin address.
    #[arg(long, env = "SWITCHYARD_ADMIN_URL", default_value = "http://127.0.0.1:9090", value_parser = http::base_url)]
    url: Url,
}

/// Exit code 1 when the gateway doesn't answer; with `--watch` only if it never has.
pub(crate) fn run(args: &Args) -> ExitCode {
    let shown = http::block_on(async {
        let client = http::client(&args.url)?;
        if args.watch {
            watch(&client, &args.url).await
        } else {
            look(&client, &args.url).await.map(print)
        }
    });
    match shown {
        Ok(code) => code,
        Err(line) => {
            eprintln!("error: {line}");
            ExitCode::FAILURE
        }
    }
}

#[expect(clippy::needless_pass_by_value, reason = "fits Result::map")]
fn print(text: String) -> ExitCode {
    terminal::print(&text)
}

async fn watch(client: &Client, url: &Url) -> Result<ExitCode, String> {
    let redraws = io::stdout().is_terminal();
    let mut ticks = tokio::time::interval(INTERVAL);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    ticks.tick().await;
    let mut text = look(client, url).await?;
    let mut screen = if redraws { "\x1b[2J" } else { "" };
    loop {
        let (before, after) = if redraws { (REDRAW, "") } else { ("", "\n") };
        if let Err(error) = terminal::write_out(&format!("{screen}{before}{text}{after}")) {
            return match error.kind() {
                io::ErrorKind::BrokenPipe => Ok(ExitCode::SUCCESS),
                _ => Err(format!("can't write to stdout: {error}")),
            };
        }
        screen = "";
        ticks.tick().await;
        text = look(client, url).await.unwrap_or_else(|line| format!("{line}\n"));
    }
}

async fn look(client: &Client, url: &Url) -> Result<String, String> {
    let agents: view::Agents = ask(client, url, "agents").await?;
    let in_force: view::InForce = ask(client, url, "table").await?;
    Ok(view::render(&agents, &in_force))
}

async fn ask<T: DeserializeOwned>(client: &Client, base: &Url, what: &str) -> Result<T, String> {
    let url = http::join(base, &["api", what]);
    let response = client
        .get(url.clone())
        .timeout(TIMEOUT)
        .send()
        .await
        .map_err(|error| unanswered(base, &error))?;
    if !response.status().is_success() {
        let status = response.status();
        return Err(format!(
            "{url} answered {status}: is it the admin port, not the clients' one? (--url)"
        ));
    }
    response.json().await.map_err(|error| {
        format!("{url} answered what isn't a gateway's state: {}", http::causes(&error))
    })
}

fn unanswered(url: &Url, error: &reqwest::Error) -> String {
    let why = http::causes(error);
    if error.is_connect() {
        return format!(
            "no gateway's admin port at {url}: {why} (start one with `switchyard up`, or name it with --url or SWITCHYARD_ADMIN_URL)"
        );
    }
    format!("{url} doesn't answer: {why}")
}
