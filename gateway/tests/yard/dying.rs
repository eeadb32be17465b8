//! A replica that is killed while it works.

use std::time::Instant;

use rustix::process::{Pid, Signal, kill_process};

use crate::harness::{until, yard};
use crate::load::Load;
use crate::processes::until_gone;
use crate::table::{put_in, shipped};

#[tokio::test]
async fn a_killed_replica_fails_only_what_it_had_begun_and_is_started_again() {
    let table = put_in(&shipped(), "agents.qa.scale", "min = 1", "min = 2");
    let yard = yard(&table).start().await;
    yard.until_replicas("qa", 2).await;
    let load = Load::start(&yard, "qa", 4);
    load.goes_on().await;
    let before = yard.replicas("qa");
    kill_process(Pid::from_raw(before[0].cast_signed()).unwrap(), Signal::KILL).unwrap();
    until_gone(&before[..1]).await;
    let gone = Instant::now();

    let line = yard.log.line(" was killed by SIGKILL").await;
    assert!(line.starts_with("up | qa-") && line.contains("starting it again in 200 ms"), "{line}");
    until("there are two again", async || yard.replicas("qa").len() == 2).await;
    yard.until_replicas("qa", 2).await;
    load.goes_on().await;
    assert_eq!(yard.log.with(" was killed by SIGKILL").len(), 1);
    for failure in load.end().await {
        assert!(failure.began < gone, "begun after the replica was gone: {failure:?}");
        assert!(failure.what.contains("\"upstream-reset\""), "{failure:?}");
    }
    yard.end().await;
}
