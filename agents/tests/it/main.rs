//! The agents from outside: the real binary, real sockets, and a model server that does as it is told.

#![allow(clippy::unwrap_used)]

mod drain;
mod harness;
mod leaving;
mod model_server;
mod provider;
mod qa;
mod sandbox;
mod serving;
mod tools;
