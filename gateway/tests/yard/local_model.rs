//! `config/local-model.toml`: a model server that nobody here wrote, with a model that nobody here scripted.

use std::net::TcpListener;
use std::time::Duration;

use crate::harness::{outcome, project, yard};
use crate::table::put;

/// For the installation, and for a CPU that reads a long prompt.
const CHECKED: Duration = Duration::from_secs(900);

#[tokio::test]
#[ignore = "downloads 130 MB; run it by `cargo test -p switchyard --test yard local_model -- --ignored`"]
async fn the_agents_and_their_model_pass_their_check() {
    // The agents have to know the port before there is a gateway, as in `provider.rs`.
    let listen = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    let table = std::fs::read_to_string(project().join("config/local-model.toml")).unwrap();
    let table = put(&table, "\"127.0.0.1:9090\"", "\"127.0.0.1:0\"");
    let yard = yard(&table.replace("127.0.0.1:8080", &listen)).start().await;
    let mut check = yard.shell("agents/examples/local-model/check");
    let output = tokio::time::timeout(CHECKED, check.output()).await.expect("it ends").unwrap();
    let (code, out, err) = outcome(output);
    assert_eq!(code, Some(0), "{out}{err}");
    assert!(out.ends_with("done        nothing in flight\n"), "{out}");
    yard.end().await;
}
