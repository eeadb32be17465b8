//! The text of `switchyard status`: one aligned row per agent, and the table in force.

use serde::Deserialize;

use crate::cli::{terminal, units};

/// What `/api/agents` answers, as far as it is shown.
#[derive(Debug, Default, Deserialize)]
pub(super) struct Agents {
    pub(super) agents: Vec<Agent>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Agent {
    r#type: String,
    ready: u64,
    desired: Option<u64>,
    in_flight: u64,
    capacity: Option<u64>,
    queued: u64,
    rate: f64,
    p50_ms: Option<f64>,
    p99_ms: Option<f64>,
    requests: u64,
    errors: u64,
    memory_bytes: Option<u64>,
}

/// What `/api/table` answers, as far as it is shown.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct InForce {
    generation: u64,
    hash: String,
    refused: Option<Refused>,
    discovery: Followed,
    config_map: Option<Followed>,
}

/// What the gateway follows, and since when it can't.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Followed {
    name: String,
    state: String,
    age_seconds: f64,
    error: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Refused {
    problems: Vec<String>,
    hash: String,
}

const HEADINGS: [&str; 9] =
    ["TYPE", "READY", "IN-FLIGHT", "QUEUED", "RATE", "P50", "P99", "ERRORS", "MEMORY"];

/// What is shown for a number that isn't known.
const UNKNOWN: &str = "-";

/// How much of a hash is enough to tell two tables apart.
const HASH: usize = 12;

/// The whole text, ending in a newline.
pub(super) fn render(agents: &Agents, in_force: &InForce) -> String {
    let mut rows = vec![HEADINGS.map(str::to_owned)];
    rows.extend(agents.agents.iter().map(cells));
    let mut text = aligned(&rows);
    if agents.agents.is_empty() {
        text.push_str("no agents in the table\n");
    }
    text.push('\n');
    text.push_str(&table_lines(in_force));
    text
}

fn cells(agent: &Agent) -> [String; 9] {
    let of = |count: u64, all: Option<u64>| match all {
        Some(all) => format!("{count}/{all}"),
        None => count.to_string(),
    };
    let time = |ms: Option<f64>| ms.map_or_else(|| UNKNOWN.to_owned(), units::millis);
    [
        terminal::clean(&agent.r#type),
        of(agent.ready, agent.desired),
        of(agent.in_flight, agent.capacity),
        agent.queued.to_string(),
        units::rate(agent.rate),
        time(agent.p50_ms),
        time(agent.p99_ms),
        errors(agent.errors, agent.requests),
        agent.memory_bytes.map_or_else(|| UNKNOWN.to_owned(), units::bytes),
    ]
}

/// `0`, or a count with its share of all requests: `3 (0.5 %)`.
fn errors(errors: u64, requests: u64) -> String {
    if errors == 0 || requests == 0 {
        return errors.to_string();
    }
    format!("{errors} ({:.1} %)", errors as f64 * 100.0 / requests as f64)
}

/// Columns as wide as their widest cell, the first flush left, numbers flush right.
fn aligned(rows: &[[String; 9]]) -> String {
    let width =
        |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let widths: Vec<_> = (0..HEADINGS.len()).map(width).collect();
    let mut text = String::new();
    for row in rows {
        text.push_str(&format!("{:<1$}", row[0], widths[0]));
        for (cell, width) in row.iter().zip(&widths).skip(1) {
            text.push_str(&format!("  {cell:>width$}"));
        }
        text.push('\n');
    }
    text
}

fn table_lines(in_force: &InForce) -> String {
    let mut text =
        format!("table: generation {}, hash {}\n", in_force.generation, short(&in_force.hash));
    text.push_str(&away_lines(in_force));
    let Some(refused) = &in_force.refused else { return text };
    let problems = units::counted(refused.problems.len(), "problem");
    text.push_str(&format!("last edit refused: hash {}, {problems}\n", short(&refused.hash)));
    for problem in &refused.problems {
        text.push_str(&format!("  {}\n", terminal::clean(problem)));
    }
    text
}

/// What isn't followed at the moment; nothing where all is.
fn away_lines(in_force: &InForce) -> String {
    let why = |of: &Followed| {
        of.error.as_deref().map_or_else(String::new, |why| format!(": {}", terminal::clean(why)))
    };
    let age = |of: &Followed| units::millis(of.age_seconds * 1_000.0);
    let mut text = String::new();
    let discovery = &in_force.discovery;
    if discovery.age_seconds > 0.0 {
        let (age, why) = (age(discovery), why(discovery));
        text.push_str(&format!("where replicas are: not followed for {age}{why}\n"));
    }
    if let Some(map) = in_force.config_map.as_ref().filter(|map| map.state != "followed") {
        let name = terminal::clean(&map.name);
        text.push_str(&match map.state.as_str() {
            "absent" => format!("ConfigMap {name}: there is none; the mounted file counts\n"),
            _ => {
                let (age, why) = (age(map), why(map));
                format!("ConfigMap {name}: not followed for {age}, the mounted file counts{why}\n")
            }
        });
    }
    text
}

fn short(hash: &str) -> String {
    hash.chars().filter(|c| !c.is_control()).take(HASH).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn check(agents: serde_json::Value, table: serde_json::Value, expected: &[&str]) {
        let agents = serde_json::from_value(agents).unwrap();
        let table = serde_json::from_value(table).unwrap();
        let text = render(&agents, &table);
        assert_eq!(text.lines().collect::<Vec<_>>(), expected);
    }

    #[test]
    fn agents_stand_in_aligned_columns_with_human_units() {
        check(
            json!({"agents": [
                {"type": "coding", "ready": 1, "desired": 2, "in_flight": 3, "capacity": 8, "queued": 12, "rate": 0.25,
                 "p50_ms": 1234.0, "p99_ms": 61000.0, "requests": 200, "errors": 3, "memory_bytes": 1_610_612_736u64},
                {"type": "qa", "ready": 0, "desired": null, "in_flight": 0, "capacity": null, "queued": 0, "rate": 0.0,
                 "p50_ms": null, "p99_ms": null, "requests": 0, "errors": 0, "memory_bytes": null},
            ]}),
            json!({"generation": 4, "hash": "0123456789abcdef", "table": {}, "refused": null}),
            &[
                "TYPE    READY  IN-FLIGHT  QUEUED    RATE     P50   P99     ERRORS   MEMORY",
                "coding    1/2        3/8      12  0.25/s  1.23 s  61 s  3 (1.5 %)  1.5 GiB",
                "qa          0          0       0     0/s       -     -          0        -",
                "",
                "table: generation 4, hash 0123456789ab",
            ],
        );
    }

    #[test]
    fn what_is_not_followed_is_shown_with_its_age() {
        check(
            json!({"agents": []}),
            json!({"generation": 1, "hash": "aa",
                "discovery": {"source": "kubernetes", "age_seconds": 12.0, "error": "a: refused (403)"},
                "config_map": {"name": "a/b", "state": "away", "age_seconds": 61.0, "error": null}}),
            &[
                "TYPE  READY  IN-FLIGHT  QUEUED  RATE  P50  P99  ERRORS  MEMORY",
                "no agents in the table",
                "",
                "table: generation 1, hash aa",
                "where replicas are: not followed for 12 s: a: refused (403)",
                "ConfigMap a/b: not followed for 61 s, the mounted file counts",
            ],
        );
    }

    #[test]
    fn the_last_refused_edit_is_shown_with_its_problems() {
        check(
            json!({"agents": []}),
            json!({"generation": 1, "hash": "aa", "refused": {"problems": ["t.toml:3:1: unknown key"], "hash": "bb"}}),
            &[
                "TYPE  READY  IN-FLIGHT  QUEUED  RATE  P50  P99  ERRORS  MEMORY",
                "no agents in the table",
                "",
                "table: generation 1, hash aa",
                "last edit refused: hash bb, 1 problem",
                "  t.toml:3:1: unknown key",
            ],
        );
    }
}
