//! The agents from outside: the real binary, real sockets, and a model server that does as it is told.

#![allow(clippy::unwrap_used)]

mod drain;
mod escape;
mod fallback;
mod harness;
mod idempotency;
mod leaving;
mod levels;
mod memory;
mod model_server;
mod oom;
mod openai_sdk;
mod provider;
mod qa;
mod recall;
mod redis;
mod sandbox;
mod serving;
mod steps;
mod structured;
mod tools;
