//! What the places and the line are shared by. The concurrency checker's test (`tests/interleaved.rs`)
//! takes those files as they are and puts its own in the place of this one.

pub use std::sync::atomic::{AtomicI64, AtomicU32, AtomicU64, AtomicUsize, Ordering};
pub use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
