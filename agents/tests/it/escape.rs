//! The sandbox escape suite: attempts to get out, made for real at each level of protection. At each level it is said
//! which must be held; `escape.py` makes them.

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use serde_json::{Value, json};

use crate::harness::{Agent, open_place};
use crate::levels::{Level, levels};

/// What is outside, and waits to be reached.
struct World {
    place: tempfile::TempDir,
    _stream: std::os::unix::net::UnixListener,
    _datagrams: std::os::unix::net::UnixDatagram,
    _abstract: std::os::unix::net::UnixListener,
    said: Value,
}

impl World {
    fn new(level: &Level, agent: &Agent) -> Self {
        use std::os::linux::net::SocketAddrExt;
        use std::os::unix::net::{SocketAddr, UnixDatagram, UnixListener};
        let place = open_place();
        let path = |name: &str| place.path().join(name);
        for (name, mode) in [("public", 0o644), ("private", 0o600)] {
            std::fs::write(path(name), "private").unwrap();
            allow(&path(name), mode);
            std::os::unix::fs::chown(path(name), Some(level.user), Some(level.user)).unwrap();
        }
        std::fs::copy("/usr/bin/id", path("id")).unwrap();
        allow(&path("id"), 0o4755);
        let stream = UnixListener::bind(path("socket")).unwrap();
        let datagrams = UnixDatagram::bind(path("datagrams")).unwrap();
        allow(&path("socket"), 0o777);
        allow(&path("datagrams"), 0o777);
        let name = format!("switchyard-escape-{}", crate::harness::marker());
        let hidden = UnixListener::bind_addr(&SocketAddr::from_abstract_name(&name).unwrap());
        let said = json!({
            "agent": agent.child.id(),
            "arch": std::env::consts::ARCH,
            "port": agent.address().rsplit(':').next().unwrap().parse::<u16>().unwrap(),
            "public": path("public"),
            "private": path("private"),
            "open": place.path(),
            "set_user_id": path("id"),
            "socket": path("socket"),
            "datagrams": path("datagrams"),
            "abstract": name,
            "calls": calls(),
        });
        Self { place, _stream: stream, _datagrams: datagrams, _abstract: hidden.unwrap(), said }
    }
}

fn allow(path: &Path, mode: u32) {
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
}

fn calls() -> BTreeMap<&'static str, i64> {
    macro_rules! numbers {
        ($($name:ident $call:ident),* $(,)?) => {
            BTreeMap::from([$((stringify!($name), libc::$call)),*])
        };
    }
    numbers!(
        ptrace SYS_ptrace, process_vm_readv SYS_process_vm_readv, pidfd_open SYS_pidfd_open,
        pidfd_getfd SYS_pidfd_getfd, pidfd_send_signal SYS_pidfd_send_signal, socket SYS_socket,
        io_uring_setup SYS_io_uring_setup, unshare SYS_unshare, clone SYS_clone, clone3 SYS_clone3,
        setns SYS_setns, mount SYS_mount, umount2 SYS_umount2, fsopen SYS_fsopen,
        open_tree SYS_open_tree, pivot_root SYS_pivot_root, name_to_handle_at SYS_name_to_handle_at,
        add_key SYS_add_key, keyctl SYS_keyctl, bpf SYS_bpf, perf_event_open SYS_perf_event_open,
        userfaultfd SYS_userfaultfd, mq_open SYS_mq_open, shmget SYS_shmget,
        memfd_create SYS_memfd_create,
    )
}

/// What holds an attempt; by nothing that is named here: what every process without privileges is refused anyway.
fn held_by(attempt: &str, level: &Level, supervised: bool) -> bool {
    let Level { namespaces, seccomp, landlock, scoped, own_user, .. } = *level;
    match attempt {
        "signal to the agent" | "signal to the agent by descriptor" => {
            namespaces || scoped || own_user
        }
        "limits of the agent" | "CPUs of the agent" | "priority of the agent" => {
            namespaces || seccomp || own_user
        }
        "reading the agent's private file"
        | "writing a file outside"
        | "shortening a file outside"
        | "listing the other workspaces" => landlock || own_user,
        // Names only, and it is the same user.
        "descriptors of the agent" | "becoming root" => own_user || level.user != 0,
        // By their owner, who is root, with or without capabilities.
        "reading /etc/shadow"
        | "writing /etc/hosts"
        | "writing /usr"
        | "writing /proc/sys"
        | "writing /proc/sysrq-trigger"
        | "cgroup files"
        | "a set-user-ID program" => landlock || own_user || level.user != 0,
        // Landlock has no right for that.
        "permissions of the agent's file" => own_user,
        "reading a public file outside"
        | "reading it by /proc/self/root"
        | "reading it through a link"
        | "reading it by a second name"
        | "reading it in a race"
        | "reading the kernel's log"
        | "making a file outside"
        | "making a folder outside"
        | "removing a file outside"
        | "moving a file outside"
        | "making a file in /dev/shm"
        | "making a file in /tmp"
        | "its own place in the order of kills"
        | "reading /sys" => landlock,
        _ if attempt.starts_with("listing ") => landlock,
        "the agent's port" => namespaces || seccomp,
        "a local socket by abstract name" => namespaces || seccomp || scoped,
        "typing into a terminal" => seccomp || landlock,
        "ptrace of itself"
        | "a local socket by path"
        | "a datagram from a pair"
        | "io_uring"
        | "socket by int 0x80"
        | "socket by x32"
        | "unshare by x32"
        | "unshare of users"
        | "clone with users"
        | "clone with everything"
        | "clone3 with users"
        | "file by handle"
        | "add_key"
        | "keyctl"
        | "bpf"
        | "perf_event_open"
        | "userfaultfd" => seccomp,
        _ if attempt.starts_with("socket of family ") => seccomp,
        "memory that outlives it" => seccomp && (supervised || !namespaces),
        "memory in a file of no process" => seccomp && supervised,
        _ => true,
    }
}

#[tokio::test]
async fn no_attempt_gets_out_where_what_holds_it_is_in_force() {
    let mut wrong = Vec::new();
    for level in levels() {
        let agent = level.builder().env("SECRET", "hunter2").start().await;
        let said = agent.ask("x").await["metadata"]["sandbox"].clone();
        level.check(&said);
        let world = World::new(&level, &agent);
        // JSON without true, false and null is Python.
        let input = format!("```python\nWORLD = {}\n{}```", world.said, include_str!("escape.py"));
        let reply = agent.ask(&input).await;
        let output = reply["output"].as_str().unwrap();
        assert!(output.contains("\ndone\n"), "{}: {output}", level.name);
        let mut out = Vec::new();
        for line in output.lines() {
            let Some((attempt, result)) = line.split_once(": ") else { continue };
            match result {
                "OUT" if held_by(attempt, &level, said["memory"] == "supervised") => {
                    wrong.push(format!("{}: {attempt}", level.name));
                }
                "OUT" => out.push(attempt),
                _ if result.starts_with("BROKEN") => wrong.push(format!("{}: {line}", level.name)),
                _ => {}
            }
        }
        assert!(output.matches(": held ").count() > 50, "{output}");
        eprintln!("{} {said}: not held: {out:?}", level.name);
        if level.landlock || level.own_user {
            let private = std::fs::read_to_string(world.place.path().join("private"));
            assert_eq!(private.unwrap(), "private", "{}", level.name);
        }
        assert_eq!(agent.get("/livez").await.0, 200, "{}", level.name);
    }
    assert!(wrong.is_empty(), "got out:\n{}", wrong.join("\n"));
}
