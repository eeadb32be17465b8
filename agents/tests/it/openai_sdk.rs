//! The scripted model server is as the official `openai` SDK for Python expects one, so that what our agents are tested
//! with has the shapes that others send.
//!
//! The SDK is installed below `target/clients/`, at the version of `tests/openai_sdk/requirements.txt`.

use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::json;
use tokio::process::Command;
use tokio::sync::OnceCell;

use crate::model_server::{ModelServer, Script, begin, end, text};

/// For an installation over the network.
const INSTALL: Duration = Duration::from_secs(300);
/// For one scenario: most of it is Python's start.
const SCENARIO: Duration = Duration::from_secs(120);

/// Where the scenarios are.
fn sources() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/openai_sdk")
}

/// A Python that has the SDK. It is installed once.
async fn python() -> &'static Path {
    static PYTHON: OnceCell<PathBuf> = OnceCell::const_new();
    PYTHON.get_or_init(installed).await
}

async fn installed() -> PathBuf {
    // target/<profile>/agent
    let binary = Path::new(env!("CARGO_BIN_EXE_agent"));
    let target = binary.parent().and_then(Path::parent).unwrap();
    let folder = target.join("clients/openai-sdk");
    std::fs::create_dir_all(&folder).unwrap();
    let (venv, stamp) = (folder.join("venv"), folder.join("installed"));
    let requirements = sources().join("requirements.txt");
    let wanted = std::fs::read_to_string(&requirements).unwrap();
    if std::fs::read_to_string(&stamp).ok().as_ref() != Some(&wanted) {
        run(INSTALL, Command::new("python3").args(["-m", "venv", "--clear"]).arg(&venv)).await;
        let mut install = Command::new(venv.join("bin/pip"));
        install.args(["install", "--quiet", "--disable-pip-version-check", "--requirement"]);
        run(INSTALL, install.arg(&requirements)).await;
        std::fs::write(&stamp, &wanted).unwrap();
    }
    venv.join("bin/python")
}

/// Runs a command to its end, which has to be a good one; gives what it printed.
async fn run(within: Duration, command: &mut Command) -> String {
    let program = command.as_std().get_program().to_string_lossy().into_owned();
    let ended = tokio::time::timeout(within, command.kill_on_drop(true).output()).await;
    let output = ended.unwrap_or_else(|_| panic!("{program} did not end within {within:?}"));
    let output =
        output.unwrap_or_else(|e| panic!("{program} can't be run, is it installed? ({e})"));
    let said = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let (out, err) = (said(&output.stdout), said(&output.stderr));
    assert!(output.status.success(), "{program}: {out}{err}");
    out
}

/// Takes the SDK through a scenario against these scripts; gives how often it asked for a completion.
async fn check(scenario: &str, scripts: Vec<Script>) -> usize {
    let python = python().await;
    let server = ModelServer::start(scripts).await;
    let mut sdk = Command::new(python);
    sdk.env("PYTHONDONTWRITEBYTECODE", "1").arg(sources().join("check.py"));
    let said = run(SCENARIO, sdk.args([scenario, &server.url])).await;
    assert_eq!(said, "as expected\n", "{scenario}");
    let seen = server.seen();
    for request in &seen {
        assert!(request.head.starts_with("POST /v1/chat/completions "), "{}", request.head);
        assert!(request.head.to_lowercase().contains("authorization: bearer sk-test"));
    }
    seen.len()
}

fn busy() -> Script {
    let error = json!({"message": "slow down", "type": "requests", "param": null, "code": "rate_limit_exceeded"});
    Script::error("429 Too Many Requests", "retry-after: 1\r\n", &error)
}

#[tokio::test]
async fn the_list_of_models_is_parsed() {
    assert_eq!(check("models", vec![Script::says("unused")]).await, 0);
}

#[tokio::test]
async fn an_answer_in_one_piece_is_parsed() {
    assert_eq!(check("answer", vec![Script::answer("This one.")]).await, 1);
}

#[tokio::test]
async fn a_stream_is_parsed_with_its_usage() {
    let events = [begin(), text("This "), text("one."), end("stop")];
    assert_eq!(check("stream", vec![Script::stream(&events)]).await, 1);
    assert_eq!(check("usage", vec![Script::stream(&events)]).await, 1);
    assert_eq!(check("bytewise", vec![Script::bytewise(&events.concat())]).await, 1);
}

#[tokio::test]
async fn tool_calls_are_put_together_from_their_pieces() {
    let calls = [("look", r#"{"at": "here"}"#), ("look", r#"{"at": "there"}"#)];
    assert_eq!(check("tools", vec![Script::calls(&calls)]).await, 2);
}

#[tokio::test]
async fn structured_output_is_parsed_in_one_piece_and_streamed() {
    let output = r#"{"which": "this one", "sure": true}"#;
    let scripts = vec![Script::answer(output), Script::says(output)];
    assert_eq!(check("structured", scripts).await, 2);
}

#[tokio::test]
async fn errors_are_parsed_and_retry_after_is_heeded() {
    assert_eq!(check("busy", vec![busy(), Script::answer("This one.")]).await, 2);
    assert_eq!(check("still_busy", vec![busy()]).await, 1);
    let error = json!({"message": "too long", "type": "invalid_request_error", "param": "messages", "code": "context_length_exceeded"});
    assert_eq!(check("refused", vec![Script::error("400 Bad Request", "", &error)]).await, 1);
}

#[tokio::test]
async fn a_stream_that_is_cut_is_an_error() {
    assert_eq!(check("broken", vec![Script::broken(&[begin(), text("This ")])]).await, 1);
}
