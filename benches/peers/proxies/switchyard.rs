//! Switchyard: the table's defaults, and as many kept connections as the others have.

use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;

use benches::gateway::one;

use super::{KEPT, Setup, types};

pub(super) fn table(listen: SocketAddr, setup: &Setup) -> String {
    let Setup { agent, workers, .. } = *setup;
    let mut table = format!(
        r#"[gateway]
listen = "{listen}"
admin = "127.0.0.1:0"
workers = {workers}
discovery = "listed"
drain_delay = "0s"
keepalive_timeout = "1h"
access_log = false

[defaults]
keepalive = {{ idle = "60s", age = "1h", max = {KEPT} }}
"#
    );
    table.extend(types(setup).map(|name| one(agent, &name, "")));
    table
}

pub(super) fn arguments(command: &mut Command, table: &Path) {
    command.arg("serve").arg("--config").arg(table);
    command.env_remove("SWITCHYARD_LISTEN").env_remove("SWITCHYARD_ADMIN");
}
