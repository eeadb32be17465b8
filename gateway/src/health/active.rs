//! Probing the replicas of agents that have `health`: one task a replica, which ends when it leaves
//! the table.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Semaphore;
use tokio::task::JoinHandle;
use tokio::time::{Instant, MissedTickBehavior, interval_at};

use super::ask::{Failure, ask};
use crate::pool::{Endpoint, Probe};
use crate::table::{Agent, Tables};

/// Probes at once: each takes a descriptor. Replicas that answer take a few milliseconds, so that
/// even thousands fit into a second; many that hang make each other's rounds longer.
pub const AT_ONCE: usize = 128;

/// Probes until dropped, whatever the table in force says.
pub async fn probe(tables: Arc<Tables>) {
    let mut swaps = tables.swaps();
    let slots = Arc::new(Semaphore::new(AT_ONCE));
    let mut rounds = Rounds::new();
    loop {
        follow(&mut rounds, &tables, &slots);
        if swaps.changed().await.is_err() {
            return;
        }
    }
}

/// By agent, and the id of its replica's address.
type Rounds = HashMap<(String, u64), Round>;

struct Round {
    target: Target,
    task: JoinHandle<()>,
}

impl Drop for Round {
    fn drop(&mut self) {
        self.task.abort();
    }
}

#[derive(Clone)]
struct Target {
    agent: String,
    endpoint: Arc<Endpoint>,
    probe: Arc<Probe>,
    health: config::Health,
}

impl Target {
    fn all(agent: &Agent) -> impl Iterator<Item = Self> {
        agent.health.iter().flat_map(|health| {
            agent.places().map(|place| Self {
                agent: agent.settings.name.clone(),
                endpoint: Arc::clone(&place.endpoint),
                probe: Arc::clone(&place.probe),
                health: health.clone(),
            })
        })
    }

    /// Whether nothing about it has changed, so that its rounds go on as they are.
    fn is(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.probe, &other.probe) && self.health == other.health
    }
}

/// Ends the rounds of replicas that are gone and begins those of new ones; the others go on, so
/// that no number of edits keeps a probe from its turn.
fn follow(rounds: &mut Rounds, tables: &Arc<Tables>, slots: &Arc<Semaphore>) {
    let current = tables.current();
    let mut wanted: HashMap<_, _> = current
        .agents
        .iter()
        .flat_map(Target::all)
        .map(|target| ((target.agent.clone(), target.endpoint.id), target))
        .collect();
    rounds.retain(|of, round| wanted.get(of).is_some_and(|target| round.target.is(target)));
    wanted.retain(|of, _| !rounds.contains_key(of));
    for (of, target) in wanted {
        let run = run(target.clone(), Arc::clone(tables), Arc::clone(slots));
        rounds.insert(of, Round { target, task: tokio::spawn(run) });
    }
}

/// Probes one replica every interval, the first time at a random point of it: replicas that come
/// together are not all asked together.
async fn run(target: Target, tables: Arc<Tables>, slots: Arc<Semaphore>) {
    let interval = target.health.interval.max(Duration::from_millis(1));
    let mut ticks = interval_at(Instant::now() + interval.mul_f64(fastrand::f64()), interval);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let Ok(_slot) = slots.acquire().await else { return };
        let asked = tokio::time::timeout(
            target.health.timeout,
            ask(&target.endpoint, &target.agent, &target.health.path),
        );
        learn(&target, asked.await.unwrap_or(Err(Failure::Timeout)), &tables);
    }
}

fn learn(target: &Target, result: Result<(), Failure>, tables: &Tables) {
    let (health, healthy) = (&target.health, result.is_ok());
    let needed = if healthy { health.healthy } else { health.unhealthy };
    if !target.probe.record(healthy, needed) {
        return;
    }
    let current = tables.current();
    let has = |agent: &&Agent| agent.places().any(|place| Arc::ptr_eq(&place.probe, &target.probe));
    current.agents.iter().filter(has).for_each(Agent::refresh_capacity);
    let (agent, address) = (&target.agent, &target.endpoint.address);
    match result {
        Ok(()) => tracing::info!(agent, endpoint = %address, "endpoint healthy again"),
        Err(failure) => {
            let reason: &dyn std::error::Error = &failure;
            tracing::warn!(agent, endpoint = %address, reason, "endpoint unhealthy");
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;
    use tokio::sync::mpsc;

    use super::*;
    use crate::metrics::Metrics;
    use crate::table::Found;

    fn table(agents: &str) -> Arc<config::Table> {
        Arc::new(config::parse(agents, "t.toml").unwrap().table)
    }

    fn found(table: &config::Table) -> Found {
        let of = |agent: &config::Agent| (agent.name.clone(), agent.endpoints.clone().into());
        table.agents.values().map(of).collect()
    }

    fn tables(agents: &str) -> Arc<Tables> {
        let table = table(agents);
        let found = found(&table);
        Arc::new(Tables::new(table, &found, Arc::new(Metrics::new())).unwrap())
    }

    fn replace(tables: &Tables, agents: &str) {
        let table = table(agents);
        let found = found(&table);
        tables.replace(table, &found).unwrap();
    }

    fn qa(ports: &[u16], more: &str) -> String {
        let urls: Vec<_> = ports.iter().map(|p| format!("\"http://127.0.0.1:{p}\"")).collect();
        format!("[agents.qa]\nendpoints = [{}]\n{more}\n", urls.join(", "))
    }

    const HEALTH: &str = "health = { path = \"/readyz\", interval = \"5ms\", timeout = \"5s\", unhealthy = 2, healthy = 1 }";

    /// Answers each connection's request with the status that stands in the channel; tells of each.
    async fn server(statuses: &'static [u16]) -> (u16, mpsc::UnboundedReceiver<String>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let (told, heads) = mpsc::unbounded_channel();
        tokio::spawn(async move {
            for n in 0.. {
                let (mut stream, _) = listener.accept().await.unwrap();
                let mut head = vec![0; 4096];
                let read = stream.read(&mut head).await.unwrap();
                let status = statuses.get(n).or(statuses.last()).unwrap();
                let reply = format!("HTTP/1.1 {status} X\r\ncontent-length: 9999\r\n\r\n");
                stream.write_all(reply.as_bytes()).await.unwrap();
                told.send(String::from_utf8_lossy(&head[..read]).into_owned()).ok();
            }
        });
        (port, heads)
    }

    async fn until(tables: &Tables, ready: usize) {
        let ask = async {
            while tables.current().agents[0].ready() != ready {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(10), ask).await.expect("its state changes");
    }

    #[tokio::test]
    async fn a_replica_goes_and_comes_with_its_answers_and_the_line_learns_of_it() {
        let (port, mut heads) = server(&[500, 302, 204]).await;
        let tables = tables(&qa(&[port], &format!("max_in_flight = 3\n{HEALTH}")));
        let probing = tokio::spawn(probe(Arc::clone(&tables)));
        until(&tables, 0).await;
        assert_eq!(tables.current().agents[0].state.admission.capacity(), Some(0));
        until(&tables, 1).await;
        assert_eq!(tables.current().agents[0].state.admission.capacity(), Some(3));
        let head = heads.recv().await.unwrap().to_lowercase();
        assert!(head.starts_with("get /readyz http/1.1\r\n"), "{head}");
        assert!(head.contains(&format!("\r\nhost: 127.0.0.1:{port}\r\n")), "{head}");
        assert!(head.contains("\r\nx-agent-type: qa\r\n"), "{head}");
        probing.abort();
    }

    #[tokio::test]
    async fn rounds_follow_the_table() {
        let (one, _heads) = server(&[500]).await;
        let tables = tables(&qa(&[one], ""));
        let (slots, mut rounds) = (Arc::new(Semaphore::new(AT_ONCE)), Rounds::new());
        let ids = |rounds: &Rounds| {
            let mut ids: Vec<_> = rounds.values().map(|round| round.task.id()).collect();
            ids.sort_by_key(ToString::to_string);
            ids
        };
        let mut steps = Vec::new();
        for text in [
            qa(&[one], ""),
            qa(&[one, 1], HEALTH),
            qa(&[one, 1], &format!("{HEALTH}\ndescription = \"other\"")),
            qa(&[1], HEALTH),
            qa(&[1], &HEALTH.replace("5ms", "6ms")),
            qa(&[1], &HEALTH.replace("5ms", "6ms")) + "[agents.sharer]\nshares = \"qa\"\n",
        ] {
            replace(&tables, &text);
            follow(&mut rounds, &tables, &slots);
            steps.push(ids(&rounds));
        }
        assert_eq!(steps.iter().map(Vec::len).collect::<Vec<_>>(), [0, 2, 2, 1, 1, 1]);
        assert_eq!(steps[1], steps[2], "an edit of something else begins no new rounds");
        assert!(steps[2].contains(&steps[3][0]), "the replica that stays goes on");
        assert_ne!(steps[3], steps[4]);
        assert_eq!(steps[4], steps[5], "who shares is not probed twice");
    }

    #[tokio::test]
    async fn without_checks_a_replica_is_in_again() {
        let (port, _heads) = server(&[500]).await;
        let tables = tables(&qa(&[port], HEALTH));
        let probing = tokio::spawn(probe(Arc::clone(&tables)));
        until(&tables, 0).await;
        replace(&tables, &qa(&[port], ""));
        until(&tables, 1).await;
        probing.abort();
    }
}
