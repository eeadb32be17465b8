//! The gateway from outside: its binary, real sockets, agents that misbehave, clients that check
//! of every reply what holds for every reply.
//!
//! First what tests are made of, then the tests by what they are about.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]
#![allow(clippy::print_stdout, reason = "what a test measures is shown with --nocapture")]
#![allow(unreachable_pub, reason = "one binary: nothing is reachable from outside")]

mod agent;
mod agent_h2;
mod api_server;
mod ask;
mod client;
mod cluster;
mod gateway;
mod open;
mod reply;
mod wire;

mod harness;

mod admission;
mod balance;
mod boundaries;
mod cancellation;
mod clients;
mod clocks;
mod config_map;
mod dns;
mod drain;
mod ejection;
mod errors;
mod external_metrics;
mod faults;
mod framing;
mod headers;
mod heartbeats;
mod isolation;
mod kubernetes;
mod location;
mod memory;
mod midstream;
mod observe;
mod parking;
mod paths;
mod peers;
mod reload;
mod replacing;
mod retries;
mod routing;
mod sharing;
mod streaming;
mod tenants;
mod upgrades;
mod workers;
