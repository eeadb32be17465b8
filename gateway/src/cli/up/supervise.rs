//! Following the table: a crew for every agent that is run here, none for the others.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use config::{Agent, Table};
use switchyard::gateway::ManagedAgent;
use tokio::sync::watch;
use tokio::task::{JoinError, JoinSet};

use super::crew::{self, Wanted};
use super::spec::{Spec, secret_variables, spec};
use super::{Phase, Yard};
use crate::cli::units;

/// What a replica gets on top of its agent's timeout to end after SIGTERM.
const STOP_GRACE: Duration = Duration::from_secs(5);

struct Supervisor {
    yard: Arc<Yard>,
    crews: BTreeMap<String, watch::Sender<Wanted>>,
    running: JoinSet<()>,
    /// What was last said about an agent that can't be run, so that it isn't said at every edit.
    refused: BTreeMap<String, String>,
}

/// Runs every table's replicas until the yard ends, then until the last one has.
pub(super) async fn run(yard: Arc<Yard>, mut tables: watch::Receiver<Arc<Table>>) {
    let mut phase = yard.phase.clone();
    let mut supervisor = Supervisor {
        yard,
        crews: BTreeMap::new(),
        running: JoinSet::new(),
        refused: BTreeMap::new(),
    };
    let first = Arc::clone(&tables.borrow_and_update());
    first.agents.values().for_each(|agent| supervisor.yard.console.print(&description(agent)));
    supervisor.follow(&first);
    let mut followed = true;
    loop {
        tokio::select! {
            changed = tables.changed(), if followed => match changed {
                Ok(()) => {
                    let table = Arc::clone(&tables.borrow_and_update());
                    supervisor.follow(&table);
                }
                Err(_) => followed = false,
            },
            Some(left) = supervisor.running.join_next() => supervisor.note_end(&left),
            _ = phase.wait_for(|phase| *phase != Phase::Run) => break,
        }
    }
    supervisor.end().await;
}

impl Supervisor {
    fn follow(&mut self, table: &Table) {
        self.yard.know_secrets(secret_variables(table));
        let gone: Vec<_> =
            self.crews.keys().filter(|name| !runs_here(table, name)).cloned().collect();
        gone.iter().for_each(|name| self.dismiss(name));
        let gone: Vec<_> =
            self.refused.keys().filter(|name| !runs_here(table, name)).cloned().collect();
        for name in gone {
            self.refused.remove(&name);
            self.yard.unlist(&name);
        }
        for agent in table.agents.values() {
            match spec(agent, |variable| std::env::var_os(variable)) {
                Some(Ok(spec)) => self.employ(agent, spec),
                Some(Err(missing)) => self.refuse(agent, missing.to_string()),
                None => {}
            }
        }
    }

    fn employ(&mut self, agent: &Agent, spec: Spec) {
        self.refused.remove(&agent.name);
        let wanted = Wanted {
            spec: Arc::new(spec),
            replicas: replicas(agent),
            grace: agent.timeout + STOP_GRACE,
            leave: false,
        };
        let Some(crew) = self.crews.get(&agent.name) else {
            let (crew, told) = watch::channel(wanted);
            self.running.spawn(crew::run(Arc::clone(&self.yard), told));
            self.crews.insert(agent.name.clone(), crew);
            return;
        };
        crew.send_if_modified(|before| {
            let change = change(before, &wanted);
            if let Some(change) = &change {
                self.yard.console.say(&format!("{}: {change}", agent.name));
            }
            let graces_differ = before.grace != wanted.grace;
            *before = wanted;
            change.is_some() || graces_differ
        });
    }

    /// An agent that can't be run as the table says: what ran before goes on.
    fn refuse(&mut self, agent: &Agent, missing: String) {
        if self.refused.get(&agent.name) == Some(&missing) {
            return;
        }
        if self.crews.contains_key(&agent.name) {
            self.yard.console.say(&format!("{} goes on as it was: {missing}", agent.name));
        } else {
            self.yard.console.say(&format!("{} isn't started: {missing}", agent.name));
            let desired = replicas(agent);
            self.yard.list(&agent.name, ManagedAgent { desired, replicas: Vec::new() });
        }
        self.refused.insert(agent.name.clone(), missing);
    }

    /// An agent that isn't run here any more leaves the list at once; its crew finishes.
    fn dismiss(&mut self, name: &str) {
        let Some(crew) = self.crews.remove(name) else { return };
        self.yard.unlist(name);
        self.yard.console.say(&format!("{name}: not run any more; its replicas finish"));
        crew.send_modify(|wanted| wanted.leave = true);
    }

    /// A crew that has left is no news; one that broke is.
    fn note_end(&self, left: &Result<(), JoinError>) {
        if let Err(error) = left {
            self.yard.console.say(&format!("a fault in switchyard itself ended a crew: {error}"));
        }
    }

    async fn end(mut self) {
        for crew in self.crews.values() {
            crew.send_modify(|wanted| wanted.leave = true);
        }
        while self.running.join_next().await.is_some() {}
    }
}

fn runs_here(table: &Table, name: &str) -> bool {
    table.agents.get(name).is_some_and(|agent| spec(agent, |_| None).is_some())
}

fn replicas(agent: &Agent) -> u32 {
    agent.scale.as_ref().map_or(1, |scale| scale.min)
}

/// What an edit means for a crew, in words; `None` when it means nothing to it.
fn change(before: &Wanted, after: &Wanted) -> Option<String> {
    let scaled = before.replicas != after.replicas;
    let scale =
        format!("{} → {}", before.replicas, units::counted(after.replicas as usize, "replica"));
    match (before.spec != after.spec, scaled) {
        (false, false) => None,
        (false, true) => Some(scale),
        (true, false) => Some("changed; replacing its replicas one at a time".to_owned()),
        (true, true) => Some(format!("changed; replacing its replicas one at a time; {scale}")),
    }
}

/// What is run for an agent, for people.
fn description(agent: &Agent) -> String {
    let name = &agent.name;
    if let Some(other) = &agent.shares {
        return format!("{name}: in the replicas of {other}");
    }
    let deployment = agent.deployment.as_ref().filter(|deployment| !deployment.command.is_empty());
    let Some(deployment) = deployment else {
        let endpoints = agent.endpoints.iter().map(|endpoint| format!("http://{endpoint}"));
        let endpoints = endpoints.collect::<Vec<_>>().join(", ");
        return format!(
            "{name}: not run here{}{endpoints}",
            if endpoints.is_empty() { "" } else { ", " }
        );
    };
    let command = deployment.command.join(" ");
    match replicas(agent) {
        0 => format!("{name}: parked (scale.min = 0), {command}"),
        count => {
            let limit = deployment.limits.memory.map(units::bytes);
            let limit = limit.map_or(String::new(), |limit| format!(" of at most {limit}"));
            format!("{name}: {}{limit}, {command}", units::counted(count as usize, "replica"))
        }
    }
}
