//! The supervisor with real processes.

use std::collections::BTreeMap;

use config::Agent;
