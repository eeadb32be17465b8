//! `switchyard invoke`: one call of an agent through the gateway, from a terminal.

mod problem;
mod show;
mod sse;

use std::io::{self, IsTerminal, Read};
use std::process::ExitCode;

use reqwest::header::{ACCEPT, CONTENT_TYPE};
use reqwest::{Response, Url};
use serde_json::{Value, json};

use self::show::{Progress, Show};
use super::{http, terminal};

/// How much of an error reply is read, in bytes.
const ERROR_BODY: usize = 64 << 10;

#[derive(clap::Args)]
pub(crate) struct Args {
    /// The agent's type.
    #[arg(value_name = "TYPE")]
    agent: String,
    /// What to say to it; `-` (or nothing, where stdin is no terminal) reads stdin.
    #[arg(value_name = "INPUT")]
    input: Option<String>,
    /// Continue this session.
    #[arg(long, value_name = "ID")]
    session: Option<String>,
    /// Show the reply as it comes, or with `--stream=false` when it is complete. By default it is
    /// shown as it comes when stdout is a terminal.
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    stream: Option<bool>,
    /// The gateway.
    #[arg(long, env = "SWITCHYARD_URL", default_value = "http://127.0.0.1:8080", value_parser = http::base_url)]
    url: Url,
}

/// Why a call came to nothing.
enum Failure {
    /// Told in one line.
    Said(String),
    /// The reader of stdout has left: nothing is left to do or to say.
    ReaderGone,
}

impl From<String> for Failure {
    fn from(line: String) -> Failure {
        Failure::Said(line)
    }
}

impl From<io::Error> for Failure {
    /// Of writing to stdout.
    fn from(error: io::Error) -> Failure {
        match error.kind() {
            io::ErrorKind::BrokenPipe => Failure::ReaderGone,
            _ => Failure::Said(format!("can't write to stdout: {error}")),
        }
    }
}

/// Exit code 0 with a complete reply, 1 without one, 2 when there is nothing to say to the agent.
pub(crate) fn run(args: &Args) -> ExitCode {
    let input = match input(args) {
        Ok(input) => input,
        Err(line) => {
            eprintln!("error: {line}");
            return ExitCode::from(2);
        }
    };
    match http::block_on(async { Ok(call(args, &input).await) }).unwrap_or_else(|e| Err(e.into())) {
        Ok(()) | Err(Failure::ReaderGone) => ExitCode::SUCCESS,
        Err(Failure::Said(line)) => {
            eprintln!("error: {line}");
            ExitCode::FAILURE
        }
    }
}

fn input(args: &Args) -> Result<String, String> {
    match args.input.as_deref() {
        Some("-") => {}
        Some(input) => return Ok(input.to_owned()),
        None if io::stdin().is_terminal() => {
            return Err("nothing to say: give INPUT, or pipe it in (see switchyard invoke --help)"
                .to_owned());
        }
        None => {}
    }
    let mut text = String::new();
    io::stdin().read_to_string(&mut text).map_err(|error| format!("can't read stdin: {error}"))?;
    Ok(text)
}

async fn call(args: &Args, input: &str) -> Result<(), Failure> {
    let response = send(args, input).await?;
    if !response.status().is_success() {
        let status = response.status();
        let body = start_of_body(response).await;
        return Err(problem::of_reply(status, &body).into());
    }
    let kind = response.headers().get(CONTENT_TYPE).and_then(|value| value.to_str().ok());
    if kind.is_some_and(|kind| kind.trim_start().starts_with("text/event-stream")) {
        stream(response).await
    } else {
        whole(response).await
    }
}

async fn send(args: &Args, input: &str) -> Result<Response, String> {
    let streams = args.stream.unwrap_or_else(|| io::stdout().is_terminal());
    let mut body = json!({ "input": input });
    if let Some(session) = &args.session {
        body["session_id"] = json!(session);
    }
    if streams {
        body["stream"] = json!(true);
    }
    let accept = if streams { "text/event-stream, application/json" } else { "application/json" };
    let url = http::join(&args.url, &["agents", &args.agent, "invoke"]);
    let mut request = http::client(&args.url)?.post(url).header(ACCEPT, accept).json(&body);
    if let Some(session) = &args.session {
        request = request.header("x-session-id", session);
    }
    request.send().await.map_err(|error| unsent(&args.url, &error))
}

fn unsent(url: &Url, error: &reqwest::Error) -> String {
    if error.is_connect() {
        let why = http::causes(error);
        return format!(
            "no gateway at {url}: {why} (start one with `switchyard up`, or name it with --url or SWITCHYARD_URL)"
        );
    }
    format!("the call to {url} failed: {}", http::causes(error))
}

/// What an error reply says, as far as it can be read.
async fn start_of_body(mut response: Response) -> String {
    let mut body = Vec::new();
    while let Ok(Some(piece)) = response.chunk().await {
        body.extend_from_slice(&piece);
        if body.len() >= ERROR_BODY {
            break;
        }
    }
    String::from_utf8_lossy(&body).into_owned()
}

async fn whole(response: Response) -> Result<(), Failure> {
    let body = response.text().await.map_err(|error| broken(&error))?;
    let output = serde_json::from_str::<Value>(&body).ok().and_then(|reply| show::output(&reply));
    let text = output.unwrap_or(body);
    let text = if io::stdout().is_terminal() { terminal::clean(&text) } else { text };
    let newline = if text.ends_with('\n') { "" } else { "\n" };
    Ok(terminal::write_out(&format!("{text}{newline}"))?)
}

async fn stream(mut response: Response) -> Result<(), Failure> {
    let mut show = Show::new();
    let mut reader = sse::Reader::default();
    loop {
        let piece = match response.chunk().await {
            Ok(Some(piece)) => piece,
            end => {
                show.end_line()?;
                let why = end.map_or_else(|error| broken(&error), |_| ended_early());
                return Err(why.into());
            }
        };
        let events =
            reader.read(&piece).map_err(|_| "an event of the reply is too large".to_owned())?;
        for event in events {
            match show.event(&event)? {
                Progress::Open => {}
                Progress::Final => return Ok(()),
                Progress::Failed(line) => return Err(line.into()),
            }
        }
    }
}

fn broken(error: &reqwest::Error) -> String {
    format!("the reply broke off: {}", http::causes(error))
}

fn ended_early() -> String {
    "the reply broke off: its stream ended without a final event".to_owned()
}
