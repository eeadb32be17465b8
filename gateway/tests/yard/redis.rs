//! A real Redis server.

use std::net::TcpListener;
use std::process::Stdio;

use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::process::{Child, Command};

use crate::harness::until;

/// A server that keeps nothing on the disk; killed when dropped.
pub struct Redis {
    port: u16,
    server: Child,
    place: TempDir,
}

impl Redis {
    pub async fn start() -> Redis {
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let place = tempfile::tempdir().unwrap();
        let server = server(port, &place);
        let redis = Redis { port, server, place };
        redis.until_it_answers().await;
        redis
    }

    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}/0", self.port)
    }

    pub async fn stop(&mut self) {
        self.server.kill().await.unwrap();
    }

    /// Starts it again where it was.
    pub async fn start_again(&mut self) {
        self.server = server(self.port, &self.place);
        self.until_it_answers().await;
    }

    async fn until_it_answers(&self) {
        until("redis answers", async || pong(self.port).await.is_ok_and(|pong| pong)).await;
    }
}

fn server(port: u16, place: &TempDir) -> Child {
    let mut command = Command::new("redis-server");
    command
        .args(["--bind", "127.0.0.1", "--port", &port.to_string()])
        .args(["--save", "", "--appendonly", "no", "--dir"])
        .arg(place.path())
        .stdout(Stdio::null())
        .kill_on_drop(true);
    command.spawn().unwrap_or_else(|e| panic!("redis-server can't be run, is it installed? ({e})"))
}

async fn pong(port: u16) -> std::io::Result<bool> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).await?;
    stream.write_all(b"PING\r\n").await?;
    let mut reply = [0; 7];
    stream.read_exact(&mut reply).await?;
    Ok(&reply == b"+PONG\r\n")
}
