//! The supervisor with real processes. The agents are this test binary itself, started again.

mod processes;
mod rig;

use std::time::Duration;

pub(super) use self::rig::agent;
use self::rig::{Rig, gone, limited, scaled, tiny, with_env, with_secret};
use super::limits::Limits;
use super::yard::Phase;

#[tokio::test]
async fn a_replica_is_listed_once_it_says_that_it_is_ready() {
    let folder = tempfile::tempdir().unwrap();
    let gate = folder.path().join("ready");
    let gated = with_env(tiny("qa"), "TINY_GATE", gate.to_str().unwrap());
    let mut rig = Rig::start(&[gated]);
    rig.line("qa-1 | tiny: listening").await;
    rig.line("qa-1 | tiny: not ready").await;
    assert_eq!(rig.listed("qa").len(), 0);
    std::fs::write(&gate, "").unwrap();
    let replica = rig.replicas("qa", 1).await.remove(0);
    assert_eq!(rig.get(&replica, "/env/HOST").await, "127.0.0.1");
    assert_eq!(rig.get(&replica, "/env/PORT").await, replica.endpoint.port.to_string());
    rig.line("try: curl -N http://127.0.0.1:8080/agents/qa/invoke").await;
    rig.end().await;
}

#[tokio::test]
async fn a_dead_replica_leaves_the_list_and_is_started_again() {
    let mut rig = Rig::start(&[tiny("qa")]);
    let first = rig.replicas("qa", 1).await.remove(0);
    rig.hit(&first, "/die").await;
    rig.replicas("qa", 0).await;
    rig.line("up | qa-1 exited with status 7").await;
    rig.line("starting it again in 200 ms").await;
    let second = rig.replicas("qa", 1).await.remove(0);
    assert_eq!(rig.get(&second, "/env/PORT").await, second.endpoint.port.to_string());
    rig.end().await;
}

#[tokio::test]
async fn edits_scale_up_and_down() {
    let mut rig = Rig::start(&[scaled(tiny("qa"), 1)]);
    rig.replicas("qa", 1).await;
    rig.edit(&[scaled(tiny("qa"), 3)]);
    let three = rig.replicas("qa", 3).await;
    assert_eq!(rig.desired("qa"), 3);
    rig.edit(&[scaled(tiny("qa"), 0)]);
    rig.replicas("qa", 0).await;
    rig.line("up | qa-3 stopped").await;
    for replica in three {
        rig.refused(&replica).await;
    }
    rig.end().await;
}

#[tokio::test]
async fn a_changed_deployment_replaces_replicas_without_a_gap() {
    let mut rig = Rig::start(&[scaled(with_env(tiny("qa"), "MARK", "old"), 2)]);
    let old = rig.replicas("qa", 2).await;
    let fewest = rig.fewest("qa");
    rig.edit(&[scaled(with_env(tiny("qa"), "MARK", "new"), 2)]);
    for replica in &old {
        rig.until(|rig| !rig.listed("qa").iter().any(|now| now.endpoint == replica.endpoint)).await;
    }
    for replica in rig.replicas("qa", 2).await {
        assert_eq!(rig.get(&replica, "/env/MARK").await, "new");
    }
    assert_eq!(*fewest.borrow(), 2);
    rig.end().await;
}

#[tokio::test]
async fn a_change_that_can_not_run_leaves_the_old_replicas_at_work() {
    let mut rig = Rig::start(&[tiny("qa")]);
    let old = rig.replicas("qa", 1).await.remove(0);
    rig.edit(&[agent("qa", &["no-such-program-here"])]);
    rig.line("there is no program \"no-such-program-here\"").await;
    assert_eq!(rig.get(&old, "/env/HOST").await, "127.0.0.1");
    rig.edit(&[with_env(tiny("qa"), "MARK", "mended")]);
    rig.until(|rig| rig.listed("qa").iter().any(|now| now.endpoint != old.endpoint)).await;
    rig.line("up | qa-1 stopped").await;
    rig.end().await;
}

#[tokio::test]
async fn a_removed_agent_is_unlisted_before_its_replicas_are_told_and_finishes_its_work() {
    let mut rig = Rig::start(&[tiny("qa"), tiny("coding")]);
    let replica = rig.replicas("qa", 1).await.remove(0);
    let slow = rig.open(&replica, "/until-told").await;
    rig.edit(&[tiny("coding")]);
    rig.line("qa-1 | tiny: told to end").await;
    assert!(!rig.knows("qa"));
    assert_eq!(slow.await.unwrap(), "finished");
    rig.line("up | qa-1 stopped: it exited with status 0").await;
    rig.replicas("coding", 1).await;
    rig.end().await;
}

#[tokio::test]
async fn the_end_waits_for_the_replicas_and_a_second_signal_does_not() {
    let mut rig = Rig::start(&[with_env(tiny("stubborn"), "TINY_STUBBORN", "1"), tiny("qa")]);
    let replica = rig.replicas("stubborn", 1).await.remove(0);
    rig.replicas("qa", 1).await;
    let pid = rig.pid(&replica).await;
    rig.phase(Phase::Drain);
    rig.line("up | qa-1 stopped").await;
    rig.line("stubborn-1 | tiny: told to end").await;
    rig.phase(Phase::Kill);
    rig.ended().await;
    rig.line("up | stubborn-1 was killed").await;
    gone(pid).await;
}

#[tokio::test]
async fn missing_secrets_keep_an_agent_from_starting_and_no_other() {
    let needy = with_secret(tiny("needy"), "SWITCHYARD_TEST_NO_SUCH_SECRET");
    let mut rig = Rig::start(&[needy, tiny("qa")]);
    rig.line(
        "up | needy isn't started: SWITCHYARD_TEST_NO_SUCH_SECRET (Secret vault, key k) \
         is not set in the environment",
    )
    .await;
    rig.replicas("qa", 1).await;
    assert_eq!((rig.desired("needy"), rig.listed("needy").len()), (1, 0));
    rig.edit(&[tiny("needy"), tiny("qa")]);
    rig.replicas("needy", 1).await;
    rig.end().await;
}

#[tokio::test]
async fn a_secret_goes_to_the_agents_that_name_it_and_to_no_other() {
    // PATH is the one variable that is set wherever tests run.
    let mut rig = Rig::start(&[with_secret(tiny("owner"), "PATH"), tiny("other")]);
    let owner = rig.replicas("owner", 1).await.remove(0);
    let other = rig.replicas("other", 1).await.remove(0);
    assert_eq!(rig.get(&owner, "/env/PATH").await, std::env::var("PATH").unwrap());
    assert_eq!(rig.get(&other, "/env/PATH").await, "");
    rig.end().await;
}

#[tokio::test]
async fn a_replica_over_its_memory_limit_is_killed_and_started_again() {
    let mut rig = Rig::start(&[limited(tiny("qa"), 64 << 20)]);
    let replica = rig.replicas("qa", 1).await.remove(0);
    rig.until(|rig| rig.memory("qa").is_some_and(|bytes| bytes < 64 << 20)).await;
    let cgroup = rig.said("memory limits are enforced by cgroup");
    rig.hit(&replica, "/hog").await;
    if cgroup {
        rig.line("up | qa-1 was killed by SIGKILL: out of memory").await;
    } else {
        eprintln!("no cgroup can be made here: only the resource limit is tested");
        rig.line("up | qa-1 was killed by SIGABRT").await;
    }
    rig.until(|rig| rig.listed("qa").iter().any(|now| now.endpoint != replica.endpoint)).await;
    rig.end().await;
}

#[tokio::test]
async fn without_cgroups_a_resource_limit_holds_and_the_log_says_so() {
    let limits = Limits::Process("for the test".to_owned());
    let mut rig = Rig::with(&[limited(tiny("qa"), 256 << 20)], |yard| yard.with_limits(limits));
    let replica = rig.replicas("qa", 1).await.remove(0);
    rig.until(|rig| rig.memory("qa").is_some()).await;
    rig.hit(&replica, "/hog").await;
    rig.line("up | qa-1 was killed by SIGABRT").await;
    rig.end().await;
}

#[tokio::test]
async fn a_replica_that_does_not_get_ready_is_given_up_and_tried_again() {
    let never = with_env(tiny("qa"), "TINY_GATE", "/nonexistent/gate");
    let mut rig = Rig::with(&[never], |yard| yard.start_within(Duration::from_millis(300)));
    rig.line("up | qa-1 didn't answer GET /readyz with 200 within 300 ms").await;
    rig.line("starting it again in 400 ms").await;
    assert_eq!(rig.listed("qa").len(), 0);
    rig.end().await;
}

#[tokio::test]
async fn replicas_do_not_share_the_terminals_signals() {
    let mut rig = Rig::start(&[tiny("qa")]);
    let replica = rig.replicas("qa", 1).await.remove(0);
    let pid = rustix::process::Pid::from_raw(rig.pid(&replica).await);
    assert_eq!(rustix::process::getpgid(pid).ok(), pid);
    rig.end().await;
}

#[tokio::test]
async fn replicas_die_with_a_yard_that_is_killed() {
    let (mut yard, pid) = processes::yard().await;
    assert!(std::path::Path::new(&format!("/proc/{pid}")).exists());
    yard.kill().await.unwrap();
    gone(pid).await;
}

#[tokio::test]
async fn agents_that_run_elsewhere_are_described_and_not_listed() {
    let mut external = agent("external", &[]);
    external.deployment = None;
    let mut sharing = tiny("sharing");
    sharing.shares = Some("qa".to_owned());
    let mut rig = Rig::start(&[external, sharing, scaled(tiny("qa"), 0)]);
    rig.line("external: not run here, http://127.0.0.1:1\n").await;
    rig.line("sharing: in the replicas of qa\n").await;
    rig.line("qa: parked (scale.min = 0)").await;
    rig.until(|rig| rig.knows("qa")).await;
    assert!(!rig.knows("external") && !rig.knows("sharing"));
    rig.end().await;
}
