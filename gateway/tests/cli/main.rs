//! The commands from outside: the real binary, its output and its exit codes.

#![allow(clippy::unwrap_used, missing_docs)]

mod check;
mod invoke;
mod render;
mod run;
mod size;
mod status;

use std::io::{Read, Write};
use std::net::TcpListener;
use std::process::{Command, Output, Stdio};
use std::thread::{self, JoinHandle};

/// The command with nothing of the caller's settings.
fn switchyard(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_switchyard"));
    command.args(arguments).stdin(Stdio::null());
    for variable in ["URL", "ADMIN_URL", "LISTEN", "ADMIN", "LOG", "LOG_FORMAT"] {
        command.env_remove(format!("SWITCHYARD_{variable}"));
    }
    command
}

/// Exit code, stdout, stderr.
fn outcome(output: Output) -> (Option<i32>, String, String) {
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (output.status.code(), text(output.stdout), text(output.stderr))
}

fn run(arguments: &[&str]) -> (Option<i32>, String, String) {
    outcome(switchyard(arguments).output().unwrap())
}

/// A server that answers one request after another with these bytes, each on its own connection;
/// gives its URL and, in the end, the requests.
fn server(replies: &[&str]) -> (String, JoinHandle<Vec<String>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let replies: Vec<_> = replies.iter().map(|reply| (*reply).to_owned()).collect();
    let answer = move |reply: String| {
        let mut stream = listener.accept().unwrap().0;
        let request = read_request(&mut stream);
        stream.write_all(reply.as_bytes()).unwrap();
        request
    };
    (url, thread::spawn(move || replies.into_iter().map(answer).collect()))
}

fn read_request(from: &mut impl Read) -> String {
    let mut request = Vec::new();
    let complete = |request: &[u8]| {
        let text = String::from_utf8_lossy(request).into_owned();
        let (head, body) = text.split_once("\r\n\r\n")?;
        let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
        (body.len() >= length.map_or(0, |length| length.parse().unwrap())).then_some(text)
    };
    loop {
        let mut piece = [0; 4096];
        let read = from.read(&mut piece).unwrap();
        assert!(read > 0, "the request broke off: {}", String::from_utf8_lossy(&request));
        request.extend_from_slice(&piece[..read]);
        if let Some(request) = complete(&request) {
            return request;
        }
    }
}

/// A whole reply of this type.
fn reply(status: &str, kind: &str, body: &str) -> String {
    let length = body.len();
    format!(
        "HTTP/1.1 {status}\r\ncontent-type: {kind}\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n{body}"
    )
}

/// A URL on which nobody listens.
fn nobody() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    format!("http://{}", listener.local_addr().unwrap())
}
