//! Discovery by names: what they resolve to, and what stays when they don't.

use crate::agent::answers;
use crate::ask::get;
use crate::gateway::Gateway;
use crate::wire::eventually;

fn table(service: &str) -> String {
    format!("[gateway]\ndiscovery = \"dns\"\n[agents.qa]\nservice = \"{service}\"\n")
}

#[tokio::test]
async fn requests_go_where_the_name_leads() {
    let agent = answers("1").await;
    let service = format!("localhost:{}", agent.addr.port());
    let gateway = Gateway::start(&table(&service)).await;
    gateway.until_state("qa", "ready", 1).await;
    assert_eq!(gateway.ask(get("/agents/qa/x")).await.ok().text(), "1");
    eventually("it is ready", || async { gateway.admin("/readyz").await.status == 200 }).await;
    assert_eq!(gateway.metric("switchyard_discovery_age_seconds", &[]).await, Some(0.0));
}

#[tokio::test]
async fn a_name_that_leads_nowhere_is_told_and_looked_up_again_after_an_edit() {
    let gateway = Gateway::start(&table("nowhere.invalid")).await;
    gateway.logged(&["can't be resolved", "nowhere.invalid"]).await;
    eventually("it is ready", || async { gateway.admin("/readyz").await.status == 200 }).await;
    gateway.ask(get("/agents/qa/x")).await.error("no-endpoint");
    let age = || async { gateway.metric("switchyard_discovery_age_seconds", &[]).await };
    eventually("its age is told", || async { age().await > Some(0.0) }).await;
    let agent = answers("2").await;
    gateway.edit(&table(&format!("localhost:{}", agent.addr.port()))).await;
    gateway.until_state("qa", "ready", 1).await;
    assert_eq!(gateway.ask(get("/agents/qa/x")).await.ok().text(), "2");
    assert_eq!(age().await, Some(0.0));
}
