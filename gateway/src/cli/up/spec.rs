//! What a replica is run as: program, environment and limits, from the table and the caller's
//! environment.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::path::{Path, PathBuf};

use config::{Agent, Protocol, SecretRef, Table};

/// Where an agent says that it takes requests, unless `health.path` names another place.
const READY_PATH: &str = "/readyz";

/// Two replicas with equal specs are interchangeable; with different ones, one replaces the other.
/// No `Debug`: the environment holds secrets.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Spec {
    /// The agent's type.
    pub(super) agent: String,
    /// Argument vector, never empty.
    pub(super) command: Vec<String>,
    /// What the table adds to the environment, secrets filled in.
    pub(super) env: BTreeMap<String, OsString>,
    /// Memory limit, bytes.
    pub(super) memory: Option<u64>,
    /// Asked with GET; 200 makes the replica an endpoint.
    pub(super) ready_path: String,
    /// How it is asked.
    pub(super) protocol: Protocol,
}

/// Secrets that an agent needs and the caller's environment lacks.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Missing(Vec<(String, SecretRef)>);

impl std::fmt::Display for Missing {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for (n, (variable, secret)) in self.0.iter().enumerate() {
            let comma = if n == 0 { "" } else { ", " };
            write!(f, "{comma}{variable} (Secret {}, key {})", secret.name, secret.key)?;
        }
        let verb = if self.0.len() == 1 { "is" } else { "are" };
        write!(f, " {verb} not set in the environment")
    }
}

/// The spec of an agent that is run here; `None` for one that isn't (listed, or in another's
/// replicas). `caller` looks a variable up in the caller's environment.
pub(super) fn spec(
    agent: &Agent,
    caller: impl Fn(&str) -> Option<OsString>,
) -> Option<Result<Spec, Missing>> {
    let deployment = agent.deployment.as_ref()?;
    if deployment.command.is_empty() || agent.shares.is_some() {
        return None;
    }
    let mut env: BTreeMap<String, OsString> =
        deployment.env.iter().map(|(name, value)| (name.clone(), value.into())).collect();
    let mut missing = Vec::new();
    for (variable, secret) in &deployment.secrets {
        match caller(variable) {
            Some(value) => drop(env.insert(variable.clone(), value)),
            None => missing.push((variable.clone(), secret.clone())),
        }
    }
    if !missing.is_empty() {
        return Some(Err(Missing(missing)));
    }
    let ready_path = agent.health.as_ref().map_or(READY_PATH, |health| &health.path).to_owned();
    Some(Ok(Spec {
        agent: agent.name.clone(),
        command: deployment.command.clone(),
        env,
        memory: deployment.limits.memory,
        ready_path,
        protocol: agent.protocol,
    }))
}

/// Every variable that some agent takes from a Secret. A replica gets only its own of them.
pub(super) fn secret_variables(table: &Table) -> BTreeSet<String> {
    let deployments = table.agents.values().filter_map(|agent| agent.deployment.as_ref());
    deployments.flat_map(|deployment| deployment.secrets.keys().cloned()).collect()
}

/// The file that `program` names: as it is when it has a slash, else beside this executable, else
/// in `PATH`.
pub(super) fn find_program(program: &str) -> Option<PathBuf> {
    if program.contains('/') {
        return Some(PathBuf::from(program));
    }
    let own = std::env::current_exe().ok();
    let beside = own.as_deref().and_then(Path::parent).map(Path::to_owned);
    let path = std::env::var_os("PATH").unwrap_or_default();
    beside
        .into_iter()
        .chain(std::env::split_paths(&path))
        .map(|folder| folder.join(program))
        .find(|file| is_executable(file))
}

fn is_executable(file: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt;
    file.metadata().is_ok_and(|data| data.is_file() && data.permissions().mode() & 0o111 != 0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::up::tests::agent;

    fn with_secrets() -> Agent {
        let secret =
            |key: &str| SecretRef { name: "agent-secrets".to_owned(), key: key.to_owned() };
        let mut agent = agent("qa", &["agent", "--type", "qa"]);
        let deployment = agent.deployment.as_mut().unwrap();
        deployment.env.insert("MODEL".to_owned(), "m".to_owned());
        deployment.secrets.insert("API_KEY".to_owned(), secret("api-key"));
        deployment.secrets.insert("DB_KEY".to_owned(), secret("db-key"));
        agent
    }

    #[test]
    fn secrets_come_from_the_callers_environment() {
        let spec =
            spec(&with_secrets(), |name| Some(format!("of {name}").into())).unwrap().ok().unwrap();
        assert_eq!(spec.env["API_KEY"], "of API_KEY");
        assert_eq!(spec.env["MODEL"], "m");
        assert!(!spec.env.contains_key("PATH"));
    }

    #[test]
    fn all_missing_secrets_are_named_in_one_line() {
        let missing = spec(&with_secrets(), |_| None).unwrap().err().unwrap();
        assert_eq!(
            missing.to_string(),
            "API_KEY (Secret agent-secrets, key api-key), DB_KEY (Secret agent-secrets, key db-key) \
             are not set in the environment"
        );
    }

    #[test]
    fn agents_that_run_elsewhere_have_no_spec() {
        let mut listed = agent("listed", &[]);
        assert!(spec(&listed, |_| None).is_none());
        listed.deployment = None;
        assert!(spec(&listed, |_| None).is_none());
        let mut sharing = agent("sharing", &["agent"]);
        sharing.shares = Some("qa".to_owned());
        assert!(spec(&sharing, |_| None).is_none());
    }

    #[test]
    fn programs_are_looked_for_in_path() {
        assert!(find_program("sh").is_some_and(|file| file.is_absolute()));
        assert_eq!(find_program("./x"), Some(PathBuf::from("./x")));
        assert_eq!(find_program("no-such-program-here"), None);
    }
}
