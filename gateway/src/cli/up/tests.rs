//! The supervisor with real processes.

use std::collections::BTreeMap;
use std::time::Duration;

use config::{Agent, Deployment, Keepalive, OnDisconnect, Protocol, Queue};

/// An agent that is run here (or, without a command, isn't), every other setting at its default.
pub(super) fn agent(name: &str, command: &[&str]) -> Agent {
    Agent {
        name: name.to_owned(),
        description: String::new(),
        service: None,
        endpoints: Vec::new(),
        shares: None,
        versions: Vec::new(),
        protocol: Protocol::Http1,
        max_body: 32 << 20,
        connect_timeout: Duration::from_secs(1),
        first_byte_timeout: Duration::from_secs(5),
        idle_timeout: Duration::from_secs(5),
        timeout: Duration::from_secs(5),
        heartbeat: None,
        on_disconnect: OnDisconnect::Cancel,
        max_in_flight: None,
        queue: Queue { max: 64, timeout: Duration::from_secs(30) },
        affinity: None,
        retry: None,
        eject: None,
        health: None,
        keepalive: Keepalive {
            idle: Duration::from_secs(4),
            age: Duration::from_secs(300),
            max: 64,
        },
        paths: BTreeMap::new(),
        deployment: Some(Deployment {
            command: command.iter().map(|word| (*word).to_owned()).collect(),
            ..Deployment::default()
        }),
        scale: None,
    }
}
