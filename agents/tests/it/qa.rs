//! The `qa` agent: finds, cites, and is honest when there is nothing.

use serde_json::json;

use crate::harness::{agent, project, tokens};
use crate::model_server::{ModelServer, Script, end, text};

fn documents() -> tempfile::TempDir {
    let place = tempfile::tempdir().unwrap();
    let guide =
        "# Guide\n\nGeneral words.\n\n## Watering the plants\n\nTwice a week, in the evening.\n";
    std::fs::write(place.path().join("guide.md"), guide).unwrap();
    std::fs::write(place.path().join("notes.txt"), "The caretaker has the keys.\n").unwrap();
    place
}

#[tokio::test]
async fn a_newcomer_learns_how_to_add_an_agent_type() {
    let agent = agent("qa").start().await;
    let reply = agent.ask("How do I add an agent type?").await;
    let output = reply["output"].as_str().unwrap();
    assert!(output.contains("config/switchyard.toml") && output.contains("[agents."), "{output}");
    assert!(output.contains("Source: docs/agents.md › "));
    let first = &reply["metadata"]["sources"][0];
    assert!(project().join(first["file"].as_str().unwrap()).is_file());
}

#[tokio::test]
async fn without_a_model_the_passages_are_the_answer_and_are_cited() {
    let place = documents();
    let agent = agent("qa").flag("--docs", place.path()).start().await;
    let events = agent.events(&json!({"input": "How often do I water a plant?"})).await;
    let folder = place.path().file_name().unwrap().to_str().unwrap();
    let file = format!("{folder}/guide.md");
    assert!(tokens(&events).contains("Twice a week"));
    assert!(
        tokens(&events).contains(&format!("Source: {file} › Guide › Watering the plants › line 5"))
    );
    let (_, last) = events.last().unwrap();
    let source = &last["metadata"]["sources"][0];
    assert_eq!(source["file"], file);
    assert_eq!(source["heading"], "Guide › Watering the plants");
    assert_eq!(source["line"], 5);
    assert!(source["score"].as_f64().unwrap() > 0.0);
}

#[tokio::test]
async fn it_says_so_when_nothing_fits() {
    let place = documents();
    let agent = agent("qa").flag("--docs", place.path()).start().await;
    let reply = agent.ask("Who won the chess championship?").await;
    assert!(reply["output"].as_str().unwrap().contains("none has enough of the words"));
    assert_eq!(reply["metadata"]["sources"], json!([]));
}

#[tokio::test]
async fn a_model_is_given_the_passages_and_its_answer_is_cited() {
    let place = documents();
    let answer = [text("Twice "), text("a week [1]."), end("stop")];
    let server = ModelServer::start(vec![Script::stream(&answer)]).await;
    let agent = agent("qa")
        .flag("--docs", place.path())
        .env("OPENAI_BASE_URL", &server.url)
        .env("AGENT_MODEL", "m")
        .start()
        .await;
    let events = agent.events(&json!({"input": "How often do I water the plants?"})).await;
    let (_, last) = events.last().unwrap();
    let output = last["output"].as_str().unwrap();
    assert!(output.starts_with("Twice a week [1].\n\nSources:\n[1] "), "{output}");
    assert!(output.trim().ends_with("guide.md › Guide › Watering the plants"), "{output}");
    assert_eq!(tokens(&events), output);
    assert_eq!(last["metadata"]["model"], "m");
    assert_eq!(
        last["metadata"]["usage"],
        json!({"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15})
    );
    let asked = server.seen()[0].body["messages"][1]["content"].as_str().unwrap().to_owned();
    assert!(asked.contains("Twice a week, in the evening.") && asked.contains("How often"));
}

#[tokio::test]
async fn a_folder_that_is_not_there_or_empty_is_one_clear_line() {
    let place = tempfile::tempdir().unwrap();
    let (status, said) = agent("qa").flag("--docs", "/no/such/folder").fail().await;
    assert_eq!((status, said.lines().count()), (Some(1), 1), "{said}");
    assert!(said.contains("/no/such/folder is no folder") && said.contains("--docs"), "{said}");
    let (status, said) = agent("qa").flag("--docs", place.path()).fail().await;
    assert_eq!(status, Some(1));
    assert!(said.contains("no Markdown or text") && said.contains("AGENT_DOCS"), "{said}");
}
