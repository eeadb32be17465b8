//! What came of an edit of the table, as Events on its ConfigMap: `kubectl describe configmap` and
//! `kubectl events` show them.
//!
//! All gateways judge the same edit, so that an Event's name is made of the edit and what came of
//! it: the first one writes it, the others find it there.

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::{Event, EventSource, ObjectReference};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use k8s_openapi::jiff::Timestamp;
use kube::Api;
use kube::api::PostParams;
use sha2::{Digest, Sha256};
use tokio::sync::mpsc;
use tokio::time::{sleep, timeout};

use crate::discovery::kubernetes::Credentials;
use crate::reload::Verdict;

/// Verdicts that wait to be written; further ones are dropped, and stand in the log only.
pub(super) const WAITING_MAX: usize = 16;
/// Between two Events: an edit that a program repeats must not fill the cluster's store.
const PAUSE: Duration = Duration::from_secs(1);
/// How often one is tried while the API can't be asked, and for how long each time.
const TRIES: u32 = 5;
const ANSWER: Duration = Duration::from_secs(10);
/// Most bytes of an Event's message, as the API server has it.
const MESSAGE_MAX: usize = 1024;
/// Of that, kept for how many more problems there are.
const MORE_MAX: usize = 32;
/// As much of a hash as tells two tables apart.
const HASH_SHOWN: usize = 12;
/// Who writes them.
const COMPONENT: &str = k8s::GATEWAY;

/// Who writes them, and where.
pub(super) struct Events {
    credentials: Credentials,
    namespace: Arc<str>,
    /// It was said that they can't be written.
    said: bool,
}

/// Why one isn't there.
enum Failed {
    /// It never will be: there is no permission.
    Refused(String),
    /// The API can't be asked.
    Away(String),
}

impl Events {
    pub(super) fn new(credentials: Credentials, namespace: Arc<str>) -> Self {
        Self { credentials, namespace, said: false }
    }

    /// Writes one for each verdict, until nobody has any more.
    pub(super) async fn write(mut self, mut verdicts: mpsc::Receiver<Verdict>) {
        while let Some(verdict) = verdicts.recv().await {
            self.one(&event(&self.namespace, &verdict)).await;
            sleep(PAUSE).await;
        }
    }

    async fn one(&mut self, event: &Event) {
        let mut why = String::new();
        for n in 0..TRIES {
            match self.create(event).await {
                Ok(()) => {
                    self.said = false;
                    return;
                }
                Err(Failed::Away(error)) => why = error,
                Err(Failed::Refused(error)) => {
                    why = error;
                    break;
                }
            }
            sleep(PAUSE * (1 << n)).await;
        }
        if !self.said {
            self.said = true;
            tracing::warn!(error = why, "what comes of edits can't be told as Events");
        }
    }

    async fn create(&self, event: &Event) -> Result<(), Failed> {
        let ask = async {
            let client = self.credentials.client().await.map_err(Failed::Away)?;
            let api: Api<Event> = Api::namespaced(client, &self.namespace);
            match api.create(&PostParams::default(), event).await {
                Ok(_) => Ok(()),
                // Another gateway was first.
                Err(kube::Error::Api(status)) if status.code == 409 => Ok(()),
                Err(kube::Error::Api(status)) if (400..500).contains(&status.code) => {
                    Err(Failed::Refused(format!("{} ({})", status.message, status.code)))
                }
                Err(error) => Err(Failed::Away(error.to_string())),
            }
        };
        let late = |_| Failed::Away(format!("no answer within {} s", ANSWER.as_secs()));
        timeout(ANSWER, ask).await.map_err(late)?
    }
}

/// The older of the two APIs for Events: everything that shows them reads it.
fn event(namespace: &str, verdict: &Verdict) -> Event {
    let (type_, reason) = match &verdict.result {
        Ok(_) => ("Normal", "TableApplied"),
        Err(_) => ("Warning", "TableRefused"),
    };
    let version = &verdict.version;
    let name = digest(&[&version.uid, &version.resource_version, reason]);
    let pod = std::env::var("HOSTNAME").ok();
    let now = Some(Time(Timestamp::now()));
    Event {
        metadata: ObjectMeta {
            name: Some(format!("{}.{name}", k8s::GATEWAY)),
            namespace: Some(namespace.to_owned()),
            ..ObjectMeta::default()
        },
        involved_object: ObjectReference {
            api_version: Some("v1".to_owned()),
            kind: Some("ConfigMap".to_owned()),
            name: Some(k8s::GATEWAY.to_owned()),
            namespace: Some(namespace.to_owned()),
            uid: Some(version.uid.clone()),
            resource_version: Some(version.resource_version.clone()),
            ..ObjectReference::default()
        },
        type_: Some(type_.to_owned()),
        reason: Some(reason.to_owned()),
        message: Some(message(namespace, verdict)),
        count: Some(1),
        first_timestamp: now.clone(),
        last_timestamp: now,
        source: Some(EventSource { component: Some(COMPONENT.to_owned()), host: None }),
        reporting_component: Some(COMPONENT.to_owned()),
        reporting_instance: pod,
        ..Event::default()
    }
}

fn digest(parts: &[&str]) -> String {
    let mut digest = Sha256::new();
    for part in parts {
        digest.update((part.len() as u64).to_le_bytes());
        digest.update(part);
    }
    digest.finalize().iter().take(8).map(|byte| format!("{byte:02x}")).collect()
}

/// As many problems as there is room for, the first one cut if need be, and how many more.
fn message(namespace: &str, verdict: &Verdict) -> String {
    let problems = match &verdict.result {
        Ok((generation, hash)) => {
            let hash: String = hash.chars().take(HASH_SHOWN).collect();
            return format!("The table is in force: generation {generation}, hash {hash}");
        }
        Err(problems) => problems,
    };
    // It stands on the ConfigMap: what it is called is known.
    let own = format!("ConfigMap {namespace}/{}, ", k8s::GATEWAY);
    let problems: Vec<_> =
        problems.iter().map(|problem| problem.strip_prefix(&own).unwrap_or(problem)).collect();
    let room = MESSAGE_MAX - MORE_MAX;
    let mut text = format!("Refused, the table in force stays: {}", problems[0]);
    text.truncate(text.floor_char_boundary(room));
    let mut shown = 1;
    while shown < problems.len() && text.len() + "; ".len() + problems[shown].len() <= room {
        text.push_str("; ");
        text.push_str(problems[shown]);
        shown += 1;
    }
    match problems.len() - shown {
        0 => text,
        more => format!("{text} (and {more} more)"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reload::Version;

    fn verdict(resource_version: &str, problems: &[String]) -> Verdict {
        let version = Version { uid: "u".into(), resource_version: resource_version.to_owned() };
        let result = match problems.is_empty() {
            true => Ok((7, "0123456789abcdef".to_owned())),
            false => Err(problems.to_vec()),
        };
        Verdict { version, result }
    }

    fn problem(n: usize, length: usize) -> String {
        format!("ConfigMap a/switchyard, switchyard.toml:{n}:1: {}", "ä".repeat(length))
    }

    #[test]
    fn one_edit_and_what_came_of_it_have_one_name() {
        let name = |verdict| event("a", &verdict).metadata.name;
        let refused = [problem(1, 1)];
        assert_eq!(name(verdict("5", &refused)), name(verdict("5", &[problem(2, 2)])));
        assert_ne!(name(verdict("5", &refused)), name(verdict("6", &refused)));
        assert_ne!(name(verdict("5", &refused)), name(verdict("5", &[])));
    }

    #[test]
    fn a_message_has_the_place_and_fits() {
        let told = |problems: &[String]| message("a", &verdict("1", problems));
        assert_eq!(told(&[]), "The table is in force: generation 7, hash 0123456789ab");
        assert_eq!(
            told(&[problem(3, 2), problem(4, 1)]),
            "Refused, the table in force stays: switchyard.toml:3:1: ää; switchyard.toml:4:1: ä"
        );
        for (many, length) in [(1, 2_000), (2, 2_000), (100, 1), (100, 200), (3, 450)] {
            let problems: Vec<_> = (0..many).map(|n| problem(n, length)).collect();
            let told = told(&problems);
            assert!(told.len() <= MESSAGE_MAX && told.len() > MESSAGE_MAX / 2, "{told}");
            assert!(told.contains("switchyard.toml:0:1: ä"), "{told}");
            let shown = told.matches("switchyard.toml:").count();
            let more = format!(" (and {} more)", many - shown);
            assert_eq!(told.ends_with(&more), shown < many, "{told}");
        }
    }
}
