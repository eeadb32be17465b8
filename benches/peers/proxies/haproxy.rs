//! HAProxy: a map from prefixes to backends.

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;

use super::{KEPT, Setup, types};

/// The map's file.
pub(super) const MAP: &str = "types.map";

/// More than the clients there ever are.
const CONNECTIONS: usize = 4096;

pub(super) fn map(setup: &Setup) -> String {
    let mut map = String::new();
    for name in types(setup) {
        // A string takes all.
        let _ = writeln!(map, "/agents/{name}/ agent");
    }
    map
}

pub(super) fn config(folder: &Path, listen: SocketAddr, setup: &Setup) -> String {
    let (Setup { agent, workers, .. }, folder) = (*setup, folder.display());
    format!(
        "global
  nbthread {workers}
  maxconn {CONNECTIONS}
defaults
  mode http
  timeout connect 5s
  timeout client 1h
  timeout server 1h
  timeout http-request 1h
  timeout http-keep-alive 1h
  option http-no-delay
  http-reuse always
frontend clients
  bind {listen} backlog 4096
  use_backend %[path,map_beg({folder}/{MAP})]
backend agent
  server agent {agent} pool-max-conn {KEPT}
"
    )
}

pub(super) fn arguments(command: &mut Command, file: &Path) {
    command.arg("-db").arg("-f").arg(file);
}
