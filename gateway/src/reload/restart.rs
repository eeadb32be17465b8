//! What a reload cannot change: it is read once, at the start.

use config::{Gateway, Problem, Table, problem_at};

use crate::discovery::resolve;

/// A key of `[gateway]` that only a restart changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NeedsRestart {
    /// The listeners are bound once.
    Listen,
    /// So is the operators' one.
    Admin,
    /// Threads are started once.
    Workers,
    /// Weighed against the descriptor limit at the start.
    MaxConnections,
    /// Its tasks are started once.
    Discovery,
}

impl NeedsRestart {
    /// All of them.
    pub const ALL: [Self; 5] =
        [Self::Listen, Self::Admin, Self::Workers, Self::MaxConnections, Self::Discovery];

    /// The key in `[gateway]`.
    #[must_use]
    pub const fn key(self) -> &'static str {
        match self {
            Self::Listen => "listen",
            Self::Admin => "admin",
            Self::Workers => "workers",
            Self::MaxConnections => "max_connections",
            Self::Discovery => "discovery",
        }
    }

    /// Whether two tables differ in it. What the command line says instead doesn't matter.
    #[must_use]
    pub fn differs(self, one: &Gateway, other: &Gateway) -> bool {
        match self {
            Self::Listen => one.listen != other.listen,
            Self::Admin => one.admin != other.admin,
            Self::Workers => one.workers != other.workers,
            Self::MaxConnections => one.max_connections != other.max_connections,
            Self::Discovery => resolve(one.discovery) != resolve(other.discovery),
        }
    }
}

/// Why `next`, read from `text`, can't take the place of `in_force`: each key by name.
pub(super) fn problems(in_force: &Table, next: &Table, text: &str, file: &str) -> Vec<Problem> {
    let differs = |key: &NeedsRestart| key.differs(&in_force.gateway, &next.gateway);
    let problem = |key: NeedsRestart| {
        let name = key.key();
        let message = format!("[gateway] {name} needs a restart");
        let hint = "leave it as it is in the table in force, or restart the gateway".to_owned();
        problem_at(text, file, &["gateway", name], message, Some(hint))
    };
    NeedsRestart::ALL.into_iter().filter(differs).map(problem).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(before: &str, after: &str, expected: &[&str]) {
        let text = |gateway: &str| {
            format!("[gateway]\n{gateway}\n[agents.qa]\nendpoints = [\"http://127.0.0.1:1\"]\n")
        };
        let table = |gateway: &str| config::parse(&text(gateway), "t").unwrap().table;
        let found = problems(&table(before), &table(after), &text(after), "t");
        let found: Vec<_> = found.iter().map(ToString::to_string).collect();
        let expected: Vec<_> = expected
            .iter()
            .map(|line| {
                format!(
                    "{line} needs a restart (leave it as it is in the table in force, or restart the gateway)"
                )
            })
            .collect();
        assert_eq!(found, expected);
    }

    #[test]
    fn each_key_is_named_at_its_place() {
        check("", "listen = \"127.0.0.1:1\"", &["t:2:10: [gateway] listen"]);
        check("", "admin = \"127.0.0.1:1\"", &["t:2:9: [gateway] admin"]);
        check("", "max_connections = 10", &["t:2:19: [gateway] max_connections"]);
        let both = ["t:3:10: [gateway] listen", "t:2:11: [gateway] workers"];
        check("", "workers = 3\nlisten = \"127.0.0.1:1\"", &both);
    }

    #[test]
    fn a_key_that_was_taken_out_is_named_at_its_section() {
        check("workers = 3", "", &["t:1:1: [gateway] workers"]);
    }

    #[test]
    fn what_comes_to_the_same_is_no_change() {
        check("workers = 0\ndiscovery = \"auto\"", "discovery = \"listed\"", &[]);
        check("drain_delay = \"1s\"", "access_log = false\nheader_timeout = \"9s\"", &[]);
    }
}
