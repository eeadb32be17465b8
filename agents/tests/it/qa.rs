//! The `qa` agent: finds, cites, follows its folder, and is honest when there is nothing.

use std::path::Path;
use std::time::Instant;

use serde_json::{Value, json};

use crate::harness::{Agent, Builder, LONG, agent, project, tokens};
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
    assert_eq!((&source["line"], &source["end"]), (&json!(5), &json!(7)));
    assert_eq!(last["metadata"]["retrieval"], "bm25");
    assert!(source["score"].as_f64().unwrap() > 0.0);
}

/// An agent with these documents and that model.
fn with_model(docs: &Path, server: &ModelServer) -> Builder {
    agent("qa").flag("--docs", docs).env("OPENAI_BASE_URL", &server.url).env("AGENT_MODEL", "m")
}

fn reason(reply: &Value) -> &str {
    reply["metadata"]["finish_reason"].as_str().unwrap()
}

#[tokio::test]
async fn what_the_documents_do_not_hold_is_refused_and_no_model_is_asked() {
    let place = documents();
    let server = ModelServer::start(vec![Script::says("Magnus Carlsen [1].")]).await;
    for agent in [agent("qa").flag("--docs", place.path()), with_model(place.path(), &server)] {
        let agent = agent.start().await;
        let reply = agent.ask("Who won the chess championship?").await;
        let output = reply["output"].as_str().unwrap();
        assert!(output.contains("The documents don't hold an answer"), "{output}");
        assert_eq!(reply["metadata"]["sources"], json!([]));
        assert_eq!(reason(&reply), "no-source");
        let near = agent.ask("Do plants win chess championships?").await;
        let output = near["output"].as_str().unwrap();
        assert!(output.contains("Nearest to it:") && output.contains("Watering the plants"));
    }
    assert!(server.seen().is_empty());
}

#[tokio::test]
async fn a_model_is_given_the_passages_and_its_answer_is_cited() {
    let place = documents();
    let answer = [text("Twice "), text("a week [1]."), end("stop")];
    let server = ModelServer::start(vec![Script::stream(&answer)]).await;
    let agent = with_model(place.path(), &server).start().await;
    let events = agent.events(&json!({"input": "How often do I water the plants?"})).await;
    let (_, last) = events.last().unwrap();
    let output = last["output"].as_str().unwrap();
    assert!(output.starts_with("Twice a week [1].\n\nSources:\n[1] "), "{output}");
    assert!(output.trim().ends_with("guide.md › Guide › Watering the plants"), "{output}");
    assert_eq!(tokens(&events), output);
    assert_eq!(last["metadata"]["model"], "m");
    assert_eq!(last["metadata"]["sources"][0]["cited"], true);
    assert_eq!(reason(last), "stop");
    assert_eq!(
        last["metadata"]["usage"],
        json!({"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15})
    );
    let asked = server.seen()[0].body["messages"][1]["content"].as_str().unwrap().to_owned();
    assert!(asked.contains("Twice a week, in the evening.") && asked.contains("How often"));
    assert!(asked.contains("<passage number=\"1\"") && asked.contains("</passage>"));
}

#[tokio::test]
async fn an_answer_without_a_citation_is_asked_for_again_and_then_refused() {
    let place = documents();
    let server = ModelServer::start(vec![Script::says("Daily, as everybody knows.")]).await;
    let agent = with_model(place.path(), &server).start().await;
    let events = agent.events(&json!({"input": "How often do I water the plants?"})).await;
    let (_, last) = events.last().unwrap();
    let output = last["output"].as_str().unwrap();
    assert_eq!(reason(last), "not-grounded");
    assert_eq!(last["metadata"]["sources"], json!([]));
    assert_eq!(last["metadata"]["usage"]["total_tokens"], 30);
    assert_eq!(tokens(&events), output, "nothing of the answer was streamed");
    assert!(!output.contains("Daily") && output.contains("Watering the plants"), "{output}");
    let seen = server.seen();
    assert_eq!(seen.len(), 2);
    assert_eq!(seen[1].body["messages"][2]["content"], "Daily, as everybody knows.");
}

#[tokio::test]
async fn a_second_answer_that_cites_counts_and_one_that_cites_what_is_not_there_does_not() {
    let place = documents();
    let scripts = vec![Script::says("Daily [7]."), Script::says("Twice a week [1].")];
    let server = ModelServer::start(scripts).await;
    let agent = with_model(place.path(), &server).start().await;
    let events = agent.events(&json!({"input": "How often do I water the plants?"})).await;
    let (_, last) = events.last().unwrap();
    assert!(last["output"].as_str().unwrap().starts_with("Twice a week [1]."));
    assert_eq!(tokens(&events), last["output"].as_str().unwrap());
    assert_eq!(server.seen().len(), 2);
}

#[tokio::test]
async fn a_model_that_finds_nothing_in_the_passages_is_believed() {
    let place = documents();
    let server = ModelServer::start(vec![Script::says("NO_SOURCE")]).await;
    let agent = with_model(place.path(), &server).start().await;
    let reply = agent.ask("Which plants need no watering?").await;
    assert_eq!(reason(&reply), "no-source");
    assert!(!reply["output"].as_str().unwrap().contains("NO_SOURCE"));
    assert_eq!(server.seen().len(), 1);
}

#[tokio::test]
async fn a_model_looks_for_more_passages_itself() {
    let place = documents();
    let keys = r#"{"query":"caretaker keys"}"#;
    let server = ModelServer::start(vec![
        Script::calls(&[("search", keys), ("search", r#"{"query":"watering plants"}"#)]),
        Script::calls(&[("search", r#"{"query":"zebra"}"#), ("read", "{}")]),
        Script::says("Twice a week [1], and the caretaker has the keys [2]."),
    ])
    .await;
    let agent = with_model(place.path(), &server).start().await;
    let events = agent.events(&json!({"input": "How often do I water the plants?"})).await;
    let (_, last) = events.last().unwrap();
    let output = last["output"].as_str().unwrap();
    assert!(output.contains("\n[2] ") && output.contains("notes.txt:1"), "{output}");
    assert_eq!(last["metadata"]["steps"], 3);
    assert_eq!(last["metadata"]["sources"].as_array().unwrap().len(), 2);
    let results = events.iter().filter(|(name, _)| name == "tool_result");
    let results: Vec<&str> = results.map(|(_, data)| data["output"].as_str().unwrap()).collect();
    assert!(results.iter().any(|told| told.contains("<passage number=\"2\"")), "{results:?}");
    for told in ["Passage 1 again.\n", "No passage has enough of these words."] {
        assert!(results.contains(&told), "{results:?}");
    }
    assert!(results.iter().any(|told| told.contains("there is no tool `read`")), "{results:?}");
}

#[tokio::test]
async fn a_question_may_go_by_what_was_said_before() {
    let place = documents();
    let server = ModelServer::start(vec![
        Script::says("Twice a week [1]."),
        Script::calls(&[("search", r#"{"query":"caretaker keys"}"#)]),
        Script::says("The caretaker [1]."),
    ])
    .await;
    let agent = with_model(place.path(), &server).start().await;
    let ask = async |input: &str| {
        let body = json!({"input": input, "session_id": "s"});
        crate::harness::reply(agent.post(&body).send().await.unwrap()).await
    };
    ask("How often do I water the plants?").await;
    let reply = ask("And who could let me in?").await;
    assert!(reply["output"].as_str().unwrap().starts_with("The caretaker [1]."), "{reply}");
    assert_eq!(reply["metadata"]["memory"], "process");
    let messages = server.seen()[1].body["messages"].clone();
    assert_eq!(messages[1]["content"], "How often do I water the plants?");
    assert!(messages[2]["content"].as_str().unwrap().starts_with("Twice a week [1]."));
}

#[tokio::test]
async fn an_answer_by_a_schema_is_grounded_as_any_other_and_stays_json() {
    let place = documents();
    let server = ModelServer::start(vec![
        Script::says(r#"{"answer": "Daily."}"#),
        Script::says(r#"{"answer": "Twice a week [1]."}"#),
        Script::says("NO_SOURCE"),
    ])
    .await;
    let agent = with_model(place.path(), &server).start().await;
    let body = json!({"input": "How often do I water the plants?", "output_schema": {
        "type": "object", "properties": {"answer": {"type": "string"}}, "required": ["answer"],
    }});
    let ask = async || crate::harness::reply(agent.post(&body).send().await.unwrap()).await;
    let reply = ask().await;
    assert_eq!(reply["output"], r#"{"answer":"Twice a week [1]."}"#);
    assert_eq!(reply["metadata"]["data"]["answer"], "Twice a week [1].");
    assert_eq!(reply["metadata"]["sources"][0]["cited"], true);
    assert_eq!(reason(&ask().await), "no-source", "a schema keeps no model from saying so");
}

/// Asks until the first source is that file, or there is none.
async fn until_first(agent: &Agent, question: &str, file: Option<&str>) -> Value {
    let begun = Instant::now();
    loop {
        let reply = agent.ask(question).await;
        let first = reply["metadata"]["sources"][0]["file"].as_str();
        if first.map(|path| path.rsplit('/').next().unwrap()) == file {
            return reply;
        }
        assert!(begun.elapsed() < LONG, "{question}: never {file:?}, but {first:?}");
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn new_changed_and_removed_files_are_followed_without_a_restart() {
    let place = documents();
    let agent = agent("qa").flag("--docs", place.path()).start().await;
    let at = |name: &str| place.path().join(name);
    std::fs::create_dir(at("sub")).unwrap();
    std::fs::write(at("sub/bees.md"), "# Bees\nHoney is taken in July.\n").unwrap();
    until_first(&agent, "When is honey taken?", Some("bees.md")).await;
    std::fs::write(at("new"), "# Keys\nThe gardener has the keys now.\n").unwrap();
    std::fs::rename(at("new"), at("notes.txt")).unwrap();
    let reply = until_first(&agent, "gardener", Some("notes.txt")).await;
    assert!(!reply["output"].as_str().unwrap().contains("caretaker"));
    std::fs::remove_file(at("sub/bees.md")).unwrap();
    until_first(&agent, "When is honey taken?", None).await;
    until_gauge(&agent, "agent_index_files 2").await;
}

#[tokio::test]
async fn while_the_folder_is_gone_the_last_index_answers_and_health_tells() {
    let all = tempfile::tempdir().unwrap();
    let (docs, away) = (all.path().join("docs"), all.path().join("away"));
    std::fs::create_dir(&docs).unwrap();
    std::fs::write(docs.join("a.md"), "# Bees\nHoney is taken in July.\n").unwrap();
    let agent = agent("qa").flag("--docs", &docs).start().await;
    let health = async |expected: (u16, &str)| {
        let begun = Instant::now();
        loop {
            let (status, body) = agent.get("/health").await;
            let body: Value = serde_json::from_str(&body).unwrap();
            if (status, body["checks"]["index"].as_str().unwrap()) == expected {
                return;
            }
            assert!(begun.elapsed() < LONG, "never {expected:?}: {body}");
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    };
    health((200, "ok")).await;
    std::fs::rename(&docs, &away).unwrap();
    health((503, "down")).await;
    assert_eq!(agent.get("/readyz").await.0, 200);
    until_first(&agent, "When is honey taken?", Some("a.md")).await;
    std::fs::create_dir(&docs).unwrap();
    std::fs::write(docs.join("b.md"), "# Wax\nHoney and wax are taken in August.\n").unwrap();
    health((200, "ok")).await;
    until_first(&agent, "When is honey taken?", Some("b.md")).await;
}

#[tokio::test]
async fn it_is_unready_until_the_first_index_is_in_and_a_question_waits_for_it() {
    let place = tempfile::tempdir().unwrap();
    for number in 0..400 {
        let text: String =
            (0..400).map(|n| format!("## Part {n}\nword{n} of {number}\n")).collect();
        std::fs::write(place.path().join(format!("{number}.md")), text).unwrap();
    }
    let agent = agent("qa").flag("--docs", place.path()).listen().await;
    assert_eq!(agent.get("/readyz").await, (503, "indexing\n".to_owned()));
    assert_eq!(agent.get("/livez").await.0, 200);
    let (status, body) = agent.get("/health").await;
    assert_eq!((status, body.contains("\"index\":\"down\"")), (503, true), "{body}");
    let reply = agent.ask("word399").await;
    assert_ne!(reply["metadata"]["sources"], json!([]));
    assert_eq!(agent.get("/readyz").await.0, 200);
}

/// An agent that also searches by the vectors of that server, for words alike.
fn hybrid(docs: &Path, index: &Path, server: &ModelServer) -> Builder {
    agent("qa")
        .flag("--docs", docs)
        .flag("--index", index)
        .flag("--min-similarity", "0.35")
        .env("AGENT_EMBEDDING_BASE_URL", &server.url)
        .env("AGENT_EMBEDDING_MODEL", "trigrams")
}

async fn until_vectors(agent: &Agent, count: usize) {
    until_gauge(agent, &format!("agent_index_vectors {count}")).await;
}

async fn until_gauge(agent: &Agent, line: &str) {
    let begun = Instant::now();
    while !agent.get("/metrics").await.1.lines().any(|has| has == line) {
        assert!(begun.elapsed() < LONG, "never {line}: {}", agent.log());
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn with_embeddings_it_finds_what_has_none_of_the_words() {
    let (place, index) = (documents(), tempfile::tempdir().unwrap());
    let server = ModelServer::start(vec![Script::says("")]).await;
    let mut first = hybrid(place.path(), index.path(), &server).start().await;
    until_vectors(&first, 3).await;
    let reply = first.ask("caretakers keyz").await;
    assert_eq!(reply["metadata"]["retrieval"], "hybrid");
    let reply = first.ask("Wateringg plantz eveningg").await;
    assert_eq!(reply["metadata"]["sources"][0]["heading"], "Guide › Watering the plants");
    assert_eq!(reason(&first.ask("zyx qqq").await), "no-source");
    let (_, health) = first.get("/health").await;
    assert!(health.contains("\"embeddings\":\"ok\""), "{health}");
    first.signal(rustix::process::Signal::TERM);
    assert_eq!(first.ended().await, 0);

    let passages = |server: &ModelServer| {
        server.embedded().iter().filter(|text| text.contains("\n\n")).count()
    };
    assert_eq!(passages(&server), 3);
    std::fs::write(place.path().join("notes.txt"), "Somebody else has them.\n").unwrap();
    let again = hybrid(place.path(), index.path(), &server).start().await;
    until_first(&again, "somebody", Some("notes.txt")).await;
    until_vectors(&again, 3).await;
    assert_eq!(passages(&server), 4, "what has not changed is not embedded again");
    assert_eq!(again.ask("Wateringg plantz eveningg").await["metadata"]["retrieval"], "hybrid");
}

#[tokio::test]
async fn without_the_embedding_server_words_alone_are_searched_and_that_is_told() {
    let (place, index) = (documents(), tempfile::tempdir().unwrap());
    let mut server = ModelServer::start(vec![Script::says("")]).await;
    let agent = hybrid(place.path(), index.path(), &server).start().await;
    until_vectors(&agent, 3).await;
    let question = "How often do I water a plant?";
    assert_eq!(agent.ask(question).await["metadata"]["retrieval"], "hybrid");
    server.stop().await;
    let reply = agent.ask(question).await;
    assert_eq!(reply["metadata"]["retrieval"], "bm25");
    assert_eq!(reply["metadata"]["sources"][0]["heading"], "Guide › Watering the plants");
    let (status, health) = agent.get("/health").await;
    assert_eq!(status, 503);
    assert!(health.contains("\"embeddings\":\"down\""), "{health}");
    let told = agent.log().matches("no embedding of a question").count();
    assert_eq!(told, 1);
}

#[tokio::test]
async fn settings_that_are_incomplete_or_wrong_are_one_clear_line() {
    for (flags, says) in [
        (vec!["--embedding-model", "e"], "AGENT_EMBEDDING_BASE_URL"),
        (vec!["--embedding-base-url", "http://127.0.0.1:1/v1"], "AGENT_EMBEDDING_MODEL"),
        (
            vec!["--embedding-model", "e", "--embedding-base-url", "localhost:1"],
            "AGENT_EMBEDDING_BASE_URL",
        ),
        (vec!["--index", "/dev/null"], "/dev/null"),
    ] {
        let (status, said) = agent("qa").with(|command| _ = command.args(flags)).fail().await;
        assert_eq!(status, Some(1), "{said}");
        let last = said.lines().last().unwrap();
        assert!(last.starts_with("agent: ") && last.contains(says), "{said}");
    }
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
