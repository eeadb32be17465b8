//! The `coding` agent through the gateway: what it runs, what it tells, what it keeps away.

use std::process::Stdio;

use serde_json::json;
use tokio::io::AsyncReadExt;

use crate::gate;
use crate::harness::{soon, until, yard};
use crate::processes::until_gone;
use crate::table::{put_in, put_key, shipped};

const BLOCKS: &str = "\
Please run these:

```sh
echo from the shell
exit 3
```

```python
print(sum(range(10)))
data = bytearray(30_000_000)
```
";

#[tokio::test]
async fn blocks_are_run_and_their_outcome_is_reported() {
    let yard = yard(&shipped()).start().await;
    yard.until_replicas("coding", 1).await;
    let reply = yard.ask("coding", BLOCKS).await;
    assert_eq!(reply["metadata"]["model"], "none");
    let runs = &reply["metadata"]["runs"];
    assert_eq!((&runs[0]["exit"], &runs[1]["exit"]), (&json!(3), &json!(0)), "{reply}");
    assert!(runs[0]["time_ms"].is_u64() && runs[1]["peak_memory_bytes"].as_u64() > Some(30 << 20));
    let output = reply["output"].as_str().unwrap();
    assert!(output.contains("from the shell") && output.contains("45"), "{output}");
    assert!(output.contains("exit status 3") && output.contains("MiB"), "{output}");

    let events = yard.open("coding", BLOCKS).await.good(Vec::new()).await;
    let names: Vec<_> = events.iter().map(|event| event.name.as_str()).collect();
    let ways = names.iter().filter(|name| **name != "token").copied().collect::<Vec<_>>();
    let block = ["step", "tool_call", "tool_result"];
    assert_eq!(ways, [&block[..], &block[..], &["final"]].concat());
    yard.end().await;
}

#[tokio::test]
async fn a_block_is_told_while_the_next_one_runs() {
    let yard = yard(&shipped()).start().await;
    yard.until_replicas("coding", 1).await;
    let waiting = gate::waiting(&yard, "coding").await;
    let events = waiting.pass().await;
    assert!(events.last().unwrap().data["output"].as_str().unwrap().contains("passed the gate"));

    let mut command = yard.command(&["invoke", "coding", gate::INPUT, "--stream"]);
    let mut invoke = command.stdout(Stdio::piped()).spawn().unwrap();
    let mut out = invoke.stdout.take().unwrap();
    let (mut shown, mut piece) = (String::new(), [0; 4096]);
    while !shown.contains("first of two") {
        let read = soon("output of invoke", out.read(&mut piece)).await.unwrap();
        assert_ne!(read, 0, "{shown}");
        shown.push_str(std::str::from_utf8(&piece[..read]).unwrap());
    }
    gate::open(&gate::folder(&yard.tmp()).await);
    soon("the rest", out.read_to_string(&mut shown)).await.unwrap();
    assert!(shown.contains("passed the gate"), "{shown}");
    assert!(soon("invoke ends", invoke.wait()).await.unwrap().success());
    yard.end().await;
}

#[tokio::test]
async fn a_client_that_leaves_stops_the_block() {
    let yard = yard(&shipped()).start().await;
    yard.until_replicas("coding", 1).await;
    let waiting = gate::waiting(&yard, "coding").await;
    let block = gate::process(&yard).await;
    drop(waiting);
    until_gone(&[block]).await;
    until("nothing is in flight", async || yard.api("agents/coding").await["in_flight"] == 0).await;
    yard.end().await;
}

/// The bytes that a block may have are those that the table gives its replica.
#[tokio::test]
async fn a_block_that_takes_too_much_memory_is_killed_and_the_agent_lives() {
    let section = "agents.coding.deployment";
    let table = put_key(&shipped(), section, "command", r#"["agent", "--type", "coding"]"#);
    let table = put_key(&table, section, "requests", r#"{ cpu = "500m", memory = "64Mi" }"#);
    let table = put_key(&table, section, "limits", r#"{ memory = "256Mi" }"#);
    let yard = yard(&table).start().await;
    yard.until_replicas("coding", 1).await;
    if yard.group().await.is_some() {
        let hungry = "```python\nx = b'x' * 600_000_000\nprint('fed')\n```\n";
        let reply = yard.ask("coding", hungry).await;
        assert_eq!(reply["metadata"]["runs"][0]["signal"], 9, "{reply}");
    }
    yard.ask("coding", "```sh\ntrue\n```\n").await;
    let log = yard.log.clone();
    yard.end().await;
    log.line("up | coding-1 stopped: it exited with status 0").await;
    assert!(log.with("out of memory").is_empty());
}

#[tokio::test]
async fn a_block_reaches_neither_the_network_nor_the_callers_secrets() {
    let yard = yard(&shipped()).env("PASSWORD", "hunter2").start().await;
    yard.until_replicas("coding", 1).await;
    let address = yard.url.strip_prefix("http://").unwrap();
    let (host, port) = address.split_once(':').unwrap();
    let input = format!(
        "```python\nimport socket\nsocket.create_connection((\"{host}\", {port}), 5)\nprint(\"connected\")\n```\n\
         ```sh\nenv; cat /proc/*/environ 2>/dev/null | tr '\\0' '\\n'; echo looked\n```\n"
    );
    let reply = yard.ask("coding", &input).await;
    let open = reply["metadata"]["sandbox"]["network"] == "open";
    assert_eq!(reply["metadata"]["runs"][0]["exit"] == 0, open, "{reply}");
    let output = reply["output"].as_str().unwrap();
    assert!(output.contains("looked") && !output.contains("hunter2"), "{output}");
    yard.end().await;
}

#[tokio::test]
async fn a_session_finds_its_files_again_though_there_are_two_replicas() {
    let table = put_in(&shipped(), "agents.coding.scale", "min  = 1", "min  = 2");
    let yard = yard(&table).start().await;
    yard.until_replicas("coding", 2).await;
    for session in ["one", "two", "three"] {
        let write = format!("```sh\necho of {session} > note\n```\n");
        let (code, _, err) = yard.run(&["invoke", "coding", &write, "--session", session]).await;
        assert_eq!(code, Some(0), "{err}");
    }
    for session in ["one", "two", "three"] {
        let read = "```sh\ncat note\n```\n";
        let (code, out, err) = yard.run(&["invoke", "coding", read, "--session", session]).await;
        assert!(code == Some(0) && out.contains(&format!("of {session}")), "{out}{err}");
    }
    yard.end().await;
}
