//! The whole yard, as its user has it: `switchyard up` on the shipped table, both agents, the
//! other commands, curl. Nothing is stood in for but the language model.
//!
//! First what tests are made of, then the tests by what they are about.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]
#![allow(unreachable_pub, reason = "one binary: nothing is reachable from outside")]

#[path = "../it/agent.rs"]
#[allow(dead_code, reason = "made for other tests, too")]
mod agent;
#[path = "../it/wire.rs"]
#[allow(dead_code, reason = "made for other tests, too")]
mod wire;

mod contract;
mod gate;
mod harness;
mod installed;
mod load;
mod model;
mod processes;
mod redis;
mod stream;
mod table;

mod coding;
mod dying;
mod editing;
mod ending;
mod examples;
mod local_model;
mod provider;
mod refusing;
mod scaling;
mod tour;
