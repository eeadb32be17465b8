//! What a good table becomes.

use std::time::Duration;

use config::{Agent, Checked, Table};
use serde_json::Value;

use crate::{name, shipped};

const REACHED: &str = "endpoints = [\"http://127.0.0.1:8001\"]";

fn parse(text: &str) -> Checked {
    match config::parse(text, "t.toml") {
        Ok(checked) => checked,
        Err(problems) => {
            panic!("{}", problems.iter().map(|p| format!("{p}\n")).collect::<String>())
        }
    }
}

fn agent(keys: &str) -> Agent {
    let mut table = parse(&format!("{keys}\n")).table;
    table.agents.remove("a").unwrap()
}

fn seconds(count: u64) -> Duration {
    Duration::from_secs(count)
}

#[test]
fn shipped_tables_are_taken_without_a_word() {
    for path in shipped() {
        let text = std::fs::read_to_string(&path).unwrap();
        let checked = config::parse(&text, name(&path)).unwrap_or_else(|p| panic!("{p:#?}"));
        assert_eq!(checked.warnings, [], "{}", path.display());
    }
}

#[test]
fn the_smallest_table_has_the_defaults_of_the_contract() {
    let table = parse(&format!("[agents.a]\n{REACHED}")).table;
    let gateway = &table.gateway;
    assert_eq!(gateway.listen.to_string(), "127.0.0.1:8080");
    assert_eq!(gateway.admin.to_string(), "127.0.0.1:9090");
    assert_eq!(gateway.drain_timeout, seconds(330));
    assert_eq!(gateway.max_header_bytes, 64 << 10);
    assert_eq!(gateway.max_connections, 50_000);
    assert!(gateway.access_log && gateway.deployment.is_none() && gateway.scale.is_none());
    assert_eq!(table.kubernetes.namespace, "ai-agents");
    let agent = &table.agents["a"];
    assert_eq!(agent.max_body, 32 << 20);
    assert_eq!(agent.connect_timeout, seconds(1));
    assert_eq!(agent.first_byte_timeout, seconds(300));
    assert_eq!(agent.idle_timeout, seconds(60));
    assert_eq!(agent.timeout, seconds(300));
    assert_eq!((agent.heartbeat, agent.max_in_flight, agent.affinity.as_ref()), (None, None, None));
    assert_eq!((agent.queue.max, agent.queue.timeout), (64, seconds(30)));
    let retry = agent.retry.unwrap();
    assert_eq!((retry.max, retry.budget, retry.buffer), (2, 0.2, 64 << 10));
    let eject = agent.eject.unwrap();
    assert_eq!((eject.consecutive, eject.time, eject.time_max), (3, seconds(1), seconds(30)));
    assert_eq!((eject.max_percent, agent.health.as_ref()), (50, None));
    assert_eq!((agent.keepalive.idle, agent.keepalive.age), (seconds(4), seconds(300)));
    assert!(agent.scale.is_none() && agent.deployment.is_none() && agent.paths.is_empty());
}

#[test]
fn tables_are_merged_key_by_key_from_agent_over_defaults_over_built_in() {
    let a = agent(&format!(
        "[defaults]\nqueue = {{ max = 5 }}\nhealth = {{ interval = \"9s\" }}\nretry = {{ max = 7 }}\n\
         [agents.a]\n{REACHED}\nmax_in_flight = 1\nqueue = {{ timeout = \"10s\" }}\n\
         health = {{ path = \"/up\" }}\nretry = \"off\""
    ));
    assert_eq!((a.queue.max, a.queue.timeout), (5, seconds(10)));
    let health = a.health.unwrap();
    assert_eq!(
        (health.path.as_str(), health.interval, health.timeout),
        ("/up", seconds(9), seconds(2))
    );
    assert_eq!(a.retry, None);
}

#[test]
fn what_defaults_switch_off_an_agent_switches_on_with_the_built_in_values() {
    let a = agent(&format!(
        "[defaults]\nretry = \"off\"\n[agents.a]\n{REACHED}\nretry = {{ max = 1 }}"
    ));
    let retry = a.retry.unwrap();
    assert_eq!((retry.max, retry.budget), (1, 0.2));
}

#[test]
fn environments_are_merged_variable_by_variable() {
    let a = agent(
        "[defaults.deployment]\nenv = { A = \"1\", B = \"1\" }\n\
         [agents.a.deployment]\ncommand = [\"x\"]\nenv = { B = \"2\" }",
    );
    let env = a.deployment.unwrap().env;
    assert_eq!(
        env.into_iter().collect::<Vec<_>>(),
        [("A", "1"), ("B", "2")].map(|(k, v)| (k.into(), v.into()))
    );
}

#[test]
fn a_chain_of_shares_ends_at_the_owner_and_clocks_stay_its_own() {
    let table = parse(&format!(
        "[defaults]\nscale = {{ min = 2 }}\ndeployment = {{ command = [\"x\"] }}\n\
         [agents.a]\nshares = \"b\"\ntimeout = \"5s\"\n[agents.b]\nshares = \"c\"\n\
         [agents.c]\n{REACHED}\nprotocol = \"h2c\""
    ))
    .table;
    let a = &table.agents["a"];
    assert_eq!(a.shares.as_deref(), Some("c"));
    assert_eq!(a.timeout, seconds(5));
    assert_eq!(a.protocol, config::Protocol::H2c, "it speaks to c's replicas");
    assert!(a.endpoints.is_empty() && a.deployment.is_none() && a.scale.is_none());
    assert!(table.agents["c"].scale.is_some());
}

#[test]
fn draining_takes_as_long_as_the_longest_agent_and_half_a_minute() {
    let table =
        parse(&format!("[agents.a]\n{REACHED}\ntimeout = \"10m\"\n[agents.b]\nshares = \"a\""))
            .table;
    assert_eq!(table.gateway.drain_timeout, seconds(630));
    assert_eq!(table.agents["a"].first_byte_timeout, seconds(600));
}

#[test]
fn a_scale_without_max_stays_at_min() {
    let scale = |keys: &str| {
        agent(&format!("[agents.a]\ndeployment = {{ command = [\"x\"] }}\nscale = {{ {keys} }}"))
            .scale
            .unwrap()
    };
    let of = |keys| (scale(keys).min, scale(keys).max);
    assert_eq!(of(""), (1, 1));
    assert_eq!(of("min = 3"), (3, 3));
    assert_eq!(of("min = 0, idle = \"15m\""), (0, 1));
    assert_eq!(of("max = 4, load = 2"), (1, 4));
}

#[test]
fn the_hash_is_that_of_the_bytes() {
    let table = parse(&format!("[agents.a]\n{REACHED}\n")).table;
    assert_eq!(table.hash.len(), 64);
    let other = parse(&format!("[agents.a]\n{REACHED}\n# a comment\n")).table;
    assert_ne!(table.hash, other.hash);
}

#[test]
fn a_problem_stands_at_its_character_not_its_byte() {
    let problems =
        config::parse("[agents.a]\ndescription = \"größe\" # ü\nservice = 5\n", "t").unwrap_err();
    assert_eq!((problems[0].line, problems[0].col), (3, 11));
    let problems = config::parse("agents = { \"ä\" = 1, b = 2 }", "t").unwrap_err();
    let places: Vec<(usize, usize)> = problems.iter().map(|p| (p.line, p.col)).collect();
    assert_eq!(places, [(1, 12), (1, 18), (1, 25)]);
}

#[test]
fn no_value_of_a_variable_is_ever_repeated() {
    const SECRET: &str = "hunter2";
    let tables = [
        "[agents.a.deployment]\nenv = { A = \"hunter2\\u0000\" }",
        "[agents.a.deployment]\nsecrets = { OPENAI_API_KEY = \"hunter2\" }",
        "[agents.a.deployment]\nsecrets = { OPENAI_API_KEY = \"hunter2/hunter2 hunter2\" }",
        "[agents.a.deployment]\nenv = { API_KEY = \"hunter2\" }\nsecrets = { API_KEY = \"a/b\" }",
        "[agents.a.deployment]\nenv = { A = hunter2 }",
        "[agents.a.deployment]\nenv = { A = \"hunter2 }\nx = 1",
        "[agents.a.deployment]\nenv = \"hunter2\"",
        "[agents.a.deployment]\ncommand = [\"x\", \"hunter2\\u0000\"]",
        "[agents.a]\nendpoints = [\"http://root:hunter2@127.0.0.1:80\"]",
        "[agents.a]\nendpoints = [\"https://root:hunter2@127.0.0.1:80\"]",
    ];
    for table in tables {
        let problems = config::parse(table, "t.toml").unwrap_err();
        for problem in problems {
            assert!(!problem.to_string().contains(SECRET), "{problem}");
        }
    }
    let text = format!(
        "[agents.a]\n{REACHED}\ndeployment = {{ env = {{ API_KEY = \"hunter2\" }}, secrets = {{ B = \"hunter2/b\" }} }}"
    );
    let checked = parse(&text);
    assert!(!format!("{:?}", checked.warnings).contains(SECRET));
    assert!(!config::render_json(&checked.table).to_string().contains(SECRET));
}

/// What a table is as JSON, as a table again.
fn again(table: &Table) -> Table {
    let json: Value = config::render_json(table);
    parse(&toml::to_string(&json).unwrap()).table
}

#[test]
fn the_table_as_json_is_the_same_table() {
    for path in shipped() {
        let text = std::fs::read_to_string(&path).unwrap();
        let mut table = parse(&text).table;
        for agent in table.agents.values_mut() {
            if let Some(deployment) = &mut agent.deployment {
                deployment.env.clear(); // left out of the JSON on purpose
            }
        }
        let mut read = again(&table);
        read.hash.clone_from(&table.hash);
        assert_eq!(read, table, "{}", path.display());
    }
}

#[test]
fn the_table_as_json_names_variables_and_nothing_more() {
    let checked = parse(
        "[agents.a.deployment]\ncommand = [\"x\"]\nenv = { MODEL = \"m\" }\nsecrets = { KEY = \"s/k\" }",
    );
    let json = config::render_json(&checked.table);
    let deployment = &json["agents"]["a"]["deployment"];
    assert_eq!(deployment["env"], serde_json::json!(["MODEL"]));
    assert_eq!(deployment["secrets"], serde_json::json!(["KEY"]));
}
