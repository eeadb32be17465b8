//! What a command in the sandbox can and cannot do, under each set of protections that a machine may offer.

use std::collections::BTreeMap;

use serde_json::{Value, json};
use tokio::process::Command;

use crate::harness::{Agent, Builder, agent, marker, runs};

/// The machine does not let the agent make namespaces, as in most containers.
pub(crate) fn no_namespaces(command: &mut Command) {
    use seccompiler::{BpfProgram, SeccompAction, SeccompFilter};
    let rules = BTreeMap::from([(libc::SYS_unshare, vec![])]);
    let refuse = SeccompAction::Errno(libc::EPERM.unsigned_abs());
    let arch = std::env::consts::ARCH.try_into().unwrap();
    let filter = SeccompFilter::new(rules, SeccompAction::Allow, refuse, arch).unwrap();
    let program = BpfProgram::try_from(filter).unwrap();
    // SAFETY: between fork and exec only prctl and seccomp are called, on memory made before.
    #[allow(unsafe_code)]
    unsafe {
        command.pre_exec(move || {
            seccompiler::apply_filter(&program).map_err(|_| std::io::ErrorKind::Other.into())
        });
    }
}

fn nobody(command: &mut Command) {
    command.uid(65_534).gid(65_534);
}

/// The agent under each set of protections; what needs root to be set up is left out without it.
fn agents() -> Vec<(&'static str, Builder)> {
    let mut all = vec![
        ("as it is", agent("coding")),
        ("without namespaces", agent("coding").with(no_namespaces)),
    ];
    if rustix::process::geteuid().is_root() {
        all.push(("unprivileged", agent("coding").with(nobody)));
        all.push((
            "unprivileged, without namespaces",
            agent("coding").with(nobody).with(no_namespaces),
        ));
    }
    all
}

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
    for (name, builder) in agents() {
        let agent = builder.env("PASSWORD", "hunter2").env("AGENT_MODEL", "").start().await;
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

        let (killed, _) = run(&agent, "kill -9 $PPID; kill -9 -1; exit 7").await;
        assert!(
            killed["error"].is_null() && agent.get("/livez").await.0 == 200,
            "{name}: {killed}"
        );
    }
}

#[tokio::test]
async fn time_is_bounded() {
    for (name, builder) in agents() {
        let agent = builder.flag("--run-timeout", "300ms").start().await;
        let marker = marker();
        let (ran, said) =
            run(&agent, &format!("trap '' TERM; sleep {marker} & echo begun; sleep {marker}"))
                .await;
        assert_eq!(ran["timed_out"], true, "{name}");
        assert!(said.contains("stopped after") && said.contains("begun"), "{name}: {said}");
        assert!(!runs(&marker), "{name}");
    }
}

#[tokio::test]
async fn memory_is_bounded_and_measured() {
    let agent = agent("coding").flag("--run-memory-mib", "200").start().await;
    let (ran, said) = run(&agent, "dd if=/dev/zero of=/dev/null bs=500M count=1").await;
    assert_ne!(ran["exit"], 0, "{said}");
    let (ran, _) = run(&agent, "dd if=/dev/zero of=/dev/null bs=50M count=1").await;
    let peak = ran["peak_memory_bytes"].as_u64().unwrap();
    assert_eq!(ran["exit"], 0);
    assert!((50 << 20..100 << 20).contains(&peak), "{peak}");
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
async fn files_are_bounded() {
    let agent = agent("coding").start().await;
    let (ran, _) = run(&agent, "head -c 300M /dev/zero > big").await;
    assert_ne!(ran["exit"], 0);
}

#[tokio::test]
async fn a_fork_bomb_is_bounded() {
    for (name, builder) in agents() {
        let agent = builder.flag("--run-processes", "40").flag("--run-timeout", "1s").start().await;
        let marker = marker();
        let bomb = format!(
            "bomb() {{ bomb | bomb & sleep {marker} & wait; }}; bomb 2>&1 | tail -c 100; sleep {marker}"
        );
        let (_, said) = run(&agent, &bomb).await;
        assert!(!runs(&marker), "{name}: {said}");
        let code = "for i in $(seq 100); do sleep 5 & done; jobs -r | wc -l";
        let (_, said) = run(&agent, code).await;
        assert!(
            said.contains("fork") && said.contains("Resource temporarily unavailable"),
            "{name}: {said}"
        );
        assert_eq!(agent.get("/livez").await.0, 200);
    }
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
