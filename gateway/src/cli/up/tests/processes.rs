//! The tiny agent, and a tiny yard: this test binary started again, told by an environment
//! variable what to be. Where that isn't set, the tests here do nothing.

use std::process::Stdio;

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::process::{Child, Command};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::rig::{Rig, tiny};

/// Makes a process the tiny agent.
pub(super) const AGENT: &str = "SWITCHYARD_TEST_TINY_AGENT";

/// Makes a process a tiny yard.
const YARD: &str = "SWITCHYARD_TEST_TINY_YARD";

/// The arguments with which this binary runs one test and nothing else.
pub(super) fn only(test: &str) -> Vec<String> {
    let exe = std::env::current_exe().unwrap().display().to_string();
    let name = format!("{}::{test}", module_path!().split_once("::").unwrap().1);
    vec![exe, name, "--exact".to_owned(), "--nocapture".to_owned()]
}

/// Starts a yard with one tiny agent in a process of its own; gives it and the agent's process id.
pub(super) async fn yard() -> (Child, i32) {
    let words = only("tiny_yard");
    let mut command = Command::new(&words[0]);
    command.args(&words[1..]).env(YARD, "1").stdout(Stdio::piped()).kill_on_drop(true);
    let mut child = command.spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    while let Some(line) = lines.next_line().await.unwrap() {
        if let Some((_, pid)) = line.split_once("agent is ") {
            return (child, pid.parse().unwrap());
        }
    }
    panic!("the tiny yard said nothing");
}

#[tokio::test]
async fn tiny_yard() {
    if std::env::var_os(YARD).is_none() {
        return;
    }
    let mut rig = Rig::start(&[tiny("qa")]);
    let replica = rig.replicas("qa", 1).await.remove(0);
    say(&format!("agent is {}", rig.pid(&replica).await));
    std::future::pending::<()>().await;
}

#[tokio::test]
async fn tiny_agent() {
    if std::env::var_os(AGENT).is_none() {
        return;
    }
    let port: u16 = std::env::var("PORT").unwrap().parse().unwrap();
    let mut terminate = signal(SignalKind::terminate()).unwrap();
    let listener = TcpListener::bind(("127.0.0.1", port)).await.unwrap();
    say("listening");
    let (ending, told) = watch::channel(false);
    let mut open = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                open.spawn(answer(accepted.unwrap().0, told.clone()));
            }
            _ = terminate.recv() => {
                say("told to end");
                ending.send_replace(true);
                break;
            }
        }
    }
    if std::env::var_os("TINY_STUBBORN").is_some() {
        std::future::pending::<()>().await;
    }
    open.join_all().await;
    std::process::exit(0);
}

#[expect(clippy::print_stdout, reason = "a process that speaks through its stdout")]
fn say(text: &str) {
    println!("tiny: {text}");
}

async fn answer(mut stream: TcpStream, mut told: watch::Receiver<bool>) {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        match stream.read_u8().await {
            Ok(byte) => head.push(byte),
            Err(_) => return,
        }
    }
    let head = String::from_utf8(head).unwrap();
    let path = head.split(' ').nth(1).unwrap();
    let (status, body) = match path {
        "/readyz" if !gate_open() => {
            say("not ready");
            ("503 Service Unavailable", String::new())
        }
        "/readyz" => ("200 OK", String::new()),
        "/pid" => ("200 OK", std::process::id().to_string()),
        "/die" => std::process::exit(7),
        "/hog" => hog(),
        "/until-told" => {
            say("working");
            told.wait_for(|told| *told).await.unwrap();
            ("200 OK", "finished".to_owned())
        }
        path => {
            let name = path.strip_prefix("/env/").unwrap();
            ("200 OK", std::env::var(name).unwrap_or_default())
        }
    };
    let length = body.len();
    let reply =
        format!("HTTP/1.1 {status}\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n{body}");
    // The other side may have gone.
    let _ = stream.write_all(reply.as_bytes()).await;
}

fn gate_open() -> bool {
    std::env::var_os("TINY_GATE").is_none_or(|gate| std::path::Path::new(&gate).exists())
}

fn hog() -> ! {
    let mut all = Vec::new();
    loop {
        all.push(vec![1u8; 1 << 20]);
    }
}
