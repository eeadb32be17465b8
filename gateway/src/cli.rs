//! The commands: arguments, signals and exit codes; one file a command, and what several share.

pub(crate) mod check;
pub(crate) mod invoke;
pub(crate) mod render;
pub(crate) mod schema;
pub(crate) mod serve;
pub(crate) mod size;
pub(crate) mod status;
pub(crate) mod up;

mod http;
mod load;
mod logs;
mod signals;
mod terminal;
mod units;
