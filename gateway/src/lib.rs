//! Switchyard: the router in front of agents.
//!
//! The `mod` lines stand in the order in which a request meets them; a module uses only modules
//! below it, which a test holds everyone to.

#![cfg_attr(test, allow(clippy::unwrap_used))]

pub mod gateway;

pub mod serve;

pub mod proxy;

pub mod admin;

pub mod cluster;

pub mod connections;

pub mod reload;

pub mod discovery;

pub mod health;

pub mod shared;

pub mod table;

pub mod router;

pub mod admission;

pub mod retry;

pub mod forward;

pub mod pool;

pub mod headroom;

pub mod metrics;

pub mod request_id;

pub mod body;

pub mod h1;

pub mod wire;

pub mod message;

pub mod error;
