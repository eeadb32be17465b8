//! Replicas that the table lists.

use super::Found;
use crate::table::version_key;

/// What the table's `endpoints` say, of agents and of their versions. A version without addresses
/// of its own has those of the agent whose `service` it names.
#[must_use]
pub fn find(table: &config::Table) -> Found {
    let mut found = Found::new();
    for agent in table.agents.values() {
        found.insert(agent.name.clone(), agent.endpoints.clone().into());
        for version in &agent.versions {
            let of_service = || {
                let named =
                    |other: &&config::Agent| other.service.as_ref() == Some(&version.service);
                table.agents.values().find(named).map(|other| other.endpoints.clone())
            };
            let endpoints = match version.endpoints.as_slice() {
                [] => of_service().unwrap_or_default(),
                own => own.to_vec(),
            };
            found.insert(version_key(&agent.name, &version.service), endpoints.into());
        }
    }
    found
}
