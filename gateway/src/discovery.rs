//! Where an agent's replicas are. Each source says it in the same words: [`Found`].

pub mod listed;
pub mod managed;

pub use crate::table::Found;
