//! What the benches share: the agent behind a proxy, clients before it, loops of load, and what
//! the kernel counts of a process. The benches themselves are `yard/`, `peers/`, `overload/` and `micro/`.

pub mod agent;

pub mod client;

pub mod gateway;

pub mod load;

pub mod machine;

pub mod packing;

pub mod poll;

pub mod procfs;

pub mod stats;

pub mod wire;
