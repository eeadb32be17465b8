//! How an agent is served, and the two agents.
//!
//! The modules stand in the order in which a request meets them: `server` takes it in, `agent` hands it
//! to `qa` or `coding`, which run the loop in `steps`, which asks `model`; code runs in `sandbox`. What outlives a
//! request is in `store`. Nothing here is shared with the gateway but the names in `config::names`.

#![cfg_attr(test, allow(clippy::unwrap_used))]

pub mod settings;

pub mod server;

pub mod agent;

pub mod coding;
pub mod qa;

pub mod steps;

pub mod conversation;
pub mod sessions;

pub mod sandbox;

pub mod model;

pub mod store;

pub mod error;
pub mod metrics;
pub mod text;
