//! The addresses that the agents' Services resolve to, looked up every few seconds.
//!
//! For clusters that give no access to their API, and for anything else with names. A lookup that
//! fails changes nothing: the last answer stands.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream;
use tokio::sync::watch;
use tokio::time::timeout;

use super::services::{Known, named};
use super::{FIRST_ANSWER, Replicas, Status, Table};
use crate::pool::now_ms;

/// Between two lookups: as long as cluster DNS lets an answer be kept.
pub const EVERY: Duration = Duration::from_secs(5);
/// For one name, all servers and retries of the resolver's settings included.
const ANSWER: Duration = Duration::from_secs(10);
/// Lookups at once, each a thread while it lasts.
const AT_ONCE: usize = 16;
/// Where no port is written: what a Service maps to the agent's own.
const PORT: u16 = 80;

/// The name is looked up as it is written, by the resolver's search list.
#[must_use]
pub fn as_written(service: &str, _: &config::Table) -> String {
    service.to_owned()
}

/// What is known of one name.
#[derive(Default)]
struct Name {
    addresses: Vec<config::Endpoint>,
    failing_since_ms: Option<u64>,
}

/// Looks up what the table in force names until nobody wants to know any more.
pub async fn follow(
    mut tables: watch::Receiver<Table>,
    known: watch::Sender<Arc<Known>>,
    status: Arc<Status>,
) {
    let mut names = BTreeMap::<String, Name>::new();
    loop {
        let table = Arc::clone(&tables.borrow_and_update());
        let wanted: BTreeSet<String> = named(&table).into_iter().map(str::to_owned).collect();
        names.retain(|name, _| wanted.contains(name));
        let first = !known.borrow().complete;
        let all = look_up(wanted, &mut names);
        if first {
            // A resolver that doesn't answer must not keep the gateway out for ever.
            let _ = timeout(FIRST_ANSWER, all).await;
        } else {
            all.await;
        }
        status.set_away(names.values().filter_map(|name| name.failing_since_ms).min());
        let replicas = |name: &Name| Replicas::followed(name.addresses.clone());
        let replicas = names.iter().map(|(name, it)| (name.clone(), replicas(it))).collect();
        known.send_replace(Arc::new(Known { replicas, complete: true, ..Known::default() }));
        tokio::select! {
            changed = tables.changed() => if changed.is_err() { return },
            () = tokio::time::sleep(EVERY) => {}
            () = known.closed() => return,
        }
    }
}

async fn look_up(wanted: BTreeSet<String>, names: &mut BTreeMap<String, Name>) {
    let ask = |name: String| async move { (ask(&name).await, name) };
    let mut answers = stream::iter(wanted).map(ask).buffer_unordered(AT_ONCE);
    while let Some((answer, name)) = answers.next().await {
        take(&name, names.entry(name.clone()).or_default(), answer);
    }
}

/// What a name resolves to now.
///
/// # Errors
/// When it doesn't, or nobody answers in time; the text says which.
pub async fn ask(service: &str) -> Result<Vec<config::Endpoint>, String> {
    let (host, port) = parts(service);
    match timeout(ANSWER, tokio::net::lookup_host((host, port))).await {
        Ok(Ok(found)) => Ok(addresses(found)),
        Ok(Err(error)) => Err(error.to_string()),
        Err(_) => Err("no answer in time".to_owned()),
    }
}

fn take(name: &str, known: &mut Name, answer: Result<Vec<config::Endpoint>, String>) {
    match answer {
        Ok(found) if !found.is_empty() => {
            known.addresses = found;
            if let Some(since) = known.failing_since_ms.take() {
                let for_ms = now_ms().saturating_sub(since);
                tracing::info!(service = name, for_ms, "resolves again");
            }
        }
        failed => {
            if known.failing_since_ms.is_none() {
                let error = failed.err().unwrap_or_else(|| "no address".to_owned());
                let kept = known.addresses.len();
                tracing::warn!(
                    service = name,
                    error,
                    kept,
                    "can't be resolved: what is known stays"
                );
                known.failing_since_ms = Some(now_ms());
            }
        }
    }
}

/// `name`, `name.namespace`, and either with a port.
fn parts(service: &str) -> (&str, u16) {
    match service.rsplit_once(':') {
        Some((host, port)) => (host, port.parse().unwrap_or(PORT)),
        None => (service, PORT),
    }
}

/// Each once and in order. IPv4 where there is any: of a pod that has both, two addresses would be
/// two replicas.
fn addresses(found: impl Iterator<Item = SocketAddr>) -> Vec<config::Endpoint> {
    let found: BTreeSet<SocketAddr> = found.collect();
    let v4 = found.iter().any(SocketAddr::is_ipv4);
    let kept = found.iter().filter(|address| address.is_ipv4() == v4);
    kept.map(|a| config::Endpoint { host: a.ip().to_string(), port: a.port() }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_may_have_a_port() {
        assert_eq!(parts("coding-agent"), ("coding-agent", 80));
        assert_eq!(parts("coding-agent.ai-agents"), ("coding-agent.ai-agents", 80));
        assert_eq!(parts("coding-agent:8000"), ("coding-agent", 8000));
    }

    #[test]
    fn one_family_and_each_address_once() {
        let check = |found: &[&str], expected: &[&str]| {
            let found = found.iter().map(|address| address.parse().unwrap());
            let kept: Vec<_> = addresses(found).iter().map(ToString::to_string).collect();
            assert_eq!(kept, expected);
        };
        check(
            &["10.0.0.2:80", "[fd00::1]:80", "10.0.0.1:80", "10.0.0.2:80"],
            &["10.0.0.1:80", "10.0.0.2:80"],
        );
        check(&["[fd00::2]:8000"], &["[fd00::2]:8000"]);
    }

    #[test]
    fn a_failure_keeps_the_last_answer() {
        let mut name = Name::default();
        let one = vec![config::Endpoint { host: "10.0.0.1".into(), port: 80 }];
        take("qa", &mut name, Ok(one.clone()));
        assert_eq!((&name.addresses, name.failing_since_ms), (&one, None));
        take("qa", &mut name, Err("away".into()));
        let since = name.failing_since_ms;
        assert!(name.addresses == one && since.is_some());
        take("qa", &mut name, Ok(Vec::new()));
        assert!(name.addresses == one && name.failing_since_ms == since);
        take("qa", &mut name, Ok(one));
        assert_eq!(name.failing_since_ms, None);
    }
}
