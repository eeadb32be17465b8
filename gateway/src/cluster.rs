//! The gateway as one of several in a cluster: what it knows and does together with the others.
//!
//! Everything here runs on the control runtime, away from the requests.

pub mod asker;
pub mod config_map;
pub mod duties;
pub mod external_metrics;
pub mod load;
pub mod peers;

mod deletion_cost;
mod events;
mod lease;
mod parking;
mod scale;
