//! A real Redis server of a test's own.

use std::process::Stdio;

use tokio::process::{Child, Command};

use crate::harness::LONG;

/// A server on a port of its own; killed when dropped.
pub(crate) struct Redis {
    pub(crate) port: u16,
    process: Option<Child>,
    place: tempfile::TempDir,
}

impl Redis {
    /// Starts one, and waits until it answers.
    pub(crate) async fn start() -> Self {
        let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = free.local_addr().unwrap().port();
        drop(free);
        let mut redis = Self { port, process: None, place: tempfile::tempdir().unwrap() };
        redis.up().await;
        redis
    }

    pub(crate) fn url(&self) -> String {
        format!("redis://127.0.0.1:{}/0", self.port)
    }

    /// Starts it again after [`down`](Self::down), on the same port, with what it had.
    pub(crate) async fn up(&mut self) {
        let port = self.port.to_string();
        let mut command = Command::new("redis-server");
        command
            .args(["--port", &port, "--bind", "127.0.0.1", "--appendonly", "yes", "--save", ""])
            .arg("--dir")
            .arg(self.place.path())
            .stdout(Stdio::null())
            .kill_on_drop(true);
        let started = command.spawn();
        self.process = Some(started.expect("redis-server is installed: ./test does that"));
        let answers = async { while self.ask("PING").await.is_none() {} };
        tokio::time::timeout(LONG, answers).await.expect("redis-server answers");
    }

    /// Ends it.
    pub(crate) async fn down(&mut self) {
        let mut process = self.process.take().unwrap();
        process.kill().await.unwrap();
    }

    /// The server's answer to one command, as it writes it.
    pub(crate) async fn ask(&self, command: &str) -> Option<String> {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
        let address = ("127.0.0.1", self.port);
        let mut stream = tokio::net::TcpStream::connect(address).await.ok()?;
        stream.write_all(format!("{command}\r\n").as_bytes()).await.ok()?;
        let mut answer = vec![0; 64 << 10];
        let length = stream.read(&mut answer).await.ok()?;
        answer.truncate(length);
        Some(String::from_utf8_lossy(&answer).into_owned())
    }
}
