//! The `switchyard` command: settings, then one of the commands.

fn main() {}
