//! Envoy: a list of routes, which is looked through in order.

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;

use super::{Setup, types};

/// No limit that our load could meet.
const PLENTY: usize = 100_000;

pub(super) fn config(listen: SocketAddr, setup: &Setup) -> String {
    let mut routes = String::new();
    for name in types(setup) {
        let found = format!("match: {{ prefix: \"/agents/{name}/\" }}");
        // A string takes all.
        let _ = write!(
            routes,
            "\n              - {{ {found}, route: {{ cluster: agent, timeout: 0s }} }}"
        );
    }
    let (listen, agent) = (socket(listen), socket(setup.agent));
    let connections = "envoy.extensions.filters.network.http_connection_manager.v3";
    let router = "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router";
    format!(
        r#"static_resources:
  listeners:
  - name: clients
    address: {listen}
    tcp_backlog_size: 4096
    filter_chains:
    - filters:
      - name: envoy.filters.network.http_connection_manager
        typed_config:
          "@type": type.googleapis.com/{connections}.HttpConnectionManager
          stat_prefix: clients
          stream_idle_timeout: 0s
          codec_type: HTTP1
          route_config:
            virtual_hosts:
            - name: all
              domains: ["*"]
              routes: {routes}
          http_filters:
          - name: envoy.filters.http.router
            typed_config: {{ "@type": {router} }}
  clusters:
  - name: agent
    type: STATIC
    connect_timeout: 5s
    circuit_breakers:
      thresholds:
      - {{ max_connections: {PLENTY}, max_pending_requests: {PLENTY}, max_requests: {PLENTY} }}
    load_assignment:
      cluster_name: agent
      endpoints: [{{ lb_endpoints: [{{ endpoint: {{ address: {agent} }} }}] }}]
"#
    )
}

fn socket(address: SocketAddr) -> String {
    let (ip, port) = (address.ip(), address.port());
    format!("{{ socket_address: {{ address: {ip}, port_value: {port} }} }}")
}

pub(super) fn arguments(command: &mut Command, file: &Path, setup: &Setup) {
    command.arg("-c").arg(file).args(["--disable-hot-restart", "-l", "error"]);
    command.arg("--concurrency").arg(setup.workers.to_string());
}
