//! Switchyard: the router in front of agents.
//!
//! The `mod` lines stand in the order in which a request meets them; a module uses only modules
//! below it.

pub mod gateway;
