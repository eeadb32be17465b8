//! A command's whole memory is bounded, and when it takes too much, the agent goes on: at each level of protection, and
//! in a container as small as the commands are greedy.

use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::harness::{Agent, agent, marker, open_place, runs};
use crate::levels::{Level, levels};

async fn python(agent: &Agent, code: &str) -> (Value, String) {
    let reply = agent.ask(&format!("```python\n{code}\n```")).await;
    let run = reply["metadata"]["runs"][0].clone();
    (run, reply["output"].as_str().unwrap().to_owned())
}

/// Takes `mib` in each of `processes`, none of which is large, and stays.
fn bomb(processes: u32, mib: u32, marker: &str) -> String {
    format!(
        "import os
for _ in range({processes}):
    if os.fork() == 0:
        os.setsid()
        kept = bytearray(b'x') * ({mib} << 20)
        os.spawnlp(os.P_WAIT, 'sleep', 'sleep', '{marker}')
        os._exit(0)
for _ in range({processes}): os.wait()"
    )
}

#[tokio::test]
async fn a_bomb_of_several_processes_is_killed_and_the_agent_lives() {
    for level in levels() {
        let Level { name, .. } = level;
        let agent = level.builder().flag("--run-memory-mib", "200").start().await;
        let marker = marker();
        let (ran, said) = python(&agent, &bomb(5, 60, &marker)).await;
        assert!(said.contains("killed: over its memory limit of 200 MiB"), "{name}: {said}");
        assert_eq!(ran["timed_out"], false, "{name}: {said}");
        assert!(!runs(&marker), "{name}");
        let (ran, said) = python(&agent, "print(len(bytearray(b'x') * (50 << 20)))").await;
        assert_eq!(ran["exit"], 0, "{name}: {said}");
        let peak = ran["peak_memory_bytes"].as_u64().unwrap();
        assert!((50 << 20..200 << 20).contains(&peak), "{name}: {peak}");
    }
}

#[tokio::test]
async fn memory_that_forks_share_counts_once() {
    let code = "import os, time
kept = bytearray(b'x') * (120 << 20)
for _ in range(4):
    if os.fork() == 0:
        time.sleep(0.5)
        os._exit(0)
for _ in range(4): os.wait()";
    for level in levels() {
        let agent = level.builder().flag("--run-memory-mib", "300").start().await;
        let (ran, said) = python(&agent, code).await;
        assert_eq!(ran["exit"], 0, "{}: {said}", level.name);
    }
}

/// A memory cgroup that stands for a container's.
struct Container {
    dir: PathBuf,
    one: bool,
}

impl Container {
    const LIMIT: u64 = 512 << 20;

    /// `None`, and says so, where this machine lets nobody make one.
    fn new() -> Option<Self> {
        let own = std::fs::read_to_string("/proc/self/cgroup").unwrap();
        let path = |start: &str| own.lines().find_map(|line| line.split_once(start)).map(|it| it.1);
        let name = format!("agents-test-{}", marker());
        let one = path(":memory:")
            .map(|path| Path::new("/sys/fs/cgroup/memory").join(path.trim_start_matches('/')));
        let two = Path::new("/sys/fs/cgroup").to_owned();
        for (parent, one) in one.into_iter().map(|dir| (dir, true)).chain([(two, false)]) {
            let made = Self { dir: parent.join(&name), one };
            let file = if one { "memory.limit_in_bytes" } else { "memory.max" };
            let limit = made.dir.join(file);
            if std::fs::create_dir(&made.dir).is_ok()
                && limit.exists()
                && std::fs::write(limit, Self::LIMIT.to_string()).is_ok()
            {
                return Some(made);
            }
        }
        eprintln!("SKIPPED: no memory cgroup can be made here; run as root, with cgroups writable");
        None
    }

    fn apply(&self, command: &mut tokio::process::Command) {
        let door = self.dir.join("cgroup.procs");
        let mut door = std::fs::OpenOptions::new().write(true).open(door).unwrap();
        // SAFETY: between fork and exec one write to a file that is open already.
        #[allow(unsafe_code)]
        unsafe {
            command.pre_exec(move || std::io::Write::write_all(&mut door, b"0"));
        }
    }

    /// How many processes the kernel killed for want of memory in the container as a whole.
    fn kills(&self) -> u64 {
        let file = if self.one { "memory.oom_control" } else { "memory.events.local" };
        let text = std::fs::read_to_string(self.dir.join(file)).unwrap();
        let line = text.lines().find_map(|line| line.strip_prefix("oom_kill ")).unwrap();
        line.parse().unwrap()
    }
}

impl Drop for Container {
    fn drop(&mut self) {
        for _ in 0..100 {
            if std::fs::remove_dir(&self.dir).is_ok() {
                return;
            }
            for entry in std::fs::read_dir(&self.dir).into_iter().flatten().flatten() {
                let _ = std::fs::remove_dir(entry.path());
            }
            #[expect(
                clippy::disallowed_methods,
                reason = "the kernel lets go of the dead in its own time"
            )]
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
    }
}

#[tokio::test]
async fn a_containers_limit_is_shared_out_and_never_reached() {
    for level in levels() {
        let Some(container) = Container::new() else { return };
        let Level { name, .. } = level;
        let agent = level
            .builder()
            .with(|command| container.apply(command))
            .flag("--run-at-once", "2")
            .flag("--require-sandbox", "memory")
            .start()
            .await;
        let marker = marker();
        let bomb = bomb(8, 40, &marker);
        let (one, two) = tokio::join!(python(&agent, &bomb), python(&agent, &bomb));
        let kills = container.kills();
        let supervised = agent.ask("x").await["metadata"]["sandbox"]["memory"] == "supervised";
        if supervised && kills > 0 {
            // On a machine that is busy with other things the kernel may come first: to a command, never to the agent.
            eprintln!("{name}: the kernel was faster than the supervisor, {kills} times");
        } else {
            for (_, said) in [one, two] {
                assert!(
                    said.contains("killed: over its memory limit of 128 MiB"),
                    "{name}: {said}"
                );
            }
            assert_eq!(kills, 0, "{name}: the container ran out of memory");
        }
        assert!(!runs(&marker), "{name}");
        assert_eq!(agent.get("/livez").await.0, 200, "{name}");
        let left = std::fs::read_dir(&container.dir).unwrap().flatten();
        let left = left.filter(|it| it.file_name().as_encoded_bytes().starts_with(b"agent-run-"));
        assert_eq!(left.count(), 0, "{name}: a command's cgroup is left");
    }
}

#[tokio::test]
async fn memory_that_is_no_processs_is_noticed_before_the_container_is_full() {
    let Some(container) = Container::new() else { return };
    let Some(level) = levels().into_iter().find(|level| level.name.ends_with("as in a pod")) else {
        return;
    };
    let Ok(place) = tempfile::tempdir_in("/dev/shm") else {
        return eprintln!("SKIPPED: no /dev/shm");
    };
    std::os::unix::fs::chown(place.path(), Some(level.user), None).unwrap();
    let agent = level
        .builder()
        .with(|command| container.apply(command))
        .flag("--workspace", place.path())
        .flag("--workspace-mib", "4096")
        .start()
        .await;
    let fill = "import time
for number in range(60):
    open(f'file{number}', 'wb').write(b'x' * (10 << 20))
time.sleep(60)";
    let (ran, said) = python(&agent, fill).await;
    assert!(
        said.contains("killed: the agent and its commands together ran out of memory"),
        "{said}"
    );
    assert_eq!(ran["timed_out"], false);
    assert_eq!(container.kills(), 0);
    assert_eq!(agent.get("/livez").await.0, 200);
}

#[tokio::test]
async fn a_share_is_told_at_the_start_and_one_that_is_too_large_too() {
    let place = open_place();
    let agent = agent("coding")
        .flag("--workspace", place.path())
        .flag("--run-memory-mib", "1000000")
        .start()
        .await;
    let log = agent.log();
    assert!(log.contains("memory_mib") && log.contains("don't fit"), "{log}");
}
