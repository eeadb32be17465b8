//! SIGTERM: what is begun is finished, what is new is refused, and the process ends.

use rustix::process::Signal;
use serde_json::json;

use crate::harness::{Agent, agent, open_place, parse_events, problem, tokens, until};
use crate::model_server::{ModelServer, Script, end, text};

/// An agent at work on a command that waits for `go`; the stream has begun.
async fn at_work(place: &std::path::Path, drain_timeout: &str) -> (Agent, reqwest::Response) {
    let agent = agent("coding")
        .flag("--drain-timeout", drain_timeout)
        .flag("--workspace", place)
        .start()
        .await;
    let input = "```sh\ntouch begun; while [ ! -e go ]; do sleep 0.02; done; echo finished\n```";
    let body = json!({"input": input, "session_id": "s", "stream": true});
    let response = agent.post(&body).send().await.unwrap();
    until("the command runs", || find(place, "begun").is_some()).await;
    (agent, response)
}

fn find(place: &std::path::Path, name: &str) -> Option<std::path::PathBuf> {
    let agent = std::fs::read_dir(place).unwrap().flatten().next()?;
    let mut sessions = std::fs::read_dir(agent.path()).unwrap().flatten().map(|entry| entry.path());
    sessions.find_map(|session| Some(session.join(name)).filter(|path| path.exists()))
}

#[tokio::test]
async fn what_was_begun_is_finished_and_what_is_new_is_refused_as_not_begun() {
    let place = open_place();
    let (mut agent, response) = at_work(place.path(), "60s").await;
    agent.signal(Signal::TERM);
    let url = format!("{}/readyz", agent.url);
    loop {
        let ready = agent.client.get(&url).send().await.unwrap();
        if ready.status() == 503 {
            break;
        }
    }
    let refused = agent.post(&json!({"input": "a"})).send().await.unwrap();
    assert_eq!(refused.headers()["connection"], "close");
    assert_eq!(problem(refused).await["code"], "draining");

    let begun = find(place.path(), "begun").unwrap();
    std::fs::write(begun.with_file_name("go"), "").unwrap();
    let events = parse_events(&response.text().await.unwrap());
    let (name, last) = events.last().unwrap();
    assert_eq!(name, "final");
    assert!(last["output"].as_str().unwrap().contains("finished"));
    assert_eq!(agent.ended().await, 0);
    assert_eq!(std::fs::read_dir(place.path()).unwrap().count(), 0, "the workspaces are removed");
}

#[tokio::test]
async fn streams_of_a_model_are_finished_word_for_word() {
    let script = Script::stream(&[text("one "), text("two "), text("three"), end("stop")]);
    let server = ModelServer::start(vec![script.gated_after_first()]).await;
    let mut agent =
        agent("coding").env("OPENAI_BASE_URL", &server.url).env("AGENT_MODEL", "m").start().await;
    let body = json!({"input": "count", "stream": true});
    let streams = (0..8).map(|_| agent.post(&body).send());
    let mut streams = futures_util::future::try_join_all(streams).await.unwrap();
    let mut heard = vec![String::new(); streams.len()];
    for (stream, heard) in streams.iter_mut().zip(&mut heard) {
        while !heard.contains("one ") {
            heard.push_str(str::from_utf8(&stream.chunk().await.unwrap().unwrap()).unwrap());
        }
    }
    agent.signal(Signal::TERM);
    while agent.get("/readyz").await.0 != 503 {}
    let refused = agent.post(&body).send().await.unwrap();
    assert_eq!(problem(refused).await["code"], "draining");
    server.open();
    for (stream, heard) in streams.into_iter().zip(heard) {
        let events = parse_events(&(heard + &stream.text().await.unwrap()));
        assert_eq!(tokens(&events), "one two three");
        assert_eq!(events.last().unwrap().1["output"], "one two three");
    }
    assert_eq!(agent.ended().await, 0);
}

#[tokio::test]
async fn an_idle_agent_ends_at_once_although_connections_are_open() {
    for signal in [Signal::TERM, Signal::INT] {
        let mut agent = agent("qa").start().await;
        agent.get("/livez").await;
        agent.signal(signal);
        assert_eq!(agent.ended().await, 0);
    }
}

#[tokio::test]
async fn the_drain_timeout_cuts_and_says_so_in_the_exit_status() {
    let place = open_place();
    let (mut agent, response) = at_work(place.path(), "100ms").await;
    agent.signal(Signal::TERM);
    assert_eq!(agent.ended().await, 1);
    assert!(response.text().await.is_err(), "a reply that was cut never looks complete");
}

#[tokio::test]
async fn a_second_signal_ends_it_at_once() {
    let place = open_place();
    let (mut agent, _response) = at_work(place.path(), "60s").await;
    agent.signal(Signal::TERM);
    while agent.get("/readyz").await.0 != 503 {}
    agent.signal(Signal::INT);
    assert_eq!(agent.ended().await, 130);
}

#[tokio::test]
async fn what_a_killed_agent_left_is_removed_by_the_next_and_what_a_living_one_has_is_not() {
    let place = open_place();
    let (mut killed, _response) = at_work(place.path(), "60s").await;
    killed.signal(Signal::KILL);
    killed.ended().await;
    let count = || std::fs::read_dir(place.path()).unwrap().count();
    assert_eq!(count(), 1);
    let start = async || agent("coding").flag("--workspace", place.path()).start().await;
    let (_first, _second) = (start().await, start().await);
    until("only those of the living are there", || count() == 2).await;
}
