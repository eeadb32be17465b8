//! The `coding` agent with a model: tools used, misused, and without end.

use serde_json::{Value, json};

use crate::harness::{Agent, agent};
use crate::model_server::{ModelServer, Script};

async fn agent_with(server: &ModelServer) -> Agent {
    agent("coding")
        .env("OPENAI_BASE_URL", &server.url)
        .env("OPENAI_API_KEY", "sk-very-secret")
        .env("AGENT_MODEL", "m")
        .start()
        .await
}

/// What the model was told of its `nth` turn's calls.
fn told(server: &ModelServer, nth: usize) -> Vec<String> {
    let seen = server.seen();
    let messages = seen[nth + 1].body["messages"].as_array().unwrap();
    let last_turn = messages.iter().rposition(|message| message["role"] == "assistant").unwrap();
    let results = &messages[last_turn + 1..];
    results.iter().map(|message| message["content"].as_str().unwrap().to_owned()).collect()
}

#[tokio::test]
async fn a_model_works_with_its_tools_and_each_step_is_streamed() {
    let server = ModelServer::start(vec![
        Script::calls(&[
            ("write", r#"{"path":"src/a.sh","content":"echo $((6*7))"}"#),
            ("run", r#"{"command":"sh src/a.sh"}"#),
        ]),
        Script::calls(&[("list", ""), ("read", r#"{"path":"src/a.sh"}"#)]),
        Script::says("It is 42."),
    ])
    .await;
    let agent = agent_with(&server).await;
    let events = agent.events(&json!({"input": "compute"})).await;
    let names: Vec<&str> = events.iter().map(|(name, _)| name.as_str()).collect();
    let round = ["step", "tool_call", "tool_result", "tool_call", "tool_result"];
    // Those that only look run beside each other: the second may be called before the first has its result.
    let looks = ["step", "tool_call", "tool_call", "tool_result", "tool_result"];
    let last = &["step", "token", "final"][..];
    let either = [[&round[..], &looks[..], last].concat(), [&round[..], &round[..], last].concat()];
    assert!(either.contains(&names), "{names:?}");
    assert_eq!(events[1].1["arguments"]["path"], "src/a.sh");
    assert!(events[4].1["output"].as_str().unwrap().contains("42\n"), "{}", events[4].1);
    assert_eq!(told(&server, 1), ["src/\nsrc/a.sh  13 bytes", "echo $((6*7))"]);
    let last = &events.last().unwrap().1;
    assert_eq!(last["output"], "It is 42.");
    assert_eq!(last["metadata"]["steps"], 3);
    assert_eq!(last["metadata"]["usage"]["total_tokens"], 45);
}

#[tokio::test]
async fn a_wrong_call_is_answered_with_what_is_wrong() {
    let server = ModelServer::start(vec![
        Script::calls(&[
            ("run", r#"{"command": "ls"#),
            ("launch", "{}"),
            ("read", "{}"),
            ("run", r#"{"command": ["ls"]}"#),
            ("read", r#"{"path": "missing"}"#),
        ]),
        Script::says("Sorry."),
    ])
    .await;
    let agent = agent_with(&server).await;
    let reply = agent.ask("x").await;
    assert_eq!(reply["output"], "Sorry.");
    let told = told(&server, 0);
    assert!(told.iter().all(|result| result.starts_with("error: ")), "{told:?}");
    assert!(told[1].contains("no tool `launch`"), "{told:?}");
    assert!(told[2].contains("missing field `path`"), "{told:?}");
    let turn = &server.seen()[1].body["messages"][2]["tool_calls"][0]["function"]["arguments"];
    assert_eq!(turn, "{}", "servers refuse a conversation with broken arguments");
}

#[tokio::test]
async fn a_file_is_edited_searched_and_read_in_part() {
    let lines: String = (1..=40).map(|n| format!("line {n}\n")).collect();
    let write = json!({"path": "src/a.txt", "content": lines}).to_string();
    let edit = |old: &str, new: &str| {
        json!({"path": "src/a.txt", "old_string": old, "new_string": new}).to_string()
    };
    let (once, twice, none) =
        (edit("line 17\n", "changed\n"), edit("line 2", "x"), edit("nothing", "x"));
    let server = ModelServer::start(vec![
        Script::calls(&[
            ("write", &write),
            ("edit", &once),
            ("edit", &twice),
            ("edit", &none),
            ("search", r#"{"pattern": "^ch.*d$", "glob": "*.txt"}"#),
            ("read", r#"{"path": "src/a.txt", "start_line": 16, "end_line": 18}"#),
            ("search", r#"{"pattern": "("}"#),
        ]),
        Script::says("ok"),
    ])
    .await;
    agent_with(&server).await.ask("x").await;
    let told = told(&server, 0);
    assert_eq!(told[1], "edited src/a.txt in line 17");
    assert!(
        told[2].starts_with("error: src/a.txt: old_string occurs 11 times, in lines 2, 20,"),
        "{told:?}"
    );
    assert!(told[3].contains("old_string is not in the file"), "{told:?}");
    assert_eq!(told[4], "src/a.txt:17:changed");
    assert!(told[5].starts_with("line 16\nchanged\nline 18\n… more in the file"), "{told:?}");
    assert!(told[6].starts_with("error: the pattern is no regular expression"), "{told:?}");
}

#[tokio::test]
async fn a_full_workspace_takes_no_more_until_there_is_room() {
    let fill = r#"{"command": "head -c 1020K /dev/zero > big"}"#;
    let write = json!({"path": "more", "content": "x".repeat(8_000)}).to_string();
    let server = ModelServer::start(vec![
        Script::calls(&[
            ("run", fill),
            ("write", &write),
            ("run", r#"{"command": "rm big"}"#),
            ("write", &write),
        ]),
        Script::says("ok"),
    ])
    .await;
    let agent = agent("coding").env("OPENAI_BASE_URL", &server.url).env("AGENT_MODEL", "m");
    agent.flag("--workspace-mib", "1").start().await.ask("x").await;
    let told = told(&server, 0);
    assert!(told[0].contains("exit status 0"), "{told:?}");
    assert!(
        told[1].starts_with("error: the workspace is full: it holds 0 MiB in 1 files, of 1 MiB"),
        "{told:?}"
    );
    assert!(told[1].ends_with("remove what is not needed, with run"), "{told:?}");
    assert_eq!(told[3], "wrote 8000 bytes to more");
}

#[tokio::test]
async fn requests_of_one_session_at_once_leave_each_file_whole() {
    const LENGTH: usize = 4_000;
    let write = |letter: &str| json!({"path": "f", "content": letter.repeat(LENGTH)}).to_string();
    let writes = ["a", "b", "c", "d"].map(write);
    let calls: Vec<_> = writes.iter().map(|call| ("write", call.as_str())).collect();
    // Whichever request gets which, all write, and all get their last word.
    let mut scripts = vec![Script::calls(&calls); 8];
    scripts.push(Script::says("ok"));
    let server = ModelServer::start(scripts).await;
    let place = crate::harness::open_place();
    let agent = agent("coding").env("OPENAI_BASE_URL", &server.url).env("AGENT_MODEL", "m");
    let agent = agent.flag("--workspace", place.path()).start().await;
    let ask = json!({"input": "x", "session_id": "s"});
    let asked: Vec<_> = (0..4).map(|_| tokio::spawn(agent.post(&ask).send())).collect();
    for asked in asked {
        crate::harness::reply(asked.await.unwrap().unwrap()).await;
    }
    let below =
        |dir: &std::path::Path| std::fs::read_dir(dir).unwrap().map(|it| it.unwrap().path());
    let own = below(place.path()).next().unwrap();
    let session = below(&own).find(|path| path.is_dir()).unwrap();
    let files: Vec<_> = below(&session).collect();
    assert_eq!(files, [session.join("f")], "something is left over");
    let text = std::fs::read(&files[0]).unwrap();
    assert!(text.len() == LENGTH && text.iter().all(|byte| *byte == text[0]));
}

#[tokio::test]
async fn no_path_leads_out_of_the_workspace() {
    let place = tempfile::tempdir().unwrap();
    let outside = place.path().join("outside");
    std::fs::write(&outside, "private").unwrap();
    let link =
        format!(r#"{{"command":"ln -s {} link; ln -s / root; mkfifo pipe"}}"#, outside.display());
    let path = |path: &str| json!({ "path": path }).to_string();
    let write = json!({"path": "link", "content": "gone"}).to_string();
    let absolute = path(outside.to_str().unwrap());
    let up = path("../../../../etc/passwd");
    let (by_link, by_folder, pipe) = (path("link"), path("root/etc/passwd"), path("pipe"));
    let server = ModelServer::start(vec![
        Script::calls(&[
            ("run", &link),
            ("read", &by_link),
            ("write", &write),
            ("read", &by_folder),
            ("list", &path("root")),
            ("read", &absolute),
            ("read", &up),
            ("read", &pipe),
        ]),
        Script::says("ok"),
    ])
    .await;
    agent_with(&server).await.ask("x").await;
    let told = told(&server, 0);
    assert!(told[0].contains("exit status 0"), "{told:?}");
    assert!(told[1..].iter().all(|result| result.starts_with("error: ")), "{told:?}");
    assert_eq!(std::fs::read_to_string(outside).unwrap(), "private");
}

#[tokio::test]
async fn a_command_finds_no_key() {
    let command = r#"{"command":"env; cat /proc/*/environ | tr '\\0' '\\n'; grep -a sk-very /proc/*/cmdline; echo done"}"#;
    let server =
        ModelServer::start(vec![Script::calls(&[("run", command)]), Script::says("ok")]).await;
    agent_with(&server).await.ask("x").await;
    let told = told(&server, 0);
    assert!(told[0].contains("done") && !told[0].contains("sk-very-secret"), "{told:?}");
}

#[tokio::test]
async fn a_loop_without_end_is_ended() {
    let server = ModelServer::start(vec![Script::calls(&[("list", "{}")])]).await;
    let reply = agent_with(&server).await.ask("x").await;
    assert_eq!(server.seen().len(), 20);
    assert_eq!(reply["metadata"]["finish_reason"], "max-steps");
    assert!(reply["output"].as_str().unwrap().contains("20 steps"));
}

#[tokio::test]
async fn a_call_that_is_only_text_is_an_answer() {
    let server = ModelServer::start(vec![Script::says(
        r#"{"name": "run", "arguments": {"command": "ls"}}"#,
    )])
    .await;
    let reply: Value = agent_with(&server).await.ask("x").await;
    assert!(reply["output"].as_str().unwrap().contains("\"run\""));
}
