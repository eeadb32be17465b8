//! Addresses by Service, as the one who looks them up knows them, and what they mean to a table.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use tokio::sync::watch;

use super::{Found, Replicas, Status};
use crate::table::version_key;

/// What is known of Services.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Known {
    /// By the name under which its source knows a Service.
    pub replicas: BTreeMap<String, Replicas>,
    /// Whose addresses they are, where the source knows.
    pub pods: BTreeMap<config::Endpoint, Pod>,
    /// Everything was answered once, or was waited for long enough.
    pub complete: bool,
}

/// A pod by name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Pod {
    /// Where it is.
    pub namespace: String,
    /// Its name.
    pub name: String,
}

/// What a Service of the table is called in [`Known`].
pub(super) type Key = fn(&str, &config::Table) -> String;

/// The Services that a table names.
pub(super) fn named(table: &config::Table) -> BTreeSet<&str> {
    let agents = table.agents.values();
    let versions = agents.clone().flat_map(|agent| &agent.versions).map(|version| &version.service);
    agents.filter_map(|agent| agent.service.as_ref()).chain(versions).map(String::as_str).collect()
}

/// One view of what is known.
pub struct Services {
    known: watch::Receiver<Arc<Known>>,
    key: Key,
    status: Arc<Status>,
    complete: bool,
}

impl Services {
    pub(super) fn new(known: watch::Receiver<Arc<Known>>, key: Key, status: Arc<Status>) -> Self {
        Self { known, key, status, complete: false }
    }

    /// The addresses of each agent's and version's Service; what names none has those it lists.
    pub(super) fn find(&mut self, table: &config::Table) -> Found {
        let known = Arc::clone(&self.known.borrow_and_update());
        self.complete = known.complete;
        let of = |service: &String| {
            let replicas = known.replicas.get(&(self.key)(service, table)).cloned();
            replicas.unwrap_or_else(|| Replicas::followed(Vec::new()))
        };
        let mut found = Found::new();
        for agent in table.agents.values() {
            let own = agent.service.as_ref().map_or_else(|| agent.endpoints.clone().into(), of);
            found.insert(agent.name.clone(), own);
            for version in &agent.versions {
                found.insert(version_key(&agent.name, &version.service), of(&version.service));
            }
        }
        found
    }

    /// Says whether there was one: there won't be when the one who looks up has gone.
    pub(super) async fn changed(&mut self) -> bool {
        self.known.changed().await.is_ok()
    }

    pub(super) fn in_force(&self) {
        if self.complete {
            self.status.set_ready();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::table::Standing::{Followed, Leaving, Listed};

    #[test]
    fn a_service_is_looked_up_and_what_has_none_keeps_what_it_lists() {
        let text = r#"
            [agents.coding]
            service = "coding-agent"
            endpoints = ["http://127.0.0.1:1"]
            [agents.local]
            endpoints = ["http://127.0.0.1:2"]
            [agents.search]
            versions = [{ service = "old.far", weight = 9 }, { service = "new" }]
        "#;
        let table = config::parse(text, "t").unwrap().table;
        assert_eq!(named(&table), BTreeSet::from(["coding-agent", "new", "old.far"]));
        let at = |port| config::Endpoint { host: "10.0.0.1".into(), port };
        let replicas = BTreeMap::from([
            ("coding-agent.ai-agents".to_owned(), Replicas::followed(vec![at(3)])),
            ("old.far".to_owned(), Replicas::leaving(vec![at(4), at(5)])),
            ("other.ai-agents".to_owned(), Replicas::followed(vec![at(6)])),
        ]);
        let sender =
            watch::Sender::new(Arc::new(Known { replicas, complete: true, ..Known::default() }));
        let status = Arc::new(Status::waiting("kubernetes"));
        let key = crate::discovery::kubernetes::full_name;
        let mut services = Services::new(sender.subscribe(), key, Arc::clone(&status));
        let found = services.find(&table);
        let ports = |key: &str| found[key].addresses.iter().map(|e| e.port).collect::<Vec<_>>();
        assert_eq!((ports("coding"), ports("local")), (vec![3], vec![2]));
        assert_eq!((ports("search/old.far"), ports("search/new")), (vec![4, 5], vec![]));
        let of = ["coding", "local", "search/old.far", "search/new"];
        let expected = [Followed, Listed, Leaving, Followed];
        assert_eq!(of.map(|key| found[key].standing), expected);
        assert!(!status.is_ready(), "found is not in force yet");
        services.in_force();
        assert!(status.is_ready());
    }
}
