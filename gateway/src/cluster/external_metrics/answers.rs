//! What is said: the API's discovery, the load per agent type, and everything else as a Status.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::extract::rejection::QueryRejection;
use axum::extract::{Path, Query, State};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use config::Table;
use config::names::{LOAD_LABEL, LOAD_METRIC};
use http::{StatusCode, Uri};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;
use serde_json::{Value, json};

use super::selector::Selector;
use super::{GROUP, VERSION};
use crate::cluster::load::{AgentLoad, Board};
use crate::discovery::kubernetes::full_name;
use crate::shared::Shared;

/// Types that a refusal lists; further ones are only counted.
const LISTED_MAX: usize = 50;

/// Whom to ask for what is said.
#[derive(Clone)]
pub(super) struct Source {
    pub(super) shared: Arc<Shared>,
    pub(super) board: Board,
}

/// The paths that there are. Everything is answered from memory, at once.
pub(super) fn router(source: Source) -> Router {
    let group = format!("/apis/{GROUP}");
    let version = format!("{group}/{VERSION}");
    Router::new()
        .route("/apis", get(|| async { Json(groups()) }))
        .route(&group, get(|| async { Json(with_kind("APIGroup", "v1", the_group())) }))
        .route(&version, get(|| async { Json(resources()) }))
        .route(&format!("{version}/namespaces/{{namespace}}/{{metric}}"), get(metric))
        .fallback(|uri: Uri| async move {
            Refused(StatusCode::NOT_FOUND, format!("there is nothing at {}", uri.path()))
        })
        .method_not_allowed_fallback(|| async {
            Refused(StatusCode::METHOD_NOT_ALLOWED, "metrics are only read".to_owned())
        })
        .with_state(source)
}

/// A failure of one request.
#[derive(Debug)]
struct Refused(StatusCode, String);

impl IntoResponse for Refused {
    fn into_response(self) -> Response {
        let Self(status, message) = self;
        let reason = match status {
            StatusCode::NOT_FOUND => "NotFound",
            StatusCode::METHOD_NOT_ALLOWED => "MethodNotAllowed",
            _ => "BadRequest",
        };
        let body = json!({
            "metadata": {}, "status": "Failure", "message": message, "reason": reason,
            "code": status.as_u16(),
        });
        (status, Json(with_kind("Status", "v1", body))).into_response()
    }
}

fn with_kind(kind: &str, api: &str, rest: Value) -> Value {
    let mut object = json!({ "kind": kind, "apiVersion": api });
    if let (Value::Object(object), Value::Object(rest)) = (&mut object, rest) {
        object.extend(rest);
    }
    object
}

fn the_group() -> Value {
    let version = json!({ "groupVersion": format!("{GROUP}/{VERSION}"), "version": VERSION });
    json!({ "name": GROUP, "versions": [version], "preferredVersion": version })
}

fn groups() -> Value {
    with_kind("APIGroupList", "v1", json!({ "groups": [the_group()] }))
}

fn resources() -> Value {
    let resource = json!({
        "name": LOAD_METRIC, "singularName": "", "namespaced": true,
        "kind": "ExternalMetricValueList", "verbs": ["get"],
    });
    let rest = json!({ "groupVersion": format!("{GROUP}/{VERSION}"), "resources": [resource] });
    with_kind("APIResourceList", "v1", rest)
}

#[derive(serde::Deserialize)]
struct Asked {
    #[serde(rename = "labelSelector", default)]
    selector: String,
}

async fn metric(
    State(source): State<Source>,
    Path((namespace, metric)): Path<(String, String)>,
    asked: Result<Query<Asked>, QueryRejection>,
) -> Result<Json<Value>, Refused> {
    let bad = |error: String| Refused(StatusCode::BAD_REQUEST, error);
    let Query(asked) = asked.map_err(|error| bad(error.body_text()))?;
    if metric != LOAD_METRIC {
        let text = format!("there is no metric {metric:?}, only {LOAD_METRIC}");
        return Err(Refused(StatusCode::NOT_FOUND, text));
    }
    let selector = Selector::parse(&asked.selector).map_err(|error| bad(error.to_string()))?;
    let table = Arc::clone(&source.shared.tables.current().table);
    let matching: Vec<_> =
        types_in(&table, &namespace).filter(|agent| selector.admits(agent)).collect();
    if matching.is_empty() {
        let known = listed(types_in(&table, &namespace));
        let text = format!("no agent type in namespace {namespace:?} matches; there {known}");
        return Err(Refused(StatusCode::NOT_FOUND, text));
    }
    Ok(Json(values(&matching, &source.board.overall().agents)))
}

/// One item a type, also with nothing to do: an autoscaler takes an empty list for a failure.
fn values(types: &[&str], loads: &BTreeMap<String, AgentLoad>) -> Value {
    let now = json!(Time(Timestamp::now()));
    let item = |agent: &&str| {
        let load = loads.get(*agent).map_or(0, AgentLoad::load);
        json!({
            "metricName": LOAD_METRIC, "metricLabels": { LOAD_LABEL: agent },
            "timestamp": now, "value": load.to_string(),
        })
    };
    let items: Vec<_> = types.iter().map(item).collect();
    let rest = json!({ "metadata": {}, "items": items });
    with_kind("ExternalMetricValueList", &format!("{GROUP}/{VERSION}"), rest)
}

/// The types whose replicas are in a namespace.
fn types_in<'a>(table: &'a Table, namespace: &str) -> impl Iterator<Item = &'a str> {
    let here = move |agent: &&config::Agent| is_in(table, agent, namespace);
    table.agents.values().filter(here).map(|agent| agent.name.as_str())
}

/// By the Services of the agent, or of the one that it shares; one without any is in the table's.
fn is_in(table: &Table, agent: &config::Agent, namespace: &str) -> bool {
    let owner = agent.shares.as_ref().and_then(|owner| table.agents.get(owner)).unwrap_or(agent);
    let versions = owner.versions.iter().map(|version| &version.service);
    let mut services = owner.service.iter().chain(versions).peekable();
    if services.peek().is_none() {
        return namespace == table.kubernetes.namespace;
    }
    let of =
        |service: &String| full_name(service, table).split_once('.').map(|(_, n)| n.to_owned());
    services.any(|service| of(service).as_deref() == Some(namespace))
}

fn listed<'a>(types: impl Iterator<Item = &'a str>) -> String {
    let types: Vec<_> = types.collect();
    match types.len() {
        0 => "are none".to_owned(),
        n if n > LISTED_MAX => {
            format!("are {} and {} more", types[..LISTED_MAX].join(", "), n - LISTED_MAX)
        }
        _ => format!("are {}", types.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TABLE: &str = r#"
        [agents.a]
        service = "a"

        [agents.b]
        service = "b.elsewhere"

        [agents.also]
        shares = "b"

        [agents.split]
        versions = [{ service = "s1", weight = 1 }, { service = "s2.elsewhere", weight = 1 }]

        [agents.external]
        endpoints = ["http://127.0.0.1:1"]
    "#;

    #[test]
    fn a_type_is_in_the_namespace_of_its_replicas() {
        let table = config::parse(TABLE, "t").unwrap().table;
        let of = |namespace| types_in(&table, namespace).collect::<Vec<_>>();
        assert_eq!(of("ai-agents"), ["a", "external", "split"]);
        assert_eq!(of("elsewhere"), ["also", "b", "split"]);
        assert!(of("nowhere").is_empty());
    }

    #[test]
    fn an_idle_type_has_the_value_zero_as_text() {
        let load = AgentLoad { in_flight: 2, queued: 1, held: 1, capacity: None };
        let values = values(&["a", "b"], &BTreeMap::from([("a".to_owned(), load)]));
        let told: Vec<_> =
            values["items"].as_array().unwrap().iter().map(|item| &item["value"]).collect();
        assert_eq!(told, ["4", "0"]);
        let stamp = values["items"][0]["timestamp"].as_str().unwrap();
        assert!(stamp.ends_with('Z') && stamp.len() == "2026-01-01T00:00:00Z".len(), "{stamp}");
    }

    #[test]
    fn a_long_list_of_types_is_cut() {
        let types: Vec<_> = (0..52).map(|n| format!("t{n}")).collect();
        let text = listed(types.iter().map(String::as_str));
        assert!(text.ends_with("t49 and 2 more"), "{text}");
    }
}
