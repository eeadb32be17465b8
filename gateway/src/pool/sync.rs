//! What a replica's memory is counted with. The concurrency checker's test (`tests/interleaved.rs`) takes
//! `memory.rs` as it is and puts its own in the place of this one.

pub(super) use std::sync::Arc;
pub(super) use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
