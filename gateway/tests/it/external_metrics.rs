//! The load as external metrics, asked as the cluster's API server asks.

use serde_json::{Value, json};

use crate::agent::{Agent, answers};
use crate::api_server::{ApiServer, Offering, Signer};
use crate::ask::get;
use crate::gateway::agent;
use crate::reply::Http;
use crate::wire::eventually;

const ROOT: &str = "/apis/external.metrics.k8s.io/v1beta1";

async fn yard() -> String {
    let (qa, coding) = (answers("{}").await, answers("{}").await);
    format!("{}{}", agent("qa", &[qa.addr], ""), agent("coding", &[coding.addr], ""))
}

/// Waits until the API server knows the gateway, and gives the front proxy's certificate.
async fn until_known(api: &ApiServer, offering: &Offering, signer: &Signer) -> reqwest::Identity {
    let identity = signer.client("front-proxy-client");
    eventually("the API server knows the gateway", || async {
        api.get(offering, Some(&identity), ROOT).await.is_ok()
    })
    .await;
    identity
}

/// The values of a list by type.
fn values(list: &Value) -> Vec<(String, String)> {
    let text = |value: &Value| value.as_str().expect("a text").to_owned();
    let items = list["items"].as_array().expect("items").iter();
    items.map(|item| (text(&item["metricLabels"]["agent"]), text(&item["value"]))).collect()
}

fn of(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
    pairs.iter().map(|(agent, value)| ((*agent).to_owned(), (*value).to_owned())).collect()
}

#[tokio::test]
async fn the_api_server_discovers_the_metric() {
    let signer = Signer::new();
    let api = ApiServer::start(&signer).await;
    let offering = api.gateway(&yard().await).await;
    let identity = until_known(&api, &offering, &signer).await;
    let (status, list) = api.get(&offering, Some(&identity), ROOT).await.unwrap();
    assert_eq!((status, &list["kind"]), (200, &json!("APIResourceList")));
    assert_eq!(list["groupVersion"], "external.metrics.k8s.io/v1beta1");
    let resource = &list["resources"][0];
    assert_eq!((&resource["name"], &resource["namespaced"]), (&json!("agent_load"), &json!(true)));
    for (path, kind) in [("/apis", "APIGroupList"), ("/apis/external.metrics.k8s.io", "APIGroup")] {
        let (status, answer) = api.get(&offering, Some(&identity), path).await.unwrap();
        assert_eq!((status, &answer["kind"]), (200, &json!(kind)), "{path}");
    }
    for path in ["/", "/openapi/v2", "/apis/custom.metrics.k8s.io", "/metrics", "/livez"] {
        let (status, answer) = api.get(&offering, Some(&identity), path).await.unwrap();
        assert_eq!((status, &answer["kind"]), (404, &json!("Status")), "{path}");
        assert_eq!(answer["code"], 404);
    }
}

#[tokio::test]
async fn the_value_is_what_runs_and_waits_and_an_idle_type_has_zero() {
    let signer = Signer::new();
    let api = ApiServer::start(&signer).await;
    let mut qa = Agent::manual().await;
    let coding = answers("{}").await;
    let table =
        agent("qa", &[qa.addr], "max_in_flight = 1\nqueue = { max = 4, timeout = \"20s\" }")
            + &agent("coding", &[coding.addr], "");
    let offering = api.gateway(&table).await;
    let identity = until_known(&api, &offering, &signer).await;
    let (_, list) = api.load(&offering, &identity, "agent%3Dqa").await.unwrap();
    assert_eq!(list["kind"], "ExternalMetricValueList");
    assert_eq!(list["apiVersion"], "external.metrics.k8s.io/v1beta1");
    assert_eq!(list["items"][0]["metricName"], "agent_load");
    assert_eq!(values(&list), of(&[("qa", "0")]));

    let _running = offering.gateway.open(Http::One, get("/agents/qa/x")).await;
    let _waiting = offering.gateway.open(Http::One, get("/agents/qa/x")).await;
    let _call = qa.call().await;
    offering.gateway.until_state("qa", "load", 2).await;
    let in_set = "agent+in+%28qa%2Ccoding%29";
    let (_, list) = api.load(&offering, &identity, in_set).await.unwrap();
    assert_eq!(values(&list), of(&[("coding", "0"), ("qa", "2")]));
}

#[tokio::test]
async fn what_is_not_known_is_a_404_and_what_is_not_understood_a_400() {
    let signer = Signer::new();
    let api = ApiServer::start(&signer).await;
    let offering = api.gateway(&yard().await).await;
    let identity = until_known(&api, &offering, &signer).await;
    for (selector, code, reason, says) in [
        ("agent%3Dnobody", 404, "NotFound", "coding, qa"),
        ("agent%21%3Dqa", 400, "BadRequest", "agent=TYPE"),
        ("tier%3Dgold", 400, "BadRequest", "tier=gold"),
    ] {
        let (status, answer) = api.load(&offering, &identity, selector).await.unwrap();
        assert_eq!((status, &answer["kind"]), (code, &json!("Status")), "{selector}");
        assert_eq!((&answer["code"], &answer["reason"]), (&json!(code), &json!(reason)));
        let message = answer["message"].as_str().unwrap();
        assert!(message.contains(says), "{selector}: {message}");
    }
    for path in ["namespaces/elsewhere/agent_load", "namespaces/ai-agents/queue_length"] {
        let asked = format!("{ROOT}/{path}?labelSelector=agent%3Dqa");
        let (status, answer) = api.get(&offering, Some(&identity), &asked).await.unwrap();
        assert_eq!((status, &answer["kind"]), (404, &json!("Status")), "{path}");
    }
}

#[tokio::test]
async fn only_the_front_proxy_is_let_in() {
    let signer = Signer::new();
    let api = ApiServer::start(&signer).await;
    let offering = api.gateway(&yard().await).await;
    let identity = until_known(&api, &offering, &signer).await;
    let stranger = Signer::new().client("front-proxy-client");
    let of_another_name = signer.client("somebody");
    for (who, identity) in [
        ("nobody", None),
        ("signed by another", Some(&stranger)),
        ("of another name", Some(&of_another_name)),
    ] {
        let refused = api.get(&offering, identity, ROOT).await;
        assert!(refused.is_err(), "{who}: {refused:?}");
    }
    offering.gateway.logged(&["WARN", "somebody"]).await;
    api.get(&offering, Some(&identity), ROOT).await.unwrap();
    api.trust(&signer, &[]);
    eventually("any name is allowed", || async {
        api.get(&offering, Some(&of_another_name), ROOT).await.is_ok()
    })
    .await;
}

#[tokio::test]
async fn gateways_share_one_authority_and_the_api_server_is_told_it() {
    let signer = Signer::new();
    let api = ApiServer::start(&signer).await;
    let table = yard().await;
    let (one, other) = tokio::join!(api.gateway(&table), api.gateway(&table));
    let identity = until_known(&api, &one, &signer).await;
    let bundle = api.bundle();
    until_known(&api, &other, &signer).await;
    assert_eq!(api.bundle(), bundle, "the second one changed it");
    let (status, _) = api.get(&one, Some(&identity), ROOT).await.unwrap();
    assert_eq!(status, 200);
    for offering in [&one, &other] {
        let log = offering.gateway.log().concat();
        assert!(!log.contains("PRIVATE KEY") && !log.contains("BEGIN"), "{log}");
    }
}

#[tokio::test]
async fn a_front_proxy_with_another_authority_is_let_in_and_the_old_one_no_more() {
    let (old, new) = (Signer::new(), Signer::new());
    let api = ApiServer::start(&old).await;
    let offering = api.gateway(&yard().await).await;
    let before = until_known(&api, &offering, &old).await;
    api.trust(&new, &["front-proxy-client"]);
    until_known(&api, &offering, &new).await;
    assert!(api.get(&offering, Some(&before), ROOT).await.is_err());
}

#[tokio::test]
async fn an_authority_that_was_taken_away_is_made_anew() {
    let signer = Signer::new();
    let api = ApiServer::start(&signer).await;
    let offering = api.gateway(&yard().await).await;
    until_known(&api, &offering, &signer).await;
    let before = api.bundle();
    api.empty_secret();
    // Whoever is turned away makes the gateway look before its minute is over.
    let stranger = Signer::new().client("x");
    eventually("there is another authority", || async {
        api.get(&offering, Some(&stranger), ROOT).await.unwrap_err();
        api.bundle() != before
    })
    .await;
    until_known(&api, &offering, &signer).await;
}

#[tokio::test]
async fn an_api_service_of_somebody_else_is_left_alone() {
    let signer = Signer::new();
    let api = ApiServer::start(&signer).await;
    let service = json!({ "name": "keda-operator-metrics-apiserver", "namespace": "keda" });
    api.edit_api_service(|object| object["spec"]["service"] = service);
    let offering = api.gateway(&yard().await).await;
    offering.gateway.logged(&["WARN", "keda-operator-metrics-apiserver"]).await;
    assert_eq!(api.bundle(), None);
}

#[tokio::test]
async fn it_goes_on_while_the_clusters_api_is_away() {
    let signer = Signer::new();
    let mut api = ApiServer::start(&signer).await;
    let offering = api.gateway(&yard().await).await;
    let identity = until_known(&api, &offering, &signer).await;
    api.stop();
    let stranger = Signer::new().client("x");
    assert!(api.get(&offering, Some(&stranger), ROOT).await.is_err());
    offering.gateway.logged(&["WARN", "not as it should be"]).await;
    let (status, list) = api.load(&offering, &identity, "agent%3Dqa").await.unwrap();
    assert_eq!((status, values(&list)), (200, of(&[("qa", "0")])));
}
