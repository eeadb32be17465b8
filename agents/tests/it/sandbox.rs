//! What a command in the sandbox can and cannot do, under each set of protections that a machine may offer.

use serde_json::{Value, json};

use crate::harness::{Agent, agent, marker, runs};
use crate::levels::{Level, levels};

async fn run(agent: &Agent, code: &str) -> (Value, String) {
    let reply = agent.ask(&format!("```bash\n{code}\n```")).await;
    let run = reply["metadata"]["runs"][0].clone();
    (run, reply["output"].as_str().unwrap().to_owned())
}

#[tokio::test]
async fn a_command_reaches_neither_the_network_nor_files_nor_secrets_outside() {
    let home = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let outside = home.path().join("outside");
    std::fs::write(&outside, "private").unwrap();
    for level in levels() {
        let Level { name, .. } = level;
        let agent = level.builder().env("PASSWORD", "hunter2").env("AGENT_MODEL", "").start().await;
        let protection = agent.ask("x").await["metadata"]["sandbox"].clone();
        eprintln!("{name}: {protection}");

        let port = agent.address().rsplit(':').next().unwrap();
        let (tcp, said) =
            run(&agent, &format!("exec 3<>/dev/tcp/127.0.0.1/{port} && echo connected")).await;
        let reached = tcp["exit"] == 0;
        assert_eq!(reached, protection["network"] == "open", "{name}: {said}");

        let (_, said) =
            run(&agent, "env; cat /proc/*/environ 2>/dev/null | tr '\\0' '\\n'; true").await;
        assert!(said.contains("HOME=/") && !said.contains("hunter2"), "{name}: {said}");

        let (_, said) = run(&agent, &format!("cat {}; echo x > {0}; id", outside.display())).await;
        if protection["files"] == "landlock" {
            assert!(!said.contains("private"), "{name}: {said}");
        }
        if protection["files"] == "landlock" || protection["user"] == "own" {
            assert_eq!(std::fs::read_to_string(&outside).unwrap(), "private", "{name}");
        }
        let (_, said) = run(&agent, "grep -E 'CapEff|CapPrm|NoNewPrivs' /proc/self/status").await;
        assert!(
            said.contains("CapEff:\t0000000000000000") && said.contains("NoNewPrivs:\t1"),
            "{name}: {said}"
        );

        if protection["processes"] == "supervised" {
            // It would end every process of that user.
            continue;
        }
        let (killed, _) = run(&agent, "kill -9 $PPID; kill -9 -1; exit 7").await;
        assert!(
            killed["error"].is_null() && agent.get("/livez").await.0 == 200,
            "{name}: {killed}"
        );
    }
}

#[tokio::test]
async fn time_is_bounded() {
    for level in levels() {
        let Level { name, .. } = level;
        let agent = level.builder().flag("--run-timeout", "300ms").start().await;
        let marker = marker();
        let (ran, said) =
            run(&agent, &format!("trap '' TERM; sleep {marker} & (setsid sleep {marker} &); echo begun; sleep {marker}"))
                .await;
        assert_eq!(ran["timed_out"], true, "{name}");
        assert!(said.contains("stopped after") && said.contains("begun"), "{name}: {said}");
        assert!(!runs(&marker), "{name}");
    }
}

#[tokio::test]
async fn output_is_bounded() {
    let agent = agent("coding").start().await;
    let (ran, said) = run(&agent, "echo first; yes | head -c 20000000; echo last").await;
    assert_eq!(ran["exit"], 0);
    assert!(said.contains("first") && said.contains("last") && said.contains("bytes left out"));
    assert!(said.len() < 70_000);
}

#[tokio::test]
async fn files_are_bounded_each_and_together() {
    for level in levels() {
        let agent = level.builder().flag("--workspace-mib", "300").start().await;
        let (ran, said) = run(&agent, "head -c 300M /dev/zero > big || wc -c < big").await;
        assert_eq!(ran["exit"], 0, "{}", level.name);
        assert!(said.contains("268435456"), "{}: {said}", level.name);
        let fill = "for i in $(seq 8); do head -c 50M /dev/zero > f$i; done; sleep 60";
        let (ran, said) = run(&agent, fill).await;
        assert_eq!(ran["timed_out"], false, "{}: {said}", level.name);
        assert!(
            said.contains("killed: its workspace grew over its limit of 300 MiB or 50000 files"),
            "{}: {said}",
            level.name
        );
    }
}

#[tokio::test]
async fn the_number_of_files_is_bounded() {
    let agent = agent("coding").start().await;
    let many = "import os, time\nfor i in range(52000): os.mknod(f'f{i}')\ntime.sleep(60)";
    let reply = agent.ask(&format!("```python\n{many}\n```")).await;
    let said = reply["output"].as_str().unwrap();
    assert!(said.contains("killed: its workspace grew over"), "{said}");
}

#[tokio::test]
async fn a_fork_bomb_is_bounded() {
    for level in levels() {
        let Level { name, .. } = level;
        let agent =
            level.builder().flag("--run-processes", "40").flag("--run-timeout", "1s").start().await;
        let marker = marker();
        let bomb = format!(
            "bomb() {{ bomb | bomb & sleep {marker} & wait; }}; bomb 2>&1 | tail -c 100; sleep {marker}"
        );
        let (_, said) = run(&agent, &bomb).await;
        assert!(!runs(&marker), "{name}: {said}");
        let code = "for i in $(seq 100); do sleep 5 & done; jobs -r | wc -l";
        let (_, said) = run(&agent, code).await;
        assert!(
            said.contains("Resource temporarily unavailable")
                || said.contains("killed: over its limit of 40 processes"),
            "{name}: {said}"
        );
        assert_eq!(agent.get("/livez").await.0, 200);
    }
}

#[tokio::test]
async fn what_programs_need_is_there() {
    let c = "int puts(const char *); int main(void) { puts(\"compiled\"); return 0; }";
    let python = "import ssl, socket, subprocess, threading, multiprocessing.pool
socket.socketpair()
thread = threading.Thread(target=print, args=('thread',)); thread.start(); thread.join()
print(subprocess.run(['echo', 'child'], capture_output=True, text=True).stdout)
print(open('/etc/hosts').read()[:0], __import__('pwd').getpwuid(0).pw_name)";
    for level in levels() {
        let Level { name, .. } = level;
        let agent = level.builder().start().await;
        let (ran, said) = run(&agent, &format!("printf '{c}' > a.c && gcc -o a a.c && ./a")).await;
        assert!(ran["exit"] == 0 && said.contains("compiled"), "{name}: {said}");
        let reply = agent.ask(&format!("```python\n{python}\n```")).await;
        let said = reply["output"].as_str().unwrap();
        for word in ["exit status 0", "thread", "child", "root"] {
            assert!(said.contains(word), "{name}: {said}");
        }
        let (ran, said) =
            run(&agent, "nice true; setsid true; ps > ps.txt; cat ps.txt | sort").await;
        assert_eq!(ran["exit"], 0, "{name}: {said}");
        let reply = agent
            .ask("```js\nimport { execSync } from 'node:child_process'\nconsole.log(execSync('echo node') + '')\n```")
            .await;
        let said = reply["output"].as_str().unwrap();
        let none = said.contains("this machine has no node");
        assert!(
            none || (said.contains("exit status 0") && said.contains("\nnode")),
            "{name}: {said}"
        );
    }
}

#[tokio::test]
async fn what_is_required_and_missing_is_named_and_the_agent_does_not_start() {
    for level in levels() {
        let required = level.builder().flag("--require-sandbox", "network, memory");
        assert_eq!(required.start().await.get("/livez").await.0, 200);
        let full = level.builder().env("AGENT_REQUIRE_SANDBOX", "full");
        let apart = level.namespaces || level.own_user || level.scoped;
        if level.landlock && apart {
            assert_eq!(full.start().await.get("/livez").await.0, 200);
            continue;
        }
        let (code, said) = full.fail().await;
        assert_eq!(code, Some(1), "{said}");
        assert!(said.contains("agent: --require-sandbox: not in force here: "), "{said}");
        let no_files = said.contains("files: the kernel's Landlock is missing");
        assert_eq!(no_files, !level.landlock, "{said}");
        assert_eq!(said.contains("processes: no namespaces ("), !apart, "{said}");
    }
    let too_much =
        agent("coding").flag("--require-sandbox", "memory").flag("--run-memory-mib", "1048576");
    let (_, said) = too_much.fail().await;
    assert!(
        said.contains("memory: 4 commands of 1048576 MiB and the agent's 256 MiB don't fit"),
        "{said}"
    );
    let (code, said) = agent("coding").flag("--require-sandbox", "disk").fail().await;
    assert!(
        code == Some(2) && said.contains("`disk` is no protection; write full, or some of"),
        "{said}"
    );
}

#[tokio::test]
async fn commands_beyond_those_at_once_wait_for_their_turn() {
    let agent = agent("coding").flag("--run-at-once", "1").start().await;
    let marker = marker();
    let first = agent.post(&json!({"input": format!("```sh\nsleep {marker}\n```")}));
    let first = tokio::spawn(first.send());
    crate::harness::until("the first runs", || runs(&marker)).await;
    let second = agent.post(&json!({"input": "```sh\necho second\n```"}));
    let mut second = tokio::spawn(second.send());
    let early = tokio::time::timeout(std::time::Duration::from_millis(300), &mut second).await;
    assert!(early.is_err(), "it did not wait");
    first.abort();
    let reply = crate::harness::reply(second.await.unwrap().unwrap()).await;
    assert!(reply["output"].as_str().unwrap().contains("second\n"));
}

#[tokio::test]
async fn exit_statuses_and_signals_are_told() {
    let agent = agent("coding").start().await;
    assert_eq!(run(&agent, "exit 3").await.0["exit"], 3);
    assert_eq!(run(&agent, "kill -SEGV $$").await.0["signal"], 11);
    let (_, said) = run(&agent, "echo out; echo err >&2; echo out again").await;
    assert!(said.contains("out\nerr\nout again"), "{said}");
}

#[tokio::test]
async fn a_block_that_cannot_be_run_says_why() {
    let agent = agent("coding").start().await;
    let reply = agent.ask("```\nls\n```\n```cobol\nx\n```").await;
    let output = reply["output"].as_str().unwrap();
    assert!(output.contains("Block 1 () was not run: it names no language"), "{output}");
    assert!(output.contains("Block 2 (cobol) was not run: no interpreter for `cobol`"), "{output}");
    let nothing = agent.ask("please write me a program").await;
    assert!(nothing["output"].as_str().unwrap().contains("no fenced code block"));
}

#[tokio::test]
async fn a_session_keeps_its_files_and_no_other_sees_them() {
    let agent = agent("coding").start().await;
    let ask = async |session: Value, code: &str| {
        let body = json!({"input": format!("```sh\n{code}\n```"), "session_id": session});
        let reply = crate::harness::reply(agent.post(&body).send().await.unwrap()).await;
        reply["output"].as_str().unwrap().to_owned()
    };
    ask(json!("a"), "mkdir -p d && chmod 0 d; echo kept > file").await;
    assert!(ask(json!("a"), "cat file").await.contains("kept"));
    assert!(!ask(json!("b"), "cat file ../*/file").await.contains("kept"));
    assert!(!ask(Value::Null, "cat file").await.contains("kept"));
}
