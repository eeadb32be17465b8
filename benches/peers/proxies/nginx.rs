//! nginx: a `location` for each type.

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;

use super::{KEPT, Setup, types};

/// Both sides of a thousand streams, and some.
const CONNECTIONS: usize = 4096;

pub(super) fn config(folder: &Path, listen: SocketAddr, setup: &Setup) -> String {
    let (Setup { agent, workers, .. }, folder) = (*setup, folder.display());
    let mut locations = String::new();
    for name in types(setup) {
        // A string takes all.
        let _ = writeln!(locations, "    location /agents/{name}/ {{ proxy_pass http://agent; }}");
    }
    format!(
        "daemon off;
pid {folder}/nginx.pid;
worker_processes {workers};
events {{ worker_connections {CONNECTIONS}; }}
http {{
  access_log off;
  client_max_body_size 0;
  client_body_temp_path {folder}/body;
  proxy_temp_path {folder}/proxy;
  fastcgi_temp_path {folder}/fastcgi;
  uwsgi_temp_path {folder}/uwsgi;
  scgi_temp_path {folder}/scgi;
  keepalive_requests 1000000000;
  keepalive_timeout 1h;
  proxy_http_version 1.1;
  proxy_set_header Connection \"\";
  proxy_set_header Host $http_host;
  proxy_buffering off;
  proxy_request_buffering off;
  proxy_read_timeout 1h;
  upstream agent {{
    server {agent};
    keepalive {KEPT};
    keepalive_requests 1000000000;
  }}
  server {{
    listen {listen} backlog=4096;
{locations}  }}
}}
"
    )
}

pub(super) fn arguments(command: &mut Command, folder: &Path, file: &Path) {
    command.arg("-p").arg(folder).arg("-e").arg(folder.join("error.log")).arg("-c").arg(file);
}
